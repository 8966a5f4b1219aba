"""Which IP addresses a member gets (vl2 §7.3). Pure: records, what is taken, and randomness in; addresses out."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from netcon.controller.coercion import IpAddress, as_ip, as_prefix
from netcon.core.address import rfc4193_address, sixplane_address

MAXIMUM_ASSIGNMENTS = 32
MAXIMUM_TRIALS = 1000
RFC4193_BITS = 88
SIXPLANE_BITS = 40
MASK64 = (1 << 64) - 1
#: The first IPv6 candidate carries the node's address if the lower half of the pool has room for all of them.
NODE_ADDRESS_SPAN = (1 << 40) - 1


@dataclass(slots=True, frozen=True)
class Assignment:
    """`addresses`: what the configuration assigns, as (packed IP, prefix length). `allocated`: what was taken from a pool now
    and belongs into the member's `ipAssignments`. `emulate_ndp`: an address that names its node is among them (flag 0x04)."""

    addresses: tuple[tuple[bytes, int], ...]
    allocated: tuple[str, ...]
    emulate_ndp: bool


@dataclass(slots=True, frozen=True)
class _Route:
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    gateway: bool


def _routes(record: dict[str, Any]) -> list[_Route]:
    routes = []
    for entry in record["routes"]:
        prefix = as_prefix(entry["target"])
        if prefix is not None:
            routes.append(_Route(ipaddress.ip_network((prefix[0].packed, prefix[1]), strict=False), entry["via"] is not None))
    return routes


def assign(
    network: int,
    record: dict[str, Any],
    address: int,
    member: dict[str, Any],
    taken: Container[bytes],
    random: Callable[[int], bytes],
) -> Assignment:
    """Addresses for node `address` on `network`. `taken`: packed addresses in any `ipAssignments` of the network, authorised or
    not, committed or not."""
    automatic = not member["noAutoAssignIps"]
    v6_mode = record["v6AssignMode"]
    addresses: dict[bytes, int] = {}
    if automatic and v6_mode.get("rfc4193"):
        addresses[rfc4193_address(network, address)] = RFC4193_BITS
    if automatic and v6_mode.get("6plane"):
        addresses[sixplane_address(network, address)] = SIXPLANE_BITS
    emulate_ndp = bool(addresses)

    routes = _routes(record)
    has = {4: False, 6: False}
    for text in member["ipAssignments"]:
        ip = as_ip(text)
        if ip is None:
            continue
        covering = [route.network.prefixlen for route in routes if ip in route.network]
        if covering:
            has[ip.version] = True
            addresses.setdefault(ip.packed, max(covering))

    allocated = []
    if automatic and v6_mode.get("zt") and not has[6]:
        allocated.append(_first_free(_v6_candidates(record, address, random), routes, taken, gateways=False))
    if automatic and record["v4AssignMode"].get("zt") and not has[4]:
        allocated.append(_first_free(_v4_candidates(record, address), routes, taken, gateways=True))
    found = [item for item in allocated if item is not None]
    for ip, bits in found:
        addresses[ip.packed] = bits
    return Assignment(tuple(addresses.items())[:MAXIMUM_ASSIGNMENTS], tuple(str(ip) for ip, _ in found), emulate_ndp)


def _first_free(
    candidates: Iterator[IpAddress], routes: list[_Route], taken: Container[bytes], *, gateways: bool
) -> tuple[IpAddress, int] | None:
    """The first candidate that lies in a route and nobody has, with that route's prefix length."""
    usable = [route.network for route in routes if (gateways or not route.gateway) and route.network.prefixlen > 0]
    for ip in candidates:
        if ip.packed not in taken:
            for network in usable:
                if ip in network:
                    return ip, network.prefixlen
    return None


def _pools(record: dict[str, Any], version: int) -> Iterator[tuple[int, int]]:
    for pool in record["ipAssignmentPools"]:
        start, end = as_ip(pool["ipRangeStart"]), as_ip(pool["ipRangeEnd"])
        if start is not None and end is not None and start.version == end.version == version:
            yield int(start), int(end)


def _v4_candidates(record: dict[str, Any], address: int) -> Iterator[IpAddress]:
    for start, end in _pools(record, 4):
        if not 0 < start <= end:
            continue
        span = end - start  # the last address is never chosen, unless it is the only one: real controllers do so
        counter = address & 0xFFFFFFFF
        for trial in range(min(MAXIMUM_TRIALS, span + 1)):
            candidate = start + ((counter + trial) % span if span else 0)
            if candidate & 0xFF != 0xFF:
                yield ipaddress.IPv4Address(candidate)


def _v6_candidates(record: dict[str, Any], address: int, random: Callable[[int], bytes]) -> Iterator[IpAddress]:
    for start, end in _pools(record, 6):
        if start > end:
            continue
        high, low = start >> 64, start & MASK64
        high_span, low_span = (end >> 64) - high, (end & MASK64) - low
        for trial in range(MAXIMUM_TRIALS if start != end else 1):
            if trial == 0 and low_span >= NODE_ADDRESS_SPAN:
                candidate = start + address
            else:
                dice = random(16)
                upper = high + (int.from_bytes(dice[:8], "big") % high_span if high_span > 0 else 0)
                lower = low + (int.from_bytes(dice[8:], "big") % low_span if low_span > 0 else 0)
                candidate = upper << 64 | lower
            if start <= candidate <= end:
                yield ipaddress.IPv6Address(candidate)
