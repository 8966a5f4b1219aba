"""UDP: addresses, connecting, truncation, errors, readiness, and what processes share."""

from __future__ import annotations

import array
import asyncio
import ctypes
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from typing import Any

from tests.differential.harness import (
    LIBC,
    PATIENCE,
    World,
    bits,
    case,
    differs,
    errno_name,
    in_child,
    outcome,
    polled,
    socket_error,
    value,
    wait,
)

UNSPEC = struct.pack("=H14x", socket.AF_UNSPEC)


def datagrams(world: World) -> socket.socket:
    return world.keep(socket.socket(world.family, socket.SOCK_DGRAM))


def bound(world: World, address: str | None = None, port: int = 0) -> socket.socket:
    sock = datagrams(world)
    sock.bind((world.address if address is None else address, port))
    return sock


def two(world: World) -> tuple[socket.socket, socket.socket]:
    """Two bound sockets, not connected."""
    return bound(world), bound(world)


def connected(world: World) -> tuple[socket.socket, socket.socket]:
    """Two sockets connected to each other."""
    one, other = two(world)
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def deaf(world: World) -> tuple[str, int]:
    """Where nobody listens: the port of a socket that is connected to itself and hears nobody else."""
    sock = bound(world)
    sock.connect(sock.getsockname())
    return (world.address, sock.getsockname()[1])


def refused(world: World) -> socket.socket:
    """Connected to where nobody is, with the refusal arrived."""
    sock = bound(world)
    sock.connect(deaf(world))
    sock.send(b"anyone")
    wait(sock, select.POLLIN)
    return sock


def nothing_there(sock: socket.socket, sender: socket.socket) -> bool:
    """Has nothing come to `sock`? A marker that comes first proves it."""
    sender.sendto(b"marker", sock.getsockname())
    return sock.recv(99) == b"marker"


def want_pktinfo(world: World, sock: socket.socket) -> None:
    if world.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def raw(name: str, sock: socket.socket, *arguments: Any) -> Any:
    """A call of the C library that Python does not make like that: its result, or the errno."""
    result = getattr(LIBC, name)(sock.fileno(), *arguments)
    return errno_name(ctypes.get_errno()) if result == -1 else result


def disconnect(sock: socket.socket) -> Any:
    return raw("connect", sock, UNSPEC, 16)


def packed(world: World, where: tuple[Any, ...]) -> bytes:
    """A struct sockaddr."""
    host = socket.inet_pton(world.family, where[0])
    if world.family == socket.AF_INET:
        return struct.pack("=H2s4s8x", socket.AF_INET, struct.pack("!H", where[1]), host)
    return struct.pack("=H2sI16sI", socket.AF_INET6, struct.pack("!H", where[1]), 0, host, 0)


# ---- addresses ----


@case
def udp_a_datagram_there_and_back(world: World) -> Any:
    server, client = bound(world), datagrams(world)
    client.sendto(b"question", server.getsockname())
    question, peer = server.recvfrom(99)
    server.sendto(b"answer", peer)
    answer, source = client.recvfrom(99)
    return [question.decode(), peer[0], peer[1] == client.getsockname()[1], answer.decode(), source == server.getsockname()]


@case
def udp_what_a_socket_says_of_itself(world: World) -> Any:
    sock = datagrams(world)
    options = socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN, socket.SO_ERROR
    same = socket.socket(fileno=os.dup(sock.fileno()))
    world.keep(same)
    says = [sock.getsockopt(socket.SOL_SOCKET, option) for option in options]
    return [*says[:1], *says[2:], says[1] == world.family, same.type, same.proto]


@case
def udp_names_before_and_after_bind(world: World) -> Any:
    sock = datagrams(world)
    before = sock.getsockname()[:2]
    sock.bind((world.address, 0))
    after = sock.getsockname()
    return [before, after[0], after[1] > 0, outcome(sock.getpeername)]


@case
def udp_sending_binds_to_a_port(world: World) -> Any:
    server, client = bound(world), datagrams(world)
    client.sendto(b"x", server.getsockname())
    server.recv(9)
    name = client.getsockname()
    return [name[0], name[1] > 0, outcome(client.bind, (world.address, 0))]


@case
def udp_connecting_chooses_address_and_port(world: World) -> Any:
    server, client = bound(world), datagrams(world)
    client.connect(server.getsockname())
    return [client.getsockname()[0], client.getsockname()[1] > 0, client.getpeername() == server.getsockname()]


