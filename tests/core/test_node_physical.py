"""Trusted paths, physical MTUs, blacklists, and endpoints that the user gives for peers (vl1 §2.5.3, §3.3, §5.6)."""

from __future__ import annotations

import hashlib

from netcon.core.actions import Endpoint
from netcon.core.address import parse_prefix
from netcon.core.physical import PeerHints, Physical, PhysicalNetwork
from tests.simulator import Lab, SimNode

TRUSTED = PhysicalNetwork(parse_prefix("10.0.0.0/8"), trusted_path=0xABCDEF)


def configure(node: SimNode, *networks: PhysicalNetwork, peers: dict[int, PeerHints] | None = None) -> None:
    node.node.set_physical(networks, peers or {}, node.fabric.now)
    node.perform()


def record(lab: Lab, one: SimNode, other: SimNode) -> list[bytes]:
    """What `one` sends to the endpoint of `other` from now on."""
    sent: list[bytes] = []

    def tap(sender: SimNode, remote: Endpoint, data: bytes) -> bool:
        if sender is one and remote == other.endpoint:
            sent.append(data)
        return True

    lab.fabric.tap = tap
    return sent


def met(members: int = 2) -> Lab:
    """Members with direct paths."""
    lab = Lab(members)
    lab.join_all()
    a, b = lab.members[:2]
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"hello" * 10)
    lab.fabric.run_until(lambda: a.direct(b) and b.direct(a))
    lab.fabric.run(2_000)
    b.take_frames()
    return lab


def suites(packets: list[bytes]) -> set[int]:
    return {packet[18] >> 3 & 7 for packet in packets if packet[13] != 0xFF}


def test_frames_on_a_trusted_path_are_in_clear() -> None:
    lab = met()
    a, b = lab.members
    configure(a, TRUSTED)
    configure(b, TRUSTED)
    sent = record(lab, a, b)
    for size in (50, 2_800):
        payload = b"in clear" + bytes(size - 8)
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, payload)
        lab.fabric.run(100)
        assert [frame.payload for frame in b.take_frames()] == [payload]
    frames = [packet for packet in sent if b"in clear" in packet]
    assert suites(frames) == {2}
    assert {packet[19:27] for packet in frames} == {(0xABCDEF).to_bytes(8)}
    assert any(packet[13] == 0xFF for packet in sent), "the large one went in pieces"


def test_probes_are_armoured_even_there() -> None:
    lab = met()
    a, b = lab.members
    configure(a, TRUSTED)
    configure(b, TRUSTED)
    sent = record(lab, a, b)
    for _ in range(30):
        lab.fabric.run(3_000)
    assert suites([packet for packet in sent if len(packet) < 60 or packet[18] == 0]) <= {0, 3}
    assert a.direct(b)
    assert b.direct(a)


def test_a_node_without_the_setting_refuses_what_is_in_clear() -> None:
    lab = met()
    a, b = lab.members
    configure(a, TRUSTED)
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"in clear" * 10)
    lab.fabric.run(100)
    assert b.take_frames() == []
    assert b.node.counters["trusted_path_refused"] == 1
    configure(b, TRUSTED._replace(trusted_path=0xABCDE0))
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"in clear" * 10)
    lab.fabric.run(100)
    assert b.node.counters["trusted_path_refused"] == 2


def test_nothing_in_clear_is_believed_from_elsewhere() -> None:
    """A forged packet with the right id from an address outside of the trusted network, or with id 0."""
    lab = met()
    a, b = lab.members
    configure(b, PhysicalNetwork(parse_prefix("192.168.0.0/16"), trusted_path=5))
    body = lab.network.to_bytes(8) + b"\x08\0" + b"forged" * 10
    for number in (5, 0):
        head = bytes(8) + b.identity.address.to_bytes(5) + a.identity.address.to_bytes(5) + b"\x10" + number.to_bytes(8)
        b.receive(a.endpoint, head + b"\x06" + body)
    assert b.take_frames() == []
    assert b.node.counters["trusted_path_refused"] == 2


def test_what_a_relay_passes_on_is_never_in_clear() -> None:
    lab = met()
    a, b = lab.members
    lab.fabric.block(a, b)
    lab.fabric.run(60_000)
    for node in (a, b, lab.root):
        configure(node, TRUSTED)
    sent = record(lab, a, lab.root)
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"by the relay" * 5)
    lab.fabric.run(1_000)
    assert [frame.payload for frame in b.take_frames()] == [b"by the relay" * 5]
    assert all(b"by the relay" not in packet for packet in sent)


