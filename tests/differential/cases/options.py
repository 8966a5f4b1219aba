"""getsockopt and setsockopt: defaults, read-back, and errors."""

import ctypes
import select
import socket
import struct

from tests.differential.harness import (
    LIBC,
    World,
    case,
    errno_name,
    outcome,
    raw_call,
    receive_all,
    reset,
    value,
    wait,
    wait_all,
)

TCP = socket.IPPROTO_TCP


def read_back(sock: socket.socket, level: int, name: int, *values: int) -> list[object]:
    """The default, then what is read after each value was set."""
    seen: list[object] = [value(sock.getsockopt, level, name)]
    for setting in values:
        seen.append(value(lambda s=setting: (sock.setsockopt(level, name, s), sock.getsockopt(level, name))[1]))
    return seen


@case
def option_type_domain_protocol(world: World):
    sock = world.stream()
    ask = lambda n: sock.getsockopt(socket.SOL_SOCKET, n)  # noqa: E731
    return [ask(socket.SO_TYPE), ask(socket.SO_DOMAIN) == world.family, ask(socket.SO_PROTOCOL)]


@case
def option_type_of_an_accepted_socket(world: World):
    _, server = world.pair()
    ask = lambda n: server.getsockopt(socket.SOL_SOCKET, n)  # noqa: E731
    return [ask(socket.SO_TYPE), ask(socket.SO_DOMAIN) == world.family, ask(socket.SO_PROTOCOL)]


@case
def option_reuseaddr(world: World):
    return read_back(world.stream(), socket.SOL_SOCKET, socket.SO_REUSEADDR, 1, 0, 5)


@case
def option_reuseport(world: World):
    return read_back(world.stream(), socket.SOL_SOCKET, socket.SO_REUSEPORT, 1, 0)


@case
def option_keepalive(world: World):
    return read_back(world.stream(), socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, 0)


@case
def option_nodelay(world: World):
    return read_back(world.stream(), TCP, socket.TCP_NODELAY, 1, 0)


@case
def option_nodelay_on_a_connection(world: World):
    client, _ = world.pair()
    return read_back(client, TCP, socket.TCP_NODELAY, 1, 0)


@case
def option_keepidle(world: World):
    return read_back(world.stream(), TCP, socket.TCP_KEEPIDLE, 60, 1, 0, 40000)


@case
def option_keepintvl(world: World):
    return read_back(world.stream(), TCP, socket.TCP_KEEPINTVL, 10, 0)


@case
def option_keepcnt(world: World):
    return read_back(world.stream(), TCP, socket.TCP_KEEPCNT, 3, 0, 200)


@case
def option_user_timeout(world: World):
    return read_back(world.stream(), TCP, socket.TCP_USER_TIMEOUT, 5000, 0)


@case
def option_defer_accept_is_accepted(world: World):
    return outcome(world.bound().setsockopt, TCP, socket.TCP_DEFER_ACCEPT, 1)


@case
def option_quickack_is_accepted(world: World):
    client, _ = world.pair()
    return outcome(client.setsockopt, TCP, socket.TCP_QUICKACK, 1)


@case
def option_cork_is_accepted(world: World):
    client, server = world.pair()
    results = [outcome(client.setsockopt, TCP, socket.TCP_CORK, 1)]
    client.sendall(b"x")
    results.append(outcome(client.setsockopt, TCP, socket.TCP_CORK, 0))
    return [*results, server.recv(1).decode()]


@case
def option_linger(world: World):
    sock = world.stream()
    before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8).hex()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    return [before, sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8).hex()]


@case
def option_buffers_are_doubled(world: World):
    sock = world.stream()
    seen = []
    for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, name, 50_000)
        seen.append(sock.getsockopt(socket.SOL_SOCKET, name))
    return seen


@case
def option_timeouts(world: World):
    sock = world.stream()
    seen = []
    for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        seen.append(struct.unpack("ll", sock.getsockopt(socket.SOL_SOCKET, name, 16)))
        sock.setsockopt(socket.SOL_SOCKET, name, struct.pack("ll", 2, 500_000))
        seen.append(struct.unpack("ll", sock.getsockopt(socket.SOL_SOCKET, name, 16)))
    return seen


