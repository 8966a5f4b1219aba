"""listen and accept: queues, flags, sharing, errors, addresses."""

import ctypes
import fcntl
import os
import select
import socket
import struct
import threading

from tests.differential.harness import LIBC, World, case, differs, errno_name, in_child, no_sigpipe, outcome, polled, value, wait


@case
def accept_gives_the_peer_address(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    _, peer = listener.accept()
    return peer == client.getsockname()


@case
def accept_would_block(world: World):
    listener = world.listener()
    listener.setblocking(False)
    return outcome(listener.accept)


@case
def accept_on_a_fresh_socket(world: World):
    return outcome(world.stream().accept)


@case
def accept_on_a_bound_socket(world: World):
    return outcome(world.bound().accept)


@case
def accept_on_a_connected_socket_leaves_its_bytes(world: World):
    client, server = world.pair()
    server.sendall(b"kept")
    wait(client, select.POLLIN)
    return [outcome(client.accept), client.recv(4).decode()]


@case
def accept_order_is_arrival_order(world: World):
    listener = world.listener()
    clients = []
    for _ in range(3):
        client = world.stream()
        client.connect(world.to(listener))
        clients.append(client)
    return [listener.accept()[1] == client.getsockname() for client in clients]


@case
def accept4_sets_flags(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    fd = LIBC.accept4(listener.fileno(), None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    flags = [bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK), bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)]
    os.close(fd)
    return flags


@case
def accept_sets_no_flags(world: World):
    listener = world.listener()
    listener.setblocking(True)
    client = world.stream()
    client.connect(world.to(listener))
    fd = LIBC.accept(listener.fileno(), None, None)
    flags = [bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK), bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)]
    os.close(fd)
    return flags


@case
def accept_from_a_nonblocking_listener_is_blocking(world: World):
    listener = world.listener()
    listener.setblocking(False)
    client = world.stream()
    client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    fd = LIBC.accept(listener.fileno(), None, None)
    flag = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)
    os.close(fd)
    return flag


@case
def accept4_with_an_unknown_flag(world: World):
    listener = world.listener()
    ctypes.set_errno(0)
    return [LIBC.accept4(listener.fileno(), None, None, 0x1), errno_name(ctypes.get_errno())]


