"""connect: blocking and not, its errors, what poll says, trying again."""

import errno
import select
import socket
import struct
import threading

from tests.differential.harness import (
    LIBC,
    World,
    case,
    errno_name,
    no_sigpipe,
    outcome,
    polled,
    raw_call,
    socket_error,
    value,
    wait,
    wait_all,
)


@case
def connect_blocking_succeeds(world: World):
    listener = world.listener()
    client = world.stream()
    return [outcome(client.connect, world.to(listener)), client.getpeername()[:2] == world.to(listener), socket_error(client)]


@case
def connect_refused(world: World):
    client = world.stream()
    return outcome(client.connect, (world.address, world.closed_port()))


@case
def connect_refused_twice_on_one_socket(world: World):
    client = world.stream()
    port = world.closed_port()
    return [outcome(client.connect, (world.address, port)), outcome(client.connect, (world.address, port))]


@case
def connect_succeeds_after_refusal_on_the_same_socket(world: World):
    listener = world.listener()
    client = world.stream()
    first = outcome(client.connect, (world.address, world.closed_port()))
    second = outcome(client.connect, world.to(listener))
    client.sendall(b"x")
    server, _ = listener.accept()
    return [first, second, server.recv(1).decode()]


def refused_in_the_background(world: World) -> tuple[socket.socket, socket.socket]:
    """(client, whose attempt failed, and the socket on whose port nobody listened yet)."""
    there = world.bound()
    client = world.nonblocking()
    client.connect_ex(world.to(there))
    wait(client, select.POLLOUT)
    return client, there


@case
def connect_tells_a_failure_once_after_so_error_has(world: World):
    client, there = refused_in_the_background(world)
    taken = socket_error(client)
    there.listen(4)
    again = [errno_name(client.connect_ex(world.to(there))) for _ in range(2)]
    wait(client, select.POLLOUT)
    return [taken, again, socket_error(client)]


@case
def connect_tells_a_failure_once(world: World):
    client, there = refused_in_the_background(world)
    there.listen(4)
    again = [errno_name(client.connect_ex(world.to(there))) for _ in range(2)]
    wait(client, select.POLLOUT)
    return [again, socket_error(client)]


@case
def connect_to_nothing_forgets_a_failure(world: World):
    client, there = refused_in_the_background(world)
    there.listen(4)
    nothing = struct.pack("=H14x", socket.AF_UNSPEC)
    forgotten = raw_call(LIBC.connect, client.fileno(), nothing, 16)
    return [forgotten, socket_error(client), errno_name(client.connect_ex(world.to(there)))]


@case
def connect_nonblocking_reports_progress_then_writable(world: World):
    listener = world.listener()
    client = world.nonblocking()
    started = errno_name(client.connect_ex(world.to(listener)))
    wait(client, select.POLLOUT)
    return [started, polled(client), socket_error(client)]


@case
def connect_nonblocking_again_when_connected(world: World):
    listener = world.listener()
    client = world.nonblocking()
    client.connect_ex(world.to(listener))
    wait(client, select.POLLOUT)
    # The first call after completion reports success, the next one EISCONN.
    return errno_name(client.connect_ex(world.to(listener))) in ("OK", "EISCONN") and errno_name(
        client.connect_ex(world.to(listener))
    )


