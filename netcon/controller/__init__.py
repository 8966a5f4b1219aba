"""The network controller: networks, members, addresses, certificates. The engine part is sans-I/O; stores are beside it.

Imports `netcon.core`; nothing here opens a socket. Only `sqlite_store` touches a file.
"""

from netcon.controller.controller import Controller
from netcon.controller.errors import (
    ControllerError,
    CorruptStore,
    InvalidRequest,
    StoreFailed,
    UnknownMember,
    UnknownNetwork,
    UnknownToken,
)
from netcon.controller.memory_store import MemoryStore
from netcon.controller.sqlite_store import SqliteStore

__all__ = [
    "Controller",
    "ControllerError",
    "CorruptStore",
    "InvalidRequest",
    "MemoryStore",
    "SqliteStore",
    "StoreFailed",
    "UnknownMember",
    "UnknownNetwork",
    "UnknownToken",
]
