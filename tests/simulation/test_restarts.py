"""Root and controller start again one after the other, then a member, which finds the others within seconds: whoever went on
running tells those that started again what they forgot."""

from __future__ import annotations

import pytest

from netcon.core.actions import DeliverFrame
from tests.simulator import Lab, SimNode, arp_reply, arp_request

ARP, IPV4 = 0x0806, 0x0800
FOUND_MS = 10_000


def ping(lab: Lab, asker: SimNode, target: SimNode) -> int:
    """Find `target` by ARP, once a second, and have a packet of it back; the ms it took."""
    network = lab.network
    found: list[bytes] = []

    def at_target(frame: DeliverFrame) -> None:
        if frame.ethertype == ARP and frame.payload[24:28] == target.ip(network):
            reply = arp_reply(target.mac(network), target.ip(network), frame.payload[8:14], frame.payload[14:18])
            target.send_frame(network, frame.payload[8:14], ARP, reply)
        elif frame.ethertype == IPV4:
            target.send_frame(network, asker.mac(network), IPV4, b"pong")

    def at_asker(frame: DeliverFrame) -> None:
        found.append(frame.payload)

    start = lab.fabric.now
    target.on_frame, asker.on_frame = at_target, at_asker
    while b"pong" not in found:
        assert lab.fabric.now - start < 120_000, "no answer at all"
        if found:
            asker.send_frame(network, target.mac(network), IPV4, b"ping")
        elif asker.status(network) == "OK":
            asker.send_frame(network, b"\xff" * 6, ARP, arp_request(asker.mac(network), asker.ip(network), target.ip(network)))
        end = lab.fabric.now + 1_000
        while lab.fabric.now < end and b"pong" not in found:
            lab.fabric.run(20)
    return lab.fabric.now - start


@pytest.mark.parametrize("direction", ["from the member that restarted", "to it"])
@pytest.mark.parametrize("peers", [True, False], ids=["with their peer caches", "without"])
@pytest.mark.parametrize("quiet", [20_000, 300_000, 307_000, 313_000, 331_000])
def test_a_member_restarts_after_root_and_controller(quiet: int, peers: bool, direction: str) -> None:
    lab = Lab(2, seed=quiet)
    lab.join_all()
    a, b = lab.members
    lab.fabric.run(quiet)
    for node in (lab.root, lab.controller):
        node.restart(peers=peers)
        lab.fabric.run(6_000)
    b.restart(peers=peers)
    took = ping(lab, b, a) if direction.startswith("from") else ping(lab, a, b)
    assert took < FOUND_MS


@pytest.mark.parametrize("quiet", [20_000, 300_000, 307_000, 313_000, 331_000])
def test_a_root_that_is_the_controller_too(quiet: int) -> None:
    """With what it stored while it ran; it was killed."""
    lab = Lab(2, seed=quiet, controller_is_root=True)
    lab.join_all()
    a, b = lab.members
    lab.fabric.run(quiet)
    lab.root.restart(peers=True)
    lab.fabric.run(6_000)
    b.restart(peers=True)
    assert ping(lab, b, a) < FOUND_MS
