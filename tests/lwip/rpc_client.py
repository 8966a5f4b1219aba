"""A socket RPC client in Python: what the intercept library does, in the open. It documents include/netcon/socket_rpc.h.

A `Program` is the connection of one program to the service; a `ProgramSocket` is a socket of that program: a real descriptor,
the end P of an AF_UNIX pair, whose bytes are the bytes of the TCP stream.
"""

from __future__ import annotations

import array
import base64
import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
from dataclasses import dataclass

MAGIC = 0x4E43
VERSION = 1
HELLO, SOCKET, BIND, LISTEN, CONNECT, GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, SHUTDOWN, IOCTL = range(1, 12)
POSTED = 1
REQUEST = struct.Struct("=HHHHQQHHHH4iII")  # magic … data_length, reserved; then the data
REPLY = struct.Struct("=HHHHiiI")
ADDRESS = struct.Struct("=HHII16s")
HELLO_REPLY = struct.Struct("=QQQ")
RECORD = struct.Struct("=Q28s28x")
RECORD_MAGIC = 0x4E43414343455054
PROGRAM_NAME = struct.Struct("=QQHHHH")
SERVICE_NAME = struct.Struct("=QIiHHHH16s16s")
SO_COOKIE = 57
PREFIX = b"\0znc1"
TIMEOUT = 30.0  # of any wait: generous, and an error


def pack_address(family: int, ip: str, port: int, scope: int = 0) -> bytes:
    packed = ipaddress.ip_address(ip).packed
    return ADDRESS.pack(family, port, scope, 0, packed)


def unpack_address(data: bytes) -> tuple[str, int]:
    family, port, _, _, ip = ADDRESS.unpack(data)
    return show_ip(family, ip), port


def show_ip(family: int, ip: bytes) -> str:
    return str(ipaddress.IPv4Address(ip[:4]) if family == socket.AF_INET else ipaddress.IPv6Address(ip))


def encode_name(kind: str, packed: bytes) -> bytes:
    return PREFIX + kind.encode() + base64.urlsafe_b64encode(packed).rstrip(b"=")


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


@dataclass(frozen=True, slots=True)
class ServiceName:
    """What the name of the service's end says: kind L, C or F."""

    kind: str
    serial: int
    error: int
    local: tuple[str, int]
    remote: tuple[str, int]


def service_name(sock: socket.socket) -> ServiceName | None:
    """The name of S, as the program reads it from P; None when S has none yet."""
    name = sock.getpeername()
    if not isinstance(name, bytes) or not name.startswith(PREFIX):
        return None
    text = name[6:]
    serial, _, error, family, local_port, remote_port, _, local, remote = SERVICE_NAME.unpack(
        base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    )
    return ServiceName(chr(name[5]), serial, error, (show_ip(family, local), local_port), (show_ip(family, remote), remote_port))


def send(channel: socket.socket, message: bytes, fds: list[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([message], ancillary)


def receive(channel: socket.socket, size: int) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = channel.recvmsg(size, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def program_name(service: int, number: int, family: int) -> bytes:
    return encode_name("P", PROGRAM_NAME.pack(service, number, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, 0))


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

    def request(
        self,
        operation: int,
        *,
        flags: int = 0,
        socket_id: int = 0,
        family: int = 0,
        kind: int = 0,
        protocol: int = 0,
        args: tuple[int, ...] = (),
        data: bytes = b"",
        version: int = VERSION,
    ) -> bytes:
        padded = (*args, 0, 0, 0, 0)[:4]
        return (
            REQUEST.pack(
                MAGIC, version, operation, flags, self.network, socket_id, family, kind, protocol, 0, *padded, len(data), 0
            )
            + data
        )

    def exchange(self, message: bytes, fds: list[int]) -> tuple[int, int, bytes, list[int]]:
        """Send a request with a fresh reply end, and wait for the reply: (errno, value, data, descriptors)."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with theirs:
                send(self.channel, message, [*fds, theirs.fileno()])
            mine.settimeout(TIMEOUT)
            reply, passed = receive(mine, 4096)
        if not reply:
            raise ConnectionError("the service closed the reply end without a reply")
        magic, version, _, _, error, value, length = REPLY.unpack_from(reply)
        assert (magic, version) == (MAGIC, VERSION)
        assert len(reply) == REPLY.size + length
        return error, value, reply[REPLY.size :], passed

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
        send(self.channel, message, [subject.p.fileno()])

    def socket(self, family: int = socket.AF_INET, *, posted: bool = True) -> ProgramSocket:
        """socket(): make the pair, name P, and tell the service, which gets S."""
        p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        number = cookie(p)
        p.bind(program_name(self.service, number, family))
        p.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
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
                send(self.channel, message, [s.fileno()])
            else:
                error = self.exchange(message, [s.fileno()])[0]
                if error:
                    p.close()
                    raise OSError(error, os.strerror(error))
        return ProgramSocket(self, p, number, family)

    def listener(self, ip: str, port: int = 0, backlog: int = 128, **options: bool) -> ProgramSocket:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = self.socket(family)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), int(value))
        sock.bind(ip, port)
        sock.listen(backlog)
        return sock

    def connected(self, ip: str, port: int, family: int | None = None) -> ProgramSocket:
        sock = self.socket(family or (socket.AF_INET6 if ":" in ip else socket.AF_INET))
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
        self.ask(BIND, data=pack_address(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip, port))

    def listen(self, backlog: int = 128) -> None:
        self.ask(LISTEN, (backlog,))

    def start_connect(self, ip: str, port: int, *, waits: bool = False) -> None:
        """connect() on a non-blocking socket: raises BlockingIOError (EINPROGRESS) when it has been started."""
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.ask(CONNECT, (int(waits),), pack_address(family, ip, port))

    def finish_connect(self) -> None:
        """Wait until P is writable; a failure is the errno in the name of kind F."""
        poller = select.poll()
        poller.register(self.p, select.POLLOUT)
        if not poller.poll(TIMEOUT * 1000):
            raise TimeoutError("the connection neither completed nor failed")
        error = self.p.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            name = service_name(self.p)
            raise OSError(name.error if name and name.kind == "F" else error, "connect")

    def connect(self, ip: str, port: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.start_connect(ip, port, waits=True)
        self.finish_connect()

    def disconnect(self) -> None:
        self.ask(CONNECT, data=ADDRESS.pack(0, 0, 0, 0, b""))

    def accept(self) -> tuple[ProgramSocket, tuple[str, int]]:
        """No RPC: take a record from the pair, with P of the new connection."""
        name = service_name(self.p)
        if name is None or name.kind != "L":
            raise OSError(errno.EINVAL, "not a listener")
        record, fds = receive(self.p, RECORD.size)
        if not record:
            raise OSError(errno.EINVAL, "the listener was shut down")
        magic, peer = RECORD.unpack(record)
        assert magic == RECORD_MAGIC
        (fd,) = fds
        p = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
        p.bind(program_name(self.program.service, cookie(p), self.family))
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
        return service_name(self.p)

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.p.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
