"""User-space TCP/IP stacks (lwIP) and the POSIX socket server on top of them, as seen from Python.

Everything runs on the reactor's thread; calls from Python post there and wait, with the GIL released.
"""

from typing import Any

class StackError(Exception):
    """A call that the stack refused, or a stack that has failed (an lwIP assertion ended it)."""

class Stack:
    """One TCP/IP stack: a private copy of lwIP with one Ethernet interface."""

    def __init__(self, reactor: object, *, mac: bytes, mtu: int = 2800, name: str = "", seed: int | None = None) -> None:
        """`reactor`: a capsule (reactor.h). `seed`: all randomness of the stack comes from it (simulations), else from the kernel.
        MTU: 1280 to 61500. ValueError; StackError when the core cannot be loaded."""

    def ethernet_end(self) -> object:
        """PyCapsule of `struct netcon_ethernet_end`."""

    def add_address(self, ip: str, prefix: int) -> None: ...
    def remove_address(self, ip: str) -> None: ...
    def addresses(self) -> list[tuple[str, int]]:
        """Including the IPv6 link-local address, which the stack makes from the MAC."""

    def groups(self) -> list[str]:
        """The multicast groups it receives: those that sockets have joined, and those that IPv6 itself needs."""

    def set_routes(self, routes: list[tuple[str, str | None]]) -> None:
        """Managed routes: ("net/bits", gateway or None). Replaces the previous set."""

    def set_mtu(self, mtu: int) -> None: ...
    @property
    def mtu(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def failed(self) -> str | None:
        """The text of the assertion that ended this stack, or None."""

    def inject_failure(self, text: str) -> None:
        """Fail as an lwIP assertion would (for tests)."""

    def stats(self) -> dict[str, int]:
        """frames_in, frames_out, bytes_in, bytes_out, bad_frames, frames_dropped (no peer, not running), deliveries_refused
        (the peer took fewer), transmit_refused (lwIP was told to wait), segments_merged, segments_refused (out of order, too
        many), checksum_errors, tcp_drops,
        tcp_active, tcp_listening, tcp_time_wait, memory, memory_peak, timer_runs."""

    def close(self) -> None:
        """End it: its sockets are told, its memory goes. Idempotent; also when the object goes."""

class Probe:
    """The stack's self-test: one TCP connection that sends a known pattern and verifies the one it receives, and ICMP echo."""

    def __init__(self, stack: Stack, *, seed: int = 0) -> None:
        """`seed`: of the pattern, the same at both ends."""

    def listen(self, port: int, ip: str = "") -> None: ...
    def connect(self, ip: str, port: int) -> None: ...
    def send(self, count: int) -> None:
        """Send `count` more bytes of the pattern."""

    def finish(self) -> None:
        """Close the sending direction after what is queued."""

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on: the window closes."""

    def keepalive(self, idle_ms: int, interval_ms: int, count: int) -> None: ...
    def ping(self, ip: str, sequence: int = 1, length: int = 32) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...
    def state(self) -> dict[str, Any]:
        """connected, open, eof (bool); sent, acknowledged, received, echo_replies, mss (int); bad_at (position of the
        first wrong byte, or None); error (lwIP's err_t, 0 for none)."""

class SocketServer:
    """The POSIX socket server: one per service; serves socket RPC (include/netcon/socket_rpc.h) on AF_UNIX paths."""

    def __init__(self, reactor: object, *, service: int, epoch: int) -> None: ...
    def set_policy(self, table: bytes) -> None:
        """`table`: a compiled policy (include/netcon/policy.h; netcon.policy makes it). It counts for what is asked from now on.
        ValueError. Before the first one: loopback and nothing else is the host's, raw sockets are refused."""

    def listen(self, path: str, *, network: int = 0, mode: int = 0o600) -> None:
        """Serve on `path` with this default network. OSError; a stale socket file is replaced, a live one is EADDRINUSE."""

    def unlisten(self, path: str) -> None: ...
    def add_network(self, network: int, stack: Stack) -> None:
        """Sockets may now join `stack`. Replaces a failed stack of that network."""

    def questions_fileno(self) -> int:
        """Questions (RESOLVE) are taken from now on. A descriptor of the server's that is readable when there are some. OSError."""

    def set_name_servers(self, addresses: list[bytes]) -> None:
        """The host's name servers, 4 or 16 bytes each: programs' queries to them become questions, unless policy gives them to the
        host. 127.0.0.53 and 127.0.0.11 are always among them. ValueError."""

    def take_questions(self) -> list[tuple[int, int, int, int, int, int, int, bytes, int]]:
        """Those that came since the last call: (question, uid, network, kind, flags, family, room, data, stream). Each must be
        answered; but of a connection to a name server of the host `stream` is the descriptor of its server's end, yours to close,
        and nothing else is to be done. Otherwise it is -1."""

    def answer_question(self, question: int, *, error: int = 0, value: int = 0, data: bytes = b"") -> bool:
        """Reply to it; False if it is not open. ValueError: more than 65535 bytes."""

    def remove_network(self, network: int) -> None:
        """Sockets of that stack are reset."""

    def stats(self) -> dict[str, int]:
        """sockets, listeners, connections, requests, bad_requests, bytes_in, bytes_out, descriptors …; datagram_sockets,
        datagrams_in, datagrams_out, datagrams_dropped (no room at the program), datagrams_malformed, datagrams_unsendable;
        group_changes: grows when a socket joins or leaves a multicast group (then look at Stack.groups)."""

    def close(self) -> None: ...
