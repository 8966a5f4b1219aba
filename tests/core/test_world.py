"""Worlds against the golden vectors (vl1 §6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import Endpoint, format_endpoint
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, EncodeError
from netcon.core.identity import Identity
from netcon.core.world import Root, World, WorldType, make_moon, make_planet
from netcon.dataplane.crypto import public_from_secret

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "world.json").read_text())


@pytest.mark.parametrize("case", VECTORS["worlds"], ids=lambda case: case["name"])
def test_world(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    if not case["parses"]:
        with pytest.raises(DecodeError):
            World.parse(data)
        return
    reader = Reader(data)
    world = World.decode(reader)
    assert reader.offset == case["consumed"]
    assert world.type == case["type"]
    assert f"{world.id:016x}" == case["id"]
    assert world.timestamp == case["timestamp"]
    assert world.update_key.hex() == case["next_update_signing_key"]
    assert world.signature.hex() == case["signature"]
    roots = [{"identity": root.identity.to_text(), "endpoints": [*map(format_endpoint, root.endpoints)]} for root in world.roots]
    assert roots == case["roots"]
    assert world.signed_bytes().hex() == case["signed_bytes"]
    assert world.verify() == case["self_signature_valid"]
    assert world.encode() == data


@pytest.mark.parametrize("case", [case for case in VECTORS["updates"] if case["current"]], ids=lambda case: case["name"])
def test_update(case: dict[str, Any]) -> None:
    current, candidate = (World.parse(bytes.fromhex(case[name])) for name in ("current", "candidate"))
    assert current.accepts_update(candidate) == case["accept"]


def test_a_moons_dictionary_is_kept_but_counts_as_empty_when_verified() -> None:
    moon = next(bytes.fromhex(case["bytes"]) for case in VECTORS["worlds"] if case["name"] == "moon_one_root")
    with_dictionary = moon[:-2] + b"\0\3a=1"
    world = World.parse(with_dictionary)
    assert world.dictionary == b"a=1"
    assert world.encode() == with_dictionary
    assert world.verify()


SECRETS = [bytes(range(start, start + 64)) for start in (0, 64, 128)]
ROOT = Root(
    Identity(0x0102030405, public_from_secret(SECRETS[2])),
    (Endpoint(bytes((192, 0, 2, 1)), 9993), Endpoint(bytes(15) + b"\1", 9993)),
)


def test_made_planets_verify_update_and_rotate_their_key() -> None:
    first = make_planet(77, 1000, [ROOT], SECRETS[0])
    assert first.type is WorldType.PLANET
    assert first.verify()
    assert World.parse(first.encode()) == first
    second = make_planet(77, 2000, [ROOT, ROOT], SECRETS[0], update_key=public_from_secret(SECRETS[1]))
    third = make_planet(77, 3000, [], SECRETS[1])
    assert first.accepts_update(second)
    assert not second.verify()
    assert second.accepts_update(third)
    assert not first.accepts_update(third)
    assert not second.accepts_update(first)


def test_made_moon() -> None:
    moon = make_moon(ROOT.identity.address, 1000, [ROOT], SECRETS[0])
    assert moon.type is WorldType.MOON
    assert World.parse(moon.encode()) == moon
    assert moon.verify()


def test_too_many_roots_or_endpoints_are_refused() -> None:
    with pytest.raises(EncodeError):
        make_planet(1, 1, [ROOT] * 5, SECRETS[0])
    with pytest.raises(EncodeError):
        make_planet(1, 1, [Root(ROOT.identity, ROOT.endpoints * 17)], SECRETS[0])


@given(st.binary(max_size=400), st.data())
def test_hostile_bytes_raise_nothing_but_decode_error(noise: bytes, data: st.DataObject) -> None:
    good = bytearray.fromhex(data.draw(st.sampled_from(VECTORS["worlds"]))["bytes"])
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (noise, bytes(good), bytes(good[: len(good) // 2])):
        try:
            world = World.parse(candidate)
        except DecodeError:
            continue
        world.encode()
        assert world.accepts_update(world) is False
