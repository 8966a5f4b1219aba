"""Many engines on a virtual fabric, on a virtual clock, deterministic for a seed.

    fabric = Fabric(seed=1, loss=0.02)
    root = fabric.add_root()
    ...
    fabric.run(5_000)          # five virtual seconds

The fabric delays, loses, duplicates and reorders datagrams, and can block pairs. Every datagram and frame goes into a running
digest, so that two runs can be compared. Memory-hard identity checks are replaced by an injected memo: the identities of the
fixture file are valid, all others are not.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from netcon.core.actions import (
    ALL_SOCKETS,
    Action,
    ConfigureNetwork,
    DeliverFrame,
    Endpoint,
    NodeEvent,
    PersistRecords,
    SendDatagram,
    StateKind,
    StoreState,
    ValidateIdentity,
)
from netcon.core.address import BROADCAST, groups_for_addresses, rfc4193_address, sixplane_address
from netcon.core.controller_role import (
    ConfigRequest,
    ControllerAction,
    ControllerRole,
    Persist,
    SendConfig,
    SendError,
    SendRevocations,
)
from netcon.core.credentials import (
    Capability,
    CertificateOfMembership,
    CertificateOfOwnership,
    CredentialType,
    Revocation,
    Tag,
    Thing,
)
from netcon.core.identity import Identity
from netcon.core.netconf import FLAG_NDP_EMULATION, NetworkConfig, Route
from netcon.core.node import Node, NodeSettings
from netcon.core.rules import decode_rules
from netcon.core.world import Root, World, make_planet

#: Virtual time at which a simulation begins, ms.
EPOCH = 1_700_000_000_000
#: How long the host takes for the memory-hard check, and for a commit, ms.
VALIDATION_MS = 20
COMMIT_MS = 3
WORLD_SECRET = bytes(range(64))
ACCEPT_ALL = bytes.fromhex("0100")

_TEXTS: list[str] = json.loads((Path(__file__).parent / "data" / "identities.json").read_text())
IDENTITIES = [Identity.parse(text) for text in _TEXTS]
_VALID = {(identity.address, identity.public) for identity in IDENTITIES}


def planet_of(roots: Iterable[tuple[Identity, Endpoint]], timestamp: int = 1) -> World:
    return make_planet(77, timestamp, [Root(identity, (endpoint,)) for identity, endpoint in roots], WORLD_SECRET)


class SimpleController:
    """The least controller that real members accept (vl2 §7.7), for tests of the engine that should not depend on the real one.

    One private network; members are authorised by address and get 10.9.0.x/24.
    """

    def __init__(self, identity: Identity, number: int = 1) -> None:
        self.identity = identity
        self.network = identity.address << 24 | number
        self.members: dict[int, Identity] = {}
        self.authorised: dict[int, bytes] = {}
        self.everybody = False
        self.public = False
        self.flags = 2
        self.mtu = 2_800
        self.multicast_limit = 32
        self.rules = ACCEPT_ALL
        self.specialists: tuple[int, ...] = ()
        self.trace = (0, 0)  # who wants remote traces, and from which level on
        #: Credentials by member address: tag id to value, rule lists of capabilities, things owned.
        self.tags: dict[int, dict[int, int]] = {}
        self.capabilities: dict[int, tuple[bytes, ...]] = {}
        self.owned: dict[int, tuple[Thing, ...]] = {}
        self.extra = b""
        self.requests = 0
        self._revision = 0
        self._ticket = 0
        self._held: dict[int, SendConfig] = {}
        self._actions: list[ControllerAction] = []

    def authorise(self, address: int) -> bytes:
        ip = self.authorised.get(address)
        if ip is None:
            count = len(self.authorised) + 1
            ip = self.authorised[address] = bytes((10, 9, count // 250, count % 250))
        return ip

    def deauthorise(self, address: int, now: int) -> None:
        del self.authorised[address]
        revocation = Revocation(
            id=now & 0xFFFF,
            network=self.network,
            credential_id=0,
            threshold=now,
            flags=1,
            target=address,
            credential_type=CredentialType.MEMBERSHIP,
        ).sign(self.identity)
        for member in self.authorised:
            if member in self.members or member == self.identity.address:
                self._actions.append(SendRevocations(member, (revocation.encode(),)))

    def push(self, now: int) -> None:
        for address in self.authorised:
            if address in self.members:
                self._actions.append(self._config(self.members[address], now, None))

    def request(self, request: ConfigRequest, now: int) -> None:
        self.requests += 1
        if request.network != self.network:
            self._actions.append(SendError(request.network, request.member.address, 3, request.packet_id))
            return
        if self.everybody:
            self.authorise(request.member.address)
        self.members[request.member.address] = request.member
        if request.member.address not in self.authorised:
            self._actions.append(SendError(request.network, request.member.address, 7, request.packet_id))
            return
        self._ticket += 1
        self._held[self._ticket] = self._config(request.member, now, request.packet_id)
        self._actions.append(Persist(self._ticket, (("member", f"{request.member.address:010x}", "{}"),)))

    def _config(self, member: Identity, now: int, packet_id: int | None) -> SendConfig:
        self._revision += 1
        ip = self.authorised[member.address]
        emulated: tuple[Endpoint, ...] = ()
        if self.flags & FLAG_NDP_EMULATION:
            emulated = (
                Endpoint(rfc4193_address(self.network, member.address), 88),
                Endpoint(sixplane_address(self.network, member.address), 40),
            )
        config = NetworkConfig(
            network=self.network,
            issued_to=member.address,
            timestamp=now,
            credential_time_max_delta=1_800_000,
            revision=self._revision,
            trace_target=self.trace[0],
            trace_level=self.trace[1],
            flags=self.flags,
            multicast_limit=self.multicast_limit,
            type=1 if self.public else 0,
            name="sim",
            mtu=self.mtu,
            membership=CertificateOfMembership.issue(self.network, member, now, 1_800_000, self.identity),
            routes=(Route(Endpoint(bytes((10, 9, 0, 0)), 16)),),
            addresses=(Endpoint(ip, 16), Endpoint(b"\xfd\x99" + bytes(10) + ip, 64), *emulated),
            rules=decode_rules(self.rules),
            specialists=self.specialists,
            tags=tuple(
                Tag(self.network, now, number, value, member.address).sign(self.identity)
                for number, value in sorted(self.tags.get(member.address, {}).items())
            ),
            capabilities=tuple(
                Capability(self.network, now, number, decode_rules(rules)).sign(self.identity, member.address)
                for number, rules in enumerate(self.capabilities.get(member.address, ()))
            ),
            ownerships=(
                (CertificateOfOwnership(self.network, now, 0, 1, self.owned[member.address], member.address).sign(self.identity),)
                if member.address in self.owned
                else ()
            ),
        )
        return SendConfig(self.network, member.address, config.to_dictionary() + self.extra, packet_id)

    def persisted(self, ticket: int, now: int) -> None:
        self._actions.append(self._held.pop(ticket))

    def background(self, now: int) -> int:
        return now + 60_000

    def take_actions(self) -> list[ControllerAction]:
        actions, self._actions = self._actions, []
        return actions


class Translator(Protocol):
    """A NAT box between hosts with private addresses and the fabric."""

    def outbound(self, inside: Endpoint, remote: Endpoint, now: int) -> Endpoint:
        """The public source of a datagram from `inside` to `remote`."""

    def inbound(self, public: Endpoint, source: Endpoint, now: int) -> Endpoint | None:
        """Who inside gets a datagram from `source` to `public`; None if nobody does."""


class SimNode:
    """One engine with the host around it: carries out its actions on the fabric.

    `endpoint` is where its first socket is bound, and `more` are those of others. A socket that is bound elsewhere gets a new
    number, as in the service; what is to leave from one that is no more leaves from all of the family (vl1 §5.13).
    """

    def __init__(
        self,
        fabric: Fabric,
        identity: Identity,
        endpoint: Endpoint,
        planet: World,
        controller: ControllerRole | None = None,
        settings: NodeSettings = NodeSettings(),  # noqa: B008 - immutable
        nat: Translator | None = None,
        more: Iterable[Endpoint] = (),
    ) -> None:
        self.fabric = fabric
        self.socket = 1
        self.more = dict(enumerate(more, 2))
        self._sockets = 1 + len(self.more)
        self.nat = nat
        self.identity = identity
        self.endpoint = endpoint
        self.controller = controller
        self.settings = settings
        self.stored: dict[tuple[StateKind, int], bytes] = {}
        self.frames: list[DeliverFrame] = []
        self.events: list[NodeEvent] = []
        self.persisted: list[PersistRecords] = []
        self.on_frame: Callable[[DeliverFrame], None] | None = None
        self.extra_groups: set[object] = set()
        self.wakeups = 0
        self.sent = 0
        self.started = 0
        self.running = False
        self._timer = 0
        self._timer_at = 0
        self._incarnation = 0
        self.start(planet)

    def start(self, planet: World) -> None:
        """Make the engine; what it stored before is there again, as from a home folder."""
        self._incarnation += 1
        self.started = self.fabric.now
        generator = random.Random(f"{self.fabric.seed} {self.identity.address} {self._incarnation}")
        self.node = Node(
            self.identity,
            planet,
            random=generator.randbytes,
            now=self.fabric.now,
            settings=self.settings,
            controller=self.controller,
        )
        self.running = True
        for place in self.sockets.values():
            self.fabric.hosts[place] = self
        self.node.set_local_endpoints(self.sockets.values())
        self.background()

    @property
    def sockets(self) -> dict[int, Endpoint]:
        return {self.socket: self.endpoint, **self.more}

    def stop(self) -> None:
        """Gone without a word, as after kill -9."""
        self.running = False
        self._timer += 1
        self._unplug()

    def _unplug(self) -> None:
        for place in self.sockets.values():
            if self.fabric.hosts.get(place) is self:
                del self.fabric.hosts[place]

    def move(self, endpoint: Endpoint | None = None, more: Iterable[Endpoint] | None = None, *, told: bool = True) -> None:
        """The machine's addresses change: sockets are closed and bound anew, under new numbers. `more`: of all others, if those
        change. Not `told`: the address changes behind the sockets' back, as that of a NAT box does."""
        self._unplug()
        if endpoint is not None and endpoint != self.endpoint:
            self.endpoint = endpoint
            if told:
                self._sockets += 1
                self.socket = self._sockets
        if more is not None:
            wanted = list(more)
            kept = {number: place for number, place in self.more.items() if place in wanted}
            for place in wanted:
                if place not in kept.values():
                    self._sockets += 1
                    kept[self._sockets] = place
            self.more = kept
        for place in self.sockets.values():
            self.fabric.hosts[place] = self
        if told:
            self.node.set_local_endpoints(self.sockets.values(), self.fabric.now)
            self.perform()

    def restart(self, endpoint: Endpoint | None = None, *, peers: bool = False) -> None:
        """Start again with the stored networks, at the same endpoint or another; and with the stored `peers`, or without."""
        planet = self.node.planet
        self.stop()
        self.endpoint = endpoint or self.endpoint
        self.start(planet)
        for (kind, _), data in list(self.stored.items()):
            if kind is StateKind.PEER and peers:
                self.node.load_peer(data, self.fabric.now)
        self.perform()
        for (kind, key), data in list(self.stored.items()):
            if kind is StateKind.NETWORK:
                self.join(key, data)

    # -- calls --

    def background(self) -> None:
        self.node.background(self.fabric.now)
        self.perform()

    def join(self, network: int, cached: bytes | None = None) -> None:
        self.node.join(network, self.fabric.now, cached)
        self.perform()

    def receive(self, remote: Endpoint, data: bytes) -> None:
        self.receive_at(self.socket, remote, data)

    def receive_at(self, socket: int, remote: Endpoint, data: bytes) -> None:
        self.node.receive_datagram(socket, remote, data, self.fabric.now)
        self.perform()

    def send_frame(self, network: int, destination: bytes, ethertype: int, payload: bytes, source: bytes | None = None) -> None:
        status = self.node.network(network)
        assert status is not None
        self.node.receive_frame(network, destination, source or status.mac, ethertype, payload, self.fabric.now)
        self.perform()

    def status(self, network: int) -> str:
        status = self.node.network(network)
        assert status is not None
        return status.status.name

    def mac(self, network: int) -> bytes:
        status = self.node.network(network)
        assert status is not None
        return status.mac

    def ip(self, network: int) -> bytes:
        status = self.node.network(network)
        assert status is not None
        assert status.config is not None
        return status.config.addresses[0].ip

    def direct(self, other: SimNode) -> bool:
        """Whether we have an unexpired direct path to `other`."""
        peers = {peer.address: peer for peer in self.node.peers(self.fabric.now)}
        peer = peers.get(other.identity.address)
        return peer is not None and any(not path.expired for path in peer.paths)

    def take_frames(self) -> list[DeliverFrame]:
        frames, self.frames = self.frames, []
        return frames

    # -- actions --

    def perform(self) -> None:
        """Carry out what the engine wants, and set the timer."""
        fabric = self.fabric
        while actions := self.node.take_actions():
            for action in actions:
                self._perform(action)
        deadline = max(self.node.next_deadline(), fabric.now + 1)
        if self.running and deadline != self._timer_at:
            self._timer += 1
            self._timer_at = deadline
            fabric.at(deadline, self._wake, self._timer)

    def _perform(self, action: Action) -> None:
        fabric = self.fabric
        match action:
            case SendDatagram():
                assert action.socket == ALL_SOCKETS or 1 <= action.socket <= self._sockets
                self.sent += 1
                sockets = self.sockets
                for source in [sockets[action.socket]] if action.socket in sockets else sockets.values():
                    if len(source.ip) == len(action.remote.ip):
                        fabric.transmit(self, source, action.remote, action.data, action.ttl)
            case DeliverFrame():
                fabric.note(b"frame", self.identity.address.to_bytes(5), action.payload)
                self.frames.append(action)
                if self.on_frame is not None:
                    self.on_frame(action)
            case ValidateIdentity():
                self._later(VALIDATION_MS, self._validated, action.identity)
            case PersistRecords():
                self.persisted.append(action)
                self._later(COMMIT_MS, self._committed, action.ticket)
            case StoreState(kind, key, data):
                if data is None:
                    self.stored.pop((kind, key), None)
                else:
                    self.stored[(kind, key)] = data
            case ConfigureNetwork():
                self._configure(action.network)
            case NodeEvent():
                self.events.append(action)

    def _later(self, delay: int, call: Callable[[object], None], argument: object) -> None:
        incarnation = self._incarnation

        def run(_: object) -> None:
            if self.running and incarnation == self._incarnation:
                call(argument)

        self.fabric.at(self.fabric.now + delay, run, None)

    def _validated(self, identity: object) -> None:
        assert isinstance(identity, Identity)
        self.node.identity_validated(identity, (identity.address, identity.public) in _VALID, self.fabric.now)
        self.perform()

    def _committed(self, ticket: object) -> None:
        assert isinstance(ticket, int)
        self.node.records_persisted(ticket, self.fabric.now)
        self.perform()

    def _wake(self, timer: object) -> None:
        if timer == self._timer:
            self.wakeups += 1
            self._timer_at = 0
            self.background()

    def _configure(self, network: int) -> None:
        """What a host does with a configuration: its stack takes the addresses and listens to their groups."""
        status = self.node.network(network)
        if status is not None and status.config is not None:
            groups = groups_for_addresses(ip for ip, _ in status.config.addresses)
            self.node.set_multicast_groups(network, {*groups, BROADCAST, *self.extra_groups}, self.fabric.now)  # type: ignore[arg-type]


