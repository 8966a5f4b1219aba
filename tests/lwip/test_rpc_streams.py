"""Streams of program sockets: connect, accept, bytes both ways, half-close, reset, back-pressure."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from tests.lwip.rpc_client import TIMEOUT, ProgramSocket
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, THERE, THERE6, Service, eventually

FAMILIES = [pytest.param(HERE, id="ipv4"), pytest.param(HERE6, id="ipv6")]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.assert_idle()
    service.close()


@pytest.fixture
def two() -> Iterator[Service]:
    service = Service(two=True)
    yield service
    service.assert_idle()
    service.close()


def errno_of(call, *args) -> int:
    with pytest.raises(OSError) as caught:
        call(*args)
    return caught.value.errno


@pytest.mark.parametrize("ip", FAMILIES)
def test_connect_and_accept_name_both_ends(service: Service, ip: str) -> None:
    program = service.program()
    with program.listener(ip) as listener:
        assert listener.name is not None
        assert listener.name.kind == "L"
        port = listener.getsockname()[1]
        with program.connected(ip, port) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert client.name is not None
                assert accepted.name is not None
                assert (client.name.kind, accepted.name.kind) == ("C", "C")
                assert client.name.remote == accepted.name.local == (ip, port)
                assert client.name.local == accepted.name.remote == peer == client.getsockname() == accepted.getpeername()


@pytest.mark.parametrize("ip", FAMILIES)
def test_eight_megabytes_each_way_at_once(service: Service, ip: str) -> None:
    program = service.program()
    client, accepted = service.pair(program, ip)
    data = {client: os.urandom(8 << 20), accepted: os.urandom(8 << 20)}
    received: dict[ProgramSocket, bytes] = {}

    def run(sock: ProgramSocket) -> None:
        sender = threading.Thread(target=lambda: (sock.p.sendall(data[sock]), sock.p.shutdown(socket.SHUT_WR)))
        sender.start()
        received[sock] = sock.read_all()
        sender.join()

    other = threading.Thread(target=run, args=(accepted,))
    other.start()
    run(client)
    other.join()
    assert hashlib.sha256(received[client]).digest() == hashlib.sha256(data[accepted]).digest()
    assert hashlib.sha256(received[accepted]).digest() == hashlib.sha256(data[client]).digest()
    client.close()
    accepted.close()


def test_two_stacks_joined_by_a_link(two: Service) -> None:
    here, there = two.program(NETWORK_A), two.program(NETWORK_B)
    for ip in (THERE, THERE6):
        with there.listener(ip) as listener, here.connected(ip, listener.getsockname()[1]) as client:
            accepted, peer = listener.accept()
            assert peer[0] == (HERE if ip == THERE else HERE6)
            data = os.urandom(1 << 20)
            sender = threading.Thread(target=lambda p=client.p, d=data: (p.sendall(d), p.shutdown(socket.SHUT_WR)))
            sender.start()
            assert accepted.read_all() == data
            sender.join()
            accepted.close()


def test_single_bytes_arrive_in_order(service: Service) -> None:
    client, accepted = service.pair(service.program())
    for i in range(500):
        client.p.sendall(bytes([i & 0xFF]))
        assert accepted.p.recv(10) == bytes([i & 0xFF])
    client.close()
    accepted.close()


def test_half_close_leaves_the_other_direction_open(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.p.sendall(b"question")
    client.p.shutdown(socket.SHUT_WR)
    assert accepted.read_all() == b"question"
    accepted.p.sendall(b"answer")
    accepted.close()
    assert client.read_all() == b"answer"
    client.close()


def test_what_was_written_before_close_arrives(service: Service) -> None:
    client, accepted = service.pair(service.program())
    data = os.urandom(300_000)
    client.p.sendall(data)
    client.close()
    assert accepted.read_all() == data
    accepted.close()


def test_close_with_unread_data_resets(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.p.sendall(b"never read")
    eventually(lambda: select.select([accepted.p], [], [], 0)[0], "data at the other end")
    accepted.close()
    assert errno_of(client.p.recv, 1) == errno.ECONNRESET
    client.close()


def test_linger_zero_resets(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()
    assert errno_of(accepted.p.recv, 1) == errno.ECONNRESET
    accepted.close()


def test_data_before_a_reset_is_still_read(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.p.sendall(b"last words")
    assert accepted.p.recv(4) == b"last"
    client.close()
    eventually(lambda: service.count("resets") == 1, "the reset")
    assert accepted.p.recv(100) == b" words"
    assert errno_of(accepted.p.recv, 1) == errno.ECONNRESET
    accepted.close()


def test_reset_after_end_of_file_is_a_broken_pipe(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.p.shutdown(socket.SHUT_WR)
    assert accepted.p.recv(1) == b""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()
    eventually(lambda: service.count("sockets") == 0, "the end of both sockets")
    assert errno_of(accepted.p.send, b"x") == errno.EPIPE
    assert accepted.p.recv(1) == b""
    accepted.close()


def test_a_sender_blocks_when_nobody_reads_and_goes_on_when_somebody_does(service: Service) -> None:
    client, accepted = service.pair(service.program())
    client.p.setblocking(False)
    sent = 0
    block = bytes(range(256)) * 256
    while True:  # until the pair, lwIP's buffers and the other pair are full
        try:
            sent += client.p.send(block[sent % 256 :])
        except BlockingIOError:
            if not select.select([], [client.p], [], 0.5)[1]:
                break
        assert sent < 64 << 20, "nothing pushes back"
    assert service.count("chunks") <= 2 * 34, "more than lwIP's send buffer is held"
    client.p.settimeout(TIMEOUT)
    received = bytearray()
    finisher = threading.Thread(target=lambda: client.p.shutdown(socket.SHUT_WR))
    finisher.start()
    received += accepted.read_all()
    finisher.join()
    assert len(received) == sent
    assert all(received[i] == i & 0xFF for i in range(0, sent, 4093))
    client.close()
    accepted.close()


def test_refused_unreachable_and_not_ours(service: Service) -> None:
    program = service.program()
    for ip, wanted in ((HERE, errno.ECONNREFUSED), (HERE6, errno.ECONNREFUSED), ("192.0.2.1", errno.ENETUNREACH)):
        sock = program.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        assert errno_of(sock.connect, ip, 9) == wanted
        sock.close()
    with program.socket() as sock:
        assert errno_of(sock.connect, HERE6, 9) == errno.EAFNOSUPPORT
        assert errno_of(sock.bind, "10.77.0.99", 80) == errno.EADDRNOTAVAIL
        assert errno_of(sock.bind, HERE6, 80) == errno.EAFNOSUPPORT
        assert errno_of(sock.getpeername) == errno.ENOTCONN


def test_connect_again_after_a_failure_gets_a_new_pair(service: Service) -> None:
    program = service.program()
    with program.socket() as sock, program.listener(HERE) as listener:
        old = sock.id
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert errno_of(sock.connect, HERE, 9) == errno.ECONNREFUSED
        assert sock.name is not None
        assert (sock.name.kind, sock.name.error) == ("F", errno.ECONNREFUSED)
        sock.connect(HERE, listener.getsockname()[1])
        assert sock.id != old
        assert sock.getsockopt_int(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1, "options stay"
        listener.accept()[0].close()


def test_connect_twice(service: Service) -> None:
    program = service.program()
    with program.listener(HERE) as listener, program.socket() as sock:
        port = listener.getsockname()[1]
        assert errno_of(sock.start_connect, HERE, port) == errno.EINPROGRESS
        sock.finish_connect()
        sock.start_connect(HERE, port)  # tells once that it has succeeded
        assert errno_of(sock.start_connect, HERE, port) == errno.EISCONN
        assert errno_of(listener.start_connect, HERE, port) == errno.EISCONN
        assert errno_of(sock.listen) == errno.EINVAL


def test_a_socket_that_connects_is_not_writable_and_takes_nothing(two: Service) -> None:
    two.stacks[NETWORK_B].close()  # nobody answers
    program = two.program(NETWORK_A)
    with program.socket() as sock:
        sock.p.send(b"written too early: discarded")
        assert errno_of(sock.start_connect, THERE, 80) == errno.EINPROGRESS
        assert errno_of(sock.start_connect, THERE, 80) == errno.EALREADY
        assert not select.select([], [sock.p], [], 0)[1]
        sock.p.setblocking(False)
        assert errno_of(sock.p.send, b"x") == errno.EAGAIN
        sock.disconnect()
    two.assert_idle()


def test_a_name_is_there_when_the_program_wakes(service: Service) -> None:
    program = service.program()
    with program.listener(HERE) as listener:
        port = listener.getsockname()[1]
        for _ in range(200):
            with program.socket() as sock:
                sock.connect(HERE, port)
                assert sock.name is not None
                assert sock.name.kind == "C"
                listener.accept()[0].close()


def test_queue_sizes(service: Service) -> None:
    client, accepted = service.pair(service.program())
    siocoutq = 0x5411
    assert client.ioctl(siocoutq) == 0
    accepted.p.sendall(b"x" * 1000)
    eventually(lambda: struct.unpack("=i", fcntl.ioctl(client.p, termios.FIONREAD, bytes(4)))[0] == 1000, "FIONREAD")
    client.p.sendall(b"x" * 1000)
    eventually(lambda: client.ioctl(siocoutq) == 0, "everything acknowledged")
    client.close()
    accepted.close()


def test_many_sockets(service: Service) -> None:
    program = service.program()
    connections: list[tuple[ProgramSocket, ProgramSocket]] = []
    with program.listener(HERE) as listener:
        port = listener.getsockname()[1]
        for _ in range(300):
            client = program.connected(HERE, port)
            connections.append((client, listener.accept()[0]))
    for i, (client, _) in enumerate(connections):
        client.p.sendall(struct.pack("=i", i))
    for i, (client, accepted) in enumerate(connections):
        assert accepted.p.recv(4) == struct.pack("=i", i)
        accepted.close()
        client.close()
