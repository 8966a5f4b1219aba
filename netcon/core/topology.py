"""Who is there: peers, the planet and moons, and the upstreams that answer WHOIS and relay (vl1 §5.2, §5.5, §6.3, §6.4)."""

from __future__ import annotations

from collections.abc import Iterable

from netcon.core.address import Endpoint
from netcon.core.identity import Identity
from netcon.core.path import NEVER, Path
from netcon.core.peer import ACTIVITY_MS, LEAF, MOON, PLANET, QUIET_MS, SILENT_MS, Peer
from netcon.core.world import World, WorldType
from netcon.dataplane.crypto import CryptoError

#: Peers kept at most; the least recently heard leaf makes room (vl1 §9).
MAX_PEERS = 65_536
#: Moons held or wanted: each is named in every HELLO, 17 bytes.
MAX_MOONS = 32


class Topology:
    """Peers by address. Roots of worlds are peers from the start: their identities are in the world."""

    def __init__(self, identity: Identity, planet: World) -> None:
        self.identity = identity
        self.planet = planet
        #: Moons that we orbit, by id, and those that we want: id to the address of the seed that has it (vl1 §6.4).
        self.moons: dict[int, World] = {}
        self.wanted: dict[int, int] = {}
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
        self._planet_roots = frozenset(root.identity.address for root in self.planet.roots)
        for world in (self.planet, *self.moons.values()):
            for root in world.roots:
                if root.identity == self.identity:
                    self.is_root = True
                    continue
                try:
                    peer = self.add(root.identity)
                except CryptoError:
                    continue  # a root whose key nobody can agree with is no use, and no reason to stop
                if peer.identity != root.identity:
                    continue  # an identity is never replaced (vl1 §9)
                known = self.root_endpoints.get(peer.address)
                if known is None:
                    self.upstreams.append(peer)
                endpoints = tuple(dict.fromkeys((*(known or ()), *root.endpoints)))
                self.root_endpoints[peer.address] = endpoints
                peer.root_ips = frozenset(endpoint.ip for endpoint in endpoints) or None

    def offer_planet(self, candidate: World) -> bool:
        """Take `candidate` as the planet if it is a properly signed newer version of ours (vl1 §6.3)."""
        if not self.planet.accepts_update(candidate):
            return False
        self.planet = candidate
        self._adopt_roots()
        return True

    def offer(self, candidate: World) -> bool:
        """Take a world that an upstream or a seed sent, if it may replace what we have or is a moon that we want (vl1 §6.3)."""
        if candidate.type is WorldType.PLANET:
            return self.offer_planet(candidate)
        held = self.moons.get(candidate.id)
        if candidate.type is not WorldType.MOON:
            return False
        if held is not None:
            if not held.accepts_update(candidate):
                return False
        elif not self._is_wanted(candidate):
            return False
        self.hold_moon(candidate)
        return True

    def _is_wanted(self, candidate: World) -> bool:
        """The seed that the user named must be one of its roots; the seed's key is the one that we know it by."""
        seed = self.wanted.get(candidate.id)
        peer = None if seed is None else self.peers.get(seed)
        return peer is not None and any(root.identity == peer.identity for root in candidate.roots)

    def room_for_moon(self, moon: int) -> bool:
        return moon in self.wanted or len(self.moons) + len(self.wanted) < MAX_MOONS

    def hold_moon(self, moon: World) -> None:
        """Orbit `moon`, unchecked."""
        self.moons[moon.id] = moon
        self.wanted.pop(moon.id, None)
        self._adopt_roots()

    def drop_moon(self, moon: int) -> bool:
        """Orbit it no more, and want it no more; False if neither was so."""
        wanted = self.wanted.pop(moon, None) is not None
        if self.moons.pop(moon, None) is None:
            return wanted
        self._adopt_roots()
        return True

    def believed(self, address: int) -> bool:
        """Whether worlds that this node sends are looked at (vl1 §6.2)."""
        return address in self.root_endpoints or address in self.wanted.values()

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
        if address in self._planet_roots:
            return PLANET
        return MOON if address in self.root_endpoints else LEAF

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
        if entry is not None:
            quiet = now - entry.last_receive
            if quiet < QUIET_MS or peer.address in self.root_endpoints:
                return entry.path, None
            if quiet < SILENT_MS and not entry.unanswered(now):
                return entry.path, entry.path
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
