"""Dictionaries against the golden vectors (vl2 §2.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.dictionary import Dictionary

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "netconf.json").read_text())


@pytest.mark.parametrize("case", VECTORS["dictionary_encoding"], ids=lambda case: case["name"])
def test_encoding(case: dict[str, Any]) -> None:
    dictionary = Dictionary((pair["key"], bytes.fromhex(pair["value"])) for pair in case["pairs"])
    assert dictionary.encode().hex() == case["encoded"]
    assert Dictionary.decode(bytes.fromhex(case["encoded"])) == dictionary


@pytest.mark.parametrize("case", VECTORS["dictionary_decoding"], ids=lambda case: case["name"])
def test_decoding(case: dict[str, Any]) -> None:
    dictionary = Dictionary.decode(bytes.fromhex(case["dictionary"]))
    key = case["key"]
    assert (key in dictionary) == case["found"]
    if case["found"]:
        assert dictionary[key].hex() == case["value"]
    assert f"{dictionary.integer(key):016x}" == case["as_integer"]
    assert dictionary.boolean(key) == case["as_boolean"]


def test_captured_dictionaries_encode_back() -> None:
    for case in VECTORS["captured_configurations"]:
        data = bytes.fromhex(case["dictionary"])
        assert Dictionary.decode(data).encode() == data


def test_nul_ends_a_dictionary() -> None:
    assert Dictionary.decode(b"a=1\nb=2\0c=3") == {"a": b"1", "b": b"2"}


def test_typed_values() -> None:
    dictionary = Dictionary()
    dictionary.set_integer("ts", 0x18BCFE5687B)
    dictionary.set_integer("negative", -5)
    dictionary.set_address("id", 0x0082915F5E)
    dictionary.set_boolean("yes", True)
    dictionary.set_boolean("no", False)
    dictionary.set_text("n", "a=b\\c")
    assert dictionary.encode() == b"ts=0000018bcfe5687b\nnegative=-5\nid=0082915f5e\nyes=1\nno=0\nn=a\\eb\\\\c"
    again = Dictionary.decode(dictionary.encode())
    assert again.integer("ts") == 0x18BCFE5687B
    assert again.integer("negative") == 2**64 - 5
    assert again.integer("missing", 7) == 7
    assert again.boolean("yes")
    assert not again.boolean("no")
    assert again.boolean("missing", True)
    assert again.text("n") == "a=b\\c"
    assert again.text("missing", "none") == "none"


@pytest.mark.parametrize(
    ("text", "value"),
    [(b" ff", 255), (b"+ff", 255), (b"0xFF", 255), (b"0x", 0), (b"ffz", 255), (b"-", 0), (b"z", 0), (b"1" * 17, 2**64 - 1)],
)
def test_integers_are_read_as_strtoull_does(text: bytes, value: int) -> None:
    assert Dictionary(a=text).integer("a") == value


def test_text_that_is_not_utf8_survives() -> None:
    dictionary = Dictionary(n=b"\xff\xfe")
    dictionary.set_text("m", dictionary.text("n"))
    assert dictionary["m"] == b"\xff\xfe"


@given(st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="=\\")), st.binary()))
def test_round_trip(pairs: dict[str, bytes]) -> None:
    assert Dictionary.decode(Dictionary(pairs).encode()) == pairs


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing(data: bytes) -> None:
    dictionary = Dictionary.decode(data)
    for key in dictionary:
        dictionary.integer(key)
        dictionary.boolean(key)
        dictionary.text(key)
