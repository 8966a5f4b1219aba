"""The endpoints of captures: ours, not ZeroTier One's.

POST /network/{network}/capture makes one and tells its `socket`, a Unix socket from which one reader gets pcapng. GET /capture
lists them, GET and DELETE /capture/{id} show and end one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netcon.core.address import parse_network
from netcon.service.api import BadRequest, not_found, read_object, reply, route
from netcon.service.captures import CaptureRefused, CaptureRequest

if TYPE_CHECKING:
    from netcon.service.service import Service


class CaptureEndpoints:
    """Captures of the networks' frames."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        return [
            route("/network/{network}/capture", self.start, "POST"),
            route("/capture", self.captures),
            route("/capture/{capture:capture}", self.capture),
            route("/capture/{capture:capture}", self.finish, "DELETE"),
        ]

    async def start(self, request: Request) -> Response:
        port = self._service.ports.get(parse_network(request.path_params["network"]))
        if port is None:
            return not_found()
        try:
            wanted = msgspec.convert(await read_object(request), CaptureRequest)
            return reply(request, self._service.captures.start(port, wanted).as_object())
        except (msgspec.ValidationError, CaptureRefused) as error:
            raise BadRequest(str(error)) from None

    async def captures(self, request: Request) -> Response:
        return reply(request, [capture.as_object() for capture in self._service.captures.all()])

    async def capture(self, request: Request) -> Response:
        found = self._service.captures.get(request.path_params["capture"])
        return reply(request, found.as_object()) if found else not_found()

    async def finish(self, request: Request) -> Response:
        found = self._service.captures.get(request.path_params["capture"])
        if found is None:
            return not_found()
        self._service.captures.finish(found)
        return reply(request, {"result": True})


class _CaptureNumber(Convertor[int]):
    """A capture's number, of no more digits than Python reads."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("capture", _CaptureNumber())
