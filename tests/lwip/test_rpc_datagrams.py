"""UDP over socket RPC: modes, names, ports, groups, truncation, errors; two stacks on one link, and one stack with itself."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lwip.datagram_client import (
    BARE,
    DATAGRAM,
    FRAMED,
    FRAMED_CONNECTED,
    TIMEOUT,
    DatagramSocket,
    bound,
    datagram_socket,
    interfaces,
)
from tests.lwip.rpc_client import Program
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, THERE, THERE6, Service, eventually

SOL, IP, IP6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6
IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 8, 12, 13
IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO = 51, 49
FAMILIES = pytest.mark.parametrize(("here", "there"), [(HERE, THERE), (HERE6, THERE6)], ids=["IPv4", "IPv6"])


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    yield service
    service.assert_idle()
    service.close()


@pytest.fixture
def program(service: Service) -> Program:
    return service.program()


def errno_of(call: object, *args: object) -> int:
    with pytest.raises(OSError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.errno is not None
    return caught.value.errno


def port_of(sock: DatagramSocket) -> int:
    return sock.getsockname()[1]


@FAMILIES
def test_question_and_answer_between_two_members(service: Service, program: Program, here: str, there: str) -> None:
    member = service.program(NETWORK_A)
    with bound(program, there) as server, datagram_socket(member, server.family, posted=True) as client:
        client.sendto(b"question", there, port_of(server))
        data, peer = server.recvfrom()
        assert (data, peer[0]) == (b"question", here)
        server.sendto(b"answer", *peer)
        assert client.recvfrom() == (b"answer", (there, port_of(server)))


@FAMILIES
def test_to_an_address_of_the_same_stack(program: Program, here: str, there: str) -> None:
    with bound(program, here) as server, bound(program, here) as client:
        client.sendto(b"x" * 65471, here, port_of(server))
        data, peer = server.recvfrom()
        assert (len(data), peer) == (65471, (here, port_of(client)))


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 1400, 2752, 2753, 20_000, 65_471, 65_507])
def test_every_size_whole_through_fragments_or_not_at_all(program: Program, here: str, there: str, size: int) -> None:
    if size == 65_507 and ":" in here:
        return  # IPv6 has its own limit: test_too_long
    payload = bytes(i * 7 & 0xFF for i in range(size))
    with bound(program, there) as server, bound(program, here) as client:
        client.sendto(payload, there, port_of(server))
        assert server.recvfrom() == (payload, (here, port_of(client)))


@pytest.mark.parametrize(("ip", "size"), [(THERE, 65_508), (THERE6, 65_472)])
def test_too_long(program: Program, ip: str, size: int) -> None:
    with datagram_socket(program, socket.AF_INET6 if ":" in ip else socket.AF_INET) as client:
        assert errno_of(client.call_sendto, b"x" * size, ip, 9) == errno.EMSGSIZE


@FAMILIES
def test_connected_it_is_bare_and_disconnected_framed_again(service: Service, program: Program, here: str, there: str) -> None:
    with bound(program, there) as server, datagram_socket(service.program(NETWORK_A), server.family) as client:
        assert client.mode == FRAMED
        client.connect(there, port_of(server))
        assert client.mode == BARE
        assert client.getpeername() == (there, port_of(server))
        assert client.getsockname()[0] == here
        client.p.send(b"a plain write")
        data, peer = server.recvfrom()
        assert data == b"a plain write"
        server.sendto(b"a plain read", *peer)
        assert client.p.recv(100) == b"a plain read"
        client.p.send(b"")
        assert server.recvfrom() == (b"", peer)
        client.disconnect()
        assert client.mode == FRAMED
        assert errno_of(client.getpeername) == errno.ENOTCONN
        assert client.getsockname() == ("0.0.0.0" if "." in here else "::", 0)
        client.sendto(b"framed", there, port_of(server))
        assert server.recvfrom()[0] == b"framed"


def test_what_waits_when_it_connects_loses_its_header(program: Program) -> None:
    """As `nc -u -l` does: peek, connect to the sender, read."""
    with bound(program, THERE) as server, bound(program, HERE) as client:
        for i in range(5):
            client.sendto(b"%d" % i, THERE, port_of(server))
        peeked = server.receive(socket.MSG_PEEK)
        eventually(lambda: program_out(server) == 5, "all have arrived")
        server.connect(*peeked.peer)
        assert [server.p.recv(10) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        server.send(b"back")
        assert client.recvfrom() == (b"back", (THERE, port_of(server)))


def program_out(sock: DatagramSocket) -> int:
    """Messages in P's queue: each has a header and one byte here."""
    import array
    import fcntl
    import termios

    size = array.array("i", [0])
    fcntl.ioctl(sock.p, termios.FIONREAD, size)
    return size[0] // (DATAGRAM.size + 1)


