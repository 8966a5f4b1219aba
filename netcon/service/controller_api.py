"""The controller's endpoints (service-api §4). A reply leaves only after the records it tells about are committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netcon.controller.errors import InvalidRequest, UnknownMember, UnknownNetwork, UnknownToken
from netcon.core.address import parse_address, parse_network
from netcon.service.api import BadRequest, not_found, read_object, reply, route

if TYPE_CHECKING:
    from netcon.service.service import Service

_API_VERSION = 4


class ControllerEndpoints:
    """The endpoints of service-api §4. Available on every node."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        network = "/controller/network/{network}"
        member = network + "/member/{address}"
        return [
            route("/controller", self.overview),
            route("/controller/network", self.networks),
            route("/controller/network", self.create_network, "POST"),
            # Before the next: six underscores in the place of an id's last digits ask for a new network.
            Route("/controller/network/{pattern:new}", self.create_network_for, methods=["POST", "PUT"]),
            route(network, self.network),
            route(network, self.update_network, "POST"),
            route(network, self.delete_network, "DELETE"),
            route(network + "/member", self.members),
            route(member, self.member),
            route(member, self.update_member, "POST"),
            route(member, self.delete_member, "DELETE"),
            # Ours: join tokens that the network's record has no place for.
            route(network + "/token", self.tokens),
            route(network + "/token", self.create_token, "POST"),
            route(network + "/token/{token}", self.revoke_token, "DELETE"),
            route("/unstable/controller/network", self.network_records),
            route("/unstable/controller/network/{network}/member", self.member_records),
        ]

    async def overview(self, request: Request) -> Response:
        """Indented with tabs, in this order, with a final line feed (service-api §2)."""
        value = {"controller": True, "apiVersion": _API_VERSION, "clock": self._service.clock(), "databaseReady": True}
        return Response(json.dumps(value, indent="\t") + "\n", media_type="application/json")

    async def _committed(self, request: Request, record: Any) -> Response:
        await self._service.controller_changed()
        return reply(request, record)

    # -- networks --

    async def networks(self, request: Request) -> Response:
        return reply(request, self._service.controller.list_networks())

    async def create_network(self, request: Request) -> Response:
        changes = await read_object(request)
        return await self._committed(request, self._service.controller.create_network(self._service.clock(), changes))

    async def create_network_for(self, request: Request) -> Response:
        if int(request.path_params["pattern"], 16) != self._service.node.address:
            raise BadRequest(f"new networks of this controller begin with its own address, {self._service.node.address:010x}")
        return await self.create_network(request)

    async def network(self, request: Request) -> Response:
        try:
            return reply(request, self._service.controller.get_network(_network(request)))
        except UnknownNetwork:
            return not_found()

    async def update_network(self, request: Request) -> Response:
        changes = await read_object(request)
        try:
            record = self._service.controller.update_network(self._service.clock(), _network(request), changes)
        except InvalidRequest as error:
            raise BadRequest(str(error)) from None
        return await self._committed(request, record)

    async def delete_network(self, request: Request) -> Response:
        try:
            record = self._service.controller.delete_network(self._service.clock(), _network(request))
        except UnknownNetwork:
            return not_found()
        return await self._committed(request, record)

    async def network_records(self, request: Request) -> Response:
        controller = self._service.controller
        data = []
        for text in controller.list_networks():
            total, authorized = controller.count_members(parse_network(text))
            meta = {"totalMemberCount": total, "authorizedMemberCount": authorized}
            data.append({**controller.get_network(parse_network(text)), "meta": meta})
        return reply(request, {"data": data, "meta": {"networkCount": len(data)}})

    # -- members --

    async def members(self, request: Request) -> Response:
        try:
            return reply(request, self._service.controller.list_members(_network(request)))
        except UnknownNetwork:
            return not_found()

    async def member(self, request: Request) -> Response:
        try:
            return reply(request, self._service.controller.get_member(_network(request), _address(request)))
        except (UnknownNetwork, UnknownMember):
            return not_found()

    async def update_member(self, request: Request) -> Response:
        changes = await read_object(request)
        clock = self._service.clock()
        try:
            record = self._service.controller.update_member(clock, _network(request), _address(request), changes)
        except UnknownNetwork:
            return not_found()
        except InvalidRequest as error:
            raise BadRequest(str(error)) from None
        return await self._committed(request, record)

    async def delete_member(self, request: Request) -> Response:
        try:
            record = self._service.controller.delete_member(self._service.clock(), _network(request), _address(request))
        except (UnknownNetwork, UnknownMember):
            return not_found()
        return await self._committed(request, record)

    async def member_records(self, request: Request) -> Response:
        controller, network = self._service.controller, _network(request)
        try:
            data = [controller.get_member(network, parse_address(text)) for text in controller.list_members(network)]
            total, authorized = controller.count_members(network)
        except UnknownNetwork:
            return not_found()
        return reply(request, {"data": data, "meta": {"totalCount": total, "authorizedCount": authorized}})

    # -- join tokens --

    async def tokens(self, request: Request) -> Response:
        try:
            return reply(request, self._service.controller.list_tokens(_network(request), self._service.clock()))
        except UnknownNetwork:
            return not_found()

    async def create_token(self, request: Request) -> Response:
        wanted = await read_object(request)
        try:
            record = self._service.controller.create_token(self._service.clock(), _network(request), wanted)
        except UnknownNetwork:
            return not_found()
        except InvalidRequest as error:
            raise BadRequest(str(error)) from None
        return await self._committed(request, record)

    async def revoke_token(self, request: Request) -> Response:
        token = request.path_params["token"]
        try:
            record = self._service.controller.revoke_token(self._service.clock(), _network(request), token)
        except (UnknownNetwork, UnknownToken):
            return not_found()
        return await self._committed(request, record)


def _network(request: Request) -> int:
    return parse_network(request.path_params["network"])


def _address(request: Request) -> int:
    return parse_address(request.path_params["address"])


class _NewNetwork(Convertor[str]):
    """A node address and six underscores, as in /controller/network/0123456789______."""

    regex = "[0-9a-fA-F]{10}______"

    def convert(self, value: str) -> str:
        return value[:10]

    def to_string(self, value: str) -> str:
        return value + "______"


register_url_convertor("new", _NewNetwork())
