"""The virtual loopback: each stack's own 127.0.0.0/8 and ::1, for sockets of every kind, and nothing of it on the link."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest

import lwip
from netcon.policy import Policy
from tests.lwip.datagram_client import bound, datagram_socket
from tests.lwip.rpc_client import Program, ProgramSocket
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, THERE, Service, eventually
from tests.lwip.wire import SYN, Lab, Wire, arp_request, echo4, ip4, ip6, mac, tcp4

TO_HOST = 4096
ADDRESSES = pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.8.7", "::1"])


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    service.server.set_policy(Policy.parse("loopback virtual").compiled())
    yield service
    service.assert_idle()
    service.close()


@pytest.fixture
def program(service: Service) -> Iterator[Program]:
    yield service.program()
    frames = [stack.stats()["frames_out"] for stack in service.stacks.values()]
    assert sum(frames) < 40, f"only neighbours and groups are announced on the link: {frames}"


def error_of(call: object, *arguments: object) -> int:
    with pytest.raises(OSError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.errno is not None
    return caught.value.errno


def family(ip: str) -> int:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


@ADDRESSES
def test_connections(service: Service, program: Program, ip: str) -> None:
    client, server = service.pair(program, ip)
    with client, server:
        assert client.getpeername()[0] == server.getsockname()[0] == ip
        assert client.getsockname()[0] == ("::1" if ":" in ip else "127.0.0.1")
        data = bytes(range(256)) * 4096
        client.p.setblocking(False)
        sent, received = 0, bytearray()
        while len(received) < len(data):
            if sent < len(data):
                with contextlib.suppress(BlockingIOError):
                    sent += client.p.send(data[sent : sent + 65536])
            received += server.p.recv(1 << 20) if sent == len(data) or sent > len(received) else b""
        assert bytes(received) == data


@ADDRESSES
def test_a_wildcard_listener_is_reached(program: Program, ip: str) -> None:
    with program.listener("::") as listener:
        client = program.connected(ip, listener.getsockname()[1])
        server, peer = listener.accept()
        with client, server:
            assert peer[0] == ("::1" if ":" in ip else "::ffff:127.0.0.1")


@ADDRESSES
def test_nobody_listens(program: Program, ip: str) -> None:
    sock = program.socket(family(ip))
    with sock:
        assert error_of(sock.start_connect, ip, 9) == errno.EINPROGRESS
        assert error_of(sock.finish_connect) == errno.ECONNREFUSED


def test_ports_are_of_addresses(program: Program) -> None:
    with program.listener("127.0.0.1", 4000), program.listener("127.0.0.2", 4000):
        for taken in ("127.0.0.1", "0.0.0.0"):
            with program.socket() as third:
                assert error_of(third.bind, taken, 4000) == errno.EADDRINUSE


def test_the_unspecified_address_is_this_host(program: Program) -> None:
    with program.listener("127.0.0.1") as listener:
        client = program.connected("0.0.0.0", listener.getsockname()[1])
        server, _ = listener.accept()
        with client, server:
            assert client.getpeername()[0] == "127.0.0.1"


def test_a_loopback_address_does_not_reach_out(program: Program) -> None:
    with program.socket() as sock:
        sock.bind("127.0.0.1", 0)
        assert error_of(sock.start_connect, "10.77.0.99", 9) == errno.EINVAL
    with bound(program, "127.0.0.1") as sock:
        assert error_of(sock.call_sendto, b"x", "10.77.0.99", 9) == errno.EINVAL
        assert error_of(sock.call_sendto, b"x", "224.0.0.9", 9) == errno.ENETUNREACH


def test_own_addresses_and_loopback_reach_each_other(program: Program) -> None:
    for source, to in (("127.0.0.1", HERE), (HERE, "127.0.0.3"), ("::1", HERE6), (HERE6, "::1")):
        with program.listener(to) as listener, program.socket(family(to)) as client:
            client.bind(source, 0)
            assert error_of(client.start_connect, to, listener.getsockname()[1]) == errno.EINPROGRESS
            client.finish_connect()
            server, peer = listener.accept()
            server.close()
            assert peer[0] == source


@ADDRESSES
def test_datagrams(program: Program, ip: str) -> None:
    with bound(program, ip) as server, datagram_socket(program, family(ip)) as client:
        client.sendto(b"ping", ip, server.getsockname()[1])
        data, peer = server.recvfrom()
        assert (data, peer[0]) == (b"ping", "::1" if ":" in ip else "127.0.0.1")
        client.sendto(b"x" * 60000, ip, server.getsockname()[1])
        assert len(server.recvfrom()[0]) == 60000
        client.connect(ip, 9)
        client.p.send(b"x")
        eventually(lambda: client.getsockopt_int(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED, "refused")


@ADDRESSES
def test_ping(program: Program, ip: str) -> None:
    v6 = ":" in ip
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    for length in (8, 3000, 60000):
        with datagram_socket(program, family(ip), protocol=protocol) as sock:
            sock.sendto(struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 0, 7) + bytes(length), ip, 0)
            data, peer = sock.recvfrom()
            assert (data[0], peer[0]) == (129 if v6 else 0, ip)
            assert len(data) == 8 + length


def test_the_loopback_is_of_the_network_that_was_joined_first(service: Service, program: Program) -> None:
    other = service.program(NETWORK_B)
    with program.listener("127.0.0.1", 4100) as first, other.listener("127.0.0.1", 4100) as second:
        for client, listener in ((program, first), (other, second), (service.program(NETWORK_A), first)):
            with client.connected("127.0.0.1", 4100):
                listener.accept()[0].close()


def test_the_device_lo(program: Program) -> None:
    name = b"lo\0"
    with program.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        server.bind("0.0.0.0", 4200)
        server.listen()
        with program.connected("127.0.0.1", 4200):
            server.accept()[0].close()
        with program.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            assert error_of(client.start_connect, "10.77.0.99", 4200) in (errno.EINVAL, errno.ENETUNREACH)


def device_listener(program: Program, port: int, device: bytes) -> ProgramSocket:
    listener = program.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind("0.0.0.0", port)
    listener.listen()
    return listener


def test_listeners_on_devices_get_the_connections_of_their_own(service: Service, program: Program) -> None:
    """Among those that share a port, too: none is lost because the turn was the other one's."""
    network = service.program(NETWORK_A)
    with device_listener(network, 4201, b"lo\0") as local, device_listener(network, 4201, b"a0\0") as outer:
        for ip, listener in [("127.0.0.1", local)] * 3 + [(HERE, outer)] * 3:
            with network.connected(ip, 4201):
                listener.accept()[0].close()