@case
def udp_a_wildcard_socket_receives_on_the_address(world: World) -> Any:
    server, client = bound(world, world.any), datagrams(world)
    client.sendto(b"x", (world.address, server.getsockname()[1]))
    data, peer = server.recvfrom(9)
    return [server.getsockname()[0], data.decode(), peer[0]]


@case
def udp_bind_again(world: World) -> Any:
    return outcome(bound(world).bind, (world.address, 0))


@case
def udp_bind_to_a_used_port(world: World) -> Any:
    port = bound(world).getsockname()[1]
    reusing = datagrams(world)
    reusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return [outcome(datagrams(world).bind, (where, port)) for where in (world.address, world.any)] + [
        outcome(reusing.bind, (world.address, port))
    ]


@case
def udp_reuseaddr_on_both_shares_the_port(world: World) -> Any:
    socks = [datagrams(world) for _ in range(2)]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    socks[0].bind((world.address, 0))
    return outcome(socks[1].bind, socks[0].getsockname())


@case
def udp_bind_to_a_foreign_address(world: World) -> Any:
    return outcome(datagrams(world).bind, ("192.0.2.1" if world.family == socket.AF_INET else "2001:db8::1", 0))


@case
def udp_a_closed_port_is_free_again(world: World) -> Any:
    sock = bound(world)
    where = sock.getsockname()
    sock.close()
    again = datagrams(world)
    deadline = time.monotonic() + PATIENCE
    while outcome(again.bind, where) != "OK":  # the service hears of the close in a moment
        assert time.monotonic() < deadline
    return again.getsockname() == where


@case
def udp_address_is_cut_to_the_room(world: World) -> Any:
    server, client = two(world)
    client.sendto(b"x", server.getsockname())
    wait(server, select.POLLIN)
    data, room, length = ctypes.create_string_buffer(9), ctypes.create_string_buffer(b"?" * 32, 32), ctypes.c_uint(4)
    got = raw("recvfrom", server, data, 9, 0, room, ctypes.byref(length))
    return [got, length.value, room.raw[4:].count(b"?")]


# ---- destinations ----


@case
def udp_send_without_destination(world: World) -> Any:
    sock = datagrams(world)
    return [outcome(sock.send, b"x"), outcome(sock.sendmsg, [b"x"]), outcome(sock.send, b"")]


@case
def udp_send_to_port_zero(world: World) -> Any:
    return outcome(datagrams(world).sendto, b"x", (world.address, 0))


@case
def udp_wrong_destinations(world: World) -> Any:
    sock = bound(world)
    good = packed(world, sock.getsockname())
    other = struct.pack("=H", socket.AF_UNIX) + good[2:]
    results = [raw("sendto", sock, b"x", 1, 0, good, length) for length in (0, 1, 8, 15)]
    return [*results, raw("sendto", sock, b"x", 1, 0, other, len(other)), raw("sendto", sock, b"x", 1, 0, good, -1)]


@case
def udp_destination_of_no_family(world: World) -> Any:
    sock = bound(world)
    unspecific = struct.pack("=H", socket.AF_UNSPEC) + packed(world, sock.getsockname())[2:]
    result = raw("sendto", sock, b"x", 1, 0, unspecific, len(unspecific))
    return [result, sock.recv(9).decode() if result == 1 else ""]


@case
def udp_sendmsg_with_an_address_of_no_length(world: World) -> Any:
    one, other = connected(world)
    one.sendmsg([b"to the peer"], [], 0)
    return other.recv(99).decode()


# ---- connecting ----


@case
def udp_connected_send_and_receive(world: World) -> Any:
    one, other = connected(world)
    one.send(b"by send")
    other.sendall(b"by sendall")
    return [other.recv(99).decode(), one.recv(99).decode()]


@case
def udp_connected_read_and_write(world: World) -> Any:
    one, other = connected(world)
    os.write(one.fileno(), b"by write")
    os.writev(one.fileno(), [b"by ", b"writev"])
    return [os.read(other.fileno(), 99).decode(), os.read(other.fileno(), 99).decode()]


@case
def udp_connected_recvfrom_gives_the_peer(world: World) -> Any:
    one, other = connected(world)
    one.send(b"x")
    return other.recvfrom(9)[1] == one.getsockname()


@case
def udp_a_connected_socket_hears_only_its_peer(world: World) -> Any:
    one, other = connected(world)
    stranger = bound(world)
    stranger.sendto(b"stranger", other.getsockname())
    one.send(b"peer")
    return [other.recv(99).decode(), value(other.recv, 99, socket.MSG_DONTWAIT)]


