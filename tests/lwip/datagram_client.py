"""Datagram sockets over socket RPC, as the intercept library does it: socket_rpc.h, "datagrams"."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from netcon.service.socket_rpc import (
    BARE,
    CONNECT,
    DATAGRAM,
    FRAMED,
    FRAMED_CONNECTED,
    INTERFACES,
    POSTED,
    SENDTO,
    SOCKET,
    Datagram,
    Interface,
    cookie,
    family_of,
    pack_address,
    pack_datagram,
    program_name,
    send_message,
    unpack_datagram,
    unpack_interfaces,
)
from tests.lwip.rpc_client import TIMEOUT, Program, ProgramSocket


class DatagramSocket(ProgramSocket):
    kind, protocol = socket.SOCK_DGRAM, socket.IPPROTO_UDP

    @property
    def mode(self) -> int:
        return self.p.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)

    def send(self, data: bytes) -> None:
        """send() on a connected socket."""
        self.p.send(data if self.mode == BARE else pack_datagram(data, None))

    def sendto(self, data: bytes, ip: str, port: int, **ancillary: Any) -> None:
        """sendto() on a socket that is not connected."""
        self.p.send(pack_datagram(data, (ip, port), **ancillary))

    def call_sendto(self, data: bytes, ip: str, port: int, **ancillary: Any) -> int:
        """sendto() by RPC: any mode, and the true errno."""
        error, value, _, _ = self.program.call(SENDTO, self, (), pack_datagram(data, (ip, port), **ancillary))
        if error:
            raise OSError(error, os.strerror(error))
        return value

    def receive(self, flags: int = 0) -> Datagram:
        """recvmsg(); a nudge raises what SO_ERROR says."""
        while True:
            message = self.p.recv(1 << 17, flags)
            if self.mode == BARE:
                if not message:
                    self.raise_error()
                return Datagram(message, self.getpeername())
            got = unpack_datagram(message, self.family)
            if not got.error:
                assert got.peer[0]
                return got
            assert not got.data
            self.raise_error()

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
        self.ask(CONNECT, (1,), pack_address(ip, port))

    def connect_scoped(self, ip: str, port: int, scope: int) -> None:
        self.ask(CONNECT, (1,), pack_address(ip, port, scope))


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
    p.bind(program_name(program.service, number, family, kind, protocol))
    message = program.request(SOCKET, flags=POSTED if posted else 0, socket_id=number, family=family, kind=kind, protocol=protocol)
    with s:
        if posted:
            send_message(program.channel, message, [s.fileno()])
        else:
            error = program.exchange(message, [s.fileno()])[0]
            if error:
                p.close()
                raise OSError(error, os.strerror(error))
    return DatagramSocket(program, p, number, family)


def bound(program: Program, ip: str, port: int = 0, **options: int) -> DatagramSocket:
    sock = datagram_socket(program, family_of(ip))
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    try:
        sock.bind(ip, port)
    except BaseException:
        sock.close()
        raise
    return sock


def interfaces(program: Program) -> list[Interface]:
    """What getifaddrs shows."""
    found: list[Interface] = []
    while True:
        error, total, data, _ = program.call(INTERFACES, None, (len(found),))
        assert error == 0
        found += unpack_interfaces(data)
        if len(found) >= total:
            return found


__all__ = [
    "BARE",
    "DATAGRAM",
    "FRAMED",
    "FRAMED_CONNECTED",
    "TIMEOUT",
    "DatagramSocket",
    "bound",
    "datagram_socket",
    "interfaces",
]
