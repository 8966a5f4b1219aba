"""Paths: pairs of a local socket and a remote endpoint (vl1 §5.1), and which of them may be used (vl1 §5.4)."""

from __future__ import annotations

from netcon.core.address import Endpoint, Scope, scope_of, usable_for_paths

#: Latency not measured yet (vl1 §5.1).
UNKNOWN_LATENCY = 65_535
#: A path counts as alive if anything arrived within (vl1 §1.3), ms.
ALIVE_MS = 19_000
#: Trust of a path lasts after the last trusted packet (vl1 §1.3), ms.
TRUST_MS = 600_000
#: Paths that nobody refers to are dropped by housekeeping; until then this many are kept (vl1 §9).
MAX_PATHS = 16_384
#: Paths in use that are passed over in a row when one must go.
_SECOND_CHANCES = 64

#: "Never", as a time: far enough in the past that every interval has elapsed.
NEVER = -(1 << 62)


class Path:
    """One (local socket, remote endpoint). `last_in` is unauthenticated: any datagram sets it (vl1 §5.1).

    `incomplete`: packets from there of which pieces are missing (the reassembler's count).
    """

    __slots__ = ("incomplete", "last_echo_answered", "last_in", "last_out", "last_trusted", "latency", "rank", "remote", "socket")

    def __init__(self, socket: int, remote: Endpoint) -> None:
        self.socket = socket
        self.remote = remote
        self.rank = int(scope_of(remote.ip))
        self.last_in = NEVER
        self.last_out = NEVER
        self.last_trusted = NEVER
        self.last_echo_answered = NEVER
        self.latency = UNKNOWN_LATENCY
        self.incomplete = 0

    def measured(self, latency: int) -> None:
        """Feed one round trip, ms: the first sample as it is, later ones averaged (vl1 §4.4)."""
        sample = min(max(latency, 0), UNKNOWN_LATENCY - 1)
        self.latency = sample if self.latency == UNKNOWN_LATENCY else (self.latency + sample) // 2

    def quality(self, now: int) -> int:
        """Smaller is better (vl1 §5.5), before division by the entry's priority."""
        age = min(now - self.last_in, 140_000)
        value = self.latency if age < ALIVE_MS else self.latency + 65_535 + age
        return value * (8 - self.rank)

    def alive(self, now: int) -> bool:
        return now - self.last_in < ALIVE_MS

    def trusted(self, now: int) -> bool:
        return now - self.last_trusted <= TRUST_MS


class PathTable(dict[tuple[int, tuple[bytes, int]], Path]):
    """All path objects of a node, bounded: `table[socket, remote]` makes what is not there."""

    def __missing__(self, key: tuple[int, tuple[bytes, int]]) -> Path:
        if len(self) >= MAX_PATHS:
            self._make_room()
        socket, remote = key
        path = self[key] = Path(socket, Endpoint(*remote))
        return path

    def _make_room(self) -> None:
        """The oldest goes on which nothing was ever sent: anybody can make such paths, with junk from many ports, and must not
        displace those in use by it. Those that were passed over count as new."""
        for _ in range(_SECOND_CHANCES):
            key = next(iter(self))
            path = self.pop(key)
            if path.last_out == NEVER:
                return
            self[key] = path
        del self[next(iter(self))]  # whoever uses it keeps the object itself

    def retain(self, used: set[Path], now: int) -> None:
        """Housekeeping (vl1 §5.12): drop paths that no peer uses and from which nothing came for a while."""
        idle = [key for key, path in self.items() if path not in used and not path.alive(now)]
        for key in idle:
            del self[key]


class PathPolicy:
    """The "path allowed" test of vl1 §5.4, without the part about roots."""

    def __init__(self, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback
        self._virtual: tuple[tuple[int, int, int], ...] = ()  # (bytes of address, mask, network)

    def set_virtual_prefixes(self, prefixes: list[tuple[bytes, int]]) -> None:
        """Address blocks assigned to us on virtual networks: a path inside one would be a tunnel in itself."""
        blocks = []
        for ip, bits in prefixes:
            width = 8 * len(ip)
            mask = ((1 << width) - 1) ^ ((1 << max(width - bits, 0)) - 1)
            blocks.append((len(ip), mask, int.from_bytes(ip) & mask))
        self._virtual = tuple(blocks)

    def usable(self, endpoint: Endpoint) -> bool:
        """Whether a datagram may ever be sent there as a path."""
        ip, port = endpoint
        if port == 0:
            return False
        if not usable_for_paths(ip) and not (self._allow_loopback and scope_of(ip) is Scope.LOOPBACK):
            return False
        value = int.from_bytes(ip)
        return not any(size == len(ip) and value & mask == network for size, mask, network in self._virtual)