@case
def udp_connect_again_to_another(world: World) -> Any:
    one, _other = connected(world)
    third = bound(world)
    one.connect(third.getsockname())
    one.send(b"x")
    third.sendto(b"y", one.getsockname())
    return [third.recv(9).decode(), one.recv(9).decode(), one.getpeername() == third.getsockname()]


@case
def udp_disconnect(world: World) -> Any:
    one, _other = connected(world)
    stranger = bound(world)
    results = [disconnect(one), outcome(one.getpeername), outcome(one.send, b"x"), one.getsockname()[0]]
    stranger.sendto(b"stranger", one.getsockname())
    data, peer = one.recvfrom(99)
    return [*results, data.decode(), peer == stranger.getsockname()]


@differs("a port that bind chose stays with the socket; the kernel gives it back even when nothing was connected", [0, True, True])
def udp_disconnect_of_a_socket_that_is_not_connected(world: World) -> Any:
    sock = bound(world)
    return [disconnect(sock), sock.getsockname()[0] == world.address, sock.getsockname()[1] > 0]


@case
def udp_disconnect_gives_back_what_connect_chose(world: World) -> Any:
    server, client = bound(world), datagrams(world)
    client.connect(server.getsockname())
    disconnect(client)
    return [client.getsockname()[0], client.getsockname()[1] > 0]


@case
def udp_sendto_another_from_a_connected_socket(world: World) -> Any:
    one, other = connected(world)
    third = bound(world)
    sent = one.sendto(b"elsewhere", third.getsockname())
    one.send(b"to the peer")
    return [sent, third.recv(99).decode(), other.recv(99).decode()]


@case
def udp_peek_then_connect_then_read(world: World) -> Any:
    """As `nc -u -l` does."""
    server, client = two(world)
    client.sendto(b"first", server.getsockname())
    data, peer = server.recvfrom(99, socket.MSG_PEEK)
    server.connect(peer)
    seen = os.read(server.fileno(), 99)
    server.send(b"answer")
    return [data.decode(), seen.decode(), client.recv(99).decode()]


@case
def udp_what_is_queued_when_disconnecting(world: World) -> Any:
    one, other = connected(world)
    other.send(b"queued")
    wait(one, select.POLLIN)
    disconnect(one)
    return one.recv(99).decode()


@case
def udp_connect_with_a_wrong_address(world: World) -> Any:
    sock = datagrams(world)
    good = packed(world, (world.address, 9))
    other = struct.pack("=H", socket.AF_UNIX) + good[2:]
    return [raw("connect", sock, good, 1), raw("connect", sock, good, 8), raw("connect", sock, other, len(other))]


@case
def udp_connect_to_oneself(world: World) -> Any:
    sock = bound(world)
    sock.connect(sock.getsockname())
    sock.send(b"to myself")
    return sock.recv(99).decode()


# ---- lengths ----


@case
def udp_datagrams_keep_their_boundaries_and_order(world: World) -> Any:
    one, other = two(world)
    for size in range(1, 40):
        one.sendto(b"x" * size, other.getsockname())
    return [len(other.recv(99)) for _ in range(1, 40)]


@case
def udp_what_does_not_fit_is_lost(world: World) -> Any:
    one, other = two(world)
    one.sendto(b"abcdef", other.getsockname())
    one.sendto(b"next", other.getsockname())
    return [other.recv(3).decode(), other.recv(99).decode()]


