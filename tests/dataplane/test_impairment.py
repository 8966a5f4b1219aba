"""The seeded bad link, on a virtual clock."""

from __future__ import annotations

import threading

import pytest

from netcon.dataplane import reactor as dataplane


class Link:
    """left -- impairment -- right, and a virtual clock."""

    def __init__(self, reactor, **parameters) -> None:
        self.reactor = reactor
        self.now = 0
        self.link = dataplane.Impairment(reactor, **parameters)
        self.left, self.right = dataplane.MemoryEnd(reactor), dataplane.MemoryEnd(reactor)
        dataplane.connect(reactor, self.left.capsule(), self.link.left())
        dataplane.connect(reactor, self.right.capsule(), self.link.right())

    def run(self, until: int) -> list[tuple[int, int]]:
        """Let time pass, from deadline to deadline; what came out on the right, as (time, frame number)."""
        trace = []
        while True:
            deadline = self.reactor.turn(self.now)
            trace += [(self.now, int.from_bytes(data[14:18], "big")) for data in self.right.take()]
            if deadline is None or deadline > until:
                self.now = until
                self.reactor.turn(until)
                return trace
            self.now = deadline

    def send(self, count: int, every_us: int = 100, size: int = 100, first: int = 0) -> list[tuple[int, int]]:
        trace = []
        for i in range(first, first + count):
            assert self.left.give([bytes(14) + i.to_bytes(4, "big") + bytes(size - 18)]) == 1
            trace += self.run(self.now + every_us)
        return trace + self.run(self.now + 10_000_000)


def numbers(trace):
    return [number for _, number in trace]


def test_a_link_without_parameters_passes_everything_at_once(host):
    link = Link(host.reactor(), seed=1)
    assert link.send(100) == [(i * 100, i) for i in range(100)]
    assert link.link.stats()["forwarded"] == 100


def test_delay_is_exact_and_jitter_is_bounded_and_keeps_order(host):
    assert Link(host.reactor(), seed=1, delay_us=25_000).send(50) == [(25_000 + i * 100, i) for i in range(50)]
    trace = Link(host.reactor(), seed=1, delay_us=25_000, jitter_us=5_000).send(500)
    assert numbers(trace) == list(range(500))
    extra = [time - 25_000 - i * 100 for time, i in trace]
    assert min(extra) >= 0
    assert max(extra) <= 5_000
    assert len(set(extra)) > 10


BAD = {"delay_us": 20_000, "jitter_us": 3_000, "loss": 0.05, "duplicate": 0.03, "reorder": 0.1, "rate_bps": 10_000_000}


def test_same_seed_same_trace_and_another_seed_another(host):
    first, same, other = (Link(host.reactor(), seed=seed, **BAD).send(1000) for seed in (42, 42, 43))
    assert first == same
    assert first != other


def test_directions_have_random_streams_of_their_own(host):
    alone, busy = Link(host.reactor(), seed=5, loss=0.3), Link(host.reactor(), seed=5, loss=0.3)
    for _ in range(50):
        busy.right.give([bytes(60)])
    assert alone.send(200) == busy.send(200)
    assert 0 < len(busy.left.take()) < 50


def test_loss_is_of_the_rate_asked_for(host):
    link = Link(host.reactor(), seed=3, loss=0.1)
    arrived = len(link.send(5000))
    assert 4350 < arrived < 4650  # 7 standard deviations
    assert link.link.stats()["lost"] == 5000 - arrived


def test_changing_one_parameter_changes_nothing_else(host):
    """The same frames are lost whether there is jitter, duplication and reordering or not."""
    plain = Link(host.reactor(), seed=9, loss=0.2).send(500)
    busy = Link(host.reactor(), seed=9, loss=0.2, jitter_us=1000, duplicate=0.5, reorder=0.5).send(500)
    assert set(numbers(plain)) == set(numbers(busy))


