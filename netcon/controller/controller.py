"""The network controller: answers configuration requests and changes networks and members (vl2 §7, service-api §4).

Sans-I/O. Records live in memory, newest state first; every change also leaves as a `Persist` action, and whatever tells a node
about it waits for that commit (`commit_gate`). After a crash the host makes a new controller from the store's rows, and no node has
been told anything that is not in them.
"""

from __future__ import annotations

import copy
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from netcon.controller import records
from netcon.controller.certificates import Issuer
from netcon.controller.coercion import as_ip
from netcon.controller.commit_gate import CommitGate
from netcon.controller.configuration import Requester, build_configuration, certificate_window, metadata_text
from netcon.controller.errors import InvalidRequest, UnknownMember, UnknownNetwork
from netcon.controller.records import MEMBER_TABLE, NETWORK_TABLE, Record, member_key, network_key, record_text
from netcon.controller.revocations import PER_PACKET, RevocationQueues
from netcon.controller.tokens import TokenBook, presented
from netcon.core.controller_role import ConfigRequest, ControllerAction, SendConfig, SendError
from netcon.core.identity import Identity

OBJECT_NOT_FOUND = 0x03
NETWORK_ACCESS_DENIED = 0x07

#: Requests of one node for one network closer than this are ignored (vl2 §7.1 step 2).
REQUEST_SPACING_MS = 1_000
#: A member that asked within this time is told about changes at once (vl2 §7.5).
SEEN_MS = 120_000
PRUNE_MS = 30_000
#: Never-seen nodes are not recorded any more in a network with so many members.
MAXIMUM_MEMBERS = 65_536
NEVER = (1 << 63) - 1
NOTHING: Mapping[str, object] = MappingProxyType({})

Changes = list[tuple[str, str, str | None]]


@dataclass(slots=True)
class _Presence:
    """A node that asked for a network lately. `last_issued`: time in its newest certificates; the next ones carry a later one."""

    requester: Requester
    last_request: int
    last_issued: int = 0


class _Index:
    """What is looked up across the members of a network: packed addresses in anybody's `ipAssignments`, the active bridges, and who
    lost the authorisation when."""

    def __init__(self) -> None:
        self.taken: Counter[bytes] = Counter()
        self.bridges: set[int] = set()
        self.evicted: dict[int, int] = {}

    def replace(self, address: int, old: Record | None, new: Record | None) -> None:
        for ip in _addresses(old):
            self.taken[ip] -= 1
            if not self.taken[ip]:
                del self.taken[ip]
        self.taken.update(_addresses(new))
        if new is not None and new["activeBridge"]:
            self.bridges.add(address)
        else:
            self.bridges.discard(address)
        self.evicted.pop(address, None)
        if new is not None and new["lastDeauthorizedTime"] and not new["authorized"]:
            self.evicted[address] = new["lastDeauthorizedTime"]


@dataclass(slots=True, frozen=True)
class _Revocation:
    """Waits for its commit, then for its recipient's turn."""

    recipient: int
    data: bytes


