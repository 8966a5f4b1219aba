"""A controller with a store in memory, turned by hand: requests in, what leaves out, commits when told."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from netcon.controller import Controller, MemoryStore
from netcon.core.controller_role import ConfigRequest, ControllerAction, Persist, SendConfig, SendError, SendRevocations
from netcon.core.dictionary import Dictionary
from netcon.core.identity import Identity
from netcon.core.netconf import NetworkConfig, request_metadata

CONTROLLER = Identity.parse(
    "701beb847c:0:04efa37ab563cf6d66a9e9fe751bfc419554959c02106e4c9986b39575efb3789bff73bcd7457d9cccae47c9e72422bbb2af4fcdb68c0531"
    "3628db751dc69071:bc27dc7c1845c887b74f8c557a7784aa095876d4774fba7191130ce81a1a9b2723b1ef7882405ce73543f61c7e8cd998642f68093b52"
    "8dde4cedd8648e8a0e2b"
)
NETWORK = CONTROLLER.address << 24 | 0x4A52C7
START = 1_700_000_000_000
POOL: dict[str, Any] = {
    "routes": [{"target": "10.9.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.254"}],
    "v4AssignMode": {"zt": True},
}
METADATA = dict(Dictionary.decode(request_metadata((1, 14, 1), platform="linux/x86_64")))


def node(number: int) -> Identity:
    """A node to ask with. Its key fits no derivation; controllers leave that check to VL1."""
    return Identity(0x1000000000 + number, hashlib.sha512(b"node %d" % number).digest())


class Lab:
    def __init__(self, *, store: MemoryStore | None = None, seed: int = 1, identity: Identity = CONTROLLER) -> None:
        self.identity = identity
        self.store = store or MemoryStore()
        self.random = random.Random(seed)
        self.now = START
        self.pending: list[Persist] = []
        self.packet_id = 0
        self.start()

    def start(self) -> None:
        """A controller from what the store holds; whatever was under way is lost, as in a crash."""
        self.pending = []
        self.controller = Controller(self.identity, self.random.randbytes, self.store.load())

    def network(self, network: int = NETWORK, **changes: Any) -> int:
        self.controller.create_network(self.now, changes, network)
        self.settle()
        return network

    def authorize(self, *members: Identity, network: int = NETWORK, **changes: Any) -> None:
        for member in members:
            self.controller.update_member(self.now, network, member.address, {"authorized": True, **changes})
        self.settle()

    def ask(self, member: Identity, network: int = NETWORK, metadata: dict[str, bytes] | None = None) -> int:
        """One request; returns its packet id. Two of one node must be 1001 ms apart."""
        self.packet_id += 1
        request = ConfigRequest(network, member, METADATA if metadata is None else metadata, self.packet_id)
        self.controller.request(request, self.now)
        return self.packet_id

    def take(self) -> list[ControllerAction]:
        """What leaves now; commits are set aside."""
        actions = self.controller.take_actions()
        self.pending += [action for action in actions if isinstance(action, Persist)]
        return [action for action in actions if not isinstance(action, Persist)]

    def commit(self, count: int | None = None) -> list[ControllerAction]:
        """Commit the oldest of what is set aside (all by default); returns what leaves after each."""
        left = self.take()
        while self.pending and count != 0:
            persist = self.pending.pop(0)
            self.store.commit(persist.changes)
            self.controller.persisted(persist.ticket, self.now)
            left += self.take()
            count = None if count is None else count - 1
        return left

    settle = commit

    def served(self, member: Identity, network: int = NETWORK, metadata: dict[str, bytes] | None = None) -> NetworkConfig:
        """Ask, and expect a configuration."""
        packet_id = self.ask(member, network, metadata)
        (reply,) = self.commit()
        assert isinstance(reply, SendConfig)
        assert (reply.network, reply.member, reply.packet_id) == (network, member.address, packet_id)
        return NetworkConfig.from_dictionary(reply.dictionary)

    def refused(self, member: Identity, network: int = NETWORK, metadata: dict[str, bytes] | None = None) -> int:
        """Ask, and expect an error; returns its code."""
        packet_id = self.ask(member, network, metadata)
        (reply,) = self.commit()
        assert isinstance(reply, SendError)
        assert (reply.network, reply.member, reply.packet_id) == (network, member.address, packet_id)
        return reply.code

    def pushed(self) -> dict[int, NetworkConfig]:
        """Commit, and expect nothing but pushes; by member."""
        pushes = {}
        for action in self.commit():
            assert isinstance(action, SendConfig)
            assert action.packet_id is None
            pushes[action.member] = NetworkConfig.from_dictionary(action.dictionary)
        return pushes

    def revoked(self) -> dict[int, list[bytes]]:
        """Commit, and expect nothing but revocations; by recipient."""
        sent: dict[int, list[bytes]] = {}
        for action in self.commit():
            assert isinstance(action, SendRevocations)
            sent.setdefault(action.member, []).extend(action.revocations)
        return sent
