"""Options value by value: what each takes, refuses and shows, on streams and on UDP, as an ordinary user."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Any

from tests.differential.harness import LIBC, World, case, differs, outcome, value

SOL, TCP, IP, IP6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
VALUES = (0, 1, 2, 5, 64, 300, 100_000, -1, -2)

SO_NO_CHECK, SO_BUSY_POLL, SO_MAX_PACING_RATE, SO_TIMESTAMPING, SO_RXQ_OVFL, SO_PREFER_BUSY_POLL = 11, 46, 47, 37, 40, 69
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_SNDLOWAT, SO_SELECT_ERR_QUEUE, SO_INCOMING_NAPI_ID = 32, 33, 19, 45, 56
TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK, TCP_SAVE_SYN, TCP_INQ, TCP_REPAIR = 16, 17, 27, 36, 19
IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_FREEBIND, IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT = (
    8,
    10,
    11,
    12,
    15,
    19,
    24,
)
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR, IPV6_AUTOFLOWLABEL, IPV6_TRANSPARENT, IPV6_FREEBIND = 23, 24, 25, 70, 75, 78

OF_ANY = (
    *(socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_KEEPALIVE, socket.SO_BROADCAST, socket.SO_DONTROUTE),
    *(socket.SO_OOBINLINE, SO_NO_CHECK, SO_RXQ_OVFL, SO_SELECT_ERR_QUEUE, SO_MAX_PACING_RATE, SO_SNDLOWAT),
)


def as_ordinary_user() -> None:
    """Some options are the administrator's: give all capabilities up. The case runs in a process of its own."""
    version_3 = struct.pack("=Ii", 0x20080522, 0)
    if LIBC.capset(version_3, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def each_value(make: Any, level: int, *names: int, values: tuple[int, ...] = VALUES) -> list[Any]:
    """For each option its default and, for each value on a new socket, what setting it says and what it is then."""
    seen: list[Any] = []
    for name in names:
        seen.append(value(make().getsockopt, level, name))
        for number in values:
            sock = make()
            seen.append([outcome(sock.setsockopt, level, name, number), value(sock.getsockopt, level, name)])
            sock.close()
    return seen


def udp(world: World) -> socket.socket:
    return world.keep(socket.socket(world.family, socket.SOCK_DGRAM))


@case
def values_of_socket_options(world: World) -> Any:
    return each_value(world.stream, SOL, *OF_ANY)


@case
def values_of_socket_options_of_udp(world: World) -> Any:
    return each_value(lambda: udp(world), SOL, *OF_ANY)


@case
def values_of_buffers(world: World) -> Any:
    """Doubled, at least the kernel's minimum, at most net.core.rmem_max and wmem_max."""
    sizes = (0, 1, 1000, 5000, 100_000, 1 << 22, 1 << 30, -1)
    return [each_value(make, SOL, socket.SO_RCVBUF, socket.SO_SNDBUF, values=sizes) for make in (world.stream, lambda: udp(world))]


@case
def values_of_buffers_of_a_connection(world: World) -> Any:
    client, _ = world.pair()
    seen = []
    for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        for size in (1, 5000, 100_000):
            client.setsockopt(SOL, name, size)
            seen.append(client.getsockopt(SOL, name))
    return seen


@case
def buffers_are_inherited_by_accept(world: World) -> Any:
    listener = world.listener()
    listener.setsockopt(SOL, socket.SO_RCVBUF, 30_000)
    listener.setsockopt(SOL, socket.SO_SNDBUF, 20_000)
    client = world.stream()
    client.connect(world.to(listener))
    server = world.keep(listener.accept()[0])
    return [server.getsockopt(SOL, name) for name in (socket.SO_RCVBUF, socket.SO_SNDBUF)]


@case
def a_small_receive_buffer_delivers_everything(world: World) -> Any:
    listener = world.listener()
    listener.setsockopt(SOL, socket.SO_RCVBUF, 1)
    listener.setsockopt(SOL, socket.SO_SNDBUF, 1)
    client = world.stream()
    client.setsockopt(SOL, socket.SO_SNDBUF, 1)
    client.connect(world.to(listener))
    server = world.keep(listener.accept()[0])
    client.setblocking(False)
    server.setblocking(False)
    data, sent, received = os.urandom(300_000), 0, b""
    while len(received) < len(data):
        if sent < len(data):
            count = value(client.send, data[sent : sent + 10_000])
            sent += count if isinstance(count, int) else 0
        piece = value(server.recv, 10_000)
        received += piece if isinstance(piece, bytes) else b""
    return received == data


@case
def values_of_tcp_times(world: World) -> Any:
    return each_value(world.stream, TCP, socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@case
def values_of_tcp_syncnt_linger2_and_defer_accept(world: World) -> Any:
    return each_value(world.stream, TCP, socket.TCP_SYNCNT, socket.TCP_LINGER2, socket.TCP_DEFER_ACCEPT)


@case
def values_of_tcp_window_clamp_and_notsent_lowat(world: World) -> Any:
    return each_value(world.stream, TCP, socket.TCP_WINDOW_CLAMP, socket.TCP_NOTSENT_LOWAT)


@case
def window_clamp_of_a_listener_cannot_be_taken_off(world: World) -> Any:
    listener = world.listener()
    return [outcome(listener.setsockopt, TCP, socket.TCP_WINDOW_CLAMP, number) for number in (0, 5000)]


@case
def values_of_tcp_maxseg(world: World) -> Any:
    return each_value(world.stream, TCP, socket.TCP_MAXSEG, values=(0, 1, 87, 88, 500, 1000, 32767, 32768, -1))


@case
def maxseg_bounds_both_ends_of_a_connection(world: World) -> Any:
    """Twelve bytes go to time stamps, which netcon does not send."""
    listener, client = world.listener(), world.stream()
    client.setsockopt(TCP, socket.TCP_MAXSEG, 600)
    client.connect(world.to(listener))
    server = world.keep(listener.accept()[0])
    return [588 <= sock.getsockopt(TCP, socket.TCP_MAXSEG) <= 600 for sock in (client, server)]


@case
def values_of_other_tcp_options(world: World) -> Any:
    return each_value(world.stream, TCP, socket.TCP_NODELAY, TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK, TCP_SAVE_SYN, TCP_INQ)


@case
def values_of_tcp_options_of_a_connection(world: World) -> Any:
    client, server = world.pair()
    seen = []
    for name, number in ((socket.TCP_USER_TIMEOUT, 7000), (socket.TCP_SYNCNT, 4), (socket.TCP_LINGER2, 9), (socket.TCP_KEEPCNT, 5)):
        for sock in (client, server):
            seen.append([outcome(sock.setsockopt, TCP, name, number), sock.getsockopt(TCP, name)])
    return seen


@case
def values_of_traffic_classes(world: World) -> Any:
    """The two bits of ECN are TCP's own, and the program's on UDP."""
    level, name = (IP, socket.IP_TOS) if world.family == socket.AF_INET else (IP6, socket.IPV6_TCLASS)
    return [each_value(make, level, name, values=(0, 1, 5, 0x28, 255, 256, -1, -2)) for make in (world.stream, lambda: udp(world))]


@case
def values_of_hop_limits(world: World) -> Any:
    level, name = (IP, socket.IP_TTL) if world.family == socket.AF_INET else (IP6, socket.IPV6_UNICAST_HOPS)
    return [each_value(make, level, name, values=(0, 1, 64, 255, 256, -1, -2)) for make in (world.stream, lambda: udp(world))]


@case
def values_of_ip_options_of_a_stream(world: World) -> Any:
    names = (IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_FREEBIND, IP_BIND_ADDRESS_NO_PORT, socket.IP_MULTICAST_LOOP)
    return each_value(world.stream, IP, *names)


@case
def values_of_ipv6_options_of_a_stream(world: World) -> Any:
    names = (IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_AUTOFLOWLABEL, IPV6_FREEBIND, socket.IPV6_RECVPKTINFO, socket.IPV6_DONTFRAG)
    return each_value(world.stream, IP6, *names, socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT, values=(0, 1, 5))


@case
def values_of_ipv6_mtu(world: World) -> Any:
    return each_value(world.stream, IP6, IPV6_MTU, values=(0, 1, 1279, 1280, 9000, -1))


@case
def ip_options_are_empty(world: World) -> Any:
    client, _ = world.pair()
    if world.family == socket.AF_INET6:
        return "IPv4 only"
    return [client.getsockopt(IP, socket.IP_OPTIONS, 40).hex(), outcome(client.setsockopt, IP, socket.IP_OPTIONS, b"")]


@case
def mtu_is_that_of_a_connection(world: World) -> Any:
    client, _ = world.pair()
    level, name = (IP, 14) if world.family == socket.AF_INET else (IP6, IPV6_MTU)
    bare = udp(world)
    bare.connect((world.address, 9))
    return [value(world.stream().getsockopt, level, name), *(sock.getsockopt(level, name) > 1000 for sock in (client, bare))]


@case
def what_needs_a_privilege_is_refused(world: World) -> Any:
    as_ordinary_user()
    seen = each_value(world.stream, SOL, socket.SO_MARK, SO_PREFER_BUSY_POLL, SO_SNDBUFFORCE, SO_RCVBUFFORCE, values=(0, 1, 7))
    seen += each_value(world.stream, SOL, socket.SO_PRIORITY, values=(0, 6, 7, -1))
    seen += each_value(world.stream, SOL, 1, values=(0, 1))  # SO_DEBUG
    seen += each_value(world.stream, IP, IP_TRANSPARENT, values=(0, 1))
    return [*seen, outcome(world.stream().setsockopt, TCP, TCP_REPAIR, 1)]


@case
def what_needs_a_privilege_is_refused_of_udp(world: World) -> Any:
    as_ordinary_user()
    make = lambda: udp(world)  # noqa: E731
    seen = each_value(make, SOL, socket.SO_MARK, SO_SNDBUFFORCE, SO_RCVBUFFORCE, values=(0, 1))
    return seen + each_value(make, SOL, socket.SO_PRIORITY, values=(0, 6, 7)) + each_value(make, IP, IP_TRANSPARENT, values=(0, 1))


@case
def values_of_incoming_cpu_and_napi(world: World) -> Any:
    return each_value(world.stream, SOL, socket.SO_INCOMING_CPU, SO_INCOMING_NAPI_ID, values=(0, 1))


@differs(
    "TCP fast open is refused, as a kernel before 3.7 refuses it", ["ENOPROTOOPT", "ENOPROTOOPT", "ENOPROTOOPT", "ENOPROTOOPT"]
)
def fast_open_options(world: World) -> Any:
    listener, client = world.bound(), world.stream()
    seen = [value(listener.getsockopt, TCP, socket.TCP_FASTOPEN), outcome(listener.setsockopt, TCP, socket.TCP_FASTOPEN, 5)]
    return [*seen, outcome(client.setsockopt, TCP, 30, 1), value(client.getsockopt, TCP, 30)]


@differs("zero copy is refused, as a kernel before 4.14 refuses it", ["ENOPROTOOPT", "ENOPROTOOPT"])
def zero_copy_option(world: World) -> Any:
    return [outcome(sock.setsockopt, SOL, 60, 1) for sock in (world.stream(), udp(world))]


@case
def v6only_of_a_bound_socket(world: World) -> Any:
    if world.family != socket.AF_INET6:
        return "IPv6 only"
    to_one, to_all = world.bound(), world.bound(address="::")
    return [
        [sock.getsockopt(IP6, socket.IPV6_V6ONLY), outcome(sock.setsockopt, IP6, socket.IPV6_V6ONLY, 1)]
        for sock in (to_one, to_all)
    ]


@case
def udp_v6only_of_a_bound_socket(world: World) -> Any:
    if world.family != socket.AF_INET6:
        return "IPv6 only"
    seen = []
    for address in (world.address, "::"):
        sock = udp(world)
        sock.bind((address, 0))
        seen.append([sock.getsockopt(IP6, socket.IPV6_V6ONLY), outcome(sock.setsockopt, IP6, socket.IPV6_V6ONLY, 1)])
    return seen


@case
def bind_to_no_device_and_to_one_that_is_not_there(world: World) -> Any:
    seen = []
    for sock in (world.stream(), udp(world)):
        seen += [outcome(sock.setsockopt, SOL, socket.SO_BINDTODEVICE, name) for name in (b"", b"nothere0\0")]
        seen += [value(sock.getsockopt, SOL, socket.SO_BINDTODEVICE, 16), outcome(sock.getsockopt, SOL, socket.SO_BINDTODEVICE, 3)]
    return [entry.hex() if isinstance(entry, bytes) else entry for entry in seen]


@case
def device_by_name_is_shown(world: World) -> Any:
    """The first interface that is not lo, for ours; lo itself for the kernel's addresses, which are on it."""
    names = [name for _, name in socket.if_nameindex()]
    name = "lo" if world.address in ("127.0.0.1", "::1") else next(name for name in names if name != "lo")
    seen = []
    for sock in (world.stream(), udp(world)):
        sock.setsockopt(SOL, socket.SO_BINDTODEVICE, name.encode())
        seen.append(sock.getsockopt(SOL, socket.SO_BINDTODEVICE, 16) == name.encode() + b"\0")
        sock.bind((world.any, 0))
        seen.append(sock.getsockname()[0] == world.any)
    return seen


@case
def linger_values(world: World) -> Any:
    seen = []
    for sock in (world.stream(), udp(world)):
        for on, seconds in ((1, 0), (1, 7), (0, 9), (2, 3)):
            sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", on, seconds))
            seen.append(sock.getsockopt(SOL, socket.SO_LINGER, 8).hex())
        seen.append(outcome(sock.setsockopt, SOL, socket.SO_LINGER, 1))
    return seen


@case
def congestion_control_by_name(world: World) -> Any:
    sock = world.stream()
    return [outcome(sock.setsockopt, TCP, socket.TCP_CONGESTION, name) for name in (b"reno", b"nothing", b"")]


@case
def tcp_info_counts_bytes(world: World) -> Any:
    client, server = world.pair()
    client.sendall(bytes(5000))
    server.recv(5000, socket.MSG_WAITALL)
    server.sendall(b"back")
    client.recv(4, socket.MSG_WAITALL)
    received = [struct.unpack_from("=Q", sock.getsockopt(TCP, socket.TCP_INFO, 136), 128)[0] for sock in (client, server)]
    acknowledged = struct.unpack_from("=Q", client.getsockopt(TCP, socket.TCP_INFO, 136), 120)[0]
    return [received, acknowledged in (5000, 5001)]  # the kernel counts its SYN


@case
def tcp_info_of_any_length(world: World) -> Any:
    client, _ = world.pair()
    return [len(client.getsockopt(TCP, socket.TCP_INFO, length)) for length in (0, 1, 8, 104, 192, 232)]


@case
def udp_timestamps_exclude_each_other(world: World) -> Any:
    sock = udp(world)
    seen = []
    for name, number in ((29, 1), (35, 1), (29, 1), (35, 0), (29, 0)):
        sock.setsockopt(SOL, name, number)
        seen.append([sock.getsockopt(SOL, 29), sock.getsockopt(SOL, 35)])
    return seen
