"""The two sides of a forward behind one face: the host's sockets (kernel), and the network's (`netcon.sockets`).

Streams are trio's. A bound datagram socket is `Datagrams`, a connected one is a `Flow`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Protocol

import trio

from netcon.forward.specification import ForwardError, Inet, Place, Unix
from netcon.sockets import DatagramSocket, Networks, TcpStream, listen_tcp, open_tcp, open_udp, resolve

Peer = tuple[str, int]
Stream = trio.SocketStream | TcpStream

_DATAGRAM_MAX = 65536
_SOCKET_MODE = 0o600
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds


class Listening(Protocol):
    """A listener; `place` is where it listens, with the port that it got."""

    place: Place

    async def accept(self) -> Stream: ...

    async def aclose(self) -> None: ...


class Datagrams(Protocol):
    """A datagram socket that hears from anybody."""

    place: Place

    async def receive(self) -> tuple[bytes, Peer]: ...

    async def send(self, data: bytes, to: Peer) -> None: ...

    def close(self) -> None: ...


class Flow(Protocol):
    """A datagram socket that hears from one peer."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    def close(self) -> None: ...


class Side(Protocol):
    async def connect(self, place: Place) -> Stream: ...

    async def listen(self, place: Place) -> Listening: ...

    async def datagrams(self, place: Place) -> Datagrams: ...

    async def flow(self, place: Place) -> Flow: ...


def close(stream: Stream) -> None:
    """Close at once. It is no checkpoint, as `aclose` is: what follows is done even where all is cancelled."""
    stream.socket.close()


async def abort(stream: Stream) -> None:
    """Close so that the other end learns that the stream is not complete."""
    if isinstance(stream, TcpStream):
        await stream.abort()
        return
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    close(stream)


# ---- the network ----


class _NetworkListener:
    def __init__(self, listener: trio.abc.Listener[TcpStream], place: Place) -> None:
        self._listener = listener
        self.place = place

    async def accept(self) -> Stream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


class _NetworkDatagrams:
    def __init__(self, made: DatagramSocket, place: Place) -> None:
        self._made = made
        self.place = place

    async def receive(self) -> tuple[bytes, Peer]:
        got = await self._made.receive_from()
        return got.data, got.peer

    async def send(self, data: bytes, to: Peer) -> None:
        await self._made.send_to(data, to)

    def close(self) -> None:
        self._made.close()


class NetworkSide:
    """The networks of the service at `path`, or one or some of them. Names are those of the networks."""

    def __init__(self, path: str | os.PathLike[str], network: Networks = None) -> None:
        self.path, self.network = path, network

    async def addresses(self, host: str) -> list[str]:
        """At least one, best first. Raises OSError, ServiceUnavailable."""
        return await resolve(self.path, host, network=self.network)

    async def connect(self, place: Place) -> Stream:
        assert isinstance(place, Inet)
        *others, last = await self.addresses(place.host)
        for address in others:
            with contextlib.suppress(OSError):
                return await open_tcp(self.path, address, place.port, self.network)
        return await open_tcp(self.path, last, place.port, self.network)

    async def listen(self, place: Place) -> Listening:
        assert isinstance(place, Inet)
        listener = await listen_tcp(self.path, (await self.addresses(place.host))[0], place.port, self.network)
        return _NetworkListener(listener, Inet(*listener.local))

    async def datagrams(self, place: Place) -> Datagrams:
        assert isinstance(place, Inet)
        made = await open_udp(self.path, (await self.addresses(place.host))[0], place.port, self.network)
        return _NetworkDatagrams(made, Inet(*await made.getsockname()))

    async def flow(self, place: Place) -> Flow:
        assert isinstance(place, Inet)
        address = (await self.addresses(place.host))[0]
        made = await open_udp(self.path, "::" if ":" in address else "0.0.0.0", 0, self.network)
        try:
            await made.connect(address, place.port)
        except BaseException:
            made.close()
            raise
        return made


# ---- the host ----


class _HostListener:
    def __init__(self, sock: trio.socket.SocketType, place: Place, file: tuple[int, int] | None = None) -> None:
        self._listener = trio.SocketListener(sock)
        self._file = file  # device and inode of a Unix socket
        self.place = place

    async def accept(self) -> Stream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        if isinstance(self.place, Unix) and self._file is not None:
            with contextlib.suppress(OSError):  # the file may be somebody else's by now
                status = os.lstat(self.place.path)
                if (status.st_dev, status.st_ino) == self._file:
                    os.unlink(self.place.path)
        await self._listener.aclose()


class _HostDatagrams:
    def __init__(self, sock: trio.socket.SocketType, place: Place) -> None:
        self._sock = sock
        self.place = place

    async def receive(self) -> tuple[bytes, Peer]:
        data, peer = await self._sock.recvfrom(_DATAGRAM_MAX)
        return data, peer

    async def send(self, data: bytes, to: Peer) -> None:
        await self._sock.sendto(data, to)

    def close(self) -> None:
        self._sock.close()


class _HostFlow:
    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        await self._sock.send(data)

    async def receive(self) -> bytes:
        return await self._sock.recv(_DATAGRAM_MAX)

    def close(self) -> None:
        self._sock.close()


class HostSide:
    """The host's own TCP, UDP and Unix sockets; names are the host's."""

    async def connect(self, place: Place) -> Stream:
        if isinstance(place, Unix):
            return await trio.open_unix_socket(place.path)
        return await trio.open_tcp_stream(place.host, place.port)

    async def listen(self, place: Place) -> Listening:
        if isinstance(place, Unix):
            return _listen_unix(place)
        sock = await self._bound(place, socket.SOCK_STREAM)
        sock.listen(128)
        return _HostListener(sock, Inet(*sock.getsockname()[:2]))

    async def datagrams(self, place: Place) -> Datagrams:
        assert isinstance(place, Inet)
        sock = await self._bound(place, socket.SOCK_DGRAM)
        return _HostDatagrams(sock, Inet(*sock.getsockname()[:2]))

    async def flow(self, place: Place) -> Flow:
        assert isinstance(place, Inet)
        found = await trio.socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        sock = trio.socket.socket(family, kind, protocol)
        try:
            await sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return _HostFlow(sock)

    async def _bound(self, place: Inet, kind: socket.SocketKind) -> trio.socket.SocketType:
        try:
            found = await trio.socket.getaddrinfo(place.host, place.port, type=kind, flags=socket.AI_PASSIVE)
            family, _, protocol, _, address = found[0]
            sock = trio.socket.socket(family, kind, protocol)
        except OSError as error:
            raise ForwardError(f"{place}: {error.strerror or error}") from None
        try:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place.host != "::"))
            await sock.bind(address)
        except OSError as error:
            sock.close()
            raise ForwardError(f"cannot listen on {place}: {error.strerror}; choose another port or address") from None
        return sock


def _listen_unix(place: Unix) -> _HostListener:
    """A socket file that is never open to others, in the place of a dead one at most."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), _SOCKET_MODE)  # the file gets it from the socket: not even between bind and chmod is it open
        try:
            sock.bind(place.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(place.path):
                raise
            os.unlink(place.path)
            sock.bind(place.path)
        os.chmod(place.path, _SOCKET_MODE)
        status = os.lstat(place.path)
        sock.listen(128)
        sock.setblocking(False)
        return _HostListener(trio.socket.from_stdlib_socket(sock), place, (status.st_dev, status.st_ino))
    except OSError as error:
        sock.close()
        raise ForwardError(f"cannot listen on {place}: {error.strerror or error}; another program may hold it") from None


def _is_dead(path: str) -> bool:
    """A socket file behind which nobody listens."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
