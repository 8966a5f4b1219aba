"""A whole node under mutated datagrams: it never raises, and works afterwards as before."""

from __future__ import annotations

import json
import random

import pytest

from netcon.core.actions import Endpoint, SendDatagram, ValidateIdentity
from netcon.core.identity import Identity
from netcon.core.node import Node
from netcon.core.packet import BODY, Verb
from netcon.core.peer import Peer
from netcon.core.world import Root, World, make_planet
from tests.fuzz.corpus import datagrams, packets, vectors
from tests.fuzz.mutator import Mutator
from tests.service.support import IDENTITIES, WORLD_KEY
from tests.simulator import EPOCH, Lab

SESSION = vectors("session_join")


@pytest.mark.parametrize("name", [node["name"] for node in SESSION["nodes"]])
def test_datagrams_of_a_recorded_session(name: str) -> None:
    """Each machine of the capture gets what was sent to it and to the others, changed, between what was really sent."""
    record = next(node for node in SESSION["nodes"] if node["name"] == name)
    node = Node(
        Identity.parse(record["secret"]),
        World.parse(bytes.fromhex(SESSION["planet"])),
        random=random.Random(name).randbytes,
        now=EPOCH,
    )
    for other in SESSION["nodes"]:
        if other is not record:
            node._topology.add(Identity.parse(other["secret"]))
    node.join(int(SESSION["network_id"], 16), EPOCH)
    generator = random.Random(f"session {name}")
    mutator = Mutator(datagrams(), generator)
    now = EPOCH
    for datagram in SESSION["datagrams"]:
        now += 20
        remote = Endpoint(bytes((10, 77, 0, generator.randrange(1, 30))), 9993)
        for data in (mutator.next(), bytes.fromhex(datagram["raw"]), mutator.next(), mutator.next()):
            node.receive_datagram(1, remote, data, now)
        node.background(now)
        node.take_actions()
    assert sum(node.counters.values()) > 100, json.dumps(node.counters)
    assert_answers_hello(node, now + 60_000)


def assert_answers_hello(node: Node, now: int) -> None:
    """A stranger for whom `node` is the root says HELLO, and is online when it has read the answer."""
    ours, theirs = Endpoint(bytes((10, 77, 1, 1)), 9993), Endpoint(bytes((10, 77, 1, 2)), 9993)
    planet = make_planet(7, EPOCH, [Root(node.identity, (ours,))], WORLD_KEY)
    stranger = Node(IDENTITIES[0], planet, random=random.Random("stranger").randbytes, now=now)
    stranger.background(now)
    said = [action.data for action in stranger.take_actions() if isinstance(action, SendDatagram)]
    assert said
    for data in said:
        node.receive_datagram(1, theirs, data, now)
    actions = node.take_actions()
    for action in actions:
        if isinstance(action, ValidateIdentity):
            node.identity_validated(action.identity, True, now)
    actions += node.take_actions()
    assert not stranger.online
    for action in actions:
        if isinstance(action, SendDatagram) and action.remote == theirs:
            stranger.receive_datagram(1, ours, action.data, now + 10)
    assert stranger.online


def test_authentic_packets_of_changed_bodies_then_frames_still_pass() -> None:
    """The worst case: root, controller and a member, all authenticated, send broken messages. The network works afterwards."""
    lab = Lab(2)
    lab.join_all()
    lab.fabric.run(2_000)
    target, other = lab.members
    generator = random.Random("authentic")
    network = lab.network.to_bytes(8)
    bodies = [packet[BODY - 1 :].replace(bytes.fromhex(SESSION["network_id"]), network) for packet in packets()]
    mutator = Mutator([body for body in bodies if body], generator)
    senders = [(node, Peer(target.identity, node.identity)) for node in (lab.root, lab.controller, other)]
    sent = 0
    while sent < 2_500:
        node, peer = generator.choice(senders)
        data = mutator.next()[:8_000]
        # A network of which the controller says so, or a peer that pushes us its broken paths, may well be lost for a while.
        if not data or (data[0] & 0x1F in (Verb.NETWORK_CONFIG, Verb.ERROR) and node is lab.controller):
            continue
        head = generator.randbytes(8) + peer.header_out + bytes(9)
        packet = peer.keys.seal(head + data, generator.choice((0, 1, 3)))
        target.node.receive_datagram(1, node.endpoint, packet, lab.fabric.now)
        sent += 1
        if sent % 100 == 0:
            target.perform()
            lab.fabric.run(50)
    assert target.node.counters["malformed"] > 200
    lab.fabric.run(60_000)
    target.take_frames()
    other.take_frames()
    other.send_frame(lab.network, target.mac(lab.network), 0x0800, b"after all of it")
    target.send_frame(lab.network, other.mac(lab.network), 0x0800, b"and back")
    lab.fabric.run(10_000)
    assert b"after all of it" in [frame.payload for frame in target.take_frames()]
    assert b"and back" in [frame.payload for frame in other.take_frames()]
