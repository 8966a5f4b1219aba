"""What one thread, process or signal does to a call in which another waits, and to its sockets."""

import os
import select
import signal
import socket
import struct

from tests.differential.harness import (
    LIBC,
    PATIENCE,
    World,
    case,
    errno_name,
    in_child,
    in_thread,
    interrupted,
    outcome,
    raw_call,
    value,
    wait,
    wait_all,
)


@case
def close_in_another_thread_leaves_recv_waiting(world: World):
    client, server = world.pair()
    thread, results = in_thread(lambda: client.recv(1).decode())
    os.close(client.detach())
    server.sendall(b"x")
    thread.join()
    return results


@case
def close_in_another_thread_leaves_accept_waiting(world: World):
    listener = world.listener()
    place, number = world.to(listener), listener.fileno()
    thread, results = in_thread(lambda: LIBC.accept(number, None, None) >= 0)
    os.close(listener.detach())
    client = world.stream()
    results.insert(0, outcome(client.connect, place))
    thread.join()
    return results


@case
def poll_in_another_thread_is_woken_by_data(world: World):
    client, server = world.pair()
    thread, results = in_thread(lambda: wait(client, select.POLLIN))
    server.sendall(b"x")
    thread.join()
    return results


@case
def poll_in_another_thread_is_woken_by_own_shutdown(world: World):
    client, _server = world.pair()
    thread, results = in_thread(lambda: "IN" in wait(client, select.POLLIN))
    client.shutdown(socket.SHUT_RD)
    thread.join()
    return results


@case
def epoll_in_another_thread_is_woken_by_a_connection(world: World):
    listener = world.listener()
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    thread, results = in_thread(lambda: len(poller.poll(PATIENCE)))
    world.stream().connect(world.to(listener))
    thread.join()
    return results


@case
def read_shutdown_wakes_a_blocked_reader(world: World):
    client, _server = world.pair()
    thread, results = in_thread(lambda: client.recv(1).decode())
    client.shutdown(socket.SHUT_RD)
    thread.join()
    return results


@case
def two_blocked_accepts_end_with_shutdown(world: World):
    listener = world.listener()
    one, first = in_thread(lambda: outcome(listener.accept))
    two, second = in_thread(lambda: outcome(listener.accept))
    listener.shutdown(socket.SHUT_RDWR)
    one.join()
    two.join()
    return first + second


@case
def two_blocked_readers_share_the_stream(world: World):
    client, server = world.pair()
    one, first = in_thread(lambda: client.recv(1).decode())
    two, second = in_thread(lambda: client.recv(1).decode())
    server.sendall(b"xx")
    one.join()
    two.join()
    return first + second


@case
def signal_interrupts_recv(world: World):
    client, _server = world.pair()
    with interrupted():
        return raw_call(LIBC.recv, client.fileno(), bytes(1), 1, 0)


@case
def signal_interrupts_accept(world: World):
    listener = world.listener()
    with interrupted():
        return raw_call(LIBC.accept, listener.fileno(), None, None)


@case
def signal_interrupts_connect(world: World):
    silent = world.silence()
    client = world.stream()
    if world.family == socket.AF_INET6:
        address = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", silent[1], 0) + socket.inet_pton(world.family, silent[0])
        address += bytes(4)
    else:
        address = (
            struct.pack("=H", socket.AF_INET) + struct.pack("!H", silent[1]) + socket.inet_pton(world.family, silent[0]) + bytes(8)
        )
    with interrupted():
        first = raw_call(LIBC.connect, client.fileno(), address, len(address))
    client.setblocking(False)
    return [first, errno_name(client.connect_ex(silent))]


@case
def connection_lives_until_the_last_process_closes(world: World):
    client, server = world.pair()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        os.write(client.fileno(), b"last")
        os._exit(0)
    client.close()
    early = bool(select.select([server], [], [], 0)[0])
    os.write(writer, b"x")
    got = server.recv(4, socket.MSG_WAITALL).decode()
    os.waitpid(pid, 0)
    return [early, got, server.recv(1).decode()]


@case
def listener_lives_until_the_last_process_closes(world: World):
    listener = world.listener()
    place = world.to(listener)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        os._exit(0)
    listener.close()
    alive = outcome(world.stream().connect, place)
    os.write(writer, b"x")
    os.waitpid(pid, 0)
    return [alive, outcome(world.stream().connect, place)]


@case
def shutdown_in_a_child_ends_the_parents_connection(world: World):
    client, server = world.pair()
    in_child(lambda: client.shutdown(socket.SHUT_WR))
    return [server.recv(1).decode(), outcome(client.send, b"x", socket.MSG_NOSIGNAL)]


def killed_child(world: World, feed: bytes) -> socket.socket:
    """The server's end of a connection whose other process was killed, with `feed` unread."""
    listener = world.listener()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        listener_place = world.to(listener)
        listener.close()
        client = socket.create_connection(listener_place)
        if feed:
            wait(client, select.POLLIN)
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    server = world.keep(listener.accept()[0])
    server.sendall(feed)
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return server


@case
def kill_ends_the_stream(world: World):
    return killed_child(world, b"").recv(1).decode()


@case
def kill_with_unread_data_resets(world: World):
    server = killed_child(world, b"unread")
    wait_all(server, {"ERR"})
    return value(lambda: server.recv(1).decode())


@case
def setuid_child_keeps_its_connection(world: World):
    client, server = world.pair()

    def child() -> str:
        if os.getuid() == 0:
            os.setuid(65534)
        client.sendall(b"as nobody")
        return str(client.getpeername() == server.getsockname())

    return [in_child(child), server.recv(9, socket.MSG_WAITALL).decode()]
