"""A socket service without a network, for tests of the intercept library alone.

It speaks socket_rpc.h and joins the pair of a connecting program with the pair of a listening one by two copying threads; there
is no stack, no address is ever unreachable, and options are kept by a socket of the kernel per program socket. Datagrams are in
fake_datagrams.py. What it does at
each step is what include/netcon/socket_rpc.h and the design ask of the real server, in the plainest form.

    python tests/intercept/fake_service.py PATH      serves until its standard input ends; prints READY
"""

from __future__ import annotations

import array
import base64
import contextlib
import errno
import fcntl
import itertools
import os
import select
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field

from fake_datagrams import FakeDatagrams, interfaces

MAGIC, VERSION = 0x4E43, 1
TO_HOST = 4096  # NETCON_RPC_TO_HOST
HELLO, SOCKET, BIND, LISTEN, CONNECT, GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, SHUTDOWN, IOCTL, SENDTO, INTERFACES = range(
    1, 14
)
RESOLVE, RESOLVE_ADDRESS, RESOLVE_FOUND = 16, 2, 0
NAMELESS = socket.inet_aton("10.77.0.98")  # found, under an empty name
POSTED = 1
REQUEST = struct.Struct("=HHHHQQHHHH4iII")
REPLY = struct.Struct("=HHHHiiI")
ADDRESS = struct.Struct("=HHII16s")
NAME_PROGRAM = struct.Struct("=QQHHHH")
NAME_SERVICE = struct.Struct("=QIiHHHH16s16s")
ACCEPT_MAGIC = 0x4E43414343455054
SO_COOKIE = 57
SO_OOBINLINE = 10
PROGRAM_SEND_BUFFER = 212992
NETWORK = 0x8056C2E21C000001
BLACK_HOLE = b"\x0a\x4d\x00\x63".ljust(16, b"\0")
"""10.77.0.99: a connection there neither succeeds nor fails."""

Endpoint = tuple[int, bytes, int]
"""Family, address (16 bytes), port."""


def is_loopback(ip: bytes, address: bytes = b"") -> bool:
    """Of an address that starts with its family, or of 16 bytes alone, where IPv4 is mapped."""
    if address[:2] == struct.pack("=H", socket.AF_INET):
        return ip[0] == 127
    return ip[:16] == bytes(15) + b"\1" or ip[:13] == bytes(10) + b"\xff\xff\x7f"


