"""The engine's source of random bytes."""

from __future__ import annotations

from netcon.service.randomness import Randomness


def test_no_byte_is_given_twice() -> None:
    random = Randomness()
    taken = [random(8) for _ in range(5000)]
    assert all(len(part) == 8 for part in taken)
    assert len(set(taken)) == 5000


def test_any_number_of_bytes() -> None:
    random = Randomness()
    assert [len(random(count)) for count in (0, 1, 4095, 4096, 4097, 100_000, 3)] == [0, 1, 4095, 4096, 4097, 100_000, 3]
