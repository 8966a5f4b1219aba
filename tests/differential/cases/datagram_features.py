"""UDP: many messages in one call, broadcast and multicast on one host, both families on one socket, and interfaces."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import Any

from tests.differential.cases.datagrams import bound, connected, datagrams, two
from tests.differential.harness import LIBC, World, case, errno_name, outcome, value

SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK = 0x8910, 0x8912, 0x8913, 0x8915, 0x891B
SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX = 0x8921, 0x8927, 0x8933
MSG_WAITFORONE = 0x10000
GROUP = {socket.AF_INET: "239.77.1.2", socket.AF_INET6: "ff12::77:12"}


def is_kernel(world: World) -> bool:
    return world.address in ("127.0.0.1", "::1")


def ipv4(world: World) -> str:
    """The IPv4 address of this side, whatever the family of the run."""
    return "127.0.0.1" if is_kernel(world) else "10.77.0.1"


def interface(world: World) -> int:
    """The index of the interface that has our address."""
    if is_kernel(world):
        return socket.if_nametoindex("lo")
    return next(index for index, name in socket.if_nameindex() if name != "lo")


# ---- many messages in one call ----


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Head(ctypes.Structure):
    """struct msghdr"""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.POINTER(Part)),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = [("head", Head), ("length", ctypes.c_uint)]


class Batch:
    """Room for `count` messages, or the given ones to be sent; to `where` if it is a packed address."""

    def __init__(self, contents: list[bytes], where: bytes | None = None, names: bool = False) -> None:
        count = len(contents)
        self.buffers = [ctypes.create_string_buffer(content, max(len(content), 1)) for content in contents]
        self.names = [ctypes.create_string_buffer(where or bytes(28), 28) for _ in contents]
        self.parts = (Part * count)(*[Part(ctypes.addressof(b), len(c)) for b, c in zip(self.buffers, contents, strict=True)])
        self.messages = (Message * count)()
        for index, message in enumerate(self.messages):
            message.head.parts = ctypes.pointer(self.parts[index])
            message.head.part_count = 1
            if where or names:
                message.head.name = ctypes.addressof(self.names[index])
                message.head.name_length = len(where) if where else 28

    def send(self, sock: socket.socket, flags: int = 0) -> Any:
        sent = LIBC.sendmmsg(sock.fileno(), self.messages, len(self.messages), flags)
        return sent if sent >= 0 else errno_name(ctypes.get_errno())

    def receive(self, sock: socket.socket, flags: int = 0) -> Any:
        got = LIBC.recvmmsg(sock.fileno(), self.messages, len(self.messages), flags, None)
        return got if got >= 0 else errno_name(ctypes.get_errno())

    def seen(self, count: int) -> list[Any]:
        return [
            [self.buffers[i].raw[: min(m.length, self.parts[i].length)].decode(), m.length, m.head.flags]
            for i, m in enumerate(self.messages[:count])
        ]


def packed(sock: socket.socket) -> bytes:
    room, length = ctypes.create_string_buffer(28), ctypes.c_uint(28)
    LIBC.getsockname(sock.fileno(), room, ctypes.byref(length))
    return room.raw[: length.value]


@case
def mmsg_sent_and_received(world: World) -> Any:
    results = []
    for connecting in (False, True):
        one, other = connected(world) if connecting else two(world)
        sent = Batch([b"first", b"", b"third"], None if connecting else packed(other)).send(one)
        room = Batch([bytes(9)] * 3, names=True)
        got = room.receive(other)
        results.append([sent, got, room.seen(3), [m.head.name_length for m in room.messages]])
        results.append([room.names[i].raw[: len(packed(one))] == packed(one) for i in range(3)])
    return results


@case
def mmsg_truncates_each(world: World) -> Any:
    one, other = two(world)
    Batch([b"abcdef", b"gh", b"ijkl"], packed(other)).send(one)
    room = Batch([bytes(3)] * 3)
    return [room.receive(other), room.seen(3)]


@case
def mmsg_waits_for_one_only(world: World) -> Any:
    one, other = two(world)
    one.sendto(b"single", other.getsockname())
    room = Batch([bytes(9)] * 4)
    return [room.receive(other, MSG_WAITFORONE), room.seen(1), room.receive(other, socket.MSG_DONTWAIT)]


@case
def mmsg_stops_at_the_first_that_fails(world: World) -> Any:
    one = datagrams(world)
    return [Batch([b"a", b"b"]).send(one), Batch([bytes(70000), b"b"], packed(bound(world))).send(one)]


@case
def mmsg_of_nothing(world: World) -> Any:
    one = bound(world)
    return [LIBC.sendmmsg(one.fileno(), None, 0, 0), LIBC.recvmmsg(one.fileno(), None, 0, 0, None)]


# ---- broadcast ----


def broadcast_address(world: World) -> str:
    return "127.255.255.255" if is_kernel(world) else "10.77.0.255"


@case
def broadcast_needs_permission(world: World) -> Any:
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    return [outcome(sock.sendto, b"x", (broadcast_address(world), 9)), sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)]


@case
def broadcast_connect_needs_permission(world: World) -> Any:
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    refused = outcome(sock.connect, (broadcast_address(world), 9))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return [refused, outcome(sock.connect, (broadcast_address(world), 9))]


@case
def broadcast_reaches_this_host(world: World) -> Any:
    receiver = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("0.0.0.0", 0))
    sender = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sent = sender.sendto(b"to all", (broadcast_address(world), receiver.getsockname()[1]))
    data, peer = receiver.recvfrom(99)
    return [sent, data.decode(), peer[0] == ipv4(world)]


# ---- multicast ----
# Datagrams to groups are of IPv4 in both runs: the kernel's loopback interface has no IPv6 multicast.


def membership(world: World, family: int, group: str) -> bytes:
    if family == socket.AF_INET:
        return socket.inet_aton(group) + socket.inet_aton(ipv4(world))
    return socket.inet_pton(family, group) + struct.pack("=I", interface(world))


def join(world: World, sock: socket.socket, group: str | None = None) -> str:
    level, name = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP)
    if sock.family == socket.AF_INET6:
        level, name = (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP)
    return outcome(sock.setsockopt, level, name, membership(world, sock.family, group or GROUP[sock.family]))


def leave(world: World, sock: socket.socket) -> str:
    level, name = (socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP)
    if sock.family == socket.AF_INET6:
        level, name = (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP)
    return outcome(sock.setsockopt, level, name, membership(world, sock.family, GROUP[sock.family]))


def over_ipv4(world: World, address: str | None = None, port: int = 0) -> socket.socket:
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ipv4(world) if address is None else address, port))
    return sock


def member(world: World) -> socket.socket:
    """Joined, and bound to the wildcard."""
    sock = over_ipv4(world, "0.0.0.0")
    assert join(world, sock) == "OK"
    return sock


def sender(world: World) -> socket.socket:
    """Sends to groups by the interface of our address."""
    sock = over_ipv4(world)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ipv4(world)))
    return sock


def group_at(sock: socket.socket) -> tuple[str, int]:
    return (GROUP[socket.AF_INET], sock.getsockname()[1])


@case
def multicast_reaches_a_member_on_this_host(world: World) -> Any:
    receiver, source = member(world), sender(world)
    sent = source.sendto(b"to the group", group_at(receiver))
    data, peer = receiver.recvfrom(99)
    return [sent, data.decode(), peer[0] == ipv4(world)]


@case
def multicast_is_not_heard_after_leaving(world: World) -> Any:
    receiver, source = member(world), sender(world)
    left = leave(world, receiver)
    source.sendto(b"to the group", group_at(receiver))
    source.sendto(b"to the host", (ipv4(world), receiver.getsockname()[1]))
    return [left, receiver.recv(99).decode()]


@case
def multicast_reaches_every_member(world: World) -> Any:
    first = member(world)
    second = over_ipv4(world, "0.0.0.0", first.getsockname()[1])
    joined = join(world, second)
    sender(world).sendto(b"to the group", group_at(first))
    return [joined, first.recv(99).decode(), second.recv(99).decode()]


@case
def multicast_to_a_socket_bound_to_the_group(world: World) -> Any:
    receiver = over_ipv4(world, GROUP[socket.AF_INET])
    join(world, receiver)
    source = sender(world)
    source.sendto(b"to the group", group_at(receiver))
    return [receiver.recv(99).decode(), receiver.getsockname()[0]]


@case
def multicast_destination_and_hops_arrive(world: World) -> Any:
    receiver, source = member(world), sender(world)
    receiver.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    receiver.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    seen = []
    for hops in (None, 3):
        if hops:
            source.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
        source.sendto(b"x", group_at(receiver))
        _, items, _, _ = receiver.recvmsg(9, 200)
        (_, _, info), (_, _, ttl) = items
        seen.append([socket.inet_ntoa(info[8:12]), struct.unpack("=i", ttl)[0]])
    return seen


@case
def multicast_join_and_leave_wrongly(world: World) -> Any:
    sock = datagrams(world)
    return [join(world, sock), join(world, sock), leave(world, sock), leave(world, sock), join(world, sock, world.address)]


@case
def multicast_options_read_back(world: World) -> Any:
    sock = datagrams(world)
    if world.family == socket.AF_INET:
        level, names = socket.IPPROTO_IP, (socket.IP_MULTICAST_TTL, socket.IP_MULTICAST_LOOP)
    else:
        level, names = socket.IPPROTO_IPV6, (socket.IPV6_MULTICAST_HOPS, socket.IPV6_MULTICAST_LOOP)
    seen = [sock.getsockopt(level, name) for name in names]
    sock.setsockopt(level, names[0], 5)
    sock.setsockopt(level, names[1], 0)
    return seen + [sock.getsockopt(level, name) for name in names]


# ---- both families on one socket ----


def dual(world: World) -> socket.socket:
    sock = world.keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    return sock


@case
def dual_stack_receives_and_answers_ipv4(world: World) -> Any:
    server, client = dual(world), over_ipv4(world)
    client.sendto(b"question", (ipv4(world), server.getsockname()[1]))
    data, peer = server.recvfrom(99)
    server.sendto(b"answer", peer)
    answer, source = client.recvfrom(99)
    return [data.decode(), peer[0] == f"::ffff:{ipv4(world)}", answer.decode(), source[0] == ipv4(world)]


@case
def dual_stack_pktinfo_of_ipv4(world: World) -> Any:
    server, client = dual(world), over_ipv4(world)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    client.sendto(b"x", (ipv4(world), server.getsockname()[1]))
    _, items, _, _ = server.recvmsg(9, 200)
    return [[level, kind, socket.inet_ntop(socket.AF_INET6, info[:16]) == f"::ffff:{ipv4(world)}"] for level, kind, info in items]


@case
def dual_stack_connects_to_ipv4(world: World) -> Any:
    server, client = over_ipv4(world), world.keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    client.connect((f"::ffff:{ipv4(world)}", server.getsockname()[1]))
    client.send(b"x")
    data, peer = server.recvfrom(9)
    server.sendto(b"y", peer)
    return [client.getsockname()[0] == f"::ffff:{ipv4(world)}", data.decode(), client.recv(9).decode()]


@case
def dual_stack_limit_of_ipv4(world: World) -> Any:
    client = world.keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    return outcome(client.sendto, bytes(65508), (f"::ffff:{ipv4(world)}", 9))


@case
def ipv6_only_hears_and_reaches_no_ipv4(world: World) -> Any:
    server = world.keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(("::", 0))
    port = server.getsockname()[1]
    same_port = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    return [outcome(same_port.bind, (ipv4(world), port)), value(server.recv, 9, socket.MSG_DONTWAIT)]


@case
def dual_stack_takes_the_port_of_both(world: World) -> Any:
    port = dual(world).getsockname()[1]
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    return outcome(sock.bind, (ipv4(world), port))


# ---- interfaces ----


def request(sock: socket.socket, number: int, name: bytes, rest: bytes = b"") -> bytes:
    return fcntl.ioctl(sock, number, name.ljust(16, b"\0") + rest.ljust(24, b"\0"))


@case
def interface_names_and_indexes_agree(world: World) -> Any:
    names = dict(socket.if_nameindex())
    return [
        all(socket.if_indextoname(index) == name and socket.if_nametoindex(name) == index for index, name in names.items()),
        names[1],
        outcome(socket.if_nametoindex, "nosuchthing"),
        outcome(socket.if_indextoname, 1000000),
    ]


@case
def interface_of_our_address_by_ioctl(world: World) -> Any:
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    index = interface(world)
    name = socket.if_indextoname(index).encode()
    by_index = request(sock, SIOCGIFNAME, b"", struct.pack("=i", index))
    address = request(sock, SIOCGIFADDR, name)
    flags = struct.unpack_from("=h", request(sock, SIOCGIFFLAGS, name), 16)[0]
    return [
        by_index[:16].rstrip(b"\0") == name,
        struct.unpack_from("=i", request(sock, SIOCGIFINDEX, name), 16)[0] == index,
        struct.unpack_from("=H", address, 16)[0],
        socket.inet_ntoa(address[20:24]) == ipv4(world),
        bool(flags & 1),
        bool(flags & 0x40),
        struct.unpack_from("=i", request(sock, SIOCGIFMTU, name), 16)[0] > 1000,
        len(request(sock, SIOCGIFHWADDR, name)),
        value(lambda: len(request(datagrams(world), SIOCGIFADDR, name))),
    ]


@case
def interface_that_is_not_there(world: World) -> Any:
    sock = datagrams(world)
    return [value(request, sock, number, b"nosuch") for number in (SIOCGIFADDR, SIOCGIFFLAGS, SIOCGIFINDEX, SIOCGIFMTU)] + [
        value(request, sock, SIOCGIFNAME, b"", struct.pack("=i", 1000000))
    ]


@case
def interface_list_by_siocgifconf(world: World) -> Any:
    """Every entry is whole, lo and our address are among them."""
    sock = datagrams(world)
    room = ctypes.create_string_buffer(4000)
    done = fcntl.ioctl(sock, SIOCGIFCONF, struct.pack("=i4xQ", len(room), ctypes.addressof(room)))
    length = struct.unpack_from("=i", done)[0]
    needed = struct.unpack_from("=i", fcntl.ioctl(sock, SIOCGIFCONF, struct.pack("=i4xQ", 0, 0)))[0]
    entries = [room.raw[at : at + 40] for at in range(0, length, 40)]
    addresses = [socket.inet_ntoa(entry[20:24]) for entry in entries]
    return [
        length % 40,
        needed == length,
        entries[0][:16].rstrip(b"\0").decode(),
        addresses[0] == "127.0.0.1",
        ipv4(world) in addresses,
    ]


class InterfaceAddress(ctypes.Structure):
    pass


InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("mask", ctypes.c_void_p),
    ("broadcast", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


@case
def interface_addresses_by_getifaddrs(world: World) -> Any:
    head = ctypes.POINTER(InterfaceAddress)()
    assert LIBC.getifaddrs(ctypes.byref(head)) == 0
    found, families, item = [], set(), head
    while item:
        entry = item.contents
        family = struct.unpack("=H", ctypes.string_at(entry.address, 2))[0] if entry.address else 0
        families.add((entry.name == b"lo", family))
        if family == world.family:
            at, size = (4, 4) if family == socket.AF_INET else (8, 16)
            text = socket.inet_ntop(family, ctypes.string_at(entry.address + at, size))
            if text == world.address:
                mask = ctypes.string_at(entry.mask + at, size)
                found.append([bool(entry.flags & 1), socket.if_nametoindex(entry.name.decode()) == interface(world), mask[0]])
        item = entry.next
    LIBC.freeifaddrs(head)
    return [found, (True, socket.AF_PACKET) in families, (True, world.family) in families]
