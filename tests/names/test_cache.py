"""Kept answers."""

from __future__ import annotations

from netcon.names.cache import LONGEST, Cache


def test_an_answer_is_kept_for_its_time() -> None:
    cache: Cache[str] = Cache()
    cache.put("a", "x", 10, now=100)
    assert cache.get("a", 100) == ("x", 10)
    assert cache.get("a", 107.5) == ("x", 2)
    assert cache.get("a", 110) is None
    assert len(cache) == 0


def test_nothing_is_kept_for_no_time_or_for_ever() -> None:
    cache: Cache[str] = Cache()
    cache.put("a", "x", 0, now=0)
    assert cache.get("a", 0) is None
    cache.put("a", "x", 10**9, now=0)
    assert cache.get("a", LONGEST) is None


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache: Cache[str] = Cache(2)
    for key in "ab":
        cache.put(key, key, 10, now=0)
    assert cache.get("a", 0)
    cache.put("c", "c", 10, now=0)
    assert cache.get("b", 0) is None
    assert cache.get("a", 0)
    assert len(cache) == 2
