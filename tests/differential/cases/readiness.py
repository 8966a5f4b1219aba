"""poll, select, epoll (level and edge-triggered), selectors and asyncio on top of them."""

import asyncio
import select
import selectors
import socket
import threading

from tests.differential.harness import (
    PATIENCE,
    World,
    bits,
    case,
    differs,
    outcome,
    polled,
    receive_all,
    reset,
    socket_error,
    until_queued,
    wait,
    wait_all,
)

EPOLL_BITS = {
    select.EPOLLIN: "IN",
    select.EPOLLOUT: "OUT",
    select.EPOLLERR: "ERR",
    select.EPOLLHUP: "HUP",
    select.EPOLLRDHUP: "RDHUP",
}


def epolled(poller: select.epoll, timeout: float = 0) -> list[list[str]]:
    return [[name for bit, name in EPOLL_BITS.items() if mask & bit] for _, mask in poller.poll(timeout)]


@case
def poll_connected_idle(world: World):
    client, _ = world.pair()
    return polled(client)


@case
def poll_readable(world: World):
    client, server = world.pair()
    server.sendall(b"x")
    return wait(client, select.POLLIN | select.POLLRDHUP) + polled(client)


@case
def poll_after_peer_half_close(world: World):
    client, server = world.pair()
    server.shutdown(socket.SHUT_WR)
    return wait_all(client, {"IN", "RDHUP"})


@case
def poll_after_peer_close(world: World):
    client, server = world.pair()
    server.close()
    return wait_all(client, {"IN", "RDHUP"})


@case
def poll_after_both_half_closes(world: World):
    client, server = world.pair()
    client.shutdown(socket.SHUT_WR)
    receive_all(server)
    server.shutdown(socket.SHUT_WR)
    return wait_all(client, {"IN", "RDHUP", "HUP"})


@case
def poll_after_reset(world: World):
    client, server = world.pair()
    reset(server)
    return wait_all(client, {"IN", "ERR", "HUP"})


@case
def poll_own_write_shutdown(world: World):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_WR)
    return polled(client)


@case
def poll_own_read_shutdown(world: World):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_RD)
    return polled(client)


@case
def poll_own_full_shutdown_with_open_peer(world: World):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_RDWR)
    return polled(client, select.POLLIN | select.POLLRDHUP)


@case
def poll_errors_need_no_request(world: World):
    client, server = world.pair()
    reset(server)
    wait_all(client, {"ERR"})
    return polled(client, 0)


@case
def poll_a_closed_descriptor(world: World):
    sock = world.stream()
    fd = sock.fileno()
    sock.close()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bits(poller.poll(0)[0][1])


@case
def select_readable_writable(world: World):
    client, server = world.pair()
    first = [len(part) for part in select.select([client], [client], [client], 0)]
    server.sendall(b"x")
    wait(client, select.POLLIN)
    second = [len(part) for part in select.select([client], [client], [client], 0)]
    return [first, second]


@case
def select_listener(world: World):
    listener = world.listener()
    before = [len(part) for part in select.select([listener], [listener], [listener], 0)]
    client = world.stream()
    client.connect(world.to(listener))
    after = [len(part) for part in select.select([listener], [], [listener], PATIENCE)]
    return [before, after]


@case
def select_refused(world: World):
    client = world.nonblocking()
    client.connect_ex((world.address, world.closed_port()))
    wait(client, select.POLLOUT)
    return [len(part) for part in select.select([client], [client], [client], PATIENCE)]


@case
def epoll_level_triggered_repeats(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN)
    server.sendall(b"x")
    first = epolled(poller, PATIENCE)
    return [first, epolled(poller)]


@case
def epoll_edge_triggered_fires_once(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN | select.EPOLLET)
    server.sendall(b"x")
    first = epolled(poller, PATIENCE)
    return [first, epolled(poller)]


