"""What the examples share: a private world in this process (a root and controller, and members), and the option `-n`."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from netcon.embed import Node, open_node

#: Everything stays on this machine.
ADDRESS = "127.0.0.1"
LIMIT_S = 60

NETWORK = {
    "name": "example",
    "routes": [{"target": "10.121.15.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.121.15.1", "ipRangeEnd": "10.121.15.254"}],
    "v4AssignMode": {"zt": True},
    "v6AssignMode": {"rfc4193": True},
}


def options(text: str, nodes: int = 3) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=nodes, metavar="NODES", help=f"how many nodes (default {nodes})")
    return parser


@asynccontextmanager
async def world(nodes: int, **settings: Any) -> AsyncGenerator[tuple[int, list[Node]], None]:
    """A network with `settings`, and its members. The first of them is also root and controller."""
    async with AsyncExitStack() as stack:
        root = await stack.enter_async_context(open_node(root=True, controller=True, address=ADDRESS))
        network = root.create_network({**NETWORK, **settings})
        members = [root]
        for _ in range(nodes - 1):
            members.append(await stack.enter_async_context(open_node(planet=root.planet, address=ADDRESS)))
        with trio.fail_after(LIMIT_S):
            for member in members:
                root.authorize(network, member.address)
                member.join(network)
            for member in members:
                await member.wait_until_ready(network)
        yield network, members


def mac(raw: bytes) -> str:
    return raw.hex(":")
