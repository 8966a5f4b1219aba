"""Trace events: why a frame did not arrive.

    python examples/why_dropped.py

The network's rules drop frames of EtherType 0x88b5. A node sends one of those, and one that pretends to come from another machine.
"""

from __future__ import annotations

import trio
from _world import LIMIT_S, options, world

from netcon.embed import Event, Subscription

DROPPED, ALLOWED = 0x88B5, 0x88B6
RULES = [{"type": "MATCH_ETHERTYPE", "etherType": DROPPED}, {"type": "ACTION_DROP"}, {"type": "ACTION_ACCEPT"}]


async def why(events: Subscription[Event], ethertype: int) -> Event:
    while True:
        event = await events.receive()
        if event.name == "trace" and int(event.details["etherType"], 16) == ethertype:
            return event


async def main() -> None:
    options(__doc__ or "", nodes=2).parse_args()
    async with world(2, rules=RULES) as (network, (sender, receiver)):
        to = receiver.mac(network)
        with sender.events() as events, receiver.frames(network) as frames, trio.fail_after(LIMIT_S):
            sender.send_frame(network, to, ALLOWED, b"this one arrives")
            print("arrived:", (await frames.receive()).payload.decode())
            sender.send_frame(network, to, DROPPED, b"a rule drops this one")
            print("dropped:", dict((await why(events, DROPPED)).details))
            sender.send_frame(network, to, ALLOWED, b"we are no bridge", source=bytes.fromhex("020000000001"))
            print("dropped:", dict((await why(events, ALLOWED)).details))


if __name__ == "__main__":
    trio.run(main)
