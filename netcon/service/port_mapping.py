"""Mapping of the wire's third port at the NAT gateways that this machine is behind (vl1 §5.9, §5.13): by NAT-PMP, or else by UPnP.

What comes of it is an endpoint outside at which everybody reaches us, whatever kind the NAT is; it is offered to peers like a
local one. Each gateway has a task, which maps, renews long before the lease ends, looks for a gateway that can when there is none,
and at its end takes the mapping back. Nothing here is needed for anything: failures are for the debug log only, nobody waits for
a gateway at the start, and for a bounded time only at the end.

A gateway is not trusted: of what it says, the external endpoint alone is used, and only if it can be one. A path to it is used by
a peer no sooner than that peer got an answer of ours from there.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import math
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import miniupnpc
import trio

from netcon.core.actions import Endpoint
from netcon.core.address import Scope, scope_of
from netcon.service import natpmp
from netcon.service.settings import RANDOM_PORTS

log = logging.getLogger("netcon.port_mapping")

T = TypeVar("T")

#: Asked for. A gateway that forgot its mappings is noticed at the next renewal.
LEASE_S = 1200
RENEW_S = 300.0
_SHORTEST_RENEWAL_S = 10.0  # whatever lease a gateway gives
#: Between two tries with a gateway that does not answer; each pause is twice the one before.
RETRY_S, LONGEST_RETRY_S = 30.0, 960.0
#: To take a mapping back, at the end.
REMOVAL_S = 2.0

_NATPMP_WAITS_S = (0.25, 0.5, 1.0, 2.0)  # RFC 6886 §3.1, cut short: UPnP is next
_UPNP_DISCOVERY_MS = 2000
_UPNP_LIMIT_S = 30.0  # for all that is asked at once
_UPNP_TRIES = 4
_DESCRIPTION = "netcon"
#: A thread that a gateway holds up keeps its place until it ends: there are never more.
_upnp_threads = trio.CapacityLimiter(4)


class MappingError(Exception):
    """This gateway does not map, not in this way, or not now."""


class Gateway(NamedTuple):
    """Where to ask for a mapping, and for which of our addresses."""

    interface: str
    local: bytes
    gateway: bytes


class Lease(NamedTuple):
    """An external endpoint that leads to our port, and for how long."""

    external: Endpoint
    lifetime_s: float


class Mapper(Protocol):
    """One way to have ports mapped, at one gateway."""

    async def map(self, port: int) -> Lease:
        """Map UDP `port` of ours, or renew that. MappingError, OSError."""

    async def unmap(self, port: int) -> None:
        """Take back what `map` has done, or may have; nothing if it asked for nothing. MappingError, OSError."""


def usable_external(ip: bytes) -> bool:
    """Whether an address that a gateway calls its own is one that others may reach: not behind yet another NAT."""
    return len(ip) == 4 and scope_of(ip) in (Scope.GLOBAL, Scope.PSEUDO_PRIVATE)


def behind_nat(ip: bytes) -> bool:
    """Whether an address of ours is one that a gateway would have to translate."""
    return len(ip) == 4 and scope_of(ip) in (Scope.PRIVATE, Scope.SHARED)


class NatPmpMapper:
    """RFC 6886."""

    def __init__(self, gateway: Gateway, port: int = natpmp.PORT) -> None:
        """`port`: where the gateway listens."""
        self._gateway = gateway
        self._port = port
        self._external = 0
        self._asked = False

    async def map(self, port: int) -> Lease:
        address = await self._ask(natpmp.ask_address(), natpmp.ExternalAddress)
        if not usable_external(address.ip):
            raise MappingError(f"its external address is {ipaddress.ip_address(address.ip)}")
        wanted, self._asked = self._external or port, True
        mapped = await self._ask(
            natpmp.ask_mapping(port, wanted, LEASE_S), natpmp.MappedPort, lambda answer: answer.internal == port
        )
        if mapped.external == 0 or mapped.lifetime_s == 0:
            raise MappingError("it maps nothing")
        self._external = mapped.external
        return Lease(Endpoint(address.ip, mapped.external), mapped.lifetime_s)

    async def unmap(self, port: int) -> None:
        if self._asked:
            await self._ask(natpmp.ask_mapping(port, 0, 0), natpmp.MappedPort, lambda answer: answer.internal == port)

    async def _ask(self, request: bytes, kind: type[T], is_it: Callable[[T], bool] = lambda answer: True) -> T:
        """The gateway's answer. Only its own datagrams reach the socket, which is connected to it."""
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            _bind_to_interface(sock, self._gateway.interface)
            await sock.bind((socket.inet_ntoa(self._gateway.local), 0))
            await sock.connect((socket.inet_ntoa(self._gateway.gateway), self._port))
            for wait_s in _NATPMP_WAITS_S:
                await sock.send(request)
                with trio.move_on_after(wait_s):
                    while True:
                        try:
                            answer = natpmp.read_answer(await sock.recv(1100))
                        except natpmp.Refused as refusal:
                            raise MappingError(f"NAT-PMP: {refusal}") from None
                        if isinstance(answer, kind) and is_it(answer):
                            return answer
        raise MappingError("NAT-PMP: no answer")


