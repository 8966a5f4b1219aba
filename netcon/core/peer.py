"""One other node: its keys, what it announced, and the paths that lead to it (vl1 §5.1, §5.4, §5.5)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from netcon.core.address import Endpoint, encode_inet, read_inet
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.path import ALIVE_MS, NEVER, UNKNOWN_LATENCY, Path
from netcon.dataplane.crypto import PeerKeys

#: Remembered paths per peer (vl1 §1.2).
MAX_PATHS_PER_PEER = 64
#: A path expires if the peer sent nothing valid on it for this long, ms (vl1 §1.3).
PATH_EXPIRY_MS = 243_000
#: isAlive, isActive, online (vl1 §1.3), ms.
ACTIVITY_MS = 500_000
#: How long a chosen path stays chosen without looking again, ms; well below what makes a path dead.
_CHOICE_MS = 500
#: After this silence on a direct path a peer that can be reached through a root is reached that way, while the path is
#: probed. Active paths are probed every 14 s (vl1 §5.3), so three answers are missing by then. The reference keeps
#: sending into the void until the entry expires after 243 s (vl1 §5.10).
SILENT_MS = 45_000
#: A path on which a peer was not heard for this long is asked whether it still leads there, if the peer comes by another way; and
#: if it does not answer for this long (and two round trips), others go before it, ms.
DOUBT_MS = 1_000
#: The same if we send and nothing comes at all, ms. The reference has no such thing: it waits for the entry to expire.
QUIET_MS = 3_000
#: Between two such questions, before and after it is clear that there is no answer, ms.
ASK_MS, ASK_AGAIN_MS = 400, 1_000
#: Roles in the local API.
LEAF, PLANET, MOON = "LEAF", "PLANET", "MOON"

_CACHE_VERSIONS = struct.Struct(">HHHH")


@dataclass(slots=True, frozen=True)
class PathStatus:
    """One path of a peer as the local API shows it. Times in ms, 0 for never."""

    endpoint: Endpoint
    socket: int
    last_send: int
    last_receive: int
    preferred: bool
    expired: bool
    active: bool
    trusted_path: int = 0


@dataclass(slots=True, frozen=True)
class PeerStatus:
    """One peer as the local API shows it. `version` is None while unknown, `latency` in ms or -1."""

    address: int
    version: tuple[int, int, int] | None
    latency: int
    role: str
    paths: tuple[PathStatus, ...]
    protocol: int = 0


class PathEntry:
    """A learned path of one peer; `last_receive`: last authenticated direct packet of that peer on it.

    `doubted`: since when it is being asked whether it still leads to the peer; 0 while it is not. Without an answer it is the last
    choice, until something comes on it. `asked`: when last. `given_up`: that it is so has had its consequences.
    """

    __slots__ = ("asked", "doubted", "given_up", "last_receive", "path")

    def __init__(self, path: Path, now: int) -> None:
        self.path = path
        self.last_receive = now
        self.doubted = 0
        self.asked = NEVER
        self.given_up = False

    def heard(self, now: int) -> bool:
        """Something valid came on it; whether that ends a doubt."""
        self.last_receive = now
        if self.doubted == 0:
            return False
        self.doubted = 0
        self.given_up = False
        return True

    def unanswered(self, now: int) -> bool:
        """It was asked a while ago, in vain."""
        if self.doubted == 0:
            return False
        latency = self.path.latency
        return now - self.doubted >= DOUBT_MS + (0 if latency == UNKNOWN_LATENCY else 2 * latency)

    def ask(self, now: int) -> bool:
        """Whether to send it a probe now; notes that it is in doubt, and that the probe is being sent."""
        if now - self.asked < (ASK_AGAIN_MS if self.unanswered(now) else ASK_MS):
            return False
        self.asked = now
        self.doubted = self.doubted or now
        return True


class Peer:
    """State about one other node. Nothing here sends; `contact` and `sender` do."""

    __slots__ = (
        "_choice",
        "_choice_until",
        "address",
        "confirmations",
        "credential_tokens",
        "credential_tokens_at",
        "entries",
        "header_in",
        "header_out",
        "hint_turn",
        "hints",
        "identity",
        "keys",
        "last_collision_answered",
        "last_complained",
        "last_contact",
        "last_credentials_sent",
        "last_full_hello",
        "last_hint",
        "last_nontrivial",
        "last_push_sent",
        "last_receive",
        "last_trusted",
        "last_whois_answered",
        "noticed",
        "protocol",
        "push_count",
        "push_received",
        "pushes_sent",
        "root_ips",
        "version",
    )

    def __init__(self, identity: Identity, own: Identity) -> None:
        self.identity = identity
        self.address = identity.address
        self.keys = PeerKeys(own.agree(identity))
        self.header_out = identity.address.to_bytes(5) + own.address.to_bytes(5)
        self.header_in = own.address.to_bytes(5) + identity.address.to_bytes(5)
        self.protocol = 0
        self.version: tuple[int, int, int] | None = None
        self.entries: list[PathEntry] = []
        self.hints: tuple[Endpoint, ...] = ()  # from the peer cache, to be tried
        self.root_ips: frozenset[bytes] | None = None  # of a root with stable endpoints: the only places it may be at
        self.last_hint = NEVER  # last HELLO to an endpoint that the user gave
        self.hint_turn = -1
        self.noticed = NEVER  # by housekeeping, the first time
        self.last_receive = NEVER
        self.last_nontrivial = NEVER
        self.last_trusted = NEVER
        self.last_full_hello = NEVER
        self.last_contact = NEVER  # last HELLO or ECHO we sent it to keep contact
        self.last_push_sent = NEVER
        self.pushes_sent = 0
        self.push_received = NEVER
        self.push_count = 0
        self.last_whois_answered = NEVER
        self.last_collision_answered = NEVER
        self.last_credentials_sent = NEVER
        self.last_complained = NEVER
        self.credential_tokens = 0
        self.credential_tokens_at = NEVER
        self.confirmations: dict[Path, int] = {}
        self._choice: PathEntry | None = None
        self._choice_until = NEVER

    # -- paths --

    def entry(self, path: Path) -> PathEntry | None:
        for entry in self.entries:
            if entry.path is path:
                return entry
        return None

    def best_entry(self, now: int) -> PathEntry | None:
        """The preferred unexpired path (vl1 §5.5)."""
        if now < self._choice_until:
            return self._choice
        best: PathEntry | None = None
        best_quality = (False, 0)
        for entry in self.entries:
            if now - entry.last_receive >= PATH_EXPIRY_MS:
                continue
            quality = entry.unanswered(now), entry.path.quality(now)
            if best is None or quality <= best_quality:
                best, best_quality = entry, quality
        self._choice = best
        self._choice_until = now + (_CHOICE_MS if best is None or best.doubted == 0 else ASK_MS // 4)
        return best

    def best_path(self, now: int) -> Path | None:
        entry = self.best_entry(now)
        return None if entry is None else entry.path

    def any_path(self) -> Path | None:
        """The least bad path even if expired (vl1 §5.6)."""
        if not self.entries:
            return None
        return max(self.entries, key=lambda entry: entry.last_receive).path

    def chosen(self, entry: PathEntry) -> bool:
        """Whether this is the path that we send on."""
        return entry is self._choice

    def forget_choice(self) -> None:
        """Look at all paths again at the next packet."""
        self._choice_until = NEVER

    def same_address_alive(self, path: Path, now: int) -> PathEntry | None:
        """An entry with the same remote IP and local socket that is alive: another port of it is not learned (vl1 §5.4 b)."""
        ip, socket = path.remote.ip, path.socket
        for entry in self.entries:
            if entry.path.remote.ip == ip and entry.path.socket == socket and entry.path.alive(now):
                return entry
        return None

    def learn(self, path: Path, now: int) -> None:
        """Record a confirmed path (vl1 §5.4 d)."""
        fresh = PathEntry(path, now)
        # The same place from a socket that was closed since.
        self.entries = entries = [e for e in self.entries if not (e.path.remote == path.remote and e.unanswered(now))]
        self.forget_choice()
        for index, entry in enumerate(entries):
            other = entry.path
            if (
                other.remote.ip == path.remote.ip
                and other.socket == path.socket
                and (not other.alive(now) or entry.unanswered(now))
            ):
                entries[index] = fresh
                return
        if len(entries) < MAX_PATHS_PER_PEER:
            entries.append(fresh)
            return
        oldest = min(range(len(entries)), key=lambda index: entries[index].path.last_in)
        entries[oldest] = fresh

    def drop_expired(self, now: int) -> None:
        if any(now - entry.last_receive >= PATH_EXPIRY_MS for entry in self.entries):
            self.entries = [entry for entry in self.entries if now - entry.last_receive < PATH_EXPIRY_MS]
            self.forget_choice()

    def may_use(self, endpoint: Endpoint) -> bool:
        """Paths to a root must lead to one of its stable addresses; ports are not compared (vl1 §4.3)."""
        return self.root_ips is None or endpoint.ip in self.root_ips

    def may_confirm(self, path: Path, now: int) -> bool:
        """One confirming HELLO per (peer, path) and second (vl1 §5.4 e); notes that it is being sent."""
        if now - self.confirmations.get(path, NEVER) < 1_000:
            return False
        if len(self.confirmations) >= MAX_PATHS_PER_PEER:
            self.confirmations.clear()
        self.confirmations[path] = now
        return True

    # -- what it is --

    @property
    def suite(self) -> int:
        """Suite 3 for protocol 12 and newer, 1 for older and while it is not known (vl1 §2.5.4)."""
        return 3 if self.protocol >= 12 else 1

    @property
    def answers_echo(self) -> bool:
        """Protocol 4, and version 1.1.0, have no usable ECHO (vl1 §1.4)."""
        return self.protocol >= 5 and self.version != (1, 1, 0)

    def latency(self, now: int) -> int:
        path = self.best_path(now)
        return -1 if path is None or path.latency == UNKNOWN_LATENCY else path.latency

    def alive(self, now: int) -> bool:
        return now - self.last_receive < ACTIVITY_MS

    def relay_quality(self, now: int) -> int:
        """Quality as a relay, smaller is better (vl1 §5.5)."""
        silent = now - self.last_receive
        if silent >= ACTIVITY_MS:
            return 1 << 62
        latency = self.latency(now)
        return (UNKNOWN_LATENCY if latency <= 0 else latency) * (silent // 61_000 + 1)

    def accept_credentials(self, now: int) -> bool:
        """Whether one more NETWORK_CREDENTIALS packet is looked at: one a second (vl1 §4.3), but up to four in a burst, because
        a sender with many credentials needs several packets and the second of them would be lost otherwise."""
        if self.credential_tokens_at == NEVER:
            self.credential_tokens, self.credential_tokens_at = 4, now
        earned = (now - self.credential_tokens_at) // 1_000
        if earned > 0:
            self.credential_tokens = min(4, self.credential_tokens + earned)
            self.credential_tokens_at += earned * 1_000
        if self.credential_tokens == 0:
            return False
        self.credential_tokens -= 1
        return True

    def accept_push(self, now: int) -> bool:
        """The gate for PUSH_DIRECT_PATHS of vl1 §4.3."""
        self.push_count = self.push_count + 1 if now - self.push_received <= 30_000 else 0
        self.push_received = now
        return self.push_count < 8

    def status(self, now: int, role: str, trusted_path: Callable[[bytes], int] = lambda ip: 0) -> PeerStatus:
        best = self.best_entry(now)
        paths = tuple(
            PathStatus(
                endpoint=entry.path.remote,
                socket=entry.path.socket,
                last_send=max(entry.path.last_out, 0),
                last_receive=max(entry.last_receive, 0),
                preferred=entry is best,
                expired=now - entry.last_receive >= PATH_EXPIRY_MS,
                active=now - entry.path.last_in < ALIVE_MS,
                trusted_path=trusted_path(entry.path.remote.ip),
            )
            for entry in self.entries
        )
        return PeerStatus(self.address, self.version, self.latency(now), role, paths, self.protocol)

    # -- peer cache (vl1 §7) --

    def to_cache(self) -> bytes:
        """The peer cache file: format 2."""
        major, minor, revision = self.version or (0, 0, 0)
        endpoints = [entry.path.remote for entry in sorted(self.entries, key=lambda entry: -entry.last_receive)][:16]
        return b"".join(
            (
                b"\x02",
                self.identity.encode(),
                _CACHE_VERSIONS.pack(self.protocol, major, minor, revision),
                struct.pack(">H", len(endpoints)),
                *(encode_inet(endpoint) for endpoint in endpoints),
            )
        )


def parse_cache(data: bytes) -> tuple[Identity, int, tuple[int, int, int], tuple[Endpoint, ...]]:
    """Read a peer cache file: (identity, protocol, version, endpoints). DecodeError if it is not format 2 or broken."""
    reader = Reader(data)
    if reader.u8() != 2:
        raise DecodeError("the peer cache file has another format than 2; delete it")
    identity = Identity.decode(reader)
    protocol, major, minor, revision = (reader.u16() for _ in range(4))
    endpoints = [read_inet(reader) for _ in range(min(reader.u16(), MAX_PATHS_PER_PEER))]
    return identity, protocol, (major, minor, revision), tuple(e for e in endpoints if e is not None)
