"""Sockets of the virtual networks for our own Python: what the intercept library does for other programs, as trio streams.

    stream = await open_tcp(path, "10.147.0.7", 80)          # a trio.abc.HalfCloseableStream
    listener = await listen_tcp(path, "0.0.0.0", 8080)       # a trio.abc.Listener of such streams
    udp = await open_udp(path, "0.0.0.0", 0)                 # send_to, receive_from
    ping = await open_ping(path, "10.147.0.7")               # send_echo, receive_echo

`path` is a socket of a service (`netcon.service.paths.rpc_socket`). `network` (an id) narrows a socket to that network; without
it the path's default counts, or the network that fits the destination.

Theory of operation (include/netcon/socket_rpc.h). The program's end P of a socket is one end of an AF_UNIX pair, a real descriptor
that trio waits on; its bytes are the bytes of the TCP stream, or one message is one datagram. All other calls are requests over the
RPC path, which carry P itself as the permission. Nothing is kept between calls: each dials the path, so that a service may be
restarted between two of them. Knows the protocol (`netcon.service.socket_rpc`) and trio, nothing else; commands and parts of the
service may use it, the engine and the data plane may not.

Errors. `ServiceUnavailable`: nobody answers at the path. OSError with the errno and class that a kernel socket would give
(ConnectionRefusedError, TimeoutError …), its text with what to do. Streams raise trio's BrokenResourceError, whose `__cause__` is
the OSError, when the connection was reset, and ClosedResourceError after they were closed here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import trio

from netcon.core.errors import NetconError
from netcon.service import resolve_rpc
from netcon.service import socket_rpc as rpc
from netcon.service.socket_rpc import Datagram, Interface

__all__ = [
    "Datagram",
    "DatagramSocket",
    "Echo",
    "Interface",
    "PingSocket",
    "ServiceUnavailable",
    "TcpListener",
    "TcpStream",
    "interfaces",
    "listen_tcp",
    "open_ping",
    "open_tcp",
    "open_udp",
    "resolve",
]

Path = str | os.PathLike[str]
Networks = int | Sequence[int] | None
"""The networks that a socket may be on: an id, or several of which the destination chooses; None or none: all of the service."""

_ANSWER_TIMEOUT_S = 30.0  # a service answers within microseconds: this one hangs
_ABORT_TIMEOUT_S = 2.0
_BUSY_PAUSE_S = 0.01  # the path's queue of connections is full, and the kernel tells nobody when it no longer is
_DATAGRAM_MAX = 1 << 17  # more than any message of a datagram socket
_NAME_ATTEMPTS = 16
_ECHO = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_IP_RECVTTL, _IPV6_RECVHOPLIMIT = 12, 51  # linux/in.h, linux/in6.h

_ADVICE = {
    errno.ENETUNREACH: "no joined network reaches that address; 'netcon networks' shows them",
    errno.EHOSTUNREACH: "no member answers at that address",
    errno.ECONNREFUSED: "nothing listens there",
    errno.ETIMEDOUT: "no answer; the member may be offline, or rules of the network forbid it",
    errno.EADDRNOTAVAIL: "not an address of ours; 'netcon networks' shows them",
    errno.EADDRINUSE: "the port is taken by another socket of this service",
    errno.ENETDOWN: "the network or its service is gone",
    errno.EPROTO: "the service speaks another version of socket RPC; restart it with this netcon",
    errno.ENFILE: "the service has no room for more sockets; raise its limit of open files",
    errno.EMSGSIZE: "longer than a datagram may be",
}
_TO_HOST = 4096  # NETCON_RPC_TO_HOST: no errno


class ServiceUnavailable(NetconError):
    """Nobody answers at an RPC path, or it is no netcon service. The text names the path."""


def _failure(number: int, what: str) -> OSError:
    """The OSError of an errno (Python picks the class), with what to do about it."""
    if number == _TO_HOST:
        return OSError(
            errno.ENETUNREACH, f"{what}: the service's policy gives this address to the host; use the host's own sockets"
        )
    advice = _ADVICE.get(number)
    return OSError(number, f"{what}: {os.strerror(number)}" + (f" ({advice})" if advice else ""))


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _stream_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBADF:
            raise trio.ClosedResourceError("this socket was already closed") from None
        raise trio.BrokenResourceError(str(error)) from error


class _Service:
    """An RPC path, the network of the sockets that are made there, and one connection to it for some calls in a row."""

    def __init__(self, path: Path, network: Networks) -> None:
        self.path = os.fspath(path)
        ids = (network or 0,) if network is None or isinstance(network, int) else tuple(network) or (0,)
        self.network = ids[0] if len(ids) == 1 else 0
        self._list = b"" if len(ids) == 1 else struct.pack(f"={len(ids)}Q", *ids)  # HELLO's data (socket_rpc.h)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[trio.socket.SocketType]:
        """A connection to the path. What goes wrong with it inside the block is ServiceUnavailable, too."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.setblocking(False)
            with self._unavailable():
                # Not trio's connect(): it takes EAGAIN (the queue is full) for a connection in progress.
                while (number := channel.connect_ex(self.path)) == errno.EAGAIN:  # noqa: ASYNC110
                    await trio.sleep(_BUSY_PAUSE_S)
                if number:
                    raise OSError(number, os.strerror(number))
            connected = trio.socket.from_stdlib_socket(channel)
            if self._list:
                await self.hello(connected)
            yield connected

    @contextlib.contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            with trio.fail_after(_ANSWER_TIMEOUT_S):
                yield
        except (OSError, trio.TooSlowError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS):
                raise
            why = "it does not answer" if isinstance(error, trio.TooSlowError) else error.strerror or str(error)
            raise ServiceUnavailable(
                f"no service at {self.path} ({why}); start one with 'netcon service -d', or name its home with -D"
            ) from error

    async def call(self, channel: trio.socket.SocketType, operation: int, fds: list[int], **fields: object) -> rpc.Reply:
        """One request and its reply. The caller looks at `error`."""
        request = rpc.pack_request(operation, network=self.network, **fields)  # type: ignore[arg-type]
        with self._unavailable():
            mine, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with mine:
                with theirs:
                    await channel.sendmsg([request], rpc.rights([*fds, theirs.fileno()]))
                data, ancillary, _, _ = await mine.recvmsg(
                    rpc.REPLY_MAX, socket.CMSG_SPACE(4 * rpc.RIGHTS_MAX), socket.MSG_CMSG_CLOEXEC
                )
            for fd in rpc.passed(ancillary):  # a new P for one that was spent; no socket of ours is used again after a failure
                os.close(fd)
            return rpc.unpack_reply(data)

    async def hello(self, channel: trio.socket.SocketType) -> rpc.Hello:
        reply = await self.call(channel, rpc.HELLO, [], data=self._list)
        if reply.error:
            raise ServiceUnavailable(f"{self.path}: {_failure(reply.error, 'HELLO').strerror}")
        with self._unavailable():
            return rpc.unpack_hello(reply.data, self.path)

    async def socket(
        self, channel: trio.socket.SocketType, family: int, kind: socket.SocketKind, protocol: int
    ) -> tuple[trio.socket.SocketType, _Handle]:
        """socket(): a pair, of which the service gets one end. Returns P and what its calls need."""
        service = (await self.hello(channel)).service
        pair = socket.SOCK_STREAM if kind == socket.SOCK_STREAM else socket.SOCK_SEQPACKET
        p, s = socket.socketpair(socket.AF_UNIX, pair)
        try:
            with s:
                handle = _Handle(self, service, rpc.cookie(p), family, kind, protocol)
                handle.bind_name(p)
                p.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, rpc.SEND_BUFFER)
                reply = await self.call(channel, rpc.SOCKET, [s.fileno()], **handle.fields())
                if reply.error:
                    raise _failure(reply.error, "socket")
            p.setblocking(False)
            return trio.socket.from_stdlib_socket(p), handle
        except BaseException:
            p.close()
            raise


