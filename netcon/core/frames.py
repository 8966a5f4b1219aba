"""Ethernet frames between a port and the other members: FRAME and EXT_FRAME (vl2 §1.3 to §1.8), and MULTICAST_FRAME inward (§5.7).

This is the path that every byte takes while the native switch does not carry it, so it is written straight down: look up the
network, the member, the verdict, append one action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from struct import Struct

from netcon.core.actions import Action, DeliverFrame
from netcon.core.credential_exchange import CredentialExchange
from netcon.core.errors import DecodeError
from netcon.core.filtering import Filter
from netcon.core.inbound import Inbound
from netcon.core.messages import ExtFrame, MulticastFrame, Ok, OkExtFrame
from netcon.core.multicast import LIKE_MS, Multicast, group_of
from netcon.core.ndp import emulate_neighbour
from netcon.core.network import Network
from netcon.core.packet import Verb
from netcon.core.rule_engine import Verdict
from netcon.core.sender import Sender

_FRAME = Struct(">QH")
#: Floods to unknown bridged destinations reach at most this many bridges (vl2 §1.5).
_MAX_BRIDGES = 32
#: Learned bridge routes, and groups of hosts behind us.
_MAX_BRIDGE_ROUTES = 65_536
_MAX_BRIDGED_GROUPS = 1_024
#: Largest frame (vl2 §1.5).
_MAX_FRAME = 10_000
_ZERO_MAC = bytes(6)


class Frames:
    """Frames of all networks of one node."""

    def __init__(
        self,
        networks: dict[int, Network],
        sender: Sender,
        credentials: CredentialExchange,
        multicast: Multicast,
        filters: Filter,
        actions: list[Action],
        counters: Counter[str],
        random: Callable[[int], bytes],
    ) -> None:
        #: Set by the node: hold a packet until something about (network, member) changes.
        self.wait_for_member: Callable[[int, Inbound, int], None] = lambda network, inbound, now: None
        self._networks = networks
        self._sender = sender
        self._credentials = credentials
        self._multicast = multicast
        self._filters = filters
        self._actions = actions
        self._counters = counters
        self._random = random

    # -- from the port (vl2 §1.5) --

    def from_port(self, network_id: int, destination: bytes, source: bytes, ethertype: int, payload: bytes, now: int) -> None:
        network = self._networks.get(network_id)
        if network is None or network.config is None or len(payload) > _MAX_FRAME:
            self._counters["port_dropped"] += 1
            return
        bridged = source != network.mac
        if bridged and not network.active_bridge:
            self._counters["port_dropped"] += 1
            return
        if destination[0] & 0x01:
            self._multicast_from_port(network, destination, source, ethertype, payload, now)
            return
        if destination == network.mac:
            self._actions.append(DeliverFrame(network_id, destination, source, ethertype, payload))
            return
        address = network.address_of(destination)
        if address is None:
            self._to_bridges(network, destination, source, ethertype, payload, now)
            return
        if not network.accepts_all and not self._filters.outbound(
            network, address, source, destination, ethertype, payload, now, copies=True
        ):
            return
        member = network.members.by_address.get(address)
        if member is None or member.push_due(network.generation, now):
            self._credentials.push_if_due(network, address, now)
        if bridged:
            body = ExtFrame(network_id, 0, destination, source, ethertype, payload).encode()
            self._sender.send(address, Verb.EXT_FRAME, body, now)
        else:
            self._sender.send(address, Verb.FRAME, _FRAME.pack(network_id, ethertype) + payload, now)

    def _multicast_from_port(
        self, network: Network, destination: bytes, source: bytes, ethertype: int, payload: bytes, now: int
    ) -> None:
        config = network.config
        assert config is not None
        if config.ndp_emulation and ethertype == 0x86DD:
            answer = emulate_neighbour(network, source, payload)
            if answer is not None:
                self._actions.append(answer)
                return
        if config.multicast_limit == 0:
            self._counters["multicast_disabled"] += 1
            return
        group = group_of(destination, ethertype, payload, config.broadcast)
        if group is None:
            self._counters["broadcast_disabled"] += 1
            return
        if source != network.mac and group not in network.bridged_groups and len(network.bridged_groups) < _MAX_BRIDGED_GROUPS:
            network.bridged_groups[group] = now
            self._multicast.announce_new(network, [group], now)
        # The pass with an empty destination does tee, watch and redirect (vl2 §4.5).
        if network.accepts_all or self._filters.outbound(network, 0, source, destination, ethertype, payload, now, copies=True):
            self._multicast.send(network, group, source, ethertype, payload, now)

    def _to_bridges(self, network: Network, destination: bytes, source: bytes, ethertype: int, payload: bytes, now: int) -> None:
        """An unknown unicast destination is behind a bridge: the one it was seen behind, else all of them."""
        if not self._filters.outbound(network, 0, source, destination, ethertype, payload, now, copies=True):
            return
        learned = network.bridge_routes.get(destination)
        if learned is not None and learned != network.address and learned in network.bridges:
            targets = [learned]
        else:
            targets = [address for address in network.bridges if address != network.address]
            if len(targets) > _MAX_BRIDGES:
                start = int.from_bytes(self._random(4)) % len(targets)
                targets = (targets[start:] + targets[:start])[:_MAX_BRIDGES]
        body = ExtFrame(network.id, 0, destination, source, ethertype, payload).encode()
        for address in targets:
            if self._filters.outbound(network, address, source, destination, ethertype, payload, now, copies=False):
                # The reference relies on the receiver's request here (vl2 §1.5); showing credentials first spares a round trip.
                self._credentials.push_if_due(network, address, now)
                self._sender.send(address, Verb.EXT_FRAME, body, now)

    # -- from members --

    def _admit(self, network: Network, inbound: Inbound, now: int) -> bool:
        """The membership gate. If it is shut: ask for the certificate and keep the packet (vl2 §1.6, §8.2)."""
        peer = inbound.peer
        if not network.permitted(peer):
            self._counters["not_permitted"] += 1
            self._credentials.complain(network, inbound, now)
            self.wait_for_member(network.id, inbound, now)
            return False
        inbound.trusted = True
        if now - network.members.by_address[peer.address].last_like >= LIKE_MS:
            self._multicast.announce_to_member(network, peer.address, now)
        return True

    def receive_frame(self, inbound: Inbound, now: int) -> bool:
        body = inbound.body
        if len(body) < 10:
            raise DecodeError("FRAME too short")
        network_id, ethertype = _FRAME.unpack_from(body)
        network = self._networks.get(network_id)
        if network is None:
            self._counters["network_not_joined"] += 1
            return True
        if not self._admit(network, inbound, now):
            return False
        payload = body[10:]
        config = network.config
        if not payload or config is None:
            return True
        if len(payload) > config.mtu:
            self._counters["frame_too_large"] += 1
            return True
        address = inbound.peer.address
        source = network.mac_of(address)
        if not network.accepts_all:
            verdict = self._filters.inbound(network, address, source, network.mac, ethertype, payload, now)
            if verdict is Verdict.DROP:
                return True
        self._actions.append(DeliverFrame(network_id, network.mac, source, ethertype, payload))
        return True

    def receive_ext_frame(self, inbound: Inbound, now: int) -> bool:
        message = ExtFrame.decode(inbound.body)
        network = self._networks.get(message.network)
        if network is None:
            self._counters["network_not_joined"] += 1
            return True
        self._credentials.accept_inline(network, message.certificate, inbound.peer.address, now)
        if not self._admit(network, inbound, now):
            return False
        if self._deliver_ext(network, message, inbound, now) and message.flags & ExtFrame.WANT_OK:
            ok = Ok(Verb.EXT_FRAME, inbound.packet_id, OkExtFrame(network.id).encode())
            self._sender.reply(inbound.peer, inbound.path, Verb.OK, ok.encode(), now)
        return True

    def _deliver_ext(self, network: Network, message: ExtFrame, inbound: Inbound, now: int) -> bool:
        """The checks of vl2 §1.7. Returns whether an OK is due, which it is unless a MAC or bridging check stopped the frame."""
        config = network.config
        source, destination = message.source, message.destination
        sender = inbound.peer.address
        if config is None or source == _ZERO_MAC or source == network.mac:
            return False
        verdict = self._filters.inbound(network, sender, source, destination, message.ethertype, message.payload, now)
        if verdict is Verdict.DROP:
            return True
        if verdict is not Verdict.SUPER_ACCEPT:
            if source != network.mac_of(sender):
                if not self._learn_bridged(network, source, sender):
                    return False
            elif destination != network.mac:
                if destination[0] & 0x01:
                    if config.multicast_limit == 0:
                        return False
                elif not network.active_bridge:
                    self._counters["frame_not_ours"] += 1
                    return False
        if not message.payload or len(message.payload) > config.mtu:
            self._counters["frame_too_large"] += 1
            return True
        self._actions.append(DeliverFrame(network.id, destination, source, message.ethertype, message.payload))
        return True

    def _learn_bridged(self, network: Network, mac: bytes, sender: int) -> bool:
        """A foreign source MAC is the privilege of active bridges; remember who brought it (vl2 §1.7)."""
        if sender not in network.bridges:
            self._counters["bridge_refused"] += 1
            return False
        if len(network.bridge_routes) >= _MAX_BRIDGE_ROUTES and mac not in network.bridge_routes:
            network.bridge_routes.clear()
        network.bridge_routes[mac] = sender
        return True

    def receive_multicast_frame(self, inbound: Inbound, now: int) -> bool:
        message = MulticastFrame.decode(inbound.body)
        network = self._networks.get(message.network)
        if network is None:
            self._counters["network_not_joined"] += 1
            return False
        self._credentials.accept_inline(network, message.certificate, inbound.peer.address, now)
        if not self._admit(network, inbound, now):
            return False
        config = network.config
        sender = inbound.peer.address
        destination = message.group.mac
        source = message.source or network.mac_of(sender)
        if config is None or config.multicast_limit == 0:
            self._counters["multicast_disabled"] += 1
            return True
        if (
            not 1 <= len(message.payload) <= config.mtu
            or not destination[0] & 0x01
            or source[0] & 0x01
            or source in (_ZERO_MAC, network.mac)
        ):
            self._counters["multicast_malformed"] += 1
            return True
        if message.replicate and network.address in network.replicators:
            self._multicast.send(network, message.group, source, message.ethertype, message.payload, now, origin=sender)
        if source != network.mac_of(sender) and not self._learn_bridged(network, source, sender):
            return True
        verdict = self._filters.inbound(network, sender, source, destination, message.ethertype, message.payload, now)
        if verdict is not Verdict.DROP:
            self._actions.append(DeliverFrame(network.id, destination, source, message.ethertype, message.payload))
        self._multicast.answer_frame(network, message, inbound, now)
        return True
