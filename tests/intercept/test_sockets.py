"""Sockets of a program under the library, as a feature list; with the fake service and with the real one."""

from __future__ import annotations

import pytest

from tests.intercept.conftest import Service


def test_connect_accept_echo_and_end_of_file(service: Service) -> None:
    service.python("""
client, server = connection()
client.sendall(b'ping' * 1000)
assert server.recv(4000, socket.MSG_WAITALL) == b'ping' * 1000
server.sendall(b'pong')
assert client.recv(4) == b'pong'
client.shutdown(socket.SHUT_WR)
assert server.recv(1) == b''
server.sendall(b'late')
server.close()
assert client.recv(9, socket.MSG_WAITALL) == b'late'
assert client.recv(1) == b''
""")


def test_ipv6(service: Service) -> None:
    service.python("""
client, server = connection(ADDRESS6)
assert client.getpeername() == server.getsockname() and server.getpeername() == client.getsockname()
assert client.getpeername()[0] == ADDRESS6 and len(client.getpeername()) == 4
client.sendall(b'six')
assert server.recv(3) == b'six'
""")


def test_names_of_all_stages(service: Service) -> None:
    service.python("""
fresh = socket.socket()
assert fresh.getsockname() == ('0.0.0.0', 0) and error(fresh.getpeername) == 'ENOTCONN'
fresh.bind((ADDRESS, 0))
assert fresh.getsockname()[0] == ADDRESS and fresh.getsockname()[1] > 0
fresh.listen()
assert fresh.getsockname()[0] == ADDRESS and error(fresh.getpeername) == 'ENOTCONN'
client = socket.create_connection(fresh.getsockname())
server, peer = fresh.accept()
assert peer == client.getsockname() == server.getpeername()
assert server.getsockname() == client.getpeername() == fresh.getsockname()
""")


def test_address_is_cut_to_the_room_and_its_length_told(service: Service) -> None:
    service.python("""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
waiting = listener()
room, length = ctypes.create_string_buffer(b'x' * 16, 16), ctypes.c_uint(4)
assert libc.getsockname(waiting.fileno(), room, ctypes.byref(length)) == 0
assert length.value == 16 and room.raw[4:] == b'x' * 12 and room.raw[:2] == struct.pack('=H', socket.AF_INET)
length.value = 0xffffffff
assert libc.getsockname(waiting.fileno(), room, ctypes.byref(length)) == -1 and ctypes.get_errno() == errno.EINVAL
""")


def test_refused(service: Service) -> None:
    service.python("assert error(socket.socket().connect, (ADDRESS, 1)) == 'ECONNREFUSED'")


def test_refused_without_blocking_tells_by_so_error_once(service: Service) -> None:
    service.python("""
client = socket.socket()
client.setblocking(False)
assert client.connect_ex((ADDRESS, 1)) == errno.EINPROGRESS
poll = select.poll()
poll.register(client, select.POLLOUT)
(_, events), = poll.poll(30000)
assert events & select.POLLERR and events & select.POLLHUP
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
""")


def test_connect_again_after_a_failure_keeps_number_and_flags(service: Service) -> None:
    service.python("""
waiting = listener()
client = socket.socket()
number = client.fileno()
os.set_inheritable(number, True)
client.settimeout(None)
client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 20, 0))
assert error(client.connect, (ADDRESS, 1)) == 'ECONNREFUSED'
assert error(client.connect, (ADDRESS, 1)) == 'ECONNREFUSED'
client.connect(waiting.getsockname())
assert client.fileno() == number and os.get_inheritable(number)
assert struct.unpack('ll', client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)) == (20, 0)
server, _ = waiting.accept()
client.sendall(b'again')
assert server.recv(5) == b'again'
assert error(client.connect, (ADDRESS, 1)) == 'EISCONN'
""")


def test_connect_without_blocking(service: Service) -> None:
    service.python("""
waiting = listener()
client = socket.socket()
client.setblocking(False)
assert client.connect_ex(waiting.getsockname()) == errno.EINPROGRESS
poll = select.epoll()
poll.register(client, select.EPOLLOUT | select.EPOLLET)
assert poll.poll(30)[0][1] == select.EPOLLOUT
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert client.getpeername() == waiting.getsockname()
""")


