"""Getting configurations from the controllers of the networks we are members of (vl2 §2.2 to §2.4, §6.2, §6.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.actions import Action, ConfigureNetwork, StateKind, StoreState
from netcon.core.adhoc import adhoc_config
from netcon.core.buffer import Reader
from netcon.core.controller_host import ControllerHost
from netcon.core.credential_exchange import CredentialExchange
from netcon.core.dictionary import Dictionary
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.messages import NetworkConfigRequest, Ok, OkNetworkConfig
from netcon.core.netconf import ConfigChunk, request_metadata
from netcon.core.network import Network, State
from netcon.core.packet import ErrorCode, Verb
from netcon.core.sender import Sender
from netcon.core.settings import NodeSettings
from netcon.core.topology import Topology


class ConfigClient:
    """Requests, chunks, pushes and refusals for all networks of one node."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        networks: dict[int, Network],
        sender: Sender,
        credentials: CredentialExchange,
        controller_host: ControllerHost,
        settings: NodeSettings,
        actions: list[Action],
        counters: Counter[str],
    ) -> None:
        #: Set by the node: a network has a new configuration.
        self.configured: Callable[[Network, int], None] = lambda network, now: None
        controller_host.own_config = self._own_config
        controller_host.own_error = self._own_error
        self._identity = identity
        self._topology = topology
        self._networks = networks
        self._sender = sender
        self._credentials = credentials
        self._controller_host = controller_host
        self._version = settings.version
        self._metadata = request_metadata(settings.version)
        self._actions = actions
        self._counters = counters

    # -- asking --

    def next_deadline(self) -> int | None:
        return min((network.next_request for network in self._networks.values()), default=None)

    def background(self, now: int) -> None:
        for network in list(self._networks.values()):
            if now >= network.next_request:
                self.request(network, now)

    def reachable(self, now: int, controller: int | None = None) -> None:
        """A controller's identity, or a root, was not reachable before: ask at once where no fresh configuration is here."""
        for network in list(self._networks.values()):
            if network.unanswered and (controller is None or controller == network.controller):
                self.request(network, now)

    def request(self, network: Network, now: int) -> None:
        """Ask the controller. What cannot leave now is asked again when `reachable` says so, rather than queued twice."""
        network.requested(now)
        if not network.has_controller:
            self._synthesise(network, now)
            return
        if network.controller == self._identity.address:
            if not self._controller_host.request_own(network.id, self._metadata_for(network), now):
                self._failed(network, State.NOT_FOUND)
            return
        peer = self._topology.peers.get(network.controller)
        if peer is None:
            self._sender.request_identity(network.controller, now)
            return
        if self._topology.route(peer, now)[0] is None:
            return
        config = network.config
        revision, timestamp = (0, 0) if config is None else (config.revision, config.timestamp)
        body = NetworkConfigRequest(network.id, self._metadata_for(network), revision, timestamp).encode()
        self._sender.send(network.controller, Verb.NETWORK_CONFIG_REQUEST, body, now, compress=True, expect=True)

    def _metadata_for(self, network: Network) -> bytes:
        return request_metadata(self._version, token=network.token) if network.token else self._metadata

    def _synthesise(self, network: Network, now: int) -> None:
        """An ad-hoc network: its configuration follows from its id. It is not stored (vl2 §6.6)."""
        config = adhoc_config(network.id, self._identity.address)
        if config is None:
            self._failed(network, State.NOT_FOUND)
        elif network.apply(config.to_dictionary(), now):
            self.configured(network, now)

    # -- answers --

    def receive_chunk(self, inbound: Inbound, data: bytes, now: int) -> ConfigChunk | None:
        """A chunk, from OK or from NETWORK_CONFIG. Returns it if its configuration is complete now."""
        chunk = ConfigChunk.decode(data)
        network = self._networks.get(chunk.network)
        if network is None or not network.has_controller:
            self._counters["network_not_joined"] += 1
            return None
        signer = self._credentials.signer(network.controller)
        if signer is None:
            self._sender.request_identity(network.controller, now)
            return None
        added = network.assembler.add(chunk, inbound.peer.address, signer)
        if not added.accepted:
            self._counters["chunk_refused"] += 1
            return None
        if chunk.fast_propagate:
            self._propagate(network, data, inbound.peer.address, now)
        if added.dictionary is None:
            return None
        self._apply(network, added.dictionary, now)
        return chunk

    def receive_push(self, inbound: Inbound, now: int) -> bool:
        """NETWORK_CONFIG: anybody may bring it, since chunks are signed."""
        chunk = self.receive_chunk(inbound, inbound.body, now)
        if chunk is not None:
            # In-re verb ECHO instead of NETWORK_CONFIG: an oddity to keep (vl2 §2.3).
            ok = Ok(Verb.ECHO, inbound.packet_id, OkNetworkConfig(chunk.network, chunk.update_id).encode())
            self._sender.reply(inbound.peer, inbound.path, Verb.OK, ok.encode(), now)
        return True

    def _propagate(self, network: Network, data: bytes, source: int, now: int) -> None:
        """Hand a chunk on to the members that we know (vl2 §2.3, rule 5)."""
        skip = {source, network.controller, self._identity.address}
        for address in list(network.members.by_address):
            if address not in skip and address in self._topology.peers:
                self._sender.send(address, Verb.NETWORK_CONFIG, data, now, compress=True)

    def _apply(self, network: Network, dictionary: bytes, now: int) -> None:
        try:
            changed = network.apply(dictionary, now)
        except DecodeError:
            self._counters["config_malformed"] += 1
            return
        if network.token:
            network.token = ""  # we are in: it has done its duty
            self._actions.append(StoreState(StateKind.JOIN_TOKEN, network.id, None))
        if changed:
            self._counters["config_applied"] += 1
            self._actions.append(StoreState(StateKind.NETWORK, network.id, dictionary))
            self.configured(network, now)

    def _own_config(self, network_id: int, dictionary: bytes, now: int) -> None:
        network = self._networks.get(network_id)
        if network is not None:
            self._apply(network, dictionary, now)

    # -- refusals --

    def _own_error(self, network_id: int, code: int, now: int) -> None:
        network = self._networks.get(network_id)
        if network is not None:
            self._refused(network, code, "")

    def receive_error(self, network: Network, in_re: int, code: int, reader: Reader) -> None:
        """An ERROR of the network's controller (vl2 §2.4); the caller checked that it is from there."""
        if code in (ErrorCode.OBJECT_NOT_FOUND, ErrorCode.UNSUPPORTED_OPERATION) and in_re != Verb.NETWORK_CONFIG_REQUEST:
            self._counters["error_untrusted"] += 1
            return
        url = ""
        if code == ErrorCode.NETWORK_AUTHENTICATION_REQUIRED and reader.remaining >= 2:
            url = Dictionary.decode(reader.bytes(reader.u16())).text("aU")
        self._refused(network, code, url)

    def _refused(self, network: Network, code: int, url: str) -> None:
        match code:
            case ErrorCode.OBJECT_NOT_FOUND | ErrorCode.UNSUPPORTED_OPERATION:
                self._failed(network, State.NOT_FOUND)
            case ErrorCode.NETWORK_ACCESS_DENIED:
                self._failed(network, State.ACCESS_DENIED)
            case ErrorCode.NETWORK_AUTHENTICATION_REQUIRED:
                self._failed(network, State.AUTHENTICATION_REQUIRED, url)

    def _failed(self, network: Network, state: State, url: str = "") -> None:
        if network.fail(state, url):
            self._counters["config_refused"] += 1
            self._actions.append(ConfigureNetwork(network.id))
