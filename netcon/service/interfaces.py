"""The addresses of this machine's interfaces, from the kernel (rtnetlink(7)), word of their changes, which of them VL1 may use
(vl1 §5.13), and the gateways behind them."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from netcon.core.address import usable_for_paths
from netcon.service.settings import IPNetwork

#: Interfaces of tunnels: a path through one would be a tunnel in a tunnel.
TUNNEL_PREFIXES = ("zt", "tun", "tap")

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_RTM_GETADDR, _RTM_NEWADDR = 22, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
#: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR.
_CHANGES = 0x1 | 0x10 | 0x40 | 0x100
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
#: Not usable (yet, or for long): tentative, failed duplicate detection, deprecated. Temporary (privacy) addresses are used as long
#: as the kernel would.
_IFA_F_AVOID = 0x40 | 0x08 | 0x20
_ROUTES = Path("/proc/net/route")
_RTF_UP_GATEWAY = 0x1 | 0x2


class InterfaceAddress(NamedTuple):
    interface: str
    ip: bytes


def interface_addresses() -> list[InterfaceAddress]:
    """All settled addresses of all interfaces. OSError where the kernel does not tell."""
    found: list[InterfaceAddress] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body)
        while True:
            data = netlink.recv(65536)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                    raise OSError(-code, "the kernel does not list interface addresses")
                if kind == _RTM_NEWADDR and (address := _read_address(data[offset + _HEADER.size : offset + length])):
                    found.append(address)
                offset += (length + 3) & ~3


def default_gateways() -> dict[str, bytes]:
    """Interface -> the IPv4 gateway of its default route (route(8), /proc/net/route), the preferred one if it has several."""
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return {}
    found: dict[str, tuple[int, bytes]] = {}
    for line in lines:
        fields = line.split()
        interface, destination, gateway, flags, metric, mask = *fields[:4], fields[6], fields[7]
        if int(destination, 16) or int(mask, 16) or int(flags, 16) & _RTF_UP_GATEWAY != _RTF_UP_GATEWAY:
            continue
        route = int(metric), struct.pack("=I", int(gateway, 16))
        found[interface] = min(route, found.get(interface, route))
    return {interface: gateway for interface, (_, gateway) in found.items()}


def address_changes() -> socket.socket:
    """A socket that is readable when an interface, an address or an IPv4 route came, went or changed; what it says is of no further
    use, for it may be lost. OSError where the kernel does not tell."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        netlink.bind((0, _CHANGES))
    except OSError:
        netlink.close()
        raise
    return netlink


def discard_changes(netlink: socket.socket) -> None:
    """Empty the socket of `address_changes`."""
    while True:
        try:
            netlink.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more happened than it could hold: all the same to us
                raise


def _read_address(message: bytes) -> InterfaceAddress | None:
    family, _, flags, _, index = _ADDRESS.unpack_from(message)
    ip = b""
    offset = _ADDRESS.size
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            break
        value = message[offset + _ATTRIBUTE.size : offset + length]
        if kind == _IFA_LOCAL or (kind == _IFA_ADDRESS and not ip):
            ip = value
        elif kind == _IFA_FLAGS:
            flags = struct.unpack("=I", value)[0]
        offset += (length + 3) & ~3
    if len(ip) != (4 if family == socket.AF_INET else 16) or (family == socket.AF_INET6 and flags & _IFA_F_AVOID):
        return None
    try:
        return InterfaceAddress(socket.if_indextoname(index), ip)
    except OSError:  # gone meanwhile
        return None


def usable_addresses(
    addresses: Iterable[InterfaceAddress],
    *,
    prefix_blacklist: Iterable[str] = (),
    network_blacklist: Iterable[IPNetwork] = (),
    own: Iterable[bytes] = (),
) -> list[InterfaceAddress]:
    """Those to bind (vl1 §5.13): of a usable class, not of a tunnel, not blacklisted, none of our own virtual addresses."""
    prefixes = (*TUNNEL_PREFIXES, *prefix_blacklist)
    networks, own = list(network_blacklist), set(own)
    result: dict[bytes, InterfaceAddress] = {}
    for interface, ip in addresses:
        if interface == "lo" or interface.startswith(prefixes) or ip in own or not usable_for_paths(ip) or ip in result:
            continue
        address = ipaddress.ip_address(ip)
        if not any(address.version == net.version and address in net for net in networks):
            result[ip] = InterfaceAddress(interface, ip)
    return list(result.values())
