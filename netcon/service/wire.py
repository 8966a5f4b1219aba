"""Which UDP sockets the reactor has (vl1 §5.13): one per usable interface address and port, looked at again whenever the kernel
says that an address changed, and every 30 s.

A socket is bound to its interface as well as to its address: what it sends leaves there, whatever the machine's routes prefer, so
that nothing ever leaves by an interface that the user excluded, and each way to the outside is tried.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import random
import socket
from collections.abc import Iterable

from netcon.core.actions import Endpoint
from netcon.dataplane.reactor import Reactor
from netcon.service.errors import ServiceError
from netcon.service.interfaces import InterfaceAddress, default_gateways, interface_addresses, usable_addresses
from netcon.service.port_mapping import Gateway, behind_nat
from netcon.service.settings import DEFAULT_PORT, RANDOM_PORTS, LocalConf

log = logging.getLogger("netcon.wire")

_LOOPBACK = bytes((127, 0, 0, 1))
_TRIES = 100
_OFFLINE_S = 120.0  # vl1 §5.13


def open_control_port(conf: LocalConf, override: int | None, last: int | None) -> socket.socket:
    """Choose the primary port, which must be free for UDP and TCP: the listening TCP socket of the API on 127.0.0.1.

    `override` is the command line's. 0 is any: the `last` one if it is free, for peers go on sending to it for a while after a
    restart; else a random one. ServiceError when the wanted port is taken.
    """
    wanted = override if override is not None else conf.settings.primaryPort
    if wanted is None:
        wanted = DEFAULT_PORT
    for attempt in range(_TRIES):
        port = wanted or (last if last in RANDOM_PORTS and not attempt else None) or random.choice(RANDOM_PORTS)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", port))
            tcp.listen(100)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as udp:
                udp.bind(("0.0.0.0", port))
        except OSError as error:
            tcp.close()
            if wanted:
                raise ServiceError(
                    f"port {port}: {error.strerror} (another ZeroTier service?); "
                    "choose another with `-p PORT` (0: any) or settings.primaryPort in local.conf"
                ) from None
            continue
        tcp.setblocking(False)
        return tcp
    raise ServiceError("found no port that is free for UDP and TCP; choose one with `-p PORT`")


class Wire:
    """The bound UDP sockets of one service."""

    def __init__(self, reactor: Reactor, primary_port: int, conf: LocalConf) -> None:
        self._reactor = reactor
        self._sockets: dict[tuple[InterfaceAddress, int], int] = {}
        self.primary_port = primary_port
        settings = conf.settings
        #: 0 when there is none.
        self.secondary_port = (settings.secondaryPort or random.choice(RANDOM_PORTS)) if settings.allowSecondaryPort else 0
        #: The one that gateways are asked to map; 0 when there is none.
        self.tertiary_port = (settings.tertiaryPort or random.choice(RANDOM_PORTS)) if conf.maps_ports else 0
        self._redraws = settings.allowSecondaryPort and not settings.secondaryPort
        self._offline_since: float | None = None

    def wanted(self, conf: LocalConf, own: Iterable[bytes]) -> list[InterfaceAddress]:
        """The addresses to bind, those that the user named without an interface. `own`: our virtual addresses, which must never
        carry VL1."""
        settings = conf.settings
        if settings.bind:
            addresses = [InterfaceAddress("", ipaddress.ip_address(text).packed) for text in settings.bind]
        else:
            try:
                present = interface_addresses()
            except OSError as error:
                reason = error.strerror or error
                raise ServiceError(
                    f"cannot list this machine's addresses ({reason}); name those to use in settings.bind of local.conf"
                ) from None
            addresses = usable_addresses(
                present,
                prefix_blacklist=settings.interfacePrefixBlacklist,
                network_blacklist=conf.blacklisted_networks(),
                own=own,
            )
        if settings.allowLoopbackPaths and _LOOPBACK not in (address.ip for address in addresses):
            addresses.append(InterfaceAddress("", _LOOPBACK))
        return addresses

    def refresh(self, conf: LocalConf, own: Iterable[bytes] = (), *, to_interfaces: bool = False) -> bool:
        """Open and close sockets as the machine's addresses want it; True if any changed. ServiceError when none can be bound.

        `to_interfaces`: bind addresses that the user named to theirs, too: a default route leads into one of our networks, and our
        own packets must not follow it.
        """
        addresses = self.wanted(conf, own)
        if to_interfaces:
            named = {address.ip: address for address in interface_addresses()}
            addresses = [named.get(address.ip, address) for address in addresses]
        ports = {self.primary_port, self.secondary_port, self.tertiary_port} - {0}
        wanted = {(address, port) for address in addresses for port in ports}
        changed = False
        for key in self._sockets.keys() - wanted:
            self._reactor.close_udp(self._sockets.pop(key))
            changed = True
        failure: OSError | None = None
        for address, port in sorted(wanted - self._sockets.keys()):
            text = str(ipaddress.ip_address(address.ip))
            try:
                self._sockets[address, port] = self._bind(text, port, address.interface)
                changed = True
            except OSError as error:
                failure = error
                # What vanished while we looked is the next refresh's business; a port that is taken is the user's.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    log.warning("cannot bind UDP %s port %d: %s", text, port, error.strerror)
        if wanted and not self._sockets:
            reason = failure.strerror if failure else "no address"
            raise ServiceError(f"cannot bind any UDP socket on port {self.primary_port} ({reason}); choose another port or address")
        return changed

    def _bind(self, ip: str, port: int, device: str) -> int:
        try:
            return self._reactor.bind_udp(ip, port, device)[0]
        except PermissionError as error:
            # Linux before 5.7 lets only root bind to an interface.
            if not device or error.errno != errno.EPERM:
                raise
            log.warning("UDP %s port %d: the kernel does not bind it to %s: its routes decide where it sends", ip, port, device)
            return self._reactor.bind_udp(ip, port)[0]

    def redraw_if_lost(self, online: bool, slept: bool, now: float) -> bool:
        """Draw another secondary port, unless the user gave it, after long offline or a sleep: whatever is between us and the
        others may know better of a new one (vl1 §5.13). True if so; it counts from the next `refresh`. `now`: s, of any origin."""
        if online:
            self._offline_since = None
        elif self._offline_since is None:
            self._offline_since = now
        lost = self._offline_since is not None and now - self._offline_since > _OFFLINE_S
        if not self._redraws or not (lost or slept):
            return False
        self.secondary_port = random.choice(RANDOM_PORTS)
        self._offline_since = None if online else now
        return True

    def gateways(self) -> list[Gateway]:
        """The NAT gateways that the tertiary port can be mapped at: of our private addresses' interfaces."""
        if not self.tertiary_port:
            return []
        gateways = default_gateways()
        bound = {address.ip for address, port in self._sockets if port == self.tertiary_port and behind_nat(address.ip)}
        return [
            Gateway(interface, ip, gateways[interface])
            for interface, ip in interface_addresses()
            if ip in bound and interface in gateways
        ]

    @property
    def local_endpoints(self) -> list[Endpoint]:
        return [Endpoint(address.ip, port) for address, port in self._sockets]

    def listening_on(self) -> list[str]:
        """As `ip/port`, for /status."""
        return sorted(f"{ipaddress.ip_address(address.ip)}/{port}" for address, port in self._sockets)
