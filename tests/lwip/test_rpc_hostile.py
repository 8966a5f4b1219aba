"""Clients that are broken or hostile: none may stop or stall the server, touch another's socket, or leave a descriptor behind."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from netcon.service.socket_rpc import (
    BIND,
    GETSOCKNAME,
    HELLO,
    LISTEN,
    POSTED,
    PROGRAM_NAME,
    REQUEST,
    SOCKET,
    cookie,
    encode_name,
)
from netcon.service.socket_rpc import send_message as send
from tests.lwip.rpc_client import Program, ProgramSocket
from tests.lwip.service import HERE, Service, descriptors, eventually


@pytest.fixture
def service() -> Iterator[Service]:
    """Whatever a test does, an honest program is served afterwards, and nothing is left."""
    service = Service()
    program = service.program()
    client, accepted = service.pair(program)
    client.close()
    accepted.close()
    service.assert_idle()
    before = descriptors()
    yield service
    client, accepted = service.pair(program)
    client.p.sendall(b"still served")
    assert accepted.p.recv(100) == b"still served"
    client.close()
    accepted.close()
    for other in service.programs[1:]:
        other.close()
    service.assert_idle()
    eventually(lambda: service.count("clients") == 1, "other clients forgotten")
    eventually(lambda: descriptors() <= before, f"descriptors closed ({descriptors()} of {before})")
    service.close()


SO_PEEK_OFF = 42


def raw(service: Service) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(service.path)
    return channel


def ask(program: Program, message: bytes, fds: list[int]) -> int:
    return program.exchange(message, fds)[0]


@pytest.mark.parametrize("message", [b"x", b"\0" * 55, os.urandom(56), os.urandom(700), b"NC" * 400], ids=len)
def test_garbage_ends_the_connection(service: Service, message: bytes) -> None:
    with raw(service) as channel:
        channel.send(message)
        channel.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert channel.recv(1) == b""


def test_another_version_is_told_so(service: Service) -> None:
    program = service.program()
    assert ask(program, program.request(HELLO, version=2), []) == errno.EPROTO


def test_a_wrong_data_length_ends_the_connection(service: Service) -> None:
    for claimed in (1, 511, 513, 2**32 - 1):
        with raw(service) as channel:
            channel.send(REQUEST.pack(0x4E43, 1, BIND, POSTED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, claimed, 0))
            channel.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert channel.recv(1) == b""


@pytest.mark.parametrize("operation", [0, 12, 0xFFFF])
def test_an_unknown_operation_is_refused(service: Service, operation: int) -> None:
    program = service.program()
    with program.socket() as sock:
        assert ask(program, program.request(operation, socket_id=sock.id), [sock.p.fileno()]) == errno.EOPNOTSUPP


def test_253_descriptors(service: Service) -> None:
    program = service.program()
    with open("/dev/null") as null:
        for _ in range(4):
            send(program.channel, program.request(BIND, flags=POSTED), [null.fileno()] * 253)
            send(program.channel, b"garbage" * 10, [null.fileno()] * 253)
            program = service.program()


def test_subjects_that_are_no_pair_ends(service: Service) -> None:
    program = service.program()
    reader, writer = os.pipe()
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as listening, program.socket() as sock:
        listening.bind(b"\0netcon-test-%d" % os.getpid())
        listening.listen()
        for fd in (reader, writer, folder, tcp.fileno(), listening.fileno(), program.channel.fileno()):
            for operation in (SOCKET, BIND, LISTEN, GETSOCKNAME):
                request = program.request(
                    operation,
                    socket_id=sock.id,
                    family=2,
                    kind=1,
                    protocol=6,
                    args=(1,),
                    data=bytes(28) if operation == BIND else b"",
                )
                assert ask(program, request, [fd]) == errno.EBADF
    for fd in (reader, writer, folder):
        os.close(fd)


def test_reply_ends_that_are_none(service: Service) -> None:
    program = service.program()
    reader, writer = os.pipe()
    with program.socket() as sock, socket.socket() as tcp:
        for fd in (reader, writer, tcp.fileno()):
            send(program.channel, program.request(GETSOCKNAME, socket_id=sock.id, family=2), [sock.p.fileno(), fd])
        send(program.channel, program.request(GETSOCKNAME, socket_id=sock.id, family=2), [sock.p.fileno()])
        assert sock.getsockname() == ("0.0.0.0", 0)
    os.close(reader)
    os.close(writer)


def test_forged_names_and_ids_are_not_the_socket(service: Service) -> None:
    victim, attacker = service.program(), service.program()
    with victim.socket() as sock:
        sock.bind(HERE, 4444)
        p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with p, s:
            # The attacker's own descriptor, the victim's id.
            request = attacker.request(GETSOCKNAME, socket_id=sock.id, family=2, kind=1, protocol=6)
            assert ask(attacker, request, [p.fileno()]) == errno.EBADF
            # A pair registered under the victim's id.
            forged = PROGRAM_NAME.pack(attacker.service, sock.id, 2, 1, 6, 0)
            with pytest.raises(OSError) as squatted:
                p.bind(encode_name("P", forged))
            assert squatted.value.errno == errno.EADDRINUSE
            request = attacker.request(SOCKET, socket_id=sock.id, family=2, kind=1, protocol=6)
            assert ask(attacker, request, [s.fileno()]) == errno.EBADF
            # A pair that says it belongs to another service.
            p.bind(encode_name("P", PROGRAM_NAME.pack(1, cookie(p), 2, 1, 6, 0)))
            request = attacker.request(SOCKET, socket_id=cookie(p), family=2, kind=1, protocol=6)
            assert ask(attacker, request, [s.fileno()]) == errno.EBADF
        assert sock.getsockname() == (HERE, 4444)
    assert service.count("forged") >= 3


def test_a_socket_registered_under_a_cookie_to_come_gets_nothing_of_its_owner(service: Service) -> None:
    """The attacker names his P with the id that the victim's P really has; the victim's descriptor then meets the wrong S."""
    attacker, victim = service.program(), service.program()
    p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    target, target_s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with p, s, target, target_s:
        number = cookie(target)
        p.bind(encode_name("P", PROGRAM_NAME.pack(attacker.service, number, 2, 1, 6, 0)))
        request = attacker.request(SOCKET, socket_id=number, family=2, kind=1, protocol=6)
        assert ask(attacker, request, [s.fileno()]) == 0
        sock = ProgramSocket(victim, target, number, socket.AF_INET)
        sock.bind(HERE, 4445)
        for call in (lambda: sock.listen(), lambda: sock.connect(HERE, 1)):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_replies_that_are_never_read(service: Service) -> None:
    program = service.program()
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs, program.socket() as sock:
        for _ in range(500):
            send(program.channel, program.request(GETSOCKNAME, socket_id=sock.id, family=2), [sock.p.fileno(), theirs.fileno()])
        sock.getsockname()  # after all of them, in order
    assert service.count("lost_replies") > 0


def lingering_tcp() -> tuple[socket.socket, socket.socket]:
    """A kernel TCP socket whose last close blocks for 30 s: SO_LINGER, and data that its peer does not take."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender = socket.socket()
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender.connect(listener.getsockname())
        receiver = listener.accept()[0]
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"x" * 65536)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 30))
    return sender, receiver