@case
def epoll_edge_triggered_fires_again_for_new_data(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN | select.EPOLLET)
    server.sendall(b"x")
    first = epolled(poller, PATIENCE)
    server.sendall(b"y")
    return [first, epolled(poller, PATIENCE)]


@case
def epoll_edge_triggered_writable_at_once(world: World):
    client, _ = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLOUT | select.EPOLLET)
    return [epolled(poller, PATIENCE), epolled(poller)]


@case
def epoll_edge_triggered_connect(world: World):
    listener = world.listener()
    client = world.nonblocking()
    poller = select.epoll()
    client.connect_ex(world.to(listener))
    poller.register(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    events: set[str] = set()
    while "OUT" not in events:
        for found in epolled(poller, PATIENCE):
            events.update(found)
    return sorted(events)


@case
def epoll_edge_triggered_listener(world: World):
    listener = world.listener()
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN | select.EPOLLET)
    client = world.stream()
    client.connect(world.to(listener))
    first = epolled(poller, PATIENCE)
    listener.accept()
    empty = outcome(listener.accept)
    second = world.stream()
    second.connect(world.to(listener))
    return [first, empty, epolled(poller, PATIENCE)]


@case
def epoll_oneshot(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN | select.EPOLLONESHOT)
    server.sendall(b"x")
    first = epolled(poller, PATIENCE)
    second = epolled(poller)
    poller.modify(client, select.EPOLLIN | select.EPOLLONESHOT)
    return [first, second, epolled(poller, PATIENCE)]


@case
def epoll_rdhup(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLRDHUP)
    server.shutdown(socket.SHUT_WR)
    return epolled(poller, PATIENCE)


@case
def epoll_registered_before_connect(world: World):
    listener = world.listener()
    client = world.nonblocking()
    client.connect_ex(world.to(listener))
    poller = select.epoll()
    poller.register(client, select.EPOLLOUT)
    return epolled(poller, PATIENCE)


@case
def epoll_registered_before_a_listener_listens(world: World):
    listener = world.bound()
    poller = select.epoll()
    listener.listen(4)
    poller.register(listener, select.EPOLLIN)
    client = world.stream()
    client.connect(world.to(listener))
    return epolled(poller, PATIENCE)


@case
def epoll_shares_across_dup(world: World):
    client, server = world.pair()
    copy = world.keep(client.dup())
    poller = select.epoll()
    poller.register(copy, select.EPOLLIN)
    server.sendall(b"x")
    return epolled(poller, PATIENCE)


@case
def epoll_exclusive_listener(world: World):
    listener = world.listener()
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    client = world.stream()
    client.connect(world.to(listener))
    return epolled(poller, PATIENCE)


@case
def selectors_echo_server(world: World):
    listener = world.listener()
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    results: list[str] = []

    def client_side() -> None:
        client = socket.create_connection(world.to(listener))
        client.sendall(b"hello")
        results.append(client.recv(5, socket.MSG_WAITALL).decode())
        client.close()

    thread = threading.Thread(target=client_side)
    thread.start()
    finished = False
    while not finished:
        for key, _ in selector.select(PATIENCE):
            if key.fileobj is listener:
                server, _ = listener.accept()
                server.setblocking(False)
                selector.register(server, selectors.EVENT_READ)
            else:
                sock = world.keep(key.fileobj)
                if data := sock.recv(100):
                    sock.sendall(data)
                else:
                    selector.unregister(sock)
                    finished = True
    thread.join()
    return results


@case
def asyncio_streams(world: World):
    async def serve() -> str:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, world.address, 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\n")
            line = await reader.readline()
            end = await reader.read()
            writer.close()
            return line.decode() + end.decode()

    return asyncio.run(serve())


@case
def asyncio_refused(world: World):
    async def attempt() -> str:
        try:
            await asyncio.open_connection(world.address, world.closed_port())
        except OSError as error:
            return type(error).__name__
        return "connected"

    return asyncio.run(attempt())