def test_while_connecting(service: Service) -> None:
    service.python("""
client = socket.socket()
client.setblocking(False)
assert client.connect_ex((SILENT, 9)) == errno.EINPROGRESS
assert client.connect_ex((SILENT, 9)) == errno.EALREADY
assert error(client.send, b'x') == 'EAGAIN' and error(client.getpeername) == 'ENOTCONN'
poll = select.poll()
poll.register(client, select.POLLIN | select.POLLOUT)
assert poll.poll(0) == []
""")


def test_connect_honours_the_time_limit(service: Service) -> None:
    service.python("""
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 0, 50000))
assert error(client.connect, (SILENT, 9)) == 'EINPROGRESS'
""")


def test_a_signal_interrupts_connect(service: Service) -> None:
    service.python("""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
client = socket.socket()
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
address = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(9), socket.inet_aton(SILENT))
assert libc.connect(client.fileno(), address, 16) == -1 and ctypes.get_errno() == errno.EINTR
""")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("raw, 'connect', socket.socket(), address(socket.AF_INET6, 28), 28", "EAFNOSUPPORT"),
        ("raw, 'connect', socket.socket(), address(socket.AF_INET, 16), 15", "EINVAL"),
        ("raw, 'connect', socket.socket(socket.AF_INET6), address(socket.AF_INET, 16), 16", "EINVAL"),
        ("raw, 'bind', socket.socket(socket.AF_INET6), address(socket.AF_INET, 28), 28", "EAFNOSUPPORT"),
        ("raw, 'bind', socket.socket(), address(socket.AF_INET, 16), -1", "EINVAL"),
        ("raw, 'accept4', socket.socket(), None, None, 0", "EINVAL"),
        ("raw, 'accept4', listener(), None, None, 1", "EINVAL"),
        ("raw, 'shutdown', socket.socket(), 7", "EINVAL"),
        ("socket.socket().shutdown, 2", "ENOTCONN"),
        ("listener().connect, (ADDRESS, 1)", "EISCONN"),
        ("connection()[0].accept,", "EINVAL"),
        ("socket.socket().setsockopt, socket.SOL_SOCKET, socket.SO_ACCEPTCONN, 1", "ENOPROTOOPT"),
        ("socket.socket().setsockopt, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 0", "EINVAL"),
        ("socket.socket().setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, b'1'", "EINVAL"),
        ("socket.socket, socket.AF_INET, socket.SOCK_STREAM, 262", "EPROTONOSUPPORT"),
    ],
)
def test_wrong_calls_fail_as_on_the_kernel(service: Service, call: str, expected: str) -> None:
    service.python(f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def address(family, size):
    return struct.pack('=H', family).ljust(size, b'\\0')
def raw(name, sock, *arguments):
    if getattr(libc, name)(sock.fileno(), *arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
result = error({call})
assert result == {expected!r}, result
""")


def test_flags_of_socket_and_accept4(service: Service) -> None:
    service.python("""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def flags(number):
    return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK), bool(fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
for nonblock in (0, socket.SOCK_NONBLOCK):
    for cloexec in (0, socket.SOCK_CLOEXEC):
        assert flags(libc.socket(socket.AF_INET, socket.SOCK_STREAM | nonblock | cloexec, 0)) == (bool(nonblock), bool(cloexec))
        waiting = listener()
        client = socket.create_connection(waiting.getsockname())
        assert flags(libc.accept4(waiting.fileno(), None, None, nonblock | cloexec)) == (bool(nonblock), bool(cloexec))
""")


def test_what_a_descriptor_says_of_itself(service: Service) -> None:
    service.python("""
def says(sock):
    options = socket.SO_DOMAIN, socket.SO_TYPE, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN
    return [sock.getsockopt(socket.SOL_SOCKET, option) for option in options]
assert says(socket.socket()) == [socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, 0]
assert says(listener(ADDRESS6)) == [socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, 1]
waiting = listener()
same = socket.socket(fileno=os.dup(waiting.fileno()))
assert (same.family, same.type, same.proto) == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
""")


def test_options(service: Service) -> None:
    service.python("""
client, server = connection()
for level, name, value in [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 7),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]:
    client.setsockopt(level, name, value)
    assert client.getsockopt(level, name) == value, (level, name)
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0  # a hint
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 5))
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack('ii', 1, 5)
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 20000))
assert error(client.recv, 1) == 'EAGAIN'
assert len(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 2)) == 2
""")


def test_accept_time_limit(service: Service) -> None:
    service.python("""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