class _Handle(NamedTuple):
    """What a request says of the socket that it is about."""

    service: _Service
    service_id: int
    socket_id: int
    family: int
    kind: int
    protocol: int

    def fields(self) -> dict[str, int]:
        return {"socket_id": self.socket_id, "family": self.family, "kind": self.kind, "protocol": self.protocol}

    def bind_name(self, p: socket.socket) -> None:
        """Give P its name, another one if somebody has squatted it."""
        for spare in range(_NAME_ATTEMPTS):
            try:
                return p.bind(rpc.program_name(self.service_id, self.socket_id, self.family, self.kind, self.protocol, spare))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or spare == _NAME_ATTEMPTS - 1:
                    raise


class _Socket:
    """A socket of a service: `socket` is P. Options are those of socket(7), ip(7), tcp(7) …, with the kernel's results."""

    def __init__(self, p: trio.socket.SocketType, handle: _Handle) -> None:
        self.socket = p
        self._handle = handle

    @property
    def family(self) -> int:
        return self._handle.family

    async def _ask(
        self, operation: int, what: str, *args: int, data: bytes = b"", on: trio.socket.SocketType | None = None
    ) -> rpc.Reply:
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        service, subject = self._handle.service, [self.socket.fileno()]
        fields = self._handle.fields()
        if on is not None:
            reply = await service.call(on, operation, subject, args=args, data=data, **fields)
        else:
            async with service.channel() as channel:
                reply = await service.call(channel, operation, subject, args=args, data=data, **fields)
        if reply.error:
            raise _failure(reply.error, what)
        return reply

    async def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        data = value if isinstance(value, bytes) else struct.pack("=i", value)
        await self._ask(rpc.SETSOCKOPT, "setsockopt", level, name, data=data)

    async def getsockopt(self, level: int, name: int, size: int = 4) -> bytes:
        return (await self._ask(rpc.GETSOCKOPT, "getsockopt", level, name, size)).data

    async def getsockopt_int(self, level: int, name: int) -> int:
        return int(struct.unpack("=i", await self.getsockopt(level, name))[0])

    async def getsockname(self) -> tuple[str, int]:
        return rpc.unpack_address((await self._ask(rpc.GETSOCKNAME, "getsockname")).data)

    async def getpeername(self) -> tuple[str, int]:
        return rpc.unpack_address((await self._ask(rpc.GETPEERNAME, "getpeername")).data)

    def close(self) -> None:
        self.socket.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _name(self) -> rpc.ServiceName | None:
        with _stream_errors():
            return rpc.decode_service_name(self.socket.getpeername())