def test_a_connected_socket_hears_its_peer_alone(program: Program) -> None:
    with bound(program, THERE) as server, bound(program, THERE) as other, bound(program, HERE) as client:
        client.connect(THERE, port_of(server))
        other.sendto(b"not me", HERE, port_of(client))
        server.sendto(b"me", HERE, port_of(client))
        assert client.p.recv(100) == b"me"


def test_a_connected_socket_comes_before_one_that_is_not(program: Program) -> None:
    with (
        bound(program, "0.0.0.0", 5000, SO_REUSEADDR=1) as wide,
        bound(program, HERE, 5000, SO_REUSEADDR=1) as narrow,
        bound(program, HERE, 5000, SO_REUSEADDR=1) as connected,
        bound(program, THERE, 6000) as peer,
        bound(program, THERE, 6001) as stranger,
    ):
        connected.connect(THERE, 6000)
        peer.sendto(b"peer", HERE, 5000)
        assert connected.p.recv(10) == b"peer"
        stranger.sendto(b"stranger", HERE, 5000)
        assert narrow.recvfrom()[0] == b"stranger"
        assert not wide.readable()


def test_sendto_with_an_address_on_a_connected_socket(program: Program) -> None:
    with bound(program, THERE) as server, bound(program, THERE) as other, bound(program, HERE) as client:
        client.connect(THERE, port_of(server))
        client.p.send(b"first")
        assert client.call_sendto(b"second", THERE, port_of(other)) == 6
        assert server.recvfrom()[0] == b"first"
        assert other.recvfrom() == (b"second", (HERE, port_of(client)))


def test_ancillary_data_v4(program: Program) -> None:
    with bound(program, "0.0.0.0") as server, bound(program, HERE) as client:
        for name in (IP_PKTINFO, IP_RECVTTL, IP_RECVTOS):
            server.setsockopt(IP, name, 1)
            assert server.getsockopt_int(IP, name) == 1
        client.setsockopt(IP, socket.IP_TTL, 33)
        client.sendto(b"x", THERE, port_of(server), tos=0x20)
        got = server.receive()
        index = {entry.network: entry.index for entry in interfaces(program)}
        assert (got.local, got.ttl, got.tos, got.interface) == (THERE, 33, 0x20, index[NETWORK_B])
        client.sendto(b"x", THERE, port_of(server), ttl=5)
        assert server.receive().ttl == 5


def test_ancillary_data_v6(program: Program) -> None:
    with bound(program, "::") as server, bound(program, HERE6) as client, bound(program, HERE) as client4:
        server.setsockopt(IP6, IPV6_RECVPKTINFO, 1)
        server.setsockopt(IP6, IPV6_RECVHOPLIMIT, 1)
        client.setsockopt(IP6, socket.IPV6_UNICAST_HOPS, 7)
        client.sendto(b"x", THERE6, port_of(server))
        got = server.receive()
        assert (got.local, got.ttl) == (THERE6, 7)
        client4.sendto(b"four", THERE, port_of(server))
        got = server.receive()
        assert (got.data, got.peer[0], got.local) == (b"four", f"::ffff:{HERE}", f"::ffff:{THERE}")


def test_a_connected_socket_that_wants_ancillary_data_is_framed(program: Program) -> None:
    with bound(program, THERE) as server, bound(program, HERE) as client:
        client.connect(THERE, port_of(server))
        server.sendto(b"before", HERE, port_of(client))
        assert client.readable(TIMEOUT)
        client.setsockopt(IP, IP_RECVTTL, 1)
        assert client.mode == FRAMED_CONNECTED
        assert client.recvfrom() == (b"before", (THERE, port_of(server)))
        client.send(b"no address needed")
        assert server.recvfrom()[0] == b"no address needed"
        client.setsockopt(IP, IP_RECVTTL, 0)
        assert client.mode == BARE


def test_the_source_can_be_given_with_a_datagram(program: Program, service: Service) -> None:
    service.stacks[NETWORK_A].add_address("10.77.0.9", 24)
    with bound(program, THERE) as server, bound(program, "0.0.0.0", 7777) as client:
        client.sendto(b"x", THERE, port_of(server), source="10.77.0.9")
        assert server.recvfrom() == (b"x", ("10.77.0.9", 7777))
        assert errno_of(lambda: client.call_sendto(b"x", THERE, 9, source="10.77.0.77")) == errno.EINVAL


