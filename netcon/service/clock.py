"""The time of one service: ms since the Unix epoch, and never back.

The engine keeps its timers by it, so it must not follow a wall clock that is set: set back by an hour, that would stall every timer
for an hour. It is the wall clock of the start, carried on by the kernel's clock that also counts while the machine is suspended
(CLOCK_BOOTTIME, clock_gettime(2)). A wall clock that was wrong at the start counts as corrected from the next start on.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Clock:
    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = _since_boot_ns) -> None:
        self._steady_ns = steady_ns
        self._epoch_ns = wall_ns() - steady_ns()

    def __call__(self) -> int:
        """Milliseconds since the Unix epoch."""
        return (self._epoch_ns + self._steady_ns()) // 1_000_000
