"""Captures of what passes an engine end: the file, the filter, limits, slow readers and readers that go."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from netcon.dataplane import reactor as dataplane
from tests.pcapng import INBOUND, OUTBOUND, parse

PORT_MAC, PEER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


class Link:
    """Engine end -- memory end on a manual reactor, and the read end of a pipe."""

    def __init__(self, reactor, **parameters) -> None:
        self.reactor = reactor
        self.engine, self.port = dataplane.EngineEnd(reactor, 1), dataplane.MemoryEnd(reactor)
        dataplane.connect(reactor, self.engine.capsule(), self.port.capsule())
        self.now = 0
        self.capture, self.read_end = self.start(**parameters)

    def start(self, **parameters):
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            return dataplane.Capture(self.engine, write_end, **parameters), read_end
        finally:
            os.close(write_end)

    def turn(self) -> None:
        self.now += 1000
        self.reactor.turn(self.now)

    def send(self, *frames: bytes) -> int:
        """From the port."""
        taken = self.port.give(list(frames))
        self.turn()
        return taken

    def receive(self, *frames: bytes) -> None:
        """To the port."""
        batch = [(1, frame[:6], frame[6:12], int.from_bytes(frame[12:14], "big"), frame[14:]) for frame in frames]
        assert self.reactor.send_frames(batch) == len(frames)
        self.turn()

    def read(self) -> bytes:
        """What is there now."""
        data = b""
        try:
            while part := os.read(self.read_end, 1 << 16):
                data += part
                self.turn()
        except BlockingIOError:
            pass
        return data

    def rest(self):
        """The whole file, when the capture is finished."""
        self.capture.finish()
        data = self.read()
        assert self.capture.stats()["ended"]
        self.close()
        return parse(data)

    def close(self) -> None:
        os.close(self.read_end)


@pytest.fixture
def link(host):
    return lambda **parameters: Link(host.reactor(), **parameters)


def frame(payload: bytes = b"", ethertype: int = 0x9000) -> bytes:
    return PEER_MAC + PORT_MAC + ethertype.to_bytes(2, "big") + payload


def numbered(number: int, size: int = 60) -> bytes:
    return frame(number.to_bytes(4, "big").ljust(size, b"\xaa"))


def ip(source: str, destination: str, protocol: int, payload: bytes, offset: int = 0) -> bytes:
    one, other = ip_address(source).packed, ip_address(destination).packed
    if len(one) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, offset, 64, protocol, 0)
        return frame(head + one + other + payload, 0x0800)
    return frame(struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + one + other + payload, 0x86DD)


def ports(source: int, destination: int) -> bytes:
    return struct.pack(">HH", source, destination) + bytes(16)


def test_frames_of_both_directions_in_their_order(link) -> None:
    made = link(interface="ztabcdefgh", application="netcon test")
    before = time.time_ns()
    made.send(numbered(1), numbered(2, size=61))
    made.receive(numbered(3, size=62))
    made.send(numbered(4))
    after = time.time_ns()
    assert len(made.port.take()) == 1
    assert len(made.reactor.receive()[1]) == 3, "capturing changes nothing for the frames"
    capture = made.rest()
    assert (capture.application, capture.interface, capture.snaplen) == ("netcon test", "ztabcdefgh", 262144)
    assert capture.frames == [numbered(1), numbered(2, size=61), numbered(3, size=62), numbered(4)]
    assert [packet.direction for packet in capture.packets] == [OUTBOUND, OUTBOUND, INBOUND, OUTBOUND]
    times = [packet.time_ns for packet in capture.packets]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    assert capture.statistics == {4: 4, 6: 4, 7: 0, 8: 4}


def test_the_head_of_the_file_comes_before_any_frame(link) -> None:
    made = link()
    made.turn()
    assert parse(made.read()).packets == []
    made.close()


def test_what_is_refused_and_offered_again_is_captured_once(link) -> None:
    made = link()
    made.port.set_room(2)
    made.receive(*[numbered(number) for number in range(10)])
    made.receive(*[numbered(number) for number in range(10, 12)])
    got: list[bytes] = []
    while len(got) < 12:
        got += made.port.take()
        made.turn()
    assert got == [numbered(number) for number in range(12)]
    assert made.rest().frames == got


def test_what_the_full_ring_refuses_is_captured_when_it_is_taken(host) -> None:
    made = Link(host.reactor(ring=8))
    frames = [numbered(number) for number in range(20)]
    taken = made.send(*frames)
    assert taken < 20
    while taken < 20:
        made.reactor.receive()
        made.turn()
        taken += made.send(*frames[taken:])
    assert made.rest().frames == frames


def test_snaplen_cuts_and_the_length_is_told(link) -> None:
    made = link(snaplen=33)
    made.send(numbered(1, size=500), frame(b"x"))
    capture = made.rest()
    assert [(len(packet.data), packet.length) for packet in capture.packets] == [(33, 514), (15, 15)]


ARP = frame(struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + PORT_MAC + bytes([10, 0, 0, 1]) + bytes(6) + bytes([10, 0, 0, 2]), 0x0806)
TCP4 = ip("10.0.0.1", "10.0.0.2", 6, ports(40000, 80))
UDP4 = ip("10.0.0.2", "10.0.0.3", 17, ports(53, 40000))
LATER4 = ip("10.0.0.1", "10.0.0.2", 17, ports(80, 80), offset=100)
PING4 = ip("10.0.0.1", "10.0.0.2", 1, ports(80, 80))
TCP6 = ip("fd00::1", "fd00::2", 6, ports(80, 40000))
HOPS6 = ip("fd00::1", "fd00::2", 0, bytes([17, 0, 0, 0, 0, 0, 0, 0]) + ports(80, 53))
LATER6 = ip("fd00::1", "fd00::2", 44, bytes([17, 0, 1, 0, 0, 0, 0, 0]) + ports(80, 53))
OTHER = frame(b"\0\x50" * 30)
SHORT = frame(b"\x45", 0x0800)
ALL = {
    "ARP": ARP,
    "TCP4": TCP4,
    "UDP4": UDP4,
    "LATER4": LATER4,
    "PING4": PING4,
    "TCP6": TCP6,
    "HOPS6": HOPS6,
    "LATER6": LATER6,
    "OTHER": OTHER,
    "SHORT": SHORT,
}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, " ".join(ALL)),
        ({"ethertype": 0x0806}, "ARP"),
        ({"ethertype": 0x86DD}, "TCP6 HOPS6 LATER6"),
        ({"host": bytes([10, 0, 0, 1])}, "ARP TCP4 LATER4 PING4"),
        ({"host": bytes([10, 0, 0, 3])}, "UDP4"),
        ({"host": ip_address("fd00::2").packed}, "TCP6 HOPS6 LATER6"),
        ({"port": 80}, "TCP4 TCP6 HOPS6"),
        ({"port": 53}, "UDP4 HOPS6"),
        ({"port": 80, "host": bytes([10, 0, 0, 2])}, "TCP4"),
        ({"port": 80, "ethertype": 0x86DD}, "TCP6 HOPS6"),
        ({"port": 81}, ""),
    ],
)
def test_filters(link, wanted: dict[str, object], expected: str) -> None:
    made = link(**wanted)
    made.send(*ALL.values())
    capture = made.rest()
    assert " ".join(name for name, data in ALL.items() if data in capture.frames) == expected
    assert capture.statistics == {4: len(ALL), 6: len(capture.packets), 7: 0, 8: len(capture.packets)}


def test_it_ends_by_itself_after_so_many_frames(link) -> None:
    made = link(frames=3)
    made.send(*[numbered(number) for number in range(5)])
    capture = parse(made.read())
    assert len(capture.packets) == 3
    assert capture.statistics is not None
    assert made.capture.stats()["ended"]
    assert os.read(made.read_end, 1) == b"", "the end of the file"
    made.close()


def test_it_ends_by_itself_before_the_file_is_too_long(link) -> None:
    made = link(bytes=2000)
    made.send(*[numbered(number, size=200) for number in range(20)])
    data = made.read()
    capture = parse(data)
    assert 1000 < len(data) <= 2000
    assert [packet.data for packet in capture.packets] == [numbered(number, size=200) for number in range(len(capture.packets))]
    assert capture.statistics is not None
    made.close()


def test_a_slow_reader_loses_frames_and_is_told_how_many(link) -> None:
    made = link(buffer_bytes=100_000)
    for number in range(500):  # 500 kB: more than pipe and buffer hold
        made.send(numbered(number, size=1000))
        made.reactor.receive()
    stats = made.capture.stats()
    assert stats["dropped"] > 0
    assert stats["seen"] == 500 == stats["written"] + stats["dropped"]
    assert stats["bytes"] < 100_000 + 70_000 + 10_000, "no more than the buffer and a pipe"
    first = made.read()
    made.send(numbered(500, size=1000))
    capture = parse(first + made.read())
    assert [int.from_bytes(data[14:18], "big") for data in capture.frames] == [*range(stats["written"]), 500]
    assert [packet.dropped for packet in capture.packets] == [0] * stats["written"] + [stats["dropped"]]
    made.close()


def test_a_reader_that_goes_ends_it(link) -> None:
    made = link()
    made.send(numbered(1))
    made.close()
    made.send(numbered(2))
    assert made.capture.stats()["ended"]
    made.send(numbered(3))
    assert made.capture.stats()["seen"] == 2


def test_a_reader_that_goes_while_the_buffer_is_full_ends_it(link) -> None:
    made = link(buffer_bytes=1 << 20)
    for number in range(300):
        made.send(numbered(number, size=1000))
        made.reactor.receive()
    assert not made.capture.stats()["ended"]
    made.close()
    made.turn()
    assert made.capture.stats()["ended"]


def test_several_at_once_have_filters_and_ends_of_their_own(link) -> None:
    made = link()
    other, read_end = made.start(port=80)
    made.send(*ALL.values())
    other.finish()
    made.send(TCP4)
    with os.fdopen(read_end, "rb") as file:
        assert [packet.data for packet in parse(file.read()).packets] == [TCP4, TCP6, HOPS6]
    assert len(made.rest().packets) == len(ALL) + 1


def test_a_stream_socket_ends_though_others_have_it_too(link) -> None:
    made = link()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        capture = dataplane.Capture(made.engine, theirs.fileno())
        made.send(numbered(1))
        capture.finish()
        ours.settimeout(10)
        data = b""
        while part := ours.recv(65536):
            data += part
        assert parse(data).frames == [numbered(1)]
    made.close()


def test_closing_takes_it_away_at_once(link) -> None:
    made = link()
    made.capture.close()
    made.capture.close()
    made.send(numbered(1))
    with pytest.raises(ValueError, match="closed"):
        made.capture.stats()
    made.close()


def test_a_file_is_refused_because_it_can_block(link, tmp_path: Path) -> None:
    made = link()
    with (tmp_path / "file").open("wb") as file, pytest.raises(ValueError, match="pipe or a socket"):
        dataplane.Capture(made.engine, file.fileno())
    with pytest.raises(ValueError, match="4 or 16 bytes"):
        dataplane.Capture(made.engine, made.read_end, host=b"abc")
    made.close()


def test_it_outlives_a_reactor_that_is_stopped(host) -> None:
    made = Link(host.reactor())
    made.send(numbered(1))
    made.reactor.stop()
    capture = made.rest()
    assert capture.frames == [numbered(1)]


def test_tcpdump_reads_it(link, tmp_path: Path) -> None:
    made = link()
    made.send(ARP, TCP4, TCP6)
    made.capture.finish()
    path = tmp_path / "file.pcapng"
    path.write_bytes(made.read())
    made.close()
    command = ["tcpdump", "-n", "-tt", "--nano", "-r", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert "Request who-has 10.0.0.2 tell 10.0.0.1" in lines[0]
    assert "IP 10.0.0.1.40000 > 10.0.0.2.80" in lines[1]
    assert "IP6 fd00::1.80 > fd00::2.40000" in lines[2]
    assert abs(float(lines[0].split()[0]) - time.time()) < 3600
