"""What the service knows of names at one moment: from the networks' configurations, its own controller and `local.conf`."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from netcon.controller.controller import Controller
from netcon.core.address import controller_of, parse_address, rfc4193_address, sixplane_address
from netcon.core.netconf import NetworkConfig
from netcon.names.table import IP, IPNetwork, Member, NameTable, NetworkNames, label_of
from netcon.policy import Target
from netcon.service.name_server import NameServer, answer_stream
from netcon.service.paths import rpc_socket
from netcon.service.port import NetworkPort, permitted_addresses, permitted_routes
from netcon.service.resolv_conf import host_name_servers
from netcon.service.resolver import Resolver, View, network_asker
from netcon.service.settings import NetworkSettings

if TYPE_CHECKING:
    from netcon.service.service import Service

log = logging.getLogger("netcon.names")


_STREAMS_OF_A_USER = 32  # connections to a name server, at once


def _ip(packed: bytes) -> IP:
    return ipaddress.ip_address(packed)


def network_names(
    network: int, node: int, config: NetworkConfig, settings: NetworkSettings, controller: Controller, host: str
) -> NetworkNames:
    """The names of one joined network. `node`: our address. `host`: this machine's name."""
    own = tuple(_ip(ip) for ip, _ in permitted_addresses(config, settings))
    prefixes = [ipaddress.ip_network((ip, prefix), strict=False) for ip, prefix in permitted_addresses(config, settings)]
    prefixes += [ipaddress.ip_network((ip, prefix), strict=False) for ip, prefix, _ in permitted_routes(config, settings) if prefix]
    members = controller_members(network, controller) if controller_of(network) == node else []
    members.append(Member(node, label_of(host.partition(".")[0]), own, "this node"))
    assigned = {ip for ip, _ in config.addresses}
    return NetworkNames(
        network,
        domain=config.dns_domain if settings.managed else "",
        servers=tuple(ip for ip in map(_ip, config.dns_servers) if ip not in own) if settings.managed else (),
        members=tuple(members),
        prefixes=tuple(dict.fromkeys(prefixes)),
        rfc4193=rfc4193_address(network, node) in assigned,
        sixplane=sixplane_address(network, node) in assigned,
    )


def controller_members(network: int, controller: Controller) -> list[Member]:
    """The authorised members of a network of our own controller, the oldest first: it keeps its name."""
    if f"{network:016x}" not in controller.list_networks():
        return []
    records: list[tuple[int, int, dict[str, Any]]] = []
    for text in controller.list_members(network):
        address = parse_address(text)
        record = controller.get_member(network, address)
        if record["authorized"]:
            records.append((record["creationTime"], address, record))
    return [
        Member(address, label_of(record["name"]), tuple(map(ipaddress.ip_address, record["ipAssignments"])), "the controller")
        for _, address, record in sorted(records, key=lambda entry: entry[:2])
    ]


class Names:
    """The service's names. `changed` after anything that they are made of."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._view: View | None = None
        self.resolver = Resolver(self.view, network_asker(service.rpc_path))
        self.changes = trio.Event()
        self._streams: Counter[int] = Counter()
        self._host_servers: list[IP] = []
        self.look_at_host()

    def look_at_host(self) -> None:
        """The name servers of the host are ours for programs, unless policy says otherwise: learn which they are."""
        found = host_name_servers()
        if found != self._host_servers:
            self._host_servers = found
            self._service.server.set_name_servers([ip.packed for ip in found])

    def changed(self) -> None:
        self._view = None
        self.changes.set()
        self.changes = trio.Event()

    def view(self) -> View:
        if self._view is None:
            self._view = self._make()
        return self._view

    def _make(self) -> View:
        service = self._service
        networks: list[NetworkNames] = []
        sources: list[IP] = []
        reachable: list[IPNetwork] = []
        for network, port in sorted(service.ports.items()):
            status = service.node.network(network)
            if status is None or status.config is None:
                continue
            settings = service.network_settings[network]
            host = socket.gethostname()
            each = network_names(network, service.node.address, status.config, settings, service.controller, host)
            if isinstance(port, NetworkPort):
                sources += map(_ip, port.addresses)
                reachable += each.prefixes
            else:
                each = dataclasses.replace(each, servers=())  # only a stack could ask them
            networks.append(each)
        names = service.conf.settings.names
        return View(
            NameTable(networks, names.hosts),
            tuple(networks),
            tuple(sources),
            tuple(reachable),
            service.conf.policy().names == Target.HOST,
        )

    def serving(self) -> list[tuple[int, IP]]:
        """The networks and our addresses on them where other members may ask us (`settings.names.serve`)."""
        wanted = {int(network, 16) for network in self._service.conf.settings.names.serve}
        ports = self._service.ports
        stacks = {network: port for network, port in ports.items() if network in wanted and isinstance(port, NetworkPort)}
        return [(network, _ip(ip)) for network, port in stacks.items() for ip in port.addresses]

    async def run(self) -> None:
        """Answers programs and members, until cancelled."""
        server = NameServer(self, lambda network: os.fspath(rpc_socket(self._service.home.path, network)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await self.answer_programs()

    async def respond(self, wire: bytes, network: int, limit: int | None) -> bytes | None:
        """To another member's DNS query; whatever it is, the server goes on."""
        try:
            return (await self.resolver.respond(wire, network, limit=limit, forward=False))[1]
        except Exception:
            self._service.defect("a DNS query")
            return None

    async def answer_programs(self) -> None:
        """Answers the questions that come by socket RPC, each in a task of its own, until cancelled."""
        server = self._service.server
        fileno = server.questions_fileno()
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(fileno)
                for question, uid, network, kind, flags, family, room, data, stream in server.take_questions():
                    if stream >= 0:
                        nursery.start_soon(self._answer_stream, stream, uid, network)
                    else:
                        nursery.start_soon(self._answer, question, network, kind, flags, family, room or None, data)

    async def _answer_stream(self, descriptor: int, uid: int, network: int) -> None:
        """A program's connection to a name server of the host."""
        end = socket.socket(fileno=descriptor)
        end.setblocking(False)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(end)) as stream:
            if self._streams[uid] >= _STREAMS_OF_A_USER:
                return
            self._streams[uid] += 1
            try:
                await answer_stream(stream, self._respond_to_program, network)
            finally:
                self._streams[uid] -= 1

    async def _respond_to_program(self, wire: bytes, network: int, limit: int | None) -> bytes | None:
        try:
            return (await self.resolver.respond(wire, network, limit=limit))[1]
        except Exception:
            self._service.defect("a DNS query")
            return None

    async def _answer(self, question: int, network: int, kind: int, flags: int, family: int, room: int | None, data: bytes) -> None:
        error, status, reply = errno.EIO, 0, b""
        try:
            status, reply = await self.resolver.answer(kind, data, family, flags, network, room)
            error = 0
        except ValueError:
            error = errno.EINVAL
        except Exception:
            self._service.defect("a question about a name")
        self._service.server.answer_question(question, error=error, value=status, data=reply)
