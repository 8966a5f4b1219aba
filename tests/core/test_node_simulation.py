"""A hundred nodes, a root and a controller on a virtual fabric: they come up, find each other and exchange frames."""

from __future__ import annotations

from functools import partial

import pytest

from netcon.core.actions import DeliverFrame
from tests.simulator import Lab, SimNode, arp_reply, arp_request

BROADCAST = b"\xff" * 6
MEMBERS = 100


def pings(lab: Lab, distance: int) -> int:
    """Every member resolves the address of the member `distance` further on by ARP and sends it a frame, which is answered.
    Returns how many answers came back."""
    network = lab.network
    members = lab.members
    answered = 0

    def serve(me: SimNode, got: DeliverFrame) -> None:
        nonlocal answered
        payload = got.payload
        mine = me.mac(network)
        if got.ethertype == 0x0806 and payload[7] == 1 and payload[24:28] == me.ip(network):
            reply = arp_reply(mine, me.ip(network), payload[8:14], payload[14:18])
            me.node.receive_frame(network, payload[8:14], mine, 0x0806, reply, lab.fabric.now)
        elif got.ethertype == 0x0806 and payload[7] == 2:
            me.node.receive_frame(network, payload[8:14], mine, 0x0800, b"ping" * 100, lab.fabric.now)
        elif payload.startswith(b"ping"):
            me.node.receive_frame(network, got.source, mine, 0x0800, b"pong" * 700, lab.fabric.now)
        elif payload.startswith(b"pong"):
            answered += 1

    for member in members:
        member.on_frame = partial(serve, member)
    for index, member in enumerate(members):
        other = members[(index + distance) % len(members)]
        request = arp_request(member.mac(network), member.ip(network), other.ip(network))
        member.send_frame(network, BROADCAST, 0x0806, request)
        lab.fabric.run(10)
    lab.fabric.run(1_500)
    return answered


def run(seed: int, members: int = MEMBERS, **fabric: object) -> tuple[Lab, int]:
    lab = Lab(members, seed=seed, **fabric)  # type: ignore[arg-type]
    lab.join_all()
    lab.fabric.run(1_000)
    return lab, pings(lab, 1)


def test_a_hundred_members_come_up_and_exchange_frames() -> None:
    lab, answered = run(1)
    assert len({member.ip(lab.network) for member in lab.members}) == MEMBERS
    assert answered == MEMBERS
    assert all(member.direct(lab.root) for member in lab.members)
    direct = sum(member.direct(lab.members[(index + 1) % MEMBERS]) for index, member in enumerate(lab.members))
    assert direct == MEMBERS


def test_the_same_seed_gives_the_same_run() -> None:
    (first, _), (second, _), (third, _) = (run(seed, 20, loss=0.02, reorder=0.05, duplicate=0.02) for seed in (7, 7, 8))
    assert first.fabric.digest == second.fabric.digest
    assert first.fabric.digest != third.fabric.digest
    assert first.fabric.datagrams == second.fabric.datagrams


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bad_network_delays_but_does_not_prevent(seed: int) -> None:
    """A tenth of all datagrams is lost, a fifth comes late, some twice."""
    lab = Lab(12, seed=seed, loss=0.1, reorder=0.2, duplicate=0.1, latency=(5, 60))
    for member in lab.members:
        member.join(lab.network)
    lab.fabric.run_until(lambda: all(member.status(lab.network) == "OK" for member in lab.members), 120_000)
    lab.fabric.run(61_000)
    assert sum(pings(lab, 1) for _ in range(8)) >= 12 * 8 // 3
    for member in lab.members:
        assert member.node.counters["mac_failed"] == 0
        assert member.node.counters["malformed"] == 0


def test_a_quiet_hour_costs_little() -> None:
    lab, _ = run(3, 5)
    woken, sent = lab.members[0].wakeups, lab.members[0].sent
    lab.fabric.run(3_600_000)
    assert (lab.members[0].wakeups - woken) / 3_600 < 0.5
    assert (lab.members[0].sent - sent) / 3_600 < 1
    assert all(member.status(lab.network) == "OK" for member in lab.members)
    assert pings(lab, 1) == 5
