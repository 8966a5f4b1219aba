"""Datagram sockets over socket RPC, as the intercept library does it: socket_rpc.h, "datagrams"."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
from dataclasses import dataclass

from tests.lwip.rpc_client import (
    ADDRESS,
    POSTED,
    PROGRAM_NAME,
    SOCKET,
    TIMEOUT,
    Program,
    ProgramSocket,
    cookie,
    encode_name,
    pack_address,
    send,
)

SENDTO, INTERFACES = 12, 13
HEADER = struct.Struct("=BBBBHH16s16s")
MAGIC = 0xD7
PEER, LOCAL, TTL, TOS, STAMP, STAMP_NS = 1, 2, 4, 8, 16, 32
ERROR = 128
FRAMED, BARE, FRAMED_CONNECTED = 0, 1, 2
CONNECT = 5
INTERFACE = struct.Struct("=QIIIB3x16s6sH28s4x")


def mapped(ip: str) -> bytes:
    address = ipaddress.ip_address(ip)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def shown(packed: bytes, family: int) -> str:
    address = ipaddress.IPv6Address(packed)
    if family == socket.AF_INET:
        assert address.ipv4_mapped is not None
        return str(address.ipv4_mapped)
    return str(address)


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram as recvmsg shows it; what was not asked for is None."""

    data: bytes
    peer: tuple[str, int]
    local: str | None = None
    interface: int | None = None
    ttl: int | None = None
    tos: int | None = None


class DatagramSocket(ProgramSocket):
    kind, protocol = socket.SOCK_DGRAM, socket.IPPROTO_UDP

    @property
    def mode(self) -> int:
        return self.p.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)

    def frame(
        self,
        data: bytes,
        to: tuple[str, int] | None,
        *,
        source: str = "",
        interface: int = 0,
        ttl: int | None = None,
        tos: int | None = None,
    ) -> bytes:
        flags = (PEER if to else 0) | (LOCAL if source else 0) | (TTL if ttl is not None else 0) | (TOS if tos is not None else 0)
        ip, port = to or ("::", 0)
        return (
            HEADER.pack(
                MAGIC,
                flags,
                ttl or 0,
                tos or 0,
                port,
                interface,
                mapped(ip),
                mapped(source or "0.0.0.0" if "." in ip else source or "::"),
            )
            + data
        )

    def send(self, data: bytes) -> None:
        """send() on a connected socket."""
        self.p.send(data if self.mode == BARE else self.frame(data, None))

    def sendto(self, data: bytes, ip: str, port: int, **ancillary: object) -> None:
        """sendto() on a socket that is not connected."""
        self.p.send(self.frame(data, (ip, port), **ancillary))  # type: ignore[arg-type]

    def call_sendto(self, data: bytes, ip: str, port: int, **ancillary: object) -> int:
        """sendto() by RPC: any mode, and the true errno."""
        error, value, _, _ = self.program.call(SENDTO, self, (), self.frame(data, (ip, port), **ancillary))  # type: ignore[arg-type]
        if error:
            raise OSError(error, os.strerror(error))
        return value

    def receive(self, flags: int = 0) -> Received:
        """recvmsg(); a nudge raises what SO_ERROR says."""
        while True:
            message = self.p.recv(1 << 17, flags)
            if self.mode == BARE:
                if not message:
                    self.raise_error()
                return Received(message, self.getpeername())
            magic, flag, ttl, tos, port, interface, peer, local = HEADER.unpack_from(message)
            assert magic == MAGIC
            if flag & ERROR:
                assert len(message) == HEADER.size
                self.raise_error()
                continue
            assert flag & PEER
            return Received(
                message[HEADER.size :],
                (shown(peer, self.family), port),
                shown(local, self.family) if flag & LOCAL else None,
                interface if flag & LOCAL else None,
                ttl if flag & TTL else None,
                tos if flag & TOS else None,
            )

    def recvfrom(self) -> tuple[bytes, tuple[str, int]]:
        got = self.receive()
        return got.data, got.peer

    def raise_error(self) -> None:
        error = self.getsockopt_int(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def readable(self, timeout: float = 0) -> bool:
        poller = select.poll()
        poller.register(self.p, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def connect(self, ip: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.ask(CONNECT, (1,), pack_address(family, ip, port))

    def connect_scoped(self, ip: str, port: int, scope: int) -> None:
        self.ask(CONNECT, (1,), pack_address(socket.AF_INET6, ip, port, scope))


def datagram_socket(
    program: Program,
    family: int = socket.AF_INET,
    kind: int = socket.SOCK_DGRAM,
    protocol: int = socket.IPPROTO_UDP,
    *,
    posted: bool = False,
) -> DatagramSocket:
    """socket(): the pair's type is SOCK_SEQPACKET."""
    p, s = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = cookie(p)
    p.bind(encode_name("P", PROGRAM_NAME.pack(program.service, number, family, kind, protocol, 0)))
    message = program.request(SOCKET, flags=POSTED if posted else 0, socket_id=number, family=family, kind=kind, protocol=protocol)
    with s:
        if posted:
            send(program.channel, message, [s.fileno()])
        else:
            error = program.exchange(message, [s.fileno()])[0]
            if error:
                p.close()
                raise OSError(error, os.strerror(error))
    return DatagramSocket(program, p, number, family)


def bound(program: Program, ip: str, port: int = 0, **options: int) -> DatagramSocket:
    sock = datagram_socket(program, socket.AF_INET6 if ":" in ip else socket.AF_INET)
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    try:
        sock.bind(ip, port)
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Interface:
    network: int
    index: int
    flags: int
    mtu: int
    prefix: int
    name: str
    mac: bytes
    address: str | None


def interfaces(program: Program) -> list[Interface]:
    """What getifaddrs shows."""
    found: list[Interface] = []
    while True:
        error, total, data, _ = program.call(INTERFACES, None, (len(found),))
        assert error == 0
        for at in range(0, len(data), INTERFACE.size):
            network, index, flags, mtu, prefix, name, mac, _, address = INTERFACE.unpack_from(data, at)
            family, _, _, _, ip = ADDRESS.unpack(address)
            text = None if family == 0 else str(ipaddress.ip_address(ip[:4] if family == socket.AF_INET else ip))
            found.append(Interface(network, index, flags, mtu, prefix, name.rstrip(b"\0").decode(), mac, text))
        if len(found) >= total:
            return found


__all__ = ["TIMEOUT", "DatagramSocket", "Received", "bound", "datagram_socket", "interfaces"]
