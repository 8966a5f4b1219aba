"""One connection: bytes both ways between two streams, each with its own end, and a reset as a reset.

Back-pressure is the sockets': a direction reads again only when all that it has read is sent. The bytes pass through Python:
splice by way of a pipe spares a quarter of this process's time, shows no clear gain in speed,
and takes four more descriptors for each connection (tests/bench/bench_forward.py).
"""

from __future__ import annotations

import trio

from netcon.forward.sides import Stream, abort, close

_CHUNK = 256 * 1024


async def relay(one: Stream, other: Stream, first: bytes = b"") -> None:
    """Until both directions have ended, or either stream breaks; then both are closed. `first` goes to `other` ahead of all else.

    Raises BrokenResourceError when a stream broke; then, and when cancelled, both ends see a reset.
    """
    broken: list[trio.BrokenResourceError] = []

    async def copy(source: Stream, sink: Stream, data: bytes = b"") -> None:
        try:
            while data or (data := await source.receive_some(_CHUNK)):
                await sink.send_all(data)
                data = b""
            await sink.send_eof()
        except trio.BrokenResourceError as error:
            broken.append(error)
            nursery.cancel_scope.cancel()

    whole = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other, first)
            nursery.start_soon(copy, other, one)
        whole = not broken
    finally:
        if not whole:
            with trio.CancelScope(shield=True):  # each is bounded in time
                await abort(one)
                await abort(other)
    if broken:
        raise broken[0]
    close(one)
    close(other)
