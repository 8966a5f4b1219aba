"""A captured session of real nodes, replayed: our engine in the place of node b gets every datagram that b got."""

from __future__ import annotations

import json
import random
from pathlib import Path

from netcon.core.actions import DeliverFrame, Endpoint, ValidateIdentity
from netcon.core.address import parse_endpoint
from netcon.core.identity import Identity
from netcon.core.node import Node
from netcon.core.packet import PacketHeader, Verb, is_fragment
from netcon.core.world import World

SESSION = json.loads((Path(__file__).parent.parent / "vectors" / "session_join.json").read_text())
NETWORK = int(SESSION["network_id"], 16)
NODES = {node["name"]: node for node in SESSION["nodes"]}
B = Identity.parse(NODES["b"]["secret"])


def endpoint(text: str) -> Endpoint:
    return parse_endpoint(text.replace(":", "/"))


class Replay:
    """Node b's host. What the real b sent is taken as sent by ours, so that the captured replies are expected ones."""

    def __init__(self) -> None:
        self.start = int(SESSION["epoch_of_t0"] * 1000)
        self.node = Node(B, World.parse(bytes.fromhex(SESSION["planet"])), random=random.Random(1).randbytes, now=self.start)
        self.frames: list[DeliverFrame] = []
        self.node.join(NETWORK, self.start)

    def perform(self, now: int) -> None:
        while actions := self.node.take_actions():
            for action in actions:
                if isinstance(action, ValidateIdentity):
                    self.node.identity_validated(action.identity, action.identity.validate(), now)
                elif isinstance(action, DeliverFrame):
                    self.frames.append(action)

    def run(self) -> None:
        own = endpoint(NODES["b"]["udp"])
        for item in SESSION["datagrams"]:
            now = self.start + int(item["t"] * 1000)
            data = bytes.fromhex(item["raw"])
            if now >= self.node.next_deadline():
                self.node.background(now)
                self.perform(now)
            if endpoint(item["to"]) == own:
                self.node.receive_datagram(1, endpoint(item["from"]), data, now)
            elif endpoint(item["from"]) == own and len(data) >= 28 and not is_fragment(data):
                header = PacketHeader.parse(data)
                self.node._sender.expected.remember(header.packet_id, header.destination)
                if item.get("verb") == "WHOIS":
                    self.node._sender.whois.want(int(item["plaintext"][56:66], 16), now)
            self.perform(now)


def frames_for_b() -> list[bytes]:
    """The Ethernet payloads that the transcript says b received."""
    payloads = []
    for item in SESSION["datagrams"]:
        if item.get("destination") != "b" or endpoint(item["to"]) != endpoint(NODES["b"]["udp"]) or not item.get("plaintext"):
            continue
        fields = {field[0]: bytes.fromhex(item["plaintext"])[field[1] : field[1] + field[2]] for field in item["fields"]}
        verb = bytes.fromhex(item["plaintext"])[27] & 0x1F
        if verb in (Verb.FRAME, Verb.EXT_FRAME, Verb.MULTICAST_FRAME):
            payloads.append(next(value for name, value in fields.items() if "payload" in name or name == "frame"))
    return payloads


def test_the_replayed_node_joins_and_hears_what_the_real_one_heard() -> None:
    replay = Replay()
    replay.run()
    node = replay.node
    status = node.network(NETWORK)
    assert status is not None
    assert status.status.name == "OK"
    assert status.config is not None
    assert status.config.name == SESSION["controller_network_settings"]["name"]
    assert status.config.issued_to == B.address
    assert {peer.address for peer in node.peers()} == {int(NODES[name]["address"], 16) for name in ("a", "ctl", "root")}
    assert node.counters["mac_failed"] == 0
    assert node.counters["malformed"] == 0
    heard = [frame.payload for frame in replay.frames]
    expected = frames_for_b()
    assert expected
    assert heard == expected


def test_the_replayed_node_learns_versions_and_paths() -> None:
    replay = Replay()
    replay.run()
    by_address = {peer.address: peer for peer in replay.node.peers()}
    root = by_address[int(NODES["root"]["address"], 16)]
    assert root.version == (1, 14, 1)
    assert root.role == "PLANET"
    assert endpoint(NODES["root"]["udp"]) in [path.endpoint for path in root.paths]
    a = by_address[int(NODES["a"]["address"], 16)]
    assert endpoint(NODES["a"]["udp"]) in [path.endpoint for path in a.paths]
