"""Sending revocations so that their receivers read them (vl2 §3.7, §7.5).

A member reads at most one NETWORK_CREDENTIALS packet a second from one peer and silently loses the rest. So what is due for one
recipient shares a packet, and packets to it keep their distance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netcon.core.controller_role import SendRevocations

#: A little more than the receivers' gate of 1000 ms.
SPACING_MS = 1_100
#: 152 bytes each: together under the 9928 bytes that seven fragments carry (vl1 §1.2).
PER_PACKET = 60
#: What a recipient that is this far behind will not get: certificates run out by themselves.
MAXIMUM_QUEUE = 1_024


@dataclass(slots=True)
class _Queue:
    not_before: int
    waiting: list[bytes] = field(default_factory=list)


class RevocationQueues:
    def __init__(self) -> None:
        self._queues: dict[int, _Queue] = {}

    def add(self, recipient: int, revocation: bytes, now: int) -> None:
        queue = self._queues.setdefault(recipient, _Queue(now))
        if len(queue.waiting) < MAXIMUM_QUEUE:
            queue.waiting.append(revocation)

    def due(self, now: int) -> list[SendRevocations]:
        """The packets that may leave now."""
        packets = []
        for recipient, queue in list(self._queues.items()):
            if queue.not_before > now:
                continue
            if not queue.waiting:
                del self._queues[recipient]
                continue
            packets.append(SendRevocations(recipient, tuple(queue.waiting[:PER_PACKET])))
            del queue.waiting[:PER_PACKET]
            queue.not_before = now + SPACING_MS
        return packets

    def next_due(self) -> int | None:
        """When `due` will have something, or None while nothing waits."""
        return min((queue.not_before for queue in self._queues.values() if queue.waiting), default=None)

    def forget_idle(self, now: int) -> None:
        for recipient in [r for r, queue in self._queues.items() if not queue.waiting and queue.not_before <= now]:
            del self._queues[recipient]