waiting = listener()
waiting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 20000))
assert libc.accept(waiting.fileno(), None, None) == -1 and ctypes.get_errno() == errno.EAGAIN
waiting.setblocking(False)
assert error(waiting.accept) == 'EAGAIN'
""")


def test_shutdown_of_a_listener_wakes_accept_and_it_may_listen_again(service: Service) -> None:
    service.python("""
waiting = listener()
results = []
thread = threading.Thread(target=lambda: results.append(error(waiting.accept)))
thread.start()
recvmsg = {'x86_64': 47, 'aarch64': 212}[os.uname().machine]
while not open(f'/proc/self/task/{thread.native_id}/syscall').read().startswith(f'{recvmsg} '):
    pass
waiting.shutdown(socket.SHUT_RDWR)
thread.join()
assert results == ['EINVAL'] and error(waiting.accept) == 'EINVAL'
assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
waiting.listen(4)
client = socket.create_connection(waiting.getsockname())
server, _ = waiting.accept()
client.sendall(b'x')
assert server.recv(1) == b'x'
""")


def test_a_listener_is_readable_when_a_connection_waits_and_never_writable(service: Service) -> None:
    service.python("""
waiting = listener()
poll = select.poll()
poll.register(waiting, select.POLLIN | select.POLLOUT)
assert poll.poll(0) == []
client = socket.create_connection(waiting.getsockname())
assert poll.poll(30000) == [(waiting.fileno(), select.POLLIN)]
""")


def test_fork_shares_a_listener(service: Service) -> None:
    service.python("""
waiting = listener(backlog=64)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            peer, _ = waiting.accept()
            peer.sendall(b'%d' % os.getpid())
            peer.close()
        os._exit(0)
    children.append(child)
answers = []
for _ in range(15):
    client = socket.create_connection(waiting.getsockname())
    answer = b''
    while more := client.recv(99):
        answer += more
    answers.append(int(answer))
assert set(answers) == set(children)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
""")


def test_exec_inherits_a_listener_and_a_connection(service: Service) -> None:
    service.python("""
waiting = listener()
client = socket.create_connection(waiting.getsockname())
code = '''
import socket, sys
waiting = socket.socket(fileno=int(sys.argv[1]))
peer, _ = waiting.accept()
peer.sendall(repr(waiting.getsockname()).encode())
'''
if os.fork() == 0:
    os.set_inheritable(waiting.fileno(), True)
    os.execv(sys.executable, [sys.executable, '-c', code, str(waiting.fileno())])
answer = b''
while more := client.recv(99):
    answer += more
assert answer.decode() == repr(waiting.getsockname())
os.wait()
""")


def test_dup_and_close(service: Service) -> None:
    service.python("""
client, server = connection()
copy = os.dup(client.fileno())
client.close()
os.write(copy, b'by the copy')
assert server.recv(99) == b'by the copy'
os.close(copy)
assert server.recv(1) == b''
""")


def test_descriptors_are_passed_between_processes(service: Service) -> None:
    service.python("""
ours, theirs = socket.socketpair()
waiting = listener()
if os.fork() == 0:
    ours.close()
    _, (number,), _, _ = socket.recv_fds(theirs, 1, 1)
    received = socket.socket(fileno=number)
    peer, _ = received.accept()
    peer.sendall(b'from the other process')
    os._exit(0)
theirs.close()
socket.send_fds(ours, [b'x'], [waiting.fileno()])
waiting_at = waiting.getsockname()
client = socket.create_connection(waiting_at)
assert client.recv(99, socket.MSG_WAITALL) == b'from the other process'
assert os.wait()[1] == 0
""")


def test_a_full_descriptor_table_loses_no_connection(service: Service) -> None:
    service.python("""
import resource
waiting = listener()
client = socket.create_connection(waiting.getsockname())
client.sendall(b'kept')
select.select([waiting], [], [])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
filler = []
while error(lambda: filler.append(os.dup(0))) == 'OK':
    pass
