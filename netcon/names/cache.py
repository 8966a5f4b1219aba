"""Answers of the networks' DNS servers, for as long as they hold: bounded, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: No answer is kept longer, seconds, whatever its server says.
LONGEST = 3600


class Cache(Generic[Value]):
    """Values by key, each until its time has come. Times are seconds, of any clock that does not go back."""

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float) -> tuple[Value, int] | None:
        """The value and the whole seconds that are left of its life."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1], int(entry[0] - now)

    def put(self, key: Hashable, value: Value, ttl: float, now: float) -> None:
        if ttl <= 0:
            return
        self._entries[key] = (now + min(ttl, LONGEST), value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()
