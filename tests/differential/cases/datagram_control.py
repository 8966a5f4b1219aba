"""UDP: ancillary data and options."""

from __future__ import annotations

import socket
import struct
from typing import Any

from tests.differential.cases.datagrams import bound, connected, datagrams, two, want_pktinfo
from tests.differential.harness import World, case, differs, outcome, value

UDP_SEGMENT, UDP_GRO = 103, 104


# ---- ancillary data ----


def ancillary(world: World, sock: socket.socket, room: int = 200) -> Any:
    """What control data came with the next datagram, without interface numbers and times."""
    data, items, flags, _ = sock.recvmsg(99, room)
    seen = []
    for level, kind, content in items:
        if (level, kind) == (socket.IPPROTO_IP, 8):
            index, local, to = struct.unpack("=i4s4s", content)
            seen.append([level, kind, index > 0, socket.inet_ntoa(local), socket.inet_ntoa(to)])
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            seen.append([level, kind, content[16:] != bytes(4), socket.inet_ntop(socket.AF_INET6, content[:16])])
        elif level == socket.SOL_SOCKET:
            seen.append([level, kind, len(content), content != bytes(len(content))])
        else:
            seen.append([level, kind, content.hex()])
    return [data.decode(), seen, flags]


def ttl_option(world: World) -> tuple[int, int]:
    """Level, and the name for setting and for control data."""
    v4 = world.family == socket.AF_INET
    return (socket.IPPROTO_IP, socket.IP_TTL) if v4 else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)


def want_ttl(world: World, sock: socket.socket) -> None:
    if world.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)


def want_tos(world: World, sock: socket.socket) -> None:
    if world.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)


def control(world: World, kind: str, number: int) -> tuple[int, int, bytes]:
    names = {"ttl": (socket.IP_TTL, socket.IPV6_HOPLIMIT), "tos": (socket.IP_TOS, socket.IPV6_TCLASS)}[kind]
    v4 = world.family == socket.AF_INET
    return (socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6, names[0 if v4 else 1], struct.pack("=i", number))


@case
def udp_pktinfo(world: World) -> Any:
    one, other = datagrams(world), bound(world, world.any)
    want_pktinfo(world, other)
    one.sendto(b"x", (world.address, other.getsockname()[1]))
    return ancillary(world, other)


@case
def udp_pktinfo_of_a_connected_socket(world: World) -> Any:
    one, other = connected(world)
    want_pktinfo(world, other)
    one.send(b"x")
    seen = ancillary(world, other)
    other.send(b"back")
    return [seen, one.recv(9).decode()]


@case
def udp_ancillary_data_switched_off_again(world: World) -> Any:
    one, other = connected(world)
    want_ttl(world, other)
    level, name = (socket.IPPROTO_IP, 12) if world.family == socket.AF_INET else (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)
    other.setsockopt(level, name, 0)
    one.send(b"x")
    return ancillary(world, other)


@case
def udp_all_ancillary_data_in_the_kernels_order(world: World) -> Any:
    one, other = two(world)
    other.setsockopt(socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
    want_tos(world, other)
    want_ttl(world, other)
    want_pktinfo(world, other)
    one.sendto(b"x", other.getsockname())
    return ancillary(world, other)


@case
def udp_timestamps(world: World) -> Any:
    seen = []
    for option in (29, 35):  # SO_TIMESTAMP, SO_TIMESTAMPNS
        one, other = two(world)
        other.setsockopt(socket.SOL_SOCKET, option, 1)
        one.sendto(b"x", other.getsockname())
        seen.append(ancillary(world, other))
    return seen


@case
def udp_ttl_and_tos_of_the_socket_arrive(world: World) -> Any:
    one, other = two(world)
    want_ttl(world, other)
    want_tos(world, other)
    one.setsockopt(*ttl_option(world), 77)
    level, name = (
        (socket.IPPROTO_IP, socket.IP_TOS) if world.family == socket.AF_INET else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    )
    one.setsockopt(level, name, 0x28)
    one.sendto(b"x", other.getsockname())
    return [ancillary(world, other), one.getsockopt(*ttl_option(world)), one.getsockopt(level, name)]


@case
def udp_ttl_and_tos_of_one_datagram(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        want_ttl(world, other)
        want_tos(world, other)
        where = other.getsockname() if not seen else None
        one.sendmsg([b"x"], [control(world, "ttl", 9), control(world, "tos", 0x10)], 0, *([where] if where else []))
        one.sendto(b"y", other.getsockname())
        seen += [ancillary(world, other), ancillary(world, other)]
    return seen


@case
def udp_the_source_of_one_datagram(world: World) -> Any:
    one, other = bound(world, world.any), bound(world)
    host = socket.inet_pton(world.family, world.address)
    if world.family == socket.AF_INET:
        item = (socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 0, host, bytes(4)))
    else:
        item = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, host + bytes(4))
    one.sendmsg([b"x"], [item], 0, other.getsockname())
    return other.recvfrom(9)[1][0]


