"""Ad-hoc networks: members meet without a controller (vl2 §6.6)."""

from __future__ import annotations

import pytest

from netcon.core.actions import StateKind
from netcon.core.address import sixplane_address
from netcon.core.adhoc import adhoc_config
from netcon.core.network import State
from tests.simulator import Lab, SimNode, arp_request

PORT_22 = 0xFF00160016000000
EIGHT_BITS = 0xFF1A000000000001  # 26.0.0.0/8: the fabric itself is 10.0.0.0/8


def join(lab: Lab, network: int) -> list[SimNode]:
    lab.fabric.run(2_000)
    for member in lab.members:
        member.join(network)
    lab.fabric.run(3_000)
    return lab.members


def ipv6(source: bytes, destination: bytes, protocol: int, body: bytes) -> bytes:
    return b"\x60\0\0\0" + len(body).to_bytes(2) + bytes((protocol, 64)) + source + destination + body


def tcp(port: int, flags: int) -> bytes:
    return (4000).to_bytes(2) + port.to_bytes(2) + bytes(8) + bytes((0x50, flags)) + bytes(6)


def test_the_configuration_follows_from_the_id() -> None:
    config = adhoc_config(PORT_22, 0x0082915F5E)
    assert config is not None
    assert (config.name, config.mtu, config.multicast_limit, config.public) == ("adhoc-0016-0016", 2800, 0, True)
    assert config.addresses == ((sixplane_address(PORT_22, 0x0082915F5E), 40),)
    assert config.ndp_emulation
    ten = adhoc_config(0xFF0ADEADBEEF0101, 0x0082915F5E)
    assert ten is not None
    assert (ten.name, ten.multicast_limit) == ("adhoc-10.0.0.0", 1024)
    assert ten.addresses[1] == (bytes((10, 0x91, 0x5F, 0x5E)), 8)
    assert ten.specialists == (0xDEADBEEF01,)


@pytest.mark.parametrize("network", [0xFF00170016000000, 0xFF0A000000000002])
def test_an_id_without_sense_is_not_found(network: int) -> None:
    lab = Lab(1)
    (a,) = join(lab, network)
    assert a.status(network) == State.NOT_FOUND.name


def test_members_meet_within_the_ports_of_the_network() -> None:
    lab = Lab(2)
    a, b = join(lab, PORT_22)
    assert a.status(PORT_22) == "OK"

    def send(one: SimNode, other: SimNode, protocol: int, body: bytes) -> int:
        packet = ipv6(one.ip(PORT_22), other.ip(PORT_22), protocol, body)
        one.send_frame(PORT_22, other.mac(PORT_22), 0x86DD, packet)
        lab.fabric.run(1_000)
        return len(other.take_frames())

    assert send(a, b, 6, tcp(22, 0x02)) == 1
    assert send(b, a, 6, tcp(40000, 0x12)) == 1, "SYN with ACK"
    assert send(a, b, 6, tcp(80, 0x02)) == 0
    assert send(a, b, 6, tcp(80, 0x10)) == 1, "no SYN"
    assert send(a, b, 58, b"\x80" + bytes(7)) == 1
    a.send_frame(PORT_22, b.mac(PORT_22), 0x0800, bytes(60))
    lab.fabric.run(1_000)
    assert b.take_frames() == []
    assert lab.fabric.run_until(lambda: a.direct(b)) < 10_000


def test_arp_finds_members_of_an_ad_hoc_network_of_ipv4() -> None:
    lab = Lab(2)
    a, b = join(lab, EIGHT_BITS)
    status = b.node.network(EIGHT_BITS)
    assert status is not None
    assert status.config is not None
    target = status.config.addresses[1].ip
    a.send_frame(EIGHT_BITS, b"\xff" * 6, 0x0806, arp_request(a.mac(EIGHT_BITS), bytes((26, 1, 1, 1)), target))
    lab.fabric.run_until(lambda: len(b.frames) == 1, 3_000)


def test_nothing_is_asked_of_a_controller_and_nothing_stored() -> None:
    lab = Lab(2)
    a, _ = join(lab, PORT_22)
    lab.fabric.run(200_000)
    assert a.stored[(StateKind.NETWORK, PORT_22)] == b"\n"
    assert lab.root.node.counters["whois_unknown"] == 0
    assert a.node.counters["queued_out"] == a.node.counters["queue_timeout"] == 0
    assert a.node.counters["config_applied"] == 0
    a.restart()
    lab.fabric.run(100)
    assert a.status(PORT_22) == "OK"
