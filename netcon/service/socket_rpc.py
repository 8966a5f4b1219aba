"""include/netcon/socket_rpc.h in Python: how requests, replies, names and datagrams are packed, and HELLO, which asks an RPC path
who answers there.

The one place for the protocol's encoding: `netcon.sockets` and the clients of the tests are made of it. Imports nothing heavy, for
`netcon run` and `netcon service -d` use it. Does no I/O but `hello`, `send_message` and `receive_message`.
"""

from __future__ import annotations

import array
import base64
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAGIC = 0x4E43
VERSION = 1
POSTED = 1
HELLO, SOCKET, BIND, LISTEN, CONNECT, GETSOCKNAME, GETPEERNAME, SETSOCKOPT, GETSOCKOPT, SHUTDOWN, IOCTL, SENDTO, INTERFACES = range(
    1, 14
)

REQUEST = struct.Struct("=HHHHQQHHHH4iII")  # struct netcon_rpc_request: magic … data_length, reserved; then the data
REPLY = struct.Struct("=HHHHiiI")  # struct netcon_rpc_reply
ADDRESS = struct.Struct("=HHII16s")  # struct netcon_address
HELLO_REPLY = struct.Struct("=QQQ")  # struct netcon_rpc_hello
RECORD = struct.Struct("=Q28s28x")  # struct netcon_accept_record
RECORD_MAGIC = 0x4E43414343455054
PROGRAM_NAME = struct.Struct("=QQHHHH")  # struct netcon_name_program
SERVICE_NAME = struct.Struct("=QIiHHHH16s16s")  # struct netcon_name_service
NAME_PREFIX = b"\0znc1"
INTERFACE = struct.Struct("=QIIIB3x16s6sH28s4x")  # struct netcon_interface

DATAGRAM = struct.Struct("=BBBBHH16s16s")  # struct netcon_datagram_header
DATAGRAM_MAGIC = 0xD7
DATAGRAM_PAYLOAD_MAX = 65507
PEER, LOCAL, TTL, TOS, STAMP, STAMP_NS, ERROR = 1, 2, 4, 8, 16, 32, 128  # enum netcon_datagram_flags
FRAMED, BARE, FRAMED_CONNECTED = 0, 1, 2  # enum netcon_datagram_mode, in SO_PRIORITY of P

SO_COOKIE = 57  # asm-generic/socket.h
SEND_BUFFER = 212992  # of P: lets the byte that the service leaves in S's queue not stop the program
REPLY_MAX = 4096  # more than any reply
RIGHTS_MAX = 253  # descriptors in one message (SCM_MAX_FD)


class Hello(NamedTuple):
    """Who answers at an RPC path: the home's persistent id, the start's random one, the path's default network (0: none)."""

    service: int
    epoch: int
    network: int


class Reply(NamedTuple):
    """What the service answers: `error` is an errno or 0."""

    operation: int
    error: int
    value: int
    data: bytes


class ServiceName(NamedTuple):
    """The name of the service's end: kind L (listening), C (connected), F (failed, with its errno), D (datagrams)."""

    kind: str
    serial: int
    error: int
    local: tuple[str, int]
    remote: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of a virtual interface; an interface without any has one entry with `address` None."""

    network: int
    index: int
    flags: int
    mtu: int
    prefix: int
    name: str
    mac: bytes
    address: str | None


class Datagram(NamedTuple):
    """A datagram as recvmsg shows it; what was not asked for is None. `error`: it is a nudge, nothing else in it counts."""

    data: bytes
    peer: tuple[str, int]
    local: str | None = None
    interface: int | None = None
    ttl: int | None = None
    tos: int | None = None
    error: bool = False


class ProtocolError(ConnectionError):
    """What answers is not a netcon service, or speaks another version."""


def family_of(ip: str) -> int:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def pack_ip(ip: str) -> bytes:
    return socket.inet_pton(family_of(ip), ip)


def unpack_ip(family: int, ip: bytes) -> str:
    """ProtocolError: of another family."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise ProtocolError(f"the service sent an address of family {family}; restart it with this netcon")
    return socket.inet_ntop(family, ip[:4] if family == socket.AF_INET else ip)


def pack_address(ip: str, port: int, scope: int = 0) -> bytes:
    """`struct netcon_address` of a numeric address. OSError when it is none."""
    return ADDRESS.pack(family_of(ip), port, scope, 0, pack_ip(ip))


def unpack_address(data: bytes) -> tuple[str, int]:
    """Address and port; ("", 0) of family 0. ProtocolError."""
    if len(data) != ADDRESS.size:
        raise ProtocolError(f"the service sent an address of {len(data)} bytes; restart it with this netcon")
    family, port, _, _, ip = ADDRESS.unpack(data)
    return (unpack_ip(family, ip), port) if family else ("", 0)


def pack_request(
    operation: int,
    *,
    flags: int = 0,
    network: int = 0,
    socket_id: int = 0,
    family: int = 0,
    kind: int = 0,
    protocol: int = 0,
    args: Iterable[int] = (),
    data: bytes = b"",
    version: int = VERSION,
) -> bytes:
    padded = (*args, 0, 0, 0, 0)[:4]
    head = REQUEST.pack(MAGIC, version, operation, flags, network, socket_id, family, kind, protocol, 0, *padded, len(data), 0)
    return head + data


def unpack_reply(message: bytes) -> Reply:
    """ProtocolError unless it is whole, and a reply of our version."""
    if not message:
        raise ProtocolError("the service closed the request without an answer")
    if len(message) < REPLY.size:
        raise ProtocolError("what answers there is not a netcon service")
    magic, version, operation, _, error, value, length = REPLY.unpack_from(message)
    if magic != MAGIC:
        raise ProtocolError("what answers there is not a netcon service")
    if version != VERSION or len(message) != REPLY.size + length:
        raise ProtocolError("the service speaks another version of socket RPC; restart it with this netcon")
    return Reply(operation, error, value, message[REPLY.size :])


