"""Addresses: nodes, networks, MACs, IPv6 forms, multicast groups, physical endpoints (vl1 §1.1, §1.5; vl2 §1, §5.1, §5.8).

Node addresses (40 bits) and network ids (64 bits) are `int`; MACs and IPs are `bytes` in network order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, EncodeError

_PORT = Struct(">H").pack
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class Endpoint(NamedTuple):
    """A physical address: 4 or 16 bytes of IP in network order, UDP port. A plain `(ip, port)` tuple is equal to it.

    In VL2 structures the port carries a prefix length (vl2, conventions).
    """

    ip: bytes
    port: int


class MulticastGroup(NamedTuple):
    """A group is a MAC and a 32-bit distinguisher, which is 0 except for IPv4 ARP (vl2 §5.1)."""

    mac: bytes
    adi: int


BROADCAST_MAC = b"\xff" * 6
BROADCAST = MulticastGroup(BROADCAST_MAC, 0)

# -- nodes and networks --


def format_address(address: int) -> str:
    return f"{address:010x}"


def format_network(network: int) -> str:
    return f"{network:016x}"


def _parse_hex(text: str, digits: int, what: str) -> int:
    if len(text) != digits or not _HEX_DIGITS.issuperset(text):
        raise DecodeError(f"not a {what}: {text!r}; write {digits} hexadecimal digits")
    return int(text, 16)


def parse_address(text: str) -> int:
    """A node address from 10 hexadecimal digits."""
    return _parse_hex(text, 10, "node address")


def parse_network(text: str) -> int:
    """A network id from 16 hexadecimal digits."""
    return _parse_hex(text, 16, "network id")


def is_reserved(address: int) -> bool:
    """Whether no node may have this address: 0, and those that begin with ff (vl1 §1.1)."""
    return address == 0 or address >> 32 == 0xFF


def controller_of(network: int) -> int:
    """The address of a network's controller (vl2 §1.1)."""
    return network >> 24


# -- MACs --


def mac_prefix(network: int) -> int:
    """The first octet of every member's MAC (vl2 §1.2)."""
    first = (network & 0xFE) | 0x02
    return 0x32 if first == 0x52 else first  # 0x52 belongs to a hypervisor


def _mac_mask(network: int) -> int:
    """What the 40-bit address is XORed with: the network id's bits 8 to 47, byte order reversed (vl2 §1.2)."""
    return int.from_bytes((network >> 8 & 0xFFFFFFFFFF).to_bytes(5, "little"))


def mac_for(network: int, address: int) -> bytes:
    """The MAC of a member (vl2 §1.2)."""
    return (mac_prefix(network) << 40 | address ^ _mac_mask(network)).to_bytes(6)


def address_from_mac(network: int, mac: bytes) -> int | None:
    """The member that a MAC belongs to; None if the first octet is not this network's, hence behind a bridge."""
    if mac[0] != mac_prefix(network):
        return None
    return int.from_bytes(mac[1:6]) ^ _mac_mask(network)


def format_mac(mac: bytes) -> str:
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """A MAC from twelve hexadecimal digits with any of `:` `-` `.` between them, or none."""
    digits = text.replace(":", "").replace("-", "").replace(".", "")
    return _parse_hex(digits, 12, "MAC").to_bytes(6)


# -- IPv6 forms and groups --


def rfc4193_address(network: int, address: int) -> bytes:
    """`fd`, network id, `9993`, node address; a /88 (vl2 §5.8)."""
    return b"".join((b"\xfd", network.to_bytes(8), b"\x99\x93", address.to_bytes(5)))


def sixplane_address(network: int, address: int) -> bytes:
    """`fc`, both halves of the network id XORed, node address, ...1; a /40 of which each node owns a /80 (vl2 §5.8)."""
    folded = (network ^ network >> 32) & 0xFFFFFFFF
    return b"".join((b"\xfc", folded.to_bytes(4), address.to_bytes(5), b"\0\0\0\0\0\x01"))


def arp_group(ip4: bytes) -> MulticastGroup:
    """Where the owner of an IPv4 address listens for ARP requests (vl2 §5.1)."""
    return MulticastGroup(BROADCAST_MAC, int.from_bytes(ip4))


def solicited_node_group(ip6: bytes) -> MulticastGroup:
    """Where the owner of an IPv6 address listens for neighbour solicitations (vl2 §5.1)."""
    return MulticastGroup(b"\x33\x33\xff" + ip6[13:16], 0)


def groups_for_addresses(ips: Iterable[bytes]) -> set[MulticastGroup]:
    """The groups that owning these addresses requires."""
    return {arp_group(ip) if len(ip) == 4 else solicited_node_group(ip) for ip in ips}


# -- scopes (vl1 §1.5) --


class Scope(IntEnum):
    """Class of an IP address; the number is the rank in path preference."""

    NONE = 0
    MULTICAST = 1
    LOOPBACK = 2
    PSEUDO_PRIVATE = 3
    GLOBAL = 4
    LINK_LOCAL = 5
    SHARED = 6
    PRIVATE = 7


