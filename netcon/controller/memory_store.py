"""A store in memory, for tests and simulations: commits at once, and can be made to fail or to forget, as a crash does."""

from __future__ import annotations

from collections.abc import Sequence

from netcon.controller.errors import StoreFailed


class MemoryStore:
    """`failing`: every commit raises StoreFailed and keeps nothing."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], str] = {}
        self.failing = False

    def load(self) -> list[tuple[str, str, str]]:
        return [(table, key, text) for (table, key), text in sorted(self._rows.items())]

    def commit(self, changes: Sequence[tuple[str, str, str | None]]) -> None:
        if self.failing:
            raise StoreFailed("the store was told to fail")
        for table, key, text in changes:
            if text is None:
                self._rows.pop((table, key), None)
            else:
                self._rows[table, key] = text

    def close(self) -> None:
        pass
