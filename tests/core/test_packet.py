"""Packet header, fragments, compression (vl1 §3) against the golden vectors."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import Endpoint
from netcon.core.errors import DecodeError
from netcon.core.packet import (
    BODY,
    COMPRESSED,
    FRAGMENTED,
    MAX_BODY,
    Fragment,
    PacketHeader,
    Verb,
    build_packet,
    compress_body,
    decompress_body,
    is_fragment,
    split,
)
from netcon.core.path import Path as PeerPath
from netcon.core.reassembly import Reassembler
from netcon.dataplane.crypto import PeerKeys

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "packet_armor.json").read_text())
KEY = bytes.fromhex(VECTORS["keys"]["key48"])


@pytest.mark.parametrize("case", VECTORS["fragmentation"], ids=lambda case: case["name"])
def test_fragments(case: dict[str, Any]) -> None:
    datagrams = [bytes.fromhex(datagram) for datagram in case["datagrams"]]
    packet = datagrams[0] + b"".join(datagram[16:] for datagram in datagrams[1:])
    assert hashlib.sha512(packet).hexdigest() == case["assembled_sha512"]
    if len(datagrams) > 7:
        with pytest.raises(ValueError, match="fragments"):
            split(packet, case["mtu"])
        return
    header = PacketHeader.parse(datagrams[0])
    assert header.fragmented == (len(datagrams) > 1)
    for number, datagram in enumerate(datagrams[1:], 1):
        fragment = Fragment.parse(datagram)
        assert (fragment.packet_id, fragment.destination) == (header.packet_id, header.destination)
        assert (fragment.number, fragment.total, fragment.hops) == (number, len(datagrams), 0)
    # Ours are as many, and differ only in where the cuts are; either way gives the packet back.
    ours = split(packet, case["mtu"])
    assert len(ours) == len(datagrams)
    assert [datagram[13:16] for datagram in ours[1:]] == [datagram[13:16] for datagram in datagrams[1:]]
    for pieces in (ours, datagrams):
        reassembler, path = Reassembler(), PeerPath(1, Endpoint(bytes((10, 0, 0, 1)), 9993))
        if len(pieces) > 1:
            assert reassembler.head(pieces[0], path, 0) is None
            whole = [reassembler.piece(piece, path, 0) for piece in pieces[1:]]
            assert whole == [None] * (len(pieces) - 2) + [(packet, path)]


def test_header_fields() -> None:
    packet = build_packet(0x0102030405060708, 0x1122334455, 0xAABBCCDDEE, Verb.ECHO | COMPRESSED, b"hello", fragmented=True)
    assert packet.hex() == "01020304050607081122334455aabbccddee4000000000000000008868656c6c6f"
    header = PacketHeader.parse(packet)
    assert header == (0x0102030405060708, 0x1122334455, 0xAABBCCDDEE, FRAGMENTED, 0x88)
    assert (header.verb, header.compressed, header.fragmented, header.suite, header.hops) == (Verb.ECHO, True, True, 0, 0)
    assert not is_fragment(packet)


def test_built_packet_armours_to_appendix_a4() -> None:
    keys = PeerKeys(bytes(range(48)))
    packet = build_packet(0x0102030405060708, 0x1122334455, 0xAABBCCDDEE, Verb.ECHO, b"hello world")
    armoured = keys.seal(packet, 3)
    assert armoured.hex() == "a044dd40e76648fd1122334455aabbccddee18eb24805201d745e8b3be17d723250f48d0f6b614"
    assert PacketHeader.parse(armoured).suite == 3


@pytest.mark.parametrize("length", [0, 13, 27])
def test_too_short_for_a_packet(length: int) -> None:
    with pytest.raises(DecodeError):
        PacketHeader.parse(bytes(length))


@pytest.mark.parametrize("byte", [0x10, 0x11, 0x21 + 1, 0x81, 0x20, 0x77, 0xF1])
def test_impossible_fragments(byte: int) -> None:
    with pytest.raises(DecodeError):
        Fragment.parse(bytes(13) + b"\xff" + bytes((byte, 0)) + b"data")


def test_short_datagrams_are_no_fragments() -> None:
    assert not is_fragment(bytes(13) + b"\xff\x21\0")
    with pytest.raises(DecodeError):
        Fragment.parse(bytes(13) + b"\xff\x21\0")


@given(st.binary(min_size=28, max_size=9928), st.sampled_from([1400, 1432, 1500, 9000]))
def test_pieces_join_to_the_packet(packet: bytes, mtu: int) -> None:
    total = 1 + max(0, -(-(len(packet) - mtu) // (mtu - 16)))
    if total > 7:
        with pytest.raises(ValueError, match="fragments"):
            split(packet, mtu)
        return
    pieces = split(packet, mtu)
    assert len(pieces) == total
    assert all(len(piece) <= mtu for piece in pieces)
    # What UDP_SEGMENT demands: one size, and the last not above it. It is less than `total` bytes short.
    assert {len(piece) for piece in pieces[:-1]} <= {len(pieces[0])}
    assert len(pieces[0]) - total < len(pieces[-1]) <= len(pieces[0])
    assert pieces[0] + b"".join(Fragment.parse(piece).data for piece in pieces[1:]) == packet


@pytest.mark.parametrize("case", VECTORS["compression"], ids=lambda case: case["name"])
def test_compressed_packets_of_the_reference(case: dict[str, Any]) -> None:
    for name in (key for key in case if key.startswith("armored_")):
        packet = PeerKeys(KEY).open(bytes.fromhex(case[name]))
        header, body = PacketHeader.parse(packet), packet[BODY:]
        assert header.verb_byte == int(str(case["verb_byte_after"]), 16)
        plain = bytes.fromhex(case["payload_plain"])
        assert (decompress_body(body) if header.compressed else body) == plain
        verb, again = compress_body(header.verb, plain)
        assert (decompress_body(again) if verb & COMPRESSED else again) == plain


def test_short_or_incompressible_bodies_stay_as_they_are() -> None:
    assert compress_body(Verb.FRAME, bytes(64)) == (Verb.FRAME, bytes(64))
    noise = hashlib.shake_256(b"x").digest(500)
    assert compress_body(Verb.FRAME, noise) == (Verb.FRAME, noise)
    verb, body = compress_body(Verb.FRAME, bytes(65))
    assert verb == Verb.FRAME | COMPRESSED
    assert decompress_body(body) == bytes(65)


def test_decompression_limits() -> None:
    assert decompress_body(b"") == b""
    assert decompress_body(compress_body(0, bytes(MAX_BODY))[1]) == bytes(MAX_BODY)
    with pytest.raises(DecodeError):
        decompress_body(compress_body(0, bytes(MAX_BODY + 1))[1])
    with pytest.raises(DecodeError):
        decompress_body(b"\0")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_decode_error(data: bytes) -> None:
    for decode in (PacketHeader.parse, Fragment.parse, decompress_body):
        with suppress(DecodeError):
            decode(data)
