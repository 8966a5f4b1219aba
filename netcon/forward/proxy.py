"""The proxies: SOCKS5 (CONNECT and UDP ASSOCIATE) and HTTP (CONNECT, and plain requests with a whole URL), into the network.

Names are resolved here, on the network's side (SOCKS5h). Clients may be hostile: what they say before they are joined to a
connection is bounded in size and time, and an error ends their connection alone.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hmac
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import h11
import trio

from netcon.core.errors import NetconError
from netcon.forward import socks
from netcon.forward.relay import relay
from netcon.forward.sides import HostSide, NetworkSide, Stream, close
from netcon.forward.socks import Command, ReplyCode, SocksError
from netcon.forward.specification import ForwardError, Inet, Place
from netcon.forward.streams import CONNECT_TIMEOUT_S, serve
from netcon.sockets import DatagramSocket, TcpStream, open_udp

log = logging.getLogger(__name__)
Message = TypeVar("Message")

_HEAD_MAX = 16 * 1024  # of an HTTP request
_DATAGRAM_MAX = 65536
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/@\s]+)):(\d{1,5})")
#: Fields that are about one connection (RFC 9110 §7.6.1). Transfer-Encoding stays: the body goes through as it is.
_HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"proxy-authenticate", b"te", b"upgrade"}


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """`credentials`: user name and password that a client must give, or None. `handshake_s`: until a client has asked."""

    credentials: tuple[bytes, bytes] | None = None
    handshake_s: float = 10.0


class HttpRefusal(ForwardError):
    """An answer other than a connection."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


async def _connect(side: NetworkSide, place: Place) -> Stream:
    with trio.move_on_after(CONNECT_TIMEOUT_S):
        return await side.connect(place)
    raise TimeoutError(errno.ETIMEDOUT, f"no connection to {place} within {CONNECT_TIMEOUT_S:g} s")


def _same(given: tuple[bytes, bytes], wanted: tuple[bytes, bytes]) -> bool:
    """In constant time."""
    return hmac.compare_digest(given[0], wanted[0]) & hmac.compare_digest(given[1], wanted[1])


# ---- SOCKS5 ----


async def serve_socks(stream: Stream, side: NetworkSide, settings: ProxySettings) -> None:
    """One client. Raises SocksError, OSError, BrokenResourceError: they end its connection."""
    client = _SocksClient(stream, settings)
    try:
        with trio.fail_after(settings.handshake_s):
            request = await client.handshake()
    except trio.TooSlowError:
        raise SocksError(f"a client did not say what it wants within {settings.handshake_s:g} s") from None
    match request.command:
        case Command.CONNECT:
            other = await client.answered(_connect(side, Inet(request.host, request.port)))
            ip, port = other.local if isinstance(other, TcpStream) else ("0.0.0.0", 0)
            try:
                await stream.send_all(socks.pack_reply(ReplyCode.SUCCEEDED, ip, port))
            except BaseException:
                close(other)
                raise
            await relay(stream, other, client.rest)
        case Command.UDP_ASSOCIATE:
            await _associate(client, side)
        case _:
            await client.refuse(SocksError(f"command {request.command} is not supported", ReplyCode.COMMAND_NOT_SUPPORTED))


class _SocksClient:
    def __init__(self, stream: Stream, settings: ProxySettings) -> None:
        self.stream, self.settings = stream, settings
        self.rest = b""  # received, not yet used

    async def handshake(self) -> socks.Request:
        offered = await self._read(socks.parse_greeting)
        wanted = socks.PASSWORD if self.settings.credentials is not None else socks.NO_AUTHENTICATION
        if wanted not in offered:
            await self.stream.send_all(bytes([socks.VERSION, socks.NO_METHOD]))
            raise SocksError("a client offers no way of authentication that is accepted here")
        await self.stream.send_all(bytes([socks.VERSION, wanted]))
        if self.settings.credentials is not None:
            good = _same(await self._read(socks.parse_password), self.settings.credentials)
            await self.stream.send_all(bytes([socks.AUTH_VERSION, 0 if good else 1]))
            if not good:
                raise SocksError("a client gave a wrong user name or password")
        try:
            return await self._read(socks.parse_request)
        except SocksError as error:
            await self.refuse(error)
            raise

    async def _read(self, parse: Callable[[bytes], tuple[Message, int] | None]) -> Message:
        while (found := parse(self.rest)) is None:
            more = await self.stream.receive_some(socks.LONGEST)
            if not more:
                raise SocksError("a client left before it had said what it wants")
            self.rest += more
        message, used = found
        self.rest = self.rest[used:]
        return message

    async def refuse(self, error: SocksError) -> None:
        if error.reply is not None:
            await self.stream.send_all(socks.pack_reply(error.reply))

    async def answered(self, work: Awaitable[Message]) -> Message:
        """The result; a failure is the reply."""
        try:
            return await work
        except OSError as error:
            await self.stream.send_all(socks.pack_reply(socks.code_of(error)))
            raise
        except NetconError:
            await self.stream.send_all(socks.pack_reply(ReplyCode.FAILURE))
            raise


