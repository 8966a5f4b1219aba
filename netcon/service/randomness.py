"""The random bytes of one service, which the engine is given as it is given the time."""

from __future__ import annotations

import os


class Randomness:
    """The kernel's random bytes, read ahead: one system call for each packet's eight would be a tenth of the time."""

    _AHEAD = 4096

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def __call__(self, count: int) -> bytes:
        start = self._used
        if start + count > len(self._bytes):
            self._bytes, start = os.urandom(max(self._AHEAD, count)), 0
        self._used = start + count
        return self._bytes[start : self._used]
