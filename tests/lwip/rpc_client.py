"""A socket RPC client in Python: what the intercept library does, in the open. It documents include/netcon/socket_rpc.h.

A `Program` is the connection of one program to the service; a `ProgramSocket` is a socket of that program: a real descriptor,
the end P of an AF_UNIX pair, whose bytes are the bytes of the TCP stream.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct

from netcon.service.socket_rpc import (
    ADDRESS,
    BIND,
    CONNECT,
    GETPEERNAME,
    GETSOCKNAME,
    GETSOCKOPT,
    HELLO,
    HELLO_REPLY,
    IOCTL,
    LISTEN,
    POSTED,
    RECORD,
    RECORD_MAGIC,
    REPLY_MAX,
    SEND_BUFFER,
    SETSOCKOPT,
    SHUTDOWN,
    SOCKET,
    ServiceName,
    cookie,
    decode_service_name,
    family_of,
    pack_address,
    pack_request,
    program_name,
    receive_message,
    send_message,
    unpack_address,
    unpack_reply,
)

TIMEOUT = 30.0  # of any wait: generous, and an error


class Program:
    """One connection to the service."""

    def __init__(self, path: str, network: int = 0) -> None:
        self.network = network
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(TIMEOUT)
        try:
            self.channel.connect(path)
        except OSError:
            self.channel.close()
            raise
        error, _, data, _ = self.call(HELLO)
        assert error == 0
        self.service, self.epoch, self.default_network = HELLO_REPLY.unpack(data)

    def close(self) -> None:
        self.channel.close()

    def request(self, operation: int, **fields: object) -> bytes:
        return pack_request(operation, network=self.network, **fields)  # type: ignore[arg-type]

    def exchange(self, message: bytes, fds: list[int]) -> tuple[int, int, bytes, list[int]]:
        """Send a request with a fresh reply end, and wait for the reply: (errno, value, data, descriptors)."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with theirs:
                send_message(self.channel, message, [*fds, theirs.fileno()])
            mine.settimeout(TIMEOUT)
            data, passed = receive_message(mine, REPLY_MAX)
        reply = unpack_reply(data)
        return reply.error, reply.value, reply.data, passed

    def call(self, operation: int, subject: ProgramSocket | None = None, args: tuple[int, ...] = (), data: bytes = b""):
        if subject is None:
            return self.exchange(self.request(operation, args=args, data=data), [])
        return self.exchange(
            self.request(
                operation,
                socket_id=subject.id,
                family=subject.family,
                kind=socket.SOCK_STREAM,
                protocol=socket.IPPROTO_TCP,
                args=args,
                data=data,
            ),
            [subject.p.fileno()],
        )

    def post(self, operation: int, subject: ProgramSocket, args: tuple[int, ...] = (), data: bytes = b"") -> None:
        message = self.request(operation, flags=POSTED, socket_id=subject.id, family=subject.family, args=args, data=data)
        send_message(self.channel, message, [subject.p.fileno()])

    def socket(self, family: int = socket.AF_INET, *, posted: bool = True) -> ProgramSocket:
        """socket(): make the pair, name P, and tell the service, which gets S."""
        p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        number = cookie(p)
        p.bind(program_name(self.service, number, family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        p.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        message = self.request(
            SOCKET,
            flags=POSTED if posted else 0,
            socket_id=number,
            family=family,
            kind=socket.SOCK_STREAM,
            protocol=socket.IPPROTO_TCP,
        )
        with s:
            if posted:
                send_message(self.channel, message, [s.fileno()])
            else:
                error = self.exchange(message, [s.fileno()])[0]
                if error:
                    p.close()
                    raise OSError(error, os.strerror(error))
        return ProgramSocket(self, p, number, family)

    def listener(self, ip: str, port: int = 0, backlog: int = 128, **options: bool) -> ProgramSocket:
        family = family_of(ip)
        sock = self.socket(family)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), int(value))
        sock.bind(ip, port)
        sock.listen(backlog)
        return sock

    def connected(self, ip: str, port: int, family: int | None = None) -> ProgramSocket:
        sock = self.socket(family or (family_of(ip)))
        try:
            sock.connect(ip, port)
        except BaseException:
            sock.close()
            raise
        return sock


