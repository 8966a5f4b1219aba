"""A network's port as a kernel TAP device: this machine becomes an ordinary member, the classic way (vl2 §6.1, §6.7).

The device is made when the network is joined and vanishes with the service. Its addresses and routes are those that the controller
sent and the local settings permit; they are set by rtnetlink, and set again when somebody took them away. Addresses that others add
to the device by hand stay, and count for neighbour discovery and multicast as ours do.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from netcon.core.address import MulticastGroup, format_mac, groups_for_addresses
from netcon.core.network import NetworkStatus
from netcon.dataplane.reactor import EngineEnd, Reactor, Tap, connect, disconnect
from netcon.service.errors import PortError
from netcon.service.port import DEFAULT_MTU, interface_name, permitted_addresses, permitted_routes
from netcon.service.settings import NetworkSettings

log = logging.getLogger("netcon.tap")

_IFA_F_NODAD = 0x02
_RTPROT_STATIC = 4
_NAMES_TRIED = 100
_ADVICE = "or use the built-in stack, which needs no privilege: `netcon join --port lwip`"
_REASONS = {
    errno.EPERM: f"a TAP device needs the capability CAP_NET_ADMIN: run the service as root, {_ADVICE}",
    errno.EACCES: f"/dev/net/tun may not be opened by this user: run the service as root, {_ADVICE}",
    errno.ENOENT: f"there is no /dev/net/tun: load the kernel's module tun (in a container: pass --device /dev/net/tun), {_ADVICE}",
    errno.ENODEV: f"this kernel has no TUN/TAP devices, or has not loaded its module tun: load it, {_ADVICE}",
}

#: Target network, gateway or None.
_Route = tuple[str, str | None]


class TapPort:
    """The TAP device of one network. `number` is its Ethernet end's number in the rings.

    A port whose device cannot be made, or that lost it, has a `failure` and is tried again by `restart_if_failed`.
    """

    kind = "tap"

    def __init__(self, reactor: Reactor, network: int, mac: bytes, number: int, *, name: str | None = None) -> None:
        """`name`: of the device, if it is not to be the one that ZeroTier gives."""
        self.network = network
        self.number = number
        self.mac = mac
        self.mtu = DEFAULT_MTU
        #: Whether the node hears a root: a default route stands only meanwhile (vl2 §6.7). Takes effect with `configure`.
        self.online = False
        self.failure: PortError | None = None
        self._reactor = reactor
        self._wanted_name = name
        self._end = EngineEnd(reactor, number)
        self._tap: Tap | None = None
        self._index = 0
        self._addresses: dict[bytes, int] = {}
        self._routes: list[_Route] = []
        self._reported: set[str] = set()
        self._netlink = IPRoute()
        try:
            self._open()
        except PortError as error:
            self.failure = error

    # -- the device --

    @property
    def end(self) -> EngineEnd:
        """The engine's side, which all frames pass."""
        return self._end

    @property
    def device(self) -> str:
        """The interface's name."""
        return self._tap.name if self._tap else self._wanted_name or interface_name(self.network)

    def _open(self) -> None:
        """PortError, which says what to do."""
        self._tap = self._make_device()
        connect(self._reactor, self._end.capsule(), self._tap.capsule())
        try:
            self._index = socket.if_nametoindex(self._tap.name)
            self._netlink.link("set", index=self._index, address=format_mac(self.mac), mtu=self.mtu)
            self._netlink.link("set", index=self._index, state="up")
        except (OSError, NetlinkError) as error:
            name = self._tap.name
            self._close_device()
            raise PortError(f"network {self.network:016x}: device {name}: {_text(error)}") from None

    def _make_device(self) -> Tap:
        names = [self._wanted_name] if self._wanted_name else [interface_name(self.network, n) for n in range(_NAMES_TRIED)]
        for name in names:
            try:
                return Tap(self._reactor, name)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    continue
                reason = _REASONS.get(error.errno or 0, f"device {name}: {error.strerror}")
                raise PortError(f"network {self.network:016x}: {reason}") from None
        raise PortError(
            f"network {self.network:016x}: the interface name {names[0]} is taken (another ZeroTier service?); "
            f"stop that one, or give another name in the file devicemap of the home folder, as {self.network:016x}=NAME"
        )

    def _close_device(self) -> None:
        if self._tap is not None:
            disconnect(self._reactor, self._end.capsule(), self._tap.capsule())
            self._tap.close()
            self._tap = None

    def restart_if_failed(self) -> bool:
        """Make the device again if it could not be made, or if somebody deleted it. PortError: not possible yet; call again."""
        if self._tap is not None:
            try:
                if socket.if_indextoname(self._index) == self._tap.name:
                    return False
            except OSError:
                log.error("network %016x: device %s was deleted and is made again", self.network, self._tap.name)
            self._close_device()
        try:
            self._open()
        except PortError as error:
            self.failure = error
            raise
        self.failure = None
        self._apply()
        return True

    def close(self) -> None:
        self._close_device()
        self._netlink.close()

    # -- configuration --

    def configure(self, status: NetworkStatus, settings: NetworkSettings) -> None:
        """Bring the device to what the network's configuration says and `settings` permits. PortError."""
        config = status.config
        if config is None:
            return
        wanted = dict(permitted_addresses(config, settings))
        routes = list(self._kernel_routes(permitted_routes(config, settings)))
        old_addresses, old_routes = self._addresses, self._routes
        self._addresses, self._routes = wanted, routes
        mtu_changed, self.mtu = config.mtu != self.mtu, config.mtu
        self._reported.clear()
        if self._tap is None:
            return
        if mtu_changed:
            self._try(f"mtu {self.mtu}", lambda: self._netlink.link("set", index=self._index, mtu=self.mtu))
        for route in old_routes:
            if route not in routes:
                self._remove(f"route {route[0]}", lambda route=route: self._netlink.route("del", **self._route(route)))
        for ip, prefix in old_addresses.items():
            if wanted.get(ip) != prefix:
                self._remove(
                    f"address {_ip(ip)}",
                    lambda ip=ip, prefix=prefix: self._netlink.addr("del", index=self._index, address=_ip(ip), prefixlen=prefix),
                )
        self._apply()

    def _kernel_routes(self, routes: list[tuple[bytes, int, bytes | None]]) -> Iterator[_Route]:
        """A default route becomes two halves, which go before the machine's own without replacing it (vl2 §6.7)."""
        for target, prefix, via in routes:
            gateway = _ip(via) if via else None
            net = ipaddress.ip_network((target, prefix), strict=False)
            if prefix:
                yield str(net), gateway
            elif self.online:
                for half in net.subnets():
                    yield str(half), gateway

    def _route(self, route: _Route) -> dict[str, Any]:
        target, gateway = route
        more = {"gateway": gateway} if gateway else {}
        return {"dst": target, "oif": self._index, "proto": _RTPROT_STATIC, **more}

    def _apply(self) -> None:
        """Add what is missing. What the kernel refuses is reported once for each configuration, and tried again later."""
        if self._tap is None:
            return
        present = self._kernel_addresses()
        for ip, prefix in self._addresses.items():
            if present.get(ip) != prefix:
                self._try(f"address {_ip(ip)}/{prefix}", lambda ip=ip, prefix=prefix: self._add_address(ip, prefix))
        standing = self._standing_routes()
        for route in self._routes:
            if route not in standing:
                self._try(f"route {route[0]}", lambda route=route: self._netlink.route("add", **self._route(route)))

    def _add_address(self, ip: bytes, prefix: int) -> None:
        if len(ip) == 4:
            more = {"broadcast": str(ipaddress.ip_network((ip, prefix), strict=False).broadcast_address)} if prefix < 31 else {}
            self._netlink.addr("add", index=self._index, address=_ip(ip), prefixlen=prefix, **more)
        else:
            # No duplicate detection: the controller gives an address to one member only.
            self._netlink.addr("add", index=self._index, address=_ip(ip), prefixlen=prefix, flags=_IFA_F_NODAD)

    def _try(self, what: str, change: Any) -> None:
        try:
            change()
        except (NetlinkError, OSError) as error:
            text = f"network {self.network:016x}: {self.device}: {what}: {_text(error)}"
            if text not in self._reported:
                self._reported.add(text)
                log.error("%s", text)

    @staticmethod
    def _remove(what: str, change: Any) -> None:
        try:
            change()
        except (NetlinkError, OSError) as error:  # somebody else was faster, or the device is gone
            log.info("%s: %s", what, _text(error))

    # -- what the kernel says --

    def _kernel_addresses(self) -> dict[bytes, int]:
        found = {}
        for entry in self._netlink.get_addr(index=self._index):
            text = entry.get("local") or entry.get("address")
            if text:
                found[ipaddress.ip_address(text).packed] = int(entry["prefixlen"])
        return found

    def _standing_routes(self) -> set[_Route]:
        found = set()
        for family, everything in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for entry in self._netlink.get_routes(family=family, oif=self._index):
                found.add((f"{entry.get('dst') or everything}/{entry['dst_len']}", entry.get("gateway")))
        return found

    @property
    def addresses(self) -> list[bytes]:
        """Our virtual addresses."""
        return list(self._addresses)

    @property
    def has_default_route(self) -> bool:
        return any(target.endswith("/1") for target, _ in self._routes)

    def refresh(self) -> None:
        """Housekeeping: set again what of ours somebody took away."""
        try:
            self._apply()
        except (NetlinkError, OSError) as error:
            log.error("network %016x: %s: %s", self.network, self.device, _text(error))

    def groups(self) -> set[MulticastGroup]:
        """The groups that the kernel joined on the device, and those of all its addresses (vl2 §5.1)."""
        if self._tap is None:
            return set()
        return groups_for_addresses(self._kernel_addresses()) | kernel_groups(self._tap.name)


def kernel_groups(device: str, file: Path = Path("/proc/thread-self/net/dev_mcast")) -> set[MulticastGroup]:
    """The link-layer groups that a device receives: lines of index, name, users, global users, address in hexadecimal digits."""
    found = set()
    for line in file.read_text().splitlines():
        fields = line.split()
        if len(fields) == 5 and fields[1] == device and len(fields[4]) == 12:
            found.add(MulticastGroup(bytes.fromhex(fields[4]), 0))
    return found


def _ip(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def _text(error: Exception) -> str:
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, NetlinkError):
        text = error.args[1] if len(error.args) > 1 else str(error)
    return "the system has such a route already, which stays" if code == errno.EEXIST else str(text)
