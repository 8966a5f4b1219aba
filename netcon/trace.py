"""What the intercept library tells of a program's calls (include/netcon/trace.h), as records and as lines of text.

Layouts are in host order. Pure: no socket, no clock.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

MAGIC, VERSION = 0x4E435452, 1
#: struct netcon_trace_record: magic, version, phase, decision, process, thread, started, duration, six arguments, result, network,
#: socket, family, type, protocol, count, bytes, state, lost, local, remote, call.
_RECORD = struct.Struct("=IHBBiiQQ6qqQQHHHBBB3xI28s28s24s")
_ADDRESS = struct.Struct("=HHII16s")  # struct netcon_address
_NO_BYTES = 255
RECORD_MAX = _RECORD.size + 128
_ELSEWHERE = ("execve", "execveat")  # a call that succeeds never ends


class Decision(IntEnum):
    """enum netcon_trace_decision."""

    NONE = 0
    OTHER = 1
    HOST = 2
    NETWORK = 3
    GIVEN = 4


class BadRecord(ValueError):
    """Not a record of this version; the text tells what is wrong."""


class Endpoint(NamedTuple):
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}" if self.ip.version == 4 else f"[{self.ip}]:{self.port}"


class Event(NamedTuple):
    """One record. `data`: what the argument `data_at` points to. Times in ns, `started` since 1970."""

    ended: bool
    decision: Decision
    process: int
    thread: int
    started: int
    duration: int
    arguments: tuple[int, ...]
    result: int
    network: int
    socket: int
    family: int
    type: int
    protocol: int
    state: str
    lost: int
    local: Endpoint | None
    remote: Endpoint | None
    call: str
    data: bytes
    data_at: int


def decode(message: bytes) -> Event:
    """BadRecord."""
    if len(message) < _RECORD.size:
        raise BadRecord(f"{len(message)} bytes are no record")
    magic, version, phase, decision, process, thread, started, duration, *rest = _RECORD.unpack_from(message)
    result, network, number, family, kind, protocol, count, data_at, state, lost, local, remote, call = rest[6:]
    if magic != MAGIC or version != VERSION:
        raise BadRecord("a record of another version: the library and this command are not of one netcon")
    if count > 6 or phase > 1 or decision not in Decision._value2member_map_:
        raise BadRecord("a record with impossible values")
    shown = chr(state) if state else ""
    return Event(
        phase == 1,
        Decision(decision),
        process,
        thread,
        started,
        duration,
        tuple(rest[:count]),
        result,
        network,
        number,
        family,
        kind,
        protocol,
        shown,
        lost,
        _endpoint(local) if shown else None,
        _endpoint(remote) if shown else None,
        call.split(b"\0", 1)[0].decode("ascii", "replace"),
        message[_RECORD.size :] if data_at != _NO_BYTES else b"",
        data_at if data_at != _NO_BYTES else -1,
    )


def _endpoint(packed: bytes) -> Endpoint | None:
    family, port, _, _, ip = _ADDRESS.unpack(packed)
    if family == socket.AF_INET:
        return Endpoint(ipaddress.IPv4Address(ip[:4]), port)
    return Endpoint(ipaddress.IPv6Address(ip), port) if family == socket.AF_INET6 else None


def sockaddr(data: bytes) -> Endpoint | str:
    """Of a struct sockaddr: an endpoint, or the name of another family."""
    if len(data) < 2:
        return "?"
    family, port = struct.unpack_from("=H", data)[0], int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET and len(data) >= 8:
        return Endpoint(ipaddress.IPv4Address(data[4:8]), port)
    if family == socket.AF_INET6 and len(data) >= 24:
        return Endpoint(ipaddress.IPv6Address(data[8:24]), port)
    if family == socket.AF_UNIX:
        return "unix:" + data[2:].split(b"\0", 1)[0].decode(errors="replace") if data[2:3] != b"\0" else "unix:@"
    return _name("AF_", family)


# ---- arguments ----


def _names(prefix: str) -> dict[int, str]:
    return {int(getattr(socket, name)): name for name in sorted(dir(socket), reverse=True) if name.startswith(prefix)}


_TABLES = {prefix: _names(prefix) for prefix in ("AF_", "SOCK_", "IPPROTO_", "SO_", "TCP_", "IP_", "IPV6_", "MSG_", "SHUT_")}
_TABLES["TCP_"] |= {18: "TCP_USER_TIMEOUT", 13: "TCP_CONGESTION", 23: "TCP_FASTOPEN", 31: "TCP_ULP"}
_REQUESTS = {0x541B: "FIONREAD", 0x5411: "SIOCOUTQ", 0x8905: "SIOCATMARK", 0x5421: "FIONBIO", 0x5452: "FIOASYNC", 0x5401: "TCGETS"}
_REQUESTS |= {0x8912: "SIOCGIFCONF", 0x8913: "SIOCGIFFLAGS", 0x8915: "SIOCGIFADDR", 0x8927: "SIOCGIFHWADDR", 0x8933: "SIOCGIFINDEX"}
_REQUESTS |= {0x8921: "SIOCGIFMTU", 0x8910: "SIOCGIFNAME", 0x891B: "SIOCGIFNETMASK", 0x8919: "SIOCGIFBRDADDR"}
_LEVELS = {socket.SOL_SOCKET: "SO_", socket.IPPROTO_TCP: "TCP_", socket.IPPROTO_IP: "IP_", socket.IPPROTO_IPV6: "IPV6_"}
_SOCK_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def _name(prefix: str, value: int) -> str:
    return _TABLES[prefix].get(value, str(value))


def _flags(prefix: str, value: int) -> str:
    names = [name for bit, name in _TABLES[prefix].items() if bit and bit & (bit - 1) == 0 and value & bit]
    known = sum(bit for bit in _TABLES[prefix] if bit and bit & (bit - 1) == 0 and value & bit)
    return "|".join(sorted(names) + ([hex(value - known)] if value != known else [])) or "0"


def _int(value: int) -> int:
    """A C int that came as a long."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _option(event: Event) -> tuple[str, str]:
    level, option = _int(event.arguments[1]), _int(event.arguments[2])
    prefix = _LEVELS.get(level)
    named = "SOL_SOCKET" if level == socket.SOL_SOCKET else _name("IPPROTO_", level)
    return named, _name(prefix, option) if prefix else str(option)