class TcpStream(_Socket, trio.abc.HalfCloseableStream):
    """A TCP connection. `local` and `remote` are (address, port)."""

    def __init__(self, p: trio.socket.SocketType, handle: _Handle) -> None:
        super().__init__(p, handle)
        self._stream = trio.SocketStream(p)
        name = self._name()
        self.local, self.remote = (name.local, name.remote) if name is not None else (("", 0), ("", 0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def abort(self) -> None:
        """Close with a reset: the other end sees ECONNRESET, not the end of a stream that looks complete."""
        with (
            trio.move_on_after(_ABORT_TIMEOUT_S, shield=True),
            contextlib.suppress(OSError, NetconError, trio.ClosedResourceError),
        ):
            await self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        await self.aclose()


class TcpListener(_Socket, trio.abc.Listener[TcpStream]):
    """A listening socket; `trio.serve_listeners` may have it. `local` is (address, port)."""

    def __init__(self, p: trio.socket.SocketType, handle: _Handle) -> None:
        super().__init__(p, handle)
        name = self._name()
        self.local = name.local if name is not None else ("", 0)

    async def accept(self) -> TcpStream:
        """The next connection. OSError EMFILE leaves it queued; BrokenResourceError when the service has gone."""
        while True:
            with _stream_errors():
                await trio.lowlevel.wait_readable(self.socket)
            # With a full table recvmsg would swallow the record and lose the connection (intercept.md, "Accepting").
            os.close(fcntl.fcntl(self.socket.fileno(), fcntl.F_DUPFD_CLOEXEC, 0))
            with _stream_errors():
                record, ancillary, _, _ = await self.socket.recvmsg(rpc.RECORD.size, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
                if not record:
                    raise _failure(errno.ENETDOWN, "accept")
            fds = rpc.passed(ancillary)
            if len(fds) != 1 or len(record) != rpc.RECORD.size or rpc.RECORD.unpack(record)[0] != rpc.RECORD_MAGIC:
                for fd in fds:
                    os.close(fd)
                continue  # another process or thread took the last free descriptor: the connection is lost
            p = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fds[0])
            try:
                handle = self._handle._replace(socket_id=rpc.cookie(p))
                handle.bind_name(p)
                p.setblocking(False)
                return TcpStream(trio.socket.from_stdlib_socket(p), handle)
            except BaseException:
                p.close()
                raise


class DatagramSocket(_Socket):
    """A UDP socket, or another one of datagrams."""

    @property
    def _mode(self) -> int:
        with _stream_errors():
            return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)

    async def bind(self, host: str, port: int = 0) -> None:
        await self._ask(rpc.BIND, f"bind to {_place(host, port)}", data=rpc.pack_address(host, port))

    async def connect(self, host: str, port: int, scope: int = 0) -> None:
        """Send to and receive from this peer alone, and learn of refusals."""
        await self._ask(rpc.CONNECT, f"connect to {_place(host, port)}", 1, data=rpc.pack_address(host, port, scope))

    async def send_to(
        self,
        data: bytes,
        to: tuple[str, int],
        *,
        source: str = "",
        interface: int = 0,
        ttl: int | None = None,
        tos: int | None = None,
        confirm: bool = False,
    ) -> None:
        """Send one datagram to (address, port). `confirm`: by a request, which takes longer and raises what the stack says of it
        (ENETUNREACH, EMSGSIZE …); otherwise what cannot be sent is lost, as on the wire."""
        if len(data) > rpc.DATAGRAM_PAYLOAD_MAX:
            raise _failure(errno.EMSGSIZE, f"send to {_place(*to)}")
        message = rpc.pack_datagram(data, to, source=source, interface=interface, ttl=ttl, tos=tos)
        if confirm or self._mode != rpc.FRAMED:
            await self._ask(rpc.SENDTO, f"send to {_place(*to)}", data=message)
        else:
            with _stream_errors():
                await self.socket.send(message)

    async def send(self, data: bytes) -> None:
        """Send one datagram to the connected peer."""
        if len(data) > rpc.DATAGRAM_PAYLOAD_MAX:
            raise _failure(errno.EMSGSIZE, "send")
        match self._mode:
            case rpc.FRAMED:
                raise _failure(errno.EDESTADDRREQ, "send")
            case rpc.FRAMED_CONNECTED:
                data = rpc.pack_datagram(data, None)
        with _stream_errors():
            await self.socket.send(data)

    async def receive_from(self) -> Datagram:
        """The next datagram, with what ancillary data was asked for. OSError: an ICMP error of the connected peer;
        BrokenResourceError: the service has gone."""
        while True:
            with _stream_errors():
                message = await self.socket.recv(_DATAGRAM_MAX)
                if not message and self._hung_up():
                    raise _failure(errno.ENETDOWN, "receive")
            if self._mode == rpc.BARE:
                if not message:
                    await self._raise_error()
                return Datagram(message, await self.getpeername())
            with _stream_errors():
                got = rpc.unpack_datagram(message, self.family)
            if not got.error:
                return got
            await self._raise_error()

    async def receive(self) -> bytes:
        """The next datagram's payload."""
        return (await self.receive_from()).data

    async def receive_ttl(self, on: bool = True) -> None:
        """Let received datagrams say their TTL or hop limit."""
        if self.family == socket.AF_INET6:
            await self.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, int(on))
        else:
            await self.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, int(on))

    def _hung_up(self) -> bool:
        poller = select.poll()
        poller.register(self.socket.fileno(), 0)
        return bool(poller.poll(0))

    async def _raise_error(self) -> None:
        if number := await self.getsockopt_int(socket.SOL_SOCKET, socket.SO_ERROR):
            raise _failure(number, "receive")