@case
def udp_truncation_is_told(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        for room in (3, 6, 9):
            one.sendto(b"abcdef", other.getsockname())
            data, _, flags, _ = other.recvmsg(room)
            seen.append([data.decode(), bool(flags & socket.MSG_TRUNC), flags & ~socket.MSG_TRUNC])
    return seen


@case
def udp_the_whole_length_on_request(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        one.sendto(b"abcdef", other.getsockname())
        room = bytearray(3)
        seen.append([other.recv_into(room, 3, socket.MSG_PEEK | socket.MSG_TRUNC), other.recv_into(room, 3, socket.MSG_TRUNC)])
    return seen


@case
def udp_peek(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        one.sendto(b"peeked", other.getsockname())
        data, peer = other.recvfrom(4, socket.MSG_PEEK)
        seen.append([data.decode(), peer == one.getsockname(), other.recv(99).decode()])
        seen.append(value(other.recv, 9, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return seen


@case
def udp_zero_length(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        one.sendto(b"", other.getsockname())
        one.sendto(b"x", other.getsockname())
        ready = wait(other, select.POLLIN)
        data, peer = other.recvfrom(9)
        seen.append([ready, data.decode(), peer == one.getsockname(), other.recv(9).decode()])
    return seen


@case
def udp_a_receive_without_room_takes_the_datagram(world: World) -> Any:
    one, other = two(world)
    one.sendto(b"gone", other.getsockname())
    one.sendto(b"next", other.getsockname())
    _, _, flags, _ = other.recvmsg(0)
    return [bool(flags & socket.MSG_TRUNC), other.recv(9).decode()]


@case
def udp_the_largest_datagram(world: World) -> Any:
    one, other = two(world)
    data = os.urandom(65507 if world.family == socket.AF_INET else 65471)  # ours has 56 bytes less than the kernel
    sent = one.sendto(data, other.getsockname())
    return [sent, other.recv(70000) == data]


@case
def udp_too_large(world: World) -> Any:
    one, other = connected(world)
    limit = 65507 if world.family == socket.AF_INET else 65527
    return [
        outcome(one.send, bytes(limit + 1)),
        outcome(one.sendto, bytes(limit + 1), other.getsockname()),
        outcome(one.sendto, bytes(70000), other.getsockname()),
    ]


@case
def udp_several_parts(world: World) -> Any:
    one, other = two(world)
    one.sendmsg([b"ab", b"", b"cde"], [], 0, other.getsockname())
    rooms = [bytearray(1), bytearray(3), bytearray(4)]
    length, _, flags, peer = other.recvmsg_into(rooms)
    return [length, [bytes(room).hex() for room in rooms], flags, peer == one.getsockname()]


# ---- errors ----


@case
def udp_refused_is_told_to_who_receives(world: World) -> Any:
    sock = refused(world)
    return [outcome(sock.recv, 9), value(sock.recv, 9, socket.MSG_DONTWAIT)]


@case
def udp_refused_is_told_to_who_sends(world: World) -> Any:
    sock = refused(world)
    return outcome(sock.send, b"x")


@case
def udp_refused_is_told_by_so_error_once(world: World) -> Any:
    sock = refused(world)
    return [socket_error(sock), socket_error(sock), value(sock.recv, 9, socket.MSG_DONTWAIT)]


@case
def udp_refused_is_told_to_who_peeks(world: World) -> Any:
    sock = refused(world)
    return [value(sock.recv, 9, socket.MSG_PEEK), value(sock.recv, 9, socket.MSG_DONTWAIT)]


@case
def udp_refused_with_ancillary_data(world: World) -> Any:
    sock = bound(world)
    want_pktinfo(world, sock)
    sock.connect(deaf(world))
    sock.send(b"anyone")
    wait(sock, select.POLLIN)
    return [value(sock.recvmsg, 9, 99), value(sock.recv, 9, socket.MSG_DONTWAIT)]


@case
def udp_an_unconnected_socket_hears_of_no_refusal(world: World) -> Any:
    one, other = two(world)
    one.sendto(b"x", deaf(world))
    return [nothing_there(one, other), socket_error(one)]


@case
def udp_the_error_queue_is_empty(world: World) -> Any:
    sock = bound(world)
    return [value(sock.recv, 9, socket.MSG_ERRQUEUE), value(sock.recvmsg, 9, 99, socket.MSG_ERRQUEUE)]


@case
def udp_urgent_data(world: World) -> Any:
    one, _ = connected(world)
    return outcome(one.send, b"x", socket.MSG_OOB)


@case
def udp_listen_and_accept(world: World) -> Any:
    sock = bound(world)
    return [outcome(sock.listen), outcome(sock.accept)]


@case
def udp_nothing_to_receive(world: World) -> Any:
    sock = bound(world)
    first = value(sock.recv, 9, socket.MSG_DONTWAIT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 10000))
    second = value(sock.recv, 9)
    sock.setblocking(False)
    return [first, second, value(sock.recvfrom, 9)]


# ---- shutdown ----


@case
def udp_shutdown_of_a_socket_that_is_not_connected(world: World) -> Any:
    sock = bound(world)
    return [outcome(sock.shutdown, how) for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)]


@case
def udp_shutdown_for_sending(world: World) -> Any:
    one, other = connected(world)
    other.send(b"still heard")
    wait(one, select.POLLIN)
    return [outcome(one.shutdown, socket.SHUT_WR), outcome(one.send, b"x"), one.recv(99).decode()]


@case
def udp_shutdown_for_receiving(world: World) -> Any:
    one, other = connected(world)
    done = outcome(one.shutdown, socket.SHUT_RD)
    one.send(b"still sent")
    return [done, other.recv(99).decode(), value(one.recv, 9, socket.MSG_DONTWAIT), one.recv(9).decode()]


@differs("the service takes the end of both directions for a close: the reader wakes with an error, not with 0", ["ENETDOWN"])
def udp_shutdown_wakes_a_reader(world: World) -> Any:
    one, _ = connected(world)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(value(lambda: one.recv(9).decode())))
    thread.start()
    one.shutdown(socket.SHUT_RDWR)
    thread.join()
    return results


# ---- readiness ----


@case
def udp_poll(world: World) -> Any:
    one, other = two(world)
    before = polled(other)
    one.sendto(b"x", other.getsockname())
    during = wait(other, select.POLLIN | select.POLLOUT) and wait(other, select.POLLIN)
    other.recv(9)
    return [before, during, polled(other)]


@case
def udp_poll_of_a_fresh_socket(world: World) -> Any:
    return polled(datagrams(world))


@case
def udp_select_when_connected(world: World) -> Any:
    one, other = connected(world)
    one.send(b"x")
    wait(other, select.POLLIN)
    readable, writable, exceptional = select.select([other], [other], [other], 0)
    return [len(readable), len(writable), len(exceptional)]


@case
def udp_epoll_edge_for_each_datagram(world: World) -> Any:
    one, other = two(world)
    with select.epoll() as poll:
        poll.register(other, select.EPOLLIN | select.EPOLLET)
        seen = [poll.poll(0)]
        for _ in range(2):
            one.sendto(b"x", other.getsockname())
            seen.append([bits(events) for _, events in poll.poll(10)])
        seen.append(poll.poll(0))
    return seen


@case
def udp_fionread_is_the_first_datagram(world: World) -> Any:
    seen = []
    for one, other in (two(world), connected(world)):
        queued = array.array("i", [-1])
        fcntl.ioctl(other, termios.FIONREAD, queued)
        seen.append(queued[0])
        one.sendto(b"three", other.getsockname())
        one.sendto(b"eleven more", other.getsockname())
        wait(other, select.POLLIN)
        fcntl.ioctl(other, termios.FIONREAD, queued)
        seen.append(queued[0])
    return seen


@case
def udp_a_blocked_receiver_wakes(world: World) -> Any:
    one, other = two(world)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(other.recvfrom(9)))
    thread.start()
    one.sendto(b"woken", other.getsockname())
    thread.join()
    return [results[0][0].decode(), results[0][1] == one.getsockname()]


# ---- processes ----


@case
def udp_a_child_shares_the_socket(world: World) -> Any:
    one, other = two(world)
    in_child(lambda: one.sendto(b"from the child", other.getsockname()))
    data, peer = other.recvfrom(99)
    return [data.decode(), peer == one.getsockname()]


@case
def udp_a_connection_made_by_a_child_is_the_parents(world: World) -> Any:
    one, other = two(world)
    in_child(lambda: one.connect(other.getsockname()))
    one.send(b"x")
    return [one.getpeername() == other.getsockname(), other.recv(9).decode()]


@case
def udp_a_copy_keeps_the_port(world: World) -> Any:
    one, other = two(world)
    copy = world.keep(socket.socket(fileno=os.dup(other.fileno())))
    where = other.getsockname()
    other.close()
    one.sendto(b"x", where)
    return [copy.recv(9).decode(), outcome(datagrams(world).bind, where)]


@case
def udp_a_socket_is_passed_on(world: World) -> Any:
    one, other = two(world)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [other.fileno()])
        _, (number,), _, _ = socket.recv_fds(theirs, 1, 1)
    passed = world.keep(socket.socket(fileno=number))
    one.sendto(b"x", other.getsockname())
    return [passed.type, passed.recvfrom(9)[1] == one.getsockname()]


@case
def udp_asyncio(world: World) -> Any:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data.upper(), addr)

    class Ask(asyncio.DatagramProtocol):
        def __init__(self, answer: asyncio.Future[str]) -> None:
            self.answer = answer

        def connection_made(self, transport: Any) -> None:
            transport.sendto(b"question")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.answer.set_result(data.decode())

    async def talk() -> str:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Echo, local_addr=(world.address, 0))
        answer = loop.create_future()
        where = server.get_extra_info("sockname")[:2]
        client, _ = await loop.create_datagram_endpoint(lambda: Ask(answer), remote_addr=where)
        try:
            return str(await answer)
        finally:
            client.close()
            server.close()

    return asyncio.run(talk())
