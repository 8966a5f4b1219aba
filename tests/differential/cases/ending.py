"""The end of a connection: half-close, close, reset, linger, and what each side still may do."""

import select
import signal
import socket
import struct
import threading

from tests.differential.harness import (
    World,
    case,
    differs,
    no_sigpipe,
    outcome,
    receive_all,
    reset,
    socket_error,
    value,
    wait,
    wait_all,
)


@case
def end_of_file_after_close(world: World):
    client, server = world.pair()
    server.sendall(b"last")
    server.close()
    return [receive_all(client).decode(), client.recv(1).decode()]


@case
def half_close_still_receives(world: World):
    client, server = world.pair()
    client.shutdown(socket.SHUT_WR)
    got = receive_all(server).decode()
    server.sendall(b"reply")
    server.close()
    return [got, receive_all(client).decode()]


@case
def write_after_own_shutdown(world: World):
    client, _ = world.pair()
    client.shutdown(socket.SHUT_WR)
    with no_sigpipe():
        return outcome(client.send, b"x")


@case
def read_after_own_read_shutdown(world: World):
    client, _ = world.pair()
    client.shutdown(socket.SHUT_RD)
    return value(lambda: client.recv(1).decode())


@case
def shutdown_twice(world: World):
    client, _ = world.pair()
    client.shutdown(socket.SHUT_WR)
    return outcome(client.shutdown, socket.SHUT_WR)


@case
def shutdown_with_a_bad_argument(world: World):
    client, _ = world.pair()
    return outcome(client.shutdown, 7)


@case
def shutdown_of_a_fresh_socket(world: World):
    return outcome(world.stream().shutdown, socket.SHUT_RDWR)


@case
def shutdown_of_a_bound_socket(world: World):
    return outcome(world.bound().shutdown, socket.SHUT_RDWR)


@case
def shutdown_read_of_a_listener(world: World):
    return outcome(world.listener().shutdown, socket.SHUT_RD)


@case
def shutdown_wakes_a_blocked_reader(world: World):
    client, _ = world.pair()
    result: list[str] = []
    thread = threading.Thread(target=lambda: result.append(client.recv(1).decode()))
    thread.start()
    client.shutdown(socket.SHUT_RDWR)
    thread.join()
    return result


@case
def reset_is_seen_by_read(world: World):
    client, server = world.pair()
    reset(server)
    wait(client, select.POLLIN)
    return [outcome(client.recv, 1), value(lambda: client.recv(1).decode())]


@case
def reset_is_seen_by_so_error(world: World):
    client, server = world.pair()
    reset(server)
    wait_all(client, {"ERR"})
    return [socket_error(client), socket_error(client)]


@case
def reset_wakes_a_blocked_reader(world: World):
    client, server = world.pair()
    result: list[str] = []
    thread = threading.Thread(target=lambda: result.append(outcome(client.recv, 1)))
    thread.start()
    reset(server)
    thread.join()
    return result


@case
def close_with_unread_data_resets(world: World):
    client, server = world.pair()
    client.sendall(b"unread")
    wait(server, select.POLLIN)
    server.close()
    wait_all(client, {"ERR"})
    return outcome(client.recv, 1)


@case
def write_to_a_closed_peer_is_reset(world: World):
    client, server = world.pair()
    server.close()
    wait(client, select.POLLIN)
    first = value(lambda: client.recv(1).decode())
    second = outcome(client.send, b"x")
    wait_all(client, {"HUP"})
    with no_sigpipe():
        return [first, second, outcome(client.send, b"y")]


@case
def data_before_a_fin_is_complete(world: World):
    client, server = world.pair()
    payload = bytes(range(256)) * 2000
    thread = threading.Thread(target=lambda: [server.sendall(payload), server.close()])
    thread.start()
    got = receive_all(client)
    thread.join()
    return got == payload


@case
def data_before_a_fin_waits_for_a_late_reader(world: World):
    client, server = world.pair()
    server.sendall(b"early")
    server.close()
    wait_all(client, {"IN", "RDHUP"})
    return receive_all(client).decode()


@case
def linger_zero_is_a_reset(world: World):
    client, server = world.pair()
    server.sendall(b"data")
    wait(client, select.POLLIN)
    reset(server)
    wait_all(client, {"ERR"})
    return "HUP" in wait_all(client, {"HUP"})


@case
def linger_positive_closes_cleanly(world: World):
    client, server = world.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    server.sendall(b"data")
    server.close()
    return receive_all(client).decode()


@case
def close_in_one_process_keeps_the_other(world: World):
    client, server = world.pair()
    copy = world.keep(server.dup())
    server.close()
    copy.sendall(b"alive")
    return client.recv(5, socket.MSG_WAITALL).decode()


@case
def names_after_the_peer_closed(world: World):
    client, server = world.pair()
    name = server.getsockname()
    server.close()
    wait(client, select.POLLIN)
    return [client.getpeername() == name, outcome(client.getsockname)]


@case
def getpeername_after_a_reset(world: World):
    client, server = world.pair()
    reset(server)
    wait_all(client, {"HUP"})
    outcome(client.recv, 1)
    return outcome(client.getpeername)


