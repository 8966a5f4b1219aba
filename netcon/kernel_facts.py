"""The facts about the kernel that the intercept library and the service rely on (intercept.md), tried out on this kernel.

Each takes some microseconds, needs no privilege and leaves nothing behind. A sandbox (seccomp, a container's filter) may make one
fail that the kernel itself would let pass.
"""

from __future__ import annotations

import mmap
import os
import secrets
import select
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

_SO_COOKIE = 57


class Fact(NamedTuple):
    """`problem` is empty if it holds. Without one that is not `needed` there is another way."""

    what: str
    problem: str
    needed: bool


def _pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise OSError(0, problem)


def _names() -> None:
    ours, theirs = _pair()
    name = b"\0netcon-doctor-" + secrets.token_hex(8).encode()
    with ours, theirs:
        theirs.bind(name)
        _require(ours.getpeername() == name, "the name of the other end cannot be read")
        theirs.close()
        _require(ours.getpeername() == name, "the name of an end is gone once it is closed")


def _cookies() -> None:
    ours, theirs = _pair()
    with ours, theirs, ours.dup() as copy:
        first, again, other = (end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) for end in (ours, copy, theirs))
        _require(first == again and first != other, "SO_COOKIE does not identify a socket")


def _passing() -> None:
    ours, theirs = _pair(socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [ours.fileno()])
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        same = [os.fstat(descriptor).st_ino == os.fstat(ours.fileno()).st_ino for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        _require(same == [True], "a descriptor that was passed does not arrive")


def _mode() -> None:
    ours, theirs = _pair(socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 1)
        _require(ours.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 1, "SO_PRIORITY of a pair is not kept")


def _filling() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        poll = select.poll()
        poll.register(ours, select.POLLOUT)
        try:
            while True:
                ours.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        _require(not poll.poll(0), "a full pair is writable")
        while len(theirs.recv(65536)) == 65536:
            pass
        _require(bool(poll.poll(0)), "an empty pair is not writable")


def _reset() -> None:
    ours, theirs = _pair()
    with ours:
        ours.send(b"x")
        theirs.close()
        try:
            ours.recv(1)
        except ConnectionResetError:
            return
        _require(False, "closing an end with unread data is not seen as a reset")


def _limits() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 1, 0))
        _require(ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == struct.pack("@ll", 1, 0), "SO_SNDTIMEO is not kept")


def _executable_memory() -> None:
    descriptor = os.memfd_create("netcon-doctor", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        os.close(descriptor)


_FACTS: tuple[tuple[str, Callable[[], None], bool], ...] = (
    ("names of socket pairs can be bound, and read after the end is closed", _names, True),
    ("SO_COOKIE identifies a socket", _cookies, True),
    ("descriptors can be passed (SCM_RIGHTS)", _passing, True),
    ("SO_PRIORITY of a pair can hold a mode", _mode, True),
    ("a full pair is not writable, an empty one is", _filling, True),
    ("an end closed with unread data is a reset", _reset, True),
    ("time limits of a pair are kept", _limits, True),
    ("anonymous memory files can be executed (memfd)", _executable_memory, False),
)


def check() -> list[Fact]:
    """Tries all of them."""
    result = []
    for what, try_out, needed in _FACTS:
        problem = ""
        try:
            try_out()
        except OSError as error:
            problem = error.strerror or str(error)
        result.append(Fact(what, problem, needed))
    return result


def seccomp_mode() -> int:
    """Of this process: 0 none, 1 strict, 2 a filter. -1 if the kernel does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("Seccomp:")), -1)
    except OSError:
        return -1
