"""A member that is put out, or whose network is deleted, is cut off within ten seconds, whatever is lost on the way (vl2 §7.5)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from netcon.core.packet import Verb
from tests.controller.test_with_engine import ETHERTYPE, World3
from tests.simulator import SimNode

CUT_OFF_MS = 10_000
BEAT_MS = 250
SEEDS = pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])


def ready(members: int, seed: int) -> World3:
    """All are members, and everybody has talked to everybody."""
    world = World3(members, seed)
    world.authorize(*world.members)
    world.wait("OK", *world.members)
    for _ in range(8):
        beat(world, *world.members)
    return world


def beat(world: World3, *senders: SimNode) -> dict[SimNode, set[int]]:
    """Each sends to all others; the source addresses that arrived, by receiver."""
    for sender in senders:
        for other in world.members:
            if other is not sender:
                sender.send_frame(world.network, other.mac(world.network), ETHERTYPE, b"beat" * 16)
    world.fabric.run(BEAT_MS)
    arrived = {}
    for member in world.members:
        sources = {frame.source for frame in member.take_frames()}
        arrived[member] = {node.identity.address for node in world.members if node.mac(world.network) in sources}
    return arrived


def last_heard(world: World3, evicted: list[SimNode], duration: int) -> int:
    """Until when, ms from now, one of `evicted` was heard by one of the others."""
    start, last = world.fabric.now, 0
    rest = [member for member in world.members if member not in evicted]
    addresses = {node.identity.address for node in evicted}
    for _ in range(duration // BEAT_MS):
        arrived = beat(world, *world.members)
        if any(arrived[member] & addresses for member in rest):
            last = world.fabric.now - start
        assert len(rest) < 2 or any(arrived[member] - addresses for member in rest), "the others go on"
    return last


@SEEDS
def test_one_of_several(seed: int) -> None:
    world = ready(4, seed)
    world.fabric.loss = 0.1
    world.authorize(world.members[0], authorized=False)
    assert last_heard(world, world.members[:1], 60_000) < CUT_OFF_MS


@SEEDS
def test_several_at_once_share_packets(seed: int) -> None:
    """One after the other, within a second: a receiver reads one packet of credentials a second from one sender (vl2 §3.7)."""
    world = ready(8, seed)
    packets: dict[int, list[int]] = {}
    controller = world.controller
    send = controller.node._sender.send

    def count(destination: int, verb: int, *rest, **options) -> None:  # type: ignore[no-untyped-def]
        if verb == Verb.NETWORK_CREDENTIALS:
            packets.setdefault(destination, []).append(world.fabric.now)
        send(destination, verb, *rest, **options)

    controller.node._sender.send = count  # type: ignore[method-assign]
    evicted = world.members[:5]
    for member in evicted:
        world.authorize(member, authorized=False)
        world.fabric.run(100)
    assert last_heard(world, evicted, 20_000) < CUT_OFF_MS
    assert packets
    for times in packets.values():
        assert all(later - earlier > 1_000 for earlier, later in pairwise(times))


@SEEDS
def test_a_deleted_member_and_a_deleted_network(seed: int) -> None:
    world = ready(3, seed)
    a, b, c = world.members
    world.controller.records.delete_member(world.fabric.now, world.network, a.identity.address)
    world.controller.changed()
    assert last_heard(world, [a], 15_000) < CUT_OFF_MS
    world.controller.records.delete_network(world.fabric.now, world.network)
    world.controller.changed()
    start, last = world.fabric.now, 0
    for _ in range(60):
        if any(beat(world, b, c).values()):
            last = world.fabric.now - start
    assert last < CUT_OFF_MS
    world.wait("NOT_FOUND", a, b, c, limit=70_000)


@SEEDS
def test_it_comes_back_as_soon_as_it_may(seed: int) -> None:
    world = ready(3, seed)
    world.authorize(world.members[0], authorized=False)
    world.fabric.run(10_000)
    world.authorize(world.members[0])
    start = world.fabric.now
    while world.members[0].identity.address not in beat(world, *world.members)[world.members[1]]:
        assert world.fabric.now - start < 10_000
