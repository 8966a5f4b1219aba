"""UDP: each sender to the listening socket gets a flow, a connected socket of its own on the other side, until it is idle.

The table is bounded: a new sender ends the flow that was idle longest. What one flow's socket refuses is lost, as on the wire.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import trio

from netcon.core.errors import NetconError
from netcon.forward.sides import Datagrams, Flow, Peer, Side
from netcon.forward.specification import Place

log = logging.getLogger(__name__)

_QUEUE = 64  # datagrams that wait until a flow's socket is made


class _Flow:
    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.queue, self.waiting = trio.open_memory_channel[bytes](_QUEUE)


class DatagramForward:
    """Forwards what comes to `listening` to `target` on `side`, and back."""

    def __init__(self, listening: Datagrams, side: Side, target: Place, *, idle_s: float, flows_max: int) -> None:
        self._listening, self._side, self._target = listening, side, target
        self._idle_s, self._flows_max = idle_s, flows_max
        self._flows: OrderedDict[Peer, _Flow] = OrderedDict()  # the one that was idle longest comes first

    @property
    def flows(self) -> int:
        return len(self._flows)

    async def run(self) -> None:
        """Raises BrokenResourceError when the listening socket is gone."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    data, peer = await self._listening.receive()
                except OSError as error:  # an ICMP error of somebody to whom we had answered
                    log.info("%s: %s", self._listening.place, error)
                    await trio.lowlevel.checkpoint()
                    continue
                flow = self._flows.get(peer)
                if flow is None:
                    if len(self._flows) >= self._flows_max:
                        _, idle = self._flows.popitem(last=False)
                        idle.scope.cancel()
                    flow = self._flows[peer] = _Flow()
                    nursery.start_soon(self._run, peer, flow)
                self._touch(peer, flow)
                try:
                    flow.queue.send_nowait(data)
                except trio.WouldBlock:
                    log.debug("%s: a datagram of %s is lost, its flow is full", self._listening.place, peer)

    def _touch(self, peer: Peer, flow: _Flow) -> None:
        if self._flows.get(peer) is flow:
            self._flows.move_to_end(peer)
            flow.scope.deadline = trio.current_time() + self._idle_s

    async def _run(self, peer: Peer, flow: _Flow) -> None:
        made: Flow | None = None
        try:
            with flow.scope:
                made = await self._side.flow(self._target)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._back, peer, flow, made)
                    async for data in flow.waiting:
                        try:
                            await made.send(data)
                        except OSError as error:
                            log.info("%s: %s", self._target, error)
        except* (OSError, NetconError, trio.BrokenResourceError) as errors:
            for each in errors.exceptions:
                log.warning("%s: a flow ended: %s", self._listening.place, each)
        finally:
            if self._flows.get(peer) is flow:
                del self._flows[peer]
            flow.queue.close()
            flow.waiting.close()
            if made is not None:
                made.close()

    async def _back(self, peer: Peer, flow: _Flow, made: Flow) -> None:
        while True:
            try:
                data = await made.receive()
                await self._listening.send(data, peer)
            except OSError as error:  # refused, or gone: the program that asks learns it by its timer, as behind a NAT
                log.info("%s: %s", self._target, error)
                await trio.lowlevel.checkpoint()
            else:
                self._touch(peer, flow)
