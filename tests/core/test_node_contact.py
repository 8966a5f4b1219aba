"""Nodes find each other: HELLO, WHOIS, relaying, introductions, direct paths, coming back (vl1 §5)."""

from __future__ import annotations

import pytest

from netcon.core.actions import Endpoint, NodeEvent, SendDatagram, StateKind, ValidateIdentity
from netcon.core.errors import NetconError
from netcon.core.identity import Identity
from netcon.core.node import Node
from netcon.core.settings import NodeSettings
from netcon.core.world import make_planet
from tests.simulator import EPOCH, IDENTITIES, WORLD_SECRET, Fabric, Lab, SimNode, planet_of


def user_messages(node: SimNode) -> list[bytes]:
    return [event.data[8:] for event in node.events if event.name == "user_message"]


def test_a_node_says_hello_to_its_root_at_once_and_both_learn_the_path() -> None:
    lab = Lab(1)
    took = lab.fabric.run_until(lambda: lab.members[0].direct(lab.root) and lab.root.direct(lab.members[0]))
    assert took < 200
    assert lab.members[0].node.online


def test_peers_show_version_latency_and_role() -> None:
    lab = Lab(1)
    lab.fabric.run(1_000)
    (root,) = lab.members[0].node.peers(lab.fabric.now)
    assert root.role == "PLANET"
    assert root.version == (1, 14, 1)
    assert 4 <= root.latency <= 12 + 20  # the first round trip contains the check of our identity
    assert root.paths[0].endpoint == lab.root.endpoint
    assert root.paths[0].preferred
    assert root.paths[0].active
    assert not root.paths[0].expired
    leaf = next(peer for peer in lab.root.node.peers(lab.fabric.now) if peer.address == lab.members[0].identity.address)
    assert leaf.role == "LEAF"


def test_online_and_offline_are_told() -> None:
    lab = Lab(1)
    node = lab.members[0]
    lab.fabric.run(1_000)
    assert [event.name for event in node.events if event.name in ("online", "offline")] == ["online"]
    lab.root.stop()
    lab.fabric.run(510_000)
    assert not node.node.online
    assert [event.name for event in node.events if event.name in ("online", "offline")] == ["online", "offline"]


def test_a_message_to_an_unknown_address_is_sent_after_whois() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    a.node.send_user_message(b.identity.address, 70_000, b"good day", lab.fabric.now)
    a.perform()
    lab.fabric.run(500)
    assert user_messages(b) == [b"good day"]


def test_two_nodes_get_a_direct_path_by_introduction() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    for text in (b"one", b"two"):
        a.node.send_user_message(b.identity.address, 70_000, text, lab.fabric.now)
        a.perform()
        lab.fabric.run(500)
    assert lab.root.node.counters["introductions"] >= 2
    assert a.direct(b)
    assert b.direct(a)


def test_blocked_nodes_talk_through_the_root() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.block(a, b)
    lab.fabric.run(1_000)
    for number in range(20):
        a.node.send_user_message(b.identity.address, 70_000, bytes([number]), lab.fabric.now)
        a.perform()
        b.node.send_user_message(a.identity.address, 70_000, bytes([number]), lab.fabric.now)
        b.perform()
        lab.fabric.run(1_000)
    assert user_messages(a) == user_messages(b) == [bytes([number]) for number in range(20)]
    assert not a.direct(b)
    assert not b.direct(a)


def test_a_leaf_relays_for_nobody() -> None:
    lab = Lab(3)
    a, b, c = lab.members
    lab.fabric.run(1_000)
    packet = bytes(8) + c.identity.address.to_bytes(5) + a.identity.address.to_bytes(5) + b"\x18" + bytes(30)
    before = b.sent
    b.receive(a.endpoint, packet)
    assert b.node.counters["relay_refused"] == 1
    assert b.sent == before


def test_a_root_does_not_relay_beyond_three_hops_and_adds_one_hop() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    head = bytes(8) + b.identity.address.to_bytes(5) + a.identity.address.to_bytes(5)
    seen: list[bytes] = []
    lab.fabric.tap = lambda sender, remote, data: not (sender is lab.root and remote == b.endpoint and seen.append(data) is None)
    for hops in range(8):
        lab.root.receive(a.endpoint, head + bytes([0x18 | hops]) + bytes(30))
    relayed = [data for data in seen if data[:8] == bytes(8)]
    assert [data[18] & 7 for data in relayed] == [1, 2, 3]
    assert lab.root.node.counters["relay_hops"] == 5


