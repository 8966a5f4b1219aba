"""HELLO and OK(HELLO) (vl1 §4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple

from netcon.core.address import Endpoint, encode_inet, read_inet
from netcon.core.buffer import Reader
from netcon.core.identity import Identity
from netcon.core.packet import Verb

_HELLO = Struct(">BBBHQ")
_OK = Struct(">QBBBH")
_MOON = Struct(">BQQ")
_MOON_TYPE = 127

#: Offsets in the body: the identity, and the length of its secret.
_IDENTITY = 13
_SECRET_LENGTH = _IDENTITY + 70
_INET_LENGTHS = {0: 1, 1: 7, 2: 7, 4: 7, 6: 19}
_PLANET = 16


class MoonVersion(NamedTuple):
    """A moon that the sender holds, or wants if `timestamp` is 0."""

    id: int
    timestamp: int
    type: int = _MOON_TYPE


@dataclass(slots=True, frozen=True)
class Hello:
    """`destination`: where the datagram is sent. Old senders end before it (`ends_early`), or leave out the planet (None) or
    the moons (None, no encrypted tail)."""

    VERB: ClassVar[Verb] = Verb.HELLO

    protocol: int
    major: int
    minor: int
    revision: int
    timestamp: int
    identity: Identity
    destination: Endpoint | None = None
    planet_id: int | None = None
    planet_timestamp: int | None = None
    moons: tuple[MoonVersion, ...] | None = None
    ends_early: bool = False

    @staticmethod
    def tail_offset(body: bytes) -> int | None:
        """Where in the body the encrypted tail begins (the moons); None if there is none. Looks at clear fields only."""
        if len(body) <= _SECRET_LENGTH:
            return None
        inet = _SECRET_LENGTH + 1 + body[_SECRET_LENGTH]
        if len(body) <= inet:
            return None
        length = _INET_LENGTHS.get(body[inet])
        if body[inet] == 3 and len(body) >= inet + 3:
            length = 3 + int.from_bytes(body[inet + 1 : inet + 3])
        if length is None:
            return None
        tail = inet + length + _PLANET
        return tail if len(body) > tail else None

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """`body` with the tail in clear."""
        reader = Reader(body)
        protocol, major, minor, revision, timestamp = _HELLO.unpack(reader.bytes(_IDENTITY))
        identity = Identity.decode(reader)
        if not reader.remaining:
            return cls(protocol, major, minor, revision, timestamp, identity, ends_early=True)
        destination = read_inet(reader)
        if not reader.remaining:
            return cls(protocol, major, minor, revision, timestamp, identity, destination)
        planet_id, planet_timestamp = reader.u64(), reader.u64()
        moons = None
        if reader.remaining:
            moons = tuple(
                MoonVersion(moon_id, moon_timestamp, kind)
                for kind, moon_id, moon_timestamp in _MOON.iter_unpack(reader.bytes(reader.u16() * _MOON.size))
            )
        return cls(protocol, major, minor, revision, timestamp, identity, destination, planet_id, planet_timestamp, moons)

    def encode(self) -> bytes:
        """With the tail in clear: the caller encrypts it."""
        head = _HELLO.pack(self.protocol, self.major, self.minor, self.revision, self.timestamp)
        parts = [head, self.identity.encode()]
        if not self.ends_early:
            parts.append(encode_inet(self.destination))
            if self.planet_id is not None and self.planet_timestamp is not None:
                parts.append(self.planet_id.to_bytes(8) + self.planet_timestamp.to_bytes(8))
                if self.moons is not None:
                    parts.append(len(self.moons).to_bytes(2))
                    parts.extend(_MOON.pack(moon.type, moon.id, moon.timestamp) for moon in self.moons)
        return b"".join(parts)


@dataclass(slots=True, frozen=True)
class OkHello:
    """What follows the in-re header. `reflected`: where the HELLO came from. `worlds`: serialized, back to back; None if the
    sender has no planet file. `ends_early`: nothing follows the version."""

    IN_RE: ClassVar[Verb] = Verb.HELLO

    timestamp: int
    protocol: int
    major: int
    minor: int
    revision: int
    reflected: Endpoint | None = None
    worlds: bytes | None = b""
    ends_early: bool = False

    @classmethod
    def decode(cls, data: bytes) -> OkHello:
        reader = Reader(data)
        timestamp, protocol, major, minor, revision = _OK.unpack(reader.bytes(_OK.size))
        if not reader.remaining:
            return cls(timestamp, protocol, major, minor, revision, None, None, True)
        reflected = read_inet(reader)
        worlds = reader.bytes(reader.u16()) if reader.remaining else None
        return cls(timestamp, protocol, major, minor, revision, reflected, worlds)

    def encode(self) -> bytes:
        parts = [_OK.pack(self.timestamp, self.protocol, self.major, self.minor, self.revision)]
        if not self.ends_early:
            parts.append(encode_inet(self.reflected))
            if self.worlds is not None:
                parts.append(len(self.worlds).to_bytes(2) + self.worlds)
        return b"".join(parts)
