"""Membership of one network: its configuration, when to ask for it again, and its status (vl2 §6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from netcon.core.address import BROADCAST, Endpoint, MulticastGroup, address_from_mac, controller_of, mac_for
from netcon.core.adhoc import is_adhoc
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.membership import NO_CREDENTIALS, Members, ValidCredentials, valid_credentials
from netcon.core.netconf import ROLE_ACTIVE_BRIDGE, ROLE_ANCHOR, ROLE_REPLICATOR, ConfigAssembler, NetworkConfig
from netcon.core.path import NEVER
from netcon.core.peer import Peer
from netcon.core.rule_engine import CompiledRules, emulated_prefixes

#: The config is asked for again when it is this old (vl2 §6.2), ms.
REFRESH_MS = 60_000
#: Without an answer it is asked for this often (vl2 §6.2), ms.
RETRY_MS = 5_000
#: The first few requests after a join come sooner: the first is often lost while the controller learns who we are. Above the
#: controller's gate of 1,000 ms (vl2 §7.1).
EAGER_RETRY_MS = 1_500
EAGER_REQUESTS = 4
#: Groups of hosts behind a bridge are announced for this long after they were used last (vl2 §5.1), ms.
BRIDGED_GROUP_MS = 1_200_000
#: MAC to address translations remembered per network.
_MAX_MACS = 65_536


class State(Enum):
    """vl2 §6.4."""

    REQUESTING_CONFIGURATION = 0
    OK = 1
    ACCESS_DENIED = 2
    NOT_FOUND = 3
    PORT_ERROR = 4
    CLIENT_TOO_OLD = 5
    AUTHENTICATION_REQUIRED = 6


@dataclass(slots=True, frozen=True)
class NetworkStatus:
    """A joined network as the host and the local API see it."""

    id: int
    mac: bytes
    status: State
    config: NetworkConfig | None
    bridge: bool
    groups: tuple[MulticastGroup, ...]
    authentication_url: str = ""


class Network:
    """One joined network. Holds state and decides; sending is done by those who use it."""

    def __init__(self, network: int, identity: Identity) -> None:
        self.id = network
        self.identity = identity
        self.address = identity.address
        self.controller = controller_of(network)
        #: Ad-hoc networks have none: nothing is asked of it, or sent to it (vl2 §6.6).
        self.has_controller = not is_adhoc(network)
        self.mac = mac_for(network, identity.address)
        self.members = Members(network, self.controller)
        self.assembler = ConfigAssembler(network)
        self.config: NetworkConfig | None = None
        self.dictionary: bytes | None = None
        self.failure: State | None = None
        self.authentication_url = ""
        #: Shown to the controller until it lets us in (vl2 §7.1 step 5).
        self.token = ""
        #: Grows with each applied config; what depends on a config remembers it.
        self.generation = 0
        self.next_request = NEVER
        self.requests = 0
        self.groups: set[MulticastGroup] = set()
        #: MAC to member behind which it was seen (vl2 §1.7).
        self.bridge_routes: dict[bytes, int] = {}
        #: Groups seen from hosts behind us, if we are a bridge: group to time.
        self.bridged_groups: dict[MulticastGroup, int] = {}
        self.active_bridge = False
        self.bridges: tuple[int, ...] = ()
        self.replicators: tuple[int, ...] = ()
        #: The rules let everything pass: frames need no look at them.
        self.accepts_all = False
        self.rules = CompiledRules(())
        self.own = NO_CREDENTIALS
        self.own_prefixes: tuple[bytes, ...] = ()
        self.port_failed = False
        #: Addresses that were added by hand, with their prefix lengths.
        self.added_addresses: tuple[Endpoint, ...] = ()
        #: The node that wants traces, and from which level on; level -1: nobody (vl2 §6.8).
        self.trace_target = 0
        self.trace_level = -1
        self.always_contact: tuple[int, ...] = ()
        self._addresses: dict[bytes, int | None] = {}
        self._macs: dict[int, bytes] = {}

    # -- addresses --

    def address_of(self, mac: bytes) -> int | None:
        """The member with this MAC, None if it does not belong to the network (vl2 §1.2)."""
        try:
            return self._addresses[mac]
        except KeyError:
            if len(self._addresses) >= _MAX_MACS:
                self._addresses.clear()
            address = self._addresses[mac] = address_from_mac(self.id, mac)
            return address

    def mac_of(self, address: int) -> bytes:
        try:
            return self._macs[address]
        except KeyError:
            if len(self._macs) >= _MAX_MACS:
                self._macs.clear()
            mac = self._macs[address] = mac_for(self.id, address)
            return mac

    # -- configuration --

    def apply(self, dictionary: bytes, now: int) -> bool:
        """Take a configuration (vl2 §6.3). Returns whether anything changed. DecodeError if it is malformed or not for us.

        One that is older than ours counts only while a request of ours is unanswered, as after the controller's clock was set back:
        there is no replay protection below (vl1 §9), and whoever recorded an old one could bring back its rules and addresses.
        """
        if dictionary == self.dictionary and self.failure is None:
            self._scheduled(now)
            return False
        config = NetworkConfig.from_dictionary(dictionary)
        if config.issued_to != self.address or config.network != self.id:
            raise DecodeError("the configuration was issued to another node or for another network")
        if self.config is not None and config.timestamp < self.config.timestamp and not self.unanswered:
            raise DecodeError("the configuration is older than the one in force, and nobody asked for it")
        self._adopt(config, dictionary)
        self.failure = None
        self._scheduled(now)
        return True

    def load(self, dictionary: bytes) -> bool:
        """Use a cached configuration at once, but consider it out of date (vl2 §6.1)."""
        try:
            config = NetworkConfig.from_dictionary(dictionary)
        except DecodeError:
            return False
        if config.issued_to != self.address or config.network != self.id:
            return False
        self._adopt(config, dictionary)
        return True

    def _adopt(self, config: NetworkConfig, dictionary: bytes) -> None:
        self.config = config
        self.dictionary = dictionary
        self.generation += 1
        self.rules = CompiledRules(config.rules, config.unknown_match)
        self.accepts_all = self.rules.accepts_all
        self.own = valid_credentials(config, config.tags, config.capabilities, config.ownerships)
        self.own_prefixes = emulated_prefixes(config)
        self.trace_target = config.trace_target if config.trace_target != self.address else 0
        self.trace_level = config.trace_level if self.trace_target else -1
        self.bridges = config.specialists_with(ROLE_ACTIVE_BRIDGE)
        self.replicators = config.specialists_with(ROLE_REPLICATOR)
        self.active_bridge = self.address in self.bridges
        self.always_contact = tuple(a for a in (*config.specialists_with(ROLE_ANCHOR), *self.replicators) if a != self.address)
        self.bridge_routes = {mac: via for mac, via in self.bridge_routes.items() if via in self.bridges}

    def fail(self, state: State, authentication_url: str = "") -> bool:
        """A negative answer: the config stays (vl2 §6.4). Returns whether the status changed."""
        changed = self.failure is not state
        self.failure = state
        self.authentication_url = authentication_url
        return changed

    # -- requests (vl2 §6.2) --

    def requested(self, now: int) -> None:
        """A request is being sent."""
        self.requests += 1
        eager = self.config is None and self.failure is None and self.requests <= EAGER_REQUESTS
        self.next_request = now + (EAGER_RETRY_MS if eager else RETRY_MS)

    @property
    def unanswered(self) -> bool:
        """We asked, and no configuration has come since."""
        return self.requests > 0

    def _scheduled(self, now: int) -> None:
        self.requests = 0
        self.next_request = now + REFRESH_MS

    # -- gate --

    def permitted(self, peer: Peer) -> bool:
        """The membership gate (vl2 §3.8)."""
        config = self.config
        if config is None:
            return False
        member = self.members.by_address.get(peer.address)
        if config.public:
            if member is None:
                self.members.record(peer.address)
            return True
        if member is None:
            return False
        return self.members.permitted(member, config.membership, peer.identity, self.generation)

    def credentials_of(self, address: int) -> ValidCredentials:
        """What the rules may know about a member."""
        return NO_CREDENTIALS if self.config is None else self.members.valid(address, self.config, self.generation)

    # -- groups --

    def own_groups(self) -> list[MulticastGroup]:
        """Everything to be announced: what the port wants, the broadcast group if allowed, groups behind us (vl2 §5.1)."""
        groups = set(self.groups)
        groups.update(self.bridged_groups)
        if self.config is not None and self.config.broadcast:
            groups.add(BROADCAST)
        else:
            groups.discard(BROADCAST)
        return sorted(groups)

    def forget_bridged_groups(self, now: int) -> None:
        """Those that no host behind us used for 20 minutes (vl2 §5.1)."""
        old = [group for group, seen in self.bridged_groups.items() if now - seen >= BRIDGED_GROUP_MS]
        for group in old:
            del self.bridged_groups[group]

    def set_groups(self, groups: Iterable[MulticastGroup]) -> list[MulticastGroup]:
        """The port's groups; returns the new ones."""
        wanted = set(groups)
        added = sorted(wanted - self.groups)
        self.groups = wanted
        return added

    def status(self) -> NetworkStatus:
        state = self.failure or (State.REQUESTING_CONFIGURATION if self.config is None else State.OK)
        if self.port_failed:
            state = State.PORT_ERROR
        return NetworkStatus(
            self.id, self.mac, state, self.config, self.active_bridge, tuple(self.own_groups()), self.authentication_url
        )
