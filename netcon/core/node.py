"""The node: a complete, sans-I/O ZeroTier node (vl1 §8). Bytes, frames and `now` go in, actions come out.

The way of a packet: `receive_datagram` (relay, reassembly) → `_decode` (identity known? MAC, decryption) → `_opened`
(decompression) → `_dispatch` (the verb's handler) → `_received` (what an authentic packet teaches: versions, paths, vl1 §5.4).
The native switch enters at `receive_opened`, behind the decryption.

The handlers live in modules named for their subject: `hello`, `contact`, `root`, `credential_exchange`, `frames`, `multicast`,
`controller_host`; `Node` connects them and keeps time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from netcon.core.actions import Action, ConfigureNetwork, NodeEvent, StateKind, StoreState
from netcon.core.address import Endpoint, MulticastGroup
from netcon.core.buffer import Reader
from netcon.core.config_client import ConfigClient
from netcon.core.contact import Contact
from netcon.core.controller_host import ControllerHost
from netcon.core.controller_role import ControllerRole
from netcon.core.credential_exchange import CredentialExchange
from netcon.core.errors import DecodeError, NetconError
from netcon.core.filtering import Filter
from netcon.core.frames import Frames
from netcon.core.hello import Acquaintance
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.messages import NetworkCredentials, RemoteTrace, UserMessage
from netcon.core.multicast import Multicast
from netcon.core.netconf import check_token
from netcon.core.network import EAGER_RETRY_MS, Network, NetworkStatus
from netcon.core.packet import ErrorCode, Verb, decompress_body
from netcon.core.path import NEVER, TRUST_MS, Path, PathPolicy, PathTable
from netcon.core.peer import Peer, PeerStatus, parse_cache
from netcon.core.physical import PeerHints, Physical, PhysicalNetwork
from netcon.core.queues import WHOIS_PERIOD_MS, WaitingRoom
from netcon.core.reassembly import Reassembler
from netcon.core.root import Relay
from netcon.core.selfawareness import SelfAwareness
from netcon.core.sender import Sender
from netcon.core.settings import NodeSettings
from netcon.core.topology import Topology
from netcon.core.trace import MAX_WAITING, Trace
from netcon.core.world import MoonStatus, World, WorldType
from netcon.dataplane.crypto import CryptoError

#: Drop what is idle (vl1 §1.3), ms.
HOUSEKEEPING_MS = 30_000
#: In clear, on trusted paths (vl1 §2.5).
TRUSTED_SUITE = 2
#: Verbs that say "this peer is in use" (vl1 §5.1).
_NONTRIVIAL = frozenset(
    {Verb.FRAME, Verb.EXT_FRAME, Verb.NETWORK_CONFIG_REQUEST, Verb.NETWORK_CONFIG, Verb.MULTICAST_FRAME},
)

Handler = Callable[[Inbound, int], bool]


class Node:
    """One node. Nothing here blocks, and nothing that arrives makes a call raise: see `counters`.

    `random(n)` returns n unpredictable bytes. All times are ms since the Unix epoch. After each call, carry out `take_actions()`;
    call `background` when `next_deadline` has come.
    """

    def __init__(
        self,
        identity: Identity,
        planet: World,
        *,
        random: Callable[[int], bytes],
        now: int,
        settings: NodeSettings = NodeSettings(),  # noqa: B008 - immutable
        controller: ControllerRole | None = None,
    ) -> None:
        if identity.secret is None:
            raise NetconError("a node needs an identity with its secret; load identity.secret, not identity.public")
        #: What was dropped, refused or done, by reason.
        self.counters: Counter[str] = Counter()
        self.settings = settings
        self.identity = identity
        self.address = identity.address
        self.online = False
        self._actions: list[Action] = []
        self._address_bytes = identity.address.to_bytes(5)
        self._paths = PathTable()
        self._physical = Physical()
        self._policy = PathPolicy(settings.allow_loopback_paths, self._physical)
        self._topology = Topology(identity, planet)
        self._peers = self._topology.peers
        self._networks: dict[int, Network] = {}
        self._reassembler = Reassembler()
        self._awareness = SelfAwareness()
        self._sender = Sender(identity, self._topology, settings, random, self._actions, self.counters, self._physical)
        self._contact = Contact(
            identity,
            self._topology,
            self._paths,
            self._policy,
            self._awareness,
            self._sender,
            settings,
            random,
            self.counters,
            self._physical,
            now,
        )
        self._acquaintance = Acquaintance(
            identity,
            self._topology,
            self._awareness,
            self._contact,
            self._sender,
            settings,
            self._actions,
            self.counters,
        )
        self._acquaintance.received = self._received
        self._acquaintance.peer_added = self._peer_added
        self._acquaintance.world_changed = self._world_changed
        self._relay = Relay(self._topology, self._sender, self.counters)
        self._credentials = CredentialExchange(identity, self._topology, self._networks, self._sender, self.counters)
        self._credentials.member_changed = self._member_changed
        self._credentials.wait_for_identity = self._wait_for_identity
        self._contact.wait_for_identity = self._wait_for_identity
        self._contact.always_contact = self._always_contact
        self._controller_host = ControllerHost(identity, self._sender, random, self._actions, self.counters, controller)
        self._controller_host.own_revocations = self._own_revocations
        self._trace = Trace(self._sender, self._actions, self.counters)
        self._filters = Filter(self._sender, self._credentials, self._trace, random, self.counters)
        self._multicast = Multicast(
            self.address,
            self._topology,
            self._networks,
            self._sender,
            self._credentials,
            self._filters,
            random,
            self.counters,
        )
        self._multicast.authorised = self._controller_host.authorised
        self._acquaintance.hello_heard = self._multicast.announce_to_restarted
        self._frames = Frames(
            self._networks,
            self._sender,
            self._credentials,
            self._multicast,
            self._filters,
            self._trace,
            self._actions,
            self.counters,
            random,
        )
        self._frames.wait_for_member = self._wait_for_member
        self._configs = ConfigClient(
            identity,
            self._topology,
            self._networks,
            self._sender,
            self._credentials,
            self._controller_host,
            settings,
            self._actions,
            self.counters,
        )
        self._configs.configured = self._configured
        self._strangers: WaitingRoom[tuple[bytes, Path]] = WaitingRoom()
        self._deferred: WaitingRoom[Inbound] = WaitingRoom()
        self._next_queue = now
        self._last_background = now
        self._next_housekeeping = now + HOUSEKEEPING_MS
        self._handlers = self._make_handlers()
        if self._topology.is_root:
            self._set_online(now)

    def _make_handlers(self) -> list[Handler]:
        handlers: list[Handler] = [self._ignore] * 32
        handlers[Verb.HELLO] = self._acquaintance.receive_hello
        handlers[Verb.ERROR] = self._receive_error
        handlers[Verb.OK] = self._receive_ok
        handlers[Verb.WHOIS] = self._acquaintance.receive_whois
        handlers[Verb.RENDEZVOUS] = self._contact.receive_rendezvous
        handlers[Verb.FRAME] = self._frames.receive_frame
        handlers[Verb.EXT_FRAME] = self._frames.receive_ext_frame
        handlers[Verb.ECHO] = self._contact.receive_echo
        handlers[Verb.MULTICAST_LIKE] = self._multicast.receive_like
        handlers[Verb.NETWORK_CREDENTIALS] = self._credentials.receive
        handlers[Verb.NETWORK_CONFIG_REQUEST] = self._controller_host.receive_request
        handlers[Verb.NETWORK_CONFIG] = self._configs.receive_push
        handlers[Verb.MULTICAST_GATHER] = self._multicast.receive_gather
        handlers[Verb.MULTICAST_FRAME] = self._frames.receive_multicast_frame
        handlers[Verb.PUSH_DIRECT_PATHS] = self._contact.receive_push
        handlers[Verb.USER_MESSAGE] = self._receive_user_message
        handlers[Verb.REMOTE_TRACE] = self._receive_trace
        # Between bonded peers only; a node without bonds drops them, and they count for nothing (vl1 §4.14).
        for verb in (Verb.ACK, Verb.QOS_MEASUREMENT, Verb.PATH_NEGOTIATION_REQUEST):
            handlers[verb] = self._refuse
        return handlers

    # -- properties --

    @property
    def planet(self) -> World:
        return self._topology.planet

    @property
    def controller(self) -> ControllerRole | None:
        return self._controller_host.controller

    @controller.setter
    def controller(self, controller: ControllerRole | None) -> None:
        self._controller_host.attach(controller)

    @property
    def tracing(self) -> bool:
        """Whether the host gets a `trace` event for each frame that is dropped, with the reason."""
        return self._trace.local

    @tracing.setter
    def tracing(self, wanted: bool) -> None:
        self._trace.local = wanted

    @property
    def is_root(self) -> bool:
        """Whether our own identity is among the roots of the planet."""
        return self._topology.is_root

    # -- what arrives --

    def receive_datagram(self, socket: int, remote: tuple[bytes, int], data: bytes, now: int) -> None:
        """One UDP datagram, as the host received it. Never raises for anything in `data`."""
        path = self._paths[socket, remote]
        path.last_in = now
        size = len(data)
        if size <= 16:
            self.counters["junk"] += 1  # NAT punching, beacons of old versions
            return
        try:
            if data[13] == 0xFF:
                if data[8:13] != self._address_bytes:
                    self._relay.piece(data, path, now)
                    return
                whole = self._reassembler.piece(data, path, now)
                if whole is not None:
                    self._decode(whole[0], whole[1], now)
            elif size < 28 or data[13:18] == self._address_bytes:
                self.counters["junk"] += 1
            elif data[8:13] != self._address_bytes:
                self._relay.packet(data, path, now)
            elif data[18] & 0x40:
                whole = self._reassembler.head(data, path, now)
                if whole is not None:
                    self._decode(whole[0], whole[1], now)
            else:
                self._decode(data, path, now)
        except NetconError:
            self.counters["malformed"] += 1

    def receive_opened(
        self, packet: bytes, wire_id: int, socket: int, remote: tuple[bytes, int], hops: int, suite: int, now: int
    ) -> None:
        """A whole packet for us that the native switch has opened: authentic, body in clear, perhaps still compressed.

        `wire_id`: the packet id on the wire. The same as `receive_datagram` from the point of decryption on.
        """
        path = self._paths[socket, remote]
        path.last_in = now
        peer = self._peers.get(int.from_bytes(packet[13:18]))
        if peer is None:
            self.counters["opened_unknown_peer"] += 1
            return
        try:
            self._opened(peer, path, packet, wire_id, hops, now)
        except NetconError:
            self.counters["malformed"] += 1

    def _decode(self, packet: bytes, path: Path, now: int) -> None:
        flags = packet[18]
        suite = flags >> 3 & 7
        try:
            if suite == 0 and packet[27] & 0x1F == Verb.HELLO:
                self._acquaintance.receive_raw(packet, path, flags & 7, now)
                return
            if suite == TRUSTED_SUITE and not self._on_trusted_path(packet, path):
                self.counters["trusted_path_refused"] += 1
                return
            peer = self._peers.get(int.from_bytes(packet[13:18]))
            if peer is None:
                self._from_stranger(packet, path, now)
                return
            opened = packet if suite == TRUSTED_SUITE else peer.keys.open(packet)
        except CryptoError:
            self.counters["mac_failed"] += 1
            return
        self._opened(peer, path, opened, int.from_bytes(packet[:8]), flags & 7, now)

    def _on_trusted_path(self, packet: bytes, path: Path) -> bool:
        """The only check of suite 2: it comes from a network for which the user configured the id that it shows (vl1 §2.5.3)."""
        return int.from_bytes(packet[19:27]) == self._physical.trusted_path(path.remote.ip) != 0

    def _from_stranger(self, packet: bytes, path: Path, now: int) -> None:
        """We do not know who this is: ask, and keep the packet meanwhile (vl1 §4.1, 6c)."""
        source = int.from_bytes(packet[13:18])
        suite = packet[18] >> 3 & 7
        if source == 0 or suite not in (0, 1, TRUSTED_SUITE, 3):
            self.counters["junk"] += 1
            return
        self.counters["from_stranger"] += 1
        self._strangers.hold(source, (packet, path), now)
        self._sender.request_identity(source, now, for_others=True)

    def _opened(self, peer: Peer, path: Path, packet: bytes, wire_id: int, hops: int, now: int) -> None:
        verb = packet[27]
        body = packet[28:]
        if verb & 0x80:
            body = decompress_body(body)
        self._dispatch(Inbound(peer, path, hops, wire_id, verb & 0x1F, body, now), now)

    def _dispatch(self, inbound: Inbound, now: int) -> None:
        if self._handlers[inbound.verb](inbound, now):
            self._received(inbound, now)

    def _received(self, inbound: Inbound, now: int) -> None:
        """What a counted packet teaches about its sender (vl1 §5.4)."""
        peer, path = inbound.peer, inbound.path
        peer.last_receive = now
        if inbound.verb in _NONTRIVIAL:
            peer.last_nontrivial = now
        if inbound.trusted:
            peer.last_trusted = path.last_trusted = now
        if not self.online and peer.address in self._topology.root_endpoints:
            self._set_online(now)
        if inbound.hops == 0:
            entry = peer.entry(path)
            if entry is not None:
                if entry.heard(now):
                    peer.forget_choice()
                if not peer.chosen(entry) and inbound.verb in _NONTRIVIAL:
                    self._contact.doubt(peer, now)
            elif self._contact.usable(peer, path.remote):
                self._from_another_path(inbound, now)
        elif inbound.verb in _NONTRIVIAL:
            self._contact.doubt(peer, now)  # why does it not come directly?
        if now - peer.last_trusted <= TRUST_MS:
            self._contact.maybe_push(inbound, now)

    def _from_another_path(self, inbound: Inbound, now: int) -> None:
        """A direct packet on a path that may be used and is none of the peer's (vl1 §5.4 b to e)."""
        peer, path = inbound.peer, inbound.path
        rival = peer.same_address_alive(path, now)
        if rival is not None and not rival.unanswered(now):
            # Another port of the same machine. The reference waits for the old one to be dead (19 s); we ask it.
            self._contact.doubt(peer, now)
        elif inbound.accepted_ok:
            self._learn_path(peer, path, now)
        elif peer.may_confirm(path, now):
            self._contact.hello(peer, path, now)

    def _learn_path(self, peer: Peer, path: Path, now: int) -> None:
        first = peer.best_path(now) is None
        peer.learn(path, now)
        if first:  # one more of several is no news
            self._actions.append(NodeEvent("path_learned", peer.address))
            # Not at shutdown alone, as in the reference: a root that was killed greets whom it knew, and they announce themselves.
            self._actions.append(StoreState(StateKind.PEER, peer.address, peer.to_cache()))
        self._contact.doubt(peer, now)
        if peer.address in self._topology.root_endpoints:
            self._sender.flush_all(now)
            self._configs.reachable(now)
            self._multicast.announce_again()
            for network in self._networks.values():
                self._multicast.announce(network, now)
        else:
            self._sender.flush(peer.address, now)

    # -- packets that wait --

    def _wait_for_identity(self, address: int, inbound: Inbound, now: int) -> None:
        self._deferred.hold(("identity", address), inbound, inbound.since)
        self._sender.request_identity(address, now)

    def _wait_for_member(self, network: int, inbound: Inbound, now: int) -> None:
        self._deferred.hold(("member", network, inbound.peer.address), inbound, inbound.since)

    def _retry(self, key: tuple[str, int] | tuple[str, int, int], now: int) -> None:
        for inbound in self._deferred.release(key, now):
            try:
                self._dispatch(inbound, now)
            except NetconError:
                self.counters["malformed"] += 1

    def _peer_added(self, peer: Peer, now: int) -> None:
        """An identity became known: everything that waited for it goes on (vl1 §5.7)."""
        address = peer.address
        self._sender.whois.answered(address)
        if address in self._topology.wanted.values():
            self._contact.next_tick = now
        self._configs.reachable(now, address)
        self._sender.flush(address, now)
        for packet, path in self._strangers.release(address, now):
            try:
                self._decode(packet, path, now)
            except NetconError:
                self.counters["malformed"] += 1
        self._retry(("identity", address), now)

    def _always_contact(self) -> Iterator[int]:
        for network in self._networks.values():
            yield from network.always_contact

    def _member_changed(self, network: Network, address: int, now: int) -> None:
        self._retry(("member", network.id, address), now)

    def _own_revocations(self, message: NetworkCredentials, now: int) -> None:
        self._credentials.accept(message, self.address, now)

    # -- replies --

    def _receive_ok(self, inbound: Inbound, now: int) -> bool:
        """An OK counts only if it answers something we sent to that peer (vl1 §4.6)."""
        body = inbound.body
        if len(body) < 9 or not self._sender.expected.matches(int.from_bytes(body[1:9]), inbound.peer.address):
            self.counters["ok_unexpected"] += 1
            return False
        inbound.accepted_ok = True
        data = body[9:]
        match body[0]:
            case Verb.HELLO:
                return self._acquaintance.receive_ok_hello(inbound, data, now)
            case Verb.WHOIS:
                return self._acquaintance.receive_ok_whois(inbound, data, now)
            case Verb.NETWORK_CONFIG_REQUEST:
                self._configs.receive_chunk(inbound, data, now)
            case Verb.MULTICAST_GATHER:
                self._multicast.receive_ok_gather(data, now)
            case Verb.MULTICAST_FRAME:
                self._multicast.receive_ok_frame(inbound, data, now)
        return True

    def _receive_error(self, inbound: Inbound, now: int) -> bool:
        """Errors are not matched with what we sent: each code has its own rule of trust (vl1 §4.5)."""
        reader = Reader(inbound.body)
        in_re = reader.u8()
        reader.u64()
        code = reader.u8()
        if code == ErrorCode.IDENTITY_COLLISION:
            self._acquaintance.receive_collision(inbound, now)
            return True
        if reader.remaining < 8:
            return True
        network = self._networks.get(reader.u64())
        if network is None:
            return True
        match code:
            case ErrorCode.NEED_MEMBERSHIP_CERTIFICATE:
                self._credentials.push_on_request(network, inbound.peer.address, now)
            case ErrorCode.UNWANTED_MULTICAST:
                if network.permitted(inbound.peer):
                    self._multicast.unwanted(network.id, MulticastGroup(reader.bytes(6), reader.u32()), inbound.peer.address)
            case _ if inbound.peer.address == network.controller:
                self._configs.receive_error(network, in_re, code, reader)
        return True

    # -- small verbs --

    def _ignore(self, inbound: Inbound, now: int) -> bool:
        """NOP, and verbs that we do not know: they count as received (vl1 §4.1)."""
        return True

    def _refuse(self, inbound: Inbound, now: int) -> bool:
        return False

    def _receive_user_message(self, inbound: Inbound, now: int) -> bool:
        UserMessage.decode(inbound.body)
        self._actions.append(NodeEvent("user_message", inbound.peer.address, inbound.body))
        return True

    def _receive_trace(self, inbound: Inbound, now: int) -> bool:
        for event in RemoteTrace.decode(inbound.body).events[:MAX_WAITING]:
            self._actions.append(NodeEvent("remote_trace", inbound.peer.address, event))
        return True

    # -- what the host asks for --

    def receive_frame(self, network: int, destination: bytes, source: bytes, ethertype: int, payload: bytes, now: int) -> None:
        """A frame from the local port of `network`. MACs are 6 bytes."""
        self._frames.from_port(network, destination, source, ethertype, payload, now)

    def identity_validated(self, identity: Identity, valid: bool, now: int) -> None:
        """The host's answer to `ValidateIdentity`."""
        try:
            self._acquaintance.validated(identity, valid, now)
        except NetconError:
            self.counters["malformed"] += 1

    def records_persisted(self, ticket: int, now: int) -> None:
        """The host committed the records of `PersistRecords(ticket)`."""
        self._controller_host.persisted(ticket, now)

    def controller_changed(self, now: int) -> None:
        """The host called the controller's management; take what follows from it."""
        self._controller_host.take(now)
        self._controller_host.next_deadline = now

    def join(self, network: int, now: int, cached: bytes | None = None, token: str = "") -> None:
        """Join a network; no effect if joined, but for `token`. `cached`: its last configuration, which is used until a fresh one
        comes. `token`: a secret of its owner's that authorises us at once. It is stored, and shown to the controller, until we are
        let in. NetconError if it is no token."""
        if token:
            check_token(token)
        if network in self._networks:
            if token:
                self._use_token(self._networks[network], token, now)
            return
        joined = self._networks[network] = Network(network, self.identity)
        if token:
            joined.token = token
            self._actions.append(StoreState(StateKind.JOIN_TOKEN, network, token.encode()))
        if cached is not None and joined.load(cached):
            self._configured(joined, now)
        else:
            # The file's presence makes the host join again at the next start (vl2 §6.5).
            self._actions.append(StoreState(StateKind.NETWORK, network, b"\n"))
            self._actions.append(ConfigureNetwork(network))
        self._configs.request(joined, now)

    def _use_token(self, network: Network, token: str, now: int) -> None:
        if network.failure is None and network.config is not None and not network.unanswered:
            return  # we are in
        network.token = token
        self._actions.append(StoreState(StateKind.JOIN_TOKEN, network.id, token.encode()))
        self._configs.request(network, now)
        # The controller's gate may be shut by our last request, which did not show it.
        network.next_request = now + EAGER_RETRY_MS

    def leave(self, network: int, now: int) -> None:
        """Leave a network and forget everything about it; no effect if not joined. Nothing is sent."""
        left = self._networks.pop(network, None)
        if left is None:
            return
        if left.token:
            self._actions.append(StoreState(StateKind.JOIN_TOKEN, network, None))
        self._multicast.left(network)
        self._update_virtual_prefixes()
        self._actions.append(ConfigureNetwork(network))
        self._actions.append(StoreState(StateKind.NETWORK, network, None))

    def networks(self) -> list[NetworkStatus]:
        return [network.status() for network in self._networks.values()]

    def network(self, network: int) -> NetworkStatus | None:
        """None if not joined."""
        joined = self._networks.get(network)
        return None if joined is None else joined.status()

    def set_port_error(self, network: int, failed: bool) -> None:
        """The host could not set up the network's port, or could again (vl2 §6.4)."""
        joined = self._networks.get(network)
        if joined is not None:
            joined.port_failed = failed

    def set_added_addresses(self, network: int, addresses: Iterable[Endpoint]) -> None:
        """Addresses that the host gave the port of `network` beside those of its configuration, with their prefix lengths: what
        lies in their blocks is no path to anybody either (vl1 §5.4)."""
        joined = self._networks.get(network)
        added = tuple(addresses)
        if joined is not None and added != joined.added_addresses:
            joined.added_addresses = added
            self._update_virtual_prefixes()

    def set_multicast_groups(self, network: int, groups: Iterable[MulticastGroup], now: int) -> None:
        """All groups that the port of `network` listens to; the broadcast group need not be among them."""
        joined = self._networks.get(network)
        if joined is None:
            raise NetconError(f"network {network:016x} is not joined; join it first")
        self._multicast.announce_new(joined, joined.set_groups(groups), now)

    def peers(self, now: int | None = None) -> list[PeerStatus]:
        """All peers; `now` is the time of the last call if left out."""
        at = self._last_background if now is None else now
        trusted_path = self._physical.trusted_path
        return [peer.status(at, self._topology.role(peer.address), trusted_path) for peer in self._peers.values()]

    def set_local_endpoints(self, endpoints: Iterable[Endpoint], now: int | None = None) -> None:
        """Our own physical addresses with each bound port, offered to peers (vl1 §5.9). With `now`: roots and the peers that we
        talk to are told at once, if there is anything new."""
        local = tuple(Endpoint(*endpoint) for endpoint in endpoints)
        changed = set(local) != set(self._contact.local_endpoints)
        self._contact.local_endpoints = local
        if changed and now is not None:
            self._contact.moved(now)

    def surface_endpoints(self, now: int) -> list[Endpoint]:
        """Our external addresses, as peers report them (vl1 §5.10)."""
        return self._awareness.endpoints(now)

    def set_physical(self, networks: Iterable[PhysicalNetwork], peers: Mapping[int, PeerHints], now: int) -> None:
        """What the user says about physical networks and about where peers are; replaces what was said before."""
        self._physical.set(networks, peers)
        self._contact.settings_changed(now)

    def load_peer(self, data: bytes, now: int) -> None:
        """A peer cache file. DecodeError if it cannot be read: the host should delete it."""
        identity, protocol, version, endpoints = parse_cache(data)
        if identity == self.identity or identity.address in self._peers:
            return
        try:
            peer = self._topology.add(identity)
        except CryptoError:
            return
        peer.protocol = protocol
        peer.version = version
        peer.hints = endpoints
        self._contact.contact_hints(peer, now)

    def peer_states(self) -> Iterator[tuple[int, bytes]]:
        """Address and cache file of every peer worth remembering; for shutdown."""
        for peer in self._peers.values():
            if peer.entries:
                yield peer.address, peer.to_cache()

    def send_user_message(self, destination: int, type_id: int, data: bytes, now: int) -> None:
        """Fire and forget (vl1 §4.15)."""
        self._sender.send(destination, Verb.USER_MESSAGE, UserMessage(type_id, data).encode(), now, compress=True)

    def take_actions(self) -> list[Action]:
        """What the host has to do, in this order."""
        actions = self._actions[:]
        self._actions.clear()
        return actions

    # -- configuration --

    def _configured(self, network: Network, now: int) -> None:
        """A network has a new configuration."""
        self._update_virtual_prefixes()
        self._actions.append(ConfigureNetwork(network.id))
        self._multicast.announce(network, now)
        for key in self._deferred.waited_for():
            if isinstance(key, tuple) and key[0] == "member" and key[1] == network.id:
                self._retry(key, now)

    def _update_virtual_prefixes(self) -> None:
        prefixes: list[tuple[bytes, int]] = []
        for network in self._networks.values():
            prefixes += network.added_addresses
            if network.config is not None:
                prefixes += network.config.addresses
        self._policy.set_virtual_prefixes(prefixes)

    # -- worlds --

    def orbit(self, moon: int, now: int, *, seed: int = 0, stored: bytes | None = None) -> bool:
        """Orbit a moon (vl1 §6.4). `stored`: its file, if there is one, which is believed; else `seed`, the address of a root of
        it, is asked for it from now on. Returns False if neither helps, or there are 32 already. DecodeError if `stored` is no
        moon of this id."""
        if stored is not None:
            world = World.parse(stored)
            if world.type is not WorldType.MOON or world.id != moon:
                raise DecodeError(f"not moon {moon:016x} but world {world.id:016x}")
            if moon not in self._topology.moons:
                if not self._topology.room_for_moon(moon):
                    return False
                self._forget_seed(moon)
                self._topology.hold_moon(world)
                self._contact.next_tick = now
            return True
        if moon in self._topology.moons or (seed == 0 and moon in self._topology.wanted):
            return True
        if seed == 0 or seed == self.address or not self._topology.room_for_moon(moon):
            return False
        self._topology.wanted[moon] = seed
        # The reference forgets at its next start what it was waiting for.
        self._actions.append(StoreState(StateKind.MOON_SEED, moon, f"{seed:010x}".encode()))
        self._seek(seed, now)
        return True

    def _forget_seed(self, moon: int) -> None:
        if moon in self._topology.wanted:
            self._actions.append(StoreState(StateKind.MOON_SEED, moon, None))

    def _seek(self, seed: int, now: int) -> None:
        """A moon is wanted from `seed`: ask now, whatever it was asked before."""
        peer = self._peers.get(seed)
        if peer is not None:
            peer.last_full_hello = NEVER
        self._contact.next_tick = now

    def deorbit(self, moon: int, now: int) -> bool:
        """Orbit a moon no more; False if we did not, nor wanted to."""
        if not self._topology.drop_moon(moon):
            return False
        self._actions += [StoreState(StateKind.MOON, moon, None), StoreState(StateKind.MOON_SEED, moon, None)]
        self._contact.next_tick = now
        return True

    def moons(self) -> list[MoonStatus]:
        """The moons that we orbit, and those that we wait for."""
        held = [MoonStatus(moon.id, moon) for moon in self._topology.moons.values()]
        return held + [MoonStatus(moon, None, seed) for moon, seed in self._topology.wanted.items()]

    def _world_changed(self, world: World, wanted: bool, now: int) -> None:
        """A new planet or moon; `wanted`: a moon that we waited for."""
        if wanted:
            self._actions.append(StoreState(StateKind.MOON_SEED, world.id, None))
        kind = StateKind.PLANET if world.type is WorldType.PLANET else StateKind.MOON
        self._actions.append(StoreState(kind, world.id, world.encode()))
        self._contact.next_tick = now

    # -- time --

    def background(self, now: int) -> None:
        """Do what is due. May be called at any time."""
        self._last_background = now
        if now >= self._contact.next_tick:
            self._contact.tick(now)
            self._set_online(now)
            for network in self._networks.values():
                self._multicast.announce(network, now)
        if now >= self._next_queue and self._waiting():
            self._next_queue = now + WHOIS_PERIOD_MS
            for room in (self._sender.waiting, self._strangers, self._deferred):
                self.counters["queue_timeout"] += room.expire(now)
            self._sender.repeat_whois(now)
        self._configs.background(now)
        self._credentials.background(now)
        self._multicast.background(now)
        self._controller_host.background(now)
        self._trace.background(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_MS
            self._housekeeping(now)

    def _waiting(self) -> bool:
        return bool(len(self._sender.waiting) or len(self._sender.whois) or len(self._strangers) or len(self._deferred))

    def next_deadline(self) -> int:
        """When `background` has something to do, ms; perhaps in the past."""
        deadline = min(self._contact.next_tick, self._next_housekeeping)
        if self._waiting():
            deadline = min(deadline, self._next_queue)
        for other in (
            self._configs.next_deadline(),
            self._credentials.next_deadline(),
            self._multicast.next_deadline(),
            self._controller_host.next_deadline,
            self._trace.next_deadline(),
        ):
            if other is not None and other < deadline:
                deadline = other
        return deadline

    def _set_online(self, now: int) -> None:
        online = self._topology.online(now)
        if online != self.online:
            self.online = online
            self._actions.append(NodeEvent("online" if online else "offline"))

    def _housekeeping(self, now: int) -> None:
        """vl1 §5.12."""
        controllers = [network.controller for network in self._networks.values()]
        for peer in self._topology.drop_idle(now, controllers):
            if peer.entries:
                self._actions.append(StoreState(StateKind.PEER, peer.address, peer.to_cache()))
        self._paths.retain({entry.path for peer in self._peers.values() for entry in peer.entries}, now)
        self._reassembler.expire(now)
        self._awareness.expire(now)
        self._relay.expire(now)
        self._multicast.housekeeping(now)
        for network in self._networks.values():
            network.forget_bridged_groups(now)
        self._controller_host.housekeeping(now)
