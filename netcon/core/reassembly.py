"""Putting fragmented packets together (vl1 §3.4).

Pieces carry neither source nor MAC, so anybody can send some: the table is bounded, in total and per path, and entries die
after five seconds. Authentication happens on the whole packet.
"""

from __future__ import annotations

from netcon.core.packet import MAX_PACKET
from netcon.core.path import Path

#: Life of an incomplete packet, ms (vl1 §3.4).
LIFETIME_MS = 5_000
#: Incomplete packets kept. The reference has 32 slots for everything; frames of many peers arrive interleaved here.
SLOTS = 256
#: Incomplete packets one path may have pending, so that a flood from one place does not evict the others' (vl1 §9).
SLOTS_PER_PATH = 64


class _Partial:
    __slots__ = ("hops", "path", "pieces", "since", "total")

    def __init__(self, path: Path, since: int) -> None:
        self.path = path  # of the head, or of the first piece until the head is here
        self.since = since
        self.total = 0  # unknown until a piece arrives
        self.hops = 0
        self.pieces: dict[int, bytes] = {}


class Reassembler:
    """Collects pieces by packet id. `head` and `piece` return (packet, path of the head) once one is complete."""

    def __init__(self) -> None:
        self._partials: dict[bytes, _Partial] = {}  # in order of arrival

    def __len__(self) -> int:
        return len(self._partials)

    def head(self, packet: bytes, path: Path, now: int) -> tuple[bytes, Path] | None:
        """Add piece 0: a datagram with the flag 0x40 and an ordinary header."""
        key = packet[:8]
        partial = self._partials.get(key)
        if partial is None or now - partial.since >= LIFETIME_MS:
            partial = self._begin(key, path, now)
        if 0 in partial.pieces:
            return None
        partial.pieces[0] = packet
        if partial.path is not path:
            partial.path.incomplete -= 1
            path.incomplete += 1
            partial.path = path
        return self._complete(key, partial)

    def piece(self, data: bytes, path: Path, now: int) -> tuple[bytes, Path] | None:
        """Add a fragment datagram (vl1 §3.2): at least 17 bytes, byte 13 is 0xff."""
        total, number = data[14] >> 4, data[14] & 0x0F
        if not (2 <= total <= 7 and 1 <= number <= 6):
            return None
        key = data[:8]
        partial = self._partials.get(key)
        if partial is None or now - partial.since >= LIFETIME_MS:
            partial = self._begin(key, path, now)
        if number in partial.pieces:
            return None
        partial.pieces[number] = data[16:]
        partial.total = total
        return self._complete(key, partial)

    def _begin(self, key: bytes, path: Path, now: int) -> _Partial:
        """A new entry; an old one of the same id goes, and another one if there are too many."""
        if key in self._partials:
            self._drop(key)
        if path.incomplete >= SLOTS_PER_PATH:
            self._drop(next(k for k, p in self._partials.items() if p.path is path))
        elif len(self._partials) >= SLOTS:
            self._drop(next(iter(self._partials)))
        partial = self._partials[key] = _Partial(path, now)
        path.incomplete += 1
        return partial

    def _complete(self, key: bytes, partial: _Partial) -> tuple[bytes, Path] | None:
        pieces = partial.pieces
        total = partial.total
        if len(pieces) != total or 0 not in pieces:
            return None
        self._drop(key)
        try:
            packet = b"".join([pieces[number] for number in range(total)])
        except KeyError:
            return None  # a number beyond the total
        if len(packet) > MAX_PACKET:
            return None
        return packet, partial.path

    def _drop(self, key: bytes) -> None:
        self._partials.pop(key).path.incomplete -= 1

    def expire(self, now: int) -> None:
        """Drop what is incomplete for five seconds."""
        old = [key for key, partial in self._partials.items() if now - partial.since >= LIFETIME_MS]
        for key in old:
            self._drop(key)
