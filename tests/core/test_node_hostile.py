"""What bad input gets: a counter and a dropped packet; never an exception, never a change (issue: "What bad input gets")."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netcon.core.actions import Endpoint, SendDatagram
from netcon.core.identity import Identity
from netcon.core.messages import Error
from netcon.core.node import Node
from netcon.core.packet import ErrorCode, Verb
from netcon.core.path import MAX_PATHS
from netcon.core.peer import Peer
from netcon.core.queues import MAX_WHOIS
from netcon.core.world import World
from tests.simulator import EPOCH, IDENTITIES, Lab, SimNode

VERBS = json.loads((Path(__file__).parent.parent / "vectors" / "verbs.json").read_text())
NODES = {name: Identity.parse(node["secret"]) for name, node in VERBS["nodes"].items()}
REMOTE = Endpoint(bytes((10, 77, 0, 99)), 9993)
#: The network of the capture "session_join".
NETWORK = next(
    int(case["plaintext"][56:72], 16)
    for case in VERBS["captured"]
    if case["verb"] == "NETWORK_CONFIG_REQUEST" and case["capture"] == "session_join"
)


def lab_node(name: str) -> Node:
    """One of the machines that the vectors were captured on; it knows all others and is on their network."""
    node = Node(NODES[name], World.parse(bytes.fromhex(VERBS["planet"])), random=random.Random(name).randbytes, now=EPOCH)
    for other in NODES.values():
        if other.address != node.address:
            node._topology.add(other)
    node.join(NETWORK, EPOCH)
    node.background(EPOCH)
    node.take_actions()
    return node


def state(node: Node) -> Any:
    """What a refused packet must not change."""
    return (
        node.planet,
        [(peer.address, peer.identity, peer.version, len(peer.entries), peer.keys is not None) for peer in node._peers.values()],
        [
            (network.id, network.dictionary, network.failure, sorted(network.members.by_address), network.bridge_routes)
            for network in node._networks.values()
        ],
        node._multicast._members,
    )


@pytest.mark.parametrize("number", range(len(VERBS["malformed"])), ids=lambda n: VERBS["malformed"][n]["description"][:50])
def test_malformed_packets_change_nothing(number: int) -> None:
    case = VERBS["malformed"][number]
    node = lab_node(case["to_node"])
    before = state(node)
    for datagram in case["datagrams"]:
        node.receive_datagram(1, REMOTE, bytes.fromhex(datagram), EPOCH)
    assert state(node) == before
    assert "mac_failed" not in node.counters
    assert "from_stranger" not in node.counters


@pytest.mark.parametrize("section", ["captured", "synthesised"])
def test_every_captured_packet_opens(section: str) -> None:
    """Whatever real nodes sent each other, our engine in their place authenticates and understands."""
    opened = 0
    for case in VERBS[section]:
        if case["to_node"] not in NODES or case["from_node"] not in NODES:
            continue
        node = lab_node(case["to_node"])
        for datagram in case["datagrams"]:
            node.receive_datagram(1, REMOTE, bytes.fromhex(datagram), EPOCH)
        assert "mac_failed" not in node.counters, case["verb"]
        assert "malformed" not in node.counters, (case["verb"], case.get("capture"))
        opened += 1
    assert opened > 30


def test_changed_bytes_never_raise_and_never_pass() -> None:
    generator = random.Random(5)
    cases = [case for case in VERBS["captured"] if case["to_node"] in NODES and case["from_node"] in NODES]
    for case in cases:
        node = lab_node(case["to_node"])
        before = state(node)
        for _ in range(12):
            for datagram in case["datagrams"]:
                data = bytearray(bytes.fromhex(datagram))
                at = generator.randrange(19, len(data)) if len(data) > 19 else 0
                data[at] ^= 1 << generator.randrange(8)
                node.receive_datagram(1, REMOTE, bytes(data[: generator.choice((len(data), len(data), at + 1))]), EPOCH)
        assert state(node) == before, case["verb"]


@given(st.binary(max_size=1_600))
@settings(max_examples=300, deadline=None)
def test_arbitrary_datagrams_never_raise(data: bytes) -> None:
    HOSTILE_LAB.members[0].node.receive_datagram(1, REMOTE, data, HOSTILE_LAB.fabric.now)


HOSTILE_LAB = Lab(2)
HOSTILE_LAB.join_all()
HOSTILE_LAB.fabric.run(2_000)


@given(
    st.integers(0, 31),
    st.binary(max_size=300),
    st.sampled_from((0, 1, 3)),
    st.booleans(),
    st.sampled_from(("root", "controller", "member")),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_authentic_packets_with_arbitrary_bodies_never_raise(verb: int, body: bytes, suite: int, known: bool, who: str) -> None:
    """The worst case: an authenticated peer, even our root or controller, sends nonsense."""
    lab = HOSTILE_LAB
    sender = {"root": lab.root, "controller": lab.controller, "member": lab.members[1]}[who]
    if known:
        body = lab.network.to_bytes(8) + body
    target = lab.members[0]
    peer = Peer(target.identity, sender.identity)
    packet = peer.keys.seal(
        b"".join((random.Random(len(body)).randbytes(8), peer.header_out, bytes(9), bytes([verb]), body)), suite
    )
    target.node.receive_datagram(1, sender.endpoint, packet, lab.fabric.now)
    target.node.take_actions()


def prefixed(in_re: int, packet_id: int, rest: bytes) -> bytes:
    return bytes([in_re]) + packet_id.to_bytes(8) + rest


@given(st.sampled_from((1, 4, 6, 8, 11, 12, 13, 14)), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_expected_replies_with_arbitrary_contents_never_raise(in_re: int, rest: bytes) -> None:
    lab = HOSTILE_LAB
    target = lab.members[0]
    packet_id = 0x1122334455667788
    target.node._sender.expected.remember(packet_id, lab.root.identity.address)
    peer = Peer(target.identity, lab.root.identity)
    body = prefixed(in_re, packet_id, rest)
    packet = peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), bytes([Verb.OK]), body)), 3)
    target.node.receive_datagram(1, lab.root.endpoint, packet, lab.fabric.now)
    target.node.take_actions()


def test_an_ok_to_nothing_teaches_nothing() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    a.node._topology.add(b.identity)
    peer = Peer(a.identity, b.identity)
    packet = peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), b"\x03", prefixed(8, 99, b""))), 1)
    a.receive(b.endpoint, packet)
    assert a.node.counters["ok_unexpected"] == 1
    assert not a.direct(b)


def test_replies_count_only_from_whom_we_asked() -> None:
    """A WHOIS answer from a node that is no upstream is not believed, even if it guesses the id."""
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    a.node._topology.add(b.identity)
    a.node._sender.request_identity(IDENTITIES[30].address, lab.fabric.now)
    a.node._sender.expected.remember(77 << 32, b.identity.address)
    peer = Peer(a.identity, b.identity)
    body = prefixed(4, 77 << 32, IDENTITIES[30].encode())
    a.receive(b.endpoint, peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), b"\x03", body)), 1))
    assert a.node.counters["whois_untrusted"] == 1


def test_a_degenerate_key_is_refused_wherever_it_comes_from() -> None:
    """A point of low order would make the peer key public knowledge (vl1 §2.3); roots of the reference hand out such identities."""
    lab = Lab(1)
    node = lab.members[0]
    lab.fabric.run(1_000)
    degenerate = Identity(0x1234567890, bytes(32) + IDENTITIES[5].public[32:])
    engine = node.node
    engine._sender.request_identity(degenerate.address, lab.fabric.now)
    engine._sender.expected.remember(5 << 32, lab.root.identity.address)
    peer = Peer(node.identity, lab.root.identity)
    body = prefixed(4, 5 << 32, degenerate.encode())
    packet = peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), b"\x03", body)), 3)
    engine.receive_datagram(1, lab.root.endpoint, packet, lab.fabric.now)
    engine.identity_validated(degenerate, True, lab.fabric.now)
    assert engine.counters["identity_degenerate"] == 1
    hello = b"\x0c\x01\x0e\x00\x01" + bytes(8) + degenerate.encode() + b"\0"
    head = bytes(8) + node.identity.address.to_bytes(5) + degenerate.address.to_bytes(5)
    engine.receive_datagram(1, REMOTE, head + bytes(9) + b"\x01" + hello, lab.fabric.now)
    assert engine.counters["mac_failed"] == 1
    assert len(engine.peers()) == 1


def test_tables_stay_bounded_under_a_flood() -> None:
    lab = Lab(1)
    node: SimNode = lab.members[0]
    lab.fabric.run(1_000)
    head = node.identity.address.to_bytes(5)
    generator = random.Random(3)
    for number in range(20_000):
        remote = Endpoint(bytes((10, number >> 8 & 0xFF, number & 0xFF, number >> 16)), 1 + number % 60_000)
        source = (0x1000000000 + number).to_bytes(5)
        flags = generator.choice((0x18, 0x88, 0x58))
        data = generator.randbytes(8) + head + source + bytes([flags]) + generator.randbytes(20)
        node.node.receive_datagram(1, remote, data, lab.fabric.now)
        piece = generator.randbytes(8) + head + b"\xff" + bytes((generator.randrange(256), 0)) + b"data"
        node.node.receive_datagram(1, remote, piece, lab.fabric.now)
    engine = node.node
    assert len(engine._paths) <= MAX_PATHS
    assert len(engine._strangers) <= 512
    assert len(engine._reassembler) <= 256
    assert len(engine._sender.whois) <= MAX_WHOIS
    sent = [action for action in engine.take_actions() if isinstance(action, SendDatagram)]
    assert len(sent) <= MAX_WHOIS + 10
    assert len(engine._peers) == 1


def test_junk_from_many_ports_displaces_no_path_in_use() -> None:
    lab = Lab(1)
    member = lab.members[0]
    lab.fabric.run(1_000)
    peer = member.node._peers[lab.root_identity.address]
    path = peer.entries[0].path
    for number in range(2 * MAX_PATHS):
        remote = (bytes((10, 9, number >> 8 & 0xFF, number & 0xFF)), 1 + number % 60_000)
        member.node.receive_datagram(1, remote, bytes(4), lab.fabric.now)
    assert len(member.node._paths) == MAX_PATHS
    assert member.node._paths[path.socket, path.remote] is path


def test_strangers_cannot_keep_us_from_asking_for_whom_we_send_to() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(1_000)
    head = a.identity.address.to_bytes(5)
    for number in range(2 * MAX_WHOIS):
        data = bytes(8) + head + (0x1000000000 + number).to_bytes(5) + b"\x18" + bytes(20)
        a.node.receive_datagram(1, REMOTE, data, lab.fabric.now)
    a.node.send_user_message(b.identity.address, 70_000, b"through", lab.fabric.now)
    a.perform()
    lab.fabric.run(1_000)
    assert [event.data[8:] for event in b.events if event.name == "user_message"] == [b"through"]


def test_credentials_are_shown_to_nodes_of_the_network_only() -> None:
    lab = Lab(2)
    member, stranger = lab.members
    member.join(lab.network)
    lab.fabric.run(2_000)
    error = Error.about_network(Verb.FRAME, 1, ErrorCode.NEED_MEMBERSHIP_CERTIFICATE, lab.network)
    stranger.node._sender.send(member.identity.address, Verb.ERROR, error.encode(), lab.fabric.now)
    stranger.perform()
    lab.fabric.run(2_000)
    assert member.node.counters["credentials_withheld"] == 1
    assert stranger.identity.address not in member.node._networks[lab.network].members.by_address


def test_hello_floods_cost_no_check_each() -> None:
    """Strangers from one prefix: one memory-hard check in two seconds, whatever they send."""
    lab = Lab(0)
    root = lab.root
    for identity in IDENTITIES[20:60]:
        peer = Peer(root.identity, identity)
        body = b"\x0c\x01\x0e\x00\x01" + bytes(8) + identity.encode() + b"\0"
        packet = peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), b"\x01", body)), 0)
        root.receive(Endpoint(bytes((10, 5, 5, 5)), 7), packet)
    assert len(root.node._acquaintance._pending) == 1
    assert root.node.counters["hello_gated"] == 39


def test_rendezvous_from_a_leaf_is_ignored() -> None:
    lab = Lab(3)
    a, b, c = lab.members
    lab.join_all()
    for other in (b, c):
        a.send_frame(lab.network, other.mac(lab.network), 0x0800, b"x" * 40)
    lab.fabric.run(1_000)
    body = b"\0" + c.identity.address.to_bytes(5) + (53).to_bytes(2) + b"\x04" + bytes((8, 8, 8, 8))
    b.node._sender.send(a.identity.address, Verb.RENDEZVOUS, body, lab.fabric.now)
    seen: list[bytes] = []
    lab.fabric.tap = lambda sender, remote, data: seen.append(remote.ip) is None
    b.perform()
    lab.fabric.run(1_000)
    assert a.node.counters["rendezvous_untrusted"] == 1
    assert bytes((8, 8, 8, 8)) not in seen


def test_the_second_entry_does_what_the_first_does() -> None:
    """`receive_opened`, for the native switch, against `receive_datagram` (architecture, "How the planes share one node")."""
    for verb, body in (
        (Verb.FRAME, b"\x08\x00" + b"payload" * 20),
        (Verb.ECHO, b"ping"),
        (Verb.USER_MESSAGE, bytes(8) + b"text"),
        (Verb.MULTICAST_GATHER, b"\0" + b"\xff" * 6 + bytes(4) + (9).to_bytes(4)),
        (Verb.PUSH_DIRECT_PATHS, b"\x00\x01\x00\x00\x00\x04\x06\x0a\x63\x00\x01\x27\x09"),
    ):
        results = []
        for opened in (False, True):
            lab = Lab(2)
            a, b = lab.members
            lab.join_all()
            a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"x" * 40)
            b.send_frame(lab.network, a.mac(lab.network), 0x0800, b"x" * 40)
            lab.fabric.run(3_000)
            whole = lab.network.to_bytes(8) + body if verb in (Verb.FRAME, Verb.MULTICAST_GATHER) else body
            peer = Peer(a.identity, b.identity)
            packet = peer.keys.seal(b"".join((bytes(8), peer.header_out, bytes(9), bytes([verb]), whole)), 3)
            now = lab.fabric.now
            if opened:
                clear = peer.keys.open(packet)
                a.node.receive_opened(clear, int.from_bytes(packet[:8]), 1, b.endpoint, 0, 3, now)
            else:
                a.node.receive_datagram(1, b.endpoint, packet, now)
            results.append((a.node.take_actions(), a.node.counters))
        assert results[0] == results[1], verb
        assert results[0][0] or verb == Verb.MULTICAST_GATHER
