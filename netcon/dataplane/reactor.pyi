"""The reactor thread and what Python may ask of it: UDP sockets, the rings to the engine, Ethernet ends.

Datagrams and frames cross between the planes in bounded rings, in batches, with an eventfd each way. A full ring pushes back on
the port or socket behind it; nothing is dropped between the planes.
"""

from collections.abc import Sequence

class Reactor:
    def __init__(self, *, manual: bool = False, ring: int = 4096) -> None:
        """`manual`: no thread; time is what `turn` is given. `ring`: slots of each ring, a power of two."""

    def capsule(self) -> object:
        """PyCapsule of `struct netcon_reactor_api` (include/netcon/reactor.h)."""

    def start(self) -> None:
        """Start the thread. RuntimeError in manual mode or when it runs already."""

    def stop(self) -> None:
        """Run what was posted, stop the thread, join it; close sockets. Idempotent."""

    def turn(self, now_us: int) -> int | None:
        """Manual mode: set the clock, run all that is ready and due; returns the next timer deadline in µs, or None."""

    def stats(self) -> dict[str, int]:
        """Counters: batches, wakeups, datagrams_in, datagrams_out, frames_up, frames_down, ring_full, send_errors, …"""
    # -- wire --
    def bind_udp(self, ip: str, port: int) -> tuple[int, int]:
        """Open a UDP socket (DF cleared, 1 MiB buffers wanted); returns (socket number ≥ 1, port). OSError."""

    def close_udp(self, socket: int) -> None: ...

    # -- rings --
    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something, or a ring that refused has room again."""

    def receive(self, limit: int = 256) -> tuple[list[tuple[int, tuple[bytes, int], bytes]], list[tuple[int, bytes, bytes, int, bytes]]]:
        """Take up to `limit` entries: datagrams as (socket, (ip bytes, port), data), frames as (port number, destination MAC, source
        MAC, EtherType, payload). Clears the descriptor when the ring is empty."""

    def send_datagrams(self, batch: Sequence[tuple[int, tuple[bytes, int], bytes, int]]) -> int:
        """Queue (socket or -1 for all, (ip, port), data, ttl or 0); returns how many were taken. The rest: again after `fileno` fires."""

    def send_frames(self, batch: Sequence[tuple[int, bytes, bytes, int, bytes]]) -> int:
        """Queue frames for engine ends: (port number, destination, source, EtherType, payload); returns how many were taken."""

class EngineEnd:
    """The Ethernet end whose other side is the ring to the engine."""

    def __init__(self, reactor: Reactor, number: int) -> None: ...
    def capsule(self) -> object: ...
    @property
    def number(self) -> int: ...

class Impairment:
    """Two Ethernet ends with a bad link between them, seeded, on the reactor's clock."""

    def __init__(
        self,
        reactor: Reactor,
        *,
        seed: int,
        delay_us: int = 0,
        jitter_us: int = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        rate_bps: int = 0,
        queue_bytes: int = 1 << 20,
    ) -> None: ...
    def left(self) -> object: ...
    def right(self) -> object: ...
    def set(self, **changes: float) -> None:
        """Change parameters of the running link (a blackout is loss=1.0)."""

def connect(reactor: Reactor, a: object, b: object) -> None:
    """Attach two Ethernet ends (capsules) to each other, on the reactor thread."""

def disconnect(reactor: Reactor, a: object, b: object) -> None: ...
