"""NOP, USER_MESSAGE, REMOTE_TRACE, and the messages of bonded peers: ACK, QOS_MEASUREMENT, PATH_NEGOTIATION_REQUEST
(vl1 §4.14, §4.15)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple

from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError
from netcon.core.packet import Verb


@dataclass(slots=True, frozen=True)
class Nop:
    """Its payload means nothing."""

    VERB: ClassVar[Verb] = Verb.NOP

    payload: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> Nop:
        return cls(body)

    def encode(self) -> bytes:
        return self.payload


@dataclass(slots=True, frozen=True)
class UserMessage:
    """Types up to 65535 are the vendor's."""

    VERB: ClassVar[Verb] = Verb.USER_MESSAGE

    type: int
    payload: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> UserMessage:
        reader = Reader(body)
        return cls(reader.u64(), reader.rest())

    def encode(self) -> bytes:
        return self.type.to_bytes(8) + self.payload


@dataclass(slots=True, frozen=True)
class RemoteTrace:
    """Serialized dictionaries, each without the NUL that ends it on the wire."""

    VERB: ClassVar[Verb] = Verb.REMOTE_TRACE
    LONGEST: ClassVar[int] = 10_000

    events: tuple[bytes, ...]

    @classmethod
    def decode(cls, body: bytes) -> RemoteTrace:
        if not body.endswith(b"\0"):
            raise DecodeError("REMOTE_TRACE does not end with NUL")
        events = tuple(body[:-1].split(b"\0"))
        if any(not 0 < len(event) <= cls.LONGEST for event in events):
            raise DecodeError(f"REMOTE_TRACE: an event has 1 to {cls.LONGEST} bytes")
        return cls(events)

    def encode(self) -> bytes:
        return b"".join(event + b"\0" for event in self.events)


@dataclass(slots=True, frozen=True)
class Ack:
    """Ignored by current releases."""

    VERB: ClassVar[Verb] = Verb.ACK

    count: int

    @classmethod
    def decode(cls, body: bytes) -> Ack:
        return cls(Reader(body).u32())

    def encode(self) -> bytes:
        return self.count.to_bytes(4)


_RECORD = Struct("<QH")  # the sender's own byte order, in practice little-endian (vl1 §4.14)
_UTILITY = Struct(">h")


class QosRecord(NamedTuple):
    packet_id: int
    holding_ms: int


@dataclass(slots=True, frozen=True)
class QosMeasurement:
    VERB: ClassVar[Verb] = Verb.QOS_MEASUREMENT
    MOST: ClassVar[int] = 140

    records: tuple[QosRecord, ...]

    @classmethod
    def decode(cls, body: bytes) -> QosMeasurement:
        if not body or len(body) % _RECORD.size or len(body) > cls.MOST * _RECORD.size:
            raise DecodeError(f"QOS_MEASUREMENT of {len(body)} bytes")
        return cls(tuple(map(QosRecord._make, _RECORD.iter_unpack(body))))

    def encode(self) -> bytes:
        return b"".join(_RECORD.pack(*record) for record in self.records)


@dataclass(slots=True, frozen=True)
class PathNegotiationRequest:
    VERB: ClassVar[Verb] = Verb.PATH_NEGOTIATION_REQUEST

    utility: int

    @classmethod
    def decode(cls, body: bytes) -> PathNegotiationRequest:
        if len(body) != _UTILITY.size:
            raise DecodeError(f"PATH_NEGOTIATION_REQUEST of {len(body)} bytes")
        return cls(*_UTILITY.unpack(body))

    def encode(self) -> bytes:
        return _UTILITY.pack(self.utility)


@dataclass(slots=True, frozen=True)
class UnknownMessage:
    """A verb that we do not know: ignored, but a sign of life."""

    verb: int
    body: bytes

    def encode(self) -> bytes:
        return self.body