@differs("a fresh stream is one end of a pair: it is writable and no more", [["OUT"]])
def epoll_fresh_socket(world: World):
    poller = select.epoll()
    poller.register(world.stream(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
    return epolled(poller)


@differs("a bound stream is one end of a pair: it is writable and no more", [["OUT"]])
def epoll_bound_socket(world: World):
    poller = select.epoll()
    poller.register(world.bound(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
    return epolled(poller)


@case
def epoll_edge_of_a_listener_comes_for_each_connection(world: World):
    listener = world.listener()
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN | select.EPOLLET)
    results = []
    for _ in range(3):
        world.stream().connect(world.to(listener))
        results.append(epolled(poller, PATIENCE))
    return results


@case
def epoll_edge_comes_for_each_arrival(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN | select.EPOLLET)
    results = []
    for _ in range(3):
        server.sendall(b"x")
        results.append(epolled(poller, PATIENCE))
    return [*results, epolled(poller)]


@case
def epoll_edge_when_a_full_socket_is_writable_again(world: World):
    client, server = world.pair()
    client.setblocking(False)
    poller = select.epoll()
    sent = 0
    try:
        while True:
            sent += client.send(bytes(65536))
    except BlockingIOError:
        pass
    poller.register(client, select.EPOLLOUT | select.EPOLLET)
    poller.poll(0)
    got = 0
    while got < sent:
        got += len(server.recv(1 << 20))
    return epolled(poller, PATIENCE)


@case
def epoll_forgets_a_closed_socket(world: World):
    client, server = world.pair()
    poller = select.epoll()
    poller.register(client, select.EPOLLIN)
    server.sendall(b"x")
    wait(client, select.POLLIN)
    client.close()
    return epolled(poller)


@differs(
    "a listener that was shut down is a pair whose other end is closed: it shows an end of file, too", ["IN", "OUT", "HUP", "RDHUP"]
)
def poll_a_listener_after_shutdown(world: World):
    listener = world.listener()
    listener.shutdown(socket.SHUT_RDWR)
    return polled(listener)


@differs(
    "a failed connect is a pair whose other end is closed: it shows an end of file, too",
    ["ECONNREFUSED", ["IN", "OUT", "HUP", "RDHUP"]],
)
def poll_after_a_refused_blocking_connect(world: World):
    client = world.stream()
    return [outcome(client.connect, (world.address, world.closed_port())), polled(client)]


@differs("poll of an AF_UNIX stream ignores SO_RCVLOWAT", ["IN"])
def poll_below_the_low_water_mark(world: World):
    client, server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
    server.sendall(b"abc")
    until_queued(client, 3)
    return polled(client, select.POLLIN)


@case
def poll_at_the_low_water_mark(world: World):
    client, server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
    server.sendall(b"abcde")
    return wait(client, select.POLLIN)


@case
def ppoll_and_pselect_through_select(world: World):
    client, server = world.pair()
    server.shutdown(socket.SHUT_WR)
    wait_all(client, {"RDHUP"})
    return [len(part) for part in select.select([client], [client], [client], 0)]


@case
def epoll_set_follows_a_second_connect(world: World):
    listener, client = world.listener(), world.nonblocking()
    with select.epoll() as poller, select.epoll() as other:
        poller.register(client, select.EPOLLOUT | select.EPOLLET)
        other.register(client, select.EPOLLIN)
        client.connect_ex((world.address, world.closed_port()))
        wait(client, select.POLLOUT)
        seen = [socket_error(client), len(epolled(poller, PATIENCE))]
        # The kernel says ECONNABORTED once to who has asked SO_ERROR.
        client.connect_ex(world.to(listener))
        client.connect_ex(world.to(listener))
        wait(client, select.POLLOUT)
        seen += [epolled(poller, PATIENCE), epolled(poller), epolled(other)]
        server, _ = listener.accept()
        server.send(b"x")
        seen += [epolled(other, PATIENCE)]
        poller.modify(client, select.EPOLLIN)
        other.unregister(client)
        server.close()
        return [*seen, epolled(poller, PATIENCE), epolled(other)]
