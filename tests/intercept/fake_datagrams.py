"""Sockets of datagrams of the fake service: one thread per socket takes what the program sends and puts it to the receivers.

Only what the library must get right is here: modes, headers, nudges and the calls around them. Every address of 10.77.0.0/24 and
fd77::/64 is this host.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import struct
import threading
from dataclasses import dataclass

BIND, CONNECT, GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, SHUTDOWN, IOCTL, SENDTO = 3, 5, 6, 7, 8, 9, 10, 11, 12
ADDRESS = struct.Struct("=HHII16s")
HEADER = struct.Struct("=BBBBHH16s16s")
INTERFACE = struct.Struct("=QIIIB3x16s6s2x28s4x")
HEADER_MAGIC = 0xD7
PEER, LOCAL, TTL, TOS, STAMP, STAMP_NS, ERROR = 1, 2, 4, 8, 16, 32, 128
FRAMED, BARE, FRAMED_CONNECTED = range(3)
MAPPED = bytes(10) + b"\xff\xff"
NETWORK = 0x8056C2E21C000001
IFF_LO, IFF_ETHERNET = 0x49, 0x1043
INTERFACE_NAME = b"ztfakefake"

#: Level and name of an option that asks for ancillary data, and the flag that delivers it.
WANTED = {
    (socket.IPPROTO_IP, 8): LOCAL,
    (socket.IPPROTO_IP, 12): TTL,
    (socket.IPPROTO_IP, 13): TOS,
    (socket.IPPROTO_IPV6, 49): LOCAL,
    (socket.IPPROTO_IPV6, 51): TTL,
    (socket.IPPROTO_IPV6, 66): TOS,
    (socket.SOL_SOCKET, 29): STAMP,
    (socket.SOL_SOCKET, 35): STAMP | STAMP_NS,
}

Where = tuple[bytes, int]
"""An address of 16 bytes, IPv4 as a mapped one, and a port."""


def host_of(family: int) -> bytes:
    return MAPPED + bytes([10, 77, 0, 1]) if family == socket.AF_INET else bytes.fromhex("fd77") + bytes(13) + b"\x01"


def unpack(data: bytes) -> Where | None:
    family, port, _scope, _flow, ip = ADDRESS.unpack(data)
    return None if family == 0 else (MAPPED + ip[:4] if family == socket.AF_INET else ip, port)


def pack(family: int, where: Where) -> bytes:
    ip, port = where
    if ip.startswith(MAPPED) and family == socket.AF_INET:
        return ADDRESS.pack(socket.AF_INET, port, 0, 0, ip[12:])
    return ADDRESS.pack(family, port, 0, 0, ip)


def is_any(ip: bytes) -> bool:
    return ip in (bytes(16), MAPPED + bytes(4))


def interfaces(first: int) -> tuple[bytes, int]:
    """lo, and the interface of the one network."""
    entries = [
        (0, 1, IFF_LO, 65536, 8, b"lo", bytes(6), ADDRESS.pack(socket.AF_INET, 0, 0, 0, bytes([127, 0, 0, 1]))),
        (0, 1, IFF_LO, 65536, 128, b"lo", bytes(6), ADDRESS.pack(socket.AF_INET6, 0, 0, 0, bytes(15) + b"\x01")),
    ]
    mac = bytes.fromhex("327700000001")
    for family, prefix in ((socket.AF_INET, 24), (socket.AF_INET6, 64)):
        ip = pack(family, (host_of(family), 0))
        entries.append((NETWORK, 2, IFF_ETHERNET, 2800, prefix, INTERFACE_NAME, mac, ip))
    some = entries[first : first + 3]  # fewer than fit: the library must ask again
    return b"".join(INTERFACE.pack(*entry) for entry in some), len(entries)


def ended(end: socket.socket) -> bool:
    """Has the program closed it, or shut it down for sending?"""
    poll = select.poll()
    poll.register(end, select.POLLRDHUP)
    return bool(poll.poll(0))


@dataclass
class Datagrams:
    """One socket. `end` is the service's end S."""

    cookie: int
    family: int
    kind: int
    protocol: int
    end: socket.socket
    shadow: socket.socket
    local: Where
    peer: Where | None = None
    wanted: int = 0
    error: int = 0
    shut: bool = False
    """By the program itself: the end of its pair is not its close."""

    @property
    def mode(self) -> int:
        return FRAMED if self.peer is None else FRAMED_CONNECTED if self.wanted else BARE


