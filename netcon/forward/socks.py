"""SOCKS5's messages (RFC 1928, with RFC 1929's user name and password), for the server: sans-I/O.

A parser is given all that has come so far. It returns what it found with the number of bytes that this took, None when more must
come (never more than `LONGEST` bytes in all), or raises SocksError.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from netcon.forward.specification import ForwardError

VERSION, AUTH_VERSION = 5, 1
NO_AUTHENTICATION, PASSWORD, NO_METHOD = 0, 2, 0xFF
LONGEST = 3 + 255 + 255  # of any message: user name and password
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LENGTHS = {_IPV4: 4, _IPV6: 16}
_UDP_HEAD = 3  # reserved, reserved, fragment


class SocksError(ForwardError):
    """What a client sent is not SOCKS5, or asks for what we do not do. `reply`: what to answer with, None to say nothing."""

    def __init__(self, text: str, reply: ReplyCode | None = None) -> None:
        super().__init__(text)
        self.reply = reply


class Command(IntEnum):
    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class ReplyCode(IntEnum):
    SUCCEEDED = 0
    FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


_CODES = {
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ReplyCode.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.ETIMEDOUT: ReplyCode.HOST_UNREACHABLE,
    errno.ECONNREFUSED: ReplyCode.REFUSED,
    errno.EACCES: ReplyCode.NOT_ALLOWED,
    errno.EPERM: ReplyCode.NOT_ALLOWED,
}


@dataclass(frozen=True, slots=True)
class Request:
    command: int
    host: str
    port: int


def parse_greeting(data: bytes) -> tuple[bytes, int] | None:
    """The methods that a client offers."""
    if data and data[0] != VERSION:
        what = "SOCKS4" if data[0] == 4 else "an HTTP request" if data[:1].isalpha() else "something else"
        raise SocksError(f"the client speaks {what}, and this is a SOCKS5 proxy")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    return data[2 : 2 + data[1]], 2 + data[1]


def parse_password(data: bytes) -> tuple[tuple[bytes, bytes], int] | None:
    """User name and password."""
    if data and data[0] != AUTH_VERSION:
        raise SocksError("the client's authentication is of an unknown version")
    if len(data) < 2 or len(data) < 3 + data[1]:
        return None
    name, length = data[2 : 2 + data[1]], data[2 + data[1]]
    end = 3 + len(name) + length
    return ((name, data[3 + len(name) : end]), end) if len(data) >= end else None


def parse_request(data: bytes) -> tuple[Request, int] | None:
    if data and data[0] != VERSION:
        raise SocksError("the client's request is not SOCKS5")
    if len(data) < 4:
        return None
    found = _parse_address(data, 3)
    if found is None:
        return None
    host, port, end = found
    return Request(data[1], host, port), end


def pack_reply(code: ReplyCode, ip: str = "0.0.0.0", port: int = 0) -> bytes:
    return bytes([VERSION, code, 0]) + _pack_address(ip, port)


def code_of(error: OSError) -> ReplyCode:
    if isinstance(error, socket.gaierror):
        return ReplyCode.HOST_UNREACHABLE
    return _CODES.get(error.errno or 0, ReplyCode.FAILURE)


def parse_datagram(data: bytes) -> tuple[str, int, bytes]:
    """Destination and payload of a client's UDP message. SocksError for fragments, too."""
    if len(data) < _UDP_HEAD or data[2] != 0:
        raise SocksError("a fragment, or no SOCKS5 datagram")
    found = _parse_address(data, _UDP_HEAD)
    if found is None:
        raise SocksError("a datagram that is cut short")
    host, port, end = found
    return host, port, data[end:]


def pack_datagram(ip: str, port: int, payload: bytes) -> bytes:
    return bytes(_UDP_HEAD) + _pack_address(ip, port) + payload


def _parse_address(data: bytes, at: int) -> tuple[str, int, int] | None:
    """Host, port, and where they end, of an address that begins with its type at `at`."""
    if len(data) <= at + 1:
        return None
    kind, start = data[at], at + 1
    if kind == _NAME:
        length, start = data[start], start + 1
    elif kind in _LENGTHS:
        length = _LENGTHS[kind]
    else:
        raise SocksError(f"address type {kind} is unknown", ReplyCode.ADDRESS_NOT_SUPPORTED)
    end = start + length + 2
    if len(data) < end:
        return None
    raw, (port,) = data[start : end - 2], struct.unpack(">H", data[end - 2 : end])
    if kind == _NAME:
        try:
            host = raw.decode("ascii")
        except UnicodeDecodeError:
            raise SocksError("the name of the destination is not ASCII", ReplyCode.ADDRESS_NOT_SUPPORTED) from None
        if not host or not host.isprintable() or " " in host:
            raise SocksError("the name of the destination is none", ReplyCode.ADDRESS_NOT_SUPPORTED)
        return host, port, end
    return socket.inet_ntop(socket.AF_INET if kind == _IPV4 else socket.AF_INET6, raw), port, end


def _pack_address(ip: str, port: int) -> bytes:
    family, kind = (socket.AF_INET6, _IPV6) if ":" in ip else (socket.AF_INET, _IPV4)
    return bytes([kind]) + socket.inet_pton(family, ip) + struct.pack(">H", port)
