"""What a node does for others: relaying and introductions (vl1 §5.8, §5.9, §5.11)."""

from __future__ import annotations

from collections import Counter

from netcon.core.address import Endpoint
from netcon.core.messages import Rendezvous
from netcon.core.packet import Verb
from netcon.core.path import NEVER, Path
from netcon.core.peer import Peer
from netcon.core.sender import Sender
from netcon.core.topology import Topology

#: Packets arriving with this many hops are not relayed further (vl1 §1.2).
MAX_HOPS = 3
#: Minimum time between introductions of a pair, and when the record is forgotten (vl1 §1.3), ms.
INTRODUCTION_MS = 30_000
INTRODUCTION_FORGOTTEN_MS = 240_000
MAX_INTRODUCTIONS = 65_536


class Relay:
    """Forwards what is not for us: for everybody if we are a root, else for members of common networks only."""

    def __init__(self, topology: Topology, sender: Sender, counters: Counter[str]) -> None:
        self._topology = topology
        self._sender = sender
        self._counters = counters
        self._introduced: dict[tuple[int, int], int] = {}

    def packet(self, data: bytes, path: Path, now: int) -> None:
        """Forward a whole packet or a head; introduce the two if we know both."""
        source = int.from_bytes(data[13:18])
        destination = int.from_bytes(data[8:13])
        if self._forward(data, 18, destination, source, path, now):
            first = self._topology.peers.get(source)
            second = self._topology.peers.get(destination)
            if first is not None and second is not None:
                self._introduce(first, second, now)

    def piece(self, data: bytes, path: Path, now: int) -> None:
        """Forward a fragment."""
        self._forward(data, 15, int.from_bytes(data[8:13]), 0, path, now)

    def _forward(self, data: bytes, flags_at: int, destination: int, source: int, path: Path, now: int) -> bool:
        if not self._topology.is_root and not path.trusted(now):
            self._counters["relay_refused"] += 1
            return False
        flags = data[flags_at]
        if flags & 0x07 >= MAX_HOPS:
            self._counters["relay_hops"] += 1
            return False
        peer = self._topology.peers.get(destination)
        out = None if peer is None else peer.best_path(now)
        direct = out is not None
        if out is None:
            upstream = self._topology.best_upstream(now, source)
            out = None if upstream is None else upstream.best_path(now)
            if out is None or out is path:
                self._counters["relay_no_route"] += 1
                return False
        forwarded = bytearray(data)
        forwarded[flags_at] = flags + 1
        self._counters["relayed"] += 1
        self._sender.datagram(out, bytes(forwarded), now)
        return direct

    def _introduce(self, first: Peer, second: Peer, now: int) -> None:
        """Tell both where the other is, over the best class of address that they share (vl1 §5.9)."""
        key = (min(first.address, second.address), max(first.address, second.address))
        if first is second or now - self._introduced.get(key, NEVER) < INTRODUCTION_MS:
            return
        pair = _common_class(first, second, now)
        if pair is None:
            return
        if len(self._introduced) >= MAX_INTRODUCTIONS:
            del self._introduced[next(iter(self._introduced))]
        self._introduced[key] = now
        first_path, second_path = pair
        self._send_rendezvous(first, first_path, second.address, second_path.remote, now)
        self._send_rendezvous(second, second_path, first.address, first_path.remote, now)

    def _send_rendezvous(self, peer: Peer, path: Path, other: int, endpoint: Endpoint, now: int) -> None:
        self._counters["introductions"] += 1
        self._sender.reply(peer, path, Verb.RENDEZVOUS, Rendezvous(0, other, endpoint).encode(), now)

    def expire(self, now: int) -> None:
        old = [key for key, at in self._introduced.items() if now - at >= INTRODUCTION_FORGOTTEN_MS]
        for key in old:
            del self._introduced[key]


def _common_class(first: Peer, second: Peer, now: int) -> tuple[Path, Path] | None:
    """The best live path of each in the highest scope class and family that both have; IPv6 before IPv4."""
    of_first, of_second = _best_by_class(first, now), _best_by_class(second, now)
    for key in sorted(of_first, reverse=True):
        if key in of_second:
            return of_first[key], of_second[key]
    return None


def _best_by_class(peer: Peer, now: int) -> dict[tuple[int, int], Path]:
    best: dict[tuple[int, int], Path] = {}
    for entry in peer.entries:
        path = entry.path
        key = (path.rank, len(path.remote.ip))
        known = best.get(key)
        if known is None or path.quality(now) <= known.quality(now):
            best[key] = path
    return best
