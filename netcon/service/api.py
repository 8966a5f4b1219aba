"""The local HTTP API (service-api §2, §3), and the servers it is reached by.

Two doors lead to the same endpoints: a Unix socket in the home's 0700 folder, where reaching it is the permission; and 127.0.0.1,
where each request shows the token, and a Host header of this machine, so that no web page can reach it by a name that it re-points
(DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from netcon.core.address import format_endpoint, parse_address, parse_network
from netcon.core.errors import DecodeError, NetconError
from netcon.core.netconf import check_token
from netcon.policy import PolicyError
from netcon.service.errors import ServiceError, SettingsError
from netcon.service.paths import api_socket
from netcon.service.shapes import answer_object, moon_object, names_object, network_object, peer_object, version_fields

if TYPE_CHECKING:
    from netcon.service.service import Service

log = logging.getLogger("netcon.api")

#: Largest request body; the rules and capabilities of a large network fit many times.
BODY_MAX = 4 << 20
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_JSONP_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,99}")
_KEEP_ALIVE_S = 60

Handler = Callable[[Request], Awaitable[Response]]


class BodyTooLarge(NetconError):
    """A request body over BODY_MAX."""


class BadRequest(NetconError):
    """A request that makes no sense; the text says why."""


def reply(request: Request, value: Any, status: int = 200) -> Response:
    """`value` as compact JSON with sorted keys, wrapped if `?jsonp=name` asks for it (service-api §2)."""
    body = msgspec.json.encode(value, order="deterministic")
    name = request.query_params.get("jsonp")
    if name is not None and _JSONP_NAME.fullmatch(name):
        return Response(name.encode() + b"(" + body + b");", status, media_type="application/javascript")
    return Response(body, status, media_type="application/json")


def not_found() -> Response:
    """For a path that names nothing: 404 with an empty body."""
    return Response(b"", 404)


async def read_body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX:
            raise BodyTooLarge(f"the request body is over {BODY_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


async def read_object(request: Request) -> dict[str, Any]:
    """A body that must be a JSON object; an empty one is `{}`. BadRequest."""
    body = await read_body(request)
    if not body.strip():
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


async def read_object_or_nothing(request: Request) -> dict[str, Any]:
    """For POST /network, where an invalid body is ignored (service-api §3.4)."""
    try:
        return await read_object(request)
    except BadRequest:
        return {}


class NodeEndpoints:
    """The endpoints of service-api §3."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        return [
            route("/status", self.status),
            route("/health", self.health),
            route("/config", self.config),
            route("/config/settings", self.store_settings, "POST"),
            route("/policy", self.policy),
            route("/policy", self.set_policy, "POST"),
            route("/network", self.networks),
            route("/network/{network}", self.network),
            route("/network/{network}", self.join_network, "POST"),
            route("/network/{network}", self.leave_network, "DELETE"),
            route("/peer", self.peers),
            route("/peer/{address}", self.peer),
            route("/names", self.names),
            route("/names/{name}", self.name),
            route("/moon", self.moons),
            route("/moon/{moon}", self.moon),
            route("/moon/{moon}", self.orbit, "POST"),
            route("/moon/{moon}", self.deorbit, "DELETE"),
        ]

    async def status(self, request: Request) -> Response:
        service = self._service
        node, settings = service.node, service.conf.settings
        raw_settings = service.conf.raw.get("settings", {})
        completed = {
            **raw_settings,
            "allowTcpFallbackRelay": settings.allowTcpFallbackRelay,
            "forceTcpRelay": settings.forceTcpRelay,
            "primaryPort": service.wire.primary_port,
            "secondaryPort": service.wire.secondary_port,
            "tertiaryPort": service.wire.tertiary_port,
            "listeningOn": service.wire.listening_on(),
            "surfaceAddresses": [format_endpoint(endpoint) for endpoint in node.surface_endpoints(service.clock())],
            "portMappingEnabled": service.conf.maps_ports,
            "softwareUpdate": settings.softwareUpdate,
            "softwareUpdateChannel": settings.softwareUpdateChannel,
            "homeDir": str(service.home.path),
        }
        return reply(
            request,
            {
                "address": f"{node.address:010x}",
                "publicIdentity": node.identity.to_text(),
                "online": node.online,
                "tcpFallbackActive": False,
                **version_fields(service.version),
                "versionBuild": 0,
                "clock": service.clock(),
                "planetWorldId": node.planet.id,
                "planetWorldTimestamp": node.planet.timestamp,
                "config": {**service.conf.raw, "settings": completed},
            },
        )

    async def health(self, request: Request) -> Response:
        service = self._service
        return reply(
            request,
            {"online": service.node.online, **version_fields(service.version), "versionBuild": 0, "clock": service.clock()},
        )

    async def config(self, request: Request) -> Response:
        return reply(request, self._service.conf.raw)

    async def store_settings(self, request: Request) -> Response:
        await self._service.store_settings(await read_object(request))
        return reply(request, {})

    async def policy(self, request: Request) -> Response:
        """`policy`: the text in force, as it is formatted; `text`: as it was given."""
        given = self._service.conf.settings.policy
        text = given if isinstance(given, str) else "\n".join(given)
        return reply(request, {"policy": str(self._service.conf.policy()), "text": text})

    async def set_policy(self, request: Request) -> Response:
        text = (await read_object(request)).get("policy")
        if not isinstance(text, str):
            raise BadRequest('the body has no "policy", a text')
        try:
            await self._service.set_policy(text)
        except PolicyError as error:
            raise BadRequest(str(error)) from None
        return await self.policy(request)

    # -- networks --

    def _network_object(self, network: int) -> dict[str, Any] | None:
        service = self._service
        status = service.node.network(network)
        port = service.ports.get(network)
        if status is None or port is None:
            return None
        return network_object(status, service.network_settings[network], port.kind, port.device)

    async def networks(self, request: Request) -> Response:
        return reply(request, [self._network_object(network) for network in sorted(self._service.ports)])

    async def network(self, request: Request) -> Response:
        found = self._network_object(parse_network(request.path_params["network"]))
        return reply(request, found or {}, 200 if found else 404)

    async def join_network(self, request: Request) -> Response:
        network = parse_network(request.path_params["network"])
        if network == 0:
            raise BadRequest("0000000000000000 names no network; ask its owner for the id")
        body = await read_object_or_nothing(request)
        token = body.get("token", "")  # ours: real clients send none
        if not isinstance(token, str):
            raise BadRequest("token: a join token is text")
        if token:
            try:
                check_token(token)
            except NetconError as error:
                raise BadRequest(str(error)) from None
        await self._service.join(network, body, token)
        return reply(request, self._network_object(network))

    async def leave_network(self, request: Request) -> Response:
        left = await self._service.leave(parse_network(request.path_params["network"]))
        return reply(request, {"result": True} if left else {})

    # -- peers --

    async def peers(self, request: Request) -> Response:
        peers = sorted(self._service.node.peers(), key=lambda peer: peer.address)
        return reply(request, [peer_object(peer) for peer in peers])

    async def peer(self, request: Request) -> Response:
        address = parse_address(request.path_params["address"])
        for peer in self._service.node.peers():
            if peer.address == address:
                return reply(request, peer_object(peer))
        return reply(request, {})

    # -- names (ours) --

    async def names(self, request: Request) -> Response:
        """What is known without asking anybody, and each network's domain and servers."""
        return reply(request, names_object(self._service.names.view()))

    async def name(self, request: Request) -> Response:
        """What a program would get for a name or an address, and who says so. `?network=` is the program's."""
        try:
            network = parse_network(request.query_params["network"]) if "network" in request.query_params else 0
        except DecodeError as error:
            raise BadRequest(str(error)) from None
        text = request.path_params["name"]
        resolver = self._service.names.resolver
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            answer = await resolver.addresses(text, network=network)
        else:
            answer = await resolver.name_of(ip, network)
        return reply(request, answer_object(answer, resolver.ordered(answer)))

    async def moons(self, request: Request) -> Response:
        return reply(request, [moon_object(moon) for moon in sorted(self._service.node.moons(), key=lambda moon: moon.id)])

    def _moon_object(self, moon: int) -> dict[str, Any] | None:
        return next((moon_object(known) for known in self._service.node.moons() if known.id == moon), None)

    async def moon(self, request: Request) -> Response:
        found = self._moon_object(int(request.path_params["moon"], 16))
        return reply(request, found or {}, 200 if found else 404)

    async def orbit(self, request: Request) -> Response:
        moon = int(request.path_params["moon"], 16)
        seed = (await read_object_or_nothing(request)).get("seed")
        number = int(seed, 16) if isinstance(seed, str) and _is_hex(seed) and len(seed) == 10 else 0
        if not await self._service.orbit(moon, number):
            raise BadRequest(
                f"moons.d has no {moon:016x}.moon: give a seed, the address of one of its roots; or 32 moons are too many"
            )
        return reply(request, self._moon_object(moon))

    async def deorbit(self, request: Request) -> Response:
        await self._service.deorbit(int(request.path_params["moon"], 16))
        return reply(request, {"result": True})


