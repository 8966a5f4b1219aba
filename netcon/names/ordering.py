"""The order in which a program should try addresses (RFC 6724), by the addresses that the networks have given us."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from netcon.names.table import IP, IPNetwork

#: RFC 6724 §2.1: prefix, precedence, label.
_POLICY = [
    (ipaddress.IPv6Network(prefix), precedence, label)
    for prefix, precedence, label in [
        ("::1/128", 50, 0),
        ("::/0", 40, 1),
        ("::ffff:0:0/96", 35, 4),
        ("2002::/16", 30, 2),
        ("2001::/32", 5, 5),
        ("fc00::/7", 3, 13),
        ("::/96", 1, 3),
        ("fec0::/10", 1, 11),
        ("3ffe::/16", 1, 12),
    ]
]
_POLICY.sort(key=lambda entry: -entry[0].prefixlen)


def _as_v6(ip: IP) -> ipaddress.IPv6Address:
    return ip if isinstance(ip, ipaddress.IPv6Address) else ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)


def _policy(ip: IP) -> tuple[int, int]:
    mapped = _as_v6(ip)
    return next((precedence, label) for prefix, precedence, label in _POLICY if mapped in prefix)


def _scope(ip: IP) -> int:
    """RFC 6724 §3.1: link-local 2, site 5, global 14; private IPv4 is global (§3.2)."""
    if ip.is_link_local or ip.is_loopback:
        return 2
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return 5
    return 14


def _common_bits(a: IP, b: IP) -> int:
    left, right = _as_v6(a), _as_v6(b)
    return 128 - (int(left) ^ int(right)).bit_length()


def order(destinations: Iterable[IP], sources: Sequence[IP], reachable: Sequence[IPNetwork]) -> list[IP]:
    """Best first. `sources`: our own addresses. `reachable`: where the networks lead; what is in none comes last (rule 1)."""

    def key(position: int, destination: IP) -> tuple[object, ...]:
        candidates = [source for source in sources if source.version == destination.version]
        usable = any(net.version == destination.version and destination in net for net in reachable)
        if not candidates or not (usable or destination in candidates):
            return (1, position)
        source = max(candidates, key=lambda each: (_scope(each) == _scope(destination), _common_bits(each, destination)))
        precedence, label = _policy(destination)
        bits = min(_common_bits(source, destination), 64) if destination.version == 6 else 0
        return (
            0,
            _scope(destination) != _scope(source),  # rule 2
            label != _policy(source)[1],  # rule 5
            -precedence,  # rule 6
            _scope(destination),  # rule 8
            -bits if destination.version == 6 else 0,  # rule 9
            position,  # rule 10
        )

    found = list(dict.fromkeys(destinations))
    keyed = [(key(position, destination), destination) for position, destination in enumerate(found)]
    return [destination for _, destination in sorted(keyed, key=lambda pair: pair[0])]