def cookie_of(end: socket.socket) -> int:
    return int(struct.unpack("=Q", end.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def name_of(kind: str, packed: bytes) -> bytes:
    return b"\0znc1" + kind.encode() + base64.urlsafe_b64encode(packed).rstrip(b"=")


def fill(end: socket.socket) -> int:
    """Makes a program's end not writable: the smallest buffer, full to the last byte. Returns how many bytes that took."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    filled = 0
    for size in (256, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += end.send(bytes(size), socket.MSG_DONTWAIT)
    return filled


def drain(end: socket.socket, limit: int = 1 << 30) -> None:
    """Discards what is queued, at most `limit`: behind the filler there may already be the program's first bytes."""
    with contextlib.suppress(BlockingIOError):
        while limit > 0 and (data := end.recv(min(limit, 65536), socket.MSG_DONTWAIT)):
            limit -= len(data)


def has_ended(end: socket.socket | None) -> bool:
    poll = select.poll()
    poll.register(end or -1, select.POLLRDHUP)
    return bool(poll.poll(0))


@dataclass
class Program:
    """One socket of a program. `end` is the service's end S, None after a failed attempt."""

    cookie: int
    family: int
    end: socket.socket | None
    shadow: socket.socket
    local: Endpoint
    state: str = "fresh"
    waiting: list[socket.socket] = field(default_factory=list)


class FakeService:
    """All sockets of all programs, under one lock."""

    datagrams: FakeDatagrams

    def __init__(self) -> None:
        self.service, self.epoch = 0x1122334455667788, int.from_bytes(os.urandom(8), "big")
        self.lock = threading.RLock()
        self.sockets: dict[int, Program] = {}
        self.listeners: dict[tuple[bytes, int], Program] = {}
        self.bound: dict[tuple[bytes, int], Program] = {}
        self.serial = itertools.count(1)
        self.port = itertools.count(40000)
        self.datagrams = FakeDatagrams(self.lock)
        self.watched: dict[int, Program] = {}
        self.poll = select.epoll()
        threading.Thread(target=self.watch, daemon=True).start()

    # ---- life and death of ends ----

    def watch(self) -> None:
        while True:
            for number, events in self.poll.poll():
                with self.lock:
                    program = self.watched.get(number)
                    # The number may be another socket's by now.
                    if program is not None and events and has_ended(program.end):
                        self.drop(program)

    def watch_end(self, program: Program) -> None:
        assert program.end is not None
        self.watched[program.end.fileno()] = program
        self.poll.register(program.end, select.EPOLLRDHUP)

    def unwatch(self, program: Program) -> None:
        if program.end is not None and self.watched.pop(program.end.fileno(), None) is not None:
            self.poll.unregister(program.end)

    def drop(self, program: Program) -> None:
        """The program closed its end."""
        self.unwatch(program)
        for table in (self.listeners, self.bound):
            for key in [key for key, holder in table.items() if holder is program]:
                del table[key]
        self.sockets.pop(program.cookie, None)
        program.shadow.close()
        if program.end is not None:
            program.end.close()

    def make_pair(self, family: int, *, named: bool = True) -> tuple[socket.socket, Program]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        cookie = cookie_of(theirs)
        if named:
            packed = NAME_PROGRAM.pack(self.service, cookie, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, 0)
            theirs.bind(name_of("P", packed))
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PROGRAM_SEND_BUFFER)
        return theirs, self.adopt(cookie, family, ours)

    def adopt(self, cookie: int, family: int, end: socket.socket) -> Program:
        end.setblocking(True)  # it may come from a program that asked for a non-blocking pair; the copying threads wait
        end.setsockopt(socket.SOL_SOCKET, SO_OOBINLINE, 1)
        end.setblocking(True)  # made by a non-blocking program, it would not be
        program = Program(cookie, family, end, socket.socket(family, socket.SOCK_STREAM), (family, bytes(16), 0))
        self.sockets[cookie] = program
        self.watch_end(program)
        return program

    def give_name(self, program: Program, kind: str, remote: Endpoint, error: int = 0) -> None:
        assert program.end is not None
        family, address, port = program.local
        packed = NAME_SERVICE.pack(
            next(self.serial), self.epoch & 0xFFFFFFFF, error, family, port, remote[2], 0, address, remote[1].ljust(16, b"\0")
        )
        program.end.bind(name_of(kind, packed))

    # ---- operations ----

    def local_for(self, program: Program) -> None:
        if program.local[2] == 0:
            program.local = (program.local[0], program.local[1], next(self.port))
        if program.local[1] == bytes(16):
            host = b"\x0a\x4d\x00\x01" if program.family == socket.AF_INET else b"\xfd\x77" + bytes(13) + b"\x01"
            program.local = (program.family, host.ljust(16, b"\0"), program.local[2])

    def bind(self, program: Program, wanted: Endpoint) -> None:
        if program.local[2] or program.state != "fresh":
            raise OSError(errno.EINVAL, "bound")
        family, address, port = wanted
        port = port or next(self.port)
        reuses = program.shadow.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        if (address, port) in self.listeners or ((address, port) in self.bound and not reuses):
            raise OSError(errno.EADDRINUSE, "in use")
        self.bound[address, port] = program
        program.local = (family, address, port)

    def listen(self, program: Program, subject: socket.socket) -> socket.socket | None:
        """Returns the new end for the program if the old one is spent."""
        fresh = None
        if program.state == "listening":
            return None
        if program.state == "shut":
            local = program.local
            fresh, program = self.make_pair(program.family)
            subject, program.local = fresh, local
        if program.state != "fresh":
            raise OSError(errno.EINVAL, "connected")
        if program.local[2] == 0:
            program.local = (program.family, program.local[1], next(self.port))
        fill(subject)
        self.give_name(program, "L", (program.family, bytes(16), 0))
        program.state = "listening"
        self.listeners[program.local[1], program.local[2]] = program
        return fresh

    def shut(self, program: Program) -> None:
        assert program.end is not None
        program.end.shutdown(socket.SHUT_WR)  # whoever waits in accept reads the end of file
        self.listeners.pop((program.local[1], program.local[2]), None)
        program.state = "shut"

    def connect(self, program: Program, subject: socket.socket, wanted: Endpoint) -> socket.socket | None:
        """Starts; returns the new end for the program if the old one is spent. Raises EINPROGRESS when it has started."""
        fresh = None
        if program.state == "connected":
            raise OSError(errno.EISCONN, "connected")
        if program.state == "connecting":
            raise OSError(errno.EALREADY, "connecting")
        if program.state == "listening":
            raise OSError(errno.EISCONN, "listening")
        if program.state == "failed":
            fresh, program = self.make_pair(program.family)
            subject = fresh
        assert program.end is not None
        drain(program.end)
        kept = socket.socket(fileno=os.dup(subject.fileno()))  # its own dup() would change the shared O_NONBLOCK
        filled = fill(kept)
        program.state = "connecting"
        self.local_for(program)
        threading.Thread(target=self.finish_connect, args=(program, kept, filled, wanted), daemon=True).start()
        return fresh

    def finish_connect(self, program: Program, kept: socket.socket, filled: int, wanted: Endpoint) -> None:
        _family, address, port = wanted
        if address == BLACK_HOLE:
            kept.close()
            return
        with self.lock:
            listener = self.listeners.get((address, port)) or self.listeners.get((bytes(16), port))
            self.unwatch(program)
            assert program.end is not None
            if listener is None:
                program.state = "failed"
                self.give_name(program, "F", wanted, errno.ECONNREFUSED)
                program.end.close()
                program.end = None
                kept.close()
                return
            theirs, accepted = self.make_pair(listener.family, named=False)  # who takes the record names it
            self.unwatch(accepted)
            accepted.state = program.state = "connected"
            accepted.local = (listener.family, address, port)
            self.give_name(accepted, "C", program.local)
            assert accepted.end is not None
            assert listener.end is not None
            self.give_name(program, "C", wanted)
            drain(program.end, filled)
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PROGRAM_SEND_BUFFER)
            kept.close()
            record = struct.pack("=Q", ACCEPT_MAGIC) + ADDRESS.pack(program.local[0], program.local[2], 0, 0, program.local[1])
            socket.send_fds(listener.end, [record.ljust(64, b"\0")], [theirs.fileno()])
            theirs.close()
        done = threading.Barrier(2, action=lambda: self.finish(program, accepted))
        for one, other in ((program.end, accepted.end), (accepted.end, program.end)):
            threading.Thread(target=self.copy, args=(one, other, done), daemon=True).start()

    def finish(self, *programs: Program) -> None:
        with self.lock:
            for program in programs:
                self.drop(program)

    @staticmethod
    def copy(one: socket.socket, other: socket.socket, done: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        done.wait()

    def perform(self, operation: int, program: Program, args: tuple[int, ...], data: bytes) -> bytes:
        """The operations that answer with data."""
        match operation:
            case 3:
                family, port, _scope, _flow, address = ADDRESS.unpack(data)
                self.bind(program, (family, address, port))
            case 6:
                return ADDRESS.pack(program.local[0], program.local[2], 0, 0, program.local[1])
            case 8:
                program.shadow.setsockopt(args[0], args[1], data)
            case 9:
                return program.shadow.getsockopt(args[0], args[1], args[2])
            case 10:
                self.shut(program)
            case 11:
                if args[0] not in (0x5411, 0x8905):
                    raise OSError(errno.EOPNOTSUPP, "ioctl")
                return struct.pack("=i", 0)
            case _:
                raise OSError(errno.EOPNOTSUPP, "operation")
        return b""

    # ---- RPC ----

    def handle(self, message: bytes, passed: list[int]) -> None:
        magic, version, operation, flags, _network, cookie, family, kind, protocol, _status, *rest = REQUEST.unpack_from(message)
        data, args = message[REQUEST.size :], tuple(rest[:4])
        assert (magic, version) == (MAGIC, VERSION)
        assert len(data) == rest[4]
        reply_end = socket.socket(fileno=passed.pop()) if not flags & POSTED else None
        subject = socket.socket(fileno=passed.pop()) if passed else None
        error, value, answer, descriptor = 0, 0, b"", None
        try:
            with self.lock:
                if operation == HELLO:
                    answer = struct.pack("=QQQ", self.service, self.epoch, NETWORK)
                elif operation == SOCKET:
                    assert subject is not None
                    expected = name_of("P", NAME_PROGRAM.pack(self.service, cookie, family, kind, protocol, 0))
                    if subject.getpeername() != expected:
                        raise OSError(errno.EBADF, "forged")
                    if kind == socket.SOCK_STREAM:
                        self.adopt(cookie, family, subject)
                    else:
                        self.datagrams.adopt(cookie, family, kind, protocol, subject)
                    subject = None
                elif operation == INTERFACES:
                    answer, value = interfaces(args[0])
                elif cookie in self.datagrams.sockets:
                    assert subject is not None
                    if cookie_of(subject) != cookie:
                        raise OSError(errno.EBADF, "not ours")
                    if (operation in (BIND, CONNECT) and is_loopback(data[12:], data)) or (
                        operation == SENDTO and data[1] & 1 and is_loopback(data[8:24])
                    ):
                        raise OSError(TO_HOST, "the host's")
                    answer, value = self.datagrams.perform(cookie, operation, subject, args, data)
                elif operation == RESOLVE and args[0] == RESOLVE_ADDRESS and NAMELESS in data:
                    answer, value = bytes(8), RESOLVE_FOUND  # struct netcon_resolve_reply: no addresses, no name
                elif operation == RESOLVE:
                    raise OSError(errno.EOPNOTSUPP, "no names")
                else:
                    assert subject is not None
                    program = self.sockets.get(cookie)
                    if program is None or cookie_of(subject) != cookie:
                        raise OSError(errno.EBADF, "not ours")
                    if operation in (BIND, CONNECT) and is_loopback(data[12:], data):
                        raise OSError(TO_HOST, "the host's")
                    if operation == CONNECT:
                        wanted, port, _scope, _flow, address = ADDRESS.unpack(data)
                        descriptor = self.connect(program, subject, (wanted, address, port))
                        error = errno.EINPROGRESS
                    elif operation == LISTEN:
                        descriptor = self.listen(program, subject)
                    else:
                        answer = self.perform(operation, program, args, data)
        except OSError as failure:
            error = failure.errno or errno.EIO
        if reply_end is not None:
            reply = REPLY.pack(MAGIC, VERSION, operation, 0, error, value, len(answer)) + answer
            with contextlib.suppress(OSError):
                socket.send_fds(reply_end, [reply], [descriptor.fileno()] if descriptor else [])
            reply_end.close()
        for left in (subject, descriptor):
            if left is not None:
                left.close()

    def serve_client(self, client: socket.socket) -> None:
        with client:
            while True:
                passed = array.array("i")
                message, control, _flags, _address = client.recvmsg(1 << 17, socket.CMSG_SPACE(8 * passed.itemsize))
                for _level, _kind, content in control:
                    passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
                if not message:
                    return
                for number in passed:
                    fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
                self.handle(message, list(passed))

    def serve(self, path: str) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server.bind(path)
        server.listen(128)
        threading.Thread(target=self.accept_clients, args=(server,), daemon=True).start()

    def accept_clients(self, server: socket.socket) -> None:
        while True:
            client, _ = server.accept()
            threading.Thread(target=self.serve_client, args=(client,), daemon=True).start()


def main() -> None:
    service = FakeService()
    service.serve(sys.argv[1])
    print("READY", flush=True)
    sys.stdin.read()
    os.unlink(sys.argv[1])
    os._exit(0)  # copying threads may wait for programs


if __name__ == "__main__":
    main()
