"""Direct paths through NAT boxes, in simulation (vl1 §5.9); `python -m tests.nat` prints the whole table for more seeds."""

from __future__ import annotations

import random
from itertools import combinations_with_replacement

import pytest

from netcon.core.actions import Endpoint
from tests.nat import MAPPING_MS, Kind, Nat, NatLab, share

PAIRS = list(combinations_with_replacement(Kind, 2))
#: Nobody can know the port that a symmetric box will use, so a box that looks at ports lets nothing of it in.
IMPOSSIBLE = {(Kind.PORT_RESTRICTED, Kind.SYMMETRIC), (Kind.SYMMETRIC, Kind.SYMMETRIC)}
_IDS = [f"{one.value} and {other.value}" for one, other in PAIRS]


# -- the boxes themselves --


def box(kind: Kind) -> Nat:
    return Nat(kind, bytes((44, 9, 9, 9)), random.Random(1))


INSIDE, FIRST = Endpoint(bytes((192, 168, 0, 2)), 9993), Endpoint(bytes((44, 1, 1, 1)), 1000)
SAME_HOST, OTHER_HOST = Endpoint(FIRST.ip, 2000), Endpoint(bytes((44, 2, 2, 2)), 1000)


@pytest.mark.parametrize(
    ("kind", "same_host", "other_host"),
    [
        (Kind.FULL_CONE, True, True),
        (Kind.ADDRESS_RESTRICTED, True, False),
        (Kind.PORT_RESTRICTED, False, False),
        (Kind.SYMMETRIC, False, False),
    ],
)
def test_who_may_send_to_a_public_port(kind: Kind, same_host: bool, other_host: bool) -> None:
    nat = box(kind)
    public = nat.outbound(INSIDE, FIRST, 0)
    assert nat.inbound(public, FIRST, 1) == INSIDE
    assert (nat.inbound(public, SAME_HOST, 1) == INSIDE) is same_host
    assert (nat.inbound(public, OTHER_HOST, 1) == INSIDE) is other_host
    assert nat.inbound(Endpoint(public.ip, public.port ^ 1), FIRST, 1) is None


@pytest.mark.parametrize("kind", [Kind.FULL_CONE, Kind.SYMMETRIC])
def test_a_symmetric_box_has_a_port_for_each_remote(kind: Kind) -> None:
    nat = box(kind)
    assert (nat.outbound(INSIDE, FIRST, 0) == nat.outbound(INSIDE, OTHER_HOST, 0)) is (kind is Kind.FULL_CONE)


def test_a_port_that_is_not_used_is_given_up() -> None:
    nat = box(Kind.FULL_CONE)
    public = nat.outbound(INSIDE, FIRST, 0)
    assert nat.outbound(INSIDE, FIRST, MAPPING_MS - 1) == public
    assert nat.inbound(public, FIRST, 2 * MAPPING_MS) is None
    assert nat.outbound(INSIDE, FIRST, 2 * MAPPING_MS) != public


# -- members behind them --


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=_IDS)
def test_share_of_direct_paths(one: Kind, other: Kind) -> None:
    """Where a direct path is possible, it is always found, with some loss."""
    expected = 0.0 if (one, other) in IMPOSSIBLE else 1.0
    assert share(one, other, range(1, 5), loss=0.02) == expected


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=_IDS)
def test_frames_arrive_whatever_the_boxes_are(one: Kind, other: Kind) -> None:
    """Through the root at first, and for good where there is no other way."""
    lab = NatLab(one, other, seed=5)
    lab.join_all()
    assert lab.talk(20_000) == 80


def test_a_direct_path_comes_soon() -> None:
    lab = NatLab(Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED)
    lab.join_all()
    lab.members[0].send_frame(lab.network, lab.members[1].mac(lab.network), 0x0800, b"first" * 10)
    assert lab.fabric.run_until(lab.direct, 5_000) < 2_000


def test_members_behind_one_box_use_their_private_addresses() -> None:
    lab = NatLab(Kind.SYMMETRIC, Kind.SYMMETRIC, together=True)
    lab.join_all()
    lab.talk(40_000)
    assert lab.direct()
    a, b = lab.members
    paths = [path for peer in a.node.peers(lab.fabric.now) if peer.address == b.identity.address for path in peer.paths]
    assert [path.endpoint for path in paths if path.preferred] == [b.endpoint]


def test_direct_paths_are_kept_open_by_an_idle_connection() -> None:
    """Boxes forget in a minute; the keep-alive of active peers comes sooner (vl1 §5.3)."""
    lab = NatLab(Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED)
    lab.join_all()
    lab.talk(10_000)
    assert lab.direct()
    lab.fabric.run(400_000)
    assert lab.direct()
    lab.fabric.block(lab.root, lab.members[0])
    assert lab.talk(2_000) == 8


def test_a_box_that_restarts_is_recovered_from() -> None:
    lab = NatLab(Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED, seed=3)
    lab.join_all()
    lab.talk(10_000)
    assert lab.direct()
    nat = lab.nats[0]
    assert nat is not None
    nat.restart()
    lab.talk(60_000)
    assert lab.talk(5_000) == 20
    lab.talk(30_000)
    assert lab.direct()
    # The path in use is a new one: what arrives is not only relayed.
    relayed = lab.root.node.counters["relayed"]
    assert lab.talk(5_000) == 20
    assert lab.root.node.counters["relayed"] == relayed
