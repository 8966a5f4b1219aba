"""WHOIS, RENDEZVOUS, ECHO, PUSH_DIRECT_PATHS: finding and probing peers (vl1 §4.7, §4.8, §4.10, §4.13)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple

from netcon.core.address import Endpoint
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.packet import Verb


@dataclass(slots=True, frozen=True)
class Whois:
    VERB: ClassVar[Verb] = Verb.WHOIS

    addresses: tuple[int, ...]

    @classmethod
    def decode(cls, body: bytes) -> Whois:
        if not body or len(body) % 5:
            raise DecodeError(f"WHOIS of {len(body)} bytes")
        return cls(tuple(int.from_bytes(body[i : i + 5]) for i in range(0, len(body), 5)))

    def encode(self) -> bytes:
        return b"".join(address.to_bytes(5) for address in self.addresses)


@dataclass(slots=True, frozen=True)
class OkWhois:
    """Receivers of this generation read only the first identity."""

    IN_RE: ClassVar[Verb] = Verb.WHOIS

    identities: tuple[Identity, ...]

    @classmethod
    def decode(cls, data: bytes) -> OkWhois:
        reader = Reader(data)
        identities = [Identity.decode(reader)]
        while reader.remaining:
            identities.append(Identity.decode(reader))
        return cls(tuple(identities))

    def encode(self) -> bytes:
        return b"".join(identity.encode() for identity in self.identities)


_RENDEZVOUS = Struct(">B5sHB")


@dataclass(slots=True, frozen=True)
class Rendezvous:
    """`peer` may be found at `endpoint`."""

    VERB: ClassVar[Verb] = Verb.RENDEZVOUS

    flags: int
    peer: int
    endpoint: Endpoint

    @classmethod
    def decode(cls, body: bytes) -> Rendezvous:
        reader = Reader(body)
        flags, peer, port, length = _RENDEZVOUS.unpack(reader.bytes(_RENDEZVOUS.size))
        if length not in (4, 16) or port == 0:
            raise DecodeError(f"RENDEZVOUS to port {port} of an address of {length} bytes")
        return cls(flags, int.from_bytes(peer), Endpoint(reader.bytes(length), port))

    def encode(self) -> bytes:
        ip, port = self.endpoint
        return _RENDEZVOUS.pack(self.flags, self.peer.to_bytes(5), port, len(ip)) + ip


@dataclass(slots=True, frozen=True)
class Echo:
    VERB: ClassVar[Verb] = Verb.ECHO

    payload: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> Echo:
        return cls(body)

    def encode(self) -> bytes:
        return self.payload


@dataclass(slots=True, frozen=True)
class OkEcho:
    """Also what acknowledges a pushed configuration: network id, update id (vl1 §4.12)."""

    IN_RE: ClassVar[Verb] = Verb.ECHO

    payload: bytes = b""

    @classmethod
    def decode(cls, data: bytes) -> OkEcho:
        return cls(data)

    def encode(self) -> bytes:
        return self.payload


_DIRECT_PATH = Struct(">BH")
#: Address type to bytes of IP.
_IP_LENGTHS = {4: 4, 6: 16}


class DirectPath(NamedTuple):
    """`endpoint` is None for address types that we do not know."""

    flags: int
    extension: bytes
    endpoint: Endpoint | None

    @property
    def forget(self) -> bool:
        return bool(self.flags & 0x01)


@dataclass(slots=True, frozen=True)
class PushDirectPaths:
    """Where the sender may be reached. A packet that ends before all announced records counts as far as it goes."""

    VERB: ClassVar[Verb] = Verb.PUSH_DIRECT_PATHS

    paths: tuple[DirectPath, ...]

    @classmethod
    def decode(cls, body: bytes) -> PushDirectPaths:
        reader = Reader(body)
        paths = []
        for _ in range(reader.u16()):
            try:
                paths.append(_read_path(reader))
            except DecodeError:
                break
        return cls(tuple(paths))

    def encode(self) -> bytes:
        parts = [len(self.paths).to_bytes(2)]
        for flags, extension, endpoint in self.paths:
            parts += (_DIRECT_PATH.pack(flags, len(extension)), extension)
            if endpoint is None:
                parts.append(b"\0\0")
            else:
                ip, port = endpoint
                parts += (b"\x04\x06" if len(ip) == 4 else b"\x06\x12", ip, port.to_bytes(2))
        return b"".join(parts)


def _read_path(reader: Reader) -> DirectPath:
    flags, extension_length = _DIRECT_PATH.unpack(reader.bytes(3))
    extension = reader.bytes(extension_length)
    kind = reader.u8()
    address = reader.bytes(reader.u8())
    length = _IP_LENGTHS.get(kind)
    if length is None:
        return DirectPath(flags, extension, None)
    if len(address) != length + 2:
        raise DecodeError(f"PUSH_DIRECT_PATHS: {len(address)} bytes for an address of type {kind}")
    return DirectPath(flags, extension, Endpoint(address[:length], int.from_bytes(address[length:])))
