"""Endpoints of ours for what the API of ZeroTier One has no place for: events, messages between nodes (vl1 §4.15, vl2 §6.8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netcon.core.address import parse_address
from netcon.service.api import BadRequest, read_object, reply, route

if TYPE_CHECKING:
    from netcon.service.service import Service

#: Of a user message: with its type and the header it stays within seven pieces (vl1 §1.2).
MAX_MESSAGE = 9_800


class EventEndpoints:
    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        return [
            route("/netcon/events", self.events),
            route("/netcon/message/{address}", self.send_message, "POST"),
        ]

    async def events(self, request: Request) -> Response:
        """`?since=N`: events from number N on (1, the oldest kept, if left out); `&wait=SECONDS`: until there is one, 60 s at most;
        `&trace=1`: and have frames that are dropped told, too, for as long as somebody goes on asking so."""
        try:
            since, wait = int(request.query_params.get("since", "1")), float(request.query_params.get("wait", "0"))
        except ValueError:
            raise BadRequest("since and wait are numbers") from None
        if not math.isfinite(wait):
            raise BadRequest("wait is a number of seconds")
        if request.query_params.get("trace") == "1":
            self._service.trace_for_a_while()
        return reply(request, await self._service.events.since(since, wait))

    async def send_message(self, request: Request) -> Response:
        """`{"type": number, "data": hexadecimal}`: to another node, fire and forget. Types up to 65,535 are ZeroTier's own."""
        body = await read_object(request)
        number, text = body.get("type"), body.get("data", "")
        if not isinstance(number, int) or isinstance(number, bool) or not 0xFFFF < number < 1 << 64:
            raise BadRequest("type: a number above 65535, of up to 64 bits")
        try:
            data = bytes.fromhex(text)
        except (TypeError, ValueError):
            raise BadRequest("data: hexadecimal digits") from None
        if len(data) > MAX_MESSAGE:
            raise BadRequest(f"data: at most {MAX_MESSAGE} bytes")
        self._service.send_message(parse_address(request.path_params["address"]), number, data)
        return reply(request, {})