class Echo(NamedTuple):
    """An echo reply: who sent it, its sequence number, what we had sent, and its TTL or hop limit (None: not asked for)."""

    peer: str
    sequence: int
    payload: bytes
    ttl: int | None


class PingSocket(DatagramSocket):
    """ICMP or ICMPv6 echo (the service makes identifier and checksum, and gives only replies to our requests)."""

    async def send_echo(self, host: str, sequence: int, payload: bytes = b"", *, ttl: int | None = None) -> None:
        """OSError with the stack's errno when it cannot be sent."""
        message = _ECHO.pack(_ECHO_REQUEST[socket.AddressFamily(self.family)], 0, 0, 0, sequence & 0xFFFF) + payload
        await self.send_to(message, (host, 0), ttl=ttl, confirm=True)

    async def receive_echo(self) -> Echo:
        while True:
            got = await self.receive_from()
            if len(got.data) >= _ECHO.size:
                kind, _, _, _, sequence = _ECHO.unpack_from(got.data)
                if kind == _ECHO_REPLY[socket.AddressFamily(self.family)]:
                    return Echo(got.peer[0], sequence, got.data[_ECHO.size :], got.ttl)


async def open_tcp(
    service: Path,
    host: str,
    port: int,
    network: Networks = None,
    *,
    source: tuple[str, int] | None = None,
    scope: int = 0,
    no_delay: bool = True,
) -> TcpStream:
    """Connect to a numeric address. `source`: local (address, port), as of bind. Raises ServiceUnavailable, OSError."""
    local = _Service(service, network)
    what = f"connect to {_place(host, port)}"
    address = _address(host, port, scope)
    async with local.channel() as channel:
        p, handle = await local.socket(channel, rpc.family_of(host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made = _Socket(p, handle)
        try:
            if no_delay:
                on = struct.pack("=i", 1)
                await made._ask(rpc.SETSOCKOPT, "TCP_NODELAY", socket.IPPROTO_TCP, socket.TCP_NODELAY, data=on, on=channel)
            if source is not None:
                await made._ask(rpc.BIND, f"bind to {_place(*source)}", data=_address(*source), on=channel)
            with contextlib.suppress(BlockingIOError):
                await made._ask(rpc.CONNECT, what, 1, data=address, on=channel)
        except BaseException:
            p.close()
            raise
    try:
        await p.wait_writable()
        if number := p.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            name = made._name()
            raise _failure(name.error if name is not None and name.kind == "F" else number, what)
        return TcpStream(p, handle)
    except BaseException:
        p.close()
        raise


async def listen_tcp(
    service: Path,
    host: str,
    port: int,
    network: Networks = None,
    *,
    backlog: int = 128,
    no_delay: bool = True,
    v6_only: bool | None = None,
) -> TcpListener:
    """Listen on a numeric address: one of a network, or a wildcard for all (`::` for IPv4, too, unless `v6_only`).

    `no_delay` is for the accepted connections. Raises ServiceUnavailable, OSError."""
    local = _Service(service, network)
    address = _address(host, port)
    async with local.channel() as channel:
        p, handle = await local.socket(channel, rpc.family_of(host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made = _Socket(p, handle)
        try:
            options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))]
            if v6_only is not None:
                options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only)))
            for level, name, value in options:
                await made._ask(rpc.SETSOCKOPT, "setsockopt", level, name, data=struct.pack("=i", value), on=channel)
            what = f"listen on {_place(host, port)}"
            await made._ask(rpc.BIND, what, data=address, on=channel)
            await made._ask(rpc.LISTEN, what, backlog, on=channel)
            return TcpListener(p, handle)
        except BaseException:
            p.close()
            raise