def test_reordering_loses_nothing_and_reorders(host):
    link = Link(host.reactor(), seed=3, delay_us=1000, reorder=0.2)
    trace = numbers(link.send(1000))
    assert sorted(trace) == list(range(1000))
    assert trace != sorted(trace)
    assert 100 < link.link.stats()["reordered"] < 300


def test_duplicates_come_out_twice(host):
    link = Link(host.reactor(), seed=3, duplicate=0.1)
    trace = numbers(link.send(1000))
    assert set(trace) == set(range(1000))
    assert len(trace) == 1000 + link.link.stats()["duplicated"]
    assert 50 < link.link.stats()["duplicated"] < 150


def test_a_bottleneck_spaces_frames_and_loses_what_its_queue_does_not_hold(host):
    link = Link(host.reactor(), seed=1, rate_bps=8_000_000, queue_bytes=10_000)  # a byte a microsecond
    assert link.left.give([bytes(14) + i.to_bytes(4, "big") + bytes(982) for i in range(20)]) == 20
    assert link.run(1_000_000) == [(1000 * (i + 1), i) for i in range(10)]
    assert link.link.stats()["overflowed"] == 10


def test_a_rate_that_does_not_divide_a_microsecond_is_kept_exactly(host):
    link = Link(host.reactor(), seed=1, rate_bps=7_777_777)
    assert link.left.give([bytes(14) + i.to_bytes(4, "big") + bytes(982) for i in range(1000)]) == 1000
    assert link.run(10_000_000)[-1] == (1000 * 8000 * 1_000_000 // 7_777_777, 999)


def test_a_blackout_and_its_end_by_set(host):
    link = Link(host.reactor(), seed=1, delay_us=10)
    assert len(link.send(10)) == 10
    link.link.set(loss=1.0)
    assert link.send(100, first=10) == []
    link.link.set(loss=0)
    assert numbers(link.send(10, first=110)) == list(range(110, 120))


def test_push_back_passes_through_the_link(host):
    link = Link(host.reactor(), seed=1, queue_bytes=1000)
    link.right.set_room(2)
    frames = [bytes(14) + i.to_bytes(4, "big") + bytes(82) for i in range(40)]
    given = link.left.give(frames[:5])
    link.reactor.turn(0)
    given += link.left.give(frames[given:])
    assert given == 12  # two with the peer, ten in the queue
    assert link.left.resumed == 0
    got = numbers(link.run(1))
    assert got == [0, 1, *range(2, len(got))]
    while len(got) < 40:
        given += link.left.give(frames[given:])
        got += numbers(link.run(link.now + 1))
    assert got == list(range(40))
    assert link.left.resumed > 0


def test_a_detached_side_loses_and_counts(host):
    reactor = host.reactor()
    link = dataplane.Impairment(reactor, seed=1)
    left = dataplane.MemoryEnd(reactor)
    dataplane.connect(reactor, left.capsule(), link.left())
    left.give([bytes(60)] * 3)
    reactor.turn(0)
    assert link.stats()["detached"] == 3


def test_it_works_on_the_threads_clock(host):
    reactor = host.reactor(manual=False)
    link = dataplane.Impairment(reactor, seed=1, delay_us=2000)
    left, engine = dataplane.MemoryEnd(reactor), dataplane.EngineEnd(reactor, 1)
    dataplane.connect(reactor, left.capsule(), link.left())
    dataplane.connect(reactor, engine.capsule(), link.right())
    assert left.give([bytes(60)]) == 1
    host.wait_readable(reactor)
    assert len(reactor.receive()[1]) == 1
    assert threading.active_count() == 1


@pytest.mark.parametrize("wrong", [{"loss": 1.5}, {"delay_us": -1}, {"reorder": -0.1}, {"jitter_us": 1 << 32}])
def test_impossible_parameters_are_refused(host, wrong):
    reactor = host.reactor()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataplane.Impairment(reactor, seed=1, **wrong)
    link = dataplane.Impairment(reactor, seed=1)
    with pytest.raises(ValueError):
        link.set(**wrong)
    with pytest.raises(TypeError, match="unknown parameters: lag"):
        link.set(lag=1)
