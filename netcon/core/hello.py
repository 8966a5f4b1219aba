"""Meeting others: HELLO and its answer, WHOIS, and the memory-hard check of identities (vl1 §4.3, §4.4, §4.7).

The check costs tens of milliseconds and 2 MiB, so it is the host's work: the engine asks with a `ValidateIdentity` action and holds
what depends on the answer. Cheap tests come first: address, prefix gate, MAC.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable

from netcon.core.actions import Action, NodeEvent, ValidateIdentity
from netcon.core.address import Endpoint, Scope, scope_of
from netcon.core.buffer import Reader
from netcon.core.contact import PROTOCOL, Contact
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.messages import Error, Hello, Ok, OkHello, OkWhois, Whois
from netcon.core.packet import ErrorCode, Verb
from netcon.core.path import NEVER, Path
from netcon.core.peer import Peer
from netcon.core.selfawareness import SelfAwareness
from netcon.core.sender import Sender
from netcon.core.settings import NodeSettings
from netcon.core.topology import MAX_MOONS, Topology
from netcon.core.world import World, WorldType
from netcon.dataplane.crypto import AuthenticationError, CryptoError, PeerKeys

#: Offset of the identity in a HELLO packet (vl1 §4.4).
_IDENTITY_AT = 41
#: Identities being checked at once, and HELLOs held for each.
MAX_PENDING = 256
MAX_HELD = 8
#: Between two answers to WHOIS of one peer (vl1 §4.3), ms. A root does not enforce it.
WHOIS_GATE_MS = 100
#: Addresses answered for per WHOIS.
MAX_WHOIS_ADDRESSES = 16
#: Worlds in one OK(HELLO), bytes: it is a single datagram (vl1 §4.4) of at most 10,024 bytes.
WORLDS_ROOM = 9_000
#: Between two IDENTITY_COLLISION errors for one recorded peer, ms.
COLLISION_GATE_MS = 1_000


class _Pending:
    """An identity under examination, and the HELLOs that brought it."""

    __slots__ = ("hellos", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.hellos: list[tuple[bytes, Path, int]] = []


class Acquaintance:
    """Handles HELLO, OK(HELLO), WHOIS and OK(WHOIS) for one node."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        awareness: SelfAwareness,
        contact: Contact,
        sender: Sender,
        settings: NodeSettings,
        actions: list[Action],
        counters: Counter[str],
    ) -> None:
        #: Set by the node: processing of counted packets, of new peers, of a new planet or moon, and of who said HELLO.
        self.received: Callable[[Inbound, int], None] = lambda inbound, now: None
        self.peer_added: Callable[[Peer, int], None] = lambda peer, now: None
        self.world_changed: Callable[[World, bool, int], None] = lambda world, wanted, now: None
        self.hello_heard: Callable[[Peer, int], None] = lambda peer, now: None
        self._identity = identity
        self._topology = topology
        self._awareness = awareness
        self._contact = contact
        self._sender = sender
        self._settings = settings
        self._actions = actions
        self._counters = counters
        self._pending: dict[tuple[int, bytes], _Pending] = {}
        self._gate: dict[int, int] = {}

    # -- HELLO --

    def receive_raw(self, packet: bytes, path: Path, hops: int, now: int) -> None:
        """A suite 0 HELLO, possibly from a stranger, as it came from the wire."""
        if len(packet) < _IDENTITY_AT + 71:
            raise DecodeError("HELLO too short")
        identity = Identity.decode(Reader(packet, _IDENTITY_AT))
        source = int.from_bytes(packet[13:18])
        if identity.address != source or packet[28] < 4:
            self._counters["hello_refused"] += 1
            return
        peer = self._topology.peers.get(source)
        if peer is None:
            self._meet(identity, packet, path, hops, now)
        elif peer.identity != identity:
            self._collision(peer, identity, packet, path, now)
        else:
            self._known(peer, packet, path, hops, now)

    def _known(self, peer: Peer, packet: bytes, path: Path, hops: int, now: int) -> None:
        opened = peer.keys.open(packet)
        inbound = Inbound(peer, path, hops, int.from_bytes(packet[:8]), Verb.HELLO, opened[28:], now)
        if self.receive_hello(inbound, now, opened):
            self.received(inbound, now)

    def _meet(self, identity: Identity, packet: bytes, path: Path, hops: int, now: int) -> None:
        """Prefix gate, MAC, then the memory-hard check elsewhere."""
        key = (identity.address, identity.public)
        pending = self._pending.get(key)
        if pending is None:
            if len(self._pending) >= MAX_PENDING or not self._pass_gate(path.remote, now):
                self._counters["hello_gated"] += 1
                return
            PeerKeys(self._identity.agree(identity)).open(packet)  # raises if it is not authentic
            pending = self._examine(identity)
        if len(pending.hellos) < MAX_HELD:
            pending.hellos.append((packet, path, hops))

    def _pass_gate(self, remote: Endpoint, now: int) -> bool:
        """One unknown identity per source prefix and interval (vl1 §4.3). On loopback every node of an embedded set-up has the
        same address, so there the port tells the prefixes apart."""
        prefix = remote.ip[:3] if len(remote.ip) == 4 else remote.ip[:6]
        if self._settings.allow_loopback_paths and scope_of(remote.ip) is Scope.LOOPBACK:
            prefix = remote.ip + remote.port.to_bytes(2)
        slot = zlib.crc32(prefix) & 0x3FFF
        if now - self._gate.get(slot, NEVER) < self._settings.identity_gate_ms:
            return False
        self._gate[slot] = now
        return True

    def _examine(self, identity: Identity) -> _Pending:
        pending = self._pending[(identity.address, identity.public)] = _Pending(identity)
        self._actions.append(ValidateIdentity(identity))
        return pending

    def validated(self, identity: Identity, valid: bool, now: int) -> None:
        """The host's answer to `ValidateIdentity`."""
        pending = self._pending.pop((identity.address, identity.public), None)
        if pending is None:
            return
        if not valid:
            self._counters["identity_invalid"] += 1
            return
        try:
            known = self._topology.add(identity)
        except CryptoError:
            self._counters["identity_degenerate"] += 1  # nobody can agree on a secret key with it (vl1 §2.3)
            return
        if known.identity != identity:
            self._counters["identity_collision"] += 1
            return
        for packet, path, hops in pending.hellos:
            try:
                self._known(known, packet, path, hops, now)
            except DecodeError:
                self._counters["malformed"] += 1
            except AuthenticationError:
                self._counters["mac_failed"] += 1
        self.peer_added(known, now)

    def _collision(self, peer: Peer, identity: Identity, packet: bytes, path: Path, now: int) -> None:
        """Another key claims a known address: tell it so, in suite 1 under *its* key (vl1 §4.3), after gate and MAC."""
        if now - peer.last_collision_answered < COLLISION_GATE_MS or not self._pass_gate(path.remote, now):
            self._counters["hello_gated"] += 1
            return
        stranger = Peer(identity, self._identity)
        stranger.keys.open(packet)
        peer.last_collision_answered = now
        self._counters["identity_collision"] += 1
        body = Error(Verb.HELLO, int.from_bytes(packet[:8]), ErrorCode.IDENTITY_COLLISION).encode()
        self._sender.reply(stranger, path, Verb.ERROR, body, now, suite=1)

    def receive_hello(self, inbound: Inbound, now: int, packet: bytes | None = None) -> bool:
        """An authentic HELLO of a known peer; `packet` is the whole opened packet, if there is one."""
        peer, path = inbound.peer, inbound.path
        body = inbound.body
        offset = Hello.tail_offset(body)
        if offset is not None:
            whole = packet if packet is not None else inbound.packet_id.to_bytes(8) + bytes(20) + body
            body = peer.keys.crypt_field(whole, 28 + offset)[28:]
        hello = Hello.decode(body)
        if hello.protocol < 4 or hello.identity != peer.identity:
            self._counters["hello_refused"] += 1
            return False
        # Armoured before the version in this HELLO is recorded (vl1 §2.5.4).
        self._sender.reply(peer, path, Verb.OK, self._answer(hello, inbound), now)
        self._learn_version(peer, hello.protocol, (hello.major, hello.minor, hello.revision))
        if inbound.hops == 0 and hello.destination is not None:
            self._reported(inbound, hello.destination, now)
        self.hello_heard(peer, now)
        return True

    def _answer(self, hello: Hello, inbound: Inbound) -> bytes:
        seen = inbound.path.remote
        if hello.protocol < 5:
            seen = Endpoint(seen.ip, 0)
        planet = self._topology.planet
        worlds: list[bytes] = []
        if hello.planet_id == planet.id and (hello.planet_timestamp or 0) < planet.timestamp:
            worlds.append(planet.encode())
        listed = {moon.id: moon.timestamp for moon in (hello.moons or ())[:MAX_MOONS] if moon.type == WorldType.MOON}
        for moon_id, timestamp in listed.items():
            moon = self._topology.moons.get(moon_id)
            if moon is not None and timestamp < moon.timestamp:
                worlds.append(moon.encode())
        while sum(map(len, worlds)) > WORLDS_ROOM:
            worlds.pop()  # what the other one has by then it will not list as old in its next HELLO
        major, minor, revision = self._settings.version
        answer = OkHello(
            timestamp=hello.timestamp,
            protocol=PROTOCOL,
            major=major,
            minor=minor,
            revision=revision,
            reflected=seen,
            worlds=b"".join(worlds),
        )
        return Ok(Verb.HELLO, inbound.packet_id, answer.encode()).encode()

    def _learn_version(self, peer: Peer, protocol: int, version: tuple[int, int, int]) -> None:
        peer.protocol = protocol
        peer.version = version

    def _reported(self, inbound: Inbound, mine: Endpoint, now: int) -> None:
        trusted = self._topology.is_upstream(inbound.peer.address)
        path = inbound.path
        scope = self._awareness.report(inbound.peer.address, path.socket, path.remote, mine, trusted, now)
        if scope is not None:
            self._counters["address_changed"] += 1
            self._contact.address_changed(scope, now)

    def receive_ok_hello(self, inbound: Inbound, data: bytes, now: int) -> bool:
        """`data`: the body of the OK behind in-re verb and id."""
        ok = OkHello.decode(data)
        if ok.protocol < 4:
            return False
        peer, path = inbound.peer, inbound.path
        worlds: tuple[World, ...] = ()
        if ok.worlds and self._topology.believed(peer.address):
            worlds = parse_worlds(ok.worlds)
        if inbound.hops == 0:
            path.measured(now - ok.timestamp)
        self._learn_version(peer, ok.protocol, (ok.major, ok.minor, ok.revision))
        if inbound.hops == 0 and ok.reflected is not None:
            self._reported(inbound, ok.reflected, now)
        for world in worlds:
            wanted = world.type is WorldType.MOON and world.id in self._topology.wanted
            if self._topology.offer(world):
                self._counters[f"{world.type.name.lower()}_updated"] += 1
                self.world_changed(world, wanted, now)
        return True

    def receive_collision(self, inbound: Inbound, now: int) -> None:
        """ERROR(IDENTITY_COLLISION): believed from upstreams only (vl1 §4.5)."""
        if self._topology.is_upstream(inbound.peer.address):
            self._actions.append(NodeEvent("identity_collision", inbound.peer.address))
        else:
            self._counters["error_untrusted"] += 1

    # -- WHOIS --

    def receive_whois(self, inbound: Inbound, now: int) -> bool:
        """Answer for ourselves and for whom we know; ask our own upstream about others, so that a repeat may succeed."""
        peer = inbound.peer
        if not self._topology.is_root and now - peer.last_whois_answered < WHOIS_GATE_MS:
            self._counters["whois_gated"] += 1
            return False
        peer.last_whois_answered = now
        found: list[Identity] = []
        for address in Whois.decode(inbound.body).addresses[:MAX_WHOIS_ADDRESSES]:
            if address == self._identity.address:
                found.append(self._identity)
                continue
            known = self._topology.peers.get(address)
            if known is not None:
                found.append(known.identity)
            elif not self._topology.is_upstream(peer.address):
                self._sender.request_identity(address, now, for_others=True)
        if found:
            answer = Ok(Verb.WHOIS, inbound.packet_id, OkWhois(tuple(found)).encode())
            self._sender.reply(peer, inbound.path, Verb.OK, answer.encode(), now)
        return True

    def receive_ok_whois(self, inbound: Inbound, data: bytes, now: int) -> bool:
        """An identity we asked for: believed from upstreams only, and only after the derivation check (vl1 §9)."""
        identity = OkWhois.decode(data).identities[0]
        if not self._topology.is_upstream(inbound.peer.address):
            self._counters["whois_untrusted"] += 1
            return False
        address = identity.address
        if not self._sender.whois.wanted(address) or address in self._topology.peers:
            return True
        if (address, identity.public) not in self._pending and len(self._pending) < MAX_PENDING:
            self._examine(identity)
        return True


def parse_worlds(data: bytes) -> tuple[World, ...]:
    """Worlds back to back, as OK(HELLO) carries them."""
    reader = Reader(data)
    worlds = []
    while reader.remaining:
        worlds.append(World.decode(reader))
    return tuple(worlds)
