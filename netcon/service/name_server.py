"""DNS for the other members: port 53, UDP and TCP, on our own addresses of the networks that `settings.names.serve` names.

It says what we know of that network's names, and refuses all else: it asks nobody on behalf of a member, so it is no open resolver
and cannot be part of a loop. A port that a program holds already is left to it, and said in the log.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from netcon.core.errors import NetconError
from netcon.names.table import IP
from netcon.service.resolver import receive_exactly
from netcon.sockets import DatagramSocket, TcpStream, listen_tcp, open_udp

if TYPE_CHECKING:
    from netcon.service.names import Names

log = logging.getLogger("netcon.names")

PORT = 53
_RETRY_S = 5.0
_CONNECTION_S = 20.0  # idle, or slow
_CONNECTIONS = 32  # at once, for each address
_CONNECTIONS_OF_PEER = 4  # of them from one address: no member can keep the others out alone


#: (query, network, bytes that fit: None for UDP) -> the response, None for none.
Responder = Callable[[bytes, int, int | None], Awaitable[bytes | None]]


class NameServer:
    """Keeps a server on each address that should have one."""

    def __init__(self, names: Names, path: Callable[[int], str]) -> None:
        """`path`: of the socket RPC of a network."""
        self._names = names
        self._path = path
        self._serving: dict[tuple[int, IP], trio.CancelScope] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                changes = self._names.changes
                wanted = set(self._names.serving())
                for key in self._serving.keys() - wanted:
                    self._serving.pop(key).cancel()
                for key in wanted - self._serving.keys():
                    self._serving[key] = trio.CancelScope()
                    nursery.start_soon(self._keep, *key, self._serving[key])
                await changes.wait()

    async def _keep(self, network: int, ip: IP, scope: trio.CancelScope) -> None:
        reported = ""
        with scope:
            while True:
                try:
                    await serve(self._path(network), self._names.respond, network, str(ip))
                except (OSError, NetconError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    if str(error) != reported:
                        reported = str(error)
                        log.warning("no DNS on %s port %d: %s; tried again every %g s", ip, PORT, error, _RETRY_S)
                await trio.sleep(_RETRY_S)


async def serve(path: str, respond: Responder, network: int, ip: str, port: int = PORT) -> None:
    """Answer on one address of `network`, until cancelled. OSError: the port is taken, or the address has gone."""
    async with await open_udp(path, ip, port, network) as udp, await listen_tcp(path, ip, port, network) as listener:
        log.info("DNS for network %016x on %s port %d", network, ip, port)
        open_from: Counter[str] = Counter()

        async def accepted(stream: TcpStream) -> None:
            peer = stream.remote[0]
            if open_from.total() >= _CONNECTIONS or open_from[peer] >= _CONNECTIONS_OF_PEER:
                await stream.abort()  # one that waited would hold a descriptor
                return
            open_from[peer] += 1
            try:
                async with stream:
                    await answer_stream(stream, respond, network)
            finally:
                open_from[peer] -= 1
                if not open_from[peer]:
                    del open_from[peer]

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, accepted, [listener])
                await _datagrams(udp, respond, network)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None


async def _datagrams(udp: DatagramSocket, respond: Responder, network: int) -> None:
    while True:
        got = await udp.receive_from()
        response = await respond(got.data, network, None)
        if response is not None:
            await udp.send_to(response, got.peer)


async def answer_stream(stream: trio.abc.Stream, respond: Responder, network: int) -> None:
    """DNS over TCP (RFC 7766), until the other end has no more questions, or is slow."""
    try:
        while True:
            with trio.fail_after(_CONNECTION_S):
                length = int.from_bytes(await receive_exactly(stream, 2))
                wire = await receive_exactly(stream, length)
                response = await respond(wire, network, 65535)
                if response is None:
                    return
                await stream.send_all(len(response).to_bytes(2) + response)
    except (OSError, EOFError, trio.TooSlowError, trio.BrokenResourceError):
        return