def test_nobody_listens_and_the_connected_sender_learns_it(service: Service, program: Program) -> None:
    with bound(program, THERE) as gone:
        port = port_of(gone)
    eventually(lambda: service.count("datagram_sockets") == 0, "the service has seen the close")
    with bound(program, HERE) as client:
        client.connect(THERE, port)
        client.send(b"is there anybody?")
        assert client.readable(TIMEOUT)
        assert errno_of(client.receive) == errno.ECONNREFUSED
        client.raise_error()  # it was cleared
        assert not client.readable()
        client.send(b"once more")
        assert client.readable(TIMEOUT)
        assert errno_of(client.call_sendto, b"x", THERE, port) == errno.ECONNREFUSED, "a pending error comes first"
        assert not client.readable(), "and its nudge is gone"


def test_nobody_listens_on_the_same_stack(program: Program) -> None:
    with bound(program, HERE) as client:
        client.connect(HERE6 if client.family == socket.AF_INET6 else HERE, 9)
        client.send(b"x")
        assert client.readable(TIMEOUT)
        assert errno_of(client.receive) == errno.ECONNREFUSED


def test_an_unconnected_sender_learns_nothing(program: Program, service: Service) -> None:
    with bound(program, HERE) as client:
        client.sendto(b"x", THERE, 9)
        eventually(lambda: service.count("datagrams_out") == 1, "sent")
        client.raise_error()
        assert not client.readable()


def test_errors_of_sendto(program: Program) -> None:
    with datagram_socket(program) as v4, datagram_socket(program, socket.AF_INET6) as v6:
        assert errno_of(v4.call_sendto, b"x", "192.0.2.1", 9) == errno.ENETUNREACH
        assert errno_of(v4.call_sendto, b"x", THERE, 0) == errno.EINVAL
        assert errno_of(v4.call_sendto, b"x", "10.77.0.255", 9) == errno.EACCES
        assert errno_of(v4.call_sendto, b"x", "255.255.255.255", 9) == errno.EACCES
        assert errno_of(v4.connect, "10.77.0.255", 9) == errno.EACCES
        assert errno_of(v4.connect, "192.0.2.1", 9) == errno.ENETUNREACH
        v6.setsockopt(IP6, socket.IPV6_V6ONLY, 1)
        assert errno_of(v6.call_sendto, b"x", f"::ffff:{THERE}", 9) == errno.ENETUNREACH
        assert errno_of(v6.ask, 4, (1,)) == errno.EOPNOTSUPP


def test_port_rules(program: Program) -> None:
    with bound(program, HERE, 5300):
        assert errno_of(bound, program, HERE, 5300) == errno.EADDRINUSE
        assert errno_of(bound, program, "0.0.0.0", 5300) == errno.EADDRINUSE
        assert errno_of(bound, program, "::", 5300) == errno.EADDRINUSE
        with bound(program, THERE, 5300), bound(program, HERE6, 5300), program.listener(HERE, 5300):
            pass
    with bound(program, HERE, 5302) as sock:
        assert errno_of(sock.bind, HERE, 5303) == errno.EINVAL
    assert errno_of(bound, program, "10.99.0.1") == errno.EADDRNOTAVAIL
    with bound(program, HERE, 5310, SO_REUSEPORT=1), bound(program, HERE, 5310, SO_REUSEPORT=1):
        pass


def test_the_port_is_free_when_the_program_closes(program: Program, service: Service) -> None:
    bound(program, HERE, 5300).close()
    eventually(lambda: service.count("datagram_sockets") == 0, "the socket is gone")
    bound(program, HERE, 5300).close()


def test_what_was_written_before_close_is_sent(program: Program) -> None:
    with bound(program, THERE) as server:
        for i in range(20):
            client = datagram_socket(program)
            client.sendto(b"%d" % i, THERE, port_of(server))
            client.close()
            assert server.recvfrom()[0] == b"%d" % i


def test_reuseport_keeps_a_peer_with_one_socket_and_uses_all(program: Program) -> None:
    members = [bound(program, THERE, 5300, SO_REUSEPORT=1) for _ in range(4)]
    clients = [bound(program, HERE) for _ in range(64)]
    for client in clients:
        for _ in range(2):
            client.sendto(b"%d" % port_of(client), THERE, 5300)
    seen: dict[bytes, set[int]] = {}
    total = 0
    while total < 128:
        for number, member in enumerate(members):
            while member.readable(0.01):
                seen.setdefault(member.recvfrom()[0], set()).add(number)
                total += 1
    assert all(len(numbers) == 1 for numbers in seen.values())
    assert {number for numbers in seen.values() for number in numbers} == {0, 1, 2, 3}
    for sock in members + clients:
        sock.close()


