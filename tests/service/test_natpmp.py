"""NAT-PMP messages, and gateways that lie (RFC 6886)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.service.natpmp import ExternalAddress, MappedPort, Refused, ask_address, ask_mapping, read_answer


def test_requests_are_as_the_rfc_has_them() -> None:
    assert ask_address() == b"\x00\x00"
    assert ask_mapping(0x1234, 0x5678, 7200) == b"\x00\x01\x00\x00\x12\x34\x56\x78\x00\x00\x1c\x20"
    assert ask_mapping(0x1234, 0, 0) == b"\x00\x01\x00\x00\x12\x34\x00\x00\x00\x00\x00\x00"


def test_answers_are_understood() -> None:
    assert read_answer(b"\x00\x80\x00\x00\x00\x00\x00\x07\x2c\x07\x00\x01") == ExternalAddress(bytes((44, 7, 0, 1)))
    answer = b"\x00\x81\x00\x00\x00\x00\x00\x07\x12\x34\x56\x78\x00\x00\x1c\x20"
    assert read_answer(answer) == MappedPort(0x1234, 0x5678, 7200)


@pytest.mark.parametrize(
    ("result", "says"), [(1, "version"), (2, "not authorised"), (3, "no network"), (4, "resources"), (5, "operation"), (77, "77")]
)
def test_a_refusal_says_why(result: int, says: str) -> None:
    with pytest.raises(Refused, match=says):
        read_answer(struct.pack(">BBHI", 0, 129, result, 7))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x80",
        b"\x00\x00\x00\x00\x00\x00\x00\x07\x2c\x07\x00\x01",  # a request
        b"\x02\x80\x00\x00\x00\x00\x00\x07\x2c\x07\x00\x01",  # another version
        b"\x00\x82\x00\x00\x00\x00\x00\x07\x12\x34\x56\x78\x00\x00\x1c\x20",  # of TCP, which nobody asked for
        b"\x00\x80\x00\x00\x00\x00\x00\x07\x2c\x07\x00",
        b"\x00\x81\x00\x00\x00\x00\x00\x07\x12\x34\x56\x78\x00\x00\x1c\x20\x00",
    ],
)
def test_what_is_no_answer_is_none(data: bytes) -> None:
    assert read_answer(data) is None


@given(
    st.one_of(
        st.binary(max_size=64), st.builds(lambda a, b: bytes((0, a)) + b, st.sampled_from((128, 129)), st.binary(max_size=20))
    )
)
def test_whatever_comes_is_an_answer_a_refusal_or_nothing(data: bytes) -> None:
    try:
        answer = read_answer(data)
    except Refused:
        return
    match answer:
        case ExternalAddress(ip):
            assert len(ip) == 4
        case MappedPort(internal, external, lifetime):
            assert 0 <= internal < 1 << 16
            assert 0 <= external < 1 << 16
            assert 0 <= lifetime < 1 << 32
        case _:
            assert answer is None
