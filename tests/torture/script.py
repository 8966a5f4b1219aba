"""Random scripts: what is proposed, how often, and with what arguments. `World` decides what of it makes sense."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from tests.torture.model import DONTWAIT, Op, Process, Thing, World

Proposal = Callable[["Generator"], Op | list[Op] | None]


class Generator:
    """`ops` operations from a seed. Proposals that make no sense are made again, so that a script has about as many as wanted."""

    def __init__(self, seed: int, ops: int) -> None:
        self.random = random.Random(seed)
        self.world = World()
        self.next_slot = 0
        self.next_actor = 1
        if seed % 4 == 0:
            self.world.apply(("limit", 0))
        names = list(PROPOSALS)
        weights = [PROPOSALS[name][0] for name in names]
        for _ in range(ops * 20):
            if len(self.world.applied) >= ops:
                break
            op = PROPOSALS[self.random.choices(names, weights)[0]][1](self)
            for one in op if isinstance(op, list) else [] if op is None else [op]:
                self.world.apply(one)
        self.ops = list(self.world.applied)

    # ---- choices ----

    def actor(self) -> int:
        return self.random.choice(list(self.world.actors))

    def process(self, actor: int) -> Process:
        return self.world.actors[actor]

    def slot(self, actor: int, wanted: Callable[[Thing], bool] = lambda thing: True) -> int | None:
        found = [slot for slot, handle in self.process(actor).handles.items() if wanted(handle.thing)]
        return self.random.choice(found) if found else None

    def anywhere(self, wanted: Callable[[Thing], bool]) -> tuple[int, int] | None:
        """(actor, slot) of something."""
        found = [
            (actor, slot)
            for actor, process in self.world.actors.items()
            for slot, handle in process.handles.items()
            if wanted(handle.thing)
        ]
        return self.random.choice(found) if found else None

    def new(self) -> int:
        self.next_slot += 1
        return self.next_slot - 1

    def child(self) -> int:
        self.next_actor += 1
        return self.next_actor - 1

    def one(self, *values: int) -> int:
        return self.random.choice(values)

    def seed(self) -> int:
        return self.random.randrange(1000)

    def two_ends(self) -> tuple[int, int, int, int] | None:
        """(actor, slot, other actor, its slot) of a connection's two ends."""
        first = self.anywhere(lambda thing: thing.is_open and thing.peer is not None and not thing.peer.closed)
        if first is None:
            return None
        peer = self.process(first[0]).handles[first[1]].thing.peer
        second = self.anywhere(lambda thing: thing is peer)
        return None if second is None or second[0] == first[0] else (*first, *second)


def about(name: str, wanted: Callable[[Thing], bool], *arguments: Callable[[Generator], int]) -> Proposal:
    def propose(g: Generator) -> Op | None:
        found = g.anywhere(wanted)
        return None if found is None else (name, *found, *(argument(g) for argument in arguments))

    return propose


def by(name: str, *arguments: Callable[[Generator], int]) -> Proposal:
    return lambda g: (name, g.actor(), *(argument(g) for argument in arguments))


def new(g: Generator) -> int:
    return g.new()


def seed(g: Generator) -> int:
    return g.seed()


def one(*values: int) -> Callable[[Generator], int]:
    return lambda g: g.one(*values)


def kind(name: str, *states: str) -> Callable[[Thing], bool]:
    return lambda thing: thing.kind == name and (not states or thing.state in states)


def anything(thing: Thing) -> bool:
    return True


def family_of(g: Generator, wanted: Callable[[Thing], bool]) -> int:
    labels = [label for label, thing in g.world.labels.items() if not thing.closed and wanted(thing)]
    return g.random.choice(labels) if labels else -1


def connect(g: Generator) -> Op | None:
    found = g.anywhere(kind("stream", "fresh", "bound", "failed"))
    wanted = kind("stream", "listening") if g.random.random() < 0.9 else kind("stream", "bound")
    label = family_of(g, wanted)
    return None if found is None or label < 0 else ("connect", *found, label)