class UpnpMapper:
    """Internet Gateway Device, by miniupnpc, which blocks: so on threads."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._device: miniupnpc.UPnP | None = None
        self._external = 0
        self._permanent = False  # it knows no leases

    async def map(self, port: int) -> Lease:
        return await self._on_a_thread(functools.partial(self._map, port))

    async def unmap(self, port: int) -> None:
        if self._device is not None and self._external:
            await self._on_a_thread(functools.partial(self._device.deleteportmapping, self._external, "UDP"))

    async def _on_a_thread(self, function: Callable[[], T]) -> T:
        try:
            with trio.fail_after(_UPNP_LIMIT_S):
                return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=_upnp_threads)
        except trio.TooSlowError:
            raise MappingError("UPnP: it takes too long") from None
        except MappingError:
            raise
        except Exception as error:  # all that miniupnpc raises
            raise MappingError(f"UPnP: {error}") from None

    def _map(self, port: int) -> Lease:
        if self._device is not None:
            try:
                return self._map_at(self._device, port)
            except Exception:
                self._device = None  # it is another one now, or somewhere else
        device = miniupnpc.UPnP(multicastif=socket.inet_ntoa(self._gateway.local), discoverdelay=_UPNP_DISCOVERY_MS)
        try:
            device.discover()
        except Exception:  # its text says anything but this
            raise MappingError("UPnP: no device") from None
        device.selectigd()
        if device.lanaddr != socket.inet_ntoa(self._gateway.local):
            raise MappingError(f"UPnP: the device found is not on {self._gateway.interface}")
        lease = self._map_at(device, port)
        self._device = device
        return lease

    def _map_at(self, device: miniupnpc.UPnP, port: int) -> Lease:
        text = device.externalipaddress()
        ip = ipaddress.ip_address(text).packed
        if not usable_external(ip):
            raise MappingError(f"UPnP: its external address is {text}")
        wanted = [self._external or port, *random.sample(RANDOM_PORTS, _UPNP_TRIES - 1)]
        for number, external in enumerate(wanted, 1):
            try:
                self._add(device, external, port)
            except Exception as error:  # the port is another host's, perhaps
                if number == len(wanted):
                    raise MappingError(f"UPnP: {error}") from None
                log.debug("UPnP: external port %d: %s", external, error)
                continue
            self._external = external
            break
        return Lease(Endpoint(ip, self._external), math.inf if self._permanent else LEASE_S)

    def _add(self, device: miniupnpc.UPnP, external: int, port: int) -> None:
        arguments = external, "UDP", device.lanaddr, port, _DESCRIPTION, ""
        if not self._permanent:
            try:
                device.addportmapping(*arguments, LEASE_S)
                return
            except Exception as error:
                if "OnlyPermanentLeasesSupported" not in str(error):
                    raise
            self._permanent = True
        device.addportmapping(*arguments, 0)


#: Tried in this order.
MAPPERS: Sequence[Callable[[Gateway], Mapper]] = (NatPmpMapper, UpnpMapper)


class PortMapping:
    """Keeps one local UDP port mapped at all gateways while `run` runs."""

    def __init__(self, port: int, changed: Callable[[], None], mappers: Sequence[Callable[[Gateway], Mapper]] = MAPPERS) -> None:
        """`changed` is called when `endpoints` are others."""
        self.port = port
        self._changed = changed
        self._mappers = mappers
        self._wanted: frozenset[Gateway] = frozenset()
        self._scopes: dict[Gateway, trio.CancelScope] = {}
        self._external: dict[Gateway, Endpoint] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where others reach the port, as gateways say."""
        return list(dict.fromkeys(self._external.values()))

    def set_gateways(self, gateways: Iterable[Gateway]) -> None:
        """Which ones there are now. Mappings at others are taken back."""
        self._wanted = frozenset(gateways)
        for gone in self._scopes.keys() - self._wanted:
            self._scopes[gone].cancel()  # its task ends when that mapping is taken back
        if self._nursery is not None:
            for new in self._wanted - self._scopes.keys():
                scope = self._scopes[new] = trio.CancelScope()
                self._nursery.start_soon(self._look_after, new, scope)

    async def run(self) -> None:
        """Until cancelled; then all mappings are taken back, which takes at most REMOVAL_S."""
        async with trio.open_nursery() as self._nursery:
            self.set_gateways(self._wanted)
            await trio.sleep_forever()

    async def _look_after(self, gateway: Gateway, scope: trio.CancelScope) -> None:
        mappers = [make(gateway) for make in self._mappers]
        try:
            with scope:
                await self._keep_mapped(gateway, mappers)
            self._publish(gateway, None)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVAL_S):
                for mapper in mappers:
                    try:
                        await mapper.unmap(self.port)
                    except (OSError, MappingError) as error:
                        log.debug("%s: not unmapped: %s", _name(gateway), error)
        del self._scopes[gateway]
        self.set_gateways(self._wanted)  # it may be back

    async def _keep_mapped(self, gateway: Gateway, mappers: list[Mapper]) -> None:
        """Without end. The mapper that does it comes first in `mappers`."""
        failures = 0
        ends = -math.inf  # of the lease
        while True:
            for mapper in tuple(mappers):
                try:
                    lease = await mapper.map(self.port)
                except (OSError, MappingError) as error:
                    log.debug("%s: %s", _name(gateway), error)
                    continue
                mappers.remove(mapper)
                mappers.insert(0, mapper)
                failures = 0
                ends = trio.current_time() + lease.lifetime_s
                self._publish(gateway, lease.external)
                await trio.sleep(max(min(RENEW_S, lease.lifetime_s / 2), _SHORTEST_RENEWAL_S))
                break
            else:
                failures += 1
                pause = min(RETRY_S * 2 ** (failures - 1), LONGEST_RETRY_S)
                if trio.current_time() + pause >= ends:
                    self._publish(gateway, None)
                await trio.sleep(pause)

    def _publish(self, gateway: Gateway, external: Endpoint | None) -> None:
        before = self._external.pop(gateway, None)
        if external is not None:
            self._external[gateway] = external
        if before != external:
            log.debug("%s: UDP port %d is %s outside", _name(gateway), self.port, external)
            self._changed()


def _name(gateway: Gateway) -> str:
    return f"gateway {socket.inet_ntoa(gateway.gateway)} of {gateway.interface}"


def _bind_to_interface(sock: trio.socket.SocketType, interface: str) -> None:
    """Nothing leaves elsewhere. Linux before 5.7 lets only root: then the routes decide, as for the wire's sockets."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    except PermissionError:
        log.debug("the kernel does not bind a socket to %s", interface)