@case
def connect_nonblocking_refused_is_in_so_error(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    events = wait(client, select.POLLOUT)
    return [events, socket_error(client), socket_error(client)]


@case
def connect_nonblocking_refused_all_events(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    wait(client, select.POLLOUT)
    return polled(client, select.POLLIN | select.POLLOUT)


@case
def connect_nonblocking_refused_read_gives_the_error_once_asked(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    wait(client, select.POLLOUT)
    return [socket_error(client), value(lambda: client.recv(1).decode())]


@case
def connect_ex_to_a_connected_peer(world: World):
    client, server = world.pair()
    return errno_name(client.connect_ex(server.getsockname()))


@case
def connect_on_a_listener(world: World):
    listener = world.listener()
    return errno_name(listener.connect_ex(world.to(listener)))


@case
def connect_with_a_short_address(world: World):
    import ctypes

    client = world.stream()
    ctypes.set_errno(0)
    result = LIBC.connect(client.fileno(), b"\x02\x00", 2)
    return [result, errno_name(ctypes.get_errno())]


@case
def connect_with_another_family(world: World):
    client = world.stream()
    other = ("127.0.0.1", 9) if world.family == socket.AF_INET6 else ("::1", 9, 0, 0)
    import ctypes
    import struct

    if world.family == socket.AF_INET6:
        # An AF_UNIX address on an AF_INET6 socket: an IPv4 one has a special meaning for old programs.
        raw = struct.pack("=H", socket.AF_UNIX) + bytes(26)
    else:
        raw = (
            struct.pack("=HHI", socket.AF_INET6, socket.htons(other[1]), 0) + socket.inet_pton(socket.AF_INET6, other[0]) + bytes(4)
        )
    ctypes.set_errno(0)
    result = LIBC.connect(client.fileno(), raw, len(raw))
    return [result, errno_name(ctypes.get_errno())]


@case
def connect_to_a_full_duplex_exchange(world: World):
    client, server = world.pair()
    client.sendall(b"ping")
    got = server.recv(4)
    server.sendall(b"pong")
    return [got.decode(), client.recv(4).decode()]


@case
def connect_names_both_ends(world: World):
    client, server = world.pair()
    return [client.getsockname() == server.getpeername(), client.getpeername() == server.getsockname(), client.getsockname()[0]]


@case
def connect_from_a_bound_port(world: World):
    listener = world.listener()
    client = world.bound()
    before = client.getsockname()
    client.connect(world.to(listener))
    return [client.getsockname() == before, listener.accept()[1] == before]


@case
def getpeername_before_connect(world: World):
    return outcome(world.stream().getpeername)


@case
def getsockname_of_a_fresh_socket(world: World):
    return list(world.stream().getsockname()[:2])


@case
def getpeername_while_connecting_is_not_connected(world: World):
    client = world.nonblocking()
    started = errno_name(client.connect_ex(world.silence()))
    return [started, outcome(client.getpeername)]


@case
def connecting_socket_has_no_events(world: World):
    client = world.nonblocking()
    client.connect_ex(world.silence())
    return [e for e in polled(client) if e != "PRI"]


@case
def send_after_a_failed_connect_gives_its_error_first(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    wait(client, select.POLLOUT)
    return [outcome(client.send, b"x", socket.MSG_NOSIGNAL) for _ in range(2)]


@case
def recv_after_a_failed_connect_gives_its_error_first(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    wait(client, select.POLLOUT)
    return [value(lambda: client.recv(1).decode()) for _ in range(2)]


@case
def send_while_connecting(world: World):
    client = world.nonblocking()
    client.connect_ex(world.silence())
    return value(lambda: client.send(b"x"))


@case
def recv_while_connecting(world: World):
    client = world.nonblocking()
    client.connect_ex(world.silence())
    return value(lambda: client.recv(1).decode())


@case
def connect_again_while_connecting(world: World):
    client = world.nonblocking()
    silent = world.silence()
    client.connect_ex(silent)
    return errno_name(client.connect_ex(silent))


@case
def connect_times_out_by_so_sndtimeo(world: World):
    import struct

    client = world.stream()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50_000))
    return errno_name(client.connect_ex(world.silence()))


@case
def connect_completes_while_another_thread_polls(world: World):
    listener = world.listener()
    client = world.nonblocking()
    client.connect_ex(world.to(listener))
    seen: list[list[str]] = []
    thread = threading.Thread(target=lambda: seen.append(wait(client, select.POLLOUT)))
    thread.start()
    thread.join()
    return seen


@case
def connect_ex_timeout_api(world: World):
    listener = world.listener()
    client = world.stream()
    client.settimeout(5)
    client.connect(world.to(listener))
    client.sendall(b"abc")
    server, _ = listener.accept()
    return server.recv(3).decode()


@case
def connect_port_zero(world: World):
    client = world.stream()
    return errno_name(client.connect_ex((world.address, 0)))


@case
def send_after_refusal(world: World):
    client = world.stream()
    first = outcome(client.connect, (world.address, world.closed_port()))
    with no_sigpipe():
        return [first, errno.errorcode[errno.EPIPE] if outcome(client.send, b"x") == "EPIPE" else "other"]


def disconnect(sock: socket.socket) -> str:
    return raw_call(LIBC.connect, sock.fileno(), bytes(16), 16)


@case
def connect_to_the_wildcard_is_this_host(world: World):
    listener = world.listener(address=world.any)
    client = world.stream()
    return [outcome(client.connect, (world.any, listener.getsockname()[1])), client.getpeername()[0] == world.address]


@case
def disconnect_resets_the_peer(world: World):
    client, server = world.pair()
    done = disconnect(client)
    wait_all(server, {"ERR"})
    return [done, outcome(client.getpeername), value(lambda: server.recv(1).decode())]


@case
def connect_again_after_disconnect(world: World):
    client, _ = world.pair()
    listener = world.listener()
    disconnect(client)
    again = outcome(client.connect, world.to(listener))
    client.sendall(b"x")
    return [again, listener.accept()[0].recv(1).decode()]


@case
def disconnect_of_a_fresh_socket(world: World):
    return disconnect(world.stream())


@case
def disconnect_while_connecting(world: World):
    client = world.nonblocking()
    client.connect_ex(world.silence())
    listener = world.listener()
    done = disconnect(client)
    client.setblocking(True)
    return [done, outcome(client.connect, world.to(listener))]


@case
def connect_to_a_multicast_address(world: World):
    return errno_name(world.stream().connect_ex(("ff02::1" if world.family == socket.AF_INET6 else "224.0.0.1", 9)))


@case
def connect_from_a_wildcard_bind(world: World):
    listener = world.listener()
    client = world.bound(address=world.any)
    port = client.getsockname()[1]
    client.connect(world.to(listener))
    return [client.getsockname()[0], client.getsockname()[1] == port]


@case
def second_connection_of_the_same_four(world: World):
    listener = world.listener()
    first = world.bound()
    second = world.bound(first.getsockname()[1])
    return [outcome(sock.connect, world.to(listener)) for sock in (first, second)]


@case
def one_local_port_to_two_places(world: World):
    one, two = world.listener(), world.listener()
    first = world.bound()
    second = world.bound(first.getsockname()[1])
    return [outcome(first.connect, world.to(one)), outcome(second.connect, world.to(two))]


@case
def connected_socket_cannot_connect_elsewhere(world: World):
    client, _ = world.pair()
    return errno_name(client.connect_ex(world.to(world.listener())))


@case
def connect_after_own_full_shutdown(world: World):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_RDWR)
    return errno_name(client.connect_ex(world.to(world.listener())))


@case
def listen_after_refusal(world: World):
    sock = world.bound_by_choice()
    place = sock.getsockname()
    results = [outcome(sock.connect, (world.address, world.closed_port())), outcome(sock.listen, 1)]
    return [*results, sock.getsockname() == place]


@case
def bound_port_stays_after_refusal(world: World):
    sock = world.bound()
    place = sock.getsockname()
    outcome(sock.connect, (world.address, world.closed_port()))
    return sock.getsockname() == place


@case
def a_hundred_connections_in_turn(world: World):
    listener = world.listener()
    results = set()
    for _ in range(100):
        client = world.stream()
        results.add(outcome(client.connect, world.to(listener)))
        server, _ = listener.accept()
        client.sendall(b"x")
        results.add(server.recv(1).decode())
        server.close()
        client.close()
    return sorted(results)