def test_a_physical_mtu_sizes_the_pieces() -> None:
    lab = met()
    a, b = lab.members

    def sizes() -> list[int]:
        sent = record(lab, a, b)
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, bytes(2_800))
        lab.fabric.run(100)
        assert len(b.take_frames()) == 1
        return [len(packet) for packet in sent if len(packet) > 300]

    # 28 + 10 + 2,800 bytes of packet, and 16 for each further piece; all but the last of one size (vl1 §3.3).
    assert sizes() == [1_427, 1_427]
    configure(a, PhysicalNetwork(parse_prefix("10.0.0.0/8"), mtu=9_000))
    assert sizes() == [2_838]
    configure(a, PhysicalNetwork(parse_prefix("10.0.0.0/8"), mtu=5))
    assert sizes() == [957, 957, 956], "clamped to what the protocol allows"
    configure(a)
    assert len(sizes()) == 2


def test_a_large_packet_in_pieces_of_an_unusual_size_arrives() -> None:
    """Between nodes that are set up differently, and through a root that is set up differently again."""
    lab = met()
    a, b = lab.members
    configure(a, PhysicalNetwork(parse_prefix("10.0.0.0/8"), mtu=1_413))
    configure(b, PhysicalNetwork(parse_prefix("10.0.0.0/8"), mtu=10_324))
    for blocked in (False, True):
        if blocked:
            lab.fabric.block(a, b)
            lab.fabric.run(60_000)
        for size in range(1, 9_600, 137):
            noise = hashlib.shake_256(bytes(size)).digest(size)  # nothing for LZ4
            a.node.send_user_message(b.identity.address, 70_000, noise, lab.fabric.now)
            a.perform()
            lab.fabric.run(50)
            events = [event.data[8:] for event in b.events if event.name == "user_message"]
            b.events = []
            assert events == [noise], size


def test_the_longest_prefix_decides() -> None:
    physical = Physical()
    physical.set(
        [PhysicalNetwork(parse_prefix("10.0.0.0/8"), mtu=1_500), PhysicalNetwork(parse_prefix("10.1.0.0/16"), blacklist=True)], {}
    )
    assert physical.of(bytes((10, 2, 0, 1))).mtu == 1_500
    assert physical.of(bytes((10, 1, 0, 1))).mtu == 0
    assert physical.forbids(bytes((10, 1, 0, 1)))
    assert not physical.forbids(bytes((11, 1, 0, 1)))
    assert physical.trusted_path(bytes((10, 2, 0, 1))) == 0


def test_a_blacklisted_network_is_not_used() -> None:
    lab = met()
    a, b = lab.members
    configure(a, PhysicalNetwork(Endpoint(b.endpoint.ip, 32), blacklist=True))
    assert not a.direct(b)
    sent = record(lab, a, b)
    for _ in range(10):
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"around" * 10)
        b.send_frame(lab.network, a.mac(lab.network), 0x0800, b"straight" * 10)
        lab.fabric.run(3_000)
    assert not a.direct(b)
    assert all(len(packet) < 200 for packet in sent), "answers to probes only"
    assert len(b.take_frames()) == 10


def test_a_network_may_be_forbidden_for_one_peer() -> None:
    lab = met(3)
    a, b, c = lab.members
    configure(a, peers={b.identity.address: PeerHints(blacklist=(parse_prefix("10.0.0.0/8"),))})
    for _ in range(5):
        for other in (b, c):
            a.send_frame(lab.network, other.mac(lab.network), 0x0800, b"frame" * 10)
        lab.fabric.run(3_000)
    assert not a.direct(b)
    assert a.direct(c)


def test_a_peer_is_found_where_the_user_says() -> None:
    """Introductions and pushes are cut off: the hint alone leads to a direct path, each endpoint in its turn."""
    lab = Lab(2)
    lab.join_all()
    a, b = lab.members
    for node in (a, b, lab.root):
        node.node._contact.maybe_push = lambda inbound, now: None  # type: ignore[method-assign]
    lab.root.node._relay._introduce = lambda first, second, now: None  # type: ignore[method-assign]
    for _ in range(10):
        a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"relayed" * 10)
        lab.fabric.run(3_000)
    assert not a.direct(b)
    nowhere = Endpoint(bytes((10, 0, 99, 99)), 9993)
    configure(a, peers={b.identity.address: PeerHints(endpoints=(nowhere, b.endpoint))})
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"relayed" * 10)
    took = lab.fabric.run_until(lambda: a.direct(b) and b.direct(a), 90_000)
    assert 25_000 < took < 70_000, "the first endpoint leads nowhere, the second has its turn 30 s later"
