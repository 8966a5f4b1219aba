"""Frames: unicast, ARP and neighbour discovery by multicast, bridges, rules (vl2 §1, §4, §5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netcon.core import multicast
from netcon.core.address import MulticastGroup, rfc4193_address, sixplane_address, solicited_node_group
from netcon.core.netconf import FLAG_NDP_EMULATION, ROLE_ACTIVE_BRIDGE
from tests.simulator import Lab, arp_reply, arp_request

BROADCAST = b"\xff" * 6


def ready(members: int = 2, **options: object) -> Lab:
    """A network whose members have announced their groups."""
    lab = Lab(members, **options)  # type: ignore[arg-type]
    lab.join_all()
    lab.fabric.run(1_000)
    return lab


@pytest.mark.parametrize("size", [1, 11, 46, 1_383, 1_384, 1_394, 1_395, 2_799, 2_800])
def test_frames_of_every_size_arrive_both_ways(size: int) -> None:
    lab = ready()
    a, b = lab.members
    payload = bytes(number & 0xFF for number in range(size))
    for one, other in ((a, b), (b, a), (a, b)):
        one.send_frame(lab.network, other.mac(lab.network), 0x0800, payload)
        lab.fabric.run(500)
        (frame,) = other.take_frames()
        assert frame.payload == payload
        assert frame.source == one.mac(lab.network)
        assert frame.destination == other.mac(lab.network)
        assert frame.ethertype == 0x0800


def test_a_frame_larger_than_the_mtu_is_not_delivered() -> None:
    lab = ready()
    a, b = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, bytes(2_801))
    lab.fabric.run(500)
    assert b.take_frames() == []
    assert b.node.counters["frame_too_large"] == 1


def test_arp_finds_its_owner_and_nobody_else() -> None:
    lab = ready(4)
    a, b, c, d = lab.members
    network = lab.network
    request = arp_request(a.mac(network), a.ip(network), c.ip(network))
    a.send_frame(network, BROADCAST, 0x0806, request)
    lab.fabric.run(500)
    (frame,) = c.take_frames()
    assert frame.payload == request
    assert frame.destination == BROADCAST
    assert b.take_frames() == d.take_frames() == []
    reply = arp_reply(c.mac(network), c.ip(network), a.mac(network), a.ip(network))
    c.send_frame(network, a.mac(network), 0x0806, reply)
    lab.fabric.run(500)
    assert [f.payload for f in a.take_frames()] == [reply]


def test_arp_right_after_the_join_is_answered_soon() -> None:
    """The owner may be announcing itself at that very moment."""
    lab = Lab(2)
    lab.join_all()
    a, b = lab.members
    a.send_frame(lab.network, BROADCAST, 0x0806, arp_request(a.mac(lab.network), a.ip(lab.network), b.ip(lab.network)))
    lab.fabric.run_until(lambda: len(b.frames) == 1, 400)


def test_looking_for_nobody_ends() -> None:
    lab = ready()
    a, _ = lab.members
    gathers: list[bytes] = []
    a.send_frame(lab.network, BROADCAST, 0x0806, arp_request(a.mac(lab.network), a.ip(lab.network), bytes((10, 9, 200, 200))))
    lab.fabric.tap = lambda sender, remote, data: gathers.append(data) is None if sender is a else True
    lab.fabric.run(4_000)
    assert 0 < len(gathers) < 12
    assert a.node._multicast.next_deadline() is None


def test_neighbour_solicitation_reaches_the_solicited_node() -> None:
    lab = ready(3)
    a, b, c = lab.members
    status = b.node.network(lab.network)
    assert status is not None
    assert status.config is not None
    ip6 = status.config.addresses[1].ip
    group = solicited_node_group(ip6)
    assert isinstance(group, MulticastGroup)
    a.send_frame(lab.network, group.mac, 0x86DD, b"\x60" + bytes(71))
    lab.fabric.run(500)
    assert len(b.take_frames()) == 1
    assert c.take_frames() == []


def test_broadcast_reaches_everybody_when_allowed() -> None:
    lab = ready(5)
    a, *others = lab.members
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to all" * 10)
    lab.fabric.run(1_000)
    assert [len(member.take_frames()) for member in others] == [1, 1, 1, 1]


def test_broadcast_is_dropped_when_not_allowed() -> None:
    lab = Lab(2)
    lab.control.flags = 0
    lab.join_all()
    lab.fabric.run(1_000)
    a, b = lab.members
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to all" * 10)
    lab.fabric.run(1_000)
    assert b.take_frames() == []
    assert a.node.counters["broadcast_disabled"] == 1
    a.send_frame(lab.network, BROADCAST, 0x0806, arp_request(a.mac(lab.network), a.ip(lab.network), b.ip(lab.network)))
    lab.fabric.run(1_000)
    assert len(b.take_frames()) == 1


def test_multicast_limit_bounds_the_copies() -> None:
    lab = Lab(6)
    lab.control.multicast_limit = 3
    lab.join_all()
    lab.fabric.run(1_000)
    a, *others = lab.members
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to some" * 10)
    lab.fabric.run(1_000)
    assert sum(len(member.take_frames()) for member in others) == 3


def test_multicast_limit_zero_is_off() -> None:
    lab = Lab(2)
    lab.control.multicast_limit = 0
    lab.join_all()
    lab.fabric.run(1_000)
    a, b = lab.members
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to all" * 10)
    lab.fabric.run(1_000)
    assert b.take_frames() == []


def test_frames_to_ever_new_groups_are_queued_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast, "MAX_QUEUED_GROUPS", 20)
    monkeypatch.setattr(multicast, "MAX_GATHERED", 40)
    lab = ready(1)
    member = lab.members[0]
    for number in range(60):
        destination = b"\x01\x00" + number.to_bytes(4)
        member.node.receive_frame(lab.network, destination, member.mac(lab.network), 0x0800, b"x" * 40, lab.fabric.now)
        member.node.take_actions()
    queued, gathered = member.node._multicast._queued, member.node._multicast._gathered
    assert len(queued) == 20
    assert len(gathered) == 40
    assert (lab.network, MulticastGroup(destination, 0)) in queued


def test_a_queued_multicast_frame_follows_a_late_listener() -> None:
    lab = ready(2)
    a, b = lab.members
    group = MulticastGroup(bytes.fromhex("01005e010203"), 0)
    a.send_frame(lab.network, group.mac, 0x0800, b"early" * 10)
    lab.fabric.run(200)
    assert b.take_frames() == []
    # b is permitted at a, so its announcement goes there too.
    b.send_frame(lab.network, a.mac(lab.network), 0x0800, b"hello" * 10)
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"hello" * 10)
    lab.fabric.run(1_500)
    b.take_frames()
    b.extra_groups.add(group)
    b._configure(lab.network)
    b.perform()
    lab.fabric.run(500)
    assert [frame.payload for frame in b.take_frames()] == [b"early" * 10]


def test_frames_with_a_foreign_source_are_dropped() -> None:
    lab = ready()
    a, b = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"x" * 50, source=b"\x02\x00\x00\x00\x00\x01")
    lab.fabric.run(500)
    assert b.take_frames() == []
    assert a.node.counters["port_dropped"] == 1


def test_an_active_bridge_may_carry_foreign_macs() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.control.specialists = (ROLE_ACTIVE_BRIDGE | a.identity.address,)
    lab.join_all()
    lab.fabric.run(1_000)
    host = bytes.fromhex("00163e000001")
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"bridged" * 10, source=host)
    lab.fabric.run(500)
    (frame,) = b.take_frames()
    assert frame.source == host
    b.send_frame(lab.network, host, 0x0800, b"back" * 10)
    lab.fabric.run(500)
    (frame,) = a.take_frames()
    assert frame.destination == host
    b.send_frame(lab.network, bytes.fromhex("00163e000099"), 0x0800, b"unknown" * 10)
    lab.fabric.run(500)
    assert len(a.take_frames()) == 1


def test_rules_filter_in_both_directions() -> None:
    lab = Lab(2)
    lab.control.rules = bytes.fromhex("a5020800 0000 0100".replace(" ", ""))  # not ethertype ipv4; drop; accept
    lab.join_all()
    lab.fabric.run(1_000)
    a, b = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x86DD, b"\x60" + bytes(60))
    lab.fabric.run(500)
    assert b.take_frames() == []
    assert a.node.counters["filtered_out"] == 1
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"\x45" + bytes(60))
    lab.fabric.run(500)
    assert len(b.take_frames()) == 1
    # A sender that does not filter is stopped by the receiver.
    a.node._networks[lab.network].accepts_all = True
    a.send_frame(lab.network, b.mac(lab.network), 0x86DD, b"\x60" + bytes(60))
    lab.fabric.run(500)
    assert b.take_frames() == []
    assert b.node.counters["filtered_in"] == 1


def test_an_empty_rule_list_blocks_everything() -> None:
    lab = Lab(2)
    lab.control.rules = b""
    lab.join_all()
    a, b = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"x" * 50)
    lab.fabric.run(1_000)
    assert b.take_frames() == []


def test_tee_sends_a_copy_to_the_observer() -> None:
    lab = Lab(3)
    a, b, observer = lab.members
    target = observer.identity.address.to_bytes(8)
    lab.control.rules = b"\x02\x0e" + target + bytes(4) + (20).to_bytes(2) + b"\x01\x00"
    lab.join_all()
    lab.fabric.run(1_000)
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, bytes(range(60)))
    lab.fabric.run(2_000)
    assert [frame.payload for frame in b.take_frames()] == [bytes(range(60))]
    copies = observer.take_frames()
    assert copies
    assert {frame.payload for frame in copies} == {bytes(range(20))}


def test_redirect_sends_the_frame_elsewhere() -> None:
    lab = Lab(3)
    a, b, target = lab.members
    lab.control.rules = b"\x04\x0e" + target.identity.address.to_bytes(8) + bytes(6) + b"\x01\x00"
    lab.join_all()
    lab.fabric.run(1_000)
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"elsewhere" * 6)
    lab.fabric.run(2_000)
    assert b.take_frames() == []
    assert [frame.payload for frame in target.take_frames()] == [b"elsewhere" * 6]


@pytest.mark.parametrize("form", [rfc4193_address, sixplane_address])
def test_neighbour_discovery_is_answered_locally_for_addresses_that_name_their_node(form: Callable[[int, int], bytes]) -> None:
    """The answer comes from the engine itself, also where multicast is off (vl2 §5.8)."""
    lab = Lab(2)
    lab.control.flags = FLAG_NDP_EMULATION
    lab.control.multicast_limit = 0
    lab.join_all()
    a, b = lab.members
    own, target = form(lab.network, a.identity.address), form(lab.network, b.identity.address)
    group = solicited_node_group(target).mac
    solicitation = (
        b"\x60\0\0\0\0\x20\x3a\xff" + own + b"\xff\x02" + bytes(9) + b"\x01\xff" + target[13:] + b"\x87" + bytes(7) + target
    )
    a.send_frame(lab.network, group, 0x86DD, solicitation + bytes(8))
    (answer,) = a.take_frames()
    assert answer.source == b.mac(lab.network)
    assert answer.destination == a.mac(lab.network)
    packet = answer.payload
    assert len(packet) == 72
    assert packet[8:24] == target
    assert packet[24:40] == own
    assert packet[40:42] == b"\x88\0"
    assert packet[48:64] == target
    assert packet[64:] == b"\x02\x01" + b.mac(lab.network)
    pseudo = packet[8:40] + (32).to_bytes(4) + b"\0\0\0\x3a" + packet[40:]
    total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, len(pseudo), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_frames_survive_loss_of_credentials_and_relaying_with_reordering() -> None:
    lab = Lab(2, seed=9, loss=0.1, reorder=0.3, duplicate=0.1)
    a, b = lab.members
    lab.join_all()
    lab.fabric.run(3_000)
    received = set()
    for number in range(200):
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, number.to_bytes(2) + bytes(100))
        lab.fabric.run(100)
        received.update(int.from_bytes(frame.payload[:2]) for frame in b.take_frames())
    assert len(received) > 150