def test_a_listener_on_a_network_has_no_loopback(service: Service, program: Program) -> None:
    def ask(client: ProgramSocket) -> None:
        client.connect("127.0.0.1", 4202)
        client.p.recv(1)

    with device_listener(program, 4202, b"a0\0"), program.socket() as client:
        assert error_of(ask, client) == errno.ECONNRESET


def test_policy_decides(service: Service, program: Program) -> None:
    for text, expected in (("", TO_HOST), ("loopback host", TO_HOST), ("loopback refuse", errno.EACCES)):
        service.server.set_policy(Policy.parse(text).compiled())
        with program.socket() as sock, datagram_socket(program) as datagrams:
            assert error_of(sock.start_connect, "127.0.0.1", 9) == expected
            assert error_of(sock.bind, "127.0.0.1", 0) == expected
            assert error_of(datagrams.connect, "127.0.0.1", 9) == expected
            assert error_of(datagrams.bind, "127.0.0.1", 0) == expected
            assert error_of(datagrams.call_sendto, b"x", "127.0.0.1", 9) == expected
    service.server.set_policy(
        Policy.parse(f"10.77.0.2 tcp 80-90 refuse; 10.77.0.2 network {NETWORK_A:016x}; default host").compiled()
    )
    with program.socket() as sock:
        assert error_of(sock.start_connect, THERE, 85) == errno.EACCES
        assert error_of(sock.start_connect, "192.0.2.1", 80) == TO_HOST
        assert error_of(sock.bind, "192.0.2.1", 80) == TO_HOST
    service.server.set_policy(Policy.parse("192.0.2.1 network; bind 192.0.2.1 network; default host").compiled())
    for ip, expected in (("192.0.2.1", errno.ENETUNREACH), ("192.0.2.2", TO_HOST)):
        with program.socket() as sock, datagram_socket(program) as datagrams:
            assert error_of(sock.start_connect, ip, 80) == expected, "what is said to be a network's is never the host's"
            assert error_of(datagrams.call_sendto, b"x", ip, 80) == expected
            bind_error = TO_HOST if expected == TO_HOST else errno.EADDRNOTAVAIL
            assert error_of(sock.bind, ip, 80) == error_of(datagrams.bind, ip, 80) == bind_error
    with pytest.raises(ValueError, match="compiled policy"):
        service.server.set_policy(b"\x01")


OWN, PEER = mac(1), mac(9)


@pytest.mark.parametrize(
    "frame",
    [
        ip4(PEER, OWN, "10.1.0.9", "127.0.0.1", 1, echo4(1, b"x")),
        ip4(PEER, OWN, "127.0.0.1", "10.1.0.1", 1, echo4(1, b"x")),
        ip4(PEER, OWN, "10.1.0.9", "127.0.0.1", 6, tcp4("10.1.0.9", "127.0.0.1", (1, 9), 1, 0, SYN)),
        ip6(PEER, OWN, "fd00::9", "::1", 58, b"\x80\0\0\0\0\7\0\1x"),
        ip6(PEER, OWN, "::1", "fd00::1", 58, b"\x80\0\0\0\0\7\0\1x"),
        ip6(PEER, OWN, "::ffff:127.0.0.1", "fd00::1", 58, b"\x80\0\0\0\0\7\0\1x"),
        ip6(PEER, OWN, "::ffff:10.1.0.9", "fd00::1", 58, b"\x80\0\0\0\0\7\0\1x"),
        arp_request(PEER, "10.1.0.9", "127.0.0.1"),
    ],
)
def test_loopback_addresses_on_the_link_are_dropped(lab: Lab, frame: bytes) -> None:
    """As RFC 1122 and RFC 4291 want it: neither from nor to; and, as Linux does it, none that programs would see as IPv4's."""
    stack = lab.stack(1, "10.1.0.1/24", "fd00::1/64")
    wire = Wire(stack)
    lab.run(5)
    wire.take()
    dropped = stack.stats()["bad_frames"]
    wire.give(frame)
    lab.run(5)
    assert stack.stats()["bad_frames"] == dropped + 1
    assert wire.take() == []


def test_an_idle_loopback_sleeps(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24")
    probe = lwip.Probe(stack, seed=1)
    probe.ping("127.0.0.1")
    assert lab.run(1, lambda: probe.state()["echo_replies"] == 1)
    lab.run(600)
    turns = lab.turns
    lab.run(600)
    assert lab.turns <= turns + 2
    probe.close()