@case
def accept_truncates_the_address(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    buffer = ctypes.create_string_buffer(b"\xee" * 64, 64)
    length = ctypes.c_uint32(4)
    fd = LIBC.accept(listener.fileno(), buffer, ctypes.byref(length))
    os.close(fd)
    return [length.value, buffer.raw[4:8].hex()]


@case
def listener_events_when_idle(world: World):
    return polled(world.listener())


@case
def listener_events_with_a_pending_connection(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    return polled(listener, select.POLLIN | select.POLLOUT | select.POLLRDHUP)


@case
def listener_is_readable_until_the_queue_is_empty(world: World):
    listener = world.listener()
    clients = [world.stream() for _ in range(2)]
    for client in clients:
        client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    listener.accept()
    wait(listener, select.POLLIN)
    listener.accept()
    return polled(listener, select.POLLIN)


@case
def listen_twice_changes_the_backlog(world: World):
    listener = world.listener(1)
    return outcome(listener.listen, 64)


@case
def listen_without_bind_takes_a_port(world: World):
    sock = world.stream()
    sock.listen(1)
    return sock.getsockname()[1] != 0


@case
def listen_on_a_connected_socket(world: World):
    client, _ = world.pair()
    return outcome(client.listen, 1)


@case
def bind_twice(world: World):
    return outcome(world.bound().bind, (world.address, 0))


@case
def bind_to_a_foreign_address(world: World):
    address = "2001:db8::1" if world.family == socket.AF_INET6 else "198.51.100.1"
    return outcome(world.stream().bind, (address, 0))


@case
def bind_a_port_in_use(world: World):
    listener = world.listener()
    return outcome(world.stream().bind, listener.getsockname()[:2])


@case
def bind_a_port_in_use_with_reuseaddr(world: World):
    listener = world.listener()
    sock = world.stream()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return outcome(sock.bind, listener.getsockname()[:2])


@case
def bind_wildcard_while_specific_listens(world: World):
    listener = world.listener()
    return outcome(world.stream().bind, (world.any, listener.getsockname()[1]))


@case
def bind_specific_while_wildcard_listens(world: World):
    listener = world.listener(address=world.any)
    return outcome(world.stream().bind, (world.address, listener.getsockname()[1]))


@case
def bind_again_after_close(world: World):
    listener = world.listener()
    name = listener.getsockname()
    listener.close()
    sock = world.stream()
    return outcome(sock.bind, name[:2])


@case
def bind_listening_port_again_after_connections_with_reuseaddr(world: World):
    listener = world.listener()
    name = listener.getsockname()
    client = world.stream()
    client.connect(world.to(listener))
    server, _ = listener.accept()
    server.close()
    listener.close()
    client.close()
    sock = world.stream()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return outcome(sock.bind, name[:2])


@case
def bind_with_reuseport_twice(world: World):
    first = world.stream()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind((world.address, 0))
    first.listen(4)
    second = world.stream()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return [outcome(second.bind, first.getsockname()[:2]), outcome(second.listen, 4)]


@case
def bind_with_a_short_address(world: World):
    ctypes.set_errno(0)
    return [LIBC.bind(world.stream().fileno(), b"\x02\x00", 2), errno_name(ctypes.get_errno())]


@case
def bound_port_is_shown(world: World):
    sock = world.bound()
    return [sock.getsockname()[0], sock.getsockname()[1] != 0]


@case
def wildcard_listener_shows_the_wildcard(world: World):
    return world.listener(address=world.any).getsockname()[0]


@case
def accepted_socket_shows_the_local_address(world: World):
    listener = world.listener(address=world.any)
    client = world.stream()
    client.connect(world.to(listener))
    server, _ = listener.accept()
    return server.getsockname()[0] == world.address


@case
def pending_connection_can_be_written_before_accept(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    client.sendall(b"early")
    server, _ = listener.accept()
    return server.recv(5).decode()


@case
def pending_connection_closed_before_accept_is_still_accepted(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    client.sendall(b"bye")
    client.close()
    server, _ = listener.accept()
    return [server.recv(3).decode(), server.recv(1).decode()]


@case
def closing_the_listener_resets_pending_connections(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    listener.close()
    wait(client, select.POLLIN)
    return value(lambda: client.recv(1).decode())


@case
def accepted_connection_survives_the_listener(world: World):
    client, server = world.pair()
    client.sendall(b"on")
    return server.recv(2).decode()


@case
def blocked_accept_is_woken_by_a_connection(world: World):
    listener = world.listener()
    result: list[bool] = []
    thread = threading.Thread(target=lambda: result.append(listener.accept()[1][0] == world.address))
    thread.start()
    world.keep(socket.create_connection(world.to(listener)))
    thread.join()
    return result


@case
def blocked_accept_is_woken_by_shutdown(world: World):
    listener = world.listener()
    result: list[str] = []
    thread = threading.Thread(target=lambda: result.append(outcome(listener.accept)))
    thread.start()
    # The thread is in accept, or about to be: both must end with EINVAL.
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    return result


@case
def listener_after_shutdown_may_listen_again(world: World):
    # With a port that the program chose: one that bind chose is given back by shutdown.
    listener = world.bound_by_choice()
    listener.listen(4)
    name = world.to(listener)
    listener.shutdown(socket.SHUT_RDWR)
    again = outcome(listener.listen, 4)
    client = world.stream()
    return [again, outcome(client.connect, name)]


@case
def two_processes_share_a_listener(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))

    def child() -> str:
        server, _ = listener.accept()
        server.sendall(b"from child")
        return "served"

    return [in_child(child), client.recv(10).decode()]


@case
def accept_with_a_full_descriptor_table_keeps_the_connection(world: World):
    import resource

    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    full = outcome(listener.accept)
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    listener.setblocking(False)
    return [full, outcome(listener.accept)]


@case
def so_acceptconn(world: World):
    listener = world.listener()
    client, _ = world.pair()
    ask = lambda s: s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)  # noqa: E731
    return [ask(listener), ask(client), ask(world.stream()), ask(world.bound())]


@case
def send_on_a_listener(world: World):
    listener = world.listener()
    with no_sigpipe():
        return outcome(listener.send, b"x")


@case
def recv_on_a_listener(world: World):
    listener = world.listener()
    listener.setblocking(False)
    return outcome(listener.recv, 1)


@case
def getpeername_of_a_listener(world: World):
    return outcome(world.listener().getpeername)


@differs("a fresh stream is one end of a pair: it is writable and no more", ["OUT"])
def fresh_socket_events(world: World):
    return polled(world.stream())


@case
def shutdown_of_a_listener_resets_pending_connections(world: World):
    listener = world.listener()
    client = world.stream()
    client.connect(world.to(listener))
    wait(listener, select.POLLIN)
    listener.shutdown(socket.SHUT_RDWR)
    wait(client, select.POLLIN)
    listener.setblocking(False)
    return [value(lambda: client.recv(1).decode()), outcome(listener.accept)]


@case
def connect_after_the_listener_closed_is_refused(world: World):
    listener = world.listener()
    place = world.to(listener)
    listener.close()
    return outcome(world.stream().connect, place)


@case
def port_of_a_closed_listener_is_free_at_once(world: World):
    results = []
    listener = world.bound_by_choice()
    port = listener.getsockname()[1]
    for _ in range(20):
        listener.listen(1)
        listener.close()
        listener = world.stream()
        results.append(outcome(listener.bind, (world.address, port)))
    return results


@differs(
    "nobody needs a privilege to use the ports of a virtual network: the address is the program's own, not the host's",
    "OK",
)
def bind_to_a_low_port_without_privilege(world: World):
    # As a user who may not: without CAP_NET_BIND_SERVICE, whoever runs the suite.
    header = struct.pack("=Ii", 0x20080522, 0)
    sets = ctypes.create_string_buffer(24)
    assert LIBC.capget(header, sets) == 0
    words = list(struct.unpack("=6I", sets.raw))
    words[0] &= ~(1 << 10)
    assert LIBC.capset(header, struct.pack("=6I", *words)) == 0
    return outcome(world.stream().bind, (world.address, 777))


@case
def listen_with_a_negative_backlog(world: World):
    listener = world.listener(-1)
    return outcome(world.stream().connect, world.to(listener))


@case
def dup_of_a_listener_keeps_it(world: World):
    listener = world.listener()
    copy = world.keep(listener.dup())
    place = world.to(listener)
    listener.close()
    client = world.stream()
    return [outcome(client.connect, place), copy.accept()[1] == client.getsockname()]


@case
def dup3_over_a_listener(world: World):
    first, second = world.listener(), world.listener()
    gone, stays = world.to(first), world.to(second)
    os.dup2(second.fileno(), first.fileno(), inheritable=False)
    client = world.stream()
    return [
        outcome(world.stream().connect, gone),
        outcome(client.connect, stays),
        first.accept()[1] == client.getsockname(),
        first.getsockname() == second.getsockname(),
    ]


@case
def accept4_nonblocking_socket_would_block(world: World):
    listener = world.listener()
    world.stream().connect(world.to(listener))
    sock = world.keep(socket.socket(fileno=LIBC.accept4(listener.fileno(), None, None, socket.SOCK_NONBLOCK)))
    return [sock.gettimeout() == 0, outcome(lambda: os.read(sock.fileno(), 1))]


@case
def listener_has_no_error(world: World):
    return world.listener().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@case
def defer_accept_gives_the_connection_with_its_data(world: World):
    listener = world.bound()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    listener.listen(4)
    client = world.stream()
    client.connect(world.to(listener))
    client.sendall(b"GET")
    return listener.accept()[0].recv(3, socket.MSG_WAITALL).decode()


@case
def defer_accept_keeps_a_silent_connection_back(world: World):
    listener = world.bound()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    listener.listen(4)
    client = world.stream()
    client.connect(world.to(listener))
    # What comes after it has been accepted shows that it, too, would be there by now.
    other = world.listener()
    world.stream().connect(world.to(other))
    wait(other, select.POLLIN)
    return polled(listener, select.POLLIN)


@case
def defer_accept_gives_a_connection_that_ends_without_data(world: World):
    listener = world.bound()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    listener.listen(4)
    client = world.stream()
    client.connect(world.to(listener))
    client.shutdown(socket.SHUT_WR)
    return listener.accept()[0].recv(3).decode()


@case
def getsockname_of_an_accepted_wildcard_connection(world: World):
    listener = world.listener(address=world.any)
    client = world.stream()
    client.connect(world.to(listener))
    server, _ = listener.accept()
    return [server.getsockname() == client.getpeername(), server.getsockname()[0]]


@case
def bind_after_connect(world: World):
    client, _ = world.pair()
    return outcome(client.bind, (world.address, 0))


@case
def bind_after_listen(world: World):
    return outcome(world.listener().bind, (world.address, 0))


@case
def reuseport_group_serves_all(world: World):
    first = world.stream()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind((world.address, 0))
    second = world.stream()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    second.bind(first.getsockname()[:2])
    first.listen(64)
    second.listen(64)
    accepted = 0
    for _ in range(16):
        world.stream().connect(world.to(first))
        ready, _, _ = select.select([first, second], [], [], 10)
        accepted += len([listener.accept() for listener in ready])
    return accepted


@case
def reuseport_must_be_set_by_both(world: World):
    first = world.stream()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind((world.address, 0))
    return outcome(world.stream().bind, first.getsockname()[:2])