class ProgramSocket:
    """A socket as the program holds it. Errors are OSError, as from the calls themselves."""

    def __init__(self, program: Program, p: socket.socket, number: int, family: int) -> None:
        self.program, self.p, self.id, self.family = program, p, number, family
        p.settimeout(TIMEOUT)

    def __enter__(self) -> ProgramSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.p.close()

    def ask(self, operation: int, args: tuple[int, ...] = (), data: bytes = b"") -> bytes:
        error, _, answer, passed = self.program.call(operation, self, args, data)
        if passed:  # P was spent: the service sent another
            new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=passed[0])
            self.p.close()
            self.p, self.id = new, cookie(new)
            self.p.settimeout(TIMEOUT)
        if error:
            raise OSError(error, os.strerror(error))
        return answer

    def bind(self, ip: str, port: int) -> None:
        self.ask(BIND, data=pack_address(ip, port))

    def listen(self, backlog: int = 128) -> None:
        self.ask(LISTEN, (backlog,))

    def start_connect(self, ip: str, port: int, *, waits: bool = False) -> None:
        """connect() on a non-blocking socket: raises BlockingIOError (EINPROGRESS) when it has been started."""
        self.ask(CONNECT, (int(waits),), pack_address(ip, port))

    def finish_connect(self) -> None:
        """Wait until P is writable; a failure is the errno in the name of kind F."""
        poller = select.poll()
        poller.register(self.p, select.POLLOUT)
        if not poller.poll(TIMEOUT * 1000):
            raise TimeoutError("the connection neither completed nor failed")
        error = self.p.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            name = self.name
            raise OSError(name.error if name and name.kind == "F" else error, "connect")

    def connect(self, ip: str, port: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.start_connect(ip, port, waits=True)
        self.finish_connect()

    def disconnect(self) -> None:
        self.ask(CONNECT, data=ADDRESS.pack(0, 0, 0, 0, b""))

    def accept(self) -> tuple[ProgramSocket, tuple[str, int]]:
        """No RPC: take a record from the pair, with P of the new connection."""
        name = self.name
        if name is None or name.kind != "L":
            raise OSError(errno.EINVAL, "not a listener")
        record, fds = receive_message(self.p, RECORD.size)
        if not record:
            raise OSError(errno.EINVAL, "the listener was shut down")
        magic, peer = RECORD.unpack(record)
        assert magic == RECORD_MAGIC
        (fd,) = fds
        p = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
        p.bind(program_name(self.program.service, cookie(p), self.family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        return ProgramSocket(self.program, p, cookie(p), self.family), unpack_address(peer)

    def getsockname(self) -> tuple[str, int]:
        return unpack_address(self.ask(GETSOCKNAME))

    def getpeername(self) -> tuple[str, int]:
        return unpack_address(self.ask(GETPEERNAME))

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        self.ask(SETSOCKOPT, (level, name), value if isinstance(value, bytes) else struct.pack("=i", value))

    def getsockopt(self, level: int, name: int, size: int = 4) -> bytes:
        return self.ask(GETSOCKOPT, (level, name, size))

    def getsockopt_int(self, level: int, name: int) -> int:
        return int(struct.unpack("=i", self.getsockopt(level, name))[0])

    def shutdown_listener(self, how: int = socket.SHUT_RDWR) -> None:
        self.ask(SHUTDOWN, (how,))

    def ioctl(self, request: int) -> int:
        return int(struct.unpack("=i", self.ask(IOCTL, (request,)))[0])

    @property
    def name(self) -> ServiceName | None:
        return decode_service_name(self.p.getpeername())

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.p.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