@case
def udp_wrong_control_data(world: World) -> Any:
    one, other = two(world)
    level, name, _ = control(world, "ttl", 1)
    items = [
        (level, name, struct.pack("=i", 256)),
        (level, name, struct.pack("=i", -2)),
        (level, name, b"12"),
        (level, 99, bytes(4)),
        (socket.SOL_SOCKET, 99, bytes(4)),
        (socket.IPPROTO_TCP, 1, bytes(4)),
        (level, 8 if level == socket.IPPROTO_IP else socket.IPV6_PKTINFO, bytes(4)),
    ]
    return [value(one.sendmsg, [b"x"], [item], 0, other.getsockname()) for item in items]


@case
def udp_ancillary_data_is_cut_to_the_room(world: World) -> Any:
    one, other = two(world)
    want_ttl(world, other)
    seen = []
    for room in (0, 8, 16, 18, 20, 24):
        one.sendto(b"x", other.getsockname())
        data, items, flags, _ = other.recvmsg(9, room)
        seen.append([data.decode(), [(level, kind, len(content)) for level, kind, content in items], flags])
    return seen


# ---- options ----


@case
def udp_options_read_back(world: World) -> Any:
    sock = datagrams(world)
    seen = []
    for option, number in (
        (socket.SO_BROADCAST, 1),
        (socket.SO_REUSEADDR, 1),
        (socket.SO_REUSEPORT, 1),
        (socket.SO_PRIORITY, 4),
        (socket.SO_KEEPALIVE, 1),
        (29, 1),
    ):
        before = sock.getsockopt(socket.SOL_SOCKET, option)
        sock.setsockopt(socket.SOL_SOCKET, option, number)
        seen.append([before, sock.getsockopt(socket.SOL_SOCKET, option)])
    return seen


@case
def udp_the_programs_priority_is_not_the_mode(world: World) -> Any:
    one, other = two(world)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 1)
    one.sendto(b"x", other.getsockname())
    return other.recvfrom(9)[1] == one.getsockname()


@case
def udp_receive_buffer_is_doubled(world: World) -> Any:
    sock = datagrams(world)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 40000)
    return [sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)]


@case
def udp_wrong_values_of_options(world: World) -> Any:
    sock = datagrams(world)
    level, name = ttl_option(world)
    return [outcome(sock.setsockopt, level, name, number) for number in (256, 0, -2)]


@case
def udp_options_of_other_levels(world: World) -> Any:
    sock = datagrams(world)
    return [
        outcome(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        value(sock.getsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY),
        outcome(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_CORK, 1),
        outcome(sock.setsockopt, socket.IPPROTO_UDP, 999, 1),
        value(sock.getsockopt, socket.IPPROTO_UDP, 999),
    ]


@differs("segmentation offload is refused, so that QUIC programs send datagrams one by one", ["ENOPROTOOPT", "ENOPROTOOPT"])
def udp_segmentation_offload(world: World) -> Any:
    sock = datagrams(world)
    return [outcome(sock.setsockopt, socket.IPPROTO_UDP, option, 1) for option in (UDP_SEGMENT, UDP_GRO)]
