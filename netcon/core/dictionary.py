"""Dictionaries: `key=value` lines with escapes, in configurations, requests and traces (vl2 §2.1)."""

from __future__ import annotations

import re

_ESCAPE = {0x00: b"\\0", 0x0A: b"\\n", 0x0D: b"\\r", 0x3D: b"\\e", 0x5C: b"\\\\"}
_UNESCAPE = {b"0": b"\0", b"n": b"\n", b"r": b"\r", b"e": b"="}
_SPECIAL = re.compile(rb"[\0\n\r=\\]")
_ESCAPED = re.compile(rb"\\(.?)", re.DOTALL)
_LINE_END = re.compile(rb"[\r\n]")
_HEX = re.compile(rb"\s*(-?)\+?(?:0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]+)")
_MAX_U64 = 0xFFFFFFFFFFFFFFFF


def _escape(match: re.Match[bytes]) -> bytes:
    return _ESCAPE[match[0][0]]


def _unescape(match: re.Match[bytes]) -> bytes:
    return _UNESCAPE.get(match[1], match[1])  # an unknown escape stands for its character, a lone one at the end for nothing


class Dictionary(dict[str, bytes]):
    """Keys to raw values, in the order of the wire. Typed access never fails: what cannot be read is the default."""

    @classmethod
    def decode(cls, data: bytes) -> Dictionary:
        """Never fails: lines without `=` are skipped, the first of equal keys counts, NUL ends it."""
        end = data.find(b"\0")
        result = cls()
        for line in _LINE_END.split(data if end < 0 else data[:end]):
            key, equals, value = line.partition(b"=")
            if equals:
                result.setdefault(key.decode("latin-1"), _ESCAPED.sub(_unescape, value) if b"\\" in value else value)
        return result

    def encode(self) -> bytes:
        return b"\n".join(key.encode("latin-1") + b"=" + _SPECIAL.sub(_escape, value) for key, value in self.items())

    def integer(self, key: str, default: int = 0) -> int:
        """An unsigned 64-bit number from hexadecimal text, read as C's strtoull does; `default` if missing or empty."""
        value = self.get(key)
        if not value:
            return default
        match = _HEX.match(value)
        if match is None:
            return 0
        number = int(match[2], 16)
        if number > _MAX_U64:
            return _MAX_U64
        return -number & _MAX_U64 if match[1] else number

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        return value[:1] in (b"1", b"t", b"T") if value else default

    def text(self, key: str, default: str = "") -> str:
        """UTF-8; bytes that are not survive `set_text(key, text(key))`."""
        value = self.get(key)
        return default if value is None else value.decode("utf-8", "surrogateescape")

    def set_integer(self, key: str, value: int) -> None:
        self[key] = b"%016x" % value if value >= 0 else b"-%x" % -value

    def set_address(self, key: str, address: int) -> None:
        self[key] = b"%010x" % address

    def set_boolean(self, key: str, value: bool) -> None:
        self[key] = b"1" if value else b"0"

    def set_text(self, key: str, value: str) -> None:
        self[key] = value.encode("utf-8", "surrogateescape")