class FakeDatagrams:
    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self.sockets: dict[int, Datagrams] = {}
        self.port = itertools.count(50000)

    def adopt(self, cookie: int, family: int, kind: int, protocol: int, end: socket.socket) -> None:
        if protocol != socket.IPPROTO_UDP:
            raise OSError(errno.EACCES, "only UDP here")
        if end.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_SEQPACKET:
            raise OSError(errno.EINVAL, "not a pair for datagrams")
        # The program may share O_NONBLOCK of this end; every call says MSG_DONTWAIT.
        shadow = socket.socket(family, socket.SOCK_DGRAM)
        nowhere = MAPPED + bytes(4) if family == socket.AF_INET else bytes(16)
        made = Datagrams(cookie, family, kind, protocol, end, shadow, (nowhere, 0))
        self.sockets[cookie] = made
        threading.Thread(target=self.take, args=(made,), daemon=True).start()

    def take(self, sock: Datagrams) -> None:
        """What the program sends, until it closes or shuts down for sending."""
        poll = select.poll()
        poll.register(sock.end, select.POLLIN)
        while True:
            poll.poll()
            with self.lock:
                while (message := self.next_message(sock)) is not None:
                    self.send(sock, message)
                if not ended(sock.end):
                    continue
                if not sock.shut:
                    self.sockets.pop(sock.cookie, None)
                    sock.end.close()
                    sock.shadow.close()
                return

    @staticmethod
    def next_message(sock: Datagrams) -> bytes | None:
        """None when the program has sent nothing more. What it had not read when it closed is told first, and once."""
        for _ in range(2):
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                message, _control, _flags, _address = sock.end.recvmsg(1 << 17, 0, socket.MSG_DONTWAIT)
                return message if message or not ended(sock.end) else None
        return None

    # ---- delivery ----

    def send(self, sock: Datagrams, message: bytes) -> None:
        """A message of the pair, in the mode of the moment."""
        if sock.mode == BARE:
            assert sock.peer is not None
            self.deliver(sock, sock.peer, message, 64, 0)
            return
        if len(message) >= HEADER.size and message[0] == HEADER_MAGIC:
            self.send_framed(sock, message)

    def send_framed(self, sock: Datagrams, message: bytes) -> int:
        _magic, flags, ttl, tos, port, _interface, peer, _local = HEADER.unpack_from(message)
        payload = message[HEADER.size :]
        to = (peer, port) if flags & PEER else sock.peer
        if to is None:
            raise OSError(errno.EDESTADDRREQ, "no destination")
        if to[0] == MAPPED + b"\xff" * 4 and not sock.shadow.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST):
            raise OSError(errno.EACCES, "broadcast")
        self.deliver(sock, to, payload, ttl if flags & TTL else 64, tos if flags & TOS else 0)
        return len(payload)

    def living(self) -> list[Datagrams]:
        """Without those that were closed a moment ago."""
        return [one for one in self.sockets.values() if one.shut or not ended(one.end)]

    def deliver(self, sender: Datagrams, to: Where, payload: bytes, ttl: int, tos: int) -> None:
        self.choose_port(sender)
        ip = host_of(socket.AF_INET if to[0].startswith(MAPPED) else socket.AF_INET6)
        source = (sender.local[0] if not is_any(sender.local[0]) else ip, sender.local[1])
        found = [
            one
            for one in self.living()
            if one.local[1] == to[1]
            and (one.local[0] == to[0] or is_any(one.local[0]))
            and (one.peer is None or one.peer == source)
            and (one.family == socket.AF_INET6 or to[0].startswith(MAPPED))
        ]
        if not found and sender.peer == to:
            self.fail(sender, errno.ECONNREFUSED)
        for one in found[:1]:
            head = HEADER.pack(HEADER_MAGIC, PEER | one.wanted, ttl, tos, source[1], 2, source[0], to[0])
            self.put(one, payload if one.mode == BARE else head + payload)

    def put(self, sock: Datagrams, message: bytes) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            sock.end.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def fail(self, sock: Datagrams, error: int) -> None:
        if not sock.error:
            self.put(sock, b"" if sock.mode == BARE else HEADER.pack(HEADER_MAGIC, ERROR, 0, 0, 0, 0, bytes(16), bytes(16)))
        sock.error = error

    def choose_port(self, sock: Datagrams) -> None:
        if not sock.local[1]:
            sock.local = (sock.local[0], next(self.port))

    # ---- the queue of the program's end ----

    def requeue(self, sock: Datagrams, subject: socket.socket, before: int, drop_nudge: bool = False) -> None:
        """What is queued gets the form of the mode; `before` was the mode until now."""
        queued = []
        with contextlib.suppress(BlockingIOError):
            while True:
                poll = select.poll()
                poll.register(subject, select.POLLIN)
                if not poll.poll(0):
                    break
                message = subject.recv(1 << 17, socket.MSG_DONTWAIT)
                framed = before != BARE
                nudge = (
                    message[1] & ERROR if framed and len(message) >= HEADER.size else (not framed and not message and sock.error)
                )
                if nudge:
                    if drop_nudge:
                        drop_nudge = False
                        continue
                    message = b"" if sock.mode == BARE else HEADER.pack(HEADER_MAGIC, ERROR, 0, 0, 0, 0, bytes(16), bytes(16))
                elif framed and sock.mode == BARE:
                    message = message[HEADER.size :]
                elif not framed and sock.mode != BARE:
                    peer = sock.peer or (bytes(16), 0)
                    message = HEADER.pack(HEADER_MAGIC, PEER, 0, 0, peer[1], 2, peer[0], sock.local[0]) + message
                queued.append(message)
        for message in queued:
            self.put(sock, message)
        subject.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, sock.mode)

    # ---- operations ----

    def perform(self, cookie: int, operation: int, subject: socket.socket, args: tuple[int, ...], data: bytes) -> tuple[bytes, int]:
        sock = self.sockets[cookie]
        while operation == SENDTO and (message := self.next_message(sock)) is not None:
            self.send(sock, message)  # what was written before goes first
        match operation:
            case 3:
                self.bind(sock, unpack(data))
            case 5:
                before = sock.mode
                sock.peer = unpack(data)
                if sock.peer is not None:
                    self.choose_port(sock)
                    if is_any(sock.local[0]):
                        family = socket.AF_INET if sock.peer[0].startswith(MAPPED) else socket.AF_INET6
                        sock.local = (host_of(family), sock.local[1])
                self.requeue(sock, subject, before)
            case 6:
                return pack(sock.family, sock.local), 0
            case 7:
                if sock.peer is None:
                    raise OSError(errno.ENOTCONN, "not connected")
                return pack(sock.family, sock.peer), 0
            case 8:
                self.set_option(sock, subject, args, data)
            case 9:
                if (args[0], args[1]) != (socket.SOL_SOCKET, socket.SO_ERROR):
                    return sock.shadow.getsockopt(args[0], args[1], args[2]), 0
                error, had = sock.error, bool(sock.error)
                if had:
                    self.requeue(sock, subject, sock.mode, drop_nudge=True)
                sock.error = 0
                return struct.pack("=i", error), 0
            case 10:
                sock.shut = True
            case 12:
                return b"", self.send_framed(sock, data)
            case _:
                raise OSError(errno.EOPNOTSUPP, "operation")
        return b"", 0

    def bind(self, sock: Datagrams, wanted: Where | None) -> None:
        assert wanted is not None
        if sock.local[1]:
            raise OSError(errno.EINVAL, "bound")
        reuses = sock.shadow.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        if wanted[1] and not reuses and any(one.local == wanted for one in self.living()):
            raise OSError(errno.EADDRINUSE, "in use")
        sock.local = wanted
        self.choose_port(sock)

    def set_option(self, sock: Datagrams, subject: socket.socket, args: tuple[int, ...], data: bytes) -> None:
        sock.shadow.setsockopt(args[0], args[1], data)
        flag = WANTED.get((args[0], args[1]), 0)
        before = sock.mode
        number = int.from_bytes(data[:4], "little")
        sock.wanted = sock.wanted | flag if number else sock.wanted & ~flag
        if sock.mode != before:
            self.requeue(sock, subject, before)
