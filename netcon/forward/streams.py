"""A listener and its connections: as many as allowed at a time, and none can end another."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable

import trio

from netcon.core.errors import NetconError
from netcon.forward.relay import relay
from netcon.forward.sides import Listening, Side, Stream, abort, close
from netcon.forward.specification import Place

log = logging.getLogger(__name__)

_PAUSE_S = 0.1  # when descriptors run out
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
CONNECT_TIMEOUT_S = 60.0


async def serve(listener: Listening, handle: Callable[[Stream], Awaitable[None]], slots: trio.Semaphore) -> None:
    """Handle each connection in a task, while `slots` are free: who comes later waits in the listener's queue.

    Raises BrokenResourceError when the listener itself is gone."""
    async with trio.open_nursery() as nursery:
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:
                slots.release()
                if error.errno not in _TRANSIENT:
                    raise
                log.warning("%s: %s; waiting for descriptors to become free", listener.place, error.strerror)
                await trio.sleep(_PAUSE_S)
                continue
            except BaseException:
                slots.release()
                raise
            nursery.start_soon(_one, listener.place, handle, stream, slots)


async def _one(place: Place, handle: Callable[[Stream], Awaitable[None]], stream: Stream, slots: trio.Semaphore) -> None:
    try:
        await handle(stream)
    except* (OSError, NetconError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:  # by a nursery, or without
        for error in errors.exceptions:
            log.warning("%s: a connection ended: %s", place, error)
    finally:
        close(stream)
        slots.release()


async def forward_stream(stream: Stream, side: Side, target: Place) -> None:
    """Join an accepted connection to a new one to `target` on `side`. One that cannot be made is a reset for who had connected."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            other = await side.connect(target)
    except trio.TooSlowError:
        await abort(stream)
        raise TimeoutError(errno.ETIMEDOUT, f"no connection to {target} within {CONNECT_TIMEOUT_S:g} s") from None
    except BaseException:
        with trio.CancelScope(shield=True):
            await abort(stream)
        raise
    await relay(stream, other)
