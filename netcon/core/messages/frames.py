"""FRAME, EXT_FRAME and OK(EXT_FRAME): Ethernet between two members (vl2 §1.3, §1.4).

These are the hot path, hence named tuples: a frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import ClassVar, NamedTuple

from netcon.core.buffer import Reader
from netcon.core.credentials import CertificateOfMembership
from netcon.core.errors import DecodeError
from netcon.core.packet import Verb

_FRAME = Struct(">QH")
_EXT_FRAME = Struct(">QB6s6sH")
_NETWORK_FLAGS = Struct(">QB")
_MACS_TYPE = Struct(">6s6sH")


class _Frame(NamedTuple):
    network: int
    ethertype: int
    payload: bytes


class Frame(_Frame):
    """MACs are implied by the sender and the receiver."""

    __slots__ = ()
    VERB: ClassVar[Verb] = Verb.FRAME

    @classmethod
    def decode(cls, body: bytes) -> Frame:
        try:
            network, ethertype = _FRAME.unpack_from(body)
        except error:
            raise DecodeError(f"FRAME of {len(body)} bytes") from None
        return cls(network, ethertype, body[10:])

    def encode(self) -> bytes:
        return _FRAME.pack(self[0], self[1]) + self[2]


class _ExtFrame(NamedTuple):
    network: int
    flags: int
    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes
    certificate: CertificateOfMembership | None = None


class ExtFrame(_ExtFrame):
    """With MACs, for bridges and for copies that rules make. `certificate`: of senders before 1.2 only (flag 0x01)."""

    __slots__ = ()
    VERB: ClassVar[Verb] = Verb.EXT_FRAME

    CERTIFICATE: ClassVar[int] = 0x01
    WANT_OK: ClassVar[int] = 0x10
    #: Flags of what rules make of a frame (vl2 §1.4).
    TEE_OUTBOUND: ClassVar[int] = 0x02
    REDIRECT_OUTBOUND: ClassVar[int] = 0x04
    WATCH_OUTBOUND: ClassVar[int] = 0x16
    TEE_INBOUND: ClassVar[int] = 0x08
    REDIRECT_INBOUND: ClassVar[int] = 0x0A
    WATCH_INBOUND: ClassVar[int] = 0x1C

    @classmethod
    def decode(cls, body: bytes) -> ExtFrame:
        try:
            network, flags, destination, source, ethertype = _EXT_FRAME.unpack_from(body)
        except error:
            raise DecodeError(f"EXT_FRAME of {len(body)} bytes") from None
        if not flags & 0x01:
            return cls(network, flags, destination, source, ethertype, body[23:])
        reader = Reader(body, 9)
        certificate = CertificateOfMembership.decode(reader)
        destination, source, ethertype = _MACS_TYPE.unpack(reader.bytes(14))
        return cls(network, flags, destination, source, ethertype, reader.rest(), certificate)

    def encode(self) -> bytes:
        network, flags, destination, source, ethertype, payload, certificate = self
        if certificate is None:
            return _EXT_FRAME.pack(network, flags & ~0x01, destination, source, ethertype) + payload
        head = _NETWORK_FLAGS.pack(network, flags | 0x01)
        return b"".join((head, certificate.encode(), _MACS_TYPE.pack(destination, source, ethertype), payload))


@dataclass(slots=True, frozen=True)
class OkExtFrame:
    IN_RE: ClassVar[Verb] = Verb.EXT_FRAME

    network: int

    @classmethod
    def decode(cls, data: bytes) -> OkExtFrame:
        return cls(Reader(data).u64())

    def encode(self) -> bytes:
        return self.network.to_bytes(8)