def pair(g: Generator) -> list[Op]:
    """A connection between two actors that may be one: what takes many proposals to come by alone."""
    server, client = g.actor(), g.actor()
    listener, one_end, other_end = g.new(), g.new(), g.new()
    return [
        ("socket", server, listener, 0, g.one(0, 2)),
        ("bind", server, listener, g.one(0, 1), -1),
        ("listen", server, listener, 16),
        ("socket", client, one_end, 0, g.one(0, 0, 1, 2)),
        ("connect", client, one_end, listener),
        ("accept", server, listener, other_end, g.one(0, 1, 2, 4)),
    ]


def connect_datagrams(g: Generator) -> Op | None:
    found = g.anywhere(kind("datagrams", "bound"))
    label = family_of(g, kind("datagrams", "bound"))
    return None if found is None or label < 0 else ("connect", *found, label)


def bind(g: Generator) -> Op | None:
    found = g.anywhere(lambda thing: thing.kind in ("stream", "datagrams") and thing.state == "fresh")
    other = family_of(g, lambda thing: thing.state in ("bound", "listening")) if g.random.random() < 0.15 else -1
    return None if found is None else ("bind", *found, g.one(0, 0, 1), other)


def send_datagram(g: Generator) -> Op | None:
    found = g.anywhere(kind("datagrams", "bound"))
    if found is None:
        return None
    connected = g.process(found[0]).handles[found[1]].thing.peer is not None
    label = -1 if connected else family_of(g, kind("datagrams", "bound"))
    if label < 0 and not connected:
        return None
    return ("send", *found, g.one(0, 1, 5, 100, 1400), g.seed(), g.one(0, 1, 2, 3, 4) if connected else g.one(0, 1, 2), 0, label)


def copy(g: Generator) -> Op | None:
    actor = g.actor()
    slot = g.slot(actor)
    how = g.random.randrange(4)
    new_slot = g.new() if how < 2 else g.slot(actor)
    return None if slot is None or new_slot is None else ("copy", actor, slot, new_slot, how)


def close_range(g: Generator) -> Op | None:
    actor = g.actor()
    first, last = g.slot(actor), g.slot(actor)
    if first is None or last is None:
        return None
    if g.random.random() < 0.2:
        first = last = -1
    return ("range", actor, first, last, g.one(0, 4, 4))


def pass_descriptor(g: Generator) -> Op | None:
    actor = g.actor()
    channel, slot = g.slot(actor, kind("channel")), g.slot(actor, kind("stream"))
    return None if channel is None or slot is None else ("pass", actor, channel, slot)


def select_some(g: Generator) -> Op | None:
    actor = g.actor()
    watched = [slot for slot, handle in g.process(actor).handles.items() if handle.thing.is_watched]
    return ("select", actor, *g.random.sample(watched, min(len(watched), 8))) if watched else None


def control(g: Generator) -> Op | None:
    actor = g.actor()
    group, member = g.slot(actor, kind("epoll")), g.slot(actor, lambda thing: thing.is_watched)
    if group is None or member is None:
        return None
    return ("control", actor, group, member, g.one(1, 1, 1, 2, 3), g.one(0x1, 0x4, 0x5, 0x2005))


def end(g: Generator) -> Op | None:
    child = g.actor()
    return ("end" if g.random.random() < 0.8 else "kill", g.world.parents[child], child) if child in g.world.parents else None


def exercise(g: Generator) -> Op:
    crowd = g.random.sample(list(g.world.actors), g.random.randint(1, len(g.world.actors)))
    return ("exercise", crowd[0], g.one(2, 4, 8), g.seed(), *crowd[1:])


def pump(g: Generator) -> Op | None:
    ends = g.two_ends()
    third = g.actor() if g.random.random() < 0.5 else -1
    return None if ends is None else ("pump", *ends, g.one(3000, 60000, 400000), g.seed(), third)


def wake(g: Generator) -> Op | None:
    ends = g.two_ends()
    return None if ends is None else ("wake", *ends, g.one(1, 10, 900), g.seed(), g.one(0, 1))