def _value(event: Event) -> str:
    if not event.data:
        return f"{event.arguments[3]:#x}" if event.arguments[3] else "NULL"
    if len(event.data) == 4:
        return str(struct.unpack("=i", event.data)[0])
    return f"{len(event.data)} bytes"


def _address(event: Event) -> str:
    if event.data:
        return str(sockaddr(event.data))
    return str(event.remote) if event.call.startswith("accept") and event.remote and event.result >= 0 else "NULL"


def _socket(event: Event) -> Iterator[str]:
    family, kind, protocol = map(_int, event.arguments[:3])
    flags = [name for bit, name in ((socket.SOCK_CLOEXEC, "SOCK_CLOEXEC"), (socket.SOCK_NONBLOCK, "SOCK_NONBLOCK")) if kind & bit]
    yield _name("AF_", family)
    yield "|".join([_name("SOCK_", kind & ~_SOCK_FLAGS), *flags])
    yield _name("IPPROTO_", protocol) if protocol else "0"


def _text(event: Event) -> str:
    return '"' + event.data.decode(errors="backslashreplace").replace('"', '\\"') + '"' if event.data else "NULL"


def _host(event: Event) -> str:
    """An address alone."""
    return str(ipaddress.ip_address(event.data)) if len(event.data) in (4, 16) else "NULL"


def _descriptor(event: Event) -> str:
    return str(_int(event.arguments[0]))


def _transfer(event: Event) -> list[str]:
    shown = [_descriptor(event), str(event.arguments[2]), _flags("MSG_", _int(event.arguments[3]))]
    return shown + ([_address(event)] if event.arguments[4] else [])


_SHOWN: dict[str, Callable[[Event], list[str]]] = {
    "socket": lambda event: list(_socket(event)),
    "bind": lambda event: [_descriptor(event), _address(event)],
    "connect": lambda event: [_descriptor(event), _address(event)],
    "listen": lambda event: [_descriptor(event), str(_int(event.arguments[1]))],
    "accept": lambda event: [_descriptor(event), _address(event)],
    "accept4": lambda event: [_descriptor(event), _address(event), _flags("SOCK_", _int(event.arguments[3]))],
    "getsockname": lambda event: [_descriptor(event), _address(event)],
    "getpeername": lambda event: [_descriptor(event), _address(event)],
    "shutdown": lambda event: [_descriptor(event), _name("SHUT_", _int(event.arguments[1]))],
    "getsockopt": lambda event: [_descriptor(event), *_option(event), _value(event)],
    "setsockopt": lambda event: [_descriptor(event), *_option(event), _value(event)],
    "recvfrom": _transfer,
    "sendto": _transfer,
    "recvmsg": lambda event: [_descriptor(event), _address(event), _flags("MSG_", _int(event.arguments[2]))],
    "sendmsg": lambda event: [_descriptor(event), _address(event), _flags("MSG_", _int(event.arguments[2]))],
    "recvmmsg": lambda event: [_descriptor(event), str(event.arguments[2]), _flags("MSG_", _int(event.arguments[3]))],
    "sendmmsg": lambda event: [_descriptor(event), str(event.arguments[2]), _flags("MSG_", _int(event.arguments[3]))],
    "ioctl": lambda event: [_descriptor(event), _REQUESTS.get(event.arguments[1], hex(event.arguments[1]))],
    "execve": lambda event: [_text(event)],
    "execveat": lambda event: [str(_int(event.arguments[0])), _text(event), "…"],
    "posix_spawn": lambda event: [_text(event)],
    "getaddrinfo": lambda event: [_text(event), "…"],
    "getnameinfo": lambda event: [_address(event), "…"],
    "gethostbyname": lambda event: [_text(event), _name("AF_", _int(event.arguments[1]))],
    "gethostbyaddr": lambda event: [_host(event), _name("AF_", _int(event.arguments[2]))],
    "getifaddrs": lambda event: [],
    "if_nameindex": lambda event: [],
    "if_nametoindex": lambda event: [_text(event)],
    "if_indextoname": lambda event: [str(event.arguments[0])],
}
_HOST_ERRORS = {1: "HOST_NOT_FOUND", 2: "TRY_AGAIN", 3: "NO_RECOVERY", 4: "NO_DATA"}  # h_errno
_ADDRESS_ERRORS = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
_COUNTS = {"socket": 3, "accept4": 4, "getsockopt": 5, "setsockopt": 5, "ioctl": 3}
_COUNTS |= {"recvfrom": 6, "sendto": 6, "recvmmsg": 5, "sendmmsg": 4, "recvmsg": 3, "sendmsg": 3, "listen": 2, "shutdown": 2}
_COUNTS |= {"gethostbyname": 2, "gethostbyaddr": 3, "if_nameindex": 0}


