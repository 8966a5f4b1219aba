"""ICMP: ping sockets (SOCK_DGRAM) for IPv4 and IPv6, and raw sockets where the policy allows them."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

import lwip
from netcon.policy import Policy
from tests.lwip.datagram_client import DatagramSocket, datagram_socket
from tests.lwip.service import HERE, HERE6, NETWORK_A, SERVICE_ID, THERE, THERE6, Service

FAMILIES = pytest.mark.parametrize(("here", "there"), [(HERE, THERE), (HERE6, THERE6)], ids=["IPv4", "IPv6"])


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    yield service
    service.assert_idle()
    service.close()


def ping_socket(service: Service, ip: str, kind: int = socket.SOCK_DGRAM) -> DatagramSocket:
    """On network A, so that network B's addresses are across the link."""
    v6 = ":" in ip
    return datagram_socket(
        service.program(NETWORK_A),
        socket.AF_INET6 if v6 else socket.AF_INET,
        kind,
        socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP,
    )


def echo(v6: bool, sequence: int, payload: bytes = b"payload", kind: int | None = None) -> bytes:
    return struct.pack(">BBHHH", kind if kind is not None else 128 if v6 else 8, 0, 0, 0xDEAD, sequence) + payload


@FAMILIES
def test_an_echo_is_answered_to_the_socket_that_asked(service: Service, here: str, there: str) -> None:
    v6 = ":" in here
    with ping_socket(service, here) as one, ping_socket(service, here) as two:
        for number, sock in enumerate((one, two)):
            assert sock.call_sendto(echo(v6, number), there, 0) == 15
        for number, sock in enumerate((one, two)):
            data, peer = sock.recvfrom()
            kind, code, _, identifier, sequence = struct.unpack(">BBHHH", data[:8])
            assert (kind, code, sequence, data[8:]) == (129 if v6 else 0, 0, number, b"payload")
            assert identifier == sock.getsockname()[1]
            assert peer == (there, 0)


@FAMILIES
def test_an_echo_to_ourselves_and_one_of_many_fragments(service: Service, here: str, there: str) -> None:
    v6 = ":" in here
    with ping_socket(service, here) as sock:
        sock.call_sendto(echo(v6, 1), here, 0)
        assert sock.recvfrom()[0][8:] == b"payload"
        sock.call_sendto(echo(v6, 2, b"x" * 20_000), there, 0)
        assert sock.recvfrom()[0][8:] == b"x" * 20_000


def test_a_connected_ping_socket_is_bare(service: Service) -> None:
    with ping_socket(service, HERE) as sock:
        sock.connect(THERE, 0)
        sock.p.send(echo(False, 9))
        assert struct.unpack(">BBHHH", sock.p.recv(100)[:8])[4] == 9


def test_only_echo_requests_may_be_sent(service: Service) -> None:
    with ping_socket(service, HERE) as sock:
        for message in (echo(False, 1, kind=0), echo(False, 1, kind=5), b"\x08\0short"[:7], b""):
            with pytest.raises(OSError) as caught:
                sock.call_sendto(message, THERE, 0)
            assert caught.value.errno == errno.EINVAL


def test_an_identifier_can_be_bound(service: Service) -> None:
    with ping_socket(service, HERE) as sock, ping_socket(service, HERE) as other:
        sock.bind("0.0.0.0", 4711)
        sock.call_sendto(echo(False, 1), THERE, 0)
        assert struct.unpack(">H", sock.recvfrom()[0][4:6]) == (4711,)
        with pytest.raises(OSError) as caught:
            other.bind("0.0.0.0", 4711)
        assert caught.value.errno == errno.EADDRINUSE


@FAMILIES
def test_raw_sockets_by_policy(service: Service, here: str, there: str) -> None:
    v6 = ":" in here
    with pytest.raises(PermissionError):
        ping_socket(service, here, socket.SOCK_RAW)
    service.server.close()
    service.server = lwip.SocketServer(service.reactor.capsule(), service=SERVICE_ID, epoch=0x9A)
    service.server.set_policy(Policy.parse("raw allow").compiled())
    for network, stack in service.stacks.items():
        service.server.add_network(network, stack)
    service.server.listen(service.path)
    with ping_socket(service, here, socket.SOCK_RAW) as raw:
        level, name, unwanted = (58, 1, bytes(16) + b"\1" + bytes(15)) if v6 else (255, 1, struct.pack("=I", 1 << 8))
        raw.setsockopt(level, name, unwanted)  # no echo requests
        message = bytearray(echo(v6, 3))
        if not v6:  # of ICMPv6 the service makes the checksum
            total = sum(struct.unpack(f">{(len(message) + 1) // 2}H", bytes(message) + b"\0" * (len(message) % 2)))
            total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into(">H", message, 2, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
        raw.sendto(bytes(message), there, 0)
        data, peer = raw.recvfrom()
        while v6 and data[0] != 129:  # neighbour discovery is seen, too
            data, peer = raw.recvfrom()
        assert peer[0] == there
        if not v6:
            assert data[0] == 0x45, "the IP header"
            data = data[20:]
        assert data[0] == (129 if v6 else 0)
        assert data[4:] == bytes(message[4:]), "with the program's own identifier"
