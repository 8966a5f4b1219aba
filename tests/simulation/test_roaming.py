"""Addresses that change in the middle of a flow, several sockets and paths, and IPv6: in virtual time (vl1 §5.4, §5.10).

The times asserted are what a user notices: for how long frames do not arrive, in either direction.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from netcon.core.actions import Endpoint
from netcon.core.world import Root, make_planet
from tests.nat import Kind, NatLab
from tests.simulator import IDENTITIES, WORLD_SECRET, Fabric, Lab, SimNode, SimpleController

BEAT_MS = 50
SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])


class World(Protocol):
    fabric: Fabric
    network: int
    root: SimNode


def place(*parts: int, port: int = 9993) -> Endpoint:
    return Endpoint(bytes(parts), port)


def v6(*groups: int, port: int = 9993) -> Endpoint:
    return Endpoint(b"\x20\x01\x0d\xb8" + b"".join(group.to_bytes(2) for group in groups).rjust(12, b"\0"), port)


def gaps(lab: World, one: SimNode, other: SimNode, duration: int) -> tuple[int, int]:
    """Frames each way at each beat; the longest time without one arriving at `one`, and at `other`, ms."""
    last = {one: lab.fabric.now, other: lab.fabric.now}
    longest = {one: 0, other: 0}
    for _ in range(duration // BEAT_MS):
        for source, target in ((one, other), (other, one)):
            source.send_frame(lab.network, target.mac(lab.network), 0x0800, b"beat" * 16)
        lab.fabric.run(BEAT_MS)
        for node in last:
            longest[node] = max(longest[node], lab.fabric.now - last[node])
            if node.take_frames():
                last[node] = lab.fabric.now
    return longest[one], longest[other]


def direct(lab: World, one: SimNode, other: SimNode) -> bool:
    """Whether frames between them leave the root alone."""
    before = lab.root.node.counters["relayed"]
    gaps(lab, one, other, 2_000)
    return one.direct(other) and other.direct(one) and lab.root.node.counters["relayed"] == before


def met(seed: int, **fabric: object) -> tuple[Lab, SimNode, SimNode]:
    lab = Lab(2, seed=seed, **fabric)
    lab.join_all()
    a, b = lab.members
    gaps(lab, a, b, 20_000)
    assert direct(lab, a, b)
    return lab, a, b


def used(one: SimNode, other: SimNode) -> Endpoint:
    """Where `one` sends what is for `other`."""
    (peer,) = [peer for peer in one.node.peers(one.fabric.now) if peer.address == other.identity.address]
    (path,) = [path for path in peer.paths if path.preferred]
    return path.endpoint


@SEEDS
@pytest.mark.parametrize("told", [True, False], ids=["its own interface", "unknown to it"])
@pytest.mark.parametrize("new", [place(10, 0, 77, 1), place(10, 0, 2, 1, port=4_000)], ids=["another address", "another port"])
def test_a_member_whose_address_changes(seed: int, told: bool, new: Endpoint) -> None:
    lab, a, b = met(seed)
    a.move(new, told=told)
    to_a, to_b = gaps(lab, a, b, 30_000)
    assert to_a < 3_000
    assert to_b < 500
    assert used(b, a) == new
    assert direct(lab, a, b)


@SEEDS
def test_both_change_at_once(seed: int) -> None:
    lab, a, b = met(seed)
    a.move(place(10, 0, 77, 1))
    b.move(place(10, 0, 78, 1))
    assert max(gaps(lab, a, b, 30_000)) < 4_000
    assert direct(lab, a, b)


@SEEDS
@pytest.mark.parametrize("kind", [Kind.FULL_CONE, Kind.PORT_RESTRICTED])
def test_a_nat_box_that_forgets(seed: int, kind: Kind) -> None:
    lab = NatLab(kind, kind, seed=seed)
    lab.join_all()
    a, b = lab.members
    gaps(lab, a, b, 20_000)
    assert lab.direct()
    nat = lab.nats[0]
    assert nat is not None
    nat.restart()
    assert max(gaps(lab, a, b, 60_000)) < 8_000
    assert direct(lab, a, b)


@SEEDS
def test_with_loss_the_direct_path_is_kept(seed: int) -> None:
    """A flow in one direction only, a tenth of all datagrams lost: questions and answers get lost, too."""
    lab, a, b = met(seed)
    lab.fabric.loss = 0.1
    before = lab.root.node.counters["relayed"]
    sent = 0
    for _ in range(120_000 // BEAT_MS):
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"beat" * 16)
        sent += 1
        lab.fabric.run(BEAT_MS)
    assert lab.root.node.counters["relayed"] - before < 0.1 * sent
    assert len(b.take_frames()) > 0.8 * sent


@SEEDS
def test_a_dead_peer_costs_little(seed: int) -> None:
    """Sending on to one that is gone: it is asked once a second, the root a few times, and no more."""
    lab, a, b = met(seed)
    b.stop()
    before, sent = a.sent, 0
    for _ in range(60_000 // BEAT_MS):
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"beat" * 16)
        sent += 1
        lab.fabric.run(BEAT_MS)
    assert a.sent - before - sent < 60 + 40


@SEEDS
def test_a_path_that_fails_and_is_there_again(seed: int) -> None:
    lab, a, b = met(seed)
    lab.fabric.block(a, b)
    assert max(gaps(lab, a, b, 30_000)) < 6_000
    assert max(gaps(lab, a, b, 5_000)) <= 2 * BEAT_MS, "through the root"
    lab.fabric.unblock(a, b)
    gaps(lab, a, b, 3_000)
    assert direct(lab, a, b)


# -- several sockets --


class Dual:
    """A root that is the controller, and two members; each node has IPv4 and IPv6 sockets, as far as `families` says."""

    def __init__(self, *families: str, seed: int = 1) -> None:
        self.fabric = Fabric(seed)
        self.control = SimpleController(IDENTITIES[0])
        self.control.everybody = True
        self.network = self.control.network
        self.planet = make_planet(77, 1, [Root(IDENTITIES[0], (place(44, 0, 0, 1), v6(0, 1)))], WORLD_SECRET)
        self.root = SimNode(self.fabric, IDENTITIES[0], place(44, 0, 0, 1), self.planet, self.control, more=[v6(0, 1)])
        self.members = []
        for number, family in enumerate(families, 1):
            places = [place(44, number, 0, 1)] * ("4" in family) + [v6(number, 1)] * ("6" in family)
            self.members.append(SimNode(self.fabric, IDENTITIES[number], places[0], self.planet, more=places[1:]))
        for member in self.members:
            member.join(self.network)
        self.fabric.run_until(lambda: all(member.status(self.network) == "OK" for member in self.members))


def families(one: SimNode, other: SimNode) -> set[int]:
    peers = {peer.address: peer for peer in one.node.peers(one.fabric.now)}
    return {len(path.endpoint.ip) for path in peers[other.identity.address].paths if not path.expired}


@SEEDS
def test_ipv6_alone(seed: int) -> None:
    lab = Dual("6", "6", seed=seed)
    a, b = lab.members
    gaps(lab, a, b, 10_000)
    assert direct(lab, a, b)
    assert used(a, b) == v6(2, 1)
    assert families(a, lab.root) == {16}
    a.move(v6(0x77, 1))
    to_a, to_b = gaps(lab, a, b, 20_000)
    assert to_a < 3_000
    assert to_b < 500
    assert used(b, a) == v6(0x77, 1)


@SEEDS
def test_members_without_a_common_family_meet_at_the_root(seed: int) -> None:
    lab = Dual("4", "6", seed=seed)
    a, b = lab.members
    gaps(lab, a, b, 2_000)
    assert max(gaps(lab, a, b, 10_000)) <= 2 * BEAT_MS
    assert not a.direct(b)


@SEEDS
def test_both_families_at_once_and_either_may_fail(seed: int) -> None:
    lab = Dual("46", "46", seed=seed)
    a, b = lab.members
    gaps(lab, a, b, 20_000)
    assert families(a, b) == families(b, a) == families(a, lab.root) == {4, 16}
    for dead in (4, 16):
        lab.fabric.tap = lambda sender, remote, data, dead=dead: len(remote.ip) != dead  # type: ignore[misc]
        assert max(gaps(lab, a, b, 30_000)) < 6_000
        assert {len(used(a, b).ip), len(used(b, a).ip)} == {4, 16} - {dead}
        lab.fabric.tap = None
        gaps(lab, a, b, 30_000)
        assert families(a, b) == {4, 16}


@SEEDS
def test_an_interface_that_comes_and_goes(seed: int) -> None:
    """Wi-Fi is added to a wire, the wire is pulled, and put in again."""
    lab, a, b = met(seed)
    wire, wifi = a.endpoint, place(10, 0, 88, 1)
    a.move(more=[wifi])
    assert max(gaps(lab, a, b, 30_000)) <= 2 * BEAT_MS, "nothing gets worse by it"
    a.move(wifi, more=[])
    to_a, to_b = gaps(lab, a, b, 30_000)
    assert to_a < 3_000
    assert to_b < 500
    assert used(b, a) == wifi
    a.move(more=[wire])
    assert max(gaps(lab, a, b, 30_000)) <= 2 * BEAT_MS
    lab.fabric.run(300_000)
    paths = [path for peer in a.node.peers(lab.fabric.now) if peer.address == b.identity.address for path in peer.paths]
    assert len({path.socket for path in paths} - set(a.sockets)) == 0, "paths of closed sockets are gone by then"


@SEEDS
def test_hellos_of_two_ports_of_one_machine_do_not_make_two_paths(seed: int) -> None:
    """Real nodes greet from all their ports (vl1 §5.3): one path is enough (vl1 §5.4 b)."""
    lab, a, b = met(seed)
    a.move(more=[place(10, 0, 2, 1, port=20_001)])
    gaps(lab, a, b, 200_000)
    assert [
        path.endpoint for peer in b.node.peers(lab.fabric.now) if peer.address == a.identity.address for path in peer.paths
    ] == [a.endpoint]