@case
def option_error_of_a_fresh_socket(world: World):
    return world.stream().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@case
def option_error_cannot_be_set(world: World):
    return outcome(world.stream().setsockopt, socket.SOL_SOCKET, socket.SO_ERROR, 0)


@case
def option_type_cannot_be_set(world: World):
    return outcome(world.stream().setsockopt, socket.SOL_SOCKET, socket.SO_TYPE, 1)


@case
def option_unknown_socket_level(world: World):
    sock = world.stream()
    return [outcome(sock.getsockopt, socket.SOL_SOCKET, 9999), outcome(sock.setsockopt, socket.SOL_SOCKET, 9999, 1)]


@case
def option_unknown_tcp_level(world: World):
    sock = world.stream()
    return [outcome(sock.getsockopt, TCP, 9999), outcome(sock.setsockopt, TCP, 9999, 1)]


@case
def option_unknown_level(world: World):
    sock = world.stream()
    return [outcome(sock.getsockopt, 9999, 1), outcome(sock.setsockopt, 9999, 1, 1)]


@case
def option_value_too_short(world: World):
    sock = world.stream()
    return [
        outcome(sock.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEADDR, b"\x01"),
        outcome(sock.setsockopt, TCP, socket.TCP_NODELAY, b"\x01"),
    ]


@case
def option_read_is_truncated(world: World):
    sock = world.stream()
    buffer = ctypes.create_string_buffer(b"\xee" * 8, 8)
    length = ctypes.c_uint32(2)
    result = LIBC.getsockopt(sock.fileno(), socket.SOL_SOCKET, socket.SO_TYPE, buffer, ctypes.byref(length))
    return [result, length.value, buffer.raw.hex()]


@case
def option_read_with_room_to_spare(world: World):
    sock = world.stream()
    buffer = ctypes.create_string_buffer(b"\xee" * 8, 8)
    length = ctypes.c_uint32(8)
    result = LIBC.getsockopt(sock.fileno(), TCP, socket.TCP_NODELAY, buffer, ctypes.byref(length))
    return [result, length.value, buffer.raw.hex()]


@case
def option_read_with_a_negative_length(world: World):
    sock = world.stream()
    length = ctypes.c_int32(-1)
    ctypes.set_errno(0)
    result = LIBC.getsockopt(sock.fileno(), socket.SOL_SOCKET, socket.SO_TYPE, ctypes.create_string_buffer(8), ctypes.byref(length))
    return [result, errno_name(ctypes.get_errno())]