async def open_udp(service: Path, host: str = "0.0.0.0", port: int = 0, network: Networks = None) -> DatagramSocket:
    """A UDP socket that is bound to a numeric address (a wildcard's port is chosen when 0). Raises ServiceUnavailable, OSError."""
    address = _address(host, port)
    local = _Service(service, network)
    async with local.channel() as channel:
        p, handle = await local.socket(channel, rpc.family_of(host), socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        made = DatagramSocket(p, handle)
        try:
            await made._ask(rpc.BIND, f"bind to {_place(host, port)}", data=address, on=channel)
        except BaseException:
            made.close()
            raise
        return made


async def open_ping(service: Path, host: str, network: Networks = None, *, ttl: bool = True) -> PingSocket:
    """A socket for echo requests to `host` and others of its family. `ttl`: replies say theirs."""
    family = rpc.family_of(host)
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    local = _Service(service, network)
    async with local.channel() as channel:
        made = PingSocket(*await local.socket(channel, family, socket.SOCK_DGRAM, protocol))
    try:
        if ttl:
            await made.receive_ttl()
    except BaseException:
        made.close()
        raise
    return made


async def resolve(service: Path, name: str, family: int = 0, network: Networks = None) -> list[str]:
    """The addresses of a name as programs on the networks (or on one) get them, best first; a numeric address is its own.

    `family`: AF_INET, AF_INET6, or 0 for both. Raises ServiceUnavailable; socket.gaierror, an OSError, when there is none."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in it
        rpc.pack_ip(name)
        return [name]
    local = _Service(service, network)
    status = resolve_rpc.NOT_FOUND
    encoded = name.encode("utf-8", "surrogateescape")
    if 0 < len(encoded) <= resolve_rpc.NAME_MAX:
        async with local.channel() as channel:
            question = (resolve_rpc.RESOLVE_NAME, resolve_rpc.RESOLVE_IDN)
            reply = await local.call(channel, resolve_rpc.RESOLVE, [], family=family, args=question, data=encoded)
        if reply.error:
            raise _failure(reply.error, f"look-up of {name}")
        status = reply.value
        if status == resolve_rpc.FOUND and (found := resolve_rpc.unpack_resolved(reply.data)[1]):
            return [str(ip) for ip in found]
    code = socket.EAI_AGAIN if status == resolve_rpc.AGAIN else socket.EAI_NONAME
    raise socket.gaierror(code, f"{name}: no network knows an address of it; 'netcon names {name}' says why")


async def interfaces(service: Path) -> list[Interface]:
    """The virtual interfaces of the service's networks, one entry for each address."""
    local = _Service(service, None)
    found: list[Interface] = []
    async with local.channel() as channel:
        while True:
            reply = await local.call(channel, rpc.INTERFACES, [], args=(len(found),))
            if reply.error:
                raise _failure(reply.error, "interfaces")
            more = rpc.unpack_interfaces(reply.data)
            found += more
            if len(found) >= reply.value or not more:
                return found


def _address(host: str, port: int, scope: int = 0) -> bytes:
    try:
        return rpc.pack_address(host, port, scope)
    except (OSError, struct.error):
        raise OSError(errno.EINVAL, f"{_place(host, port)} is not a numeric address and a port") from None
