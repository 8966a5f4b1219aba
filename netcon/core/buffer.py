"""A bounds-checked reader. Nothing is ever read past the end: `DecodeError` instead (vl1 §4.1, rule 7)."""

from __future__ import annotations

from struct import Struct, error

from netcon.core.errors import DecodeError

_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_U64 = Struct(">Q").unpack_from

# `Reader.bytes` hides the type of that name inside the class.
Octets = bytes


class Reader:
    """Reads big-endian integers and byte strings from `data`, from `offset` on."""

    __slots__ = ("data", "end", "offset")

    def __init__(self, data: Octets, offset: int = 0) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data)

    @property
    def remaining(self) -> int:
        return self.end - self.offset

    def u8(self) -> int:
        offset = self.offset
        try:
            value = self.data[offset]
        except IndexError:
            raise self._short(1) from None
        self.offset = offset + 1
        return value

    def u16(self) -> int:
        try:
            value: int = _U16(self.data, self.offset)[0]
        except error:
            raise self._short(2) from None
        self.offset += 2
        return value

    def u32(self) -> int:
        try:
            value: int = _U32(self.data, self.offset)[0]
        except error:
            raise self._short(4) from None
        self.offset += 4
        return value

    def u64(self) -> int:
        try:
            value: int = _U64(self.data, self.offset)[0]
        except error:
            raise self._short(8) from None
        self.offset += 8
        return value

    def address(self) -> int:
        """A node address, 5 bytes."""
        return int.from_bytes(self.bytes(5))

    def bytes(self, length: int) -> Octets:
        offset = self.offset
        after = offset + length
        if after > self.end:
            raise self._short(length)
        self.offset = after
        return self.data[offset:after]

    def rest(self) -> Octets:
        """Everything that is left."""
        offset = self.offset
        self.offset = self.end
        return self.data[offset:]

    def _short(self, wanted: int) -> DecodeError:
        return DecodeError(f"cut short: {wanted} bytes wanted at offset {self.offset}, {self.remaining} left")
