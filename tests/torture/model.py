"""What a script may do: the state of the kernel's world as far as a script can know it.

`World.apply` takes one operation, says whether it makes sense now and has a result that neither time nor a known difference
(docs/compatibility.md) decides, and if so appends the lines that perform it. So any sub-list of a script is a script, too: what
became impossible is left out, and the shrinker need not know more.

Operations are tuples `(name, actor, argument...)` of a string and integers, with slots for descriptors: numbers that are never used
twice.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

Op = tuple[str | int, ...]

#: Of a stream, that the script may leave unread, in one direction.
UNREAD_MAX = 3000
#: Of observations in one line.
WATCHED_MAX = 30
ACTORS_MAX = 12
PROCESSES_MAX = 5
DONTWAIT = socket.MSG_DONTWAIT
CLOSE_RANGE_CLOEXEC = 4
#: RLIMIT_NOFILE of a script that has one, and the descriptors of a process then: the library needs some for the time of a call.
LIMIT, LIMITED_MAX = 64, 50
EPOLL_BITS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP


#: What needs no descriptor, on our side either (docs/intercept.md), or fails for want of one on both.
WITH_FULL_TABLE = {
    "accept",
    "copy",
    "end",
    "epoll_wait",
    "flags",
    "fork",
    "full",
    "get",
    "kill",
    "name",
    "recv",
    "select",
    "send",
    "socket",
}


@dataclass(eq=False)
class Thing:
    """An open file description. `state` of streams: fresh, bound, listening, connected, failed, reset, spent (to be closed)."""

    kind: str
    state: str = "fresh"
    nonblock: bool = False
    label: int = -1  # the slot under whose number the port is known to all
    any: bool = False
    backlog: int = 0
    pending: list[Thing] = field(default_factory=list)  # the servers' ends of connections that nobody has accepted yet
    peer: Thing | None = None
    unread: int = 0
    ended: bool = False  # the peer's stream has ended
    shut_write: bool = False
    shut_read: bool = False
    lingers: bool = False
    closed: bool = False
    queue: list[tuple[int, int]] = field(default_factory=list)  # datagrams: length, label of the sender
    carried: list[Thing] = field(default_factory=list)  # a channel's descriptors on their way to this end
    members: dict[int, tuple[Thing, int]] = field(default_factory=dict)  # of an epoll set, by slot, with its number

    @property
    def is_open(self) -> bool:
        return self.kind == "stream" and self.state == "connected"

    @property
    def is_watched(self) -> bool:
        """Whether event bits of this are the same on both sides. Fresh and bound streams: docs/compatibility.md."""
        if self.kind == "stream":
            return self.state in ("connected", "listening", "reset")
        return self.kind in ("datagrams", "channel", "pipe")


@dataclass(eq=False)
class Handle:
    thing: Thing
    number: int
    cloexec: bool = False


@dataclass(eq=False)
class Process:
    handles: dict[int, Handle] = field(default_factory=dict)
    storm: bool = False
    full: bool = False  # the table of descriptors is
    loose: bool = False  # a storm's handler has used numbers while another thread ran: which are free, nobody knows
    actors: list[int] = field(default_factory=list)

    def free(self, start: int = 3) -> int:
        taken = {handle.number for handle in self.handles.values()}
        return next(number for number in range(start, 2000) if number not in taken)

    def lowest(self, count: int) -> list[int]:
        taken = {handle.number for handle in self.handles.values()}
        return [number for number in range(3, 2000) if number not in taken][:count]


class Illegal(Exception):
    """This operation makes no sense now, or what it gives is not the same every time."""


class World:
    """Apply operations in order; `lines` is then the script for torture.c."""

    def __init__(self) -> None:
        first = Process(actors=[0])
        self.actors: dict[int, Process] = {0: first}
        self.parents: dict[int, int] = {}
        self.used_actors = {0}
        self.used_slots: set[int] = set()
        self.labels: dict[int, Thing] = {}
        self.lines: list[str] = []
        self.after = 0
        self.limited = False
        self.applied: list[Op] = []

    # ---- what is there ----

    def processes(self) -> list[Process]:
        return list(dict.fromkeys(self.actors.values()))

    def thing(self, actor: int, slot: int, kind: str = "", *states: str) -> Thing:
        need(actor in self.actors and slot in self.actors[actor].handles)
        found = self.actors[actor].handles[slot].thing
        need(not kind or found.kind == kind)
        need(not states or found.state in states)
        return found

    def holders(self, thing: Thing) -> int:
        held = sum(handle.thing is thing for process in self.processes() for handle in process.handles.values())
        return held + sum(carried is thing for other in self.alive() for carried in other.carried)

    def alive(self) -> Iterator[Thing]:
        seen: set[int] = set()
        for process in self.processes():
            for handle in process.handles.values():
                if id(handle.thing) not in seen:
                    seen.add(id(handle.thing))
                    yield handle.thing

    # ---- what happens ----

    def add(self, actor: int, slot: int, thing: Thing, number: int, cloexec: bool = False) -> None:
        need(slot not in self.used_slots and 0 <= slot < 1000 and not self.actors[actor].full)
        need(not self.limited or number < LIMITED_MAX)
        self.used_slots.add(slot)
        self.actors[actor].handles[slot] = Handle(thing, number, cloexec)

    def drop(self, process: Process, slots: list[int]) -> None:
        things = [process.handles.pop(slot).thing for slot in slots]
        for thing in things:
            self.released(thing)

    def released(self, thing: Thing) -> None:
        if thing.closed or self.holders(thing):
            return
        thing.closed = True
        for other in self.alive():
            other.members = {slot: entry for slot, entry in other.members.items() if entry[0] is not thing}
        if thing.kind == "stream":
            for server in thing.pending:
                if server.peer is not None and not server.peer.closed:
                    self.reset(server.peer)
            peer = thing.peer
            if peer is not None and not peer.closed and thing.state in ("connected", "spent") and peer.state != "reset":
                if thing.unread or thing.lingers:
                    self.reset(peer)
                else:
                    peer.ended = True
        carried, thing.carried = thing.carried, []
        for one in carried:
            self.released(one)
        if thing.kind in ("channel", "pipe") and thing.peer is not None:
            thing.peer.state = "spent"

    def reset(self, thing: Thing) -> None:
        """A reset after the end of the stream is a known difference; and one of a connection that waits for accept is."""
        for listener in self.alive():
            if thing in listener.pending:
                thing.state = listener.state = "spent"
        thing.state = "spent" if thing.ended or thing.shut_read or thing.shut_write or thing.state == "spent" else "reset"

    def label(self, slot: int, thing: Thing) -> None:
        """All learn the port of `thing` by this number, which another thing must not have, here or in another process."""
        need(self.labels.get(slot) in (None, thing))
        self.labels[slot] = thing
        thing.label = slot

    # ---- lines ----

    def step(self, *lines: tuple[int | str, ...]) -> None:
        """Lines `(actor, name, argument...)` that are performed at the same time."""
        for actor, *rest in lines:
            self.lines.append(" ".join(str(word) for word in (self.after, actor, *rest)))
        self.after += len(lines)

    def observe(self) -> None:
        lines: list[tuple[int | str, ...]] = []
        for process in self.processes():
            watched = [(slot, handle.thing) for slot, handle in process.handles.items() if handle.thing.is_watched]
            words: list[int | str] = []
            for slot, thing in watched[-WATCHED_MAX:]:
                words += [slot, int(thing.is_open and not thing.shut_read)]
            if words:
                lines.append((process.actors[0], "observe", *words))
        if lines:
            self.step(*lines)

    def apply(self, op: Op) -> bool:
        """False: left out. The world is changed only by what is legal."""
        name, actor, *rest = op
        method = getattr(self, f"do_{name}")
        numbers = [int(word) for word in rest]
        try:
            need(int(actor) in self.actors)
            need(not self.actors[int(actor)].full or name in WITH_FULL_TABLE)
            method(int(actor), *numbers)
        except Illegal:
            return False
        self.applied.append(op)
        if name not in ("name", "get", "flags", "select", "epoll_wait"):
            self.observe()
        return True

    # ---- processes ----

    def _child(self, actor: int, child: int, survives_exec: bool) -> None:
        need(child not in self.used_actors and child < 60)
        need(len(self.processes()) < PROCESSES_MAX and len(self.actors) < ACTORS_MAX)
        process = self.actors[actor]
        made = Process(actors=[child])
        for slot, handle in process.handles.items():
            if not (survives_exec and handle.cloexec):
                made.handles[slot] = Handle(handle.thing, handle.number, handle.cloexec)
        made.loose, made.full = process.loose, process.full
        self.used_actors.add(child)
        self.actors[child] = made
        self.parents[child] = actor

    def do_fork(self, actor: int, child: int) -> None:
        self._child(actor, child, False)
        self.step((actor, "fork", child))

    def do_vfork(self, actor: int, child: int, how: int) -> None:
        self._child(actor, child, True)
        self.step((actor, "vfork", child, how))
        self.step((child, "survivors"))
        self._tell_loose(child)

    def do_spawn(self, actor: int, child: int, how: int) -> None:
        self._child(actor, child, True)
        self.step((actor, "spawn", child, how))
        self.step((child, "survivors"))
        self._tell_loose(child)

    def _tell_loose(self, actor: int) -> None:
        process = self.actors[actor]
        process.loose = process.loose or (process.storm and len(process.actors) > 1)
        if process.loose:
            self.step((actor, "loose"))

    def do_thread(self, actor: int, child: int) -> None:
        need(child not in self.used_actors and child < 60 and len(self.actors) < ACTORS_MAX)
        process = self.actors[actor]
        self.used_actors.add(child)
        self.actors[child] = process
        process.actors.append(child)
        self.parents[child] = actor
        self._tell_loose(actor)
        self.step((actor, "thread", child))

    def do_exec(self, actor: int, how: int, way: int) -> None:
        process = self.actors[actor]
        need(process.actors == [actor] and not process.storm)
        # Who started others could not wait for them after it: the table of children is gone.
        need(actor not in self.parents.values())
        self.step((actor, "exec", how, way))
        self.step((actor, "survivors"))
        self._tell_loose(actor)
        self.drop(process, [slot for slot, handle in process.handles.items() if handle.cloexec])

    def _ended(self, child: int) -> Process:
        need(child in self.actors and child != 0 and child not in self.parents.values())
        process = self.actors[child]
        need(process.actors[0] != child or len(process.actors) == 1)
        return process

    def _forget(self, child: int, process: Process) -> None:
        process.actors.remove(child)
        if not process.actors:
            # In the order of their numbers, as the kernel closes them.
            self.drop(process, sorted(process.handles, key=lambda slot: process.handles[slot].number))
        del self.actors[child], self.parents[child]

    def do_end(self, actor: int, child: int) -> None:
        process = self._ended(child)
        need(self.parents.get(child) == actor)
        self.step((child, "end", int(process.actors[0] != child)), (actor, "reap", child))
        self._forget(child, process)

    def do_kill(self, actor: int, child: int) -> None:
        process = self._ended(child)
        need(self.parents.get(child) == actor and process.actors == [child])
        self.step((actor, "kill", child))
        self._forget(child, process)

    def do_storm(self, actor: int, on: int, restart: int) -> None:
        process = self.actors[actor]
        need(process.storm != bool(on) and not self.limited)
        process.storm = bool(on)
        self._tell_loose(actor)
        self.step((actor, "storm", on, restart))

    def do_limit(self, actor: int) -> None:
        need(not self.applied)
        self.limited = True
        self.step((actor, "limit", LIMIT))

    def do_full(self, actor: int, full: int) -> None:
        process = self.actors[actor]
        need(self.limited and process.actors == [actor] and process.full != bool(full))
        process.full = bool(full)
        self.step((actor, "full", 0) if full else (actor, "empty"))

    # ---- descriptors ----

    def do_close(self, actor: int, slot: int) -> None:
        self.thing(actor, slot)
        self.step((actor, "close", slot))
        self.drop(self.actors[actor], [slot])

    def do_copy(self, actor: int, slot: int, new: int, how: int) -> None:
        process = self.actors[actor]
        thing = self.thing(actor, slot)
        if self.actors[actor].full:
            need(how < 2 and new not in self.used_slots)
        elif how < 2:
            number = process.free(3 if how == 0 else 20)
            self.add(actor, new, thing, number, how == 1)
        else:
            need(new in process.handles and new != slot)
            old = process.handles[new]
            process.handles[new] = Handle(thing, old.number, how == 3)
            self.released(old.thing)
        self.step((actor, "copy", slot, new, how))

    def do_range(self, actor: int, first: int, last: int, flags: int) -> None:
        process = self.actors[actor]
        low, high = 3, 1 << 30
        if first >= 0:
            self.thing(actor, first)
            self.thing(actor, last)
            need(not process.loose)
            low, high = sorted((process.handles[first].number, process.handles[last].number))
        else:
            need(not process.storm and last < 0)
        hit = [slot for slot, handle in process.handles.items() if low <= handle.number <= high]
        self.step((actor, "range", first, last, flags))
        if flags:
            for slot in hit:
                process.handles[slot].cloexec = True
        else:
            self.drop(process, sorted(hit, key=lambda slot: process.handles[slot].number))

    def do_nonblock(self, actor: int, slot: int, on: int) -> None:
        self.thing(actor, slot, "stream").nonblock = bool(on)
        self.step((actor, "nonblock", slot, on))

    def do_cloexec(self, actor: int, slot: int, on: int) -> None:
        self.thing(actor, slot)
        self.actors[actor].handles[slot].cloexec = bool(on)
        self.step((actor, "cloexec", slot, on))

    def do_flags(self, actor: int, slot: int, which: int) -> None:
        self.thing(actor, slot)
        self.step((actor, "flags", slot, which))

    def do_channel(self, actor: int, one: int, other: int) -> None:
        left, right = Thing("channel"), Thing("channel")
        left.peer, right.peer = right, left
        numbers = self.actors[actor].lowest(2)
        need(one != other and not {one, other} & self.used_slots)
        self.add(actor, one, left, numbers[0])
        self.add(actor, other, right, numbers[1])
        self.step((actor, "channel", one, other))

    def do_pipe(self, actor: int, one: int, other: int) -> None:
        left, right = Thing("pipe"), Thing("pipe")
        left.peer, right.peer = right, left
        numbers = self.actors[actor].lowest(2)
        need(one != other and not {one, other} & self.used_slots)
        self.add(actor, one, left, numbers[0])
        self.add(actor, other, right, numbers[1])
        self.step((actor, "pipe", one, other))

    def do_pass(self, actor: int, channel: int, slot: int) -> None:
        way = self.thing(actor, channel, "channel", "fresh")
        thing = self.thing(actor, slot)
        need(thing.kind != "channel" and thing.kind != "epoll" and way.peer is not None and len(way.peer.carried) < 4)
        assert way.peer is not None
        way.peer.carried.append(thing)
        self.step((actor, "pass", channel, slot))

    def do_take(self, actor: int, channel: int, new: int) -> None:
        way = self.thing(actor, channel, "channel")
        need(bool(way.carried))
        self.add(actor, new, way.carried[0], self.actors[actor].free())
        way.carried.pop(0)
        self.step((actor, "take", channel, new))

    # ---- sockets ----

    def do_socket(self, actor: int, slot: int, kind: int, flags: int) -> None:
        thing = Thing("datagrams" if kind else "stream", nonblock=bool(flags & 1))
        if not self.actors[actor].full:
            self.add(actor, slot, thing, self.actors[actor].free(), bool(flags & 2))
        self.step((actor, "socket", slot, kind, flags))

    def do_bind(self, actor: int, slot: int, any_address: int, other: int) -> None:
        thing = self.thing(actor, slot)
        need(thing.kind in ("stream", "datagrams") and thing.state == "fresh")
        if other >= 0:  # in use
            there = self.labels.get(other)
            need(there is not None and not there.closed and there.kind == thing.kind and there.state in ("bound", "listening"))
        else:
            self.label(slot, thing)
            thing.state, thing.any = "bound", bool(any_address)
        self.step((actor, "bind", slot, any_address, other))

    def do_listen(self, actor: int, slot: int, backlog: int) -> None:
        thing = self.thing(actor, slot, "stream", "fresh", "bound", "listening")
        need(len(thing.pending) <= backlog)
        self.label(slot, thing)
        if thing.state == "fresh":
            thing.any = True
        thing.state, thing.backlog = "listening", backlog
        self.step((actor, "listen", slot, backlog))

    def do_connect(self, actor: int, slot: int, label: int) -> None:
        there = self.labels.get(label)
        need(there is not None and not there.closed)
        assert there is not None
        thing = self.thing(actor, slot)
        need(thing is not there and there.kind == thing.kind)
        if thing.kind == "datagrams":
            need(thing.state == "bound" and there.state == "bound" and not thing.any and not thing.queue)
            need(self.labels.get(slot) in (None, thing))
            thing.peer = there
        else:
            # A socket that failed gets another in its place, and other processes keep the dead one (docs/intercept.md).
            own = sum(handle.thing is thing for handle in self.actors[actor].handles.values())
            need(thing.state in ("fresh", "bound") or (thing.state == "failed" and self.holders(thing) == own))
            need(not any(entry[0] is thing for other in self.alive() for entry in other.members.values()))
            need(self.labels.get(slot) in (None, thing))
            if there.state == "listening":
                need(len(there.pending) < there.backlog)
                need(not thing.nonblock or thing.state != "failed")
                server = Thing("stream", "connected", label=-1, peer=thing)
                thing.peer, thing.state = server, "connected"
                there.pending.append(server)
            else:
                # A signal would make it an asynchronous one, after whose failure the kernel says ECONNABORTED once.
                need(there.state == "bound" and not thing.nonblock and not self.actors[actor].storm)
                thing.state = "failed"
        self.label(slot, thing)
        self.step((actor, "connect", slot, label))

    def do_accept(self, actor: int, slot: int, new: int, flags: int) -> None:
        listener = self.thing(actor, slot, "stream", "listening")
        need(listener.nonblock or bool(listener.pending))
        if listener.pending and not self.actors[actor].full:
            server = listener.pending[0]
            # Its address is said by the label of the client, which has it for as long as no other socket has its port.
            cloexec = bool(flags & 2) and not flags & 4
            self.add(actor, new, server, self.actors[actor].free(), cloexec)
            listener.pending.pop(0)
            server.nonblock = bool(flags & 1) and not flags & 4
            server.label = listener.label
        self.step((actor, "accept", slot, new, flags))

    def do_send(self, actor: int, slot: int, length: int, seed: int, how: int, flags: int, label: int) -> None:
        thing = self.thing(actor, slot)
        if thing.kind == "datagrams":
            need(thing.state == "bound" and length <= 1400 and not self.actors[actor].full)
            there = thing.peer if label < 0 else self.labels.get(label)
            need(there is not None and not there.closed and there.kind == "datagrams" and there.state == "bound")
            assert there is not None
            need(label < 0 or how <= 2)
            need(thing.peer is None or label < 0)  # what an address does on a connected socket is the differential suite's
            need(len(there.queue) < 8)
            if there.peer is None or there.peer is thing:
                there.queue.append((length, thing.label))
        else:
            need(thing.kind == "stream" and label < 0 and length > 0)
            peer = thing.peer
            if thing.is_open and peer is not None:
                need(not peer.closed and not thing.shut_write and not peer.shut_read and peer.state != "spent")
                need(peer.unread + length <= UNREAD_MAX)
                peer.unread += length
            else:
                raise Illegal
        self.step((actor, "send", slot, length, seed, how, flags, label))

    def do_recv(self, actor: int, slot: int, length: int, how: int, flags: int, address: int) -> None:
        thing = self.thing(actor, slot)
        dontwait = thing.nonblock or (flags & DONTWAIT and how <= 2)
        if thing.kind == "datagrams":
            need(thing.state == "bound" and length > 0)
            need(bool(thing.queue) or bool(dontwait))
            # read sees a header on a socket that is not connected (docs/intercept.md).
            need(how <= 2 or thing.peer is not None)
            need(not flags & socket.MSG_WAITALL)
            if thing.queue and not flags & socket.MSG_PEEK:
                thing.queue.pop(0)
        else:
            need(thing.kind == "stream" and thing.state in ("connected", "reset"))
            there = thing.unread > 0 or thing.ended or thing.shut_read or thing.state == "reset"
            need(there or bool(dontwait))
            if flags & socket.MSG_WAITALL and how <= 2:
                need(bool(dontwait) or thing.unread >= length or thing.ended)
                need(not flags & socket.MSG_PEEK)
            if thing.state == "reset" and thing.unread == 0:
                thing.state = "spent"
            if how > 2 or not flags & socket.MSG_PEEK:
                thing.unread -= min(length, thing.unread)
        self.step((actor, "recv", slot, length, how, flags, address))

    def do_shutdown(self, actor: int, slot: int, how: int) -> None:
        thing = self.thing(actor, slot, "stream", "connected")
        peer = thing.peer
        need(peer is not None and how in (socket.SHUT_RD, socket.SHUT_WR))
        assert peer is not None
        if how == socket.SHUT_RD:
            need(thing.unread == 0 and not thing.shut_write)
            thing.shut_read = True
        else:
            need(not thing.shut_write and not thing.shut_read and not peer.closed)
            # Both ends of the stream together look like a close, which resets here.
            need(not (thing.ended and (thing.lingers or peer.lingers)))
            thing.shut_write = True
            peer.ended = True
        self.step((actor, "shutdown", slot, how))

    def do_name(self, actor: int, slot: int, peer: int) -> None:
        thing = self.thing(actor, slot)
        need(thing.kind in ("stream", "datagrams") and thing.state in ("fresh", "bound", "listening", "connected"))
        need(not self.actors[actor].full or (thing.kind == "stream" and thing.state in ("listening", "connected")))
        if thing.kind == "stream" and thing.state == "connected":
            need(not (thing.ended and (thing.shut_write or thing.shut_read)))
        self.step((actor, "name", slot, peer))

    def do_get(self, actor: int, slot: int, option: int) -> None:
        thing = self.thing(actor, slot)
        need(thing.kind in ("stream", "datagrams") and thing.state in ("fresh", "bound", "listening", "connected"))
        need(thing.kind == "stream" or option != 7)
        need(not self.actors[actor].full or (thing.kind == "stream" and option <= 4))
        self.step((actor, "get", slot, option))

    def do_set(self, actor: int, slot: int, option: int, value: int) -> None:
        thing = self.thing(actor, slot, "stream", "connected")
        if option < 0:
            need(not (thing.shut_write and thing.ended))
            thing.lingers = True
        self.step((actor, "set", slot, option, value))

    # ---- looking ----

    def do_select(self, actor: int, *slots: int) -> None:
        for slot in slots:
            need(self.thing(actor, slot).is_watched)
        self.step((actor, "select", *slots))

    def do_epoll(self, actor: int, slot: int, cloexec: int) -> None:
        self.add(actor, slot, Thing("epoll"), self.actors[actor].free(), bool(cloexec))
        self.step((actor, "epoll", slot, cloexec))

    def do_control(self, actor: int, slot: int, member: int, what: int, events: int) -> None:
        """`what`: 1 adds, 2 takes out, 3 changes. A set knows descriptions by number: the same under another number is another."""
        group = self.thing(actor, slot, "epoll")
        thing = self.thing(actor, member)
        need(thing.is_watched and events & ~EPOLL_BITS == 0)
        number = self.actors[actor].handles[member].number
        key = next((known for known, entry in group.members.items() if entry == (thing, number)), None)
        if what == 1:
            if key is None:
                need(member not in group.members)
                group.members[member] = (thing, number)
        elif what == 2:
            if key is not None:
                del group.members[key]
        elif key is not None and key != member:  # told by another name from now on
            need(member not in group.members)
            group.members[member] = group.members.pop(key)
        self.step((actor, "control", slot, member, what, events))

    def do_epoll_wait(self, actor: int, slot: int) -> None:
        group = self.thing(actor, slot, "epoll")
        need(all(thing.is_watched for thing, _ in group.members.values()))
        self.step((actor, "epoll_wait", slot))

    # ---- many at the same time ----

    def do_exercise(self, actor: int, turns: int, seed: int, *others: int) -> None:
        crowd = [actor, *others]
        need(len(set(crowd)) == len(crowd) and all(other in self.actors and not self.actors[other].full for other in others))
        self.step(*((one, "exercise", turns, seed + one) for one in crowd))

    def do_forks(self, actor: int, count: int, turns: int, seed: int) -> None:
        # A child of many threads may only do what signal handlers may.
        need(len(self.actors[actor].actors) == 1 and not self.actors[actor].storm)
        self.step((actor, "forks", count, turns, seed))

    def do_threads(self, actor: int, count: int, turns: int, seed: int) -> None:
        self.step((actor, "threads", count, turns, seed))

    def do_pump(self, actor: int, slot: int, other: int, there: int, length: int, seed: int, third: int) -> None:
        need(other in self.actors and other != actor)
        thing, peer = self.thing(actor, slot, "stream", "connected"), self.thing(other, there, "stream", "connected")
        need(thing.peer is peer and not thing.shut_write and not peer.shut_read and peer.unread == 0 and not peer.closed)
        lines: list[tuple[int | str, ...]] = [(actor, "pump", slot, length, seed), (other, "drain", there, length, seed)]
        if third >= 0:
            need(third in self.actors and third not in (actor, other) and not self.actors[third].full)
            need(slot in self.actors[third].handles)
            need(self.actors[third].handles[slot].thing is thing)
            lines.append((third, "copies", slot, 100))
        self.step(*lines)

    def do_wake(self, actor: int, slot: int, other: int, there: int, length: int, seed: int, how: int) -> None:
        """`actor` waits in a call for what `other` sends."""
        need(other in self.actors and other != actor)
        thing, peer = self.thing(actor, slot, "stream", "connected"), self.thing(other, there, "stream", "connected")
        need(thing.peer is peer and not thing.nonblock and not peer.shut_write and not thing.shut_read and thing.unread == 0)
        need(how > 0 or length < UNREAD_MAX)
        send = (other, "send", there, length, seed, 0, 0, -1)
        if how == 0:
            self.step((actor, "recv", slot, length, 0, socket.MSG_WAITALL, 0), send)
        else:
            thing.unread += length
            self.step((actor, "await", slot, select.POLLIN), send)

    def do_herd(self, actor: int, label: int, count: int, at_once: int, how: int, *servers: int) -> None:
        listener = self.labels.get(label)
        need(listener is not None and not listener.closed and listener.state == "listening")
        assert listener is not None
        need(not listener.pending and listener.backlog >= at_once and (how > 0 or not listener.nonblock))
        need(bool(servers) and actor not in servers and len(set(servers)) == len(servers))
        lines: list[tuple[int | str, ...]] = [(actor, "visit", label, count * len(servers), at_once)]
        for server in servers:
            need(server in self.actors and not self.actors[server].full)
            slot = next((slot for slot, handle in self.actors[server].handles.items() if handle.thing is listener), -1)
            need(slot >= 0)
            lines.append((server, "serve", slot, count, how))
        self.step(*lines)

    # ---- the end ----

    def finish(self) -> None:
        """Everybody ends, leaves first."""
        for process in self.processes():
            self.apply(("full", process.actors[0], 0))
            self.apply(("storm", process.actors[0], 0, 0))
        while len(self.actors) > 1:
            for child in reversed(list(self.actors)):
                if self.apply(("end", self.parents.get(child, -1), child)):
                    break
            else:
                raise AssertionError("nobody can end")
        self.step((0, "end", 0))


def need(condition: bool) -> None:
    if not condition:
        raise Illegal


def build(ops: list[Op]) -> World:
    """The script that performs the legal ones of `ops`."""
    world = World()
    for op in ops:
        world.apply(op)
    world.finish()
    return world
