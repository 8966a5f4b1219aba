"""Network configurations and their transport: dictionary forms, signed chunks, assembly, request metadata (vl2 §2)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import NamedTuple, TypeVar

from netcon.core.address import Endpoint, controller_of, encode_inet, read_inet
from netcon.core.buffer import Reader
from netcon.core.credentials import Capability, CertificateOfMembership, CertificateOfOwnership, Tag
from netcon.core.dictionary import Dictionary
from netcon.core.errors import DecodeError, EncodeError, NetconError
from netcon.core.identity import Identity
from netcon.core.rules import MAX_CAPABILITY_RULES, MAX_NETWORK_RULES, Rule, decode_rules, encode_rules

CONFIG_VERSION = 7
_OLDEST_VERSION = 6
DEFAULT_MTU, MIN_MTU, MAX_MTU = 2800, 1280, 10000
MAX_ROUTES = 128
MAX_ADDRESSES = 32
MAX_SPECIALISTS = 256
MAX_OWNERSHIPS = 4
MAX_CAPABILITIES = 128
MAX_TAGS = 128
MAX_DNS_SERVERS = 4
MAX_NAME = 127
#: Bytes of an assembled dictionary (the least of the releases, vl2 limits).
MAX_DICTIONARY = 419_000
MAX_METADATA = 1023
#: Of a join token, characters: fits the metadata whatever has to be escaped.
MAX_TOKEN = 256

#: Flags (vl2 §2.6)
FLAG_BROADCAST = 0x02
FLAG_NDP_EMULATION = 0x04
FLAG_UNKNOWN_MATCH = 0x08
FLAG_NO_MULTICAST_COMPRESSION = 0x10

#: Roles in a specialist entry, above the 40 bits of its address
ROLE_ACTIVE_BRIDGE = 0x0000020000000000
ROLE_ANCHOR = 0x0000040000000000
ROLE_REPLICATOR = 0x0000080000000000
_ADDRESS_MASK = 0xFFFFFFFFFF

_U16_PAIR = Struct(">HH")
_DNS_DOMAIN = 128


class Route(NamedTuple):
    """`target` and `via` carry the prefix length as port; `via` None: on-link."""

    target: Endpoint
    via: Endpoint | None = None
    flags: int = 0
    metric: int = 0


@dataclass(slots=True, frozen=True)
class SingleSignOn:
    """SSO fields (vl2 §2.6)."""

    version: int = 0
    enabled: bool = False
    login_url: str = ""
    expiry: int = 0
    issuer_url: str = ""
    central_endpoint: str = ""
    nonce: str = ""
    state: str = ""
    client_id: str = ""
    provider: str = "default"


_SSO_KEYS = (
    ("aurl", "login_url"),
    ("iurl", "issuer_url"),
    ("ssoce", "central_endpoint"),
    ("sson", "nonce"),
    ("ssos", "state"),
    ("ssocid", "client_id"),
)


@dataclass(slots=True, frozen=True)
class NetworkConfig:
    """What a controller tells one member about a network. `addresses`: IP and on-link prefix length, host bits kept."""

    network: int
    issued_to: int
    timestamp: int = 0
    credential_time_max_delta: int = 0
    revision: int = 0
    trace_target: int = 0
    trace_level: int = 0
    flags: int = 0
    multicast_limit: int = 0
    type: int = 0
    name: str = ""
    mtu: int = DEFAULT_MTU
    membership: CertificateOfMembership | None = None
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    ownerships: tuple[CertificateOfOwnership, ...] = ()
    specialists: tuple[int, ...] = ()
    routes: tuple[Route, ...] = ()
    addresses: tuple[Endpoint, ...] = ()
    rules: tuple[Rule, ...] = ()
    dns_domain: str = ""
    dns_servers: tuple[bytes, ...] = ()
    sso: SingleSignOn = field(default_factory=SingleSignOn)

    @property
    def public(self) -> bool:
        return self.type == 1

    @property
    def broadcast(self) -> bool:
        return bool(self.flags & FLAG_BROADCAST)

    @property
    def ndp_emulation(self) -> bool:
        return bool(self.flags & FLAG_NDP_EMULATION)

    @property
    def unknown_match(self) -> bool:
        """What rules of unknown types match."""
        return bool(self.flags & FLAG_UNKNOWN_MATCH)

    @property
    def compress_multicast(self) -> bool:
        return not self.flags & FLAG_NO_MULTICAST_COMPRESSION

    def specialists_with(self, role: int) -> tuple[int, ...]:
        """Addresses of the nodes with a role."""
        return tuple(entry & _ADDRESS_MASK for entry in self.specialists if entry & role)

    def is_active_bridge(self, address: int) -> bool:
        return any(entry & ROLE_ACTIVE_BRIDGE and entry & _ADDRESS_MASK == address for entry in self.specialists)

    def credential_current(self, timestamp: int) -> bool:
        """Whether a tag, capability or ownership certificate of this time counts now (vl2 §3.7)."""
        return abs(timestamp - self.timestamp) <= self.credential_time_max_delta

    # -- dictionary --

    @classmethod
    def from_dictionary(cls, data: bytes) -> NetworkConfig:
        """DecodeError where vl2 §2.5 says that the whole configuration is refused."""
        source = Dictionary.decode(data)
        network, issued_to = source.integer("nwid"), source.integer("id")
        if not network or not 0 < issued_to <= _ADDRESS_MASK:
            raise DecodeError("a configuration must name its network and its member")
        version = source.integer("v")
        if version < _OLDEST_VERSION:
            raise DecodeError(f"configuration of format {version}; at least {_OLDEST_VERSION} is needed")
        dns_domain, dns_servers = _read_dns(source.get("DNS", b""))
        return cls(
            network=network,
            issued_to=issued_to,
            timestamp=source.integer("ts"),
            credential_time_max_delta=source.integer("ctmd"),
            revision=source.integer("r"),
            trace_target=source.integer("tt") & _ADDRESS_MASK,
            trace_level=source.integer("tl"),
            flags=source.integer("f"),
            multicast_limit=source.integer("ml"),
            type=source.integer("t"),
            name=_text(source.get("n", b"")[:MAX_NAME]),
            mtu=min(max(source.integer("mtu", DEFAULT_MTU), MIN_MTU), MAX_MTU),
            membership=_read_membership(source.get("C", b"")),
            capabilities=_read_sorted(Capability, source.get("CAP", b""), MAX_CAPABILITIES),
            tags=_read_sorted(Tag, source.get("TAG", b""), MAX_TAGS),
            ownerships=_read_ownerships(source.get("COO", b"")),
            specialists=_read_specialists(source.get("S", b"")),
            routes=_read_routes(source.get("RT", b"")),
            addresses=_read_addresses(source.get("I", b"")),
            rules=_read_rules(source.get("R", b"")),
            dns_domain=dns_domain,
            dns_servers=dns_servers,
            sso=_read_sso(source),
        )

    def to_dictionary(self) -> bytes:
        """In the reference controller's order of keys."""
        out = Dictionary()
        out.set_integer("v", CONFIG_VERSION)
        out.set_integer("nwid", self.network)
        out.set_integer("ts", self.timestamp)
        out.set_integer("ctmd", self.credential_time_max_delta)
        out.set_integer("r", self.revision)
        out.set_address("id", self.issued_to)
        out.set_address("tt", self.trace_target)
        out.set_integer("tl", self.trace_level)
        out.set_integer("f", self.flags)
        out.set_integer("ml", self.multicast_limit)
        out.set_integer("t", self.type)
        out.set_text("n", self.name)
        out.set_integer("mtu", self.mtu)
        if self.membership is not None:
            out["C"] = self.membership.encode()
        for key, value in (
            ("CAP", b"".join(capability.encode() for capability in self.capabilities)),
            ("TAG", b"".join(tag.encode() for tag in self.tags)),
            ("COO", b"".join(certificate.encode() for certificate in self.ownerships)),
            ("S", b"".join(entry.to_bytes(8) for entry in self.specialists)),
            ("RT", b"".join(_encode_route(route) for route in self.routes)),
            ("I", b"".join(map(encode_inet, self.addresses))),
            ("R", encode_rules(self.rules)),
        ):
            if value:
                out[key] = value
        out["DNS"] = self._encode_dns()
        self._write_sso(out)
        return out.encode()

    def _encode_dns(self) -> bytes:
        domain = self.dns_domain.encode("utf-8", "surrogateescape")[: _DNS_DOMAIN - 1]
        servers: list[Endpoint | None] = [Endpoint(ip, 0) for ip in self.dns_servers[:MAX_DNS_SERVERS]]
        servers += [None] * (MAX_DNS_SERVERS - len(servers))
        return b"".join((domain.ljust(_DNS_DOMAIN, b"\0"), *map(encode_inet, servers)))

    def _write_sso(self, out: Dictionary) -> None:
        sso = self.sso
        out.set_integer("ssov", sso.version)
        out.set_boolean("ssoe", sso.enabled)
        if not sso.enabled:
            return
        if sso.version == 0:
            out.set_text("aurl", sso.login_url)
            out.set_integer("aexpt", sso.expiry)
            return
        for key, name in _SSO_KEYS[1:]:
            out.set_text(key, getattr(sso, name))
        out.set_text("ssop", sso.provider)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _read_membership(data: bytes) -> CertificateOfMembership | None:
    return CertificateOfMembership.decode(Reader(data)) if data else None


