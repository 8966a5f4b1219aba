"""MULTICAST_LIKE, MULTICAST_GATHER, MULTICAST_FRAME and their OKs (vl1 §4.11, vl2 §5)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple

from netcon.core.address import MulticastGroup
from netcon.core.buffer import Reader
from netcon.core.credentials import CertificateOfMembership
from netcon.core.errors import DecodeError
from netcon.core.packet import Verb

_LIKE = Struct(">Q6sI")
_GATHER = Struct(">QB6sII")
_GROUP = Struct(">Q6sI")
_RESULT_HEAD = Struct(">IH")
_FRAME_HEAD = Struct(">QB")
_GROUP_TYPE = Struct(">6sIH")


class Like(NamedTuple):
    """A subscription of the sender."""

    network: int
    group: MulticastGroup


@dataclass(slots=True, frozen=True)
class MulticastLike:
    VERB: ClassVar[Verb] = Verb.MULTICAST_LIKE

    likes: tuple[Like, ...]

    @classmethod
    def decode(cls, body: bytes) -> MulticastLike:
        if len(body) % _LIKE.size:
            raise DecodeError(f"MULTICAST_LIKE whose last record is cut short: {len(body)} bytes")
        return cls(tuple(Like(network, MulticastGroup(mac, adi)) for network, mac, adi in _LIKE.iter_unpack(body)))

    def encode(self) -> bytes:
        return b"".join(_LIKE.pack(network, mac, adi) for network, (mac, adi) in self.likes)


@dataclass(slots=True, frozen=True)
class MulticastGather:
    """`limit` 0: no answer wanted."""

    VERB: ClassVar[Verb] = Verb.MULTICAST_GATHER

    network: int
    group: MulticastGroup
    limit: int
    certificate: CertificateOfMembership | None = None
    flags: int = 0  # other than 0x01, which says that the certificate is there

    @classmethod
    def decode(cls, body: bytes) -> MulticastGather:
        reader = Reader(body)
        network, flags, mac, adi, limit = _GATHER.unpack(reader.bytes(_GATHER.size))
        certificate = None
        if flags & 0x01:
            try:
                certificate = CertificateOfMembership.decode(reader)
            except DecodeError:
                certificate = None  # the request stands without it (vl2 §5.4)
        return cls(network, MulticastGroup(mac, adi), limit, certificate, flags & ~0x01)

    def encode(self) -> bytes:
        flags = self.flags | (0 if self.certificate is None else 0x01)
        head = _GATHER.pack(self.network, flags, *self.group, self.limit)
        return head if self.certificate is None else head + self.certificate.encode()


class GatherResults(NamedTuple):
    """`total`: how many members the sender knows; `members`: those it names."""

    total: int
    members: tuple[int, ...]

    @classmethod
    def read(cls, reader: Reader) -> GatherResults:
        total, count = _RESULT_HEAD.unpack(reader.bytes(6))
        addresses = reader.bytes(5 * count)
        return cls(total, tuple(int.from_bytes(addresses[i : i + 5]) for i in range(0, len(addresses), 5)))

    def encode(self) -> bytes:
        return _RESULT_HEAD.pack(self.total, len(self.members)) + b"".join(member.to_bytes(5) for member in self.members)


@dataclass(slots=True, frozen=True)
class OkMulticastGather:
    IN_RE: ClassVar[Verb] = Verb.MULTICAST_GATHER

    network: int
    group: MulticastGroup
    results: GatherResults

    @classmethod
    def decode(cls, data: bytes) -> OkMulticastGather:
        reader = Reader(data)
        network, mac, adi = _GROUP.unpack(reader.bytes(_GROUP.size))
        return cls(network, MulticastGroup(mac, adi), GatherResults.read(reader))

    def encode(self) -> bytes:
        return _GROUP.pack(self.network, *self.group) + self.results.encode()


@dataclass(slots=True, frozen=True)
class MulticastFrame:
    """`gather_limit` and `source` None: not in the packet (the source MAC is then the sender's own)."""

    VERB: ClassVar[Verb] = Verb.MULTICAST_FRAME

    network: int
    group: MulticastGroup
    ethertype: int
    payload: bytes
    gather_limit: int | None = None
    source: bytes | None = None
    replicate: bool = False
    certificate: CertificateOfMembership | None = None

    @classmethod
    def decode(cls, body: bytes) -> MulticastFrame:
        reader = Reader(body)
        network, flags = _FRAME_HEAD.unpack(reader.bytes(9))
        certificate = CertificateOfMembership.decode(reader) if flags & 0x01 else None
        gather_limit = reader.u32() if flags & 0x02 else None
        source = reader.bytes(6) if flags & 0x04 else None
        mac, adi, ethertype = _GROUP_TYPE.unpack(reader.bytes(12))
        group = MulticastGroup(mac, adi)
        return cls(network, group, ethertype, reader.rest(), gather_limit, source, bool(flags & 0x08), certificate)

    def encode(self) -> bytes:
        flags = 0x08 if self.replicate else 0
        parts = [b""]
        if self.certificate is not None:
            flags |= 0x01
            parts.append(self.certificate.encode())
        if self.gather_limit is not None:
            flags |= 0x02
            parts.append(self.gather_limit.to_bytes(4))
        if self.source is not None:
            flags |= 0x04
            parts.append(self.source)
        parts[0] = _FRAME_HEAD.pack(self.network, flags)
        return b"".join((*parts, _GROUP_TYPE.pack(*self.group, self.ethertype), self.payload))


@dataclass(slots=True, frozen=True)
class OkMulticastFrame:
    IN_RE: ClassVar[Verb] = Verb.MULTICAST_FRAME

    network: int
    group: MulticastGroup
    results: GatherResults | None = None
    certificate: CertificateOfMembership | None = None

    @classmethod
    def decode(cls, data: bytes) -> OkMulticastFrame:
        reader = Reader(data)
        network, mac, adi = _GROUP.unpack(reader.bytes(_GROUP.size))
        flags = reader.u8()
        certificate = CertificateOfMembership.decode(reader) if flags & 0x01 else None
        results = GatherResults.read(reader) if flags & 0x02 else None
        return cls(network, MulticastGroup(mac, adi), results, certificate)

    def encode(self) -> bytes:
        flags = 0
        parts = []
        if self.certificate is not None:
            flags |= 0x01
            parts.append(self.certificate.encode())
        if self.results is not None:
            flags |= 0x02
            parts.append(self.results.encode())
        return b"".join((_GROUP.pack(self.network, *self.group), bytes((flags,)), *parts))
