"""Ethernet ends: the engine's, with its rings, and the memory end that tests use; push-back both ways."""

from __future__ import annotations

import gc

import pytest

from netcon.dataplane import reactor as dataplane

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def frame(payload: bytes) -> bytes:
    return A + B + b"\x08\x00" + payload


def numbered(count: int, size: int = 4) -> list[bytes]:
    return [frame(i.to_bytes(4, "big").ljust(size, b".")) for i in range(count)]


def engine_and_memory(reactor, number=7):
    engine, memory = dataplane.EngineEnd(reactor, number), dataplane.MemoryEnd(reactor)
    dataplane.connect(reactor, engine.capsule(), memory.capsule())
    return engine, memory


def test_frames_of_every_size_go_up_in_order(host):
    reactor = host.reactor()
    engine, memory = engine_and_memory(reactor)
    assert engine.number == 7
    payloads = [bytes([i]) * size for i, size in enumerate((0, 1, 17, 18, 19, 46, 1500, 2800, 9000, 10_000))]
    assert memory.give([frame(payload) for payload in payloads]) == len(payloads)
    assert host.is_readable(reactor)
    assert reactor.receive() == ([], [(7, A, B, 0x0800, payload) for payload in payloads])
    assert not host.is_readable(reactor)


def test_frames_of_every_size_go_down_in_order(host):
    reactor = host.reactor()
    _, memory = engine_and_memory(reactor)
    payloads = [bytes([i]) * size for i, size in enumerate((0, 1, 17, 18, 19, 46, 1500, 2800, 9000, 10_000))]
    assert reactor.send_frames([(7, A, B, 0x86DD, payload) for payload in payloads]) == len(payloads)
    reactor.turn(0)
    assert memory.take() == [A + B + b"\x86\xdd" + payload for payload in payloads]


def test_a_full_up_ring_takes_fewer_and_resumes_the_peer(host):
    reactor = host.reactor(ring=16)
    _, memory = engine_and_memory(reactor)
    frames = numbered(40)
    assert memory.give(frames) == 16
    assert memory.give(frames[16:]) == 0
    got = reactor.receive(4)[1]
    reactor.turn(0)
    assert memory.resumed == 0  # not for a quarter of the ring
    got += reactor.receive(4)[1]
    reactor.turn(0)
    assert memory.resumed == 1
    assert memory.give(frames[16:]) == 8
    while len(got) < 40:
        more = reactor.receive()[1]
        got += more
        reactor.turn(0)
        memory.give(frames[len(got) :])
    assert [int.from_bytes(payload, "big") for *_, payload in got] == list(range(40))


def test_a_peer_without_room_fills_the_down_ring_and_nothing_is_lost(host):
    reactor = host.reactor(ring=16)
    _, memory = engine_and_memory(reactor)
    memory.set_room(3)
    queued = [(7, A, B, 0x0800, i.to_bytes(4, "big")) for i in range(100)]
    got: list[bytes] = []
    sent = reactor.send_frames(queued)
    assert sent == 16
    reactor.turn(0)
    sent += reactor.send_frames(queued[sent:])
    assert sent == 19  # three with the peer, sixteen in the ring
    assert not host.is_readable(reactor)
    while len(got) < 100:
        taken = memory.take()
        assert len(taken) <= 3
        got += taken
        reactor.turn(0)
        if host.is_readable(reactor):
            reactor.receive()
            sent += reactor.send_frames(queued[sent:])
            reactor.turn(0)
    assert [int.from_bytes(data[14:], "big") for data in got] == list(range(100))


def test_an_end_that_is_stuck_stops_no_other(host):
    reactor = host.reactor(ring=16)
    stuck_end, stuck = engine_and_memory(reactor, 1)
    free_end, free = engine_and_memory(reactor, 2)
    stuck.set_room(0)
    assert reactor.send_frames([(1, A, B, 1, b"stuck")] * 20) == 16
    assert reactor.send_frames([(2, A, B, 1, b"free")] * 16) == 16
    reactor.turn(0)
    assert len(free.take()) == 16
    assert stuck.take() == []
    assert (stuck_end.number, free_end.number) == (1, 2)