_Sorted = TypeVar("_Sorted", Capability, Tag)


def _read_sorted(kind: type[_Sorted], data: bytes, limit: int) -> tuple[_Sorted, ...]:
    """Capabilities or tags: a malformed one ends the list but not the configuration (vl2 §2.5)."""
    reader = Reader(data)
    found: list[_Sorted] = []
    try:
        while reader.remaining and len(found) < limit:
            found.append(kind.decode(reader))
    except DecodeError:
        pass
    return tuple(sorted(found, key=lambda credential: credential.id))


def _read_ownerships(data: bytes) -> tuple[CertificateOfOwnership, ...]:
    reader = Reader(data)
    found = []
    while reader.remaining:
        found.append(CertificateOfOwnership.decode(reader))
    return tuple(found[:MAX_OWNERSHIPS])


def _read_specialists(data: bytes) -> tuple[int, ...]:
    count = min(len(data) // 8, MAX_SPECIALISTS)
    return tuple(int.from_bytes(data[8 * i : 8 * i + 8]) for i in range(count))


def _read_prefix(reader: Reader) -> Endpoint | None:
    prefix = read_inet(reader)
    if prefix is not None and prefix.port > 8 * len(prefix.ip):
        raise DecodeError(f"prefix length {prefix.port} of an address of {8 * len(prefix.ip)} bits")
    return prefix


def _read_routes(data: bytes) -> tuple[Route, ...]:
    reader = Reader(data)
    found = []
    while reader.remaining:
        target, via = _read_prefix(reader), read_inet(reader)
        route_flags, metric = _U16_PAIR.unpack(reader.bytes(4))
        if target is not None:
            found.append(Route(target, via, route_flags, metric))
    return tuple(found[:MAX_ROUTES])


def _encode_route(route: Route) -> bytes:
    return b"".join((encode_inet(route.target), encode_inet(route.via), _U16_PAIR.pack(route.flags, route.metric)))


def _read_addresses(data: bytes) -> tuple[Endpoint, ...]:
    reader = Reader(data)
    found = []
    while reader.remaining:
        address = _read_prefix(reader)
        if address is not None:
            found.append(address)
    return tuple(found[:MAX_ADDRESSES])


def _read_rules(data: bytes) -> tuple[Rule, ...]:
    return decode_rules(data)[:MAX_NETWORK_RULES]


def _read_dns(data: bytes) -> tuple[str, tuple[bytes, ...]]:
    if not data:
        return "", ()
    reader = Reader(data)
    try:
        domain = reader.bytes(_DNS_DOMAIN)
        servers = [read_inet(reader) for _ in range(MAX_DNS_SERVERS)]
    except DecodeError:
        return "", ()  # DNS is a convenience; a malformed entry is no reason to stay off the network
    return _text(domain.partition(b"\0")[0]), tuple(server.ip for server in servers if server is not None)


def _read_sso(source: Dictionary) -> SingleSignOn:
    if not source.boolean("ssoe"):
        return SingleSignOn(version=source.integer("ssov"))
    return SingleSignOn(
        version=source.integer("ssov"),
        enabled=True,
        expiry=source.integer("aexpt"),
        provider=source.text("ssop", "default"),
        **{name: source.text(key) for key, name in _SSO_KEYS},
    )


# -- chunks (vl2 §2.3) --

CHUNK_FAST_PROPAGATE = 0x01
#: Fits 7 fragments even on a path with an MTU of 1400.
CHUNK_SIZE = 9500
_CHUNK_HEAD = Struct(">QH")
_CHUNK_TAIL = Struct(">BQII")
_SIGNATURE_TYPE = 1
_SIGNATURE_LENGTH = 96


@dataclass(slots=True, frozen=True)
class ConfigChunk:
    """A piece of a configuration dictionary, `offset` bytes into `total`. `signature` None: the unsigned form of old
    controllers, a single chunk that counts only if it comes from the controller itself."""

    network: int
    data: bytes
    flags: int = 0
    update_id: int = 0
    total: int = 0
    offset: int = 0
    signature: bytes | None = None

    @classmethod
    def decode(cls, data: bytes) -> ConfigChunk:
        reader = Reader(data)
        network, length = _CHUNK_HEAD.unpack(reader.bytes(10))
        piece = reader.bytes(length)
        if not reader.remaining:
            return cls(network, piece, total=length)
        flags, update_id, total, offset = _CHUNK_TAIL.unpack(reader.bytes(17))
        if not update_id or offset + length > total or total > MAX_DICTIONARY:
            raise DecodeError(f"configuration chunk: {length} bytes at {offset} of {total}, update {update_id:x}")
        kind, size = reader.u8(), reader.u16()
        if kind != _SIGNATURE_TYPE or size != _SIGNATURE_LENGTH:
            raise DecodeError(f"configuration chunk: signature of type {kind} and {size} bytes")
        return cls(network, piece, flags, update_id, total, offset, reader.bytes(size))

    def signed_bytes(self) -> bytes:
        head = _CHUNK_HEAD.pack(self.network, len(self.data))
        return b"".join((head, self.data, _CHUNK_TAIL.pack(self.flags, self.update_id, self.total, self.offset)))

    def encode(self) -> bytes:
        if self.signature is None:
            return _CHUNK_HEAD.pack(self.network, len(self.data)) + self.data
        return b"".join((self.signed_bytes(), b"\x01\x00\x60", self.signature))

    def sign(self, controller: Identity) -> ConfigChunk:
        return replace(self, signature=controller.sign(self.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        """Whether the network's controller signed it."""
        return (
            self.signature is not None
            and controller.address == controller_of(self.network)
            and controller.verify(self.signed_bytes(), self.signature)
        )

    @property
    def fast_propagate(self) -> bool:
        return bool(self.flags & CHUNK_FAST_PROPAGATE)


def cut_config(network: int, dictionary: bytes, update_id: int, controller: Identity, size: int = CHUNK_SIZE) -> list[ConfigChunk]:
    """A dictionary as signed chunks. `update_id`: random, not 0, the same for no other configuration."""
    total = len(dictionary)
    return [
        ConfigChunk(network, dictionary[offset : offset + size], 0, update_id, total, offset).sign(controller)
        for offset in range(0, total, size)
    ]


class AddedChunk(NamedTuple):
    """`accepted`: authentic and new, hence to be handed on if it says so. `dictionary`: complete now."""

    accepted: bool
    dictionary: bytes | None


_REFUSED = AddedChunk(False, None)


class _Update:
    __slots__ = ("complete", "pieces", "received", "seen")

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.pieces: list[ConfigChunk] = []
        self.received = 0
        self.complete = False


class ConfigAssembler:
    """Puts the chunks of one network's configuration together, in any order (vl2 §2.3)."""

    MAX_UPDATES = 3
    MAX_CHUNKS = MAX_DICTIONARY // 1024 + 1

    def __init__(self, network: int) -> None:
        self.network = network
        self._updates: OrderedDict[int, _Update] = OrderedDict()

    def add(self, chunk: ConfigChunk, source: int, controller: Identity) -> AddedChunk:
        """`source`: the node that sent the packet. Duplicates, forgeries and overlong updates are refused silently."""
        if chunk.network != self.network:
            return _REFUSED
        if chunk.signature is None:
            if source != controller.address or source != controller_of(self.network):
                return _REFUSED
            return AddedChunk(True, chunk.data)
        # Duplicates are found by the first 16 bytes of the signature, folded, before the signature is checked.
        chunk_id = int.from_bytes(chunk.signature[:8]) ^ int.from_bytes(chunk.signature[8:16])
        update = self._updates.get(chunk.update_id)
        if update is not None and (chunk_id in update.seen or len(update.seen) >= self.MAX_CHUNKS):
            return _REFUSED
        if not chunk.verify(controller):
            return _REFUSED
        if update is None:
            if len(self._updates) >= self.MAX_UPDATES:
                self._updates.popitem(last=False)
            update = self._updates[chunk.update_id] = _Update()
        self._updates.move_to_end(chunk.update_id)
        update.seen.add(chunk_id)
        if update.complete:
            return AddedChunk(True, None)
        update.pieces.append(chunk)
        update.received += len(chunk.data)
        if update.received < chunk.total:
            return AddedChunk(True, None)
        update.complete = True
        dictionary = _join(update.pieces, chunk.total)
        update.pieces = []
        return AddedChunk(True, dictionary)


def _join(pieces: list[ConfigChunk], total: int) -> bytes | None:
    """None if the pieces do not lie one after the other, which no honest controller makes."""
    pieces.sort(key=lambda piece: piece.offset)
    data = b"".join(piece.data for piece in pieces)
    position = 0
    for piece in pieces:
        if piece.offset != position or piece.total != total:
            return None
        position += len(piece.data)
    return data if position == total else None


# -- requests (vl2 §2.2) --


def check_token(token: str) -> None:
    """NetconError unless `token` can be a join token: short printable ASCII, as it travels in a request's metadata."""
    if not (0 < len(token) <= MAX_TOKEN and token.isascii() and token.isprintable()) or " " in token:
        raise NetconError(f"that is no join token: {MAX_TOKEN} printable ASCII characters at most, and no spaces")


def request_metadata(version: tuple[int, int, int], *, protocol: int = 12, platform: str = "", token: str = "") -> bytes:
    """The metadata dictionary of a NETWORK_CONFIG_REQUEST. `version`: our software's; `token`: join token."""
    out = Dictionary()
    for key, value in (
        ("v", CONFIG_VERSION),
        ("vend", 1),
        ("pv", protocol),
        ("majv", version[0]),
        ("minv", version[1]),
        ("revv", version[2]),
        ("mr", MAX_NETWORK_RULES),
        ("mc", MAX_CAPABILITIES),
        ("mcr", MAX_CAPABILITY_RULES),
        ("mt", MAX_TAGS),
        ("f", 0),
        ("revr", 1),
    ):
        out.set_integer(key, value)
    if platform:
        out.set_text("o", platform)
    if token:
        out.set_text("a", f"token:{token}")
    encoded = out.encode()
    if len(encoded) > MAX_METADATA:
        raise EncodeError(f"request metadata of {len(encoded)} bytes; at most {MAX_METADATA} are read. Use a shorter join token")
    return encoded
