"""NETWORK_CONFIG_REQUEST, its OK, NETWORK_CONFIG and its OK (vl1 §4.12, vl2 §2.2, §2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from netcon.core.buffer import Reader
from netcon.core.netconf import ConfigChunk
from netcon.core.packet import Verb

_PAIR = Struct(">QQ")


@dataclass(slots=True, frozen=True)
class NetworkConfigRequest:
    """`metadata`: a dictionary. `revision`, `timestamp`: of the configuration held; `ends_early`: not in the packet."""

    VERB: ClassVar[Verb] = Verb.NETWORK_CONFIG_REQUEST

    network: int
    metadata: bytes
    revision: int = 0
    timestamp: int = 0
    ends_early: bool = False

    @classmethod
    def decode(cls, body: bytes) -> NetworkConfigRequest:
        reader = Reader(body)
        network = reader.u64()
        metadata = reader.bytes(reader.u16())
        if reader.remaining < _PAIR.size:
            return cls(network, metadata, ends_early=True)
        return cls(network, metadata, *_PAIR.unpack(reader.bytes(_PAIR.size)))

    def encode(self) -> bytes:
        held = b"" if self.ends_early else _PAIR.pack(self.revision, self.timestamp)
        return b"".join((self.network.to_bytes(8), len(self.metadata).to_bytes(2), self.metadata, held))


@dataclass(slots=True, frozen=True)
class OkNetworkConfigRequest:
    IN_RE: ClassVar[Verb] = Verb.NETWORK_CONFIG_REQUEST

    chunk: ConfigChunk

    @classmethod
    def decode(cls, data: bytes) -> OkNetworkConfigRequest:
        return cls(ConfigChunk.decode(data))

    def encode(self) -> bytes:
        return self.chunk.encode()


@dataclass(slots=True, frozen=True)
class NetworkConfigPush:
    """NETWORK_CONFIG: a chunk that nobody asked for."""

    VERB: ClassVar[Verb] = Verb.NETWORK_CONFIG

    chunk: ConfigChunk

    @classmethod
    def decode(cls, body: bytes) -> NetworkConfigPush:
        return cls(ConfigChunk.decode(body))

    def encode(self) -> bytes:
        return self.chunk.encode()


@dataclass(slots=True, frozen=True)
class OkNetworkConfig:
    """Acknowledges a pushed configuration. Sent with ECHO as in-re verb (vl1 §4.12)."""

    IN_RE: ClassVar[Verb] = Verb.NETWORK_CONFIG

    network: int
    update_id: int

    @classmethod
    def decode(cls, data: bytes) -> OkNetworkConfig:
        return cls(*_PAIR.unpack(Reader(data).bytes(_PAIR.size)))

    def encode(self) -> bytes:
        return _PAIR.pack(self.network, self.update_id)
