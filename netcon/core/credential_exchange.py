"""Showing our credentials, and taking those of others (vl2 §3.7, §3.9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.credentials import Capability, CertificateOfMembership, Revocation
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.membership import PUSH_ON_REQUEST_MS, Result
from netcon.core.messages import Error, NetworkCredentials
from netcon.core.network import Network
from netcon.core.packet import ErrorCode, Verb
from netcon.core.sender import Sender
from netcon.core.topology import Topology

#: Receivers look at one NETWORK_CREDENTIALS packet per peer and second (vl1 §4.3); a little more for jitter, ms.
SPACING_MS = 1_100
#: Objects of one packet, bytes: stays within seven pieces.
PACKET_ROOM = 8_000
#: Between two NEED_MEMBERSHIP_CERTIFICATE errors to one member (vl2 §3.9), ms.
COMPLAINT_MS = 1_000
#: Pushes and further packets that wait for the receiver's gate.
MAX_LATER = 4_096


class CredentialExchange:
    """NETWORK_CREDENTIALS both ways, and the errors that ask for them."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        networks: dict[int, Network],
        sender: Sender,
        counters: Counter[str],
    ) -> None:
        #: Set by the node: a member's certificate or threshold changed; a packet must wait for an identity.
        self.member_changed: Callable[[Network, int, int], None] = lambda network, address, now: None
        self.wait_for_identity: Callable[[int, Inbound, int], None] = lambda address, inbound, now: None
        self._identity = identity
        self._topology = topology
        self._networks = networks
        self._sender = sender
        self._counters = counters
        self._due: dict[tuple[int, int], int] = {}  # (network, member): when to push
        self._later: list[tuple[int, int, bytes]] = []  # (when, destination, body): further packets of a large push

    # -- sending --

    def push_if_due(self, network: Network, address: int, now: int) -> None:
        """Before a frame to a member: our credentials first, if it has not seen those of this config (vl2 §3.9)."""
        member = network.members.record(address)
        if member.push_due(network.generation, now):
            self._push_or_defer(network, address, now)

    def push_on_request(self, network: Network, address: int, now: int) -> None:
        """The peer says that it lacks our certificate. Any node may say so: whom we never had to do with on this network does
        not learn from us that we are a member, nor gets a record made (vl2 §9)."""
        if network.config is None or network.config.membership is None:
            return
        member = network.members.by_address.get(address)
        if member is None:
            self._counters["credentials_withheld"] += 1
            return
        if member.pushed_generation != network.generation or now - member.last_push > PUSH_ON_REQUEST_MS:
            self._push_or_defer(network, address, now)

    def _push_or_defer(self, network: Network, address: int, now: int) -> None:
        peer = self._topology.peers.get(address)
        if peer is not None and now - peer.last_credentials_sent < SPACING_MS:
            # Its gate would drop this one: until then it goes by what it has of us.
            if len(self._due) < MAX_LATER:
                self._due.setdefault((network.id, address), peer.last_credentials_sent + SPACING_MS)
            return
        self._push(network, address, now)

    def _push(self, network: Network, address: int, now: int) -> None:
        member = network.members.record(address)
        member.last_push = now
        member.pushed_generation = network.generation
        self._due.pop((network.id, address), None)
        peer = self._topology.peers.get(address)
        if peer is not None:
            peer.last_credentials_sent = now
        at = now
        for body in self._packets(network):
            if at == now:
                self._sender.send(address, Verb.NETWORK_CREDENTIALS, body, now, compress=True)
            elif len(self._later) < MAX_LATER:
                self._later.append((at, address, body))
            at += SPACING_MS

    def _packets(self, network: Network) -> list[bytes]:
        """Our credentials, the certificate in the first packet, as few packets as hold them."""
        config = network.config
        if config is None:
            return []
        certificates = () if config.membership is None else (config.membership,)
        everything = NetworkCredentials(certificates, config.capabilities, config.tags, (), config.ownerships).encode()
        if len(everything) <= PACKET_ROOM:
            return [everything]
        packets = [NetworkCredentials(certificates, (), config.tags[:50], (), config.ownerships).encode()]
        for start in range(50, len(config.tags), 50):
            packets.append(NetworkCredentials(tags=config.tags[start : start + 50]).encode())
        room = 0
        batch: list[Capability] = []
        for capability in config.capabilities:
            size = len(capability.encode())
            if batch and room + size > PACKET_ROOM:
                packets.append(NetworkCredentials((), tuple(batch)).encode())
                batch, room = [], 0
            batch.append(capability)
            room += size
        if batch:
            packets.append(NetworkCredentials((), tuple(batch)).encode())
        return packets

    def complain(self, network: Network, inbound: Inbound, now: int) -> None:
        """ERROR(NEED_MEMBERSHIP_CERTIFICATE), once per packet and once a second per member (vl2 §3.9)."""
        if inbound.complained:
            return
        inbound.complained = True
        member = network.members.by_address.get(inbound.peer.address)
        if member is None:
            if now - inbound.peer.last_complained < COMPLAINT_MS:
                return
            inbound.peer.last_complained = now
        elif now - member.last_complaint < COMPLAINT_MS:
            return
        else:
            member.last_complaint = now
        error = Error.about_network(inbound.verb, inbound.packet_id, ErrorCode.NEED_MEMBERSHIP_CERTIFICATE, network.id)
        self._counters["membership_asked"] += 1
        self._sender.reply(inbound.peer, inbound.path, Verb.ERROR, error.encode(), now)

    # -- receiving --

    def receive(self, inbound: Inbound, now: int) -> bool:
        peer = inbound.peer
        if not inbound.admitted:
            if not peer.accept_credentials(now):
                self._counters["credentials_gated"] += 1
                return False
            inbound.admitted = True
        message = NetworkCredentials.decode(inbound.body)
        named = [credential.network for credential in message.memberships]
        named += [credential.network for credential in message.capabilities]
        named += [credential.network for credential in message.tags]
        named += [credential.network for credential in message.revocations]
        named += [credential.network for credential in message.ownerships]
        for network_id in dict.fromkeys(named):
            network = self._networks.get(network_id)
            if network is not None and self.signer(network.controller) is None:
                self.wait_for_identity(network.controller, inbound, now)
                return False
        inbound.trusted = self.accept(message, peer.address, now) or inbound.trusted
        return True

    def accept_inline(self, network: Network, certificate: CertificateOfMembership | None, source: int, now: int) -> None:
        """A certificate that came along with something else (vl2 §1.7, §5.4, §5.5)."""
        if certificate is not None and self.signer(network.controller) is not None:
            self.accept(NetworkCredentials((certificate,)), source, now)

    def accept(self, message: NetworkCredentials, source: int, now: int) -> bool:
        """Take what is good in `message`, whose networks' controllers are known. Returns whether anything was accepted."""
        accepted = False
        for com in message.memberships:
            network, signer = self._context(com.network)
            if network is not None and signer is not None:
                result = network.members.add_certificate(com, signer)
                accepted |= self._count(result)
                if result is Result.NEW:
                    self.member_changed(network, com.issued_to, now)
        for capability in message.capabilities:
            network, signer = self._context(capability.network)
            if network is not None and signer is not None:
                accepted |= self._count(network.members.add_capability(capability, self.signer))
        for tag in message.tags:
            network, signer = self._context(tag.network)
            if network is not None and signer is not None:
                accepted |= self._count(network.members.add_tag(tag, signer))
        for revocation in message.revocations:
            network, signer = self._context(revocation.network)
            if network is not None and signer is not None:
                result = network.members.add_revocation(revocation, signer)
                accepted |= self._count(result)
                if result is Result.NEW:
                    self.member_changed(network, revocation.target, now)
                    if revocation.fast_propagate:
                        self._propagate(network, revocation, source, now)
        for ownership in message.ownerships:
            network, signer = self._context(ownership.network)
            if network is not None and signer is not None:
                accepted |= self._count(network.members.add_ownership(ownership, signer))
        return accepted

    def _context(self, network_id: int) -> tuple[Network | None, Identity | None]:
        network = self._networks.get(network_id)
        return (None, None) if network is None else (network, self.signer(network.controller))

    def signer(self, address: int) -> Identity | None:
        """The identity behind an address, if we know it."""
        if address == self._identity.address:
            return self._identity
        peer = self._topology.peers.get(address)
        return None if peer is None else peer.identity

    def _count(self, result: Result) -> bool:
        self._counters[f"credential_{result.value}"] += 1
        return result is not Result.REJECTED

    def _propagate(self, network: Network, revocation: Revocation, source: int, now: int) -> None:
        """Flood a revocation (vl2 §3.6): whoever has it already stops it."""
        body = NetworkCredentials(revocations=(revocation,)).encode()
        skip = {source, revocation.signed_by, self._identity.address}
        for address in list(network.members.by_address):
            if address not in skip and address in self._topology.peers:
                self._sender.send(address, Verb.NETWORK_CREDENTIALS, body, now, compress=True)

    # -- time --

    def next_deadline(self) -> int | None:
        times = [at for at, _, _ in self._later]
        times.extend(self._due.values())
        return min(times, default=None)

    def background(self, now: int) -> None:
        for (network_id, address), at in list(self._due.items()):
            if at <= now:
                del self._due[(network_id, address)]
                network = self._networks.get(network_id)
                if network is not None:
                    self._push_or_defer(network, address, now)
        ready = [item for item in self._later if item[0] <= now]
        if ready:
            self._later = [item for item in self._later if item[0] > now]
            for _, address, body in ready:
                self._sender.send(address, Verb.NETWORK_CREDENTIALS, body, now, compress=True)