def route(path: str, handler: Handler, method: str = "GET") -> Route:
    """A route of the API; PUT is an alias of POST everywhere (service-api §2)."""

    async def endpoint(request: Request) -> Response:
        for name, digits in (("network", (16,)), ("address", (10,)), ("moon", (10, 16))):
            text = request.path_params.get(name, "")
            if text and (len(text) not in digits or not _is_hex(text)):
                return not_found()
        return await handler(request)

    return Route(path, endpoint, methods=["POST", "PUT"] if method == "POST" else [method])


def _is_hex(text: str) -> bool:
    return re.fullmatch("[0-9a-fA-F]+", text) is not None


def _presented_token(request: Request) -> str:
    """The first of header, query, Authorization that is present is the only one examined (service-api §2)."""
    if (given := request.headers.get("x-zt1-auth")) is not None:
        return given
    if (given := request.query_params.get("auth")) is not None:
        return given
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _is_loopback_host(request: Request) -> bool:
    """Every Host header names this machine. None at all is HTTP/1.0, which no browser speaks."""
    return all(re.sub(r":\d*$", "", host).lower() in _LOOPBACK_NAMES for host in request.headers.getlist("host"))


class TokenGate:
    """ASGI middleware of the TCP door: loopback Host headers and the token, or 401 with `{}`."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may_pass(Request(scope)):
            await Response(b"{}", 401, media_type="application/json")(scope, receive, send)
        elif scope["type"] in ("http", "lifespan"):
            await self._app(scope, receive, send)

    def _may_pass(self, request: Request) -> bool:
        if not _is_loopback_host(request):
            return False
        presented = _presented_token(request).encode("utf-8", "surrogateescape")
        return request.url.path == "/health" or hmac.compare_digest(presented, self._token)


def make_app(service: Service) -> Starlette:
    """All endpoints, without a gate."""
    from netcon.service.capture_api import CaptureEndpoints
    from netcon.service.controller_api import ControllerEndpoints
    from netcon.service.event_api import EventEndpoints

    async def refused(request: Request, error: Exception) -> Response:
        return Response(b"", 404)

    async def too_large(request: Request, error: Exception) -> Response:
        return reply(request, {}, 413)

    async def bad_request(request: Request, error: Exception) -> Response:
        return reply(request, {"error": 400, "description": str(error)}, 400)

    async def failed(request: Request, error: Exception) -> Response:
        if not isinstance(error, ServiceError):
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return reply(request, {"error": 500, "description": str(error)}, 500)

    return Starlette(
        routes=[
            *NodeEndpoints(service).routes(),
            *ControllerEndpoints(service).routes(),
            *CaptureEndpoints(service).routes(),
            *EventEndpoints(service).routes(),
        ],
        exception_handlers={
            404: refused,
            405: refused,
            BodyTooLarge: too_large,
            BadRequest: bad_request,
            SettingsError: bad_request,
            ServiceError: failed,
            500: failed,
        },
    )


def _configuration() -> Config:
    config = Config()
    config.include_server_header = False
    config.include_date_header = False
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.read_timeout = _KEEP_ALIVE_S
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


async def serve_api(nursery: trio.Nursery, service: Service, control: socket.socket) -> None:
    """Open both doors; returns when they answer. `control`: the listening TCP socket on 127.0.0.1."""
    path = api_socket(service.home.path)
    path.unlink(missing_ok=True)  # we hold the home's lock: what is left there is dead
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    local.bind(os.fspath(path))
    path.chmod(0o600)
    local.listen(100)
    app = make_app(service)
    doors: tuple[tuple[Any, socket.socket], ...] = ((app, local), (TokenGate(app, service.token), control))
    for door, listener in doors:
        await nursery.start(
            partial(worker_serve, wrap_app(door, BODY_MAX, "asgi"), _configuration(), sockets=Sockets([], [listener], []))
        )
