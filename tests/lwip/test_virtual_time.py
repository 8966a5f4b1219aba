"""TCP over bad links, in virtual time: two stacks, an impairment between them, a seed. Every byte arrives, in order.

Minutes of virtual time take milliseconds, and everything is bit-identical for a seed.
"""

import random
from collections.abc import Callable

import pytest

import lwip
from netcon.dataplane.reactor import Impairment, connect
from tests.lwip.wire import Lab, Wire

MEGABYTE = 1_000_000


class Conversation:
    """A client and a server on two stacks, a link with impairments between them."""

    def __init__(self, lab: Lab, *, seed: int = 0, ip: str = "10.1.0.2", **link: float) -> None:
        self.lab = lab
        self.a = lab.stack(1, "10.1.0.1/24", "fd00::1/64", seed=seed)
        self.b = lab.stack(2, "10.1.0.2/24", "fd00::2/64", seed=seed + 1000)
        self.link = Impairment(lab.reactor, seed=seed, **link)
        connect(lab.reactor, self.a.ethernet_end(), self.link.left())
        connect(lab.reactor, self.link.right(), self.b.ethernet_end())
        self.client, self.server = lwip.Probe(self.a, seed=seed), lwip.Probe(self.b, seed=seed)
        self.server.listen(80)
        self.client.connect(ip, 80)

    def transfer(self, there: int, back: int, seconds: float) -> float:
        """Both ways at once, then both ends; the virtual seconds it took."""
        start = self.lab.now
        self.client.send(there)
        self.server.send(back)
        self.client.finish()
        self.server.finish()
        done = self.lab.run(seconds, lambda: self.client.state()["eof"] and self.server.state()["eof"])
        self.verify(there, back)
        assert done
        return (self.lab.now - start) / 1e6

    def verify(self, there: int, back: int) -> None:
        for end, expected in ((self.server, there), (self.client, back)):
            state = end.state()
            assert (state["error"], state["bad_at"], state["received"]) == (0, None, expected)

    def blackout(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Nothing gets through."""
        self.link.set(loss=1.0)
        ended = self.lab.run(seconds, until)
        self.link.set(loss=0.0)
        return ended


LINKS: dict[str, dict[str, float]] = {
    "clean": {"delay_us": 500},
    "long": {"delay_us": 100_000},
    "lossy": {"delay_us": 2_000, "loss": 0.03},
    "very lossy": {"delay_us": 2_000, "loss": 0.15},
    "reordering": {"delay_us": 3_000, "jitter_us": 3_000, "reorder": 0.2},
    "duplicating": {"delay_us": 1_000, "duplicate": 0.2},
    "narrow": {"delay_us": 5_000, "rate_bps": 8_000_000, "queue_bytes": 60_000},
    "everything": {"delay_us": 5_000, "jitter_us": 4_000, "loss": 0.03, "duplicate": 0.05, "reorder": 0.1},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("link", LINKS)
def test_every_byte_arrives_in_order(lab: Lab, link: str, seed: int) -> None:
    ip = "fd00::2" if seed % 2 else "10.1.0.2"
    Conversation(lab, seed=seed, ip=ip, **LINKS[link]).transfer(2 * MEGABYTE, MEGABYTE, seconds=900)


@pytest.mark.parametrize("seed", range(4))
def test_a_blackout_of_five_minutes_in_the_middle(lab: Lab, seed: int) -> None:
    talk = Conversation(lab, seed=seed, **LINKS["everything"])
    talk.client.send(4 * MEGABYTE)
    talk.server.send(2 * MEGABYTE)
    assert lab.run(300, lambda: talk.server.state()["received"] > MEGABYTE)
    talk.blackout(300)
    talk.client.finish()
    talk.server.finish()
    assert lab.run(300, lambda: talk.client.state()["eof"] and talk.server.state()["eof"])
    talk.verify(4 * MEGABYTE, 2 * MEGABYTE)


@pytest.mark.parametrize("delay_us", [50, 2_000, 200_000])
def test_fifteen_minutes_of_silence_are_survived(lab: Lab, delay_us: int) -> None:
    talk = Conversation(lab, delay_us=delay_us)
    talk.client.send(MEGABYTE)
    assert lab.run(60, lambda: talk.server.state()["received"] > 200_000)
    talk.blackout(900)
    assert lab.run(200, lambda: talk.server.state()["received"] == MEGABYTE)
    talk.verify(MEGABYTE, 0)


@pytest.mark.parametrize("delay_us", [50, 200_000])
def test_silence_without_end_ends_the_connection(lab: Lab, delay_us: int) -> None:
    talk = Conversation(lab, delay_us=delay_us)
    talk.client.send(MEGABYTE)
    assert lab.run(60, lambda: talk.server.state()["received"] > 200_000)
    start = lab.now
    assert talk.blackout(3600, lambda: talk.client.state()["error"] != 0)
    assert 900 < (lab.now - start) / 1e6 < 1800  # as Linux: tcp(7), tcp_retries2


def test_an_end_in_flight_survives_a_blackout(lab: Lab) -> None:
    # The client has closed, the server then closes with data in flight (LAST-ACK), then nothing gets through.
    talk = Conversation(lab, delay_us=10_000)
    talk.client.finish()
    assert lab.run(10, lambda: talk.server.state()["eof"])
    talk.server.send(MEGABYTE // 4)
    talk.server.finish()
    talk.blackout(300)
    assert lab.run(200, lambda: talk.client.state()["eof"])
    talk.verify(0, MEGABYTE // 4)


def test_retransmissions_back_off(lab: Lab) -> None:
    talk = Conversation(lab, delay_us=1_000)
    assert lab.run(10, lambda: talk.server.state()["connected"])
    lab.run(1)
    talk.link.set(loss=1.0)
    talk.client.send(1000)
    lab.run(300)
    before, runs = talk.a.stats()["frames_out"], talk.a.stats()["timer_runs"]
    lab.run(600)
    assert 3 <= talk.a.stats()["frames_out"] - before <= 30  # every 120 s, for each of which ARP asks five times
    assert talk.a.stats()["timer_runs"] - runs < 700  # nor does it tick in between (once a second, while neighbours are sought)


def test_a_reader_that_stops_for_twenty_minutes(lab: Lab) -> None:
    talk = Conversation(lab, delay_us=1_000)
    talk.server.pause(True)
    talk.client.send(5 * MEGABYTE)
    lab.run(10)
    stopped_at = talk.server.state()["received"]
    assert (2 << 20) - 64 <= stopped_at <= 2 << 20  # the window, in units of its scale
    lab.run(1200)
    assert talk.server.state()["received"] <= stopped_at + 1024  # probes
    assert talk.client.state()["open"]
    talk.server.pause(False)
    assert lab.run(30, lambda: talk.server.state()["received"] == 5 * MEGABYTE)
    talk.verify(5 * MEGABYTE, 0)


def test_the_window_update_may_be_lost(lab: Lab) -> None:
    talk = Conversation(lab, delay_us=1_000)
    talk.server.pause(True)
    talk.client.send(3 * MEGABYTE)
    lab.run(10)
    talk.link.set(loss=1.0)
    talk.server.pause(False)
    lab.run(600)
    talk.link.set(loss=0.0)
    assert lab.run(200, lambda: talk.server.state()["received"] == 3 * MEGABYTE)
    talk.verify(3 * MEGABYTE, 0)


def test_a_connection_to_nobody_gives_up_as_linux_does(lab: Lab) -> None:
    talk = Conversation(lab, delay_us=1_000)  # so that the neighbour is known
    assert lab.run(1, lambda: talk.client.state()["connected"])
    late, start = lwip.Probe(talk.a), lab.now
    talk.link.set(loss=1.0)
    late.connect("10.1.0.2", 80)
    assert lab.run(600, lambda: late.state()["error"] != 0)
    assert 126 < (lab.now - start) / 1e6 < 129  # 1 + 2 + ... + 64 s


@pytest.mark.parametrize("ip", ["10.1.0.77", "fd00::77", "10.99.0.1"])
def test_a_neighbour_that_does_not_answer_is_told_soon(lab: Lab, ip: str) -> None:
    talk = Conversation(lab, delay_us=1_000)
    talk.a.set_routes([("10.99.0.0/16", "10.1.0.254")])
    late, start = lwip.Probe(talk.a), lab.now
    late.connect(ip, 80)
    assert lab.run(60, lambda: late.state()["error"] == -4)  # ERR_RTE
    assert 2.5 < (lab.now - start) / 1e6 < 6
    talk.transfer(MEGABYTE, 0, seconds=60)


def test_a_connection_meets_a_link_that_comes_up_late(lab: Lab) -> None:
    talk = Conversation(lab, delay_us=1_000)
    lab.run(1)
    talk.link.set(loss=1.0)
    talk.client.abort()
    talk.client = lwip.Probe(talk.a)
    talk.server.close()
    talk.server = lwip.Probe(talk.b)
    talk.server.listen(81)
    talk.client.connect("10.1.0.2", 81)
    lab.run(20)
    talk.link.set(loss=0.0)
    assert lab.run(15, lambda: talk.client.state()["connected"])
    talk.transfer(MEGABYTE, MEGABYTE, seconds=60)


def test_the_same_seed_is_the_same_conversation_and_another_is_not() -> None:
    def record(seed: int) -> tuple[float, list[dict[str, int]]]:
        lab = Lab()
        try:
            talk = Conversation(lab, seed=seed, **LINKS["everything"])
            took = talk.transfer(MEGABYTE, MEGABYTE, seconds=600)
            return took, [talk.a.stats(), talk.b.stats()]
        finally:
            lab.close()

    assert record(1) == record(1)
    assert record(1) != record(2)


@pytest.mark.parametrize("seed", range(2))
def test_corrupted_frames_are_found_and_sent_again(lab: Lab, seed: int) -> None:
    generator = random.Random(seed)
    a, b = lab.stack(1, "10.1.0.1/24", "fd00::1/64"), lab.stack(2, "10.1.0.2/24", "fd00::2/64")
    left, right = Wire(a), Wire(b)
    client, server = lwip.Probe(a, seed=seed), lwip.Probe(b, seed=seed)
    server.listen(80)
    client.connect("fd00::2" if seed else "10.1.0.2", 80)
    client.send(MEGABYTE)

    def damaged(frame: bytes) -> bytes:
        if generator.random() >= 0.03 or frame[0] & 1:
            return frame
        at = generator.randrange(14, len(frame))
        return frame[:at] + bytes([frame[at] ^ (1 << generator.randrange(8))]) + frame[at + 1 :]

    def carry() -> bool:
        there, back = left.take(), right.take()
        if there:
            right.give(*map(damaged, there))
        if back:
            left.give(*map(damaged, back))
        return server.state()["received"] == MEGABYTE

    assert any(lab.run(0.001, carry) for _ in range(120_000))
    assert server.state()["bad_at"] is None
    assert a.stats()["checksum_errors"] + b.stats()["checksum_errors"] > 0
    assert (a.failed, b.failed) == (None, None)