PLACES = ["subject", "reply end", "surplus", "in the stream", "in a queue", "behind a peek offset", "in the program's end"]


@pytest.mark.parametrize("place", PLACES)
def test_a_lingering_tcp_descriptor_does_not_stall(service: Service, place: str) -> None:
    program = service.program()
    sender, receiver = lingering_tcp()
    fd = sender.detach()
    sock = program.socket()
    held: list[socket.socket] = []
    for _ in range(100):  # so that the server comes to the descriptor after we have closed ours, and its close is the last
        program.post(GETSOCKNAME, sock)
    if place == "subject":
        send(program.channel, program.request(BIND, flags=POSTED, socket_id=sock.id), [fd])
    elif place == "reply end":
        send(program.channel, program.request(GETSOCKNAME, socket_id=sock.id), [sock.p.fileno(), fd])
    elif place == "surplus":
        send(program.channel, program.request(BIND, flags=POSTED, socket_id=sock.id), [fd, fd, fd])
    elif place == "in the stream":
        try:
            sock.p.sendmsg([b"bytes"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        except PermissionError:  # Linux 6.16 and later refuse it to the sender
            with socket.socket(fileno=os.dup(fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    elif place == "in the program's end":
        # Who keeps a copy of S can put it there; then closes P, so that the copy in the request is the last.
        p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        p.bind(encode_name("P", PROGRAM_NAME.pack(program.service, cookie(p), 2, 1, 6, 0)))
        send(program.channel, program.request(SOCKET, flags=POSTED, socket_id=cookie(p), family=2, kind=1), [s.fileno()])
        send(s, b"x", [fd])
        send(program.channel, program.request(GETSOCKNAME, flags=POSTED, socket_id=cookie(p)), [p.fileno()])
        p.close()
        s.close()
    else:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if place == "behind a peek offset":
            b.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 1000)
        send(a, b"", [fd])
        send(program.channel, program.request(GETSOCKNAME, socket_id=sock.id), [sock.p.fileno(), b.fileno()])
        held.append(a)
        b.close()
    os.close(fd)
    start = time.monotonic()
    other = service.program()
    with other.socket() as probe:
        probe.getsockname()
    assert time.monotonic() - start < 15, "the server waited for a close"
    with contextlib.suppress(OSError):
        while receiver.recv(1 << 20):  # now the close can end
            pass
    receiver.close()
    sock.close()
    for other_end in held:
        other_end.close()


def test_ten_thousand_connections(service: Service) -> None:
    """More than are allowed: the surplus is turned away, the others stay, and a new program is served as soon as there is room."""
    channels = []
    for _ in range(10_000):
        if len(channels) == 300:
            channels.pop(0).close()
        channels.append(raw(service))
    for channel in channels:
        channel.close()
    eventually(lambda: service.count("clients") <= 2, "clients forgotten")
    assert service.count("refused_clients") > 0


def test_many_clients_at_once(service: Service) -> None:
    results: list[tuple[str, int]] = []

    def run() -> None:
        program = Program(service.path)
        for _ in range(50):
            with program.socket() as sock:
                results.append(sock.getsockname())
        program.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [("0.0.0.0", 0)] * 400
