"""The packet: header, fragments, compression (vl1 §3). Armour is the crypto leaf's."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from netcon.core.errors import DecodeError, EncodeError
from netcon.dataplane import crypto

#: Where the body (the verb's own fields) begins; the verb byte is before it.
BODY = 28
#: Largest assembled or decompressed packet (vl1 §1.2).
MAX_PACKET = 10024
MAX_BODY = MAX_PACKET - BODY
DEFAULT_MTU = 1432
FRAGMENT_HEADER = 16
MAX_FRAGMENTS = 7

#: Flags byte (vl1 §3.1).
FRAGMENTED = 0x40
SUITE_MASK = 0x38
HOPS_MASK = 0x07

#: Verb byte.
COMPRESSED = 0x80
VERB_MASK = 0x1F

#: Bodies up to this size are not compressed (vl1 §3.5).
COMPRESS_ABOVE = 64

#: Distinguishes fragments from packets at offset 13.
FRAGMENT_MARK = 0xFF


class Verb(IntEnum):
    """vl1 §4.2"""

    NOP = 0x00
    HELLO = 0x01
    ERROR = 0x02
    OK = 0x03
    WHOIS = 0x04
    RENDEZVOUS = 0x05
    FRAME = 0x06
    EXT_FRAME = 0x07
    ECHO = 0x08
    MULTICAST_LIKE = 0x09
    NETWORK_CREDENTIALS = 0x0A
    NETWORK_CONFIG_REQUEST = 0x0B
    NETWORK_CONFIG = 0x0C
    MULTICAST_GATHER = 0x0D
    MULTICAST_FRAME = 0x0E
    PUSH_DIRECT_PATHS = 0x10
    ACK = 0x12
    QOS_MEASUREMENT = 0x13
    USER_MESSAGE = 0x14
    REMOTE_TRACE = 0x15
    PATH_NEGOTIATION_REQUEST = 0x16


class ErrorCode(IntEnum):
    """vl1 §4.5"""

    INVALID_REQUEST = 0x01
    BAD_PROTOCOL_VERSION = 0x02
    OBJECT_NOT_FOUND = 0x03
    IDENTITY_COLLISION = 0x04
    UNSUPPORTED_OPERATION = 0x05
    NEED_MEMBERSHIP_CERTIFICATE = 0x06
    NETWORK_ACCESS_DENIED = 0x07
    UNWANTED_MULTICAST = 0x08
    NETWORK_AUTHENTICATION_REQUIRED = 0x09


# packet id 8, destination 5, source 5, flags 1, MAC 8, verb 1; addresses as (u32, u8) because struct has no 5-byte integer
_HEADER = Struct(">QIBIBBxxxxxxxxB")
_unpack_header = _HEADER.unpack_from


class PacketHeader(NamedTuple):
    """The header of a whole packet or of a head fragment, as on the wire."""

    packet_id: int
    destination: int
    source: int
    flags: int
    verb_byte: int

    @property
    def hops(self) -> int:
        return self.flags & HOPS_MASK

    @property
    def suite(self) -> int:
        return (self.flags & SUITE_MASK) >> 3

    @property
    def fragmented(self) -> bool:
        return bool(self.flags & FRAGMENTED)

    @property
    def verb(self) -> int:
        return self.verb_byte & VERB_MASK

    @property
    def compressed(self) -> bool:
        return bool(self.verb_byte & COMPRESSED)

    @classmethod
    def parse(cls, data: bytes) -> PacketHeader:
        if len(data) < BODY:
            raise DecodeError(f"{len(data)} bytes are no packet: at least {BODY}")
        packet_id, destination, destination_low, source, source_low, flags, verb = _unpack_header(data)
        return cls(packet_id, destination << 8 | destination_low, source << 8 | source_low, flags, verb)


def is_fragment(data: bytes) -> bool:
    """Whether a datagram is a fragment other than the head (vl1 §3.2). Datagrams up to 16 bytes are neither (vl1 §3.1)."""
    return len(data) > FRAGMENT_HEADER and data[13] == FRAGMENT_MARK


def build_packet(packet_id: int, destination: int, source: int, verb: int, body: bytes, *, fragmented: bool = False) -> bytes:
    """A whole packet in clear, ready for `PeerKeys.seal`. `verb` may include the compressed bit."""
    return b"".join(
        (
            packet_id.to_bytes(8),
            destination.to_bytes(5),
            source.to_bytes(5),
            b"\x40" if fragmented else b"\0",
            bytes(8),
            verb.to_bytes(1),
            body,
        )
    )


# -- fragments --


class Fragment(NamedTuple):
    """A piece after the head (vl1 §3.2)."""

    packet_id: int
    destination: int
    total: int
    number: int
    hops: int
    data: bytes

    @classmethod
    def parse(cls, datagram: bytes) -> Fragment:
        """DecodeError unless 2 ≤ total ≤ 7 and 1 ≤ number < total; nothing else can ever complete a packet (vl1 §3.4)."""
        if not is_fragment(datagram):
            raise DecodeError("not a fragment")
        total, number = datagram[14] >> 4, datagram[14] & 0x0F
        if not 2 <= total <= MAX_FRAGMENTS or not 1 <= number < total:
            raise DecodeError(f"fragment {number} of {total}")
        return cls(
            int.from_bytes(datagram[:8]),
            int.from_bytes(datagram[8:13]),
            total,
            number,
            datagram[15] & HOPS_MASK,
            datagram[FRAGMENT_HEADER:],
        )


def split(packet: bytes, mtu: int = DEFAULT_MTU) -> list[bytes]:
    """An armoured packet as datagrams of at most `mtu` bytes, as few as possible (vl1 §3.3). EncodeError (a ValueError) if it takes
    more than 7.

    All are of one size, the last perhaps a few bytes shorter: the reference fills all but the last up to `mtu`, but a receiver
    takes whatever sizes come, and datagrams of equal size can leave in one system call (UDP_SEGMENT). The fragmented flag must have
    been set before armouring if the packet is longer than `mtu`.
    """
    length = len(packet)
    if length <= mtu:
        return [packet]
    total = 1 + -(-(length - mtu) // (mtu - FRAGMENT_HEADER))
    if total > MAX_FRAGMENTS:
        raise EncodeError(f"a packet of {length} bytes takes {total} fragments at an MTU of {mtu}; receivers take {MAX_FRAGMENTS}")
    size = -(-(length + FRAGMENT_HEADER * (total - 1)) // total)
    step = size - FRAGMENT_HEADER
    prefix = packet[:13] + b"\xff"
    hops = b"\0"
    pieces = [packet[:size]]
    for number, start in enumerate(range(size, length, step), 1):
        pieces.append(b"".join((prefix, bytes((total << 4 | number,)), hops, packet[start : start + step])))
    return pieces


# -- compression (vl1 §3.5) --


def compress_body(verb: int, body: bytes) -> tuple[int, bytes]:
    """Verb byte and body to send: compressed if the body is longer than 64 bytes and shrinks."""
    if len(body) > COMPRESS_ABOVE:
        smaller = crypto.lz4_compress(body)
        if len(smaller) < len(body):
            return verb | COMPRESSED, smaller
    return verb, body


def decompress_body(body: bytes) -> bytes:
    """The body of a packet whose verb byte has the compressed bit. An empty one is tolerated."""
    if not body:
        return body
    try:
        result = crypto.lz4_decompress(body, MAX_BODY)
    except crypto.CryptoError as failure:
        raise DecodeError(f"compressed body: {failure}") from None
    if not result:
        raise DecodeError("compressed body: nothing comes out")
    return result
