"""Multicast: who listens to what, and reaching them (vl2 §5).

Everything is replicated by the sender. Roots and controllers only keep the lists that LIKE fills and GATHER reads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from netcon.core.address import BROADCAST_MAC, MulticastGroup
from netcon.core.credential_exchange import CredentialExchange
from netcon.core.filtering import Filter
from netcon.core.inbound import Inbound
from netcon.core.messages import (
    GatherResults,
    Like,
    MulticastFrame,
    MulticastGather,
    MulticastLike,
    Ok,
    OkMulticastFrame,
    OkMulticastGather,
)
from netcon.core.network import Network
from netcon.core.packet import Verb
from netcon.core.path import NEVER
from netcon.core.peer import Peer
from netcon.core.sender import Sender
from netcon.core.topology import Topology

#: vl2 §5.9, ms.
LIKE_MS = 60_000
#: The first list is repeated soon: were it lost, nobody would find us for a minute.
FIRST_LIKE_MS = 4_000
ENTRY_LIFETIME_MS = 600_000
GATHER_MS = 60_000
QUEUED_LIFETIME_MS = 5_000
#: A GATHER that found nobody is repeated after these times while a frame waits, ms: a listener may be announcing itself right
#: now, or the packet was lost. The reference waits for the next frame, which for ARP is a second later.
REGATHER_MS = (150, 450, 1_000)
#: Frames queued per group, destinations of one GATHER (vl2 §5.6).
MAX_QUEUED = 32
MAX_GATHER_DESTINATIONS = 16
#: Between two lists to one that says HELLO, which may mean that it started again and forgot us, ms.
RESTARTED_LIKE_MS = 2_000
#: Records of 18 bytes in one LIKE.
LIKES_PER_PACKET = 400
#: Groups whose GATHER is to be repeated, groups with queued frames, groups of which we remember when they were gathered.
MAX_REGATHER = 256
MAX_QUEUED_GROUPS = 1_024
MAX_GATHERED = 16_384
#: Addresses in one gather result, so that it fits a datagram of a sensible size.
MAX_GATHER_RESULTS = 255
#: Bounds of the member lists (hostile LIKEs): groups in all, members per group, groups one peer may be in.
MAX_GROUPS = 65_536
MAX_GROUP_MEMBERS = 16_384
MAX_GROUPS_PER_PEER = 4_096

_Key = tuple[int, MulticastGroup]


class _Queued:
    """A frame on its way to members that are still being looked for."""

    __slots__ = ("bridged", "ethertype", "limit", "payload", "sent", "since", "source")

    def __init__(self, source: bytes, bridged: bool, ethertype: int, payload: bytes, limit: int, since: int) -> None:
        self.source = source
        self.bridged = bridged
        self.ethertype = ethertype
        self.payload = payload
        self.limit = limit
        self.since = since
        self.sent: set[int] = set()


def group_of(destination: bytes, ethertype: int, payload: bytes, broadcast_allowed: bool) -> MulticastGroup | None:
    """The group of an outgoing frame to a multicast MAC; None means that the frame is dropped (vl2 §5.1)."""
    if destination != BROADCAST_MAC:
        return MulticastGroup(destination, 0)
    if ethertype == 0x0806 and len(payload) >= 28 and payload[2:6] == b"\x08\x00\x06\x04" and payload[7] == 1:
        return MulticastGroup(destination, int.from_bytes(payload[24:28]))
    return MulticastGroup(destination, 0) if broadcast_allowed else None


class Multicast:
    """The multicast part of one node: member lists, announcements, gathering, sending and receiving."""

    def __init__(
        self,
        address: int,
        topology: Topology,
        networks: dict[int, Network],
        sender: Sender,
        credentials: CredentialExchange,
        filters: Filter,
        random: Callable[[int], bytes],
        counters: Counter[str],
    ) -> None:
        #: Set by the node: whether our controller served this member lately.
        self.authorised: Callable[[int, int, int], bool] = lambda network, member, now: False
        self._address = address
        self._topology = topology
        self._networks = networks
        self._sender = sender
        self._credentials = credentials
        self._filters = filters
        self._random = random
        self._counters = counters
        self._members: dict[_Key, dict[int, int]] = {}
        self._groups_of_peer: Counter[int] = Counter()
        self._queued: dict[_Key, deque[_Queued]] = {}
        self._gathered: dict[_Key, int] = {}
        self._regather: dict[_Key, tuple[int, int]] = {}  # when to gather again, and how often that was done
        self._announced: dict[tuple[int, int], tuple[int, int]] = {}  # (network, destination): last full list, how many

    def _sample(self, addresses: Iterable[int], count: int) -> list[int]:
        """At most `count` of them, in random order."""
        pool = list(addresses)
        count = min(count, len(pool))
        noise = self._random(4 * count) if count else b""
        for at in range(count):
            other = at + int.from_bytes(noise[4 * at : 4 * at + 4]) % (len(pool) - at)
            pool[at], pool[other] = pool[other], pool[at]
        return pool[:count]

    # -- member lists (vl2 §5.3) --

    def members(self, network: int, group: MulticastGroup) -> dict[int, int]:
        return self._members.get((network, group), {})

    def _learn(self, key: _Key, address: int, now: int) -> bool:
        """Note a member; returns whether it is new."""
        if address == self._address:
            return False
        entries = self._members.get(key)
        if entries is None:
            if len(self._members) >= MAX_GROUPS:
                return False
            entries = self._members[key] = {}
        if address not in entries:
            if len(entries) >= MAX_GROUP_MEMBERS or self._groups_of_peer[address] >= MAX_GROUPS_PER_PEER:
                if not entries:
                    del self._members[key]
                return False
            self._groups_of_peer[address] += 1
            entries[address] = now
            return True
        entries[address] = now
        return False

    def _forget(self, key: _Key, address: int) -> None:
        entries = self._members.get(key)
        if entries is not None and entries.pop(address, None) is not None:
            self._groups_of_peer[address] -= 1
            if self._groups_of_peer[address] <= 0:
                del self._groups_of_peer[address]
            if not entries:
                del self._members[key]

    # -- LIKE (vl2 §5.2) --

    def announce(self, network: Network, now: int) -> None:
        """The full list to roots, the controller and always-contact nodes, each every 60 s. Silent until configured."""
        if network.config is None:
            return
        for address in self._announce_to(network):
            key = (network.id, address)
            last, count = self._announced.get(key, (NEVER, 0))
            if now - last >= (FIRST_LIKE_MS if count == 1 else LIKE_MS):
                self._announced[key] = (now, count + 1)
                self._send_likes(network.id, network.own_groups(), address, now)

    def announce_to_restarted(self, peer: Peer, now: int) -> None:
        """A node that gets our list says HELLO. In use it does so once a minute; and also when it has just started, with an empty
        list, on which others would not find us until the next minute. The reference lets them wait."""
        for network in self._networks.values():
            last, count = self._announced.get((network.id, peer.address), (NEVER, 0))
            if network.config is not None and count and now - last < LIKE_MS:
                self._announced[(network.id, peer.address)] = (last + RESTARTED_LIKE_MS - LIKE_MS, max(count, 2))
                self.announce(network, now)  # at once, or else with the next ping check

    def announce_to_member(self, network: Network, address: int, now: int) -> None:
        """The full list to a permitted member, at most every 60 s."""
        member = network.members.record(address)
        if now - member.last_like >= LIKE_MS:
            member.last_like = now
            if (network.id, address) not in self._announced:
                # It accepts the list only from a permitted member.
                self._credentials.push_if_due(network, address, now)
                self._send_likes(network.id, network.own_groups(), address, now)

    def announce_new(self, network: Network, groups: list[MulticastGroup], now: int) -> None:
        """New groups to everybody at once."""
        if network.config is None or not groups:
            return
        everybody = dict.fromkeys(self._announce_to(network))
        for address in network.members.by_address:
            peer = self._topology.peers.get(address)
            if peer is not None and network.permitted(peer):
                everybody[address] = None
        for address in everybody:
            self._send_likes(network.id, groups, address, now)

    def _announce_to(self, network: Network) -> list[int]:
        addresses = [peer.address for peer in self._topology.upstreams]
        if network.has_controller:
            addresses.append(network.controller)
        addresses.extend(network.always_contact)
        return [address for address in dict.fromkeys(addresses) if address != self._address]

    def _send_likes(self, network: int, groups: list[MulticastGroup], address: int, now: int) -> None:
        for start in range(0, len(groups), LIKES_PER_PACKET):
            likes = tuple(Like(network, group) for group in groups[start : start + LIKES_PER_PACKET])
            self._sender.send(address, Verb.MULTICAST_LIKE, MulticastLike(likes).encode(), now, compress=True)

    def receive_like(self, inbound: Inbound, now: int) -> bool:
        peer = inbound.peer
        message = MulticastLike.decode(inbound.body)
        verdicts: dict[int, bool] = {}
        for network_id, group in message.likes:
            verdict = verdicts.get(network_id)
            if verdict is None:
                verdict = verdicts[network_id] = self._may_use_lists(network_id, inbound, now)
            if verdict:
                self._learn((network_id, group), peer.address, now)
                self._flush((network_id, group), [peer.address], now)
            else:
                self._counters["like_refused"] += 1
        return True

    def _may_use_lists(self, network_id: int, inbound: Inbound, now: int) -> bool:
        """Members of the network, everybody at a root, and those whom our controller served lately."""
        peer = inbound.peer
        network = self._networks.get(network_id)
        if network is not None and network.permitted(peer):
            return True
        return self._topology.is_root or self.authorised(network_id, peer.address, now)

    # -- GATHER (vl2 §5.4) --

    def receive_gather(self, inbound: Inbound, now: int) -> bool:
        message = MulticastGather.decode(inbound.body)
        network = self._networks.get(message.network)
        if network is not None:
            self._credentials.accept_inline(network, message.certificate, inbound.peer.address, now)
        if network is not None and network.permitted(inbound.peer):
            inbound.trusted = True
            self.announce_to_member(network, inbound.peer.address, now)
        if message.limit > 0 and self._may_use_lists(message.network, inbound, now):
            results = self._gather_results(message.network, message.group, message.limit, inbound.peer.address)
            if results is not None:
                answer = OkMulticastGather(message.network, message.group, results)
                ok = Ok(Verb.MULTICAST_GATHER, inbound.packet_id, answer.encode())
                self._sender.reply(inbound.peer, inbound.path, Verb.OK, ok.encode(), now)
        return True

    def _gather_results(self, network_id: int, group: MulticastGroup, limit: int, asker: int) -> GatherResults | None:
        """Total known, count, addresses: ourselves first if we listen, then others in random order."""
        network = self._networks.get(network_id)
        listening = network is not None and network.config is not None and group in network.own_groups()
        others = [address for address in self._members.get((network_id, group), ()) if address != asker]
        total = len(others) + listening
        if not total:
            return None
        wanted = min(limit, MAX_GATHER_RESULTS) - listening
        chosen = self._sample(others, max(wanted, 0))
        addresses = [self._address, *chosen] if listening else chosen
        return GatherResults(total, tuple(addresses))

    def receive_ok_gather(self, data: bytes, now: int) -> None:
        answer = OkMulticastGather.decode(data)
        self._results(answer.network, answer.group, answer.results, now)

    def receive_ok_frame(self, inbound: Inbound, data: bytes, now: int) -> None:
        answer = OkMulticastFrame.decode(data)
        network = self._networks.get(answer.network)
        if network is not None:
            self._credentials.accept_inline(network, answer.certificate, inbound.peer.address, now)
        if answer.results is not None:
            self._results(answer.network, answer.group, answer.results, now)

    def _results(self, network_id: int, group: MulticastGroup, results: GatherResults, now: int) -> None:
        if network_id not in self._networks:
            return
        key = (network_id, group)
        for address in results.members:
            self._learn(key, address, now)
        self._flush(key, results.members, now)

    def _gather(self, network: Network, group: MulticastGroup, limit: int, now: int) -> None:
        if len(self._gathered) >= MAX_GATHERED:
            del self._gathered[next(iter(self._gathered))]
        self._gathered[(network.id, group)] = now
        upstream = self._topology.best_upstream(now)
        destinations = [] if upstream is None else [upstream.address]
        if network.has_controller:
            destinations.append(network.controller)
        destinations.extend(self._sample(network.always_contact, MAX_GATHER_DESTINATIONS))
        certificate = None if network.config is None else network.config.membership
        body = MulticastGather(network.id, group, limit, certificate).encode()
        for address in list(dict.fromkeys(destinations))[:MAX_GATHER_DESTINATIONS]:
            if address != self._address:
                self._sender.send(address, Verb.MULTICAST_GATHER, body, now, expect=True)

    # -- sending (vl2 §5.6) --

    def send(
        self, network: Network, group: MulticastGroup, source: bytes, ethertype: int, payload: bytes, now: int, origin: int = 0
    ) -> None:
        """A frame from the port (`origin` 0), or one that a member asks us to replicate."""
        config = network.config
        if config is None or config.multicast_limit == 0:
            self._counters["multicast_disabled"] += 1
            return
        bridged = source != network.mac
        key = (network.id, group)
        if not network.active_bridge and self._address not in network.replicators and network.replicators:
            alive = [p for a in network.replicators if (p := self._topology.peers.get(a)) is not None and p.alive(now)]
            if alive:
                best = min(alive, key=lambda peer: (peer.latency(now) < 0, peer.latency(now)))
                self._copy(network, group, best.address, source, True, ethertype, payload, 0, now, replicate=True)
                return
        members = [address for address in self._members.get(key, ()) if address != origin]
        bridges = [address for address in network.bridges if address not in (self._address, origin)]
        limit = config.multicast_limit
        if len(members) >= limit:
            for address in list(dict.fromkeys((*bridges, *self._sample(members, limit))))[:limit]:
                self._copy(network, group, address, source, bridged, ethertype, payload, 1, now)
            return
        wanted = limit - len(members) + 1
        if not members or now - self._gathered.get(key, NEVER) >= GATHER_MS:
            self._gather(network, group, wanted, now)
            if not members and key not in self._regather and len(self._regather) < MAX_REGATHER:
                self._regather[key] = (now + REGATHER_MS[0], 0)
        frame = _Queued(source, bridged, ethertype, payload, limit, now)
        for address in dict.fromkeys((*bridges, *members)):
            frame.sent.add(address)
            self._copy(network, group, address, source, bridged, ethertype, payload, wanted, now)
        queue = self._queued.get(key)
        if queue is None:
            if len(self._queued) >= MAX_QUEUED_GROUPS:
                del self._queued[next(iter(self._queued))]
            queue = self._queued[key] = deque(maxlen=MAX_QUEUED)
        queue.append(frame)

    def _flush(self, key: _Key, addresses: Iterable[int], now: int) -> None:
        """Members were learned: they get the frames that wait for this group."""
        queue = self._queued.get(key)
        network = self._networks.get(key[0])
        if queue is None or network is None:
            return
        for frame in list(queue):
            if now - frame.since >= QUEUED_LIFETIME_MS:
                continue
            for address in addresses:
                if address != self._address and address not in frame.sent and len(frame.sent) < frame.limit:
                    frame.sent.add(address)
                    self._copy(network, key[1], address, frame.source, frame.bridged, frame.ethertype, frame.payload, 0, now)

    def _copy(
        self,
        network: Network,
        group: MulticastGroup,
        address: int,
        source: bytes,
        bridged: bool,
        ethertype: int,
        payload: bytes,
        gather: int,
        now: int,
        replicate: bool = False,
    ) -> None:
        """One copy to one member: filtered for it, our credentials first."""
        if not self._filters.outbound(network, address, source, group.mac, ethertype, payload, now, copies=False):
            return
        self._credentials.push_if_due(network, address, now)
        message = MulticastFrame(
            network.id,
            group,
            ethertype,
            payload,
            gather_limit=gather or None,
            source=source if bridged else None,
            replicate=replicate,
        )
        compress = network.config is not None and network.config.compress_multicast
        self._sender.send(address, Verb.MULTICAST_FRAME, message.encode(), now, compress=compress, expect=gather > 0)

    def answer_frame(self, network: Network, message: MulticastFrame, inbound: Inbound, now: int) -> None:
        """OK(MULTICAST_FRAME) with members, if the sender wants to know some (vl2 §5.5)."""
        if not message.gather_limit:
            return
        results = self._gather_results(network.id, message.group, message.gather_limit, inbound.peer.address)
        if results is None:
            return
        ok = Ok(Verb.MULTICAST_FRAME, inbound.packet_id, OkMulticastFrame(network.id, message.group, results).encode())
        self._sender.reply(inbound.peer, inbound.path, Verb.OK, ok.encode(), now)

    def unwanted(self, network: int, group: MulticastGroup, address: int) -> None:
        """ERROR(UNWANTED_MULTICAST) of a permitted member."""
        self._forget((network, group), address)

    # -- time --

    def next_deadline(self) -> int | None:
        return min((at for at, _ in self._regather.values()), default=None)

    def background(self, now: int) -> None:
        """Gather again for frames that found nobody."""
        for key, (at, attempt) in list(self._regather.items()):
            if now < at:
                continue
            network = self._networks.get(key[0])
            if network is None or network.config is None or key in self._members or attempt + 1 >= len(REGATHER_MS):
                del self._regather[key]
            else:
                self._regather[key] = (now + REGATHER_MS[attempt + 1], attempt + 1)
            if network is not None and network.config is not None and key not in self._members:
                self._gather(network, key[1], network.config.multicast_limit + 1, now)

    def left(self, network: int) -> None:
        """A network was left: its queues and announcements go."""
        for table in (self._queued, self._gathered, self._regather):
            for key in [key for key in table if key[0] == network]:
                del table[key]
        for pair in [pair for pair in self._announced if pair[0] == network]:
            del self._announced[pair]

    def announce_again(self) -> None:
        """A root became reachable: whatever it missed is repeated with the next announcement."""
        self._announced.clear()

    def housekeeping(self, now: int) -> None:
        """Drop old members and frames (vl2 §5.3)."""
        for key in list(self._members):
            for address, seen in list(self._members[key].items()):
                if now - seen >= ENTRY_LIFETIME_MS:
                    self._forget(key, address)
        for key in list(self._queued):
            queue = self._queued[key]
            while queue and now - queue[0].since >= QUEUED_LIFETIME_MS:
                queue.popleft()
            if not queue:
                del self._queued[key]
        self._gathered = {key: at for key, at in self._gathered.items() if now - at < GATHER_MS}