async def _associate(client: _SocksClient, side: NetworkSide) -> None:
    """UDP for as long as the client's TCP connection lives, on the host's address that it reached us at."""
    stream = client.stream
    if not isinstance(stream, trio.SocketStream) or stream.socket.family not in (socket.AF_INET, socket.AF_INET6):
        await client.refuse(SocksError("UDP needs a proxy that listens on TCP", ReplyCode.COMMAND_NOT_SUPPORTED))
        return
    here, there = stream.socket.getsockname(), stream.socket.getpeername()
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(trio.socket.socket(stream.socket.family, socket.SOCK_DGRAM))
        await host.bind((here[0], 0))
        network: dict[bool, DatagramSocket] = {}
        for v6, wildcard in ((False, "0.0.0.0"), (True, "::")):
            network[v6] = await client.answered(open_udp(side.path, wildcard, 0, side.network))
            stack.callback(network[v6].close)
        await stream.send_all(socks.pack_reply(ReplyCode.SUCCEEDED, here[0].partition("%")[0], host.getsockname()[1]))
        association = _Association(host, network, side, there[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(association.outward)
            for each in network.values():
                nursery.start_soon(association.inward, each)
            while await stream.receive_some(socks.LONGEST):
                pass
            nursery.cancel_scope.cancel()


class _Association:
    def __init__(
        self, host: trio.socket.SocketType, network: dict[bool, DatagramSocket], side: NetworkSide, client_ip: str
    ) -> None:
        self._host, self._network, self._side, self._client_ip = host, network, side, client_ip
        self._client: tuple[str, int] | None = None  # where it sends from: the first datagram tells

    async def outward(self) -> None:
        while True:
            data, peer = await self._host.recvfrom(_DATAGRAM_MAX)
            if peer[0] != self._client_ip or peer != (self._client or peer):
                continue  # somebody else's
            self._client = peer
            try:
                name, port, payload = socks.parse_datagram(data)
                address = (await self._side.addresses(name))[0]
                await self._network[":" in address].send_to(payload, (address, port))
            except (OSError, NetconError) as error:
                log.info("a datagram of a SOCKS client is lost: %s", error)

    async def inward(self, network: DatagramSocket) -> None:
        while True:
            try:
                got = await network.receive_from()
                if self._client is not None:
                    await self._host.sendto(socks.pack_datagram(*got.peer, got.data), self._client)
            except OSError as error:
                log.info("a datagram to a SOCKS client is lost: %s", error)
                await trio.lowlevel.checkpoint()


# ---- HTTP ----


async def serve_http(stream: Stream, side: NetworkSide, settings: ProxySettings) -> None:
    """One client, one request. Raises HttpRefusal, OSError, BrokenResourceError: they end its connection."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
    try:
        try:
            with trio.fail_after(settings.handshake_s):
                request = await _request(stream, connection)
        except trio.TooSlowError:
            raise HttpRefusal(408, f"no request within {settings.handshake_s:g} s") from None
        _authenticate(request, settings)
        place, first = _connect_target(request) if request.method == b"CONNECT" else _plain_target(request)
        try:
            other = await _connect(side, place)
        except (OSError, NetconError) as error:
            raise HttpRefusal(504 if isinstance(error, TimeoutError) else 502, str(error)) from None
    except HttpRefusal as refusal:
        with trio.move_on_after(settings.handshake_s):
            await stream.send_all(_answer(refusal))
            await stream.send_eof()
        raise
    try:
        if request.method == b"CONNECT":
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    except BaseException:
        close(other)
        raise
    await relay(stream, other, first + connection.trailing_data[0])


async def _request(stream: Stream, connection: h11.Connection) -> h11.Request:
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                raise trio.BrokenResourceError("an HTTP client left without a request")
            connection.receive_data(await stream.receive_some(_HEAD_MAX))
    except h11.RemoteProtocolError as error:
        raise HttpRefusal(error.error_status_hint, f"not an HTTP request: {error}") from None


def _authenticate(request: h11.Request, settings: ProxySettings) -> None:
    if settings.credentials is None:
        return
    given = dict(request.headers).get(b"proxy-authorization", b"")
    scheme, _, text = given.partition(b" ")
    with contextlib.suppress(ValueError):
        name, _, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        if scheme.lower() == b"basic" and _same((name, password), settings.credentials):
            return
    raise HttpRefusal(407, "user name and password are wanted, or wrong", ("Proxy-Authenticate", 'Basic realm="netcon"'))


def _connect_target(request: h11.Request) -> tuple[Inet, bytes]:
    found = _AUTHORITY.fullmatch(request.target.decode("ascii", "replace"))
    if found is None or not 0 < int(found[3]) < 65536:
        raise HttpRefusal(400, "CONNECT wants host:port")
    return Inet(found[1] or found[2], int(found[3])), b""


def _plain_target(request: h11.Request) -> tuple[Inet, bytes]:
    """Where a request with a whole URL goes, and its head as the server wants it: for one request (Connection: close)."""
    try:
        url = urlsplit(request.target.decode("ascii"))
        host, port = url.hostname, url.port or 80
    except ValueError:
        raise HttpRefusal(400, "the URL cannot be understood") from None
    if url.scheme != "http" or not host:
        raise HttpRefusal(405, "this is a proxy: it takes CONNECT host:port, and requests for http://host/…", ("Allow", "CONNECT"))
    path = (url.path or ("*" if request.method == b"OPTIONS" else "/")) + (f"?{url.query}" if url.query else "")
    named = {
        name.strip().lower() for key, value in request.headers if key == b"connection" for name in value.split(b",")
    } | _HOP_BY_HOP
    lines = [b"%s %s HTTP/1.1" % (request.method, path.encode("ascii"))]
    lines += [b"%s: %s" % (key, value) for key, value in request.headers.raw_items() if key.lower() not in named]
    return Inet(host, port), b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _answer(refusal: HttpRefusal) -> bytes:
    text = f"{refusal}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text))), ("Connection", "close")]
    connection = h11.Connection(h11.SERVER)
    head = connection.send(h11.Response(status_code=refusal.status, headers=[*headers, *refusal.headers]))
    return (head or b"") + text


# ---- both ----


async def run_proxies(
    wanted: list[tuple[str, Place]],
    side: NetworkSide,
    started: Callable[[str], object],
    *,
    settings: ProxySettings,
    connections_max: int,
) -> None:
    """`wanted`: ("socks" or "http", where on the host). As `netcon.forward.command.run_forwards`."""
    handlers = {"socks": serve_socks, "http": serve_http}
    async with contextlib.AsyncExitStack() as stack:
        listeners = []
        for kind, place in wanted:
            listener = await HostSide().listen(place)
            stack.push_async_callback(listener.aclose)
            listeners.append((kind, listener))
        for kind, listener in listeners:
            started(f"{kind} proxy on {listener.place}")
        async with trio.open_nursery() as nursery:
            for kind, listener in listeners:
                handler = handlers[kind]

                async def handle(stream: Stream, handler: Callable[..., Awaitable[None]] = handler) -> None:
                    await handler(stream, side, settings)

                nursery.start_soon(serve, listener, handle, trio.Semaphore(connections_max))


def check_credentials(text: str) -> tuple[bytes, bytes]:
    """`NAME:PASSWORD`, of at most 255 bytes each (RFC 1929). Raises ForwardError."""
    name, colon, password = text.encode().partition(b":")
    if not colon or not 0 < len(name) < 256 or not 0 < len(password) < 256:
        raise ForwardError("user name and password are written NAME:PASSWORD, each of 1 to 255 bytes")
    return name, password
