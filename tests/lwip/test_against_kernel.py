"""The kernel's TCP/IP opposite to lwIP's: a TAP device in a namespace, a bad link (20 ms, loss, reordering), and a stack."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from netcon.dataplane.reactor import Impairment, Tap, connect, disconnect
from tests.lwip.datagram_client import DatagramSocket, datagram_socket
from tests.lwip.service import HERE, HERE6, NETWORK_A, Service
from tests.namespaces import Namespace, needs_namespaces

pytestmark = needs_namespaces

KERNEL, KERNEL6 = "10.77.0.9", "fd77::9"
DEVICE = "zttest"
DEADLINE_S = 60.0
#: Without news for so long on a lossy link, what is missing is sent again.
QUIET_S = 0.25
#: Bytes each way at each loss: a lossy link of 40 ms is slow by nature, whoever sends.
BYTES = {0.0: 4 << 20, 0.01: 1 << 19, 0.05: 1 << 17}

LOSSES = pytest.mark.parametrize("loss", BYTES, ids=[f"{loss:.0%}" for loss in BYTES])
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


class Link:
    """A stack with a socket server on one end, the kernel on the other."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.service = Service()
        reactor = self.service.reactor
        self.tap = namespace.inside(lambda: Tap(reactor, DEVICE))
        self.impairment = Impairment(reactor, seed=4)
        stack = self.service.stacks[NETWORK_A]
        self._pairs = [(self.tap.capsule(), self.impairment.left()), (self.impairment.right(), stack.ethernet_end())]
        for pair in self._pairs:
            connect(reactor, *pair)
        namespace.ip("link", "set", DEVICE, "mtu", "2800", "up")
        namespace.ip("address", "add", f"{KERNEL}/24", "dev", DEVICE)
        namespace.ip("address", "add", f"{KERNEL6}/64", "dev", DEVICE, "nodad")

    def set_loss(self, loss: float) -> None:
        self.impairment.set(delay_us=20_000, loss=loss, reorder=0.02 if loss else 0.0)

    def kernel_socket(self, v6: bool, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = self.namespace.inside(lambda: socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind))
        sock.settimeout(DEADLINE_S)
        return sock

    def close(self) -> None:
        for pair in self._pairs:
            disconnect(self.service.reactor, *pair)
        self._pairs.clear()
        self.tap.close()
        self.service.close()


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    with Namespace() as namespace:
        link = Link(namespace)
        yield link
        link.service.assert_idle()
        link.close()


def content(seed: bytes, count: int) -> bytes:
    return hashlib.shake_256(seed).digest(count)


