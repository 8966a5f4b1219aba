"""User-space TCP/IP stacks (lwIP) and the POSIX socket server on top of them.

What lives here: `source.py` and `build_core.py` obtain and build lwIP's C code (`core/`); `src/` is the extension `lwip._lwip`: the
stack, the socket server, their bindings. The stub beside this file is the contract. Imports nothing of netcon's Python; it meets
the data plane through the C interfaces in include/netcon, which travel in capsules.
"""

from . import _lwip
from ._lwip import Probe, Stack, StackError

__all__ = ["Probe", "SocketServer", "Stack", "StackError"]

SocketServer = _lwip.SocketServer