@case
def option_peercred_is_nobody(world: World):
    client, _ = world.pair()
    return list(struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


@case
def option_ulp_of_a_fresh_socket(world: World):
    return outcome(world.stream().setsockopt, TCP, 31, b"nonsense") in ("ENOENT", "ENOPROTOOPT")


@case
def option_tos(world: World):
    if world.family == socket.AF_INET6:
        return read_back(world.stream(), socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x10)
    return read_back(world.stream(), socket.IPPROTO_IP, socket.IP_TOS, 0x10)


@case
def option_v6only(world: World):
    sock = world.stream()
    return read_back(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1, 0)


@case
def option_v6only_listener_leaves_the_port_to_v4(world: World):
    if world.family != socket.AF_INET6:
        return "IPv6 only"
    first = world.stream()
    first.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    first.bind(("::", 0))
    first.listen(1)
    second = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    return outcome(second.bind, ("0.0.0.0", first.getsockname()[1]))


@case
def option_tcp_info_state(world: World):
    client, _ = world.pair()
    listener = world.listener()
    state = lambda s: s.getsockopt(TCP, socket.TCP_INFO, 104)[0]  # noqa: E731
    return [state(client), state(listener), state(world.stream())]


@case
def option_congestion_is_a_name(world: World):
    return len(world.stream().getsockopt(TCP, 13, 16))


@case
def option_maxseg_of_a_connection_is_positive(world: World):
    client, _ = world.pair()
    return client.getsockopt(TCP, socket.TCP_MAXSEG) > 500


@case
def option_settings_survive_connect(world: World):
    listener = world.listener()
    client = world.stream()
    client.setsockopt(TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(TCP, socket.TCP_KEEPIDLE, 33)
    client.connect(world.to(listener))
    ask = client.getsockopt
    return [ask(TCP, socket.TCP_NODELAY), ask(socket.SOL_SOCKET, socket.SO_KEEPALIVE), ask(TCP, socket.TCP_KEEPIDLE)]


@case
def option_settings_are_inherited_by_accept(world: World):
    listener = world.listener()
    listener.setsockopt(TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client = world.stream()
    client.connect(world.to(listener))
    server, _ = listener.accept()
    return [server.getsockopt(TCP, socket.TCP_NODELAY), server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]


@case
def option_broadcast_oobinline_priority(world: World):
    sock = world.stream()
    return [read_back(sock, socket.SOL_SOCKET, name, 1) for name in (socket.SO_BROADCAST, socket.SO_OOBINLINE, socket.SO_PRIORITY)]


@case
def option_ttl(world: World):
    if world.family == socket.AF_INET6:
        return read_back(world.stream(), socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 7, 256)
    return read_back(world.stream(), socket.IPPROTO_IP, socket.IP_TTL, 7, 0, 256)


@case
def option_syncnt(world: World):
    return read_back(world.stream(), TCP, socket.TCP_SYNCNT, 3, 0, 200)[1:]


@case
def option_maxseg_of_a_fresh_socket(world: World):
    return read_back(world.stream(), TCP, socket.TCP_MAXSEG, 1)[1:]


@case
def option_timestamp(world: World):
    return read_back(world.stream(), socket.SOL_SOCKET, 29, 1, 0)


@case
def option_read_without_a_length(world: World):
    return raw_call(LIBC.getsockopt, world.stream().fileno(), socket.SOL_SOCKET, socket.SO_TYPE, bytes(4), None)


@case
def option_write_from_a_bad_pointer(world: World):
    return raw_call(LIBC.setsockopt, world.stream().fileno(), TCP, socket.TCP_NODELAY, ctypes.c_void_p(1), 4)


@case
def option_value_longer_than_needed(world: World):
    sock = world.stream()
    return [outcome(sock.setsockopt, TCP, socket.TCP_NODELAY, struct.pack("ii", 1, 7)), sock.getsockopt(TCP, socket.TCP_NODELAY)]


@case
def option_low_water_mark(world: World):
    return read_back(world.stream(), socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5, 0)


@case
def option_reuseaddr_after_bind(world: World):
    first = world.stream()
    first.bind((world.address, 0))
    second = world.stream()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    before = outcome(second.bind, first.getsockname()[:2])
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return [before, outcome(second.bind, first.getsockname()[:2])]


@case
def option_tcp_level_on_a_unix_socket(world: World):
    left, right = socket.socketpair()
    return [outcome(left.setsockopt, TCP, socket.TCP_NODELAY, 1), outcome(right.getsockopt, TCP, socket.TCP_NODELAY)]


def both_directions_ended(world: World) -> tuple[socket.socket, socket.socket]:
    """(client that has set options, and shut its direction after the server's end; server)."""
    client, server = world.pair()
    for level, option, number in KEPT_TO_THE_END:
        client.setsockopt(level, option, number)
    server.shutdown(socket.SHUT_WR)
    wait(client, select.POLLRDHUP)
    client.shutdown(socket.SHUT_WR)
    wait_all(client, {"HUP"})
    return client, server


KEPT_TO_THE_END = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
    (socket.IPPROTO_IP, socket.IP_TTL, 42),
]


@case
def options_after_both_directions_ended(world: World):
    client, server = both_directions_ended(world)
    receive_all(server)
    return [client.getsockopt(level, option) for level, option, _ in KEPT_TO_THE_END]


@case
def options_after_both_directions_ended_and_the_peer_closed(world: World):
    client, server = both_directions_ended(world)
    server.close()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
    return [client.getsockopt(level, option) for level, option, _ in KEPT_TO_THE_END]


@case
def options_after_a_reset(world: World):
    client, server = world.pair()
    for level, option, number in KEPT_TO_THE_END:
        client.setsockopt(level, option, number)
    reset(server)
    wait_all(client, {"ERR"})
    return [client.getsockopt(level, option) for level, option, _ in KEPT_TO_THE_END]
