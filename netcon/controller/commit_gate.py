"""Nothing leaves before the records it depends on are durable (vl2 §7, architecture "Choices of dependencies").

Changes of records are handed to the host under tickets, which it commits in that order. Whatever depends on a network's records
waits until every ticket of that network that was out when it was made has been committed. So a crash, at any moment, can at worst
forget what nobody was told.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from netcon.core.controller_role import Persist

T = TypeVar("T")


class CommitGate(Generic[T]):
    """Holds items of networks, each under a key; a newer item of the same key takes the place of the older one."""

    def __init__(self) -> None:
        self.last_ticket = 0
        self._network_of: dict[int, int] = {}  # by ticket
        self._outstanding: dict[int, dict[int, None]] = {}  # tickets by network, oldest first
        self._held: dict[int, dict[Hashable, tuple[int, T]]] = {}  # by network, oldest first: newest ticket it depends on, item

    def persist(self, network: int, changes: list[tuple[str, str, str | None]]) -> Persist:
        """Begin a commit of changes to `network`'s records."""
        self.last_ticket += 1
        self._network_of[self.last_ticket] = network
        self._outstanding.setdefault(network, {})[self.last_ticket] = None
        return Persist(self.last_ticket, tuple(changes))

    def is_persisted(self, ticket: int) -> bool:
        return ticket not in self._network_of

    def hold(self, network: int, key: Hashable, item: T) -> bool:
        """Keep `item` until the commits under way for `network` are done. False if there are none: it may leave now."""
        self.discard(network, key)
        if network not in self._outstanding:
            return False
        self._held.setdefault(network, {})[key] = (self.last_ticket, item)
        return True

    def held(self, network: int, key: Hashable) -> T | None:
        entry = self._held.get(network, {}).get(key)
        return None if entry is None else entry[1]

    def discard(self, network: int, key: Hashable) -> None:
        """What is held under `key` must not leave any more."""
        self._held.get(network, {}).pop(key, None)

    def persisted(self, ticket: int) -> list[T]:
        """`ticket` is durable: the items that waited for it last, in the order in which they were made."""
        network = self._network_of.pop(ticket, None)
        if network is None:
            return []
        outstanding = self._outstanding[network]
        del outstanding[ticket]
        held = self._held.get(network, {})
        if not outstanding:
            del self._outstanding[network]
            self._held.pop(network, None)
            return [item for _, item in held.values()]
        oldest = next(iter(outstanding))
        ready = []
        for key, (newest, _) in held.items():
            if newest >= oldest:
                break
            ready.append(key)
        return [held.pop(key)[1] for key in ready]
