"""All forwards of one command, until it is cancelled."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

import trio

from netcon.forward.datagrams import DatagramForward
from netcon.forward.sides import HostSide, NetworkSide, Side
from netcon.forward.specification import Direction, Forward
from netcon.forward.streams import forward_stream, serve


async def run_forwards(
    forwards: Sequence[Forward],
    network: NetworkSide,
    started: Callable[[str], object],
    *,
    connections_max: int,
    flows_max: int,
    idle_s: float,
) -> None:
    """Listen for all, say so (`started`, one line for each), then serve.

    Raises ForwardError, OSError, ServiceUnavailable when one cannot start; BrokenResourceError (in a group) when the service goes.
    """
    host = HostSide()
    async with contextlib.AsyncExitStack() as stack:
        work: list[Callable[[], Awaitable[None]]] = []
        lines: list[str] = []
        for forward in forwards:
            listening, other = (host, network) if forward.direction is Direction.LOCAL else (network, host)
            work.append(await _start(forward, listening, other, stack, lines, connections_max, flows_max, idle_s))
        for line in lines:
            started(line)
        async with trio.open_nursery() as nursery:
            for each in work:
                nursery.start_soon(each)


async def _start(
    forward: Forward,
    listening: Side,
    other: Side,
    stack: contextlib.AsyncExitStack,
    lines: list[str],
    connections_max: int,
    flows_max: int,
    idle_s: float,
) -> Callable[[], Awaitable[None]]:
    where = "this host" if forward.direction is Direction.LOCAL else "the network"
    if forward.udp:
        socket = await listening.datagrams(forward.listen)
        stack.callback(socket.close)
        lines.append(f"listening on {where}, udp {socket.place}, for {forward.target}")
        return DatagramForward(socket, other, forward.target, idle_s=idle_s, flows_max=flows_max).run
    listener = await listening.listen(forward.listen)
    stack.push_async_callback(listener.aclose)
    lines.append(f"listening on {where}, {listener.place}, for {forward.target}")
    return lambda: serve(listener, lambda stream: forward_stream(stream, other, forward.target), trio.Semaphore(connections_max))
