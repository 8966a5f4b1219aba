"""Ping and pong by frames of EtherType 0: a protocol of one's own, without any TCP/IP stack.

python examples/ping_pong.py
python examples/ping_pong.py -n 2 --count 100
"""

from __future__ import annotations

import time

import trio
from _world import LIMIT_S, options, world

from netcon.core.address import format_address
from netcon.embed import Frame, Node, Subscription

ETHERTYPE = 0


async def answer(node: Node, network: int, frames: Subscription[Frame]) -> None:
    async for frame in frames:
        if frame.ethertype == ETHERTYPE and frame.payload.startswith(b"ping "):
            node.send_frame(network, frame.source, ETHERTYPE, b"pong " + frame.payload[5:])


async def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--count", type=int, default=3, help="how many pings for each node (default 3)")
    choice = parser.parse_args()
    async with world(choice.n) as (network, (first, *others)), trio.open_nursery() as nursery:
        for node in others:
            nursery.start_soon(answer, node, network, node.frames(network))
        with first.frames(network) as pongs, trio.fail_after(LIMIT_S):
            for node in others:
                for number in range(choice.count):
                    start = time.perf_counter()
                    first.send_frame(network, node.mac(network), ETHERTYPE, b"ping %d" % number)
                    pong = await pongs.receive()
                    assert (pong.source, pong.payload) == (node.mac(network), b"pong %d" % number)
                    print(
                        f"{pong.payload.decode()} from {format_address(node.address)}: {(time.perf_counter() - start) * 1e3:.1f} ms"
                    )
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
