"""Saying why frames were dropped: to the host as events, and to the node that a network's controller names (vl2 §6.8)."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from netcon.core.actions import Action, NodeEvent
from netcon.core.address import format_address, format_mac, format_network
from netcon.core.dictionary import Dictionary
from netcon.core.messages import RemoteTrace
from netcon.core.network import Network
from netcon.core.packet import Verb
from netcon.core.sender import Sender

#: Traces for one observer are sent together after this time, ms, and so many of them at most: a flood of frames must not become
#: a flood of traces.
GATHER_MS = 500
MAX_WAITING = 32


class Level(IntEnum):
    """How much a network's controller wants to hear (vl2 §2.6)."""

    NORMAL = 0
    VERBOSE = 10
    RULES = 15
    DEBUG = 20
    INSANE = 30


class Trace:
    """Traces of one node. `local`: the host wants them as events, too, of all networks and levels."""

    def __init__(self, sender: Sender, actions: list[Action], counters: Counter[str]) -> None:
        self.local = False
        self._sender = sender
        self._actions = actions
        self._counters = counters
        self._waiting: dict[int, list[bytes]] = {}
        self._due: int | None = None

    def wanted(self, network: Network, level: Level) -> bool:
        """Whether anybody listens: cheap, for the path of frames."""
        return self.local or network.trace_level >= level

    def frame(
        self,
        network: Network,
        level: Level,
        event: str,
        sender: int,
        receiver: int,
        source: bytes,
        destination: bytes,
        ethertype: int,
        length: int,
        now: int,
        **more: str,
    ) -> None:
        """Something happened to a frame between two members; `receiver` 0: everybody, or nobody in particular."""
        if not self.wanted(network, level):
            return
        dictionary = Dictionary()
        for key, value in (
            ("event", event),
            ("networkId", format_network(network.id)),
            ("sourceZtAddr", format_address(sender)),
            ("destZtAddr", format_address(receiver)),
            ("sourceMac", format_mac(source)),
            ("destMac", format_mac(destination)),
            ("etherType", f"{ethertype:04x}"),
            ("frameLength", f"{length:x}"),
            *more.items(),
        ):
            dictionary.set_text(key, value)
        data = dictionary.encode()
        if self.local:
            self._actions.append(NodeEvent("trace", sender, data))
        if network.trace_level >= level:
            self._hold(network.trace_target, data, now)

    def _hold(self, target: int, data: bytes, now: int) -> None:
        waiting = self._waiting.setdefault(target, [])
        if len(waiting) >= MAX_WAITING:
            self._counters["traces_dropped"] += 1
            return
        waiting.append(data)
        if self._due is None:
            self._due = now + GATHER_MS

    def next_deadline(self) -> int | None:
        return self._due

    def background(self, now: int) -> None:
        if self._due is None or now < self._due:
            return
        self._due = None
        waiting, self._waiting = self._waiting, {}
        for target, events in waiting.items():
            self._sender.send(target, Verb.REMOTE_TRACE, RemoteTrace(tuple(events)).encode(), now, compress=True)
