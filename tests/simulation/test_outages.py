"""The root, or the controller, is away for ten minutes: flows between members go on, and all is well within 30 s of its return."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.nat import Kind, NatLab
from tests.simulator import Lab, SimNode

OUTAGE_MS = 600_000
RECOVERY_MS = 30_000
#: Between two frames of a flow, each way, ms.
BEAT_MS = 500


def flow(lab: Lab | NatLab, duration: int, *pairs: tuple[SimNode, SimNode]) -> tuple[int, int]:
    """A frame each way in each pair at each beat; how many were sent, and how many arrived."""
    sent = arrived = 0
    for _ in range(duration // BEAT_MS):
        for one, other in pairs:
            for source, target in ((one, other), (other, one)):
                source.send_frame(lab.network, target.mac(lab.network), 0x0800, b"beat" * 16)
                sent += 1
        lab.fabric.run(BEAT_MS)
        arrived += sum(len(node.take_frames()) for node in {node for pair in pairs for node in pair})
    return sent, arrived


def away(node: SimNode, how: str) -> Callable[[], None]:
    """Take `node` away; the returned call brings it back. "killed": it starts again and has forgotten everybody. "cut off": it was
    there all the time, without a network."""
    if how == "killed":
        node.stop()
        return lambda: node.restart()
    place, others = node.endpoint, node.fabric.tap
    node.fabric.tap = lambda sender, remote, data: (
        sender is not node and remote != place and (others is None or others(sender, remote, data))
    )

    def back() -> None:
        node.fabric.tap = others

    return back


def answered(lab: Lab | NatLab, node: SimNode, since: int) -> bool:
    """Whether a configuration came after `since`."""
    status = node.node.network(lab.network)
    return status is not None and status.status.name == "OK" and status.config is not None and status.config.timestamp > since


def recovery(lab: Lab | NatLab, *members: SimNode, since: int | None = None) -> int:
    """ms until all members have a path to the root and a configuration of later than `since`, which is now if left out."""
    since = lab.fabric.now if since is None else since
    return lab.fabric.run_until(
        lambda: all(m.direct(lab.root) and lab.root.direct(m) and m.node.online and answered(lab, m, since) for m in members),
        120_000,
    )


HOW = pytest.mark.parametrize("how", ["killed", "cut off"])
SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])


@HOW
@SEEDS
@pytest.mark.parametrize(
    "kinds",
    [(Kind.OPEN, Kind.OPEN), (Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED), (Kind.SYMMETRIC, Kind.FULL_CONE)],
    ids=lambda kinds: f"{kinds[0].value}, {kinds[1].value}",
)
def test_members_behind_nat_while_root_and_controller_are_away(kinds: tuple[Kind, Kind], seed: int, how: str) -> None:
    lab = NatLab(*kinds, seed=seed)
    lab.join_all()
    lab.talk(60_000)
    a, b = lab.members
    assert lab.direct()
    back = away(lab.root, how)
    sent, arrived = flow(lab, OUTAGE_MS, (a, b))
    assert arrived == sent, "their mappings are kept open, and nobody else is needed"
    assert not a.node.online
    back()
    assert recovery(lab, a, b) < RECOVERY_MS
    sent, arrived = flow(lab, 10_000, (a, b))
    assert arrived == sent


@HOW
@SEEDS
def test_a_relayed_flow_goes_on_after_the_return_of_its_relay(seed: int, how: str) -> None:
    """Two symmetric boxes: without the root there is no way, and when it is back the flow is, too."""
    lab = NatLab(Kind.SYMMETRIC, Kind.SYMMETRIC, seed=seed)
    lab.join_all()
    a, b = lab.members
    flow(lab, 60_000, (a, b))
    assert not lab.direct()
    back = away(lab.root, how)
    assert flow(lab, OUTAGE_MS, (a, b))[1] == 0
    back()
    flow(lab, RECOVERY_MS, (a, b))
    sent, arrived = flow(lab, 10_000, (a, b))
    assert arrived == sent


@HOW
@SEEDS
def test_the_root_alone_is_away(seed: int, how: str) -> None:
    """Members reach each other and the controller directly: configurations stay fresh meanwhile."""
    lab = Lab(6, seed=seed, loss=0.01)
    lab.join_all()
    pairs = list(zip(lab.members[::2], lab.members[1::2], strict=True))
    flow(lab, 60_000, *pairs)
    back = away(lab.root, how)
    sent, arrived = flow(lab, OUTAGE_MS, *pairs)
    assert arrived > 0.97 * sent, "one in a hundred is lost on the way, and no more"
    assert all(answered(lab, member, lab.fabric.now - 130_000) for member in lab.members)
    back()
    assert recovery(lab, *lab.members, since=0) < RECOVERY_MS
    # Those who never met need the root.
    flow(lab, 5_000, (lab.members[0], lab.members[3]))
    sent, arrived = flow(lab, 10_000, (lab.members[0], lab.members[3]))
    assert arrived > 0.8 * sent


@HOW
@SEEDS
def test_the_controller_alone_is_away(seed: int, how: str) -> None:
    """Members go on with what they have; pairs that meet for the first time meanwhile, too. Who joined meanwhile is let in."""
    lab = Lab(8, seed=seed, loss=0.01)
    newcomer = lab.members.pop()
    lab.join_all()
    met = list(zip(lab.members[:4:2], lab.members[1:4:2], strict=True))
    flow(lab, 60_000, *met)
    back = away(lab.controller, how)
    newcomer.join(lab.network)
    new = (lab.members[4], lab.members[5])
    flow(lab, 5_000, new)
    sent, arrived = flow(lab, OUTAGE_MS, *met, new)
    assert arrived > 0.97 * sent
    assert newcomer.status(lab.network) == "REQUESTING_CONFIGURATION"
    back()
    assert recovery(lab, *lab.members, newcomer) < RECOVERY_MS
    sent, arrived = flow(lab, 10_000, *met, new)
    assert arrived > 0.9 * sent
    assert lab.fabric.run_until(lambda: lab.root.direct(lab.controller)) < RECOVERY_MS


@SEEDS
def test_everybody_is_away_but_two_members(seed: int) -> None:
    """Root and controller both, as different machines, and both have forgotten everybody."""
    lab = Lab(2, seed=seed)
    lab.join_all()
    pair = (lab.members[0], lab.members[1])
    flow(lab, 60_000, pair)
    root, controller = away(lab.root, "killed"), away(lab.controller, "killed")
    sent, arrived = flow(lab, OUTAGE_MS, pair)
    assert arrived == sent
    root()
    controller()
    assert recovery(lab, *pair) < RECOVERY_MS