def test_broadcast(program: Program) -> None:
    with (
        bound(program, "0.0.0.0", 6700, SO_REUSEADDR=1) as one,
        bound(program, THERE, 6700, SO_REUSEADDR=1) as unicast_only,
        bound(program, HERE) as client,
    ):
        client.setsockopt(SOL, socket.SO_BROADCAST, 1)
        for to in ("10.77.0.255", "255.255.255.255"):
            client.sendto(to.encode(), to, 6700)
            first, second = one.recvfrom(), one.recvfrom()  # on its own network, and over the wire on the other
            assert first == second == (to.encode(), (HERE, port_of(client)))
        assert not unicast_only.readable()


def mreqn(group: str, index: int = 0, address: str = "0.0.0.0") -> bytes:
    return socket.inet_aton(group) + socket.inet_aton(address) + struct.pack("=i", index)


def mreq6(group: str, index: int = 0) -> bytes:
    return socket.inet_pton(socket.AF_INET6, group) + struct.pack("=i", index)


def index_of(program: Program, network: int) -> int:
    return next(entry.index for entry in interfaces(program) if entry.network == network)


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_groups(program: Program, service: Service, v6: bool) -> None:
    group, any_ip = ("ff05::77", "::") if v6 else ("239.1.2.3", "0.0.0.0")
    index = index_of(program, NETWORK_B)
    join = (IP6, socket.IPV6_JOIN_GROUP, mreq6(group, index)) if v6 else (IP, socket.IP_ADD_MEMBERSHIP, mreqn(group, index))
    leave = (IP6, socket.IPV6_LEAVE_GROUP, join[2]) if v6 else (IP, socket.IP_DROP_MEMBERSHIP, join[2])
    with (
        bound(program, any_ip, 5353, SO_REUSEADDR=1) as one,
        bound(program, any_ip, 5353, SO_REUSEADDR=1) as two,
        bound(program, HERE6 if v6 else HERE) as client,
    ):
        one.setsockopt(*join)
        assert errno_of(one.setsockopt, *join) == errno.EADDRINUSE
        assert group in service.stacks[NETWORK_B].groups()
        assert group not in service.stacks[NETWORK_A].groups()
        client.sendto(b"to all", group, 5353)
        assert one.recvfrom()[0] == b"to all"
        assert two.recvfrom()[0] == b"to all"
        two.setsockopt(*join)
        one.setsockopt(*leave)
        assert errno_of(one.setsockopt, *leave) == errno.EADDRNOTAVAIL
        assert group in service.stacks[NETWORK_B].groups()
    eventually(lambda: group not in service.stacks[NETWORK_B].groups(), "left when the last member closed")


def test_a_group_heard_on_the_sender_s_own_host(program: Program) -> None:
    index = index_of(program, NETWORK_A)
    with bound(program, "0.0.0.0", 5353) as one, bound(program, HERE) as client:
        one.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, mreqn("239.1.2.3", index))
        client.setsockopt(IP, socket.IP_MULTICAST_LOOP, 0)
        client.sendto(b"silent", "239.1.2.3", 5353)
        client.setsockopt(IP, socket.IP_MULTICAST_LOOP, 1)
        client.sendto(b"loud", "239.1.2.3", 5353)
        assert one.recvfrom()[0] == b"loud"


