"""The kernel's TAP device as an Ethernet end: frames both ways, whole and in order, push-back, and its life."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.dataplane.reactor import MemoryEnd, Reactor, Tap, connect, disconnect
from tests.dataplane.conftest import Host
from tests.namespaces import Namespace, needs_namespaces

MAC = "02:00:00:00:00:01"
_SO_RCVBUFFORCE = 33
ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        namespace.inside(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))  # no chatter of the kernel's
        yield namespace


def raw_socket(namespace: Namespace, device: str) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        sock.bind((device, ETHERTYPE))
        sock.settimeout(30)
        return sock

    return namespace.inside(make)


def frame(number: int, length: int = 100) -> bytes:
    head = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) + ETHERTYPE.to_bytes(2)
    return head + number.to_bytes(4) + bytes(length - len(head) - 4)


class Pair:
    """A TAP device in a namespace, connected to a memory end, with a raw socket on the kernel's side."""

    def __init__(self, host: Host, namespace: Namespace) -> None:
        self.reactor: Reactor = host.reactor()
        self.tap = namespace.inside(lambda: Tap(self.reactor, "zttest"))
        self.end = MemoryEnd(self.reactor)
        connect(self.reactor, self.tap.capsule(), self.end.capsule())
        namespace.ip("link", "set", "zttest", "address", MAC, "mtu", "2800", "up")
        self.kernel = raw_socket(namespace, "zttest")

    def close(self) -> None:
        self.kernel.close()
        disconnect(self.reactor, self.tap.capsule(), self.end.capsule())
        self.tap.close()
        del self.end, self.tap, self.reactor  # pytest keeps this object longer than `nothing_left` may wait


@pytest.fixture
def pair(host: Host, namespace: Namespace) -> Iterator[Pair]:
    pair = Pair(host, namespace)
    yield pair
    pair.close()


@needs_namespaces
def test_frames_from_the_kernel_come_out_whole_and_in_order(host: Host, pair: Pair) -> None:
    sent = [frame(number, 60 + number * 9) for number in range(300)]
    got: list[bytes] = []
    for start in range(0, len(sent), 100):
        for data in sent[start : start + 100]:
            pair.kernel.send(data)
        host.turn_until(pair.reactor, lambda: got.extend(pair.end.take()) or len(got) >= start + 100)  # type: ignore[func-returns-value] # noqa: B023
    assert got == sent
    assert pair.tap.stats() == {"frames_in": 300, "frames_out": 0, "refused": 0, "detached": 0}


@needs_namespaces
def test_frames_to_the_kernel_arrive_whole_and_in_order(pair: Pair) -> None:
    sent = [frame(number, 60 + number * 9) for number in range(300)]
    for start in range(0, len(sent), 100):
        assert pair.end.give(sent[start : start + 100]) == 100
        assert [pair.kernel.recv(4096) for _ in range(100)] == sent[start : start + 100]
    assert pair.tap.stats()["frames_out"] == 300


@needs_namespaces
def test_a_peer_without_room_stops_the_reading_and_loses_nothing(host: Host, pair: Pair) -> None:
    pair.end.set_room(70)  # in the middle of the second batch
    sent = [frame(number) for number in range(400)]  # fewer than the kernel's queue holds
    for data in sent:
        pair.kernel.send(data)
    host.turn_until(pair.reactor, lambda: pair.tap.stats()["frames_in"] >= 128)
    for _ in range(10):
        pair.reactor.turn(0)
    assert pair.tap.stats()["frames_in"] == 128  # two batches, no more: the rest waits in the kernel
    got = pair.end.take()
    assert len(got) == 70
    pair.end.set_room(1000)
    host.turn_until(pair.reactor, lambda: got.extend(pair.end.take()) or len(got) == 400)  # type: ignore[func-returns-value]
    assert got == sent


@needs_namespaces
def test_a_device_that_is_down_refuses_frames_and_says_so(pair: Pair, namespace: Namespace) -> None:
    namespace.ip("link", "set", "zttest", "down")
    assert pair.end.give([frame(1), frame(2)]) == 2
    assert pair.tap.stats()["refused"] == 2
    namespace.ip("link", "set", "zttest", "up")
    pair.kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # it heard that the network is down
    assert pair.end.give([frame(3)]) == 1
    assert pair.kernel.recv(4096) == frame(3)


@needs_namespaces
def test_a_deleted_device_leaves_the_reactor_at_rest(pair: Pair, namespace: Namespace) -> None:
    namespace.ip("link", "del", "zttest")
    pair.reactor.turn(0)
    before = pair.reactor.stats()["batches"]
    pair.reactor.turn(0)
    assert pair.reactor.stats()["batches"] == before + 1  # nothing is ready any more
    assert pair.end.give([frame(1)]) == 1
    assert pair.tap.stats()["refused"] == 1


@needs_namespaces
def test_the_device_goes_with_its_object(host: Host, namespace: Namespace) -> None:
    tap = namespace.inside(lambda: Tap(host.reactor(), "zttest"))
    assert "zttest" in namespace.ip("link")
    with pytest.raises(OSError) as taken:
        namespace.inside(lambda: Tap(host.reactor(), "zttest"))
    assert taken.value.errno == errno.EBUSY
    tap.close()
    tap.close()
    assert "zttest" not in namespace.ip("link")
    with pytest.raises(ValueError, match="closed"):
        tap.capsule()


@needs_namespaces
def test_a_connected_device_is_not_closed(pair: Pair) -> None:
    with pytest.raises(ValueError, match="disconnect it first"):
        pair.tap.close()


def test_without_the_privilege_it_is_refused() -> None:
    script = "\n".join(
        (
            "import os",
            "from netcon.dataplane.reactor import Reactor, Tap",
            "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)",
            "reactor = Reactor()",
            "try: Tap(reactor, 'zttest')",
            "except OSError as error: print(error.errno)",
        )
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(result.stdout) in (errno.EPERM, errno.EACCES, errno.ENOENT)


def test_a_name_that_is_too_long_is_refused(host: Host) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        Tap(host.reactor(), "zt" + "x" * 14)