@case
def fresh_socket_write_and_read(world: World):
    sock = world.nonblocking()
    with no_sigpipe():
        return [outcome(sock.send, b"x"), outcome(sock.recv, 1)]


@case
def fresh_socket_blocking_recv(world: World):
    return [outcome(world.stream().recv, 1), outcome(world.bound().recv, 1, socket.MSG_PEEK)]


@case
def fresh_socket_message_calls(world: World):
    sock = world.stream()
    with no_sigpipe():
        return [outcome(sock.sendmsg, [b"x"]), outcome(sock.recvmsg, 1), outcome(sock.recvfrom, 1)]


@case
def listener_send(world: World):
    return outcome(world.listener().send, b"x", socket.MSG_NOSIGNAL)


@case
def send_that_cannot_raises_the_signal(world: World):
    seen: list[str] = []
    before = signal.signal(signal.SIGPIPE, lambda *_: seen.append("SIGPIPE"))
    try:
        fresh = world.stream()
        done = [outcome(fresh.send, b"x"), len(seen), outcome(fresh.send, b"x", socket.MSG_NOSIGNAL), len(seen)]
        client, server = world.pair()
        client.shutdown(socket.SHUT_WR)
        done += [outcome(client.send, b"x"), len(seen), outcome(client.sendmsg, [b"x"]), len(seen)]
        reset(server)
        wait_all(client, {"ERR"})
        return [*done, outcome(client.send, b"x"), len(seen), outcome(client.send, b"x"), len(seen)]
    finally:
        signal.signal(signal.SIGPIPE, before)


@case
def two_connections_end_independently(world: World):
    listener = world.listener()
    first, second = world.stream(), world.stream()
    first.connect(world.to(listener))
    one, _ = listener.accept()
    second.connect(world.to(listener))
    two, _ = listener.accept()
    one.close()
    ended = first.recv(1).decode()
    two.sendall(b"on")
    return [ended, second.recv(2, socket.MSG_WAITALL).decode()]


@differs("both directions of a pair that are shut look like a connection that is gone: its peer's name goes then", "ENOTCONN")
def getpeername_after_own_full_shutdown(world: World):
    client, server = world.pair()
    client.shutdown(socket.SHUT_RDWR)
    return value(lambda: client.getpeername() == server.getsockname())


@case
def shutdown_each_direction_in_turn(world: World):
    client, server = world.pair()
    results = [outcome(client.shutdown, socket.SHUT_RD), outcome(client.shutdown, socket.SHUT_WR)]
    return [*results, server.recv(1).decode()]


@case
def shutdown_after_the_peer_closed(world: World):
    client, server = world.pair()
    server.close()
    wait_all(client, {"RDHUP"})
    return outcome(client.shutdown, socket.SHUT_WR)


@case
def shutdown_after_a_reset(world: World):
    client, server = world.pair()
    reset(server)
    wait_all(client, {"HUP"})
    return outcome(client.shutdown, socket.SHUT_RDWR)


@differs("both directions of a pair that are shut look like a connection that is gone", "ENOTCONN")
def shutdown_after_own_full_shutdown(world: World):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_RDWR)
    return outcome(client.shutdown, socket.SHUT_RDWR)


@case
def linger_zero_after_the_peers_end(world: World):
    client, server = world.pair()
    client.shutdown(socket.SHUT_WR)
    receive_all(server)
    reset(server)
    wait_all(client, {"HUP"})
    return value(lambda: client.recv(1).decode())


@case
def linger_off_closes_cleanly(world: World):
    client, server = world.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    server.sendall(b"data")
    server.close()
    return receive_all(client).decode()


@case
def linger_of_the_listener_is_inherited(world: World):
    listener = world.listener()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client = world.stream()
    client.connect(world.to(listener))
    server, _ = listener.accept()
    server.close()
    wait(client, select.POLLIN)
    return value(lambda: client.recv(1).decode())


@case
def data_then_reset_order(world: World):
    client, server = world.pair()
    server.sendall(b"first")
    got = client.recv(5, socket.MSG_WAITALL).decode()
    reset(server)
    wait_all(client, {"ERR"})
    return [got, outcome(client.send, b"x", socket.MSG_NOSIGNAL), value(lambda: client.recv(1).decode())]


@case
def half_closed_both_ways_is_at_its_end(world: World):
    client, server = world.pair()
    for sock in (client, server):
        sock.shutdown(socket.SHUT_WR)
    return [client.recv(1).decode(), server.recv(1).decode()]


@differs("a reset after the peer's end of stream is a plain hang-up: SO_ERROR is 0 (EPIPE), and send says EPIPE", False)
def reset_of_a_half_closed_connection(world: World):
    client, server = world.pair()
    client.shutdown(socket.SHUT_WR)
    server.recv(1)
    server.sendall(b"x")
    wait(client, select.POLLIN)
    client.close()
    wait_all(server, {"HUP"})
    return "ERR" in wait_all(server, {"HUP"})