class Fabric:
    """The wires and the clock. `latency`: range of one-way delay, ms; `loss`, `duplicate`, `reorder`: probabilities."""

    def __init__(
        self,
        seed: int = 1,
        *,
        latency: tuple[int, int] = (2, 6),
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        self.seed = seed
        self.now = EPOCH
        self.latency = latency
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.hosts: dict[Endpoint, SimNode] = {}
        #: NAT boxes by their public address.
        self.nats: dict[bytes, Translator] = {}
        self.blocked: set[frozenset[Endpoint]] = set()
        self.tap: Callable[[SimNode, Endpoint, bytes], bool] | None = None
        self.datagrams = 0
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[object], None], object]] = []
        self._sequence = 0
        self._digest = hashlib.sha256()
        self._last: dict[tuple[Endpoint, Endpoint], int] = {}

    def at(self, time: int, call: Callable[[object], None], argument: object) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, call, argument))

    def note(self, *parts: bytes) -> None:
        """Add something to the digest of this run."""
        self._digest.update(self.now.to_bytes(8))
        for part in parts:
            self._digest.update(part)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def block(self, one: SimNode, other: SimNode) -> None:
        self.blocked.add(frozenset((one.endpoint, other.endpoint)))

    def unblock(self, one: SimNode, other: SimNode) -> None:
        self.blocked.discard(frozenset((one.endpoint, other.endpoint)))

    def transmit(self, sender: SimNode, source: Endpoint, remote: Endpoint, data: bytes, ttl: int = 0) -> None:
        bound = source
        host = self.hosts.get(remote)
        if host is not None and host.nat is not None:
            if host.nat is not sender.nat:
                return  # a private address is not reached from elsewhere
        elif sender.nat is not None:
            source = sender.nat.outbound(source, remote, self.now)
        if ttl:
            return  # dies on the way, behind our own NAT
        self.datagrams += 1
        self.note(bound.ip, remote.ip, data)
        if self.tap is not None and not self.tap(sender, remote, data):
            return
        if frozenset((bound, remote)) in self.blocked:
            return
        copies = 2 if self._random.random() < self.duplicate else 1
        for _ in range(copies):
            if self._random.random() < self.loss:
                continue
            arrival = self.now + self._random.randint(*self.latency)
            key = (source, remote)
            if self._random.random() < self.reorder:
                arrival += 20
            else:
                # Without reordering a link is first in, first out.
                arrival = self._last[key] = max(arrival, self._last.get(key, 0))
            self.at(arrival, self._arrive, (source, remote, data))

    def _arrive(self, event: object) -> None:
        source, remote, data = event  # type: ignore[misc]
        nat = self.nats.get(remote.ip)
        if nat is not None:
            remote = nat.inbound(remote, source, self.now)
        host = self.hosts.get(remote)
        if host is not None:
            host.receive_at(next(number for number, place in host.sockets.items() if place == remote), source, data)

    def run(self, duration: int) -> None:
        """Let `duration` ms of virtual time pass."""
        end = self.now + duration
        while self._events and self._events[0][0] <= end:
            time, _, call, argument = heapq.heappop(self._events)
            self.now = max(self.now, time)
            call(argument)
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: int = 60_000) -> int:
        """Run until `condition()`; returns the ms it took. Fails after `limit` virtual ms."""
        start = self.now
        while not condition():
            if not self._events or self._events[0][0] > start + limit:
                raise AssertionError(f"not reached within {limit} virtual ms")
            time, _, call, argument = heapq.heappop(self._events)
            self.now = max(self.now, time)
            call(argument)
        return self.now - start


