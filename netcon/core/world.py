"""Worlds: the planet and moons, signed lists of roots (vl1 §6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from netcon.core.address import Endpoint, encode_inet, read_inet
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, EncodeError
from netcon.core.identity import Identity
from netcon.dataplane import crypto

MAX_ROOTS = 4
MAX_ENDPOINTS = 32
_BEFORE, _AFTER = b"\x7f" * 8, b"\xf7" * 8


class WorldType(IntEnum):
    NULL = 0
    PLANET = 1
    MOON = 127


class Root(NamedTuple):
    """A root and where it is found: its stable endpoints, possibly none."""

    identity: Identity
    endpoints: tuple[Endpoint, ...]


@dataclass(slots=True, frozen=True)
class World:
    """`update_key`: the 64-byte public block that must sign the next version. `dictionary`: attached to moons; ignored."""

    type: WorldType
    id: int
    timestamp: int
    update_key: bytes
    signature: bytes
    roots: tuple[Root, ...]
    dictionary: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> World:
        """From the content of a file; bytes after the world are ignored."""
        return cls.decode(Reader(data))

    @classmethod
    def decode(cls, reader: Reader) -> World:
        kind = reader.u8()
        try:
            world_type = WorldType(kind)
        except ValueError:
            raise DecodeError(f"unknown type of world: {kind}") from None
        world_id, timestamp = reader.u64(), reader.u64()
        update_key, signature = reader.bytes(64), reader.bytes(96)
        count = reader.u8()
        if count > MAX_ROOTS:
            raise DecodeError(f"a world has at most {MAX_ROOTS} roots, not {count}")
        roots = tuple(_read_root(reader) for _ in range(count))
        dictionary = reader.bytes(reader.u16()) if world_type is WorldType.MOON else b""
        return cls(world_type, world_id, timestamp, update_key, signature, roots, dictionary)

    def _encode(self, signature: bytes, dictionary: bytes) -> bytes:
        parts = [
            self.type.to_bytes(1),
            self.id.to_bytes(8),
            self.timestamp.to_bytes(8),
            self.update_key,
            signature,
            len(self.roots).to_bytes(1),
        ]
        for identity, endpoints in self.roots:
            parts.append(identity.encode())
            parts.append(len(endpoints).to_bytes(1))
            parts.extend(encode_inet(endpoint) for endpoint in endpoints)
        if self.type is WorldType.MOON:
            parts.append(len(dictionary).to_bytes(2) + dictionary)
        return b"".join(parts)

    def encode(self) -> bytes:
        return self._encode(self.signature, self.dictionary)

    def signed_bytes(self) -> bytes:
        """What the signature covers. A moon's dictionary counts as empty, whatever was received (vl1 §6.1)."""
        return b"".join((_BEFORE, self._encode(b"", b""), _AFTER))

    def verify(self, key: bytes | None = None) -> bool:
        """Whether the holder of `key` (64-byte public block; default: our own update key) signed this version."""
        return crypto.verify(self.update_key if key is None else key, self.signed_bytes(), self.signature)

    def accepts_update(self, candidate: World) -> bool:
        """Whether `candidate` may replace this world: same id and type, newer, signed with the key we name (vl1 §6.3)."""
        return (
            candidate.id == self.id
            and candidate.type is self.type
            and candidate.timestamp > self.timestamp
            and candidate.verify(self.update_key)
        )


class MoonStatus(NamedTuple):
    """A moon that we orbit, or (`world` None) one that we wait for, which `seed` should send us."""

    id: int
    world: World | None
    seed: int = 0


def _read_root(reader: Reader) -> Root:
    identity = Identity.decode(reader)
    count = reader.u8()
    if count > MAX_ENDPOINTS:
        raise DecodeError(f"a root has at most {MAX_ENDPOINTS} endpoints, not {count}")
    endpoints = tuple(read_inet(reader) for _ in range(count))
    return Root(identity, tuple(endpoint for endpoint in endpoints if endpoint is not None))


def _make(kind: WorldType, world_id: int, timestamp: int, roots: Iterable[Root], secret: bytes, update_key: bytes | None) -> World:
    roots = tuple(roots)
    if len(roots) > MAX_ROOTS or any(len(root.endpoints) > MAX_ENDPOINTS for root in roots):
        raise EncodeError(f"a world has at most {MAX_ROOTS} roots, and a root at most {MAX_ENDPOINTS} endpoints")
    public = crypto.public_from_secret(secret)
    world = World(kind, world_id, timestamp, public if update_key is None else update_key, bytes(96), roots)
    return replace(world, signature=crypto.sign(secret, public, world.signed_bytes()))


def make_planet(world_id: int, timestamp: int, roots: Iterable[Root], secret: bytes, update_key: bytes | None = None) -> World:
    """A planet signed with the 64-byte secret block `secret`. `update_key`: public block for the next version, if it changes."""
    return _make(WorldType.PLANET, world_id, timestamp, roots, secret, update_key)


def make_moon(world_id: int, timestamp: int, roots: Iterable[Root], secret: bytes, update_key: bytes | None = None) -> World:
    """A moon; its id is customarily the address of its first root."""
    return _make(WorldType.MOON, world_id, timestamp, roots, secret, update_key)
