"""Memberships that end by themselves, and who hears of an eviction: in virtual time (vl2 §3.6, §7.5)."""

from __future__ import annotations

import pytest

from netcon.core.buffer import Reader
from netcon.core.controller_role import SendConfig, SendRevocations
from netcon.core.credentials import Revocation
from netcon.core.errors import NetconError
from tests.controller.lab import METADATA, NETWORK, POOL, Lab, node
from tests.controller.test_with_engine import World3

DENIED = 0x07
HOUR = 3_600_000


def turn(lab: Lab, to: int) -> list[object]:
    """Let time pass to `to`, ms, waking the controller when it wants to be."""
    left: list[object] = []
    while (due := lab.controller.background(lab.now)) <= to:
        lab.now = max(due, lab.now)
        lab.controller.background(lab.now)
        left += lab.commit()
    lab.now = to
    return left


def revoked(actions: list[object]) -> dict[int, list[tuple[int, int]]]:
    """Targets and thresholds of revocations, by recipient."""
    found: dict[int, list[tuple[int, int]]] = {}
    for action in actions:
        if isinstance(action, SendRevocations):
            for data in action.revocations:
                revocation = Revocation.decode(Reader(data))
                found.setdefault(action.member, []).append((revocation.target, revocation.threshold))
    return found


def test_a_membership_ends_at_its_time_and_the_others_are_told() -> None:
    lab = Lab()
    lab.network(**POOL)
    a, b = node(1), node(2)
    lab.authorize(b)
    lab.authorize(a, authorizedUntil=lab.now + 90_000)
    for member in (a, b):
        lab.served(member)
    end = lab.now + 90_000
    assert revoked(turn(lab, end - 1)) == {}
    assert lab.controller.get_member(NETWORK, a.address)["authorized"]
    assert revoked(turn(lab, end + 5)) == {b.address: [(a.address, end)]}
    record = lab.controller.get_member(NETWORK, a.address)
    assert (record["authorized"], record["lastDeauthorizedTime"], record["authorizedUntil"]) == (False, end, end)
    assert lab.refused(a) == DENIED
    lab.served(b)


def test_it_ends_on_the_dot_even_if_nobody_woke_the_controller() -> None:
    lab = Lab()
    lab.network(**POOL)
    a = node(1)
    lab.authorize(a, authorizedUntil=lab.now + 5_000)
    lab.served(a)
    lab.now += 5_000
    assert lab.refused(a) == DENIED


def test_it_can_be_prolonged_or_made_to_last() -> None:
    lab = Lab()
    lab.network(**POOL)
    a, b = node(1), node(2)
    for member in (a, b):
        lab.authorize(member, authorizedUntil=lab.now + HOUR)
    lab.authorize(a, authorizedUntil=lab.now + 2 * HOUR)
    lab.authorize(b, authorizedUntil=None)
    turn(lab, lab.now + 2 * HOUR - 1)
    assert lab.controller.get_member(NETWORK, a.address)["authorized"]
    turn(lab, lab.now + HOUR)
    assert not lab.controller.get_member(NETWORK, a.address)["authorized"]
    assert lab.controller.get_member(NETWORK, b.address)["authorized"]


def test_authorising_anew_is_for_ever_unless_said() -> None:
    lab = Lab()
    lab.network(**POOL)
    a = node(1)
    lab.authorize(a, authorizedUntil=lab.now + HOUR)
    turn(lab, lab.now + 2 * HOUR)
    lab.authorize(a)
    assert lab.controller.get_member(NETWORK, a.address)["authorizedUntil"] == 0
    turn(lab, lab.now + 100 * HOUR)
    assert lab.controller.get_member(NETWORK, a.address)["authorized"]


def test_a_time_in_the_past_ends_it_at_once() -> None:
    lab = Lab()
    lab.network(**POOL)
    a = node(1)
    lab.authorize(a)
    lab.controller.update_member(lab.now, NETWORK, a.address, {"authorizedUntil": lab.now - 1})
    turn(lab, lab.now + 1)
    assert not lab.controller.get_member(NETWORK, a.address)["authorized"]


def test_the_end_survives_a_restart_also_if_it_came_meanwhile() -> None:
    lab = Lab()
    lab.network(**POOL)
    a, b = node(1), node(2)
    for member in (a, b):
        lab.authorize(member, authorizedUntil=lab.now + HOUR)
    lab.start()
    lab.now += HOUR - 1_001
    lab.served(a)
    lab.start()
    lab.now += 1_001
    assert lab.refused(a) == DENIED
    lab.start()
    assert lab.refused(b) == DENIED