def test_malformed_frames_are_taken_and_counted(host):
    reactor = host.reactor()
    _, memory = engine_and_memory(reactor)
    assert memory.give([b"", bytes(13), frame(b"good"), bytes(10_101)]) == 4
    assert [payload for *_, payload in reactor.receive()[1]] == [b"good"]
    assert reactor.stats()["bad_frames"] == 3


def test_frames_for_no_end_and_for_a_detached_end_are_counted(host):
    reactor = host.reactor()
    engine, memory = engine_and_memory(reactor)
    a, b = engine.capsule(), memory.capsule()
    assert reactor.send_frames([(99, A, B, 1, b"")]) == 1
    assert reactor.stats()["frames_without_port"] == 1
    dataplane.disconnect(reactor, b, a)
    assert reactor.send_frames([(7, A, B, 1, b"")]) == 1
    reactor.turn(0)
    assert memory.take() == []
    assert reactor.stats()["frames_detached"] == 1
    dataplane.connect(reactor, a, b)
    reactor.send_frames([(7, A, B, 1, b"again")])
    reactor.turn(0)
    assert len(memory.take()) == 1


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ((7, A[:5], B, 1, b""), ValueError),
        ((7, A, None, 1, b""), TypeError),
        ((7, A, B, 65_536, b""), OverflowError),
        ((7, A, B, 1, bytes(10_087)), ValueError),
        ((7, A, B, 1, "text"), TypeError),
    ],
)
def test_a_wrong_frame_is_an_error(host, entry, error):
    reactor = host.reactor()
    _, memory = engine_and_memory(reactor)
    with pytest.raises(error):
        reactor.send_frames([(7, A, B, 1, b"good"), entry])
    reactor.turn(0)
    assert len(memory.take()) == 1


def test_connecting_what_is_connected_and_disconnecting_what_is_not_are_errors(host):
    reactor = host.reactor()
    engine, memory = engine_and_memory(reactor)
    other = dataplane.MemoryEnd(reactor)
    with pytest.raises(ValueError, match="already"):
        dataplane.connect(reactor, other.capsule(), memory.capsule())
    with pytest.raises(ValueError, match="not connected"):
        dataplane.disconnect(reactor, other.capsule(), engine.capsule())
    with pytest.raises(ValueError, match="itself"):
        dataplane.connect(reactor, other.capsule(), other.capsule())
    with pytest.raises(ValueError, match="7 already"):
        dataplane.EngineEnd(reactor, 7)


def test_connected_ends_are_kept_alive_until_the_reactor_stops(host):
    reactor = host.reactor()
    engine_and_memory(reactor)
    gc.collect()
    assert dataplane.live_objects()["engine_ends"] == dataplane.live_objects()["memory_ends"] == 1
    reactor.stop()
    assert dataplane.live_objects()["engine_ends"] == dataplane.live_objects()["memory_ends"] == 0


def test_frames_through_a_thread_both_ways(host):
    """Python on one side, the reactor thread on the other, sleeping on descriptors only."""
    reactor = host.reactor(manual=False, ring=32)
    one, two = dataplane.EngineEnd(reactor, 1), dataplane.EngineEnd(reactor, 2)
    dataplane.connect(reactor, one.capsule(), two.capsule())
    total, sent, got = 5_000, 0, []
    while len(got) < total:
        sent += reactor.send_frames([(1, A, B, 0x0800, i.to_bytes(4, "big")) for i in range(sent, min(total, sent + 64))])
        host.wait_readable(reactor)
        got += reactor.receive()[1]
    assert [(number, int.from_bytes(payload, "big")) for number, *_, payload in got] == [(2, i) for i in range(total)]