def exchange(one: socket.socket, other: socket.socket, count: int) -> None:
    """`count` bytes both ways at once, then an orderly end both ways."""
    received: dict[str, bytes] = {}
    errors: list[BaseException] = []

    def thread(function: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def send(sock: socket.socket, seed: bytes) -> None:
        sock.sendall(content(seed, count))
        sock.shutdown(socket.SHUT_WR)

    def receive(sock: socket.socket, name: str) -> None:
        whole = hashlib.sha256()
        while piece := sock.recv(1 << 16):
            whole.update(piece)
        received[name] = whole.digest()

    threads = [
        thread(lambda: send(one, b"one")),
        thread(lambda: send(other, b"other")),
        thread(lambda: receive(one, "one")),
        thread(lambda: receive(other, "other")),
    ]
    for each in threads:
        each.join()
    assert not errors
    assert received == {
        "one": hashlib.sha256(content(b"other", count)).digest(),
        "other": hashlib.sha256(content(b"one", count)).digest(),
    }


@FAMILIES
@LOSSES
def test_tcp_from_lwip_to_the_kernel(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    address = KERNEL6 if v6 else KERNEL
    with link.kernel_socket(v6) as listener:
        listener.bind((address, 0))
        listener.listen()
        with link.service.program().connected(address, listener.getsockname()[1]) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert peer[0] == (HERE6 if v6 else HERE)
                accepted.settimeout(DEADLINE_S)
                client.p.settimeout(DEADLINE_S)
                exchange(client.p, accepted, BYTES[loss])


@FAMILIES
@LOSSES
def test_tcp_from_the_kernel_to_lwip(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    address = HERE6 if v6 else HERE
    with link.service.program().listener(address) as listener, link.kernel_socket(v6) as client:
        listener.p.settimeout(DEADLINE_S)
        client.connect((address, listener.getsockname()[1]))
        accepted, peer = listener.accept()
        with accepted:
            assert peer[0] == (KERNEL6 if v6 else KERNEL)
            accepted.p.settimeout(DEADLINE_S)
            exchange(client, accepted.p, BYTES[loss])


def datagrams() -> list[bytes]:
    """Of all sizes, the largest in several IP fragments."""
    return [number.to_bytes(2) + content(b"%d" % number, number * 150) for number in range(48)]


def echo_round_trip(send: Callable[[bytes], None], receive: Callable[[], bytes], lossy: bool) -> None:
    """Send datagrams, few at a time, until each came back; without loss each comes back at once. `receive` raises TimeoutError."""
    everything = datagrams()
    for start in range(0, len(everything), 12):
        missing = {data[:2]: data for data in everything[start : start + 12]}
        for _ in range(100):
            for data in missing.values():
                send(data)
            with contextlib.suppress(TimeoutError):
                while missing:
                    back = receive()
                    assert back == everything[int.from_bytes(back[:2])]
                    missing.pop(back[:2], None)
            if not missing:
                break
            assert lossy
        assert not missing


class Echo:
    """Answers datagrams on a thread until it is left."""

    def __init__(
        self, receive: Callable[[], tuple[bytes, tuple[str, int]]], send: Callable[[bytes, tuple[str, int]], None]
    ) -> None:
        self._receive, self._send = receive, send
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            data, peer = self._receive()
            if data == b"end":
                return
            self._send(data, peer)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def udp(link: Link, v6: bool) -> DatagramSocket:
    sock = datagram_socket(link.service.program(), socket.AF_INET6 if v6 else socket.AF_INET)
    sock.bind(HERE6 if v6 else HERE, 0)
    return sock


@FAMILIES
@LOSSES
def test_udp_echoed_by_the_kernel(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    address = KERNEL6 if v6 else KERNEL
    with link.kernel_socket(v6, socket.SOCK_DGRAM) as server, udp(link, v6) as client, udp(link, v6) as ender:
        server.bind((address, 0))
        port = server.getsockname()[1]
        client.p.settimeout(QUIET_S if loss else DEADLINE_S)
        with Echo(lambda: server.recvfrom(1 << 16), lambda data, peer: server.sendto(data, peer) and None):
            echo_round_trip(lambda data: client.sendto(data, address, port), lambda: client.recvfrom()[0], loss > 0)
            link.set_loss(0.0)
            ender.sendto(b"end", address, port)


@FAMILIES
@LOSSES
def test_udp_echoed_by_lwip(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    address = HERE6 if v6 else HERE
    with link.kernel_socket(v6, socket.SOCK_DGRAM) as client, udp(link, v6) as server:
        port = server.getsockname()[1]
        server.p.settimeout(DEADLINE_S)
        client.settimeout(QUIET_S if loss else DEADLINE_S)
        with Echo(lambda: server.recvfrom(), lambda data, peer: server.sendto(data, *peer)):
            echo_round_trip(lambda data: client.sendto(data, (address, port)) and None, lambda: client.recv(1 << 16), loss > 0)
            link.set_loss(0.0)
            client.sendto(b"end", (address, port))


@FAMILIES
@LOSSES
def test_the_kernels_ping_is_answered(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    result = link.namespace.run("ping", "-q", "-i", "0.01", "-c", "30", "-W", "5", "-s", "4000", HERE6 if v6 else HERE)
    answered = re.search(r"(\d+) received", result.stdout)
    assert answered is not None, result.stdout + result.stderr
    assert int(answered[1]) == 30 if not loss else 0 < int(answered[1]) <= 30


@FAMILIES
@LOSSES
def test_the_kernel_answers_a_ping(link: Link, loss: float, v6: bool) -> None:
    link.set_loss(loss)
    address = KERNEL6 if v6 else KERNEL
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    with datagram_socket(link.service.program(), family, socket.SOCK_DGRAM, protocol) as sock:
        sock.p.settimeout(QUIET_S if loss else DEADLINE_S)

        def ping(data: bytes) -> None:
            sock.call_sendto(struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 0, int.from_bytes(data[:2])) + data, address, 0)

        def pong() -> bytes:
            data, _ = sock.recvfrom()
            kind, code, _, _, sequence = struct.unpack_from(">BBHHH", data)
            assert (kind, code, sequence) == (129 if v6 else 0, 0, int.from_bytes(data[8:10]))
            return data[8:]

        echo_round_trip(ping, pong, loss > 0)
