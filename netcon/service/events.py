"""What happened lately, for whoever asks: the engine's events in a ring, numbered, for long polls of the local API.

Peers can cause events as fast as they can send, so that the ring keeps the newest only, and says how many were lost.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

from netcon.core.actions import NodeEvent
from netcon.core.buffer import Reader
from netcon.core.dictionary import Dictionary
from netcon.core.errors import NetconError

#: Kept. With the largest of user messages that is 10 MB.
MOST = 512
#: The longest wait of one question, seconds.
LONGEST_WAIT_S = 60.0


class EventLog:
    """The newest events. `next`: the number that the next one gets; the first is 1."""

    def __init__(self) -> None:
        self.next = 1
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._arrived = trio.Event()

    def add(self, event: NodeEvent, now: int) -> None:
        self._events.append(
            {"number": self.next, "time": now, "event": event.name, "peer": f"{event.peer:010x}", **_content(event)}
        )
        self.next += 1
        self._arrived.set()

    async def since(self, number: int, seconds: float) -> dict[str, Any]:
        """Those from `number` on, once there is one, or after `seconds`. `lost`: how many before them are not kept any more."""
        with trio.move_on_after(min(max(seconds, 0.0), LONGEST_WAIT_S)):
            while self.next <= number:
                self._arrived = trio.Event() if self._arrived.is_set() else self._arrived
                await self._arrived.wait()
        events = [event for event in self._events if event["number"] >= number]
        first = events[0]["number"] if events else self.next
        return {"events": events, "next": self.next, "lost": max(first - max(number, 1), 0)}


def _content(event: NodeEvent) -> dict[str, Any]:
    """What came with it: a message's type and bytes (vl1 §4.15), or a trace's fields (vl2 §6.8)."""
    try:
        match event.name:
            case "user_message":
                reader = Reader(event.data)
                return {"type": reader.u64(), "data": event.data[8:].hex()}
            case "remote_trace" | "trace":
                fields = Dictionary.decode(event.data)
                return {"fields": {key: value.decode("utf-8", "replace") for key, value in fields.items()}}
    except NetconError:
        return {"data": event.data.hex()}
    return {}
