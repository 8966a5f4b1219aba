"""NAT-PMP messages (RFC 6886): what to ask a NAT gateway, and what its datagrams mean. No socket and no clock.

Whatever a gateway sends, `read_answer` returns an answer, raises `Refused`, or says None: not an answer to anything of ours.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PORT = 5351
_REQUEST = struct.Struct(">BBHHHI")  # version, operation, reserved, internal port, wanted external port, lifetime
_HEADER = struct.Struct(">BBHI")  # version, operation, result, seconds since the gateway's start
_MAPPED = struct.Struct(">HHI")  # internal port, external port, lifetime
_EXTERNAL_ADDRESS, _MAP_UDP, _ANSWER = 0, 1, 128
_RESULTS = {
    1: "version not supported",
    2: "not authorised",
    3: "the gateway has no network",
    4: "out of resources",
    5: "operation not supported",
}


class Refused(Exception):
    """The gateway does not do what was asked (RFC 6886 §3.5)."""


class ExternalAddress(NamedTuple):
    ip: bytes


class MappedPort(NamedTuple):
    """`lifetime_s` 0: the mapping is gone."""

    internal: int
    external: int
    lifetime_s: int


def ask_address() -> bytes:
    """What is your external address? (§3.2)"""
    return bytes((0, _EXTERNAL_ADDRESS))


def ask_mapping(internal: int, external: int, lifetime_s: int) -> bytes:
    """Map UDP `internal` of whoever asks, at `external` if that is free (§3.3). Lifetime 0: map it no more (§3.4)."""
    return _REQUEST.pack(0, _MAP_UDP, 0, internal, external, lifetime_s)


def read_answer(data: bytes) -> ExternalAddress | MappedPort | None:
    """Refused, when it is an answer that says so."""
    if len(data) < _HEADER.size:
        return None
    version, operation, result, _ = _HEADER.unpack_from(data)
    if version != 0 or operation not in (_ANSWER + _EXTERNAL_ADDRESS, _ANSWER + _MAP_UDP):
        return None
    if result != 0:
        raise Refused(_RESULTS.get(result, f"result {result}"))
    body = data[_HEADER.size :]
    if operation == _ANSWER + _EXTERNAL_ADDRESS:
        return ExternalAddress(body) if len(body) == 4 else None
    return MappedPort(*_MAPPED.unpack(body)) if len(body) == _MAPPED.size else None