def test_a_member_by_a_token_stays_for_the_tokens_time() -> None:
    lab = Lab()
    lab.network(**POOL)
    token = lab.controller.create_token(lab.now, NETWORK, {"memberLifetime": HOUR})["token"]
    lab.settle()
    metadata = {**METADATA, "a": f"token:{token}".encode()}
    lab.now += 5_000
    lab.served(node(1), metadata=metadata)
    assert lab.controller.get_member(NETWORK, node(1).address)["authorizedUntil"] == lab.now + HOUR
    lab.now += HOUR
    assert lab.refused(node(1), metadata=metadata) == DENIED, "and does not come back by the same"


def test_a_member_that_was_away_learns_who_was_put_out() -> None:
    """Its certificate agrees with that of the evicted one for half an hour: it must hear of it, though it was not online then."""
    lab = Lab()
    lab.network(**POOL)
    a, b, c = node(1), node(2), node(3)
    lab.authorize(a, b, c)
    lab.served(a)
    lab.now += 200_000  # nobody is online
    at = lab.now
    lab.controller.update_member(lab.now, NETWORK, a.address, {"authorized": False})
    assert lab.commit() == []
    lab.start()  # and it may have crashed since
    lab.now += 10_000
    lab.ask(b)
    actions = lab.commit()
    assert [action.member for action in actions if isinstance(action, SendConfig)] == [b.address]
    lab.controller.background(lab.now)
    assert revoked([*actions, *lab.take()]) == {b.address: [(a.address, at)]}
    lab.now += 60_000
    lab.ask(b)
    lab.controller.background(lab.now)
    assert revoked(lab.commit()) == {}, "once is enough"
    lab.authorize(a)
    lab.ask(c)
    lab.controller.background(lab.now)
    assert revoked(lab.commit()) == {}, "it is back"


def test_evictions_older_than_certificates_are_not_told() -> None:
    lab = Lab()
    lab.network(**POOL)
    a, b = node(1), node(2)
    lab.authorize(a, b)
    lab.controller.update_member(lab.now, NETWORK, a.address, {"authorized": False})
    lab.settle()
    lab.now += 1_800_000
    lab.ask(b)
    lab.controller.background(lab.now)
    assert revoked(lab.commit()) == {}


# -- with engines --


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_traffic_of_a_member_stops_when_its_time_is_over(seed: int) -> None:
    world = World3(2, seed)
    a, b = world.members
    world.authorize(b)
    end = world.fabric.now + 30_000
    world.controller.records.update_member(
        world.fabric.now, world.network, a.identity.address, {"authorized": True, "authorizedUntil": end}
    )
    world.controller.changed()
    world.wait("OK", a, b)
    assert world.reaches(a, b)
    world.fabric.run(end - world.fabric.now - 1_000)
    assert world.reaches(a, b, within=900)
    world.fabric.run(200 + 1_000)
    assert not world.reaches(a, b)
    world.wait("ACCESS_DENIED", a, limit=65_000)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_token_is_shown_until_it_has_done_its_duty(seed: int) -> None:
    world = World3(2, seed, join=False)
    a, b = world.members
    token = world.controller.records.create_token(world.fabric.now, world.network, {"maximumUses": 1})["token"]
    world.controller.changed()
    a.node.join(world.network, world.fabric.now, token=token)
    a.perform()
    assert [value for (kind, _), value in a.stored.items() if kind.value == "join_token"] == [token.encode()]
    assert world.wait("OK", a) < 1_000
    assert not [key for key in a.stored if key[0].value == "join_token"]
    b.node.join(world.network, world.fabric.now, token=token)
    b.perform()
    world.wait("ACCESS_DENIED", b)
    second = world.controller.records.create_token(world.fabric.now, world.network)["token"]
    world.controller.changed()
    b.node.join(world.network, world.fabric.now, token=second)
    b.perform()
    assert world.wait("OK", b) < 6_000
    assert world.reaches(a, b)


def test_a_token_that_is_none_and_one_that_is_left_behind() -> None:
    world = World3(1, join=False)
    (a,) = world.members
    for wrong in ("with space", "x" * 257, "ü", "line\n"):
        with pytest.raises(NetconError, match="join token"):
            a.node.join(world.network, world.fabric.now, token=wrong)
    assert a.node.networks() == []
    a.node.join(world.network, world.fabric.now, token="worthless")
    a.perform()
    world.wait("ACCESS_DENIED", a)
    a.node.leave(world.network, world.fabric.now)
    a.perform()
    assert not [key for key in a.stored if key[0].value != "peer"]  # peers are remembered when they are met
