"""Who is there: peers, the planet, and the upstreams that answer WHOIS and relay (vl1 §5.2, §5.5, §6.3)."""

from __future__ import annotations

from collections.abc import Iterable

from netcon.core.address import Endpoint
from netcon.core.identity import Identity
from netcon.core.path import NEVER, Path
from netcon.core.peer import ACTIVITY_MS, LEAF, PLANET, SILENT_MS, Peer
from netcon.core.world import World
from netcon.dataplane.crypto import CryptoError

#: Peers kept at most; the least recently heard leaf makes room (vl1 §9).
MAX_PEERS = 65_536


class Topology:
    """Peers by address. Roots of the planet are peers from the start: their identities are in the world."""

    def __init__(self, identity: Identity, planet: World) -> None:
        self.identity = identity
        self.planet = planet
        self.peers: dict[int, Peer] = {}
        self.upstreams: list[Peer] = []
        self.root_endpoints: dict[int, tuple[Endpoint, ...]] = {}
        self.is_root = False
        self._adopt_roots()

    def _adopt_roots(self) -> None:
        self.upstreams = []
        self.root_endpoints = {}
        self.is_root = False
        for peer in self.peers.values():
            peer.root_ips = None
        for root in self.planet.roots:
            if root.identity == self.identity:
                self.is_root = True
                continue
            try:
                peer = self.add(root.identity)
            except CryptoError:
                continue  # a root whose key nobody can agree with is no use, and no reason to stop
            if peer.identity != root.identity:
                continue  # an identity is never replaced (vl1 §9)
            endpoints = tuple(root.endpoints)
            self.root_endpoints[peer.address] = endpoints
            peer.root_ips = frozenset(endpoint.ip for endpoint in endpoints) or None
            self.upstreams.append(peer)

    def offer_planet(self, candidate: World) -> bool:
        """Take `candidate` as the planet if it is a properly signed newer version of ours (vl1 §6.3)."""
        if not self.planet.accepts_update(candidate):
            return False
        self.planet = candidate
        self._adopt_roots()
        return True

    def add(self, identity: Identity) -> Peer:
        """Make the peer of `identity`, or return the one there is. CryptoError for keys that cannot be agreed with."""
        peer = self.peers.get(identity.address)
        if peer is None:
            if len(self.peers) >= MAX_PEERS:
                self._make_room()
            peer = self.peers[identity.address] = Peer(identity, self.identity)
        return peer

    def _make_room(self) -> None:
        leaves = (peer for peer in self.peers.values() if not self.is_upstream(peer.address))
        victim = min(leaves, key=lambda peer: peer.last_receive, default=None)
        if victim is not None:
            del self.peers[victim.address]

    def is_upstream(self, address: int) -> bool:
        return address in self.root_endpoints

    def role(self, address: int) -> str:
        return PLANET if address in self.root_endpoints else LEAF

    def best_upstream(self, now: int, exclude: int = 0) -> Peer | None:
        """The best upstream that has an unexpired path (vl1 §5.5, §5.6); `exclude`: an address that it must not be."""
        best: Peer | None = None
        best_quality = 0
        for peer in self.upstreams:
            if peer.address == exclude or peer.best_entry(now) is None:
                continue
            quality = peer.relay_quality(now)
            if best is None or quality < best_quality:
                best, best_quality = peer, quality
        return best

    def route(self, peer: Peer, now: int) -> tuple[Path | None, Path | None]:
        """Where to send a packet for `peer`: (path or None, silent direct path to probe or None) (vl1 §5.6)."""
        entry = peer.best_entry(now)
        if entry is not None and (now - entry.last_receive < SILENT_MS or peer.address in self.root_endpoints):
            return entry.path, None
        upstream = self.best_upstream(now, peer.address)
        if upstream is not None:
            return upstream.best_path(now), None if entry is None else entry.path
        if entry is not None:
            return entry.path, entry.path
        return peer.any_path(), None

    def online(self, now: int) -> bool:
        """Something came from an upstream within 500 s, or we are a root (vl1 §5.3)."""
        return self.is_root or any(now - peer.last_receive < ACTIVITY_MS for peer in self.upstreams)

    def drop_idle(self, now: int, keep: Iterable[int]) -> list[Peer]:
        """Housekeeping (vl1 §5.12): take out the peers that were silent for 500 s and are not upstreams."""
        kept = set(keep)
        idle = []
        for peer in self.peers.values():
            if peer.noticed == NEVER:
                peer.noticed = now  # made since the last time: silence counts from here, if nothing came at all
            silent = now - max(peer.last_receive, peer.noticed)
            if silent >= ACTIVITY_MS and peer.address not in self.root_endpoints and peer.address not in kept:
                idle.append(peer)
        for peer in idle:
            del self.peers[peer.address]
        return idle
