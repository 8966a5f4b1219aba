"""The controller inside real engines, on the simulator's fabric: joining, pushes, eviction, crashes."""

from __future__ import annotations

import random

import pytest

from netcon.controller import Controller, MemoryStore
from netcon.core.actions import PersistRecords
from netcon.core.world import World
from tests.controller.lab import POOL
from tests.simulator import IDENTITIES, Fabric, Lab, SimNode

PAYLOAD = b"between members of one network"
ETHERTYPE = 0x0800


class ControllerNode(SimNode):
    """A node whose controller starts from its store; what is not committed is lost when it stops."""

    def __init__(self, fabric: Fabric, planet: World) -> None:
        self.store = MemoryStore()
        super().__init__(fabric, IDENTITIES[1], Lab.endpoint(1), planet)

    def start(self, planet: World) -> None:
        self.records = Controller(IDENTITIES[1], random.Random(self.fabric.seed).randbytes, self.store.load())
        self.controller = self.records
        super().start(planet)

    def _committed(self, ticket: object) -> None:
        (action,) = (action for action in self.persisted if action.ticket == ticket)
        assert isinstance(action, PersistRecords)
        self.store.commit(action.changes)
        self.persisted.remove(action)
        super()._committed(ticket)

    def stop(self) -> None:
        self.persisted.clear()
        super().stop()

    def changed(self) -> None:
        """After a management call."""
        self.node.controller_changed(self.fabric.now)
        self.perform()


class World3:
    """A root, a controller and members."""

    def __init__(self, members: int, seed: int = 1, *, join: bool = True) -> None:
        lab = Lab(members, seed=seed)
        lab.controller.stop()
        self.fabric, self.members = lab.fabric, lab.members
        self.controller = ControllerNode(lab.fabric, lab.planet)
        record = self.controller.records.create_network(lab.fabric.now, {**POOL, "name": "test"})
        self.network = int(record["id"], 16)
        self.controller.changed()
        for member in self.members if join else ():
            member.join(self.network)

    def authorize(self, *members: SimNode, authorized: bool = True) -> None:
        for member in members:
            changes = {"authorized": authorized}
            self.controller.records.update_member(self.fabric.now, self.network, member.identity.address, changes)
        self.controller.changed()

    def wait(self, status: str, *members: SimNode, limit: int = 60_000) -> int:
        return self.fabric.run_until(lambda: all(member.status(self.network) == status for member in members), limit)

    def reaches(self, sender: SimNode, receiver: SimNode, within: int = 6_000) -> bool:
        """Whether a frame arrives."""
        receiver.take_frames()
        sender.send_frame(self.network, receiver.mac(self.network), ETHERTYPE, PAYLOAD)
        self.fabric.run(within)
        return any(frame.payload == PAYLOAD for frame in receiver.take_frames())


def test_members_wait_are_admitted_at_once_and_reach_each_other() -> None:
    world = World3(2)
    a, b = world.members
    world.wait("ACCESS_DENIED", a, b)
    world.authorize(a, b)
    assert world.wait("OK", a, b) < 500, "pushed, not waited for the next request"
    assert world.controller.records.count_members(world.network) == (2, 2)
    assert a.ip(world.network) != b.ip(world.network)
    assert world.reaches(a, b)
    assert world.reaches(b, a)


def test_a_changed_network_reaches_its_members_at_once() -> None:
    world = World3(2)
    world.authorize(*world.members)
    world.wait("OK", *world.members)
    world.controller.records.update_network(world.fabric.now, world.network, {"mtu": 1500, "name": "renamed"})
    world.controller.changed()

    def renamed(member: SimNode) -> bool:
        status = member.node.network(world.network)
        return status is not None and status.config is not None and (status.config.name, status.config.mtu) == ("renamed", 1500)

    assert world.fabric.run_until(lambda: all(map(renamed, world.members))) < 500


def test_an_evicted_member_is_cut_off_by_its_revocation() -> None:
    world = World3(3)
    a, b, c = world.members
    world.authorize(a, b, c)
    world.wait("OK", a, b, c)
    assert world.reaches(a, b)
    assert world.reaches(c, b)
    world.authorize(a, authorized=False)
    world.fabric.run(200)
    assert a.status(world.network) == "OK", "it does not know yet, and still sends"
    assert not world.reaches(a, b)
    assert world.reaches(c, b)
    world.wait("ACCESS_DENIED", a, limit=90_000)
    world.authorize(a)
    world.wait("OK", a)
    assert world.reaches(a, b)


def test_members_evicted_one_right_after_the_other_are_both_cut_off() -> None:
    world = World3(4)
    a, b, c, d = world.members
    world.authorize(a, b, c, d)
    world.wait("OK", *world.members)
    assert world.reaches(a, d)
    assert world.reaches(b, d)
    world.authorize(a, authorized=False)
    world.fabric.run(100)
    world.authorize(b, authorized=False)
    world.fabric.run(2000)
    assert not world.reaches(a, d, within=1000)
    assert not world.reaches(b, d, within=1000)
    assert world.reaches(c, d, within=1000)


def test_a_deleted_network_is_not_found() -> None:
    world = World3(1)
    world.authorize(*world.members)
    world.wait("OK", *world.members)
    world.controller.records.delete_network(world.fabric.now, world.network)
    world.controller.changed()
    world.wait("NOT_FOUND", *world.members, limit=90_000)


@pytest.mark.parametrize("seed", range(4))
def test_a_controller_that_crashes_during_its_commits_gives_each_member_its_own_address(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again while commits are under way, with just as many addresses as members."""
    monkeypatch.setattr("tests.simulator.COMMIT_MS", 80)
    world = World3(8, seed, join=False)
    pools = [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.9"}]
    world.controller.records.update_network(world.fabric.now, world.network, {"private": False, "ipAssignmentPools": pools})
    world.controller.changed()
    world.fabric.run(500)
    moments = random.Random(seed)
    told: dict[int, bytes] = {}
    for member in world.members:
        member.join(world.network)
        world.fabric.run_until(lambda: bool(world.controller.persisted))
        world.fabric.run(moments.randint(0, 120))
        world.controller.restart()
        for other in world.members:
            status = other.node.network(world.network)
            if status is not None and status.config is not None:
                address = other.ip(world.network)
                assert told.setdefault(other.identity.address, address) == address, "an address once told stays"
    assert len(told) < len(world.members), "no crash came during a commit: this seed tests nothing"
    world.wait("OK", *world.members)
    addresses = [member.ip(world.network) for member in world.members]
    assert len(set(addresses)) == len(addresses)
    assert all(told.get(member.identity.address, member.ip(world.network)) == member.ip(world.network) for member in world.members)