def herd(g: Generator) -> Op | None:
    label = family_of(g, kind("stream", "listening"))
    if label < 0:
        return None
    listener = g.world.labels[label]
    servers = [
        actor for actor, process in g.world.actors.items() if any(handle.thing is listener for handle in process.handles.values())
    ]
    crowd = g.random.sample(servers, g.random.randint(1, len(servers))) if servers else []
    visitors = [actor for actor in g.world.actors if actor not in crowd]
    if not visitors or not crowd:
        return None
    return ("herd", g.random.choice(visitors), label, g.one(3, 8), g.one(1, 3, 6), g.one(0, 1, 2), *crowd)


def opened(thing: Thing) -> bool:
    return thing.is_open


def readable(thing: Thing) -> bool:
    if thing.kind == "stream":
        return thing.state in ("connected", "reset")
    return thing.kind == "datagrams" and thing.state == "bound"


def end_point(thing: Thing) -> bool:
    return thing.kind in ("stream", "datagrams")


PROPOSALS: dict[str, tuple[float, Proposal]] = {
    "socket": (6, by("socket", new, one(0, 0, 0, 1), one(0, 1, 2, 3, 4, 6))),
    "pair": (2.5, pair),
    "bind": (6, bind),
    "listen": (5, about("listen", kind("stream", "fresh", "bound", "listening"), one(1, 4, 16, 16))),
    "connect": (9, connect),
    "connect_datagrams": (1, connect_datagrams),
    "accept": (9, about("accept", kind("stream", "listening"), new, one(0, 1, 2, 3, 4, 8))),
    "send": (9, about("send", opened, one(1, 7, 100, 1000), seed, one(0, 1, 2, 3, 4), one(0, 0, DONTWAIT), one(-1))),
    "send_datagram": (4, send_datagram),
    "recv": (
        9,
        about(
            "recv",
            readable,
            one(1, 50, 200, 2000),
            one(0, 1, 2, 3, 4),
            one(0, DONTWAIT, DONTWAIT, DONTWAIT | socket.MSG_PEEK, socket.MSG_WAITALL),
            one(0, 1),
        ),
    ),
    "shutdown": (1.5, about("shutdown", opened, one(0, 1, 1))),
    "name": (2, about("name", end_point, one(0, 1))),
    "get": (2, about("get", end_point, one(*range(9)))),
    "set": (1, about("set", opened, one(6), one(0, 1))),
    "linger": (0.5, about("set", opened, one(-1), one(0))),
    "close": (4, about("close", anything)),
    "copy": (4, copy),
    "range": (1, close_range),
    "nonblock": (1, about("nonblock", kind("stream"), one(0, 1))),
    "cloexec": (2, about("cloexec", anything, one(0, 1))),
    "flags": (1, about("flags", end_point, one(0, 1))),
    "channel": (1, by("channel", new, new)),
    "pipe": (0.5, by("pipe", new, new)),
    "pass": (3, pass_descriptor),
    "take": (3, about("take", lambda thing: bool(thing.carried), new)),
    "select": (1, select_some),
    "epoll": (1, by("epoll", new, one(0, 1))),
    "control": (4, control),
    "epoll_wait": (3, about("epoll_wait", kind("epoll"))),
    "fork": (2, by("fork", lambda g: g.child())),
    "vfork": (0.7, by("vfork", lambda g: g.child(), one(0, 1))),
    "spawn": (0.7, by("spawn", lambda g: g.child(), one(0, 1, 2, 3))),
    "thread": (1.5, by("thread", lambda g: g.child())),
    "exec": (0.7, by("exec", one(0, 1), one(0, 1, 2, 3))),
    "end": (2.5, end),
    "full": (1, by("full", one(0, 0, 1))),
    "storm": (1, by("storm", one(0, 1, 1), one(0, 1))),
    "exercise": (0.7, exercise),
    "forks": (0.4, by("forks", one(2, 4), one(2, 4), seed)),
    "threads": (0.4, by("threads", one(2, 4), one(2, 4), seed)),
    "pump": (1.5, pump),
    "wake": (1.5, wake),
    "herd": (1.5, herd),
}


def generate(seed: int, ops: int) -> list[Op]:
    """The same for the same seed, for ever."""
    return Generator(seed, ops).ops
