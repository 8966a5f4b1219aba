"""Options of program sockets: what is kept, what a kernel would answer, what is refused; and the names of descriptors."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.service.socket_rpc import BIND, CONNECT, GETPEERNAME, GETSOCKNAME, SETSOCKOPT, pack_address
from tests.lwip.datagram_client import interfaces
from tests.lwip.rpc_client import ProgramSocket
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, SERVICE_ID, Service

TCP, SOL, IP, IP6 = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.assert_idle()
    service.close()


@pytest.fixture
def sock(service: Service) -> Iterator[ProgramSocket]:
    with service.program().socket(socket.AF_INET6) as sock:
        yield sock


@pytest.mark.parametrize(
    ("level", "name", "value"),
    [
        (SOL, socket.SO_REUSEADDR, 1),
        (SOL, socket.SO_REUSEPORT, 1),
        (SOL, socket.SO_KEEPALIVE, 1),
        (SOL, socket.SO_BROADCAST, 1),
        (SOL, socket.SO_PRIORITY, 6),
        (TCP, socket.TCP_NODELAY, 1),
        (TCP, socket.TCP_KEEPIDLE, 30),
        (TCP, socket.TCP_KEEPINTVL, 5),
        (TCP, socket.TCP_KEEPCNT, 3),
        (TCP, socket.TCP_USER_TIMEOUT, 5000),
        (TCP, socket.TCP_DEFER_ACCEPT, 1),
        (TCP, socket.TCP_MAXSEG, 1000),
        (IP, socket.IP_TOS, 0x10),
        (IP, socket.IP_TTL, 32),
        (IP6, socket.IPV6_V6ONLY, 1),
        (IP6, socket.IPV6_TCLASS, 8),
    ],
)
def test_kept_and_shown_as_a_kernel_does(sock: ProgramSocket, level: int, name: int, value: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as kernel:
        for one in (sock, kernel):
            one.setsockopt(level, name, value)
        assert sock.getsockopt_int(level, name) == kernel.getsockopt(level, name)


@pytest.mark.parametrize(
    ("level", "name", "value"),
    [
        (SOL, 9999, 1),
        (TCP, 9999, 1),
        (IP, 9999, 1),
        (IP6, 9999, 1),
        (99, 1, 1),
        (TCP, socket.TCP_KEEPIDLE, 0),
        (TCP, socket.TCP_KEEPCNT, 128),
        (TCP, socket.TCP_MAXSEG, 10),
        (IP, socket.IP_TTL, 256),
        (TCP, socket.TCP_NODELAY, b"\1"),
        (SOL, socket.SO_LINGER, b"\1\0\0\0"),
        (SOL, socket.SO_TYPE, 1),
        (TCP, socket.TCP_CONGESTION, b"no-such-thing"),
    ],
)
def test_refused_with_the_errno_of_a_kernel(service: Service, level: int, name: int, value: int | bytes) -> None:
    with service.program().socket() as sock, socket.socket() as kernel:
        outcomes = []
        for one in (sock, kernel):
            with pytest.raises(OSError) as caught:
                one.setsockopt(level, name, value)
            outcomes.append(caught.value.errno)
        assert outcomes[0] == outcomes[1], [errno.errorcode[number] for number in outcomes]


def test_buffers_are_shown_doubled(sock: ProgramSocket) -> None:
    for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(SOL, name, 65536)
        assert sock.getsockopt_int(SOL, name) == 131072


def test_linger(sock: ProgramSocket) -> None:
    sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("=ii", 1, 7))
    assert struct.unpack("=ii", sock.getsockopt(SOL, socket.SO_LINGER, 8)) == (1, 7)


def test_tcp_info_maxseg_and_congestion(service: Service) -> None:
    client, accepted = service.pair(service.program())
    info = client.getsockopt(TCP, socket.TCP_INFO, 104)
    assert len(info) == 104
    assert info[0] == 1, "ESTABLISHED"
    assert client.getsockopt_int(TCP, socket.TCP_MAXSEG) > 500
    assert client.getsockopt(TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
    client.close()
    accepted.close()


def test_options_of_a_listener_are_those_of_its_connections(service: Service) -> None:
    program = service.program()
    with program.listener(HERE) as listener:
        listener.setsockopt(TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(SOL, socket.SO_KEEPALIVE, 1)
        with program.connected(HERE, listener.getsockname()[1]):
            accepted, _ = listener.accept()
            assert accepted.getsockopt_int(TCP, socket.TCP_NODELAY) == 1
            assert accepted.getsockopt_int(SOL, socket.SO_KEEPALIVE) == 1
            accepted.close()


def test_posted_options_come_before_the_call_that_follows(service: Service) -> None:
    program = service.program()
    with program.socket() as sock:
        program.post(SETSOCKOPT, sock, (TCP, socket.TCP_NODELAY), struct.pack("=i", 1))
        assert sock.getsockopt_int(TCP, socket.TCP_NODELAY) == 1


def test_peer_credentials_are_nobody_s(sock: ProgramSocket) -> None:
    assert struct.unpack("=iii", sock.getsockopt(SOL, socket.SO_PEERCRED, 12)) == (0, -1, -1)


def test_names_keep_to_text_and_describe_the_descriptor(service: Service) -> None:
    program = service.program()
    names = []
    client, accepted = service.pair(program, HERE6)
    for sock in (client, accepted):
        assert sock.name is not None
        names += [sock.p.getsockname(), sock.p.getpeername()]
    assert all(re.fullmatch(rb"\0znc1[PCLF][A-Za-z0-9_-]+", name) for name in names)
    assert len(set(names)) == len(names), "each is unique while it is held"
    assert all(name[1:].decode() in Path("/proc/net/unix").read_text() for name in names)
    assert program.service == SERVICE_ID
    client.close()
    accepted.close()


def test_a_stream_is_narrowed_by_the_name_of_an_interface() -> None:
    service = Service(two=True)
    program = service.program()
    with program.socket() as listener, program.socket() as other, program.socket() as client:
        listener.setsockopt(SOL, socket.SO_BINDTODEVICE, b"a0\0")
        with pytest.raises(OSError) as caught:
            listener.setsockopt(SOL, socket.SO_BINDTODEVICE, b"eth9\0")
        assert caught.value.errno == errno.ENODEV
        listener.bind("0.0.0.0", 8080)
        listener.listen()
        other.setsockopt(SOL, socket.SO_BINDTODEVICE, b"b0\0")
        other.bind("0.0.0.0", 8080)  # the same port, on the other network
        other.listen()
        client.connect(HERE, 8080)
        listener.accept()[0].close()
        client.setsockopt(SOL, socket.SO_BINDTODEVICE, b"b0\0")
    service.assert_idle()
    service.close()


@pytest.mark.parametrize(
    ("level", "name", "value"),
    [
        (TCP, socket.TCP_FASTOPEN, 5),
        (TCP, 30, 1),  # TCP_FASTOPEN_CONNECT
        (TCP, 31, b"tls"),  # TCP_ULP
        (TCP, 35, bytes(64)),  # TCP_ZEROCOPY_RECEIVE
        (SOL, 60, 1),  # SO_ZEROCOPY
    ],
)
def test_refused_as_a_kernel_that_has_it_not(sock: ProgramSocket, level: int, name: int, value: int | bytes) -> None:
    with pytest.raises(OSError) as caught:
        sock.setsockopt(level, name, value)
    assert caught.value.errno == errno.ENOPROTOOPT
    with pytest.raises(OSError) as caught:
        sock.getsockopt(level, name, 64)
    assert caught.value.errno == errno.ENOPROTOOPT


def test_link_local_addresses_of_streams_have_a_scope() -> None:
    service = Service(two=True)
    program = service.program()
    entries = {entry.network: entry for entry in interfaces(program) if entry.address and entry.address.startswith("fe80")}
    here, there = entries[NETWORK_A], entries[NETWORK_B]
    assert here.address is not None
    assert there.address is not None
    with program.socket(socket.AF_INET6) as listener, program.socket(socket.AF_INET6) as client:
        with pytest.raises(OSError) as caught:
            listener.ask(BIND, data=pack_address(there.address, 8080))
        assert caught.value.errno == errno.EINVAL
        listener.ask(BIND, data=pack_address(there.address, 8080, there.index))
        listener.listen()
        for scope, refusal in ((0, errno.EINVAL), (99, errno.ENODEV)):
            with pytest.raises(OSError) as caught:
                client.ask(CONNECT, (1,), pack_address(there.address, 8080, scope))
            assert caught.value.errno == refusal
        with contextlib.suppress(BlockingIOError):
            client.ask(CONNECT, (1,), pack_address(there.address, 8080, here.index))
        client.finish_connect()
        accepted, _ = listener.accept()
        with accepted:
            seen = [
                struct.unpack_from("=I", sock.ask(ask), 4)[0] for sock in (client, accepted) for ask in (GETSOCKNAME, GETPEERNAME)
            ]
            assert seen == [here.index, here.index, there.index, there.index]
    service.assert_idle()
    service.close()
