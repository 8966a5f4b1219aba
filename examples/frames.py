"""Frames from Python to Python: each node sends one to its neighbour and one to everybody.

python examples/frames.py
python examples/frames.py -n 5
"""

from __future__ import annotations

import trio
from _world import LIMIT_S, mac, options, world

from netcon.core.address import format_address
from netcon.embed import Frame, Node, Subscription

#: For local experiments (IEEE 802).
ETHERTYPE = 0x88B5


async def expect(frames: Subscription[Frame], count: int) -> list[Frame]:
    return [await frames.receive() for _ in range(count)]


def show(node: Node, frame: Frame) -> None:
    how = "for all" if frame.destination[0] & 1 else "for me "
    print(f"{format_address(node.address)} got {how} from {mac(frame.source)}: {frame.payload.decode()}")


async def main() -> None:
    choice = options(__doc__ or "").parse_args()
    async with world(choice.n) as (network, nodes):
        inboxes = [node.frames(network) for node in nodes]
        for node, neighbour in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            text = f"hello {format_address(neighbour.address)}, here is {format_address(node.address)}"
            node.send_frame(network, neighbour.mac(network), ETHERTYPE, text.encode())
            node.broadcast_frame(network, ETHERTYPE, f"hello all, here is {format_address(node.address)}".encode())
        with trio.fail_after(LIMIT_S):
            for node, inbox in zip(nodes, inboxes, strict=True):
                for frame in sorted(await expect(inbox, len(nodes)), key=lambda frame: (frame.destination[0] & 1, frame.source)):
                    show(node, frame)


if __name__ == "__main__":
    trio.run(main)