assert error(waiting.accept) == 'EMFILE' and error(waiting.accept) == 'EMFILE'
assert error(socket.socket) == 'EMFILE'
os.close(filler.pop())
server, _ = waiting.accept()
assert server.recv(4) == b'kept'
""")


def test_a_descriptor_limit_below_the_cache(service: Service) -> None:
    service.python("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
before = sorted(os.listdir('/proc/self/fd'))
for _ in range(20):
    client, server = connection()
    client.close(), server.close()
assert sorted(os.listdir('/proc/self/fd')) == before
""")


def test_no_descriptor_is_left_but_the_cached_one(service: Service) -> None:
    service.python("""
def numbers():
    return {int(name) for name in os.listdir('/proc/self/fd')}
connection()
before = numbers()
assert len([number for number in before if 900 <= number <= 1023]) == 1
for _ in range(20):
    client, server = connection()
    error(socket.socket().connect, (ADDRESS, 1))
    client.close(), server.close()
assert numbers() == before
""")


def test_closing_the_cached_descriptor_does_no_harm(service: Service) -> None:
    service.python("""
connection()
(cached,) = [number for number in map(int, os.listdir('/proc/self/fd')) if number >= 900]
os.dup2(os.open('/dev/null', os.O_RDWR), cached)
client, server = connection()
client.sendall(b'x')
assert server.recv(1) == b'x'
assert os.readlink(f'/proc/self/fd/{cached}') == '/dev/null'
""")


def test_loopback_stays_the_kernels(service: Service) -> None:
    service.python("""
waiting = socket.socket()
number = waiting.fileno()
waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
waiting.settimeout(20)
waiting.bind(('127.0.0.1', 0))
waiting.listen()
assert waiting.fileno() == number and 'socket:' in os.readlink(f'/proc/self/fd/{number}')
inode = os.readlink(f'/proc/self/fd/{number}')[8:-1]
assert any(line.split()[9] == inode for line in open('/proc/net/tcp').readlines()[1:])
assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
client = socket.socket(socket.AF_INET6)
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
os.set_inheritable(client.fileno(), True)
client.connect(('::ffff:127.0.0.1', waiting.getsockname()[1]))
assert os.get_inheritable(client.fileno()) and client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
server, _ = waiting.accept()
client.sendall(b'host')
assert server.recv(4) == b'host'
assert error(socket.socket().connect, ('127.0.0.1', 1)) == 'ECONNREFUSED'
""")


def test_other_sockets_are_left_alone(service: Service) -> None:
    service.python("""
one, other = socket.socketpair()
one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', 0))])
assert other.recvmsg(1, 64)[1][0][1] == socket.SCM_RIGHTS
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.bind(('127.0.0.1', 0))
datagram.sendto(b'self', datagram.getsockname())
assert datagram.recvfrom(9) == (b'self', datagram.getsockname())
assert datagram.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
named = socket.socket(socket.AF_UNIX)
named.bind('\\0znc1Pforged')
assert named.getsockname() == b'\\0znc1Pforged'
assert error(socket.socket(socket.AF_UNIX).listen) in ('EINVAL', 'OK')
""")


def test_a_forged_name_gets_nothing(service: Service) -> None:
    service.python("""
mine = socket.socket()
mine.bind((ADDRESS, 0))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
room, length = ctypes.create_string_buffer(128), ctypes.c_uint(128)
libc.syscall.restype = ctypes.c_long
inode = os.readlink(f'/proc/self/fd/{mine.fileno()}')[8:-1]
(name,) = [line.split()[7][1:] for line in open('/proc/net/unix') if line.split()[6] == inode]
forged, _ = socket.socketpair()
forged.bind(b'\\0' + name[:-1].encode() + (b'A' if name[-1] != 'A' else b'Q'))
assert error(forged.listen) == 'EBADF'
""")


def test_asyncio(service: Service) -> None:
    service.python("""
import asyncio
async def main():
    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.close()
    server = await asyncio.start_server(echo, ADDRESS, 0)
    async def talk(size):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b'x' * size)
        writer.write_eof()
        assert await reader.read() == b'x' * size
        writer.close()
        await writer.wait_closed()
    await asyncio.gather(*(talk(size) for size in range(1, 200000, 20000)))
    server.close()
    try:
        await asyncio.open_connection(ADDRESS, 1)
    except ConnectionRefusedError:
        return
    raise AssertionError('not refused')
asyncio.run(main())
""")
