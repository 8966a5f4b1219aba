"""Nothing leaves before the records it depends on are durable (vl2 §7, architecture "Choices of dependencies").

Changes of records are handed to the host under tickets, which it commits in that order. Whatever depends on a network's records
waits until every ticket of that network that was out when it was made has been committed. So a crash, at any moment, can at worst
forget what nobody was told.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from netcon.core.controller_role import Persist

T = TypeVar("T")


@dataclass(slots=True)
class _Held(Generic[T]):
    network: int
    waiting: set[int]
    item: T


class CommitGate(Generic[T]):
    """Holds items, each under a key; a newer item of the same key takes the place of the older one."""

    def __init__(self) -> None:
        self.last_ticket = 0
        self._outstanding: dict[int, int] = {}  # ticket → network
        self._held: dict[Hashable, _Held[T]] = {}

    def persist(self, network: int, changes: list[tuple[str, str, str | None]]) -> Persist:
        """Begin a commit of changes to `network`'s records."""
        self.last_ticket += 1
        self._outstanding[self.last_ticket] = network
        return Persist(self.last_ticket, tuple(changes))

    def is_persisted(self, ticket: int) -> bool:
        return ticket not in self._outstanding

    def hold(self, network: int, key: Hashable, item: T) -> bool:
        """Keep `item` until the commits under way for `network` are done. False if there are none: it may leave now."""
        waiting = {ticket for ticket, of in self._outstanding.items() if of == network}
        self._held.pop(key, None)
        if not waiting:
            return False
        self._held[key] = _Held(network, waiting, item)
        return True

    def held(self, key: Hashable) -> T | None:
        entry = self._held.get(key)
        return None if entry is None else entry.item

    def discard(self, key: Hashable) -> None:
        """What is held under `key` must not leave any more."""
        self._held.pop(key, None)

    def persisted(self, ticket: int) -> list[T]:
        """`ticket` is durable: the items that waited for it last, in the order in which they were made."""
        if self._outstanding.pop(ticket, None) is None:
            return []
        for entry in self._held.values():
            entry.waiting.discard(ticket)
        ready = [key for key, entry in self._held.items() if not entry.waiting]
        return [self._held.pop(key).item for key in ready]
