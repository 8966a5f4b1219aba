"""What the engine wants kept, in order: files of the home folder and records of the controller, which a worker thread writes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import trio

from netcon.controller.sqlite_store import SqliteStore
from netcon.core.actions import Action, PersistRecords, StoreState
from netcon.core.errors import NetconError
from netcon.service.errors import ServiceError
from netcon.service.home import Home

log = logging.getLogger("netcon.service")


class Storage:
    """A queue in front of the home folder and the controller's database."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._committed: dict[int, trio.Event] = {}
        self._in, self._out = trio.open_memory_channel[StoreState | PersistRecords | trio.Event](math.inf)

    def put(self, item: StoreState | PersistRecords) -> None:
        if isinstance(item, PersistRecords):
            self._committed[item.ticket] = trio.Event()
        self._in.send_nowait(item)

    async def run(self, store: SqliteStore, committed: Callable[[int], None]) -> None:
        """Write, until cancelled; `committed` is called with each ticket whose records are. ServiceError: a commit failed."""
        async for item in self._out:
            match item:
                case trio.Event():
                    item.set()
                case StoreState():
                    await trio.to_thread.run_sync(self.write, item)
                case PersistRecords(ticket, changes):
                    try:
                        await trio.to_thread.run_sync(store.commit, changes)
                    except (OSError, NetconError) as error:
                        raise ServiceError(
                            f"{self._home.path / 'controller.d'}: {error}; the controller cannot go on without its records"
                        ) from error
                    committed(ticket)
                    self._committed.pop(ticket).set()

    async def stored(self) -> None:
        """Return when everything that the engine wanted stored until now is in the home folder."""
        done = trio.Event()
        self._in.send_nowait(done)
        await done.wait()

    async def committed(self) -> None:
        """Return when all records are committed of which it was asked until now."""
        for event in list(self._committed.values()):
            await event.wait()

    def write(self, action: StoreState) -> None:
        try:
            self._home.store(action.kind, action.key, action.data)
        except (OSError, NetconError) as error:
            log.error("%s", error)

    def left(self, actions: Iterable[Action]) -> Iterator[StoreState]:
        """At the end: what still waits, and what is among `actions`. Records that were not committed were not answered either: the
        members ask again."""
        while True:
            try:
                item = self._out.receive_nowait()
            except trio.WouldBlock:
                break
            if isinstance(item, StoreState):
                yield item
        for action in actions:
            if isinstance(action, StoreState):
                yield action