def test_loopback_is_no_path_unless_told() -> None:
    for allowed in (False, True):
        fabric = Fabric(1, latency=(0, 1))
        settings = NodeSettings(allow_loopback_paths=allowed)
        ip = bytes((127, 0, 0, 1))
        planet = planet_of([(IDENTITIES[0], Endpoint(ip, 1000))])
        nodes = [SimNode(fabric, IDENTITIES[n], Endpoint(ip, 1000 + n), planet, settings=settings) for n in range(4)]
        fabric.run(3_000)
        assert [nodes[0].direct(node) for node in nodes[1:]] == [allowed] * 3
        assert [node.direct(nodes[0]) for node in nodes[1:]] == [allowed] * 3
        nodes[1].node.send_user_message(IDENTITIES[2].address, 70_000, b"here", fabric.now)
        nodes[1].perform()
        fabric.run(2_000)
        assert nodes[1].direct(nodes[2]) is allowed


def test_the_gate_lets_one_unknown_identity_per_prefix_in_every_two_seconds() -> None:
    fabric = Fabric(1)
    planet = planet_of([(IDENTITIES[0], Endpoint(bytes((10, 0, 0, 1)), 9993))])
    root = SimNode(fabric, IDENTITIES[0], Endpoint(bytes((10, 0, 0, 1)), 9993), planet)
    nodes = [SimNode(fabric, IDENTITIES[n], Endpoint(bytes((10, 0, 1, n)), 9993), planet) for n in range(1, 4)]
    fabric.run(900)
    assert sum(root.direct(node) for node in nodes) == 1
    assert root.node.counters["hello_gated"] >= 2
    fabric.run_until(lambda: all(root.direct(node) for node in nodes), 15_000)


def test_an_identity_that_fails_its_check_is_refused() -> None:
    forged = Identity(0x1234567890, IDENTITIES[5].public, IDENTITIES[5].secret)
    fabric = Fabric(1)
    endpoint = Endpoint(bytes((10, 0, 0, 1)), 9993)
    planet = planet_of([(IDENTITIES[0], endpoint)])
    root = SimNode(fabric, IDENTITIES[0], endpoint, planet)
    liar = SimNode(fabric, forged, Endpoint(bytes((10, 0, 1, 1)), 9993), planet)
    fabric.run(10_000)
    assert not root.direct(liar)
    assert not liar.node.online
    assert root.node.counters["identity_invalid"] >= 1
    assert root.node.peers(fabric.now) == []


def test_the_memory_hard_check_comes_after_the_mac() -> None:
    lab = Lab(0)
    stranger = IDENTITIES[7]
    body = b"\x0c\x01\x0e\x00\x01" + bytes(8) + stranger.encode() + b"\0"
    packet = bytes(8) + lab.root_identity.address.to_bytes(5) + stranger.address.to_bytes(5) + bytes(9) + b"\x01" + body
    lab.root.node.receive_datagram(1, Endpoint(bytes((10, 9, 9, 9)), 1), packet, lab.fabric.now)
    actions = lab.root.node.take_actions()
    assert not [action for action in actions if isinstance(action, ValidateIdentity)]
    assert lab.root.node.counters["mac_failed"] == 1


def test_another_key_for_a_known_address_is_told_so() -> None:
    lab = Lab(1)
    lab.fabric.run(1_000)
    thief = Identity(lab.members[0].identity.address, IDENTITIES[9].public, IDENTITIES[9].secret)
    fabric = lab.fabric
    node = SimNode(fabric, thief, Endpoint(bytes((10, 0, 99, 1)), 9993), lab.planet)
    fabric.run(1_000)
    assert lab.root.node.counters["identity_collision"] >= 1
    assert "identity_collision" in [event.name for event in node.events]
    assert lab.root.direct(lab.members[0])


def test_root_restart_is_noticed_and_healed() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(5_000)
    lab.root.restart()
    took = lab.fabric.run_until(lambda: lab.root.direct(a) and lab.root.direct(b), 90_000)
    assert took <= 65_000


