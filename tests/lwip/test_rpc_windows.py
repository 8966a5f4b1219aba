"""What a connection may cost: windows that begin small and grow as the program reads, peers that send one byte a segment."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.lwip.rpc_client import ProgramSocket
from tests.lwip.test_rpc_time import PORT, Host

SCALED = bytes((2, 4, 5, 0x78, 1, 3, 3, 7))  # MSS 1400, window scale 7
SCALE = 6  # lwipopts.h, TCP_RCV_SCALE
FIRST_WINDOW = 65472  # what 64 KiB is in units of the scale
LARGEST_WINDOW = 2 << 20
SEGMENT = 1400


class Sender:
    """The peer's side of a connection that the program accepted: what it may send, and what it has sent."""

    def __init__(self, host: Host, **options: int) -> None:
        self.host = host

        def prepare(listener: ProgramSocket) -> None:
            for name, value in options.items():
                listener.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)

        self.sock, self.port, self.first = host.accepted(SCALED, prepare)
        self.next = 1001
        self.acknowledged, self.edge = 1001, 1001 + FIRST_WINDOW
        self.window = FIRST_WINDOW

    def frame(self, sequence: int, data: bytes) -> bytes:
        return self.host.frame(PORT, self.port, sequence=sequence, acknowledged=self.first, data=data)

    def send(self, *parts: bytes) -> None:
        """In sequence."""
        frames = []
        for part in parts:
            frames.append(self.frame(self.next, part))
            self.next += len(part)
        self.give(frames)

    def give(self, frames: list[bytes]) -> None:
        for at in range(0, len(frames), 512):
            self.host.wire.give(*frames[at : at + 512])
            self.host.reactor.turn(self.host.now)
        self.host.run(0.1)  # delayed ACKs
        self.listen()

    def listen(self) -> None:
        for segment in self.host.segments():
            edge = segment.acknowledged + (segment.window << SCALE)
            assert edge >= self.edge - (1 << SCALE), "the right edge never moves back"
            self.acknowledged, self.edge, self.window = segment.acknowledged, edge, segment.window << SCALE

    def room(self) -> int:
        return self.edge - self.next

    def fill(self, segments: int = 64) -> int:
        """What the window takes, up to so many segments; how much."""
        parts = [bytes(SEGMENT)] * min(self.room() // SEGMENT, segments)
        self.send(*parts)
        return SEGMENT * len(parts)

    def read_all(self) -> int:
        """The program reads what there is."""
        read = 0
        self.sock.p.setblocking(False)
        while True:
            self.host.reactor.turn(self.host.now)
            try:
                read += len(self.sock.p.recv(1 << 20))
            except BlockingIOError:
                self.host.run(0.1)
                self.listen()
                return read


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def connect(host: Host) -> Iterator[Callable[..., Sender]]:
    senders: list[Sender] = []

    def make(**options: int) -> Sender:
        senders.append(Sender(host, **options))
        return senders[-1]

    yield make
    for sender in senders:
        sender.sock.close()
    host.run(70)


def memory(host: Host) -> int:
    return int(host.stacks[0].stats()["memory"])


def test_a_window_begins_small_and_grows_while_the_program_reads(host: Host, connect: Callable[..., Sender]) -> None:
    sender = connect()
    assert sender.window == FIRST_WINDOW
    sent = read = 0
    windows = []
    while sender.window < LARGEST_WINDOW * 0.9:
        assert len(windows) < 400, windows
        sent += sender.fill()
        read += sender.read_all()
        windows.append(sender.window)
    assert sent == read


def test_a_program_that_does_not_read_has_a_small_window(host: Host, connect: Callable[..., Sender]) -> None:
    sender = connect()
    while sender.room() >= SEGMENT:
        sender.fill()
    queued = sender.next - 1001
    assert queued < (1 << 20) + 2 * FIRST_WINDOW, "the pair and one first window"
    assert sender.read_all() == queued
    assert sender.room() >= FIRST_WINDOW - SEGMENT, "it is open again"


@pytest.mark.parametrize("wanted", [4096, 50_000, 500_000])
def test_so_rcvbuf_bounds_the_window(connect: Callable[..., Sender], wanted: int) -> None:
    sender = connect(SO_RCVBUF=wanted)
    for _ in range(40):
        sender.fill()
        sender.read_all()
    limit = max(wanted, 2 * SEGMENT)
    assert limit * 0.7 <= sender.window <= limit, sender.window


def test_one_byte_segments_in_sequence_cost_little_more_than_their_bytes(host: Host, connect: Callable[..., Sender]) -> None:
    sender = connect(SO_RCVBUF=4096)
    while sender.window > FIRST_WINDOW // 2:  # the pair is full: what comes now waits in the stack
        sender.send(bytes(SEGMENT))
    before, count = memory(host), min(sender.room(), 6000)
    rest = random.Random(1).randbytes(count)
    sender.send(*(rest[i : i + 1] for i in range(count)))
    assert sender.acknowledged == sender.next
    assert memory(host) - before < 4 * count + (64 << 10)
    total = sender.next - 1001
    received = b""
    sender.sock.p.setblocking(False)
    while len(received) < total:
        host.reactor.turn(host.now)
        received += sender.sock.p.recv(1 << 20)
    assert received[-count:] == rest


def test_one_byte_segments_out_of_sequence_are_bounded(host: Host, connect: Callable[..., Sender]) -> None:
    sender = connect()
    before = memory(host)
    sender.give([sender.frame(sender.next + 1 + 2 * i, b"x") for i in range(4000)])
    assert host.stacks[0].stats()["segments_refused"] > 1000
    assert memory(host) - before < 1 << 20
    assert sender.acknowledged == sender.next
    sender.send(*[bytes(1000)] * 8, b"x")  # all of it, in sequence
    assert sender.acknowledged == sender.next
    assert memory(host) - before < 1 << 17
    assert sender.read_all() == 8001


def test_what_is_long_but_overlaps_is_counted_with_its_true_size(host: Host, connect: Callable[..., Sender]) -> None:
    """Each of these adds one byte to what waits, and keeps the memory of a whole segment unless it is bounded."""
    sender = connect()
    while sender.window < LARGEST_WINDOW * 0.9:
        sender.fill()
        sender.read_all()
    before = memory(host)
    sender.give([sender.frame(sender.next + 2 + i, bytes(2600)) for i in range(3000)])
    assert memory(host) - before < 5 << 20
    sender.send(b"ab")
    sender.read_all()
