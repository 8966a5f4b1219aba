"""The stack: what it answers, where it sends, what it refuses, how it ends."""

import gc
import os
import random
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

import lwip
from netcon.dataplane.reactor import Reactor
from tests.lwip.wire import (
    BROADCAST,
    Lab,
    Wire,
    arp_reply,
    arp_request,
    arp_targets,
    checksum,
    echo4,
    ethertype,
    ip4,
    ip6,
    join,
    mac,
    neighbour_solicitation,
    solicited,
)

OUTSIDER = bytes.fromhex("0200000000ee")


# ---- addresses ----


def test_link_local_address_comes_from_the_mac(lab: Lab) -> None:
    assert lab.stack(7).addresses() == [("fe80::ff:fe00:7", 64)]


def test_several_addresses_of_each_family_in_order(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "10.2.0.1/16", "10.1.0.9/24", "fd00::1/64", "fd00:1::1/88")
    assert stack.addresses() == [
        ("10.1.0.1", 24),
        ("10.2.0.1", 16),
        ("10.1.0.9", 24),
        ("fe80::ff:fe00:1", 64),
        ("fd00::1", 64),
        ("fd00:1::1", 88),
    ]
    stack.remove_address("10.1.0.1")
    stack.remove_address("fd00::1")
    stack.remove_address("10.1.0.9")
    assert stack.addresses() == [("10.2.0.1", 16), ("fe80::ff:fe00:1", 64), ("fd00:1::1", 88)]


@pytest.mark.parametrize("ip", ["10.1.0.1", "fd00::1"])
def test_an_address_is_added_once_and_removed_once(lab: Lab, ip: str) -> None:
    stack = lab.stack(1)
    stack.add_address(ip, 24)
    with pytest.raises(lwip.StackError, match="has this address already"):
        stack.add_address(ip, 24)
    stack.remove_address(ip)
    with pytest.raises(lwip.StackError, match=ip):
        stack.remove_address(ip)


