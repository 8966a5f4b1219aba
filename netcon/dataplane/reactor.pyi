"""The reactor thread and what Python may ask of it: UDP sockets, the rings to the engine, Ethernet ends.

Datagrams and frames cross between the planes in bounded rings, in batches, with an eventfd each way. A full ring pushes back on
the port or socket behind it; nothing is dropped between the planes.
"""

from collections.abc import Sequence

def live_objects() -> dict[str, int]:
    """How many native objects of each kind are alive: reactors, timers, watches, sockets, engine_ends, impairments, memory_ends,
    taps, captures. A live reactor has watches of its own (one: its doorbell)."""

class Reactor:
    """Made, then running (or manual), then stopped, and never back. While there is no thread (before `start`, in manual mode, after
    `stop`) what belongs to the reactor thread runs on the caller's; one caller at a time. RuntimeError for what needs a reactor
    that has not stopped."""

    def __init__(self, *, manual: bool = False, ring: int = 4096) -> None:
        """`manual`: no thread; time is what `turn` is given. `ring`: slots of each ring, a power of two; a slot also
        stands for half a KiB of the ring's bytes (64 KiB at least)."""

    @property
    def manual(self) -> bool: ...
    def capsule(self) -> object:
        """PyCapsule of `struct netcon_reactor_api` (include/netcon/reactor.h)."""

    def start(self) -> None:
        """Start the thread. RuntimeError in manual mode or when it runs already."""

    def stop(self) -> None:
        """Detach the ends that `connect` attached, send queued datagrams, close sockets, run what was posted, stop the thread,
        join it. Idempotent. Watches and timers of others are not called again; they may be unwatched and freed later, from any
        thread."""

    def turn(self, now_us: int) -> int | None:
        """Manual mode: set the clock, run all that is ready and due, batch after batch; returns the next timer
        deadline in µs, or None. If 64 batches did not suffice it returns `now_us`: there is more to do."""

    def stats(self) -> dict[str, int]:
        """Counters: batches, wakeups, datagrams_in, datagrams_out, frames_up, frames_down, ring_full, send_errors, …"""
    # -- wire --
    def bind_udp(self, ip: str, port: int, device: str = "") -> tuple[int, int]:
        """Open a UDP socket (DF cleared, 1 MiB buffers wanted); returns (socket number ≥ 1, port). `ip` is numeric;
        an IPv6 link-local one has its scope ("fe80::1%eth0"). IPv6 sockets are V6ONLY. With `device`, an interface's name, it
        sends and receives there only (SO_BINDTODEVICE; PermissionError on kernels before 5.7 without privilege). OSError."""

    def close_udp(self, socket: int) -> None: ...

    # -- rings --
    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something, or a ring that refused has room again."""

    def receive(
        self, limit: int = 256
    ) -> tuple[list[tuple[int, tuple[bytes, int], bytes]], list[tuple[int, bytes, bytes, int, bytes]]]:
        """Take up to `limit` entries: datagrams as (socket, (ip bytes, port), data), frames as (port number, destination MAC,
        source MAC, EtherType, payload); each list oldest first. Clears the descriptor when the ring is empty: so offer again
        what a ring refused after each `receive`, before waiting for the descriptor."""

    def send_datagrams(self, batch: Sequence[tuple[int, tuple[bytes, int], bytes, int]]) -> int:
        """Queue (socket or -1 for all, (ip bytes, port), data, ttl or 0); returns how many were taken. The rest: again after
        `fileno` fires. -1, or a socket that is closed: a copy from every socket of the address's family. `ttl` is for IPv4 (vl1
        §5.13). Data up to 10 100 bytes. TypeError, ValueError, OverflowError: an entry is wrong, and none of this batch was
        queued."""

    def send_frames(self, batch: Sequence[tuple[int, bytes, bytes, int, bytes]]) -> int:
        """Queue frames for engine ends: (port number, destination, source, EtherType, payload); returns how many were taken.
        Each end has a ring of its own; the first frame whose ring is full ends the call. A frame for a number without an end is
        taken and counted (`frames_without_port`). Errors as above, but the frames before the wrong one were queued."""

class EngineEnd:
    """The Ethernet end whose other side is the rings to the engine. ValueError: the reactor has an end of that number."""

    def __init__(self, reactor: Reactor, number: int) -> None: ...
    def capsule(self) -> object: ...
    @property
    def number(self) -> int: ...

class Capture:
    """Writes the frames that pass an engine end from now on to a pipe or stream socket, as pcapng.

    The descriptor is duplicated, and set not to block. `snaplen`: bytes kept of each frame. `frames`, `bytes`: limits at which it
    ends by itself (0: none). `buffer_bytes`: what the reader may be behind; frames beyond are dropped and counted. Filter, all of
    which must fit: `ethertype`, `host` (4 or 16 bytes; source or destination of IPv4, IPv6, ARP), `port` (source or destination).
    At its end the stream ends with the statistics. ValueError: the descriptor is no pipe or socket, or the host no address."""

    def __init__(
        self,
        end: EngineEnd,
        fd: int,
        *,
        snaplen: int = 262144,
        frames: int = 0,
        bytes: int = 0,
        buffer_bytes: int = 1 << 20,
        ethertype: int = 0,
        host: bytes = b"",
        port: int = 0,
        interface: str = "",
        application: str = "netcon",
    ) -> None: ...
    def finish(self) -> None:
        """No more frames; what is in the buffer still goes out, then the statistics and the end of the stream. Idempotent."""

    def close(self) -> None:
        """Gone at once, with what is in the buffer. Idempotent."""

    def stats(self) -> dict[str, int]:
        """Frames seen, matched, written, dropped; bytes of the file so far; ended: the stream is, as when its reader goes."""

class Impairment:
    """Two Ethernet ends with a bad link between them, seeded, on the reactor's clock: same seed, frames and times, same trace.

    A frame leaves the bottleneck (`rate_bps`; it is lost when it finds more than `queue_bytes` waiting), may be lost, and comes out
    after delay + 0..jitter, twice with chance `duplicate`, held back by up to max(delay, 2 ms) more with chance `reorder`."""

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
        """Change parameters of the running link (a blackout is loss=1.0). What is under way keeps its times."""

    def stats(self) -> dict[str, int]:
        """Frames of both directions: forwarded, lost, overflowed, duplicated, reordered, detached."""

class Tap:
    """The Ethernet end whose other side is a kernel TAP device of this name, made in the calling thread's network namespace; it
    is gone with `close`, this object, or the process. It is down, and has the kernel's MAC and MTU. OSError: EPERM (no
    CAP_NET_ADMIN), ENOENT (no /dev/net/tun), EBUSY (the name is taken)."""

    def __init__(self, reactor: Reactor, name: str) -> None: ...
    def capsule(self) -> object: ...
    @property
    def name(self) -> str: ...
    def close(self) -> None:
        """Remove the device now. Idempotent. ValueError: it is connected."""

    def stats(self) -> dict[str, int]:
        """Frames: frames_in (from the kernel), frames_out, refused (by the kernel, as when it is down), detached."""

class MemoryEnd:
    """For tests: an Ethernet end whose frames are given and taken by Python. Most useful on a manual reactor."""

    def __init__(self, reactor: Reactor) -> None: ...
    def capsule(self) -> object: ...
    def give(self, frames: list[bytes]) -> int:
        """Deliver whole frames to the peer; returns how many it took."""

    def take(self) -> list[bytes]:
        """What was delivered to this end since the last call, oldest first."""

    def set_room(self, room: int) -> None:
        """Hold at most `room` frames that were not taken, and push back beyond."""

    @property
    def resumed(self) -> int:
        """How often the peer has said that it has room again."""

def connect(reactor: Reactor, a: object, b: object) -> None:
    """Attach two Ethernet ends (capsules) to each other, on the reactor thread. The reactor keeps both until `disconnect` or
    `stop`: a reactor that is not stopped while ends are connected is never freed. ImportError: of another ABI. ValueError:
    connected already."""

def disconnect(reactor: Reactor, a: object, b: object) -> None:
    """Undo `connect`. ValueError: not connected to each other."""
