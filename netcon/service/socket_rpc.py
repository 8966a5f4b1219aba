"""The HELLO of include/netcon/socket_rpc.h from Python: asks an RPC path who answers there.

Imports nothing heavy, for `netcon run` and `netcon service -d` use it.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

_MAGIC = 0x4E43
_VERSION = 1
_HELLO = 1
_REQUEST = struct.Struct("=HHHHQQHHHHiiiiII")  # struct netcon_rpc_request
_REPLY = struct.Struct("=HHHHiiI")  # struct netcon_rpc_reply
_HELLO_REPLY = struct.Struct("=QQQ")  # struct netcon_rpc_hello


class Hello(NamedTuple):
    """Who answers at an RPC path: the home's persistent id, the start's random one, the path's default network (0: none)."""

    service: int
    epoch: int
    network: int


def hello(path: Path, timeout: float = 5.0) -> Hello:
    """Ask the service at `path`. OSError when nobody answers, or not in our protocol version."""
    request = _REQUEST.pack(_MAGIC, _VERSION, _HELLO, *[0] * 13)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rpc:
        rpc.settimeout(timeout)
        rpc.connect(os.fspath(path))
        socket.send_fds(rpc, [request], [theirs.fileno()])
        theirs.close()
        ours.settimeout(timeout)
        reply = ours.recv(1024)
    if len(reply) < _REPLY.size:
        raise ConnectionResetError(f"{path}: the service closed the request without an answer")
    magic, _, operation, _, error, _, length = _REPLY.unpack_from(reply)
    if magic != _MAGIC or operation != _HELLO:
        raise ConnectionError(f"{path}: what answers there is not a netcon service")
    if error:
        raise OSError(error, os.strerror(error), os.fspath(path))
    if length != _HELLO_REPLY.size or len(reply) != _REPLY.size + length:
        raise ConnectionError(f"{path}: the service speaks another version of socket RPC; restart it with this netcon")
    return Hello(*_HELLO_REPLY.unpack_from(reply, _REPLY.size))