def test_multicast_interface(program: Program) -> None:
    with bound(program, "0.0.0.0", 5353) as one, datagram_socket(program) as client:
        one.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, mreqn("239.1.2.3", address=THERE))
        client.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton(THERE))
        assert client.getsockopt(IP, socket.IP_MULTICAST_IF) == socket.inet_aton(THERE)
        client.sendto(b"x", "239.1.2.3", 5353)
        assert one.recvfrom() == (b"x", (THERE, port_of(client)))
        assert errno_of(client.setsockopt, IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.99.9.9")) == errno.EADDRNOTAVAIL
        assert errno_of(client.setsockopt, IP, socket.IP_ADD_MEMBERSHIP, mreqn("10.0.0.1")) == errno.EINVAL
        assert errno_of(client.setsockopt, IP, socket.IP_ADD_MEMBERSHIP, mreqn("239.1.2.3", 77)) == errno.ENODEV


def test_a_full_queue_drops_and_counts(program: Program, service: Service) -> None:
    with bound(program, THERE, SO_RCVBUF=4096) as server, bound(program, HERE) as client:
        for _ in range(600):
            client.sendto(b"x" * 1000, THERE, port_of(server))
        eventually(lambda: service.count("datagrams_out") == 600, "all were sent")
        eventually(lambda: service.count("datagrams_dropped") > 0, "some found no room")
        received = 0
        while server.readable(0.2):
            server.recvfrom()
            received += 1
        assert received + service.count("datagrams_dropped") == 600


def test_bulk_in_order_with_back_pressure(program: Program, service: Service) -> None:
    """A sender that is faster than its stack waits; nothing is lost on its side."""
    with bound(program, THERE) as server, bound(program, HERE) as client:
        client.connect(THERE, port_of(server))
        server.connect(HERE, port_of(client))
        for number in range(300):
            client.p.send(struct.pack("=I", number) + b"x" * 60_000)
            assert struct.unpack("=I", server.p.recv(70_000)[:4])[0] == number
    assert service.count("datagrams_unsendable") == 0


def test_link_local_addresses_have_a_scope(program: Program) -> None:
    local = next(
        entry for entry in interfaces(program) if entry.network == NETWORK_B and entry.address and entry.address.startswith("fe80")
    )
    assert local.address is not None
    with bound(program, "::", 7000) as server, datagram_socket(program, socket.AF_INET6) as client:
        assert errno_of(client.connect, local.address, 7000) == errno.EINVAL
        assert errno_of(client.connect_scoped, local.address, 7000, 99) == errno.ENODEV
        client.connect_scoped(local.address, 7000, index_of(program, NETWORK_A))
        client.send(b"x")
        assert server.recvfrom()[0] == b"x"


def test_a_network_by_its_interface_name(program: Program) -> None:
    """SO_BINDTODEVICE narrows what is heard, and where it sends."""
    with bound(program, "0.0.0.0", 5353) as server, bound(program, HERE) as client:
        server.setsockopt(SOL, socket.SO_BINDTODEVICE, b"a0\0")
        client.sendto(b"on b", THERE, 5353)
        client.sendto(b"on a", HERE, 5353)
        assert server.recvfrom()[0] == b"on a"
        assert not server.readable()
        assert errno_of(server.setsockopt, SOL, socket.SO_BINDTODEVICE, b"eth9\0") == errno.ENODEV
        assert errno_of(server.call_sendto, b"x", THERE6, 9) == errno.EAFNOSUPPORT


def test_a_network_that_comes_later_is_heard_by_a_wildcard(program: Program, service: Service) -> None:
    with bound(program, "0.0.0.0", 5300) as server, bound(program, "0.0.0.0") as client:
        service.add(0xC0, "10.88.0.1")
        client.sendto(b"x", "10.88.0.1", 5300)
        assert server.recvfrom() == (b"x", ("10.88.0.1", port_of(client)))


def test_a_network_that_goes_fails_its_connected_sockets(program: Program, service: Service) -> None:
    with bound(program, "0.0.0.0") as client:
        client.connect(HERE, 9)
        service.server.remove_network(NETWORK_A)
        assert client.readable(TIMEOUT)
        assert errno_of(client.receive) == errno.ENETDOWN
        assert errno_of(client.call_sendto, b"x", HERE, 9) == errno.ENETUNREACH


def test_a_failed_stack_and_the_one_in_its_place(program: Program, service: Service) -> None:
    with bound(program, "0.0.0.0", 5300) as server:
        server.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, mreqn("239.1.2.3", index_of(program, NETWORK_A)))
        service.stacks[NETWORK_A].inject_failure("a test")
        service.stacks[NETWORK_A].close()
        stack = service.add(NETWORK_A, HERE)
        assert "239.1.2.3" in stack.groups()
        with datagram_socket(program) as client:
            client.sendto(b"x", HERE, 5300)
            assert server.recvfrom()[0] == b"x"


