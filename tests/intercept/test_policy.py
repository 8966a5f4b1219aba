"""Policy as programs meet it: the virtual loopback, the run's policy, and what falls through to the host."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from netcon.policy import Policy
from tests.intercept.conftest import ADDRESS, ADDRESS6, PRELUDE, Service
from tests.namespaces import Namespace, needs_namespaces
from tests.standalone import StandaloneService

NETWORK = "8056c2e21c000001"
HOST = "198.18.0.1"
"""An address of the namespace in which the program runs, which no network has."""
TOOLS = """
def is_kernels(sock):
    inode = os.readlink(f'/proc/self/fd/{sock.fileno()}')[8:-1]
    return inode not in {line.split()[6] for line in open('/proc/net/unix').read().splitlines()[1:]}
def udp(address):
    return socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
"""
LOOPBACKS = pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose loopback is virtual."""
    folder = tmp_path_factory.mktemp("virtual")
    with StandaloneService(folder, [f"{ADDRESS}/24", f"{ADDRESS6}/64"], policy="loopback virtual") as running:
        yield Service(running.path, "lwip")


def python(service: Service, code: str, policy: str | None = None, *, wrapper: tuple[str, ...] = ()) -> str:
    """Run under the library, with the run's `policy`; what it printed."""
    more = {} if policy is None else {"NETCON_POLICY": Policy.parse(policy).environment()}
    done = service.run([*wrapper, sys.executable, "-c", PRELUDE + TOOLS + code], **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


EXCHANGE = """
waiting = listener({0!r})
client = socket.socket(waiting.family)
client.connect(waiting.getsockname())
server, peer = waiting.accept()
client.sendall(b'x' * 100000)
assert len(server.recv(100000, socket.MSG_WAITALL)) == 100000
server.close(); assert client.recv(1) == b''
here, there = udp({0!r}), udp({0!r})
here.bind(({0!r}, 0))
there.sendto(b'hello', here.getsockname())
data, origin = here.recvfrom(100)
here.sendto(data.upper(), origin)
assert there.recv(100) == b'HELLO'
there.connect(here.getsockname()); there.send(b'again'); assert here.recv(9) == b'again'
print(*map(is_kernels, (waiting, client, here, there)))
"""


@LOOPBACKS
def test_loopback_is_virtual_on_request(virtual: Service, real_service: Service, address: str) -> None:
    code = EXCHANGE.format(address)
    assert python(virtual, code) == "False False False False\n"
    assert python(real_service, code, "loopback virtual") == "False False False False\n"
    assert python(real_service, code) == "True True True True\n"
    assert python(virtual, code, "loopback host") == "True True True True\n"


def test_localhost_and_the_wildcard_are_reached(virtual: Service) -> None:
    code = """
import asyncio
async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), None, 0)
    port = next(sock.getsockname()[1] for sock in server.sockets if sock.family == socket.AF_INET)
    for host in ('localhost', '127.0.0.1', '0.0.0.0', '127.3.3.3', ADDRESS):
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b''
        writer.close()
    server.close()
asyncio.run(main())
with contextlib.suppress(ConnectionRefusedError):
    socket.create_connection(('localhost', 9))
    raise SystemExit('connected')
names = dict(socket.if_nameindex()); assert names[1] == 'lo', names
request = fcntl.ioctl(socket.socket(), 0x8915, struct.pack('16s24x', b'lo'))
assert request[20:24] == bytes([127, 0, 0, 1])
"""
    python(virtual, code)


def test_a_run_reaches_the_wildcard(real_service: Service) -> None:
    """Written as IPv4-mapped, too."""
    code = """
with socket.create_server(('127.0.0.1', 0)) as listener:
    port = listener.getsockname()[1]
    for host in ('0.0.0.0', '::ffff:0.0.0.0'):
        with socket.create_connection((host, port)) as client:
            listener.accept()[0].close()
            assert not is_kernels(client), host
"""
    python(real_service, code, "loopback virtual")


def test_the_device_lo(virtual: Service) -> None:
    code = """
waiting = socket.socket(); waiting.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\\0')
waiting.bind(('', 0)); waiting.listen(); port = waiting.getsockname()[1]
socket.create_connection(('127.0.0.1', port)).close(); waiting.accept()[0].close()
client = socket.socket(); client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\\0')
assert error(client.connect, (SILENT, 9)) in ('ENETUNREACH', 'EINVAL')
"""
    python(virtual, code)


def test_the_run_is_asked_first(real_service: Service) -> None:
    code = """
attempts = [lambda: socket.create_connection(('127.0.0.1', 9)), lambda: socket.socket().bind(('127.0.0.1', 0)),
            lambda: udp('127.0.0.1').sendto(b'x', ('127.0.0.1', 9)), lambda: udp('127.0.0.1').connect(('127.0.0.1', 9)),
            lambda: socket.create_connection((ADDRESS, 7)), lambda: socket.create_connection((ADDRESS, 8)),
            lambda: udp(ADDRESS).sendto(b'x', (ADDRESS, 7)), lambda: udp(ADDRESS).sendto(b'x', (ADDRESS, 8))]
print(*[error(attempt) for attempt in attempts])
"""
    policy = f"loopback refuse; {ADDRESS} tcp 7 refuse; {ADDRESS} network {NETWORK}; udp 1-9 refuse"
    assert python(real_service, code, policy) == "EACCES EACCES EACCES EACCES EACCES ECONNREFUSED OK OK\n"
    assert python(real_service, code, f"udp 7 refuse; any network {0xBAD:016x}") == (
        "ENETUNREACH OK ENETUNREACH ENETUNREACH ENETUNREACH ENETUNREACH EACCES ENETUNREACH\n"
    ), "`any` is loopback, too, of which that network has none; of bind no line says anything"


@LOOPBACKS
def test_a_network_that_the_run_names_is_never_the_host(real_service: Service, address: str) -> None:
    """Its loopback is its own, though that of the service's policy is the host's."""
    for policy in (f"loopback network {NETWORK}", "loopback network"):
        assert python(real_service, EXCHANGE.format(address), policy) == "False False False False\n"


def test_a_malformed_policy_is_closed(real_service: Service) -> None:
    for text in ("", "1:", "1:0", "1:" + "00" * 40, "1:zz", "2:" + "00" * 8, "1:" + "00" * 5000, "1:0009000000000000"):
        done = real_service.run([sys.executable, "-c", PRELUDE + "print(error(socket.socket))"], NETCON_POLICY=text)
        assert (done.stdout, done.stderr.count("\n")) == ("ENETDOWN\n", 1)
        assert "NETCON_POLICY is not a policy" in done.stderr


@pytest.fixture(scope="module")
def inside() -> Iterator[Namespace]:
    with Namespace() as namespace:
        namespace.ip("address", "add", f"{HOST}/24", "dev", "lo")
        yield namespace


@needs_namespaces
def test_what_no_network_carries_may_be_the_hosts(real_service: Service, inside: Namespace) -> None:
    """In the program's own namespace, with the options and the port that it has chosen."""
    wrapper = tuple(inside.command())
    code = EXCHANGE.format(HOST)
    assert python(real_service, code, "default host", wrapper=wrapper) == "True True True True\n"
    assert python(real_service, code, f"{HOST}/32 host; bind {HOST} host", wrapper=wrapper) == "True True True True\n"
    closed = f"print(error(socket.create_connection, ({HOST!r}, 9)), error(socket.socket().bind, ({HOST!r}, 0)))"
    assert python(real_service, closed, wrapper=wrapper) == "ENETUNREACH EADDRNOTAVAIL\n"
    assert python(real_service, closed, "default host", wrapper=wrapper) == "ECONNREFUSED OK\n"
    options = f"""
client = socket.socket()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); client.settimeout(5)
client.bind(('', 41000))
waiting = listener({HOST!r})
client.connect(waiting.getsockname())
assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) and waiting.accept()[1] == ({HOST!r}, 41000)
"""
    python(real_service, options, "default host", wrapper=wrapper)


@needs_namespaces
def test_a_server_on_the_host_with_virtual_upstreams(real_service: Service, inside: Namespace) -> None:
    code = """
upstream, front = listener(), socket.socket()
front.bind(('0.0.0.0', 41001)); front.listen()
client = socket.create_connection((ADDRESS, upstream.getsockname()[1]))
print(is_kernels(front), is_kernels(client), is_kernels(upstream))
"""
    assert python(real_service, code, "bind any tcp 41001 host", wrapper=tuple(inside.command())) == "True False False\n"


COPIES = """
waiting = socket.create_server(('127.0.0.1', 0))
client = socket.socket(); client.setblocking(False)
copies = [os.dup(client.fileno()) for _ in range(3)]
os.set_inheritable(copies[0], True)
first, second = select.epoll(), select.epoll()
first.register(client, select.EPOLLIN | select.EPOLLONESHOT)
second.register(copies[1], select.EPOLLOUT | select.EPOLLET)
second.register(os.pipe()[0], 0)
with contextlib.suppress(BlockingIOError):
    client.connect(waiting.getsockname())
server, _ = waiting.accept()
assert second.poll(10) == [(copies[1], select.EPOLLOUT)]
server.send(b'hello')
assert first.poll(10) == [(client.fileno(), select.EPOLLIN)] and first.poll(0) == []
assert os.read(copies[2], 9) == b'hello'
os.write(copies[0], b'answer')
assert server.recv(9) == b'answer'
print([os.get_inheritable(fd) for fd in copies], is_kernels(client))
"""


def test_copies_and_epoll_sets_follow_to_the_host(real_service: Service) -> None:
    assert python(real_service, COPIES) == "[True, False, False] True\n"


def test_what_took_the_number_of_a_closed_copy_is_left_alone(real_service: Service) -> None:
    """The kernel keeps a closed number in an epoll set as long as the socket is open elsewhere."""
    code = """
client, watching = socket.socket(), select.epoll()
copy = os.dup(client.fileno())
watching.register(copy, select.EPOLLIN)
end, other = os.pipe()
os.dup2(end, copy)
os.write(other, b'x')
waiting = socket.create_server(('127.0.0.1', 0))
client.connect(waiting.getsockname())
print(is_kernels(client), watching.poll(0))
"""
    assert python(real_service, code) == "True []\n"


def test_copies_and_epoll_sets_follow_to_a_new_pair(virtual: Service) -> None:
    """A connect after a failed one gets a new pair."""
    failed = """
real_connect = socket.socket.connect
def connect(sock, address):
    sock.setblocking(True)
    assert error(real_connect, sock, ('127.0.0.1', 9)) == 'ECONNREFUSED'
    sock.setblocking(False)
    real_connect(sock, address)
"""
    code = COPIES.replace("client.connect(", "connect(client, ")
    assert python(virtual, failed + code) == "[True, False, False] False\n"
