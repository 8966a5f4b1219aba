"""What is not a TCP socket of a virtual network works as if the library were not there; IPv4 inside IPv6 sockets."""

import os
import select
import socket
import tempfile

from tests.differential.harness import LIBC, PATIENCE, World, case, outcome, raw_call, value


@case
def unix_socket_pair(world: World):
    left, right = socket.socketpair()
    left.sendall(b"x")
    domain = left.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return [right.recv(1).decode(), domain, left.getsockname(), left.getpeername()]


@case
def unix_stream_listener(world: World):
    with tempfile.TemporaryDirectory() as folder:
        listener = world.keep(socket.socket(socket.AF_UNIX))
        listener.bind(os.path.join(folder, "s"))
        listener.listen(1)
        client = world.keep(socket.socket(socket.AF_UNIX))
        client.connect(os.path.join(folder, "s"))
        server, name = listener.accept()
        client.sendall(b"x")
        return [server.recv(1).decode(), str(name), os.path.basename(client.getpeername())]


@case
def unix_datagrams_keep_their_addresses(world: World):
    with tempfile.TemporaryDirectory() as folder:
        one, two = (world.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(2))
        one.bind(os.path.join(folder, "one"))
        two.bind(os.path.join(folder, "two"))
        one.sendto(b"x", os.path.join(folder, "two"))
        data, address = two.recvfrom(10)
        return [data.decode(), os.path.basename(address)]


@case
def netlink_socket(world: World):
    sock = world.keep(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    sock.bind((0, 0))
    return [sock.getsockname()[0] != 0, outcome(sock.listen, 1)]


@case
def udp_on_the_loopback(world: World):
    server = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    client = world.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.sendto(b"abc", server.getsockname())
    data, address = server.recvfrom(10)
    return [data.decode(), address == ("127.0.0.1", client.getsockname()[1])]


@case
def tcp_on_the_loopback(world: World):
    listener = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.connect(listener.getsockname())
    server, peer = listener.accept()
    client.sendall(b"x")
    return [server.recv(1).decode(), peer == client.getsockname()]


@case
def tcp_pair_is_not_supported(world: World):
    return outcome(lambda: socket.socketpair(world.family, socket.SOCK_STREAM))


@case
def getaddrinfo_of_a_number(world: World):
    results = socket.getaddrinfo(world.address, 80, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    return [[int(family), int(kind), protocol, address[0], address[1]] for family, kind, protocol, _, address in results]


@case
def getnameinfo_of_a_number(world: World):
    return list(socket.getnameinfo((world.address, 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))


@case
def socket_calls_on_a_pipe(world: World):
    reader, _writer = os.pipe()
    length = bytes(4)
    return [
        raw_call(LIBC.accept, reader, None, None),
        raw_call(LIBC.bind, reader, bytes(16), 16),
        raw_call(LIBC.connect, reader, bytes(16), 16),
        raw_call(LIBC.getsockname, reader, bytes(16), length),
        raw_call(LIBC.getsockopt, reader, 1, 3, bytes(4), length),
        raw_call(LIBC.send, reader, b"x", 1, 0),
    ]


@case
def socket_calls_on_a_closed_number(world: World):
    length = bytes(4)
    return [
        raw_call(LIBC.accept, 999, None, None),
        raw_call(LIBC.bind, 999, bytes(16), 16),
        raw_call(LIBC.connect, 999, bytes(16), 16),
        raw_call(LIBC.getpeername, 999, bytes(16), length),
        raw_call(LIBC.setsockopt, 999, 1, 2, bytes(4), 4),
        raw_call(LIBC.recv, 999, bytes(1), 1, 0),
    ]


def ipv4_of(world: World) -> str:
    return world.other if world.family == socket.AF_INET6 else world.address


def ipv6_stream(world: World) -> socket.socket:
    return world.keep(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))


@case
def mapped_client_reaches_an_ipv4_listener(world: World):
    listener = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.bind((ipv4_of(world), 0))
    listener.listen(1)
    client = ipv6_stream(world)
    mapped = "::ffff:" + ipv4_of(world)
    client.connect((mapped, listener.getsockname()[1]))
    server, peer = listener.accept()
    client.sendall(b"x")
    return [
        server.recv(1).decode(),
        peer == (ipv4_of(world), client.getsockname()[1]),
        client.getsockname()[0] == mapped,
        client.getpeername()[0] == mapped,
    ]


@case
def dual_stack_listener_shows_mapped_peers(world: World):
    listener = ipv6_stream(world)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen(1)
    client = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.connect((ipv4_of(world), listener.getsockname()[1]))
    server, peer = listener.accept()
    mapped = "::ffff:" + ipv4_of(world)
    return [peer[0] == mapped, server.getsockname()[0] == mapped, server.getpeername() == peer]


@case
def bind_to_a_mapped_address(world: World):
    sock = ipv6_stream(world)
    result = outcome(sock.bind, ("::ffff:" + ipv4_of(world), 0))
    return [result, sock.getsockname()[0] == "::ffff:" + ipv4_of(world)]


@case
def v6only_sockets_refuse_mapped_addresses(world: World):
    results = []
    for call in ("bind", "connect"):
        sock = ipv6_stream(world)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        results.append(outcome(getattr(sock, call), ("::ffff:" + ipv4_of(world), 1)))
    return results


@case
def v6only_listener_is_not_reached_by_ipv4(world: World):
    listener = ipv6_stream(world)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("::", 0))
    listener.listen(1)
    client = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    return outcome(client.connect, (ipv4_of(world), listener.getsockname()[1]))


@case
def ipv4_socket_refuses_an_ipv6_address(world: World):
    sock = world.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    raw = bytes([10, 0, 0, 1]) + bytes(20) + bytes([1]) + bytes(3)
    return [raw_call(LIBC.bind, sock.fileno(), raw, len(raw)), raw_call(LIBC.connect, sock.fileno(), raw, len(raw))]


@case
def ipv6_socket_refuses_an_ipv4_address(world: World):
    sock = ipv6_stream(world)
    raw = b"\x02\x00\x00\x09" + socket.inet_aton(ipv4_of(world)) + bytes(8)
    return [raw_call(LIBC.bind, sock.fileno(), raw, len(raw)), value(sock.getsockname)[0]]


@case
def epoll_set_with_a_socket_that_then_connects_to_loopback(world: World):
    listener, client = world.keep(socket.create_server(("127.0.0.1", 0))), world.keep(socket.socket())
    client.setblocking(False)
    with select.epoll() as poller:
        poller.register(client, select.EPOLLOUT)
        client.connect_ex(listener.getsockname())
        ready = poller.poll(PATIENCE)
        return [[number == client.fileno(), events] for number, events in ready]


@case
def epoll_set_with_a_socket_that_then_listens_on_loopback(world: World):
    listener = world.keep(socket.socket())
    with select.epoll() as poller:
        poller.register(listener, select.EPOLLIN)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        world.keep(socket.create_connection(listener.getsockname()))
        return [number == listener.fileno() for number, events in poller.poll(PATIENCE) if events & select.EPOLLIN]
