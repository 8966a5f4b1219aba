"""OK and ERROR: the in-re header, and the errors (vl1 §4.5, §4.6). What an OK carries lies with the verb it answers."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from netcon.core.address import MulticastGroup
from netcon.core.buffer import Reader
from netcon.core.packet import Verb

_IN_RE = Struct(">BQ")
_IN_RE_CODE = Struct(">BQB")
_UNWANTED = Struct(">Q6sI")


@dataclass(slots=True, frozen=True)
class Ok:
    """A reply. `data` is what follows the in-re header, to be read by `decode_reply`. `in_re_packet_id`: as on the wire."""

    VERB: ClassVar[Verb] = Verb.OK

    in_re_verb: int
    in_re_packet_id: int
    data: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> Ok:
        reader = Reader(body)
        in_re_verb, in_re_packet_id = _IN_RE.unpack(reader.bytes(9))
        return cls(in_re_verb, in_re_packet_id, reader.rest())

    def encode(self) -> bytes:
        return _IN_RE.pack(self.in_re_verb, self.in_re_packet_id) + self.data


@dataclass(slots=True, frozen=True)
class Error:
    """`data` follows the code; for most codes it begins with a network id."""

    VERB: ClassVar[Verb] = Verb.ERROR

    in_re_verb: int
    in_re_packet_id: int
    code: int
    data: bytes = b""

    @classmethod
    def about_network(cls, in_re_verb: int, in_re_packet_id: int, code: int, network: int) -> Error:
        return cls(in_re_verb, in_re_packet_id, code, network.to_bytes(8))

    @classmethod
    def decode(cls, body: bytes) -> Error:
        reader = Reader(body)
        in_re_verb, in_re_packet_id, code = _IN_RE_CODE.unpack(reader.bytes(10))
        return cls(in_re_verb, in_re_packet_id, code, reader.rest())

    def encode(self) -> bytes:
        return _IN_RE_CODE.pack(self.in_re_verb, self.in_re_packet_id, self.code) + self.data

    @property
    def network(self) -> int:
        """The network that a network error is about. DecodeError if the packet names none."""
        return Reader(self.data).u64()


@dataclass(slots=True, frozen=True)
class UnwantedMulticast:
    """What ERROR(UNWANTED_MULTICAST) carries: the sender does not want that group."""

    network: int
    group: MulticastGroup

    @classmethod
    def decode(cls, data: bytes) -> UnwantedMulticast:
        network, mac, adi = _UNWANTED.unpack(Reader(data).bytes(_UNWANTED.size))
        return cls(network, MulticastGroup(mac, adi))

    def encode(self) -> bytes:
        return _UNWANTED.pack(self.network, *self.group)


@dataclass(slots=True, frozen=True)
class AuthenticationRequired:
    """What ERROR(NETWORK_AUTHENTICATION_REQUIRED) carries. `dictionary` None: nothing follows the network id."""

    network: int
    dictionary: bytes | None = None

    @classmethod
    def decode(cls, data: bytes) -> AuthenticationRequired:
        reader = Reader(data)
        network = reader.u64()
        return cls(network, reader.bytes(reader.u16()) if reader.remaining else None)

    def encode(self) -> bytes:
        network = self.network.to_bytes(8)
        return network if self.dictionary is None else b"".join((network, len(self.dictionary).to_bytes(2), self.dictionary))