@pytest.mark.parametrize("ip", ["224.0.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "ff02::1", "::", "::1"])
def test_an_address_must_be_unicast(lab: Lab, ip: str) -> None:
    with pytest.raises(lwip.StackError):
        lab.stack(1).add_address(ip, 24)


def test_nonsense_is_a_value_error(lab: Lab) -> None:
    stack = lab.stack(1)
    for call in (
        lambda: stack.add_address("10.1.0", 24),
        lambda: stack.add_address("10.1.0.1", 33),
        lambda: stack.add_address("fd00::1", 129),
        lambda: stack.add_address("fd00::1", -1),
        lambda: stack.set_mtu(1279),
        lambda: stack.set_mtu(70000),
        lambda: stack.set_routes([("10.0.0.0", None)]),
        lambda: stack.set_routes([("10.0.0.0/40", None)]),
        lambda: stack.set_routes([("10.0.0.0/8", "fd00::1")]),
        lambda: lwip.Stack(lab.reactor.capsule(), mac=b"12345"),
        lambda: lwip.Stack(lab.reactor.capsule(), mac=b"\x01" + bytes(5)),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError, match="reactor capsule"):
        lwip.Stack(object(), mac=mac(1))


def test_more_ipv6_addresses_than_there_is_room_for(lab: Lab) -> None:
    stack = lab.stack(1)
    for i in range(1, 16):  # and the link-local one
        stack.add_address(f"fd00::{i:x}", 64)
    with pytest.raises(lwip.StackError, match="no room"):
        stack.add_address("fd00::ffff", 64)
    assert stack.failed is None


# ---- what it answers ----


def test_arp_is_answered_for_each_own_address_and_no_other(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "10.2.0.1/24", "10.1.0.9/24")
    wire = Wire(stack)
    lab.run(0.1)
    wire.take()
    for target in ("10.1.0.1", "10.2.0.1", "10.1.0.9", "10.1.0.77"):
        wire.give(arp_request(OUTSIDER, "10.1.0.200", target))
    lab.run(0.1)
    answers = [frame for frame in wire.take() if frame[20:22] == b"\0\2"]
    assert [(frame[:6], frame[22:28], str(IPv4Address(frame[28:32]))) for frame in answers] == [
        (OUTSIDER, mac(1), target) for target in ("10.1.0.1", "10.2.0.1", "10.1.0.9")
    ]


@pytest.mark.parametrize("target", ["fd00::1", "fd00:2::1", "fe80::ff:fe00:1"])
def test_neighbour_solicitation_is_answered(lab: Lab, target: str) -> None:
    wire = Wire(lab.stack(1, "fd00::1/64", "fd00:2::1/88"))
    lab.run(0.1)
    wire.take()
    wire.give(neighbour_solicitation(OUTSIDER, "fd00::200", target))
    lab.run(0.1)
    (advert,) = [frame for frame in wire.take() if frame[20] == 58 and frame[54] == 136]
    assert advert[:6] == OUTSIDER
    assert str(IPv6Address(advert[62:78])) == target
    assert advert[80:86] == mac(1)


def test_ping_is_answered_with_real_checksums(lab: Lab) -> None:
    wire = Wire(lab.stack(1, "10.1.0.1/24", "fd00::1/64"))
    wire.give(arp_request(OUTSIDER, "10.1.0.200", "10.1.0.1"), neighbour_solicitation(OUTSIDER, "fd00::200", "fd00::1"))
    lab.run(0.1)
    wire.take()
    for length in (0, 1, 31, 32, 33, 1400, 2771):
        data = bytes(i % 251 for i in range(length))
        wire.give(ip4(OUTSIDER, mac(1), "10.1.0.200", "10.1.0.1", 1, echo4(1, data)))
        wire.give(ip6(OUTSIDER, mac(1), "fd00::200", "fd00::1", 58, struct.pack("!BBHHH", 128, 0, 0, 7, 1) + data[:2740]))
        lab.run(0.1)
        reply4, reply6 = wire.take()
        assert checksum(reply4[14:34]) == 0
        assert checksum(reply4[34:]) == 0
        assert reply4[42:] == data
        pseudo = reply6[22:54] + struct.pack("!II", len(reply6) - 54, 58)
        assert checksum(pseudo + reply6[54:]) == 0
        assert reply6[62:] == data[:2740]


def test_a_wrong_checksum_is_not_answered(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24")
    wire = Wire(stack)
    wire.give(arp_request(OUTSIDER, "10.1.0.200", "10.1.0.1"))
    lab.run(0.1)
    wire.take()
    good = ip4(OUTSIDER, mac(1), "10.1.0.200", "10.1.0.1", 1, echo4(1, b"data"))
    wire.give(good[:25] + bytes([good[25] ^ 1]) + good[26:])  # in the IPv4 header
    lab.run(0.1)
    assert wire.take() == []
    assert stack.stats()["checksum_errors"] == 1


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00::2", "fe80::ff:fe00:2"])
@pytest.mark.parametrize("length", [32, 5000])
def test_two_stacks_ping_each_other(lab: Lab, ip: str, length: int) -> None:
    a, _ = lab.pair()
    probe = lwip.Probe(a, seed=1)
    probe.ping(ip, length=length)  # 5000: in fragments
    assert lab.run(5, lambda: probe.state()["echo_replies"] == 1)


def test_neighbours_on_a_prefix_shorter_than_64(lab: Lab) -> None:
    # 6PLANE: /40 on the link, hosts differ within the first 64 bits.
    a, b = lab.stack(1, "fc1c:9f08:7511:1111:1111::1/40"), lab.stack(2, "fc1c:9f08:7522:2222:2222::1/40")
    join(a, b)
    client, server = lwip.Probe(a, seed=9), lwip.Probe(b, seed=9)
    server.listen(80)
    client.connect("fc1c:9f08:7522:2222:2222::1", 80)
    client.send(100_000)
    assert lab.run(5, lambda: server.state()["received"] == 100_000)


# ---- TCP ----


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00::2"])
def test_tcp_both_ways_and_its_end(lab: Lab, ip: str) -> None:
    a, b = lab.pair()
    client, server = lwip.Probe(a, seed=9), lwip.Probe(b, seed=9)
    server.listen(80)
    client.connect(ip, 80)
    client.send(3_000_000)
    server.send(2_000_000)
    client.finish()
    server.finish()
    assert lab.run(60, lambda: client.state()["eof"] and server.state()["eof"])
    for end, expected in ((client, 2_000_000), (server, 3_000_000)):
        assert (end.state()["received"], end.state()["bad_at"], end.state()["error"]) == (expected, None, 0)
    lab.run(10)
    for stack in (a, b):
        stats = stack.stats()
        assert (stats["tcp_active"], stats["tcp_time_wait"]) == (0, 0)


@pytest.mark.parametrize("ip", ["10.1.0.2", "fd00::2"])
def test_segments_of_a_batch_enter_as_one_and_are_acknowledged_once(lab: Lab, ip: str) -> None:
    a, b = lab.pair()
    client, server = lwip.Probe(a, seed=9), lwip.Probe(b, seed=9)
    server.listen(80)
    client.connect(ip, 80)
    client.send(10_000_000)
    assert lab.run(60, lambda: server.state()["received"] == 10_000_000)
    assert server.state()["bad_at"] is None
    segments = a.stats()["frames_out"]
    assert b.stats()["segments_merged"] > segments * 0.8
    assert b.stats()["frames_out"] < segments / 8


@pytest.mark.parametrize("damage", ["sequence", "checksum", "port", "window", "urgent"])
def test_segments_that_do_not_join_are_not_merged(lab: Lab, damage: str) -> None:
    a, b = lab.stack(1, "10.1.0.1/24"), lab.stack(2, "10.1.0.2/24")
    left, right = Wire(a), Wire(b)
    client, server = lwip.Probe(a, seed=1), lwip.Probe(b, seed=1)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    for _ in range(5):
        lab.run(0.01)
        right.give(*left.take())
        lab.run(0.01)
        left.give(*right.take())
    assert client.state()["connected"]
    client.send(5520)
    lab.run(0.001)
    first, second, *rest = [frame for frame in left.take() if len(frame) > 54]
    changed = bytearray(second)
    offset = {"sequence": 38, "checksum": 60, "port": 34, "window": 48, "urgent": 47}[damage]
    changed[offset] ^= {"urgent": 0x20, "sequence": 0x40}.get(damage, 1)
    if damage != "checksum":
        changed[50:52] = b"\0\0"
        pseudo = bytes(changed[26:34]) + struct.pack("!HH", 6, len(changed) - 34)
        changed[50:52] = checksum(pseudo + bytes(changed[34:])).to_bytes(2, "big")
    right.give(first, bytes(changed))
    lab.run(0.001)
    assert b.stats()["segments_merged"] == 0
    assert server.state()["bad_at"] is None
    right.give(second, *rest)
    assert lab.run(0.1, lambda: server.state()["received"] == 5520)
    assert server.state()["bad_at"] is None


@pytest.mark.parametrize("ip", ["10.1.0.1", "10.1.0.9", "fd00::1"])
def test_a_stack_reaches_its_own_addresses(lab: Lab, ip: str) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "10.1.0.9/24", "fd00::1/64")
    wire = Wire(stack)
    client, server = lwip.Probe(stack, seed=9), lwip.Probe(stack, seed=9)
    server.listen(80)
    client.connect(ip, 80)
    client.send(500_000)
    client.finish()
    assert lab.run(10, lambda: server.state()["eof"])
    assert (server.state()["received"], server.state()["bad_at"]) == (500_000, None)
    assert [frame for frame in wire.take() if frame[:6] != BROADCAST and not frame[0] & 1] == []


def test_connecting_to_a_closed_port_is_refused(lab: Lab) -> None:
    a, _ = lab.pair()
    client = lwip.Probe(a)
    client.connect("10.1.0.2", 81)
    assert lab.run(1, lambda: client.state()["error"] == -14)  # ERR_RST


def test_removing_an_address_aborts_its_connections(lab: Lab) -> None:
    a, b = lab.pair()
    client, server = lwip.Probe(a), lwip.Probe(b)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    assert lab.run(1, lambda: server.state()["connected"])
    b.remove_address("10.1.0.2")
    lab.run(1)
    assert server.state()["error"] == -13  # ERR_ABRT
    assert client.state()["error"] == -14  # ERR_RST


def test_keepalive_finds_a_peer_that_is_gone(lab: Lab) -> None:
    a, b = lab.pair()
    client, server = lwip.Probe(a), lwip.Probe(b)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    assert lab.run(1, lambda: server.state()["connected"])
    client.keepalive(10_000, 1_000, 5)
    lab.run(120)
    assert client.state()["open"]
    b.close()
    assert lab.run(20, lambda: client.state()["error"] != 0)


def test_everything_is_deterministic_for_a_seed() -> None:
    def conversation(seed: int) -> list[bytes]:
        lab = Lab()
        try:
            stack = lab.stack(1, "10.1.0.1/24", seed=seed)
            wire = Wire(stack)
            probe = lwip.Probe(stack)
            wire.give(arp_request(OUTSIDER, "10.1.0.2", "10.1.0.1"))
            probe.connect("10.1.0.2", 80)
            lab.run(10)
            return wire.take()
        finally:
            lab.close()

    assert conversation(5) == conversation(5)
    assert conversation(5) != conversation(6)


# ---- routes ----


def where(lab: Lab, wire: Wire, probe: lwip.Probe, ip: str) -> list[str]:
    """Whom the stack asks for when something goes to `ip`."""
    wire.take()
    probe.ping(ip)
    lab.run(0.01)
    frames = wire.take()
    return sorted(set(arp_targets(frames) + solicited(frames)))


def test_managed_routes_decide_by_the_longest_prefix(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "10.2.0.1/24", "fd00::1/64")
    stack.set_routes(
        [
            ("10.1.0.0/24", None),
            ("172.16.0.0/12", "10.1.0.254"),
            ("172.16.5.0/24", "10.2.0.254"),
            ("10.1.0.128/25", "10.1.0.253"),  # longer than the address's own prefix
            ("192.168.0.0/16", None),  # on the link
            ("fd01::/32", "fd00::fe"),
            ("fd01:0:1::/48", "fe80::99"),
            ("fd02::/40", None),
        ]
    )
    wire = Wire(stack)
    probe = lwip.Probe(stack)
    assert where(lab, wire, probe, "10.1.0.5") == ["10.1.0.5"]
    assert where(lab, wire, probe, "10.1.0.130") == ["10.1.0.253"]
    assert where(lab, wire, probe, "172.17.1.1") == ["10.1.0.254"]
    assert where(lab, wire, probe, "172.16.5.1") == ["10.2.0.254"]
    assert where(lab, wire, probe, "192.168.3.4") == ["192.168.3.4"]
    assert where(lab, wire, probe, "fd00::5") == ["fd00::5"]
    assert where(lab, wire, probe, "fd01::5") == ["fd00::fe"]
    assert where(lab, wire, probe, "fd01:0:1::5") == ["fe80::99"]
    assert where(lab, wire, probe, "fd02:0:7::5") == ["fd02:0:7::5"]


def test_without_a_route_nothing_is_sent(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "fd00::1/64")
    wire = Wire(stack)
    probe = lwip.Probe(stack)
    for ip in ("8.8.8.8", "2001:db8::1"):
        with pytest.raises(lwip.StackError, match="ping"):
            where(lab, wire, probe, ip)


def test_setting_routes_replaces_them(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24")
    wire = Wire(stack)
    probe = lwip.Probe(stack)
    stack.set_routes([("0.0.0.0/0", "10.1.0.254")])
    assert where(lab, wire, probe, "8.8.8.8") == ["10.1.0.254"]
    stack.set_routes([("0.0.0.0/0", "10.1.0.253")])
    assert where(lab, wire, probe, "8.8.8.8") == ["10.1.0.253"]
    stack.set_routes([])
    with pytest.raises(lwip.StackError):
        where(lab, wire, probe, "8.8.8.8")


def test_a_second_address_is_the_source_in_its_own_prefix(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "10.2.0.1/24")
    wire = Wire(stack)
    probe = lwip.Probe(stack)
    lab.run(0.1)
    wire.take()
    for peer, expected in (("10.2.0.200", "10.2.0.1"), ("10.1.0.200", "10.1.0.1")):
        probe.ping(peer)
        lab.run(0.01)
        (question,) = wire.take()
        assert str(IPv4Address(question[28:32])) == expected
        wire.give(arp_reply(OUTSIDER, peer, mac(1), expected))
        lab.run(0.01)
        (echo,) = wire.take()
        assert (echo[:6], str(IPv4Address(echo[26:30])), str(IPv4Address(echo[30:34]))) == (OUTSIDER, expected, peer)


# ---- MTU ----


def mss_of_syn(lab: Lab, stack: lwip.Stack, wire: Wire, ip: str) -> int:
    wire.take()
    probe = lwip.Probe(stack)
    probe.connect(ip, 80)
    lab.run(0.01)
    offset = 34 if ":" not in ip else 54
    syn = next(
        frame for frame in wire.take() if ethertype(frame) in (0x0800, 0x86DD) and frame[offset - 11 if offset == 34 else 20] == 6
    )
    probe.abort()
    lab.run(0.01)
    assert syn[offset + 20 : offset + 22] == b"\x02\x04"
    return int.from_bytes(syn[offset + 22 : offset + 24], "big")


def test_the_mtu_decides_the_segment_size(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "fd00::1/64")
    wire = Wire(stack)
    wire.give(arp_request(OUTSIDER, "10.1.0.2", "10.1.0.1"), neighbour_solicitation(OUTSIDER, "fd00::2", "fd00::1"))
    lab.run(0.1)
    assert mss_of_syn(lab, stack, wire, "10.1.0.2") == 2760
    assert mss_of_syn(lab, stack, wire, "fd00::2") == 2740
    stack.set_mtu(1400)
    assert stack.mtu == 1400
    assert mss_of_syn(lab, stack, wire, "10.1.0.2") == 1360
    assert mss_of_syn(lab, stack, wire, "fd00::2") == 1340


def test_no_frame_is_longer_than_the_mtu(lab: Lab) -> None:
    a, b = lab.stack(1, "10.1.0.1/24"), lab.stack(2, "10.1.0.2/24", mtu=61500)
    left, right = Wire(a), Wire(b)
    client, server = lwip.Probe(a, seed=1), lwip.Probe(b, seed=1)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    client.send(200_000)
    server.send(200_000)
    longest = 0

    def carry() -> bool:
        nonlocal longest
        there, back = left.take(), right.take()
        longest = max([longest, *map(len, there), *map(len, back)])
        if there:
            right.give(*there)
        if back:
            left.give(*back)
        return server.state()["received"] == client.state()["received"] == 200_000

    for _ in range(2000):
        if lab.run(0.001, carry):
            break
    assert (server.state()["received"], client.state()["received"]) == (200_000, 200_000)
    assert longest == 2800 + 14


# ---- push-back ----


def test_a_peer_without_room_stops_the_stack_and_loses_nothing(lab: Lab) -> None:
    a, b = lab.stack(1, "10.1.0.1/24"), lab.stack(2, "10.1.0.2/24")
    left, right = Wire(a, room=3), Wire(b)
    client, server = lwip.Probe(a, seed=1), lwip.Probe(b, seed=1)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    client.send(2_000_000)

    def carry() -> bool:
        assert len(left.frames) <= 3
        there, back = left.take(), right.take()
        if there:
            right.give(*there)
        if back:
            left.give(*back)
        return server.state()["received"] == 2_000_000

    assert any(lab.run(0.0001, carry) for _ in range(100_000))
    assert server.state()["bad_at"] is None
    assert a.stats()["deliveries_refused"] > 0
    assert a.stats()["frames_dropped"] == 0


# ---- hostile frames ----


def test_malformed_frames_are_counted_and_taken(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24")
    wire = Wire(stack)
    assert wire.give(b"", b"123", bytes(13), bytes(2800 + 14 + 5), bytes(60_000)) == 5
    assert stack.stats()["bad_frames"] == 5
    assert stack.failed is None


def test_a_cut_header_is_not_read_beyond_its_end(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24", "fd00::1/64")
    wire = Wire(stack)
    ping = ip4(OUTSIDER, mac(1), "10.1.0.2", "10.1.0.1", 1, echo4(1, b""))
    ping6 = ip6(OUTSIDER, mac(1), "fd00::2", "fd00::1", 58, b"\x80\0\0\0\0\1\0\1")
    for frame, header in ((arp_request(OUTSIDER, "10.1.0.2", "10.1.0.1"), 42), (ping, 34), (ping6, 54)):
        before = stack.stats()["bad_frames"]
        wire.give(*(frame[:length] for length in range(14, header)))
        assert stack.stats()["bad_frames"] == before + header - 14
        lab.run(0.1)
        wire.take()
        wire.give(frame)
        lab.run(0.1)
        assert wire.take(), "the whole one is answered"


@pytest.mark.parametrize("seed", range(4))
def test_random_frames_do_not_hurt(lab: Lab, seed: int) -> None:
    generator = random.Random(seed)
    stack = lab.stack(1, "10.1.0.1/24", "fd00::1/64")
    wire = Wire(stack)
    server = lwip.Probe(stack)
    server.listen(80)
    samples = [
        arp_request(OUTSIDER, "10.1.0.2", "10.1.0.1"),
        neighbour_solicitation(OUTSIDER, "fd00::2", "fd00::1"),
        ip4(OUTSIDER, mac(1), "10.1.0.2", "10.1.0.1", 1, echo4(1, bytes(100))),
        ip4(OUTSIDER, mac(1), "10.1.0.2", "10.1.0.1", 6, bytes(60)),
        ip4(OUTSIDER, mac(1), "10.1.0.2", "224.0.0.1", 2, bytes(8)),
        ip6(OUTSIDER, mac(1), "fd00::2", "fd00::1", 44, bytes(64)),
        ip6(OUTSIDER, mac(1), "fe80::2", "ff02::1", 58, b"\x86\0\0\0" + bytes(60)),
    ]
    for _ in range(3000):
        frame = bytearray(generator.choice(samples))
        for _ in range(generator.randrange(6)):
            frame[generator.randrange(14, len(frame))] = generator.randrange(256)
        wire.give(bytes(frame[: generator.randrange(14, len(frame) + 1)]) if generator.random() < 0.3 else bytes(frame))
    lab.run(120)
    wire.take()
    assert stack.failed is None
    wire.give(
        arp_request(OUTSIDER, "10.1.0.200", "10.1.0.1"), ip4(OUTSIDER, mac(1), "10.1.0.200", "10.1.0.1", 1, echo4(1, b"alive"))
    )
    lab.run(0.1)
    assert any(frame.endswith(b"alive") for frame in wire.take())


# ---- how it ends ----


def test_an_assertion_ends_that_stack_alone(lab: Lab) -> None:
    a, b = lab.pair()
    other_a, other_b = lab.stack(3, "10.9.0.1/24"), lab.stack(4, "10.9.0.2/24")
    join(other_a, other_b)
    client, server = lwip.Probe(a), lwip.Probe(b)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    assert lab.run(1, lambda: server.state()["connected"])

    b.inject_failure("pcb->state is impossible")
    lab.run(0.1)
    assert b.failed == "pcb->state is impossible"
    assert server.state()["error"] == -13  # its socket was told
    assert not server.state()["open"]
    for refused in (lambda: b.add_address("10.1.0.3", 24), lambda: b.set_routes([]), lambda: lwip.Probe(b).listen(81)):
        with pytest.raises(lwip.StackError):
            refused()

    assert (a.failed, other_a.failed, other_b.failed) == (None, None, None)
    probe = lwip.Probe(other_a)
    probe.ping("10.9.0.2")
    assert lab.run(1, lambda: probe.state()["echo_replies"] == 1)

    # A new one in its place works, for the same peer and address.
    again = lab.stack(2, "10.1.0.2/24")
    join(a, again)
    ping = lwip.Probe(a)
    ping.ping("10.1.0.2")
    assert lab.run(5, lambda: ping.state()["echo_replies"] == 1)


def test_a_closed_stack_refuses_and_is_closed_again(lab: Lab) -> None:
    stack = lab.stack(1, "10.1.0.1/24")
    wire = Wire(stack)
    stack.close()
    stack.close()
    assert stack.failed is None
    assert wire.give(arp_request(OUTSIDER, "10.1.0.2", "10.1.0.1")) == 1
    lab.run(0.1)
    assert wire.take() == []
    assert stack.addresses() == []
    with pytest.raises(lwip.StackError, match="closed"):
        stack.add_address("10.1.0.2", 24)


def loaded_copies() -> int:
    return len({line.split()[-2] for line in Path("/proc/self/maps").read_text().splitlines() if "netcon-lwip-" in line})


def test_fifty_stacks_leave_nothing_behind() -> None:
    gc.collect()
    copies, descriptors = loaded_copies(), len(os.listdir("/proc/self/fd"))
    lab = Lab()
    for number in range(50):
        stack = lab.stack(number, "10.1.0.1/24", "10.2.0.1/24", "fd00::1/64")
        probe = lwip.Probe(stack)
        probe.listen(80)
        if number % 3 == 0:
            stack.inject_failure("enough")
    assert loaded_copies() == copies + 50
    lab.run(1)
    lab.close()
    del stack, probe, lab
    gc.collect()
    assert loaded_copies() == copies
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_stack_lives_on_a_reactor_thread() -> None:
    reactor = Reactor()
    reactor.start()
    try:
        stack = lwip.Stack(reactor.capsule(), mac=mac(1))
        stack.add_address("10.1.0.1", 24)
        probe = lwip.Probe(stack)
        probe.ping("10.1.0.1")
        stack.close()
    finally:
        reactor.stop()
    assert stack.addresses() == []


# ---- sleep ----


def test_an_idle_stack_with_an_open_connection_sleeps(lab: Lab) -> None:
    a, b = lab.pair()
    client, server = lwip.Probe(a, seed=1), lwip.Probe(b, seed=1)
    server.listen(80)
    client.connect("10.1.0.2", 80)
    client.send(10_000)
    assert lab.run(1, lambda: server.state()["received"] == 10_000)
    lab.run(70)
    runs, turns = a.stats()["timer_runs"], lab.turns
    assert runs < 90  # one a second, for a minute
    lab.run(3600)
    assert a.stats()["timer_runs"] == runs
    assert lab.turns - turns <= 2
    client.send(10_000)
    assert lab.run(5, lambda: server.state()["received"] == 20_000)
    assert server.state()["bad_at"] is None


def test_stacks_of_one_service_wake_together(lab: Lab) -> None:
    stacks = [lab.stack(number, f"10.{number}.0.1/24") for number in range(1, 11)]
    lab.run(3.3)
    turns = lab.turns
    lab.run(10)
    assert lab.turns - turns <= 13  # once a second for all ten
    assert all(stack.failed is None for stack in stacks)


def test_counters_are_complete(lab: Lab) -> None:
    stats = lab.stack(1).stats()
    assert {"frames_in", "frames_out", "bytes_in", "bytes_out", "tcp_active", "memory", "frames_dropped"} <= stats.keys()
    assert all(isinstance(value, int) for value in stats.values())
