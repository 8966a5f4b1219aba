"""What JSON may mean to the controller's API (service-api §2): lenient about kinds, strict about what is kept.

Every function returns `None` (or leaves an entry out) for a value of the wrong kind, which the caller then ignores.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any

#: Arrays are cut at this many entries (service-api §4).
MAXIMUM_ENTRIES = 16384
MAXIMUM_U32 = 0xFFFFFFFF
#: Integers outside the range that every JSON client and the store can hold count as the wrong kind.
MAXIMUM_INT = (1 << 63) - 1

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def as_bool(value: object) -> bool | None:
    match value:
        case bool():
            return value
        case int() | float():
            return value > 0
        case str():
            return value[:1] in ("t", "T", "1")
        case _:
            return None


def as_int(value: object) -> int | None:
    match value:
        case bool() | int():
            number = int(value)
        case float() if math.isfinite(value):
            number = int(value)
        case str() if len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit():
            number = int(value)
        case _:
            return None
    return number if abs(number) <= MAXIMUM_INT else None


def as_u32(value: object) -> int | None:
    number = as_int(value)
    return number if number is not None and 0 <= number <= MAXIMUM_U32 else None


def as_text(value: object) -> str | None:
    """Text that has a UTF-8 form: a lone surrogate, which JSON can spell, becomes a question mark."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else None


def as_list(value: object) -> list[Any] | None:
    return value[:MAXIMUM_ENTRIES] if isinstance(value, list) else None


def as_ip(value: object) -> IpAddress | None:
    """An IP address; one with a prefix length is taken without it, one with a zone is none."""
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return ipaddress.ip_address(value.partition("/")[0])
    except ValueError:
        return None


def as_prefix(value: object) -> tuple[IpAddress, int] | None:
    """`ip/bits`, both required."""
    ip = as_ip(value)
    if ip is None or not isinstance(value, str):
        return None
    bits = value.partition("/")[2]
    if not (bits.isascii() and bits.isdigit() and len(bits) <= 3):
        return None
    return (ip, int(bits)) if int(bits) <= ip.max_prefixlen else None


def as_address(value: object) -> str | None:
    """A node address as ten lower-case hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 10 or not all(c in "0123456789abcdefABCDEF" for c in value):
        return None
    return value.lower()
