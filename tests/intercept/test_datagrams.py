"""Sockets of datagrams under the library, as a feature list; with the fake service and with the real one. That results, errors and
event bits are the kernel's is what tests/differential shows; here is what has no counterpart there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.intercept.conftest import ADDRESS, ADDRESS6, PATIENCE, PRELUDE, Service, fake_service


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_datagrams_there_and_back(service: Service, address: str) -> None:
    service.python(f"""
server = socket.socket(socket.AF_INET6 if ':' in {address!r} else socket.AF_INET, socket.SOCK_DGRAM)
server.bind(({address!r}, 0))
client = socket.socket(server.family, socket.SOCK_DGRAM)
for size in (0, 1, 1472, 9000, 60000):
    client.sendto(b'x' * size, server.getsockname())
    data, peer = server.recvfrom(65536)
    assert len(data) == size and peer[0] == {address!r}
    server.sendto(data, peer)
    assert client.recv(65536) == data
client.connect(server.getsockname())
client.send(b'connected')
data, peer = server.recvfrom(99)
assert data == b'connected' and peer == client.getsockname()
""")


def test_the_descriptor_is_the_end_of_a_pair_and_the_number_stays(service: Service) -> None:
    service.python("""
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = sock.fileno()
assert (sock.family, sock.type, sock.proto) == (socket.AF_INET, socket.SOCK_DGRAM, 0)
inode = os.readlink(f'/proc/self/fd/{number}')[8:-1]
(line,) = [line for line in open('/proc/net/unix') if line.split()[6:7] == [inode]]
assert line.split()[4] == '0005' and line.split()[7].startswith('@znc1P'), line  # SOCK_SEQPACKET
""")


def test_closing_frees_the_port(service: Service) -> None:
    service.python("""
first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
first.bind((ADDRESS, 5353))
assert error(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind, (ADDRESS, 5353)) == 'EADDRINUSE'
copy = first.dup()
first.close()
assert error(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind, (ADDRESS, 5353)) == 'EADDRINUSE'
copy.close()
again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
signal.alarm(30)
while error(again.bind, (ADDRESS, 5353)) != 'OK':
    pass  # the service hears of the close in a moment
""")


@pytest.mark.parametrize("way", ["bind", "connect", "sendto"])
def test_loopback_stays_the_kernels_and_on_the_loopback_interface(service: Service, way: str) -> None:
    service.python(f"""
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 0))
where = server.getsockname()
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = client.fileno()
client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
os.set_inheritable(number, True)
if {way!r} == 'bind':
    client.bind(('127.0.0.1', 0))
if {way!r} == 'connect':
    client.connect(where)
    client.send(b'host')
else:
    client.sendto(b'host', where)
assert server.recvfrom(9) == (b'host', client.getsockname() if {way!r} != 'sendto' else ('127.0.0.1', client.getsockname()[1]))
assert client.fileno() == number and os.get_inheritable(number)
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
for one in (server, client):
    inode = os.readlink(f'/proc/self/fd/{{one.fileno()}}')[8:-1]
    assert any(line.split()[9] == inode for line in open('/proc/net/udp').readlines()[1:])
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).startswith(b'lo')
""")


def test_a_socket_of_a_network_does_not_become_the_kernels(service: Service) -> None:
    service.python("""
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((ADDRESS, 0))
error(sock.sendto, b'x', ('127.0.0.1', 9))
assert sock.getsockname()[0] == ADDRESS
""")


def test_what_the_service_does_not_have_never_comes_from_the_kernel(service: Service) -> None:
    service.python("""
for family in (socket.AF_INET, socket.AF_INET6):
    for kind, protocol in (('STREAM', 262), ('DGRAM', 136), ('SEQPACKET', 132), ('RAW', 47)):
        kind = getattr(socket, 'SOCK_' + kind)
        result = error(socket.socket, family, kind, protocol)
        assert result in ('EPROTONOSUPPORT', 'ESOCKTNOSUPPORT', 'EPERM', 'EACCES'), (family, kind, protocol, result)
""")


def test_many_threads_share_one_socket(service: Service) -> None:
    service.python("""
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((ADDRESS, 0))
def serve():
    while True:
        data, peer = server.recvfrom(99)
        if data == b'end':
            return
        server.sendto(data, peer)
servers = [threading.Thread(target=serve) for _ in range(4)]
def ask(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(server.getsockname())
        for turn in range(20):
            client.send(b'%d %d' % (number, turn))
            assert client.recv(99) == b'%d %d' % (number, turn)
        answers.append(number)
answers = []
clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in servers + clients:
    thread.start()
for thread in clients:
    thread.join()
for _ in servers:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.sendto(b'end', server.getsockname())
for thread in servers:
    thread.join()
assert sorted(answers) == list(range(8))
""")


def test_a_reader_that_waits_while_another_thread_connects_gets_the_whole_datagram(service: Service) -> None:
    service.python("""
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind((ADDRESS, 0))
for size in (3, 40, 200):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 0))
    got = []
    thread = threading.Thread(target=lambda: got.append(sock.recvfrom(150)))
    thread.start()
    recvmsg = {'x86_64': 47, 'aarch64': 212}[os.uname().machine]
    while not open(f'/proc/self/task/{thread.native_id}/syscall').read().startswith(f'{recvmsg} '):
        pass
    sock.connect(peer.getsockname())
    whole = bytes(range(65, 65 + size)) if size < 100 else b'abcd' * 50
    peer.sendto(whole, sock.getsockname())
    thread.join()
    assert got == [(whole[:150], peer.getsockname())], (size, got)
""")


def test_interfaces_are_the_networks_and_never_the_hosts(service: Service) -> None:
    service.python("""
names = dict(socket.if_nameindex())
assert names[1] == 'lo' and len(names) == 2, names
(index,) = [index for index in names if index != 1]
assert socket.if_nametoindex(names[index]) == index
assert socket.if_indextoname(index) == names[index]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
room = array.array('B', bytes(4000))
address, _ = room.buffer_info()
done = fcntl.ioctl(sock, 0x8912, struct.pack('=i4xQ', 4000, address))
length, = struct.unpack_from('=i', done)
seen = [socket.inet_ntoa(bytes(room[at + 20:at + 24])) for at in range(0, length, 40)]
assert sorted(seen) == ['10.77.0.1', '127.0.0.1'], seen
""")


def test_death_of_the_service_is_told(tmp_path: Path) -> None:
    program = """
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((ADDRESS, 0))
print('BOUND', flush=True)
assert error(sock.recv, 9) == 'ENETDOWN'
assert error(sock.sendto, b'x', (ADDRESS, 9)) == 'ENETDOWN'
assert error(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) == 'ENETDOWN'
"""
    command = [sys.executable, "-c", PRELUDE + program]
    with fake_service(tmp_path / "rpc.sock") as dying:
        process = subprocess.Popen(command, env=dying.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "BOUND\n"
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
