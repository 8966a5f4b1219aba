"""The question RESOLVE of include/netcon/socket_rpc.h ("names and addresses") in Python."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from netcon.names.table import IP

RESOLVE = 16
RESOLVE_NAME, RESOLVE_ADDRESS, RESOLVE_MESSAGE = 1, 2, 3  # enum netcon_resolve_question
RESOLVE_CONFIGURED, RESOLVE_IDN, RESOLVE_SEARCH = 1, 2, 4  # enum netcon_resolve_flags
FOUND, NOT_FOUND, NO_DATA, AGAIN, FAILED, HOST, REFUSED = range(7)  # enum netcon_resolve_status
#: NETCON_RPC_DATA_MAX, NETCON_RESOLVE_NAME_MAX
DATA_MAX, NAME_MAX = 512, 254

_ADDRESS = struct.Struct("=HHII16s")  # struct netcon_address
_REPLY = struct.Struct("=IHH")  # struct netcon_resolve_reply
_RESOLVED = struct.Struct("=HH16s")  # struct netcon_resolved_address
_FAMILIES = {4: 2, 6: 10}
_VERSIONS = {2: 4, 10: 6}


def _ip(family: int, packed: bytes) -> IP:
    return ipaddress.ip_address(packed[:4] if _VERSIONS.get(family) == 4 else packed)


def pack_question_address(ip: IP) -> bytes:
    return _ADDRESS.pack(_FAMILIES[ip.version], 0, 0, 0, ip.packed)


def unpack_question_address(data: bytes) -> IP:
    """ValueError: not a struct netcon_address of one of the two families."""
    if len(data) != _ADDRESS.size:
        raise ValueError(f"an address has {_ADDRESS.size} bytes, not {len(data)}")
    family, _, _, _, packed = _ADDRESS.unpack(data)
    if family not in _VERSIONS:
        raise ValueError(f"family {family}")
    return _ip(family, packed)


def pack_resolved(ttl: int, addresses: Iterable[IP], name: bytes) -> bytes:
    """`struct netcon_resolve_reply` and what follows it; addresses that do not fit are left out."""
    name = name[:NAME_MAX]
    kept = list(addresses)[: (DATA_MAX - _REPLY.size - len(name)) // _RESOLVED.size]
    packed = b"".join(_RESOLVED.pack(_FAMILIES[ip.version], 0, ip.packed) for ip in kept)
    return _REPLY.pack(max(ttl, 0), len(kept), len(name)) + packed + name


def unpack_resolved(data: bytes) -> tuple[int, list[IP], bytes]:
    """(TTL in seconds, addresses, name). ValueError."""
    try:
        ttl, count, length = _REPLY.unpack_from(data)
        parts = [_RESOLVED.unpack_from(data, _REPLY.size + index * _RESOLVED.size) for index in range(count)]
    except struct.error as error:
        raise ValueError(str(error)) from None
    start = _REPLY.size + count * _RESOLVED.size
    return ttl, [_ip(family, packed) for family, _, packed in parts], data[start : start + length]