def test_a_node_that_restarts_at_another_port_is_reached_again_within_a_minute() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    lab.fabric.run(2_000)
    network = lab.network

    def both_ways() -> bool:
        a.send_frame(network, b.mac(network), 0x0800, b"x" * 40)
        b.send_frame(network, a.mac(network), 0x0800, b"y" * 40)
        lab.fabric.run(1_000)
        return bool(a.take_frames()) and bool(b.take_frames())

    assert any(both_ways() for _ in range(5))
    b.restart(Endpoint(b.endpoint.ip, 20_000))
    assert any(both_ways() for _ in range(60))


def test_a_silent_direct_path_gives_way_to_the_root() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    lab.fabric.run(2_000)
    network = lab.network
    for _ in range(3):
        a.send_frame(network, b.mac(network), 0x0800, b"x" * 40)
        b.send_frame(network, a.mac(network), 0x0800, b"x" * 40)
        lab.fabric.run(1_000)
    assert a.direct(b)
    lab.fabric.block(a, b)
    b.take_frames()
    lab.fabric.run(60_000)
    for _ in range(5):
        a.send_frame(network, b.mac(network), 0x0800, b"through the root")
        lab.fabric.run(1_000)
    assert b.take_frames()


def test_new_address_of_ours_makes_all_paths_prove_themselves() -> None:
    lab = Lab(1)
    node = lab.members[0]
    lab.fabric.run(40_000)
    del lab.fabric.hosts[node.endpoint]
    node.endpoint = Endpoint(bytes((10, 0, 200, 1)), 9993)  # a NAT gave us another address; our socket is the same
    lab.fabric.hosts[node.endpoint] = node
    took = lab.fabric.run_until(lambda: node.node.counters["address_changed"] > 0, 90_000)
    assert took < 65_000
    lab.fabric.run(5_000)
    assert any(
        path.endpoint == node.endpoint and path.active
        for peer in lab.root.node.peers(lab.fabric.now)
        if peer.address == node.identity.address
        for path in peer.paths
    )


def test_a_newer_planet_comes_with_ok_hello_and_is_stored() -> None:
    lab = Lab(1)
    lab.fabric.run(1_000)
    lab.root.stop()
    lab.root.start(lab.new_planet(2))
    lab.fabric.run(70_000)
    node = lab.members[0]
    assert node.node.planet.timestamp == 2
    assert node.stored[(StateKind.PLANET, 77)] == lab.new_planet(2).encode()


def test_a_planet_signed_by_somebody_else_is_refused() -> None:
    lab = Lab(1)
    lab.fabric.run(1_000)
    lab.root.stop()
    forged = make_planet(77, 2, lab.planet.roots, bytes(range(1, 65)))
    lab.root.start(forged)
    lab.fabric.run(70_000)
    assert bytes(range(1, 65)) != WORLD_SECRET
    assert lab.members[0].node.planet.timestamp == 1


def test_the_peer_cache_brings_peers_back_without_a_root() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    for _ in range(3):
        a.node.send_user_message(b.identity.address, 70_000, b"hello", lab.fabric.now)
        a.perform()
        lab.fabric.run(500)
    assert a.direct(b)
    cache = dict(a.node.peer_states())
    lab.root.stop()
    a.restart()
    a.node.load_peer(cache[b.identity.address], lab.fabric.now)
    a.perform()
    lab.fabric.run_until(lambda: a.direct(b), 1_000)


def test_a_broken_peer_cache_file_is_a_typed_error() -> None:
    lab = Lab(1)
    for data in (b"", b"\x01" + bytes(100), b"\x02" + bytes(10), b"\x02" + b"\xff" * 200):
        with pytest.raises(NetconError):
            lab.members[0].node.load_peer(data, lab.fabric.now)


def test_a_node_needs_its_secret() -> None:
    identity = IDENTITIES[1]
    with pytest.raises(NetconError, match="secret"):
        Node(Identity(identity.address, identity.public), Lab(0).planet, random=bytes, now=EPOCH)


def test_an_idle_node_sleeps() -> None:
    lab = Lab(1)
    node = lab.members[0]
    node.join(lab.network)
    lab.fabric.run(30_000)
    woken = node.wakeups
    lab.fabric.run(600_000)
    assert (node.wakeups - woken) / 600 < 0.5
    assert node.direct(lab.root)