class Lab:
    """A private world: one root, a controller, members. Node n lives at 10.0.n.1 (a /24 of its own: the prefix gate, vl1 §4.3)."""

    def __init__(self, members: int = 2, *, seed: int = 1, controller_is_root: bool = False, **fabric: object) -> None:
        self.fabric = Fabric(seed, **fabric)  # type: ignore[arg-type]
        self.root_identity = IDENTITIES[0]
        root_endpoint = self.endpoint(0)
        self.planet = planet_of([(self.root_identity, root_endpoint)])
        controller_identity = self.root_identity if controller_is_root else IDENTITIES[1]
        self.control = SimpleController(controller_identity)
        self.control.everybody = True
        self.root = SimNode(
            self.fabric,
            self.root_identity,
            root_endpoint,
            self.planet,
            self.control if controller_is_root else None,
        )
        self.controller = self.root if controller_is_root else self.add(1, self.control)
        self.network = self.control.network
        self.members = [self.add(number + 2) for number in range(members)]

    @staticmethod
    def endpoint(number: int) -> Endpoint:
        return Endpoint(bytes((10, 0, number, 1)), 9993)

    def add(self, number: int, controller: ControllerRole | None = None, settings: NodeSettings | None = None) -> SimNode:
        return SimNode(
            self.fabric,
            IDENTITIES[number],
            self.endpoint(number),
            self.planet,
            controller,
            settings or NodeSettings(),
        )

    def join_all(self) -> None:
        """Every member joins and gets its configuration."""
        for member in self.members:
            member.join(self.network)
        self.fabric.run_until(lambda: all(member.status(self.network) == "OK" for member in self.members))

    def new_planet(self, timestamp: int) -> World:
        return replace(planet_of([(self.root_identity, self.root.endpoint)], timestamp))


def arp_request(sender_mac: bytes, sender_ip: bytes, target_ip: bytes) -> bytes:
    return b"".join((bytes.fromhex("0001080006040001"), sender_mac, sender_ip, bytes(6), target_ip))


def arp_reply(sender_mac: bytes, sender_ip: bytes, target_mac: bytes, target_ip: bytes) -> bytes:
    return b"".join((bytes.fromhex("0001080006040002"), sender_mac, sender_ip, target_mac, target_ip))
