"""The reader never leaves its data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError


def test_reads_big_endian_in_order() -> None:
    reader = Reader(bytes(range(1, 24)), offset=1)
    assert reader.u8() == 0x02
    assert reader.u16() == 0x0304
    assert reader.u32() == 0x05060708
    assert reader.u64() == 0x090A0B0C0D0E0F10
    assert reader.address() == 0x1112131415
    assert reader.bytes(1) == b"\x16"
    assert reader.remaining == 1
    assert reader.rest() == b"\x17"
    assert reader.remaining == 0
    assert reader.rest() == b""


READS: list[tuple[int, Callable[[Reader], object]]] = [
    (1, Reader.u8),
    (2, Reader.u16),
    (4, Reader.u32),
    (8, Reader.u64),
    (5, Reader.address),
    (7, lambda reader: reader.bytes(7)),
]


@pytest.mark.parametrize(("size", "read"), READS, ids=[str(size) for size, _ in READS])
@given(data=st.binary(max_size=9))
def test_short_reads_raise_and_leave_the_position(size: int, read: Callable[[Reader], object], data: bytes) -> None:
    reader = Reader(data)
    if len(data) >= size:
        read(reader)
        assert reader.remaining == len(data) - size
    else:
        with pytest.raises(DecodeError, match="cut short"):
            read(reader)
        assert reader.remaining == len(data)