def send_message(channel: socket.socket, message: bytes, fds: Iterable[int] = ()) -> None:
    channel.sendmsg([message], rights(fds))


def rights(fds: Iterable[int]) -> list[tuple[int, int, array.array[int]]]:
    """The control data that carries descriptors."""
    numbers = array.array("i", fds)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []


def receive_message(channel: socket.socket, size: int) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = channel.recvmsg(size, socket.CMSG_SPACE(4 * RIGHTS_MAX), socket.MSG_CMSG_CLOEXEC)
    return data, passed(ancillary)


def passed(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in control data."""
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return list(fds)


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def encode_name(kind: str, packed: bytes) -> bytes:
    return NAME_PREFIX + kind.encode() + base64.urlsafe_b64encode(packed).rstrip(b"=")


def program_name(service: int, number: int, family: int, kind: int, protocol: int, spare: int = 0) -> bytes:
    """The name of P. `spare`: any number, makes another name where one has been taken."""
    return encode_name("P", PROGRAM_NAME.pack(service, number, family, kind, protocol, spare))


def decode_service_name(name: object) -> ServiceName | None:
    """What P's getpeername() says; None when the service's end has no name yet. ProtocolError: a name that only looks like ours."""
    if not isinstance(name, bytes) or not name.startswith(NAME_PREFIX):
        return None
    start = len(NAME_PREFIX)
    text = name[start + 1 :]
    try:
        packed = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        packed = b""
    if len(packed) != SERVICE_NAME.size:
        raise ProtocolError("the service's end has a name that is none of ours; restart the service with this netcon")
    serial, _, error, family, local_port, remote_port, _, local, remote = SERVICE_NAME.unpack(packed)
    ends = [("", 0), ("", 0)]
    if family:
        ends = [(unpack_ip(family, local), local_port), (unpack_ip(family, remote), remote_port)]
    return ServiceName(chr(name[start]), serial, error, ends[0], ends[1])


def unpack_interfaces(data: bytes) -> list[Interface]:
    """ProtocolError."""
    if len(data) % INTERFACE.size:
        raise ProtocolError("the service sent a part of an interface; restart it with this netcon")
    found = []
    for network, index, flags, mtu, prefix, name, mac, _, address in INTERFACE.iter_unpack(data):
        ip = unpack_address(address)[0] or None
        found.append(Interface(network, index, flags, mtu, prefix, name.rstrip(b"\0").decode(errors="replace"), mac, ip))
    return found


def pack_mapped(ip: str) -> bytes:
    """16 bytes: an IPv4 address is IPv4-mapped."""
    packed = pack_ip(ip)
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def unpack_mapped(packed: bytes, family: int) -> str:
    return unpack_ip(family, packed[12:] if family == socket.AF_INET else packed)


def pack_datagram(
    data: bytes,
    to: tuple[str, int] | None,
    *,
    source: str = "",
    interface: int = 0,
    ttl: int | None = None,
    tos: int | None = None,
) -> bytes:
    """A datagram to the service. `to` is None on a connected socket; `source` is a local address, `interface` where it goes out."""
    flags = (
        (PEER if to else 0)
        | (LOCAL if source or interface else 0)
        | (TTL if ttl is not None else 0)
        | (TOS if tos is not None else 0)
    )
    ip, port = to or ("::", 0)
    here = source or ("::" if ":" in ip else "0.0.0.0")
    head = DATAGRAM.pack(DATAGRAM_MAGIC, flags, ttl or 0, tos or 0, port, interface, pack_mapped(ip), pack_mapped(here))
    return head + data


def unpack_datagram(message: bytes, family: int) -> Datagram:
    """A framed message from the service, of a socket of `family`."""
    if len(message) < DATAGRAM.size:
        raise ProtocolError("the service sent no datagram")
    magic, flags, ttl, tos, port, interface, peer, local = DATAGRAM.unpack_from(message)
    if magic != DATAGRAM_MAGIC:
        raise ProtocolError("the service sent no datagram")
    return Datagram(
        message[DATAGRAM.size :],
        (unpack_mapped(peer, family), port) if flags & PEER else ("", 0),
        unpack_mapped(local, family) if flags & LOCAL else None,
        interface if flags & LOCAL else None,
        ttl if flags & TTL else None,
        tos if flags & TOS else None,
        bool(flags & ERROR),
    )


def hello(path: Path, timeout: float = 5.0) -> Hello:
    """Ask the service at `path`. OSError when nobody answers, or not in our protocol version."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rpc:
        rpc.settimeout(timeout)
        rpc.connect(os.fspath(path))
        send_message(rpc, pack_request(HELLO), [theirs.fileno()])
        theirs.close()
        ours.settimeout(timeout)
        reply = ours.recv(REPLY_MAX)
    if not reply:
        raise ConnectionResetError(f"{path}: the service closed the request without an answer")
    try:
        answer = unpack_reply(reply)
    except ProtocolError as problem:
        raise ProtocolError(f"{path}: {problem}") from None
    if answer.operation != HELLO:
        raise ProtocolError(f"{path}: what answers there is not a netcon service")
    if answer.error:
        raise OSError(answer.error, os.strerror(answer.error), os.fspath(path))
    return unpack_hello(answer.data, path)


def unpack_hello(data: bytes, path: str | os.PathLike[str]) -> Hello:
    if len(data) != HELLO_REPLY.size:
        raise ProtocolError(f"{path}: the service speaks another version of socket RPC; restart it with this netcon")
    return Hello(*HELLO_REPLY.unpack(data))
