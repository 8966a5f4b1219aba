"""What `-L` and `-R` say, in ssh's syntax: `[udp:][bind:]port:host:hostport`, with `[…]` around IPv6 addresses and paths of Unix
sockets instead of `[bind:]port` or `host:hostport`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from netcon.core.errors import NetconError

HOST_DEFAULT = "127.0.0.1"  # nobody but this machine, unless said otherwise
NETWORK_DEFAULT = "::"  # all virtual addresses of this member, IPv4 too
_PARTS = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::|$)")
_SYNTAX = "[udp:][bind:]port:host:hostport, with [...] around IPv6 addresses, or /path/of/a/socket for an end on this host"


class ForwardError(NetconError):
    """A forward or proxy cannot be set up. The text says why and what to do."""


class Direction(Enum):
    LOCAL = "L"  # listens on the host, connects into the network
    REMOTE = "R"  # listens on the network, connects to the host


@dataclass(frozen=True, slots=True)
class Inet:
    """An address or name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket on the host."""

    path: str

    def __str__(self) -> str:
        return self.path


Place = Inet | Unix


@dataclass(frozen=True, slots=True)
class Forward:
    direction: Direction
    udp: bool
    listen: Place
    target: Place

    def __str__(self) -> str:
        return f"-{self.direction.value} {'udp ' if self.udp else ''}{self.listen} -> {self.target}"


def parse_forward(direction: Direction, text: str, *, udp: bool = False) -> Forward:
    """Raises ForwardError."""
    rest = text.removeprefix("udp:")
    udp = udp or rest != text
    parts = _split(rest, text)
    default = HOST_DEFAULT if direction is Direction.LOCAL else NETWORK_DEFAULT
    target: Place
    if _is_path(parts[-1]):
        *front, path = parts
        target = Unix(path)
    elif len(parts) >= 3:
        *front, host, port = parts
        target = Inet(_host(host, text), _port(port, text, least=1))
    else:
        raise _wrong(text, "host and port of the target are missing")
    listen: Place
    match front:
        case [path] if _is_path(path):
            listen = Unix(path)
        case [port]:
            listen = Inet(default, _port(port, text))
        case [bind, port]:
            listen = Inet("::" if bind in ("", "*") else bind, _port(port, text))
        case _:
            raise _wrong(text, "too many or too few parts")
    for place, on_host in ((listen, direction is Direction.LOCAL), (target, direction is Direction.REMOTE)):
        if isinstance(place, Unix) and not on_host:
            raise _wrong(text, f"{place} is a Unix socket, and there are none on a network")
        if isinstance(place, Unix) and udp:
            raise _wrong(text, "UDP is not forwarded over Unix sockets")
    return Forward(direction, udp, listen, target)


def parse_place(text: str, default: str = HOST_DEFAULT) -> Place:
    """`[bind:]port` or a path. Raises ForwardError."""
    if _is_path(text):
        return Unix(text)
    match _split(text, text):
        case [port]:
            return Inet(default, _port(port, text))
        case [bind, port]:
            return Inet("::" if bind in ("", "*") else bind, _port(port, text))
    raise ForwardError(f"{text!r} is neither [address:]port nor the path of a socket")


def _split(text: str, whole: str) -> list[str]:
    parts, at = [], 0
    while True:
        found = _PARTS.match(text, at)
        if found is None:
            raise _wrong(whole, "brackets belong around IPv6 addresses, and nowhere else")
        parts.append(found[1] if found[1] is not None else found[2])
        at = found.end()
        if not found[0].endswith(":"):
            break
    if at != len(text):
        raise _wrong(whole, "brackets belong around IPv6 addresses, and nowhere else")
    return parts


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../"))


def _host(text: str, whole: str) -> str:
    if not text:
        raise _wrong(whole, "the target's host is empty")
    return text


def _port(text: str, whole: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= 65535):
        raise _wrong(whole, f"{text!r} is no port number")
    return int(text)


def _wrong(text: str, why: str) -> ForwardError:
    return ForwardError(f"{text!r}: {why}; a forward is written {_SYNTAX}")
