"""Nodes inside a program: frames, events, subscriptions, the controller's calls, a home folder, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from netcon.core.address import MulticastGroup
from netcon.core.network import State
from netcon.dataplane.reactor import live_objects
from netcon.embed import EmbedError, Event, Node, Subscription, open_node
from tests.service.support import IDENTITIES

DEADLINE_S = 60
HERE = "127.0.0.1"
SETTINGS: dict[str, Any] = {
    "routes": [{"target": "10.9.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.254"}],
    "v4AssignMode": {"zt": True},
}


@asynccontextmanager
async def pair(**settings: Any) -> AsyncGenerator[tuple[int, Node, Node], None]:
    """A root and controller, and another node, both on its network."""
    async with (
        open_node(root=True, controller=True, identity=IDENTITIES[0], address=HERE) as root,
        open_node(planet=root.planet, identity=IDENTITIES[1], address=HERE) as node,
    ):
        network = root.create_network({**SETTINGS, **settings})
        with trio.fail_after(DEADLINE_S):
            for member in (root, node):
                root.authorize(network, member.address)
                member.join(network)
            for member in (root, node):
                await member.wait_until_ready(network)
            await node.wait_until_online()
        yield network, root, node


async def wait_for(events: Subscription[Event], name: str) -> Event:
    with trio.fail_after(DEADLINE_S):
        while (event := await events.receive()).name != name:
            pass
        return event


async def test_nodes_know_themselves_and_their_networks() -> None:
    async with pair() as (network, root, node):
        assert (root.address, node.address) == (IDENTITIES[0].address, IDENTITIES[1].address)
        assert node.identity == IDENTITIES[1]
        assert node.planet == root.planet
        assert [joined.id for joined in node.networks()] == [network]
        (address,) = node.addresses(network)
        assert str(address).startswith("10.9.0.")
        assert str(address).endswith("/24")
    assert live_objects()["sockets"] == 0


async def test_frames_of_any_ethertype_both_ways() -> None:
    async with pair() as (network, root, node):
        with root.frames(network) as at_root, node.frames() as at_node, trio.fail_after(DEADLINE_S):
            root.send_frame(network, node.mac(network), 0, b"ping")
            frame = await at_node.receive()
            assert (frame.network, frame.source, frame.destination) == (network, root.mac(network), node.mac(network))
            assert (frame.ethertype, frame.payload) == (0, b"ping")
            assert frame.ethernet == node.mac(network) + root.mac(network) + b"\0\0ping"
            node.send_frame(network, frame.source, 0x88B5, bytes(2800))
            assert (await at_root.receive()).payload == bytes(2800)
            node.broadcast_frame(network, 0x88B5, b"all")
            assert (await at_root.receive()).destination == b"\xff" * 6


async def test_a_multicast_group_is_received_once_subscribed() -> None:
    group = MulticastGroup(bytes.fromhex("01005e010203"), 0)
    async with pair() as (network, root, node):
        root.subscribe(network, [group])
        with root.frames() as frames, trio.fail_after(DEADLINE_S):
            node.send_frame(network, group.mac, 0x88B5, b"to the group")
            assert (await frames.receive()).destination == group.mac


async def test_a_user_message_is_an_event() -> None:
    async with pair() as (_, root, node):
        with root.events() as events:
            node.send_user_message(root.address, 70_000, b"text")
            event = await wait_for(events, "user_message")
        assert (event.peer, event.message_type, event.data) == (node.address, 70_000, b"text")


async def test_an_event_says_why_a_frame_was_dropped_while_somebody_listens() -> None:
    async with pair(enableBroadcast=False) as (network, _, node):
        with node.events() as events:
            node.broadcast_frame(network, 0x88B5, b"x")
            details = (await wait_for(events, "trace")).details
            assert (details["event"], details["etherType"], details["frameLength"]) == ("broadcast_disabled", "88b5", "1")
        assert node.counters["broadcast_disabled"] == 1


async def test_members_are_told_what_the_controller_changes() -> None:
    async with pair() as (network, root, node):
        with node.events() as events:
            root.update_network(network, {"name": "renamed"})
            while getattr(node.network(network).config, "name", "") != "renamed":
                assert (await wait_for(events, "configured")).network == network
            root.authorize(network, node.address, {"authorized": False})
            node.leave(network)
            node.join(network)
            while node.network(network).status is not State.ACCESS_DENIED:
                await wait_for(events, "configured")


async def test_what_is_not_read_is_lost_and_counted_and_a_closed_node_ends_its_subscriptions() -> None:
    async with pair() as (network, root, node):
        slow, fast = root.frames(network, room=2), root.frames(network)
        elsewhere = root.frames(network ^ 1)
        for number in range(5):
            node.send_frame(network, root.mac(network), 0x88B5, b"%d" % number)
        with trio.fail_after(DEADLINE_S):
            assert [(await fast.receive()).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert (slow.lost, fast.lost, elsewhere.lost) == (3, 0, 0)
    assert [frame.payload async for frame in slow] == [b"0", b"1"]
    assert [frame async for frame in elsewhere] == []


async def test_a_home_folder_keeps_the_node(tmp_path: Path) -> None:
    async with open_node(root=True, controller=True, identity=IDENTITIES[0], address=HERE) as root:
        network = root.create_network(SETTINGS)
        (tmp_path / "planet").write_bytes(root.planet.encode())
        (tmp_path / "identity.secret").write_text(IDENTITIES[1].to_text(secret=True))
        (tmp_path / "identity.secret").chmod(0o600)
        root.authorize(network, IDENTITIES[1].address)
        async with open_node(home=tmp_path, address=HERE) as node:
            node.join(network)
            with trio.fail_after(DEADLINE_S):
                await node.wait_until_ready(network)
            addresses = node.addresses(network)
        async with open_node(home=tmp_path, address=HERE) as node:
            assert node.address == IDENTITIES[1].address
            assert node.addresses(network) == addresses  # of the cached configuration, at once


async def test_what_cannot_be_done_is_refused() -> None:
    async with pair() as (network, root, node):
        with pytest.raises(EmbedError, match="not joined"):
            node.mac(network ^ 1)
        with pytest.raises(EmbedError, match="6 bytes"):
            node.send_frame(network, b"short", 0, b"")
        with pytest.raises(EmbedError, match="16 bits"):
            node.send_frame(network, root.mac(network), 1 << 16, b"")
        with pytest.raises(EmbedError, match="controller=True"):
            node.create_network()
        with pytest.raises(EmbedError, match="planet of its own"):
            async with open_node(root=True, planet=root.planet):
                pass
        with pytest.raises(OSError):
            async with open_node(planet=root.planet, identity=IDENTITIES[2], address=HERE, port=root.endpoints[0].port):
                pass
    assert live_objects()["sockets"] == 0
