"""Keeping in touch: HELLO and ECHO probes, the ping check, and finding direct paths (vl1 §5.3, §5.9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from netcon.core.address import Endpoint, Scope, scope_of
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.messages import DirectPath, Hello, MoonVersion, Ok, PushDirectPaths, Rendezvous
from netcon.core.packet import Verb
from netcon.core.path import NEVER, Path, PathPolicy, PathTable
from netcon.core.peer import ACTIVITY_MS, DOUBT_MS, PATH_EXPIRY_MS, Peer
from netcon.core.physical import Physical
from netcon.core.selfawareness import SelfAwareness
from netcon.core.sender import Sender
from netcon.core.settings import NodeSettings
from netcon.core.topology import Topology

#: We speak this protocol (vl1 §1.4).
PROTOCOL = 12
#: Ping check, ms (vl1 §1.3); and its cadence while a root was not reached yet after the start.
PING_MS = 5_000
EAGER_PING_MS = 1_000
#: For how long after a start, or after a change of our address, roots hear from us every 5 s (vl1 §5.10), ms.
RESTLESS_MS = 30_000
#: For how long after it the cadence is one second while a root is not reached, ms.
EAGER_MS = 10_000
#: Roots hear from us every second for this long when a path that we use has failed, and not again for a while, ms.
STIR_MS, STIR_SPACING_MS = 4_000, 15_000
#: A full HELLO on every path in use (vl1 §1.3), ms.
FULL_HELLO_MS = 60_000
#: The root in use hears an ECHO at least this often (vl1 §5.3), ms.
ROOT_PROBE_MS = 20_000
#: A root that did not answer for this long is treated as one we have no path to, ms.
ROOT_SILENT_MS = 26_000
#: Something is sent on an active path if nothing was for this long, or nothing came (vl1 §1.3), ms.
HEARTBEAT_MS = 14_000
#: Between two HELLOs to endpoints that the user gave for a peer (vl1 §1.3), ms.
HINT_MS = 30_000
#: Moon seeds, anchors and replicators get a HELLO this often, through a root if there is no path (vl1 §5.3), ms.
ALWAYS_CONTACT_MS = 28_000
#: Between two answers to ECHO on one path (vl1 §4.3), ms.
ECHO_GATE_MS = 166
#: PUSH_DIRECT_PATHS: to a peer reached through a relay, at first and after seven in vain (vl1 §4.3), and directly, ms.
PUSH_RELAYED_MS = 15_000
PUSH_RELAYED_SLOW_MS = 31_000
PUSH_DIRECT_MS = 120_000
#: Records in one push: stays well below 1,200 bytes (vl1 §4.13).
MAX_PUSHED = 32
#: Accepted per push, scope class and family (vl1 §4.3).
MAX_PER_CLASS = 8


class Contact:
    """Probes and paths of one node."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        paths: PathTable,
        policy: PathPolicy,
        awareness: SelfAwareness,
        sender: Sender,
        settings: NodeSettings,
        random: Callable[[int], bytes],
        counters: Counter[str],
        physical: Physical,
        now: int,
    ) -> None:
        #: Set by the node: handle a packet again when an identity is known.
        self.wait_for_identity: Callable[[int, Inbound, int], None] = lambda address, inbound, now: None
        #: Set by the node: anchors and replicators of joined networks (vl2 §2.6).
        self.always_contact: Callable[[], Iterable[int]] = lambda: ()
        self.local_endpoints: tuple[Endpoint, ...] = ()
        self.next_tick = now
        self._identity = identity
        self._topology = topology
        self._paths = paths
        self._policy = policy
        self._awareness = awareness
        self._sender = sender
        self._version = settings.version
        self._random = random
        self._counters = counters
        self._restless_since = now
        self._stirred_since = NEVER
        self._physical = physical
        sender.probe_silent = self._probe_silent
        sender.try_hints = self.try_hints

    # -- probes --

    def _hello_packet(self, peer: Peer, target: Endpoint | None, now: int) -> bytes:
        """An armoured HELLO (vl1 §4.4): field encryption of the tail first, then the MAC, always suite 0."""
        major, minor, revision = self._version
        planet = self._topology.planet
        message = Hello(
            protocol=PROTOCOL,
            major=major,
            minor=minor,
            revision=revision,
            timestamp=now,
            identity=self._identity,
            destination=target,
            planet_id=planet.id,
            planet_timestamp=planet.timestamp,
            moons=(
                *(MoonVersion(moon.id, moon.timestamp) for moon in self._topology.moons.values()),
                *(MoonVersion(moon, 0) for moon in self._topology.wanted),
            ),
        )
        body = message.encode()
        packet = b"".join((self._random(8), peer.header_out, bytes(9), bytes([Verb.HELLO]), body))
        offset = Hello.tail_offset(body)
        if offset is not None:
            packet = peer.keys.crypt_field(packet, 28 + offset)
        packet = peer.keys.seal(packet, 0)
        self._sender.expected.remember(int.from_bytes(packet[:8]), peer.address)
        return packet

    def hello(self, peer: Peer, path: Path, now: int) -> None:
        """HELLO over a path."""
        self._sender.datagram(path, self._hello_packet(peer, path.remote, now), now)

    def hello_from_all(self, peer: Peer, endpoint: Endpoint, now: int) -> None:
        """HELLO to an endpoint where the peer may be, from every socket."""
        self._sender.datagram_from_all(endpoint, self._hello_packet(peer, endpoint, now))

    def probe(self, peer: Peer, path: Path, now: int) -> None:
        """ECHO, or HELLO to a peer of which we do not know that it answers ECHO."""
        if peer.answers_echo:
            self._sender.reply(peer, path, Verb.ECHO, b"", now, expect=True)
        else:
            self.hello(peer, path, now)

    def _probe_from_all(self, peer: Peer, endpoint: Endpoint, now: int) -> None:
        if peer.answers_echo:
            packet = self._sender.seal(peer, Verb.ECHO, b"", peer.suite)
            self._sender.expected.remember(int.from_bytes(packet[:8]), peer.address)
            self._sender.datagram_from_all(endpoint, packet)
        else:
            self.hello_from_all(peer, endpoint, now)

    def _probe_silent(self, peer: Peer, path: Path, now: int) -> None:
        entry = peer.entry(path)
        if entry is None:
            return
        if entry.ask(now):
            self.probe(peer, path, now)
        if entry.unanswered(now) and not entry.given_up:
            entry.given_up = True
            self._stir(now)

    def usable(self, peer: Peer, endpoint: Endpoint) -> bool:
        """The "path allowed" test (vl1 §5.4)."""
        return (
            self._policy.usable(endpoint)
            and peer.may_use(endpoint)
            and not (self._physical.peers and self._physical.forbids_for(peer.address, endpoint.ip))
        )

    # -- ping check --

    def address_changed(self, scope: Scope, now: int) -> None:
        """Our external address in `scope` changed: all paths of that class must prove themselves again (vl1 §5.10)."""
        self._restless_since = now
        self.next_tick = now
        for peer in self._topology.peers.values():
            for entry in peer.entries:
                if entry.path.rank == scope:
                    entry.last_receive = now - PATH_EXPIRY_MS
                    peer.forget_choice()
                    self.probe(peer, entry.path, now)

    def doubt(self, peer: Peer, now: int) -> None:
        """The peer is heard by another way than its paths: those on which it is not must show that they still lead to it.

        The reference goes on sending into the void until such a path expires (vl1 §5.10).
        """
        for entry in peer.entries:
            if now - entry.last_receive >= DOUBT_MS and entry.ask(now):
                peer.forget_choice()
                self.probe(peer, entry.path, now)

    def _stir(self, now: int) -> None:
        """Perhaps a NAT box forgot us, and what roots pass on to us is lost, too: they hear from us a few times now."""
        if now - self._stirred_since >= STIR_SPACING_MS:
            self._stirred_since = now
            self.next_tick = now

    def moved(self, now: int) -> None:
        """Our own sockets changed: whoever talks to us hears where we are now, and so do the roots. What is sent by a path of a
        socket that was closed leaves from all (vl1 §5.13), and the answer teaches the new path."""
        self._restless_since = self._stirred_since = now
        self.next_tick = now
        for peer in self._topology.peers.values():
            if self._topology.is_upstream(peer.address):
                peer.last_full_hello = NEVER
            elif now - peer.last_nontrivial < ACTIVITY_MS:
                for entry in peer.entries:
                    entry.ask(now)
                    self.hello(peer, entry.path, now)
                peer.forget_choice()

    def contact_hints(self, peer: Peer, now: int) -> None:
        """HELLO to the remembered endpoints of a peer from the cache (vl1 §5.10)."""
        for endpoint in peer.hints:
            if self.usable(peer, endpoint):
                self.hello_from_all(peer, endpoint, now)
        peer.hints = ()

    def try_hints(self, peer: Peer, now: int) -> None:
        """HELLO to one of the endpoints that the user gave for a peer, each in turn (vl1 §5.6)."""
        if now - peer.last_hint < HINT_MS:
            return
        usable = [endpoint for endpoint in self._physical.peers[peer.address].endpoints if self.usable(peer, endpoint)]
        if usable:
            peer.last_hint = now
            peer.hint_turn += 1
            self.hello_from_all(peer, usable[peer.hint_turn % len(usable)], now)

    def settings_changed(self, now: int) -> None:
        """Paths that may be used no more are forgotten, and hints are tried anew."""
        for peer in self._topology.peers.values():
            peer.last_hint = NEVER
            allowed = [entry for entry in peer.entries if self.usable(peer, entry.path.remote)]
            if len(allowed) != len(peer.entries):
                peer.entries = allowed
                peer.forget_choice()
        self.next_tick = now

    def tick(self, now: int) -> None:
        """The ping check; sets `next_tick`."""
        eager = False
        for peer in self._topology.upstreams:
            self._contact_root(peer, now)
            eager = eager or not peer.entries
        upstreams = self._topology.root_endpoints
        for peer in self._topology.peers.values():
            if now - peer.last_nontrivial < ACTIVITY_MS and peer.address not in upstreams:
                self._sweep(peer, now)
        for address in self._physical.peers:
            # Where there is no root, nothing could be sent that would have them tried.
            known = self._topology.peers.get(address)
            if known is not None and known.best_entry(now) is None:
                self.try_hints(known, now)
        for address in {*self._topology.wanted.values(), *self.always_contact()}:
            if address not in upstreams and address != self._identity.address:
                self._contact_always(address, now)
        eager = (eager and now - self._restless_since < EAGER_MS) or now - self._stirred_since < STIR_MS
        self.next_tick = now + (EAGER_PING_MS if eager else PING_MS)

    def _contact_always(self, address: int, now: int) -> None:
        peer = self._topology.peers.get(address)
        if peer is None:
            self._sender.request_identity(address, now)
            return
        if now - peer.last_full_hello < ALWAYS_CONTACT_MS:
            return
        peer.drop_expired(now)
        peer.last_full_hello = now
        for entry in peer.entries:
            self.hello(peer, entry.path, now)
        if not peer.entries:
            self._hello_through_root(peer, now)

    def _hello_through_root(self, peer: Peer, now: int) -> None:
        upstream = self._topology.best_upstream(now, peer.address)
        path = None if upstream is None else upstream.best_path(now)
        if path is not None:
            self.hello(peer, path, now)

    def _contact_root(self, peer: Peer, now: int) -> None:
        peer.drop_expired(now)
        heard = max((entry.last_receive for entry in peer.entries), default=NEVER)
        stirred = now - self._stirred_since < STIR_MS
        forgot = bool(peer.entries) and all(
            entry.unanswered(now) for entry in peer.entries
        )  # it was killed, and wants our identity
        urgent = stirred or forgot or now - heard >= ROOT_SILENT_MS or now - self._restless_since < RESTLESS_MS
        if urgent or now - peer.last_full_hello >= FULL_HELLO_MS:
            if not peer.entries or now - peer.last_full_hello >= (EAGER_PING_MS if stirred else PING_MS):
                self._hello_root(peer, now)
        elif now - peer.last_contact >= ROOT_PROBE_MS:
            entry = peer.best_entry(now)
            if entry is not None and entry.ask(now):
                peer.last_contact = now
                self.probe(peer, entry.path, now)

    def _hello_root(self, peer: Peer, now: int) -> None:
        """HELLO on each path, and to one endpoint of each family without one (vl1 §5.3)."""
        peer.last_full_hello = peer.last_contact = now
        for entry in peer.entries:
            self.hello(peer, entry.path, now)
        families = {len(entry.path.remote.ip) for entry in peer.entries}
        endpoints = self._topology.root_endpoints[peer.address]
        for size in (4, 16):
            choices = [e for e in endpoints if len(e.ip) == size and self._policy.usable(e)]
            if choices and size not in families:
                self.hello_from_all(peer, choices[self._random(1)[0] % len(choices)], now)
                families.add(size)
        if not families:
            self._hello_through_root(peer, now)

    def _sweep(self, peer: Peer, now: int) -> None:
        """Keep-alive of an active leaf (vl1 §5.3)."""
        peer.drop_expired(now)
        full = now - peer.last_full_hello >= FULL_HELLO_MS
        if full:
            peer.last_full_hello = now
        for entry in peer.entries:
            if full:
                self.hello(peer, entry.path, now)
            elif now - entry.path.last_out >= HEARTBEAT_MS or now - entry.last_receive >= HEARTBEAT_MS:
                self.probe(peer, entry.path, now)

    # -- ECHO --

    def receive_echo(self, inbound: Inbound, now: int) -> bool:
        path = inbound.path
        if now - path.last_echo_answered < ECHO_GATE_MS:
            self._counters["echo_gated"] += 1
            return False
        path.last_echo_answered = now
        self._sender.reply(inbound.peer, path, Verb.OK, Ok(Verb.ECHO, inbound.packet_id, inbound.body).encode(), now)
        return True

    # -- RENDEZVOUS --

    def receive_rendezvous(self, inbound: Inbound, now: int) -> bool:
        message = Rendezvous.decode(inbound.body)
        peer = self._topology.peers.get(message.peer)
        if not self._topology.is_upstream(inbound.peer.address):
            self._counters["rendezvous_untrusted"] += 1
        elif peer is None:
            # The reference ignores it. Asking who that is costs little, and the other side is knocking right now; the next
            # introduction would come after 30 s only.
            if not inbound.admitted:
                inbound.admitted = True
                self.wait_for_identity(message.peer, inbound, now)
        elif message.endpoint.port == 0 or not self.usable(peer, message.endpoint):
            self._counters["rendezvous_ignored"] += 1
        else:
            path = self._paths[inbound.path.socket, message.endpoint]
            if peer.entry(path) is None or not path.alive(now):
                # Opens our NAT without reaching the other one (vl1 §4.8).
                self._sender.datagram(path, self._random(4), now, ttl=2)
                self.probe(peer, path, now)
        return True

    # -- PUSH_DIRECT_PATHS --

    def maybe_push(self, inbound: Inbound, now: int) -> None:
        """After a packet from a trusted peer: tell it where we are, if that is due (vl1 §5.9)."""
        peer = inbound.peer
        relayed = PUSH_RELAYED_MS if peer.pushes_sent < 7 else PUSH_RELAYED_SLOW_MS
        interval = PUSH_DIRECT_MS if inbound.hops == 0 else relayed
        if now - peer.last_push_sent < interval:
            return
        endpoints = dict.fromkeys((*self.local_endpoints, *self._awareness.endpoints(now)))
        offered = [endpoint for endpoint in endpoints if self._policy.usable(endpoint)][:MAX_PUSHED]
        if not offered:
            return
        peer.last_push_sent = now
        peer.pushes_sent = 0 if inbound.hops == 0 else peer.pushes_sent + 1
        message = PushDirectPaths(tuple(DirectPath(0, b"", endpoint) for endpoint in offered))
        self._sender.reply(peer, inbound.path, Verb.PUSH_DIRECT_PATHS, message.encode(), now, compress=True)

    def receive_push(self, inbound: Inbound, now: int) -> bool:
        peer = inbound.peer
        message = PushDirectPaths.decode(inbound.body)
        if not peer.accept_push(now):
            self._counters["push_gated"] += 1
            return True
        taken: dict[tuple[int, int], int] = {}
        for record in message.paths:
            endpoint = record.endpoint
            if endpoint is None or record.forget or not self.usable(peer, endpoint):
                continue
            if any(entry.path.remote == endpoint and now - entry.last_receive < HEARTBEAT_MS for entry in peer.entries):
                continue
            key = (int(scope_of(endpoint.ip)), len(endpoint.ip))
            taken[key] = taken.get(key, 0) + 1
            if taken[key] <= MAX_PER_CLASS:
                self._probe_from_all(peer, endpoint, now)
        return True