def test_silent_peers_are_forgotten_and_cached() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    for _ in range(3):
        a.node.send_user_message(b.identity.address, 70_000, b"hello", lab.fabric.now)
        a.perform()
        lab.fabric.run(500)
    b.stop()
    lab.fabric.run(240_000)
    assert b.identity.address in [peer.address for peer in a.node.peers(lab.fabric.now)]
    lab.fabric.run(300_000)
    assert b.identity.address not in [peer.address for peer in a.node.peers(lab.fabric.now)]


def test_a_peer_that_never_spoke_is_kept_for_a_while_too() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    lab.fabric.block(lab.root, b)
    a.node.send_user_message(b.identity.address, 70_000, b"anybody there?", lab.fabric.now)
    a.perform()
    lab.fabric.run(90_000)
    assert b.identity.address in [peer.address for peer in a.node.peers()]
    lab.fabric.run(500_000)
    assert b.identity.address not in [peer.address for peer in a.node.peers()]


def test_an_introduction_to_a_stranger_is_not_wasted() -> None:
    """RENDEZVOUS may come before we know who that is: it waits for the identity (both sides must knock, or a NAT stays shut)."""
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    probes: list[Endpoint] = []
    lab.fabric.tap = lambda sender, remote, data: probes.append(remote) is None if sender is b else True
    a.node.send_user_message(b.identity.address, 70_000, b"first", lab.fabric.now)
    a.perform()
    lab.fabric.run_until(lambda: a.endpoint in probes, 1_000)


def test_events_name_what_happened() -> None:
    lab = Lab(1)
    lab.fabric.run(1_000)
    member = lab.members[0]
    learned = NodeEvent("path_learned", lab.root_identity.address)
    assert learned in member.events
    root = member.node._peers[lab.root_identity.address]
    member.node._learn_path(root, member.node._paths[2, root.entries[0].path.remote], lab.fabric.now)
    assert len(root.entries) == 2
    assert learned not in member.node.take_actions()  # the same from a second socket is no news


def test_hello_goes_out_of_every_socket_when_no_path_is_known() -> None:
    lab = Lab(0)
    node = Node(IDENTITIES[3], lab.planet, random=bytes, now=EPOCH)
    node.background(EPOCH)
    (hello,) = [action for action in node.take_actions() if isinstance(action, SendDatagram)]
    assert hello.socket == -1
    assert hello.remote == lab.root.endpoint
    assert hello.data[18] & 0x38 == 0  # suite 0
    assert hello.data[27] == 1


def test_with_two_roots_either_may_fail() -> None:
    fabric = Fabric(3)
    places = [Endpoint(bytes((10, 0, number, 1)), 9993) for number in range(4)]
    planet = planet_of([(IDENTITIES[0], places[0]), (IDENTITIES[1], places[1])])
    first, second, a, b = (SimNode(fabric, IDENTITIES[number], places[number], planet) for number in range(4))
    fabric.run(3_000)
    assert all(node.direct(root) for node in (a, b) for root in (first, second))
    fabric.block(a, b)
    for dead in (first, second):
        dead.stop()
        fabric.run(60_000)
        fabric.run_until(lambda: a.node.online and b.node.online)
        before = len(user_messages(b))
        for _ in range(5):
            a.node.send_user_message(b.identity.address, 70_000, b"relayed", fabric.now)
            a.perform()
            fabric.run(1_000)
        assert len(user_messages(b)) > before
        dead.restart()
        fabric.run(70_000)


def test_ipv6_endpoints_are_paths_too() -> None:
    fabric = Fabric(4)
    places = [Endpoint(bytes.fromhex(f"fd00{number:04x}") + bytes(11) + b"\x01", 9993) for number in range(3)]
    planet = planet_of([(IDENTITIES[0], places[0])])
    root, a, b = (SimNode(fabric, IDENTITIES[number], places[number], planet) for number in range(3))
    fabric.run(1_000)
    for _ in range(3):
        a.node.send_user_message(b.identity.address, 70_000, b"six", fabric.now)
        a.perform()
        fabric.run(1_000)
    assert a.direct(root)
    assert a.direct(b)
    assert len(user_messages(b)) == 3