_PSEUDO_PRIVATE = frozenset((6, 11, 21, 22, 25, 26, 28, 29, 30, 51, 55, 56))
#: First 24 bits of the documentation networks.
_DOCUMENTATION = frozenset((0xC00002, 0xC63364, 0xCB0071))


def _scope4(ip: bytes) -> Scope:
    first, second = ip[0], ip[1]
    if first in (0, 255):
        return Scope.NONE
    if first == 127:
        return Scope.LOOPBACK
    if first >= 224:
        return Scope.MULTICAST if first < 240 else Scope.PSEUDO_PRIVATE
    if first == 10 or (first == 192 and second == 168):
        return Scope.PRIVATE
    if (first == 172 and second & 0xF0 == 16) or (first == 100 and second & 0xC0 == 64) or (first == 198 and second & 0xFE == 18):
        return Scope.PRIVATE
    if first == 169 and second == 254:
        return Scope.LINK_LOCAL
    if int.from_bytes(ip[:3]) in _DOCUMENTATION:
        return Scope.PRIVATE
    return Scope.PSEUDO_PRIVATE if first in _PSEUDO_PRIVATE else Scope.GLOBAL


def scope_of(ip: bytes) -> Scope:
    """The class of a 4 or 16 byte IP address."""
    if len(ip) == 4:
        return _scope4(ip)
    first = ip[0]
    if first == 0xFF:
        return Scope.MULTICAST
    if first == 0xFE and ip[1] & 0xC0 == 0x80:
        return Scope.LOOPBACK if ip == b"\xfe\x80" + bytes(13) + b"\x01" else Scope.LINK_LOCAL
    if first & 0xFE == 0xFC:
        return Scope.PRIVATE
    if first == 0:
        value = int.from_bytes(ip)
        if value == 0:
            return Scope.NONE
        if value == 1 or value >> 24 == 0xFFFF7F:
            return Scope.LOOPBACK
    return Scope.GLOBAL


_PATH_SCOPES = frozenset((Scope.PSEUDO_PRIVATE, Scope.GLOBAL, Scope.SHARED, Scope.PRIVATE))


def usable_for_paths(ip: bytes) -> bool:
    """Whether an address may become a path: never loopback, link-local, or the tunnel broker's 2001:470::/32 (vl1 §1.5)."""
    return scope_of(ip) in _PATH_SCOPES and not (len(ip) == 16 and ip[:4] == b"\x20\x01\x04\x70")


# -- wire form (vl1 §1.5) --


def encode_inet(endpoint: Endpoint | None) -> bytes:
    """1, 7 or 19 bytes."""
    if endpoint is None:
        return b"\0"
    ip, port = endpoint
    if len(ip) == 4:
        return b"".join((b"\x04", ip, _PORT(port)))
    if len(ip) == 16:
        return b"".join((b"\x06", ip, _PORT(port)))
    raise EncodeError(f"an IP address has 4 or 16 bytes, not {len(ip)}")


def read_inet(reader: Reader) -> Endpoint | None:
    """None for "none" and for the reserved kinds, which are skipped."""
    kind = reader.u8()
    if kind == 4:
        return Endpoint(reader.bytes(4), reader.u16())
    if kind == 6:
        return Endpoint(reader.bytes(16), reader.u16())
    if kind == 0:
        return None
    if kind in (1, 2):
        reader.bytes(6)
        return None
    if kind == 3:
        reader.bytes(reader.u16())
        return None
    raise DecodeError(f"unknown kind of physical address: {kind}")


# -- text: ip/port and ip/bits --


def format_ip(ip: bytes) -> str:
    return str(ipaddress.ip_address(ip))


def parse_ip(text: str) -> bytes:
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise DecodeError(f"not an IP address: {text!r}") from None


def format_endpoint(endpoint: Endpoint) -> str:
    """`ip/port`; for VL2 structures `ip/bits`."""
    return f"{format_ip(endpoint.ip)}/{endpoint.port}"


def _parse_slashed(text: str, limit: int, what: str) -> tuple[bytes, int]:
    ip, slash, number = text.partition("/")
    if not slash or not number.isascii() or not number.isdigit() or len(number) > 5 or int(number) > limit:
        raise DecodeError(f"not an {what}: {text!r}")
    return parse_ip(ip), int(number)


def parse_endpoint(text: str) -> Endpoint:
    """An endpoint from `ip/port`."""
    return Endpoint(*_parse_slashed(text, 65535, "ip/port"))


def parse_prefix(text: str) -> Endpoint:
    """A network or an assigned address from `ip/bits`; host bits are kept, the port is the prefix length."""
    ip, bits = _parse_slashed(text, 128, "ip/bits")
    if bits > len(ip) * 8:
        raise DecodeError(f"prefix too long for its address: {text!r}")
    return Endpoint(ip, bits)