def arguments(event: Event) -> str:
    """As strace shows them, as far as they are known; numbers for a call that this module does not know."""
    shown = _SHOWN.get(event.call)
    if shown is None or len(event.arguments) < _COUNTS.get(event.call, 1):
        numbers = [hex(value) if value > 0xFFFF else str(value) for value in event.arguments]
        return ", ".join([*numbers, _text(event)] if event.data else numbers)
    return ", ".join(shown(event))


def result(event: Event) -> str:
    if not -4096 < event.result < 0:
        return str(event.result)
    if event.call in ("getaddrinfo", "getnameinfo"):
        return _ADDRESS_ERRORS.get(event.result, str(event.result))
    if event.call in ("gethostbyname", "gethostbyaddr") and -event.result in _HOST_ERRORS:
        return f"NULL {_HOST_ERRORS[-event.result]}"
    return f"-1 {errno.errorcode.get(-event.result, str(-event.result))} ({os.strerror(-event.result)})"


# ---- lines ----


class Printer:
    """Turns events into lines, one for each call when it ends.

    `network_of` tells the network of a local address, 0 if it does not know. `everything`: also
    calls on what is no internet socket.
    """

    def __init__(
        self, network_of: Callable[[str], int] = lambda address: 0, *, everything: bool = False, clock: bool = False
    ) -> None:
        self._network_of = network_of
        self._everything = everything
        self._clock = clock
        self._open: dict[tuple[int, int], list[Event]] = {}
        self._lost: dict[int, int] = {}
        self._networks: dict[int, int] = {}  # socket -> network

    def lines(self, event: Event) -> Iterator[str]:
        """What is to be printed now."""
        if (more := event.lost - self._lost.get(event.process, 0)) > 0:
            yield f"{event.process} … {more} {'event' if more == 1 else 'events'} lost: the tracer was too slow"
        self._lost[event.process] = event.lost
        begun = self._open.setdefault((event.process, event.thread), [])
        if not event.ended:
            if begun and begun[-1].call in _ELSEWHERE:
                yield self._line(begun.pop(), "= 0 [replaced the program]")
            begun.append(event)
            return
        while begun:  # what is below was interrupted by a signal handler; what is above never ended
            if begun.pop().call == event.call:
                break
        if self._everything or event.decision is not Decision.OTHER:
            yield self._line(event, f"= {result(event)} [{self._decided(event)}{event.duration / 1e6:.1f} ms]")

    def unfinished(self) -> Iterator[str]:
        """At the end: the calls that never ended."""
        for begun in self._open.values():
            for event in begun:
                yield self._line(event, "= 0 [replaced the program]" if event.call in _ELSEWHERE else "= ? <unfinished …>")
        self._open.clear()

    def _line(self, event: Event, end: str) -> str:
        thread = f"/{event.thread}" if event.thread != event.process else ""
        when = f"{datetime.fromtimestamp(event.started / 1e9):%H:%M:%S.%f} " if self._clock else ""
        return f"{event.process}{thread} {when}{event.call}({arguments(event)}) {end}"

    def _decided(self, event: Event) -> str:
        match event.decision:
            case Decision.NETWORK:
                number = event.network or self._learnt(event)
                return f"network {number:016x}, " if number else "network, "
            case Decision.HOST:
                return "host, "
            case Decision.GIVEN:
                given = sockaddr(event.data)
                return "host: loopback, " if isinstance(given, Endpoint) and _is_loopback(given) else "host: given to it, "
            case Decision.OTHER:
                return "not an internet socket, "
        return ""

    def _learnt(self, event: Event) -> int:
        known = self._networks.get(event.socket, 0)
        if not known and event.local is not None and not event.local.ip.is_unspecified:
            known = self._networks[event.socket] = self._network_of(str(event.local.ip))
        return known


def _is_loopback(endpoint: Endpoint) -> bool:
    mapped = endpoint.ip.ipv4_mapped if isinstance(endpoint.ip, ipaddress.IPv6Address) else None
    return (mapped or endpoint.ip).is_loopback
