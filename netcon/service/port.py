"""One joined network's port: a stack (lwIP), its Ethernet end on the ring to the engine, and the RPC paths programs find it by.

What is applied to the stack is what the controller sent and the local settings permit (vl2 §6.7).
"""

from __future__ import annotations

import ipaddress
import logging
import os
from pathlib import Path

import lwip
from netcon.core.address import MulticastGroup, groups_for_addresses
from netcon.core.netconf import NetworkConfig
from netcon.core.network import NetworkStatus
from netcon.dataplane.reactor import EngineEnd, Reactor, connect, disconnect
from netcon.service.paths import rpc_socket, well_known_sockets
from netcon.service.settings import NetworkSettings

log = logging.getLogger("netcon.port")

DEFAULT_MTU = 2800
#: ff02::1, which every IPv6 host listens to.
_ALL_NODES = MulticastGroup(bytes.fromhex("333300000001"), 0)


def interface_name(network: int, attempt: int = 0) -> str:
    """The name that ZeroTier gives the network's interface (vl2 §6.7), after `attempt` names were taken."""
    value = ((network ^ (network >> 24)) + attempt) & 0xFF_FFFF_FFFF
    return "zt" + "".join("abcdefghijklmnopqrstuvwxyz234567"[value >> shift & 31] for shift in range(35, -1, -5))


def permitted_addresses(config: NetworkConfig, settings: NetworkSettings) -> list[tuple[bytes, int]]:
    """What the controller gave, as far as it may, and what was added by hand."""
    given = [(ip, prefix) for ip, prefix in config.addresses if settings.permits(ip, prefix, target=False)]
    taken = {ip for ip, _ in given}
    return given + [(ip, prefix) for ip, prefix in settings.addresses if ip not in taken]


def permitted_routes(config: NetworkConfig, settings: NetworkSettings) -> list[tuple[bytes, int, bytes | None]]:
    """Routes to install, in order: those without a gateway first; none through ourselves, none that an address implies already."""
    addresses = permitted_addresses(config, settings)
    own = {ip for ip, _ in addresses}
    implied = {_network(ip, prefix) for ip, prefix in addresses}
    result = []
    for route in config.routes:
        target, prefix = route.target
        via = route.via.ip if route.via else None
        if via in own or not settings.permits(target, prefix, target=True):
            continue
        if not any(len(ip) == len(target) for ip, _ in addresses):
            continue
        if via is None and _network(target, prefix) in implied:
            continue
        result.append((target, prefix, via))
    return sorted(result, key=lambda route: route[2] is not None)


def _network(ip: bytes, prefix: int) -> str:
    return str(ipaddress.ip_network((ip, prefix), strict=False))


def _group_of(ip: bytes) -> MulticastGroup:
    """The Ethernet group of an IP group (RFC 1112 §6.4, RFC 2464 §7)."""
    if len(ip) == 4:
        return MulticastGroup(b"\x01\x00\x5e" + bytes([ip[1] & 0x7F]) + ip[2:], 0)
    return MulticastGroup(b"\x33\x33" + ip[12:], 0)


class NetworkPort:
    """The stack of one network and everything that hangs on it. `number` is its Ethernet end's number in the rings."""

    kind = "lwip"
    #: Why there is no stack; a stack that cannot be made is an error of the constructor.
    failure = None

    def __init__(self, reactor: Reactor, server: lwip.SocketServer, home: Path, network: int, mac: bytes, number: int) -> None:
        self.network = network
        self.number = number
        self.mac = mac
        self.mtu = DEFAULT_MTU
        self.restarts = 0
        self._reactor = reactor
        self._server = server
        self._addresses: dict[bytes, int] = {}
        self._routes: list[tuple[bytes, int, bytes | None]] = []
        self._end = EngineEnd(reactor, number)
        self._paths: list[Path] = []
        self._connected = False
        self.stack = self._start_stack()
        self._listen(rpc_socket(home, network))
        for path in well_known_sockets(network):
            try:
                self._listen(path)
            except OSError as error:
                log.warning(
                    "%s: %s; programs on this network need `netcon run -D %s` or NETCON_SOCK=%s",
                    path,
                    error.strerror,
                    home,
                    rpc_socket(home, network),
                )

    def _listen(self, path: Path) -> None:
        self._server.listen(os.fspath(path), network=self.network, mode=0o600)
        self._paths.append(path)

    def _start_stack(self) -> lwip.Stack:
        stack = lwip.Stack(self._reactor.capsule(), mac=self.mac, mtu=self.mtu, name=interface_name(self.network))
        connect(self._reactor, self._end.capsule(), stack.ethernet_end())
        self._connected = True
        self._server.add_network(self.network, stack)
        return stack

    def _disconnect(self) -> None:
        if self._connected:  # not if the stack that failed has no successor yet
            disconnect(self._reactor, self._end.capsule(), self.stack.ethernet_end())
            self._connected = False

    def configure(self, status: NetworkStatus, settings: NetworkSettings) -> None:
        """Bring the stack to what the network's configuration says and `settings` permits."""
        config = status.config
        if config is None:
            return
        if config.mtu != self.mtu:
            self.mtu = config.mtu
            self.stack.set_mtu(self.mtu)
        wanted = dict(permitted_addresses(config, settings))
        for ip in self._addresses.keys() - wanted.keys():
            self.stack.remove_address(str(ipaddress.ip_address(ip)))
        for ip, prefix in wanted.items():
            if self._addresses.get(ip) != prefix:
                if ip in self._addresses:
                    self.stack.remove_address(str(ipaddress.ip_address(ip)))
                self.stack.add_address(str(ipaddress.ip_address(ip)), prefix)
        self._addresses = wanted
        routes = permitted_routes(config, settings)
        if routes != self._routes:
            self._set_routes(routes)

    def _set_routes(self, routes: list[tuple[bytes, int, bytes | None]]) -> None:
        self._routes = routes
        self.stack.set_routes(
            [(_network(ip, prefix), str(ipaddress.ip_address(via)) if via else None) for ip, prefix, via in routes]
        )

    @property
    def end(self) -> EngineEnd:
        """The engine's side, which all frames pass."""
        return self._end

    @property
    def device(self) -> str:
        """The interface's name, as programs see it."""
        return interface_name(self.network)

    @property
    def addresses(self) -> list[bytes]:
        """Our virtual addresses, without the link-local one."""
        return list(self._addresses)

    def groups(self) -> set[MulticastGroup]:
        """The multicast groups this port must receive (vl2 §5.1): of each address, the stack's link-local one included, and those
        that the stack's sockets have joined."""
        own = [ipaddress.ip_address(ip).packed for ip, _ in self.stack.addresses()]
        joined = {_group_of(ipaddress.ip_address(group).packed) for group in self.stack.groups()}
        return groups_for_addresses(own) | joined | {_ALL_NODES}

    def restart_if_failed(self) -> bool:
        """After an lwIP assertion ended the stack: a new one in its place, with the same addresses. Its sockets were reset.

        OSError, StackError: there is no new one yet; call again.
        """
        failure = self.stack.failed
        if failure is None:
            return False
        self.restarts += 1
        log.error("network %016x: its stack failed (%s) and is started again", self.network, failure)
        self._disconnect()
        failed, self.stack = self.stack, self._start_stack()
        failed.close()
        for ip, prefix in self._addresses.items():
            self.stack.add_address(str(ipaddress.ip_address(ip)), prefix)
        self._set_routes(self._routes)
        return True

    def close(self) -> None:
        for path in self._paths:
            self._server.unlisten(os.fspath(path))
        self._server.remove_network(self.network)
        self._disconnect()
        self.stack.close()
