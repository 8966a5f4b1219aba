"""What a node waits for: replies, identities, and packets that cannot be sent or understood yet (vl1 §4.6, §5.7)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from netcon.core.path import NEVER

#: Life of a queued packet, both ways, ms (vl1 §1.3).
QUEUE_LIFETIME_MS = 5_000
#: One WHOIS per address and queue period, ms (vl1 §1.3).
WHOIS_PERIOD_MS = 500
#: Addresses being asked for at once (vl1 §9).
MAX_WHOIS = 256
#: Of these, for packets and questions of others, who can name any number of addresses; the rest is for what we send ourselves.
MAX_WHOIS_FOR_OTHERS = 192
#: Packets kept, in total and per waited-for thing.
MAX_QUEUED = 512
MAX_QUEUED_PER_KEY = 64
#: Requests remembered for matching replies (vl1 §4.3).
MAX_EXPECTED = 8_192


class ExpectedReplies:
    """Remembers the top 32 bits of the ids of what we sent and to whom, and says whether an OK answers one of them (vl1 §4.6).

    Narrower than the reference, which does not remember to whom. An entry stays after a match: a HELLO that left from several
    sockets is answered several times.
    """

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}

    def remember(self, packet_id: int, destination: int) -> None:
        sent = self._sent
        if len(sent) >= MAX_EXPECTED:
            del sent[next(iter(sent))]
        sent[packet_id >> 32] = destination

    def matches(self, packet_id: int, source: int) -> bool:
        return self._sent.get(packet_id >> 32) == source


@dataclass(slots=True, frozen=True)
class OutboundPacket:
    """Something for a peer that cannot be reached yet."""

    verb: int
    body: bytes
    compress: bool = False
    expect: bool = False


T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Items that wait for a key (an identity, a member's certificate), each for five seconds, oldest dropped first."""

    def __init__(self) -> None:
        self._rooms: dict[Hashable, list[tuple[int, T]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def hold(self, key: Hashable, item: T, now: int) -> None:
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = []
        if len(room) >= MAX_QUEUED_PER_KEY:
            room.pop(0)
            self._count -= 1
        elif self._count >= MAX_QUEUED:
            self._drop_oldest()
            # The room itself may have been emptied and removed.
            room = self._rooms.setdefault(key, room)
        room.append((now, item))
        self._count += 1

    def _drop_oldest(self) -> None:
        key = min((k for k, room in self._rooms.items() if room), key=lambda k: self._rooms[k][0][0])
        room = self._rooms[key]
        room.pop(0)
        self._count -= 1
        if not room:
            del self._rooms[key]

    def release(self, key: Hashable, now: int) -> list[T]:
        """Take out everything that waited for `key` and is not too old."""
        room = self._rooms.pop(key, None)
        if room is None:
            return []
        self._count -= len(room)
        return [item for since, item in room if now - since < QUEUE_LIFETIME_MS]

    def expire(self, now: int) -> int:
        """Drop what waited too long; returns how many."""
        dropped = 0
        for key in list(self._rooms):
            room = self._rooms[key]
            fresh = [(since, item) for since, item in room if now - since < QUEUE_LIFETIME_MS]
            dropped += len(room) - len(fresh)
            if fresh:
                self._rooms[key] = fresh
            else:
                del self._rooms[key]
        self._count -= dropped
        return dropped

    def waited_for(self) -> list[Hashable]:
        """What anything here waits for."""
        return list(self._rooms)


class WhoisRequests:
    """Addresses whose identity we asked for, and when last (vl1 §5.7)."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[int, int]] = {}  # address: (last asked, wanted until)

    def __len__(self) -> int:
        return len(self._asked)

    def wanted(self, address: int) -> bool:
        return address in self._asked

    def want(self, address: int, now: int, *, for_others: bool = False) -> bool:
        """Note that `address` is wanted for the next five seconds; returns whether to ask at once. False also if too many are."""
        known = self._asked.get(address)
        if known is None:
            if len(self._asked) >= (MAX_WHOIS_FOR_OTHERS if for_others else MAX_WHOIS):
                return False
            self._asked[address] = (now, now + QUEUE_LIFETIME_MS)
            return True
        last, _ = known
        ask = now - last >= WHOIS_PERIOD_MS
        self._asked[address] = (now if ask else last, now + QUEUE_LIFETIME_MS)
        return ask

    def ask_again(self, address: int) -> None:
        """The last question did not leave: the next `due` contains it."""
        if address in self._asked:
            self._asked[address] = (NEVER, self._asked[address][1])

    def due(self, now: int) -> list[int]:
        """Addresses to be asked for again; forgets those that nobody wants any more."""
        again = []
        for address, (last, until) in list(self._asked.items()):
            if now >= until:
                del self._asked[address]
            elif now - last >= WHOIS_PERIOD_MS:
                self._asked[address] = (now, until)
                again.append(address)
        return again

    def answered(self, address: int) -> None:
        self._asked.pop(address, None)
