"""Changes inputs the way parsers break: bits flipped, lengths inflated, ends cut, pieces repeated, other inputs spliced in.

Blind, but from good inputs: most of what comes out still passes the first checks. The same generator and corpus give the same
inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

#: What no input grows beyond, bytes: more than any packet, and than any configuration that is taken.
LONGEST = 16_384
_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 64) - 1)
_PUNCTUATION = b"\0\n\r =:/.,;#{}[]()\"'\\%-+0123456789abcdefx\xff"


class Mutator:
    """Inputs made of `corpus`, which has at least one entry."""

    def __init__(self, corpus: Sequence[bytes], generator: random.Random) -> None:
        self._corpus = corpus
        self._random = generator
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._flip,
            self._set_byte,
            self._set_number,
            self._set_number,
            self._cut_end,
            self._remove,
            self._repeat,
            self._splice,
            self._insert,
            self._punctuate,
            self._many_digits,
        )

    def next(self) -> bytes:
        """One entry with one to five changes."""
        data = bytearray(self._random.choice(self._corpus))
        for _ in range(1 + min(self._random.getrandbits(2), self._random.getrandbits(3))):
            self._random.choice(self._ways)(data)
        return bytes(data[:LONGEST])

    def _at(self, data: bytearray) -> int:
        return self._random.randrange(len(data) + 1)

    def _span(self, data: bytearray) -> slice:
        start = self._at(data)
        return slice(start, min(len(data), start + self._random.choice((1, 2, 4, 8, 16, 64, 512))))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _set_byte(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] = self._random.getrandbits(8)

    def _set_number(self, data: bytearray) -> None:
        """A number in either byte order, at any place: lengths and counts are there."""
        size = self._random.choice((1, 2, 2, 4, 8))
        number = self._random.choice(_INTERESTING) & ((1 << 8 * size) - 1)
        at = self._at(data)
        if self._random.getrandbits(1):
            number = (int.from_bytes(data[at : at + size]) + self._random.randint(-16, 16)) & ((1 << 8 * size) - 1)
        data[at : at + size] = number.to_bytes(size, self._random.choice(("big", "little")))

    def _cut_end(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _remove(self, data: bytearray) -> None:
        del data[self._span(data)]

    def _repeat(self, data: bytearray) -> None:
        piece = data[self._span(data)] * self._random.choice((1, 2, 7, 40))
        at = self._at(data)
        data[at:at] = piece[:LONGEST]

    def _splice(self, data: bytearray) -> None:
        other = bytearray(self._random.choice(self._corpus))
        data[self._at(data) :] = other[self._at(other) :]

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._random.randbytes(self._random.choice((1, 2, 5, 30)))

    def _punctuate(self, data: bytearray) -> None:
        at = self._at(data)
        data[at : at + self._random.getrandbits(1)] = bytes((self._random.choice(_PUNCTUATION),))

    def _many_digits(self, data: bytearray) -> None:
        """A number longer than machines have, and than Python reads (4,300 digits)."""
        at = self._at(data)
        data[at:at] = self._random.choice((b"9", b"0", "\u0665".encode())) * self._random.choice((6, 21, 5000))
