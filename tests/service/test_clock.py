"""The clock that the engine keeps its timers by."""

from __future__ import annotations

import time

from netcon.service.clock import Clock


def test_a_wall_clock_that_is_set_moves_nothing() -> None:
    wall, steady = [1_700_000_000_000_000_000], [5_000_000_000]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    assert clock() == 1_700_000_000_000
    wall[0] -= 3_600_000_000_000
    steady[0] += 250_000_000
    assert clock() == 1_700_000_000_250


def test_it_starts_with_the_time_of_day() -> None:
    before = time.time_ns() // 1_000_000
    now = Clock()()
    assert before - 1 <= now <= time.time_ns() // 1_000_000 + 1
