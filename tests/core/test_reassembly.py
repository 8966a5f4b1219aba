"""Fragments in any order, duplicated, missing, hostile (vl1 §3.4)."""

from __future__ import annotations

import itertools

import pytest

from netcon.core.address import Endpoint
from netcon.core.packet import split
from netcon.core.path import Path
from netcon.core.reassembly import LIFETIME_MS, SLOTS, SLOTS_PER_PATH, Reassembler

NOW = 1_000_000


def path(number: int = 1) -> Path:
    return Path(1, Endpoint(bytes((10, 0, 0, number)), 9993))


def packet(size: int, packet_id: int = 1) -> bytes:
    header = packet_id.to_bytes(8) + b"\x11" * 5 + b"\x22" * 5 + b"\x58" + bytes(9)
    return header + bytes(number % 251 for number in range(size - len(header)))


def feed(reassembler: Reassembler, datagram: bytes, where: Path, now: int = NOW) -> bytes | None:
    result = reassembler.piece(datagram, where, now) if datagram[13] == 0xFF else reassembler.head(datagram, where, now)
    return None if result is None else result[0]


@pytest.mark.parametrize("size", [1_433, 2_848, 2_849, 4_300])
def test_any_order_gives_the_packet_once(size: int) -> None:
    whole = packet(size)
    for order in itertools.permutations(split(whole, 1_432)):
        reassembler = Reassembler()
        results = [feed(reassembler, datagram, path()) for datagram in order]
        assert results[:-1] == [None] * (len(order) - 1)
        assert results[-1] == whole
        assert len(reassembler) == 0


def test_seven_pieces_are_the_most() -> None:
    whole = packet(9_928)
    reassembler = Reassembler()
    pieces = split(whole, 1_432)
    assert len(pieces) == 7
    assert [feed(reassembler, datagram, path()) for datagram in pieces][-1] == whole


def test_duplicates_change_nothing() -> None:
    whole = packet(4_000)
    where = path()
    reassembler = Reassembler()
    pieces = split(whole, 1_432)
    results = [feed(reassembler, datagram, where) for datagram in (pieces[1], pieces[1], pieces[0], pieces[0], pieces[2])]
    assert results == [None, None, None, None, whole]


@pytest.mark.parametrize("numbers", [0x00, 0x10, 0x11, 0x20, 0x27, 0x2F, 0x81, 0xF1])
def test_impossible_piece_numbers_are_ignored(numbers: int) -> None:
    reassembler = Reassembler()
    assert feed(reassembler, bytes(8) + b"\x11" * 5 + b"\xff" + bytes((numbers, 0)) + b"data", path()) is None
    assert len(reassembler) == 0


def test_an_incomplete_packet_dies_after_five_seconds() -> None:
    whole = packet(2_000)
    head, rest = split(whole, 1_432)
    reassembler = Reassembler()
    feed(reassembler, head, path())
    assert feed(reassembler, rest, path(), NOW + LIFETIME_MS) is None
    assert len(reassembler) == 1
    reassembler.expire(NOW + 2 * LIFETIME_MS)
    assert len(reassembler) == 0


def test_the_path_is_that_of_the_head() -> None:
    whole = packet(2_000)
    head, rest = split(whole, 1_432)
    first, second = path(1), path(2)
    reassembler = Reassembler()
    reassembler.piece(rest, first, NOW)
    assert reassembler.head(head, second, NOW) == (whole, second)


def test_more_than_a_packet_may_have_is_dropped() -> None:
    reassembler = Reassembler()
    assert feed(reassembler, packet(9_000), path()) is None
    prefix = (1).to_bytes(8) + b"\x11" * 5 + b"\xff"
    assert feed(reassembler, prefix + bytes((0x21, 0)) + bytes(1_100), path()) is None


def test_a_flood_from_one_path_leaves_the_others_alone() -> None:
    reassembler = Reassembler()
    whole = packet(2_000, 7)
    head, rest = split(whole, 1_432)
    feed(reassembler, head, path(1))
    attacker = path(2)
    for number in range(2_000):
        piece = (1_000 + number).to_bytes(8) + b"\x11" * 5 + b"\xff" + bytes((0x21, 0)) + b"x"
        feed(reassembler, piece, attacker)
    assert len(reassembler) == SLOTS_PER_PATH + 1
    assert feed(reassembler, rest, path(1)) == whole


def test_the_table_is_bounded() -> None:
    reassembler = Reassembler()
    for number in range(2_000):
        piece = number.to_bytes(8) + b"\x11" * 5 + b"\xff" + bytes((0x21, 0)) + b"x"
        feed(reassembler, piece, path(number % 200))
    assert len(reassembler) == SLOTS
