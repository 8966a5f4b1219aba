"""User-space TCP/IP stacks (lwIP) and the POSIX socket server on top of them, as seen from Python.

Everything runs on the reactor's thread; calls from Python post there and wait, with the GIL released.
"""

class StackError(Exception):
    """A call that the stack refused, or a stack that has failed (an lwIP assertion ended it)."""

class Stack:
    """One TCP/IP stack: a private copy of lwIP with one Ethernet interface."""

    def __init__(self, reactor: object, *, mac: bytes, mtu: int = 2800, name: str = "") -> None:
        """`reactor`: a capsule (reactor.h)."""

    def ethernet_end(self) -> object:
        """PyCapsule of `struct netcon_ethernet_end`."""

    def add_address(self, ip: str, prefix: int) -> None: ...
    def remove_address(self, ip: str) -> None: ...
    def addresses(self) -> list[tuple[str, int]]:
        """Including the IPv6 link-local address, which the stack makes from the MAC."""

    def set_routes(self, routes: list[tuple[str, str | None]]) -> None:
        """Managed routes: ("net/bits", gateway or None). Replaces the previous set."""

    def set_mtu(self, mtu: int) -> None: ...
    @property
    def failed(self) -> str | None:
        """The text of the assertion that ended this stack, or None."""

    def inject_failure(self, text: str) -> None:
        """Fail as an lwIP assertion would (for tests)."""

    def stats(self) -> dict[str, int]: ...
    def close(self) -> None: ...

class SocketServer:
    """The POSIX socket server: one per service; serves socket RPC (include/netcon/socket_rpc.h) on AF_UNIX paths."""

    def __init__(self, reactor: object, *, service: int, epoch: int) -> None: ...
    def listen(self, path: str, *, network: int = 0, mode: int = 0o600) -> None:
        """Serve on `path` with this default network. OSError; a stale socket file is replaced, a live one is EADDRINUSE."""

    def unlisten(self, path: str) -> None: ...
    def add_network(self, network: int, stack: Stack) -> None:
        """Sockets may now join `stack`. Replaces a failed stack of that network."""

    def remove_network(self, network: int) -> None:
        """Sockets of that stack are reset."""

    def stats(self) -> dict[str, int]:
        """sockets, listeners, connections, requests, bad_requests, bytes_in, bytes_out, descriptors …"""

    def close(self) -> None: ...