class Controller:
    """Implements `netcon.core.controller_role.ControllerRole`; the management calls are for the host's API.

    `rows`: all records of the store. Management calls return full records (copies), raise ControllerError, and leave actions like
    any other call; `last_ticket` is the commit that makes them durable.
    """

    def __init__(self, identity: Identity, random: Callable[[int], bytes], rows: Iterable[tuple[str, str, str]] = ()) -> None:
        """CorruptStore if a row cannot be used."""
        rows = list(rows)
        self._identity = identity
        self._issuer = Issuer(identity)
        self._random = random
        self._networks, self._members = records.load_records(rows)
        self._tokens = TokenBook(rows)
        self._index: dict[int, _Index] = {}
        #: When authorisations end by themselves: (time, network, member), a heap in which old entries stay until their time.
        self._endings: list[tuple[int, int, int]] = []
        for network in self._networks:
            self._index[network] = _Index()
            for address, record in self._members.setdefault(network, {}).items():
                self._indexed(network, address, None, record)
        self._presence: dict[tuple[int, int], _Presence] = {}
        self._strangers: dict[int, int] = {}  # address → its last request for a network that is none
        self._gate: CommitGate[SendConfig | SendError | _Revocation] = CommitGate()
        self._revocations = RevocationQueues()
        self._next_prune = NEVER
        self._actions: list[ControllerAction] = []

    # -- what the engine calls --

    def request(self, request: ConfigRequest, now: int) -> None:
        network, address = request.network, request.member.address
        if network >> 24 != self._identity.address:
            return
        self._next_prune = min(self._next_prune, now + PRUNE_MS)
        self._end_memberships(now)
        if network not in self._networks:
            if not _recent(self._strangers.get(address), now, REQUEST_SPACING_MS):
                self._strangers[address] = now
                self._actions.append(SendError(network, address, OBJECT_NOT_FOUND, request.packet_id))
            return
        presence = self._presence.get((network, address))
        if presence is not None and _recent(presence.last_request, now, REQUEST_SPACING_MS):
            return

        old = self._members[network].get(address)
        text = request.member.to_text()
        if old is not None and old.get("identity", text) != text:
            self._actions.append(SendError(network, address, NETWORK_ACCESS_DENIED, request.packet_id))
            return
        if old is None and len(self._members[network]) >= MAXIMUM_MEMBERS:
            self._actions.append(SendError(network, address, NETWORK_ACCESS_DENIED, request.packet_id))
            return
        requester = Requester(request.member, request.metadata)
        newly_here = presence is None or not _recent(presence.last_request, now, SEEN_MS)
        if presence is None:
            presence = self._presence[network, address] = _Presence(requester, now)
        presence.requester, presence.last_request = requester, now

        record = self._first_record(network, address, now) if old is None else old
        changes: Changes = []
        record = self._authorize(network, {**record, "identity": text}, request.metadata, now, changes)
        reply: SendConfig | SendError
        if record["authorized"]:
            reply = self._configure(network, address, record, presence, now, request.packet_id, changes)
            if newly_here:
                self._tell_of_evicted(network, address, now)
        else:
            self._put_member(network, address, record, changes)
            reply = SendError(network, address, NETWORK_ACCESS_DENIED, request.packet_id)
        self._commit(network, changes)
        self._send(reply)

    def persisted(self, ticket: int, now: int) -> None:
        for item in self._gate.persisted(ticket):
            if isinstance(item, _Revocation):
                self._revocations.add(item.recipient, item.data, now)
            else:
                self._actions.append(item)
        self._actions.extend(self._revocations.due(now))

    def background(self, now: int) -> int:
        self._end_memberships(now)
        if now >= self._next_prune:
            self._presence = {key: p for key, p in self._presence.items() if _recent(p.last_request, now, SEEN_MS)}
            self._strangers = {address: last for address, last in self._strangers.items() if _recent(last, now, SEEN_MS)}
            self._revocations.forget_idle(now)
            self._next_prune = now + PRUNE_MS if self._presence or self._strangers else NEVER
        self._actions.extend(self._revocations.due(now))
        revocations = self._revocations.next_due()
        ending = self._endings[0][0] if self._endings else NEVER
        return min(self._next_prune, ending, NEVER if revocations is None else revocations)

    def take_actions(self) -> list[ControllerAction]:
        actions, self._actions = self._actions, []
        return actions

    # -- what the host's API calls --

    @property
    def last_ticket(self) -> int:
        """Ticket of the newest commit; 0 before the first."""
        return self._gate.last_ticket

    def is_persisted(self, ticket: int) -> bool:
        return self._gate.is_persisted(ticket)

    def list_networks(self) -> list[str]:
        """Network ids as 16 digits, sorted."""
        return [network_key(network) for network in sorted(self._networks)]

    def get_network(self, network: int) -> Record:
        return copy.deepcopy(self._network(network))

    def create_network(self, now: int, changes: object = NOTHING, network: int | None = None) -> Record:
        """A new network, with a random id of this controller if none is given. InvalidRequest if it exists."""
        if network is None:
            network = self._unused_id()
        elif not 0 < network < 1 << 64:
            raise InvalidRequest("a network id is 16 hexadecimal digits, not all zero")
        elif network in self._networks:
            raise InvalidRequest(f"network {network:016x} exists already")
        record = records.update_network(records.new_network(network, now), changes)
        self._networks[network] = record
        self._members[network] = {}
        self._index[network] = _Index()
        self._commit(network, [(NETWORK_TABLE, network_key(network), record_text(record))])
        return copy.deepcopy(record)

    def update_network(self, now: int, network: int, changes: object) -> Record:
        """Change a network, or create it if there is none of this id (service-api §4). Online members get new configurations."""
        if network not in self._networks:
            return self.create_network(now, changes, network)
        old = self._networks[network]
        record = records.revised(old, records.update_network(old, changes))
        if record is not None:
            self._networks[network] = record
            commit: Changes = [(NETWORK_TABLE, network_key(network), record_text(record))]
            self._push(network, self._online(network, now), now, commit)
        return copy.deepcopy(self._networks[network])

    def delete_network(self, now: int, network: int) -> Record:
        """Delete a network with its members, whose certificates are revoked; returns the old record."""
        record = self._network(network)
        members = self._members[network]
        recipients = self._online(network, now)
        evicted = [address for address, member in members.items() if member["authorized"]]
        commit: Changes = [(MEMBER_TABLE, member_key(network, address), None) for address in members]
        commit += self._tokens.forget(network)
        commit.append((NETWORK_TABLE, network_key(network), None))
        self._commit(network, commit)
        for address in evicted:
            self._revoke(network, address, recipients, now)
        for address in members:
            self._gate.discard(network, address)
        del self._networks[network], self._members[network], self._index[network]
        return copy.deepcopy(record)

    def list_members(self, network: int) -> dict[str, int]:
        """Revisions by member address (10 digits), sorted."""
        self._network(network)
        members = self._members[network]
        return {f"{address:010x}": members[address]["revision"] for address in sorted(members)}

    def count_members(self, network: int) -> tuple[int, int]:
        """How many members a network has, and how many of them are authorised."""
        self._network(network)
        members = self._members[network].values()
        return len(members), sum(1 for member in members if member["authorized"])

    def get_member(self, network: int, member: int) -> Record:
        return copy.deepcopy(self._member(network, member))

    def update_member(self, now: int, network: int, member: int, changes: object) -> Record:
        """Change a member, or record it in advance if it was never seen. It gets a new configuration if it is online; deauthorising
        revokes its certificates at once."""
        self._network(network)
        self._end_memberships(now)
        if not 0 < member < 0xFF << 32:
            raise InvalidRequest("a member's address is 10 hexadecimal digits, not all zero, and does not begin with ff")
        old = self._members[network].get(member)
        before = records.new_member(network, member, now) if old is None else old
        record = records.update_member(before, changes, now)
        commit: Changes = []
        recipients = self._online(network, now)
        if self._put_member(network, member, record, commit):
            # Bridges are named in everybody's configuration.
            everybody = before["activeBridge"] != record["activeBridge"]
            self._push(network, self._online(network, now) if everybody else [member], now, commit)
            if before["authorized"] and not record["authorized"]:
                self._evict(network, member, recipients, now)
        return copy.deepcopy(self._members[network][member])

    def delete_member(self, now: int, network: int, member: int) -> Record:
        """Forget a member; returns the old record. It reappears, not authorised, if it asks again."""
        record = self._member(network, member)
        recipients = self._online(network, now)
        del self._members[network][member]
        self._indexed(network, member, record, None)
        commit: Changes = [(MEMBER_TABLE, member_key(network, member), None)]
        self._push(network, self._online(network, now) if record["activeBridge"] else (), now, commit)
        if record["authorized"]:
            self._evict(network, member, recipients, now)
        return copy.deepcopy(record)

    def list_tokens(self, network: int, now: int) -> list[Record]:
        """The network's join tokens, oldest first, without their secrets."""
        self._network(network)
        return self._tokens.of(network, now)

    def create_token(self, now: int, network: int, wanted: object = NOTHING) -> Record:
        """A secret that authorises members at once: `name`, `expires` (ms since 1970), `maximumUses`, `memberLifetime` (ms; the
        authorisations that it gives end after it), `token` (the secret, if it is not to be drawn). The only answer that has the
        secret. InvalidRequest."""
        self._network(network)
        if not isinstance(wanted, Mapping):
            raise InvalidRequest('the body must be a JSON object, such as {"maximumUses": 1}')
        record, change = self._tokens.create(network, now, wanted, self._random)
        self._commit(network, [change])
        return record

    def revoke_token(self, now: int, network: int, token: str) -> Record:
        """Make a token worthless; returns its record. Its members stay. UnknownToken."""
        self._network(network)
        record, change = self._tokens.revoke(network, token, now)
        self._commit(network, [change])
        return record

    # -- records --

    def _network(self, network: int) -> Record:
        record = self._networks.get(network)
        if record is None:
            raise UnknownNetwork(network)
        return record

    def _member(self, network: int, member: int) -> Record:
        self._network(network)
        record = self._members[network].get(member)
        if record is None:
            raise UnknownMember(network, member)
        return record

    def _unused_id(self) -> int:
        while True:
            low = int.from_bytes(self._random(3), "big")
            network = self._identity.address << 24 | low
            if low != 0 and network not in self._networks:
                return network

    def _first_record(self, network: int, address: int, now: int) -> Record:
        """The record that a member's own request creates; only such a one gets the default capabilities (vl2 §7.4)."""
        capabilities = sorted(c["id"] for c in self._networks[network]["capabilities"] if c["default"])
        return {**records.new_member(network, address, now), "capabilities": capabilities}

    def _authorize(self, network: int, member: Record, metadata: Mapping[str, bytes], now: int, changes: Changes) -> Record:
        """vl2 §7.1 step 5, and our own tokens, a use of which is a change, too."""
        if member["authorized"]:
            return member
        record = self._networks[network]
        if not record["private"]:
            return records.authorized_by(member, "public", None, now)
        secret = presented(metadata_text(metadata, "a"))
        token = self._tokens.admitting(network, secret, member["lastDeauthorizedTime"], now)
        if token is not None:
            changes.append(self._tokens.used(network, token))
            lifetime = token["memberLifetime"]
            member = {**member, "authorizedUntil": now + lifetime} if lifetime else records.for_ever(member, now)
            return records.authorized_by(member, "token", token["id"], now)
        tokens = record["authTokens"]  # a list when unset
        # Unlike the reference, not for those who were put out: it could not be done while they hold the token.
        if secret and isinstance(tokens, dict) and member["lastDeauthorizedTime"] == 0:
            expiry = tokens.get(secret)
            if expiry is not None and (expiry == 0 or expiry > now):
                return records.authorized_by(records.for_ever(member, now), "token", secret, now)
        return member

    def _end_memberships(self, now: int) -> None:
        """Those whose time is over."""
        while self._endings and self._endings[0][0] <= now:
            ends, network, address = heapq.heappop(self._endings)
            record = self._members.get(network, {}).get(address)
            if record is None or records.authorization_ends(record) != ends:
                continue
            recipients = self._online(network, now)
            changes: Changes = []
            self._put_member(network, address, records.deauthorized(record, now), changes)
            self._commit(network, changes)
            self._evict(network, address, recipients, now)

    def _indexed(self, network: int, address: int, old: Record | None, new: Record | None) -> None:
        """A record is being replaced: keep up what is looked up across records."""
        self._index[network].replace(address, old, new)
        ends = None if new is None else records.authorization_ends(new)
        if ends is not None and (old is None or records.authorization_ends(old) != ends):
            heapq.heappush(self._endings, (ends, network, address))

    def _put_member(self, network: int, address: int, record: Record, changes: Changes) -> bool:
        """Make `record` the member's, with the next revision. False if nothing changed."""
        old = self._members[network].get(address)
        revised = record if old is None else records.revised(old, record)
        if revised is None:
            return False
        self._indexed(network, address, old, revised)
        self._members[network][address] = revised
        changes.append((MEMBER_TABLE, member_key(network, address), record_text(revised)))
        return True

    # -- what leaves --

    def _commit(self, network: int, changes: Changes) -> None:
        if changes:
            self._actions.append(self._gate.persist(network, changes))

    def _send(self, reply: SendConfig | SendError) -> None:
        """Let a reply leave once the network's records are durable. A newer one takes the place of one that still waits."""
        waiting = self._gate.held(reply.network, reply.member)
        if isinstance(reply, SendConfig) and reply.packet_id is None and isinstance(waiting, SendConfig | SendError):
            reply = SendConfig(reply.network, reply.member, reply.dictionary, waiting.packet_id)
        if not self._gate.hold(reply.network, reply.member, reply):
            self._actions.append(reply)

    def _configure(
        self, network: int, address: int, record: Record, presence: _Presence, now: int, packet_id: int | None, changes: Changes
    ) -> SendConfig:
        """Build a configuration for an authorised member; addresses and tags it got on this occasion go into its record."""
        presence.last_issued = max(now, presence.last_issued + 1)
        index = self._index[network]
        dictionary, record = build_configuration(
            self._issuer,
            network,
            self._networks[network],
            record,
            presence.requester,
            sorted(index.bridges),
            index.taken,
            self._random,
            presence.last_issued,
        )
        self._put_member(network, address, record, changes)
        return SendConfig(network, address, dictionary, packet_id)

    def _online(self, network: int, now: int) -> list[int]:
        """Authorised members that asked lately."""
        members = self._members[network]
        return [
            address
            for (of, address), presence in self._presence.items()
            if of == network
            and _recent(presence.last_request, now, SEEN_MS)
            and address in members
            and members[address]["authorized"]
        ]

    def _push(self, network: int, addresses: Iterable[int], now: int, changes: Changes) -> None:
        """Commit `changes` and what the new configurations of those of `addresses` that are online add to them, then send these."""
        online = set(self._online(network, now))
        pushes = []
        for address in addresses:
            if address in online:
                record = self._members[network][address]
                presence = self._presence[network, address]
                pushes.append(self._configure(network, address, record, presence, now, None, changes))
        self._commit(network, changes)
        for push in pushes:
            self._send(push)

    def _evict(self, network: int, member: int, recipients: Iterable[int], now: int) -> None:
        """A member lost its authorisation: nothing that waits for it may leave, and the others are told."""
        self._gate.discard(network, member)
        self._revoke(network, member, recipients, now)

    def _revoke(self, network: int, member: int, recipients: Iterable[int], now: int) -> None:
        others = [recipient for recipient in recipients if recipient != member]
        presence = self._presence.get((network, member))
        threshold = now
        if presence is not None:
            # Certificates were issued up to this time; the next ones will be later, should the member come back.
            threshold = presence.last_issued = max(now, presence.last_issued)
        if not others:
            return
        number = int.from_bytes(self._random(4), "big")
        revocation = self._issuer.revoke_membership(network, member, number, threshold)
        for recipient in others:
            item = _Revocation(recipient, revocation)
            if not self._gate.hold(network, (member, recipient, number), item):
                self._revocations.add(recipient, revocation, now)
        self._actions.extend(self._revocations.due(now))

    def _tell_of_evicted(self, network: int, recipient: int, now: int) -> None:
        """A member that comes (back) was not told who lost its authorisation meanwhile: while we were not running, or it was not
        heard of. As long as their certificates may agree with its own, it learns of them now."""
        since = now - certificate_window(self._networks[network])
        evicted = [(time, address) for address, time in self._index[network].evicted.items() if time > since]
        for threshold, address in heapq.nlargest(PER_PACKET, evicted):
            number = int.from_bytes(self._random(4), "big")
            data = self._issuer.revoke_membership(network, address, number, threshold)
            if not self._gate.hold(network, (address, recipient, number), _Revocation(recipient, data)):
                self._revocations.add(recipient, data, now)


def _recent(last: int | None, now: int, within: int) -> bool:
    return last is not None and 0 <= now - last <= within


def _addresses(record: Record | None) -> list[bytes]:
    """The packed addresses of a member's `ipAssignments`."""
    return [] if record is None else [ip.packed for text in record["ipAssignments"] if (ip := as_ip(text)) is not None]