def test_options_are_a_kernel_s(program: Program) -> None:
    with datagram_socket(program, socket.AF_INET6) as ours, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as kernel:
        for level, name, value in [
            (SOL, socket.SO_RCVBUF, None),
            (SOL, socket.SO_SNDBUF, None),
            (SOL, socket.SO_RCVBUF, 10_000),
            (SOL, socket.SO_RCVBUF, 1),
            (SOL, socket.SO_SNDBUF, 1),
            (SOL, socket.SO_BROADCAST, 1),
            (SOL, socket.SO_TYPE, None),
            (SOL, socket.SO_PROTOCOL, None),
            (SOL, socket.SO_ERROR, None),
            (IP, socket.IP_MULTICAST_TTL, None),
            (IP, socket.IP_MULTICAST_TTL, 12),
            (IP, socket.IP_MULTICAST_LOOP, 0),
            (IP, IP_PKTINFO, 1),
            (IP6, socket.IPV6_MULTICAST_HOPS, None),
            (IP6, socket.IPV6_MULTICAST_HOPS, 3),
            (IP6, socket.IPV6_MULTICAST_LOOP, None),
            (IP6, IPV6_RECVPKTINFO, 1),
            (IP6, socket.IPV6_UNICAST_HOPS, None),
            (IP6, socket.IPV6_V6ONLY, 1),
        ]:
            for one in (ours, kernel):
                if value is not None:
                    one.setsockopt(level, name, value)
            assert ours.getsockopt_int(level, name) == kernel.getsockopt(level, name), (level, name)
        for level, name, value in [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (SOL, 9999, 1),
            (IP, 9999, 1),
            (IP, socket.IP_MULTICAST_TTL, 256),
            (IP6, socket.IPV6_MULTICAST_HOPS, 256),
            (IP6, socket.IPV6_MULTICAST_LOOP, 2),
        ]:
            assert errno_of(ours.setsockopt, level, name, value) == errno_of(kernel.setsockopt, level, name, value), (level, name)


def test_hostile_messages_hurt_nobody(program: Program, service: Service) -> None:
    with bound(program, THERE) as server, bound(program, HERE) as client:
        client.p.send(b"a plain write on a socket that never connected")
        client.p.send(b"\xd7")
        client.p.send(b"\xd7" + b"\xff" * 39)
        client.p.send(b"\xd7" + b"\0" * 39)
        client.p.send(b"x" * 100_000)
        client.sendto(b"fine", THERE, port_of(server))
        assert server.recvfrom()[0] == b"fine"
        assert service.count("datagrams_malformed") == 5


def test_a_pair_of_the_wrong_type_or_name(program: Program) -> None:
    for family, kind, protocol, number in [
        (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_TCP, errno.EPROTONOSUPPORT),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, errno.EPERM),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP, errno.EPERM),
        (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, errno.EPROTONOSUPPORT),
        (socket.AF_INET, socket.SOCK_SEQPACKET, 132, errno.EPROTONOSUPPORT),
    ]:
        assert errno_of(datagram_socket, program, family, kind, protocol) == number


def test_another_pair_under_the_socket_s_number_is_refused(program: Program, service: Service) -> None:
    with bound(program, HERE) as victim:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with a, b:
            impostor = DatagramSocket(program, a.dup(), victim.id, socket.AF_INET)
            assert errno_of(impostor.getsockname) == errno.EBADF
            impostor.close()
    assert service.count("forged") == 1


def test_interfaces(program: Program) -> None:
    found = interfaces(program)
    assert {(entry.name, entry.index) for entry in found} == {("a0", 2), ("b0", 3)}
    assert {entry.address for entry in found} >= {HERE, THERE, HERE6, THERE6}
    with datagram_socket(program) as sock:
        request = b"b0".ljust(16, b"\0") + b"\0" * 24
        address = sock.ask(11, (0x8915,), request)  # SIOCGIFADDR
        assert socket.inet_ntoa(address[20:24]) == THERE
        assert struct.unpack_from("=i", sock.ask(11, (0x8933,), request), 16) == (3,)  # SIOCGIFINDEX
        assert errno_of(sock.ask, 11, (0x8915,), b"eth0".ljust(40, b"\0")) == errno.ENODEV
        assert errno_of(sock.ask, 11, (0x8915,), b"short") == errno.EFAULT


def test_io_outq_and_shutdown(program: Program) -> None:
    with bound(program, HERE) as sock:
        assert sock.ioctl(0x5411) == 0  # SIOCOUTQ
        assert errno_of(sock.shutdown_listener) == errno.ENOTCONN
        sock.connect(THERE, 9)
        sock.shutdown_listener(socket.SHUT_WR)


def test_a_port_is_free_as_soon_as_its_socket_is_closed(service: Service) -> None:
    """The request to bind may come before the event of the close: the service looks."""
    program = service.program()
    for _ in range(300):
        first = bound(program, HERE, 5400)
        first.close()
        bound(program, HERE, 5400).close()
