"""Identities against the golden vectors (vl1 §2.1, §2.2)."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import format_address
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, NetconError
from netcon.core.identity import Identity

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "identity.json").read_text())

#: Text that the reference takes and a careful implementation refuses, as the vectors' own notes say.
STRICTER = {"long_key", "private_of_other_node"}


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["address"])
def test_valid_identity_in_all_forms(case: dict[str, Any]) -> None:
    identity = Identity.parse(case["secret_string"])
    assert format_address(identity.address) == case["address"]
    assert identity.public.hex() == case["public_key"]
    assert identity.secret is not None
    assert identity.secret.hex() == case["private_key"]
    assert identity.to_text() == case["public_string"]
    assert identity.to_text(secret=True) == case["secret_string"]
    assert identity.encode().hex() == case["binary_public"]
    assert identity.encode(secret=True).hex() == case["binary_with_private"]
    assert identity.fingerprint().hex() == case["fingerprint_sha384"]
    assert identity.validate()
    assert Identity.parse(case["public_string"]) == identity


@pytest.mark.parametrize("case", VECTORS["text_cases"], ids=lambda case: case["name"])
def test_text_form(case: dict[str, Any]) -> None:
    if not case["parses"] or case["name"] in STRICTER:
        with pytest.raises(DecodeError):
            Identity.parse(case["string"])
        return
    identity = Identity.parse(case["string"])
    assert format_address(identity.address) == case["parsed_address"]
    assert (identity.secret is not None) == case["parsed_has_private"]
    assert identity.validate() == case["valid"]


@pytest.mark.parametrize("case", VECTORS["binary_cases"], ids=lambda case: case["name"])
def test_binary_form(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    if not case["parses"]:
        with pytest.raises(DecodeError):
            Identity.decode(reader)
        return
    identity = Identity.decode(reader)
    assert reader.offset == case["consumed"]
    assert identity.validate() == case["valid"]


@pytest.mark.parametrize("case", VECTORS["insufficient_work"], ids=lambda case: case["parsed_address"])
def test_too_little_work_does_not_validate(case: dict[str, Any]) -> None:
    assert not Identity.parse(case["string"]).validate()


def secret_identity(index: int = 0) -> Identity:
    return Identity.parse(VECTORS["valid"][index]["secret_string"])


def test_generated_identity_is_valid_and_repeatable() -> None:
    def random(length: int) -> bytes:
        return hashlib.shake_256(b"netcon test").digest(length)

    identity = Identity.generate(random)
    assert identity.validate()
    assert Identity.parse(identity.to_text(secret=True)) == identity
    assert Identity.generate(random).secret == identity.secret


def test_white_space_around_is_tolerated() -> None:
    assert Identity.parse(f" {secret_identity().to_text()}\r\n") == secret_identity()


def test_repr_never_shows_the_secret() -> None:
    identity = secret_identity()
    assert identity.secret is not None
    assert identity.secret.hex()[:8] not in repr(identity) + str(identity)
    assert repr(identity) == f"<Identity {format_address(identity.address)} with secret>"


def test_equality_ignores_the_secret_and_identities_are_immutable() -> None:
    identity = secret_identity()
    public = Identity(identity.address, identity.public)
    assert public == identity
    assert len({public, identity, secret_identity(1)}) == 2
    assert identity != "identity"
    with pytest.raises(AttributeError):
        identity.address = 1
    with pytest.raises(AttributeError):
        del identity.address


def test_signs_and_agrees() -> None:
    one, two = secret_identity(0), secret_identity(1)
    assert one.agree(Identity(two.address, two.public)) == two.agree(one)
    signature = one.sign(b"hello")
    assert Identity(one.address, one.public).verify(b"hello", signature)
    assert not two.verify(b"hello", signature)


def test_what_needs_the_secret_says_so() -> None:
    public = Identity.parse(VECTORS["valid"][0]["public_string"])
    for use in (lambda: public.sign(b""), lambda: public.agree(public), lambda: public.to_text(secret=True)):
        with pytest.raises(NetconError, match="secret"):
            use()


@given(st.text(max_size=400) | st.binary(max_size=300).map(lambda data: f"d1cf6d6c10:0:{data.hex()}"))
def test_arbitrary_text_raises_nothing_but_decode_error(text: str) -> None:
    with suppress(DecodeError):
        Identity.parse(text)


@given(st.binary(max_size=140))
def test_arbitrary_bytes_raise_nothing_but_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        Identity.decode(Reader(data))
