"""Identities: an address and the keys it was derived from (vl1 §2.1 to §2.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from netcon.core.address import format_address, is_reserved, parse_address
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, NetconError
from netcon.dataplane import crypto

#: A derivation counts only if the first byte of its digest is below this (vl1 §2.2).
_WORK_LIMIT = 17
_TEXT_LIMIT = 384


class Identity:
    """An address, the 64-byte public block and, for our own, the 64-byte secret block. Immutable.

    Equality and hash: address and public block. Parsing never checks that the address belongs to the key: `validate()` does.
    """

    __slots__ = ("address", "public", "secret")

    address: int
    public: bytes
    secret: bytes | None

    def __init__(self, address: int, public: bytes, secret: bytes | None = None) -> None:
        if len(public) != 64 or (secret is not None and len(secret) != 64):
            raise DecodeError("the key blocks of an identity have 64 bytes")
        object.__setattr__(self, "address", address)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "secret", secret)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"identities are immutable: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"identities are immutable: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return self.address == other.address and self.public == other.public

    def __hash__(self) -> int:
        return hash((self.address, self.public))

    def __repr__(self) -> str:
        return f"<Identity {format_address(self.address)}{' with secret' if self.secret else ''}>"

    # -- forms --

    @classmethod
    def parse(cls, text: str) -> Identity:
        """From `address:0:public[:secret]`. Refuses a secret that does not belong to the public block."""
        text = text.strip()
        fields = text.split(":")
        if len(text) > _TEXT_LIMIT or not 3 <= len(fields) <= 4:
            raise DecodeError("not an identity: want address:0:public or address:0:public:secret")
        if fields[1] != "0":
            raise DecodeError(f"unknown type of identity: {fields[1][:8]!r}")
        address = parse_address(fields[0])
        if is_reserved(address):
            raise DecodeError(f"reserved address in an identity: {fields[0]}")
        public = _parse_block(fields[2], "public")
        secret = None
        if len(fields) == 4:
            secret = _parse_block(fields[3], "secret")
            if crypto.public_from_secret(secret) != public:
                raise DecodeError(f"the secret of identity {fields[0]} does not belong to its public key; the file is damaged")
        return cls(address, public, secret)

    def to_text(self, secret: bool = False) -> str:
        text = f"{self.address:010x}:0:{self.public.hex()}"
        return f"{text}:{self._secret().hex()}" if secret else text

    @classmethod
    def decode(cls, reader: Reader) -> Identity:
        """The binary form, 71 or 135 bytes (vl1 §2.1)."""
        address = reader.address()
        kind = reader.u8()
        if kind != 0:
            raise DecodeError(f"unknown type of identity: {kind}")
        public = reader.bytes(64)
        length = reader.u8()
        if length not in (0, 64):
            raise DecodeError(f"the secret of an identity has 0 or 64 bytes, not {length}")
        return cls(address, public, reader.bytes(64) if length else None)

    def encode(self, secret: bool = False) -> bytes:
        parts = (self.address.to_bytes(5), b"\0", self.public)
        return b"".join((*parts, b"\x40", self._secret())) if secret else b"".join((*parts, b"\0"))

    # -- work --

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Identity:
        """A new identity with its secret, from `random(n)`. Takes up to a second."""
        address, public, secret = crypto.generate_identity(random(64))
        return cls(address, public, secret)

    def validate(self) -> bool:
        """The memory-hard check that the address was derived from the key (vl1 §2.2). 10 to 50 ms."""
        if is_reserved(self.address):
            return False
        digest = crypto.address_digest(self.public)
        return digest[0] < _WORK_LIMIT and int.from_bytes(digest[59:]) == self.address

    def sign(self, message: bytes) -> bytes:
        return crypto.sign(self._secret(), self.public, message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        return crypto.verify(self.public, message, signature)

    def agree(self, other: Identity) -> bytes:
        """The 48-byte key shared with `other`. `crypto.AuthenticationError` for a degenerate key (vl1 §2.3)."""
        return crypto.agree(self._secret(), other.public)

    def fingerprint(self) -> bytes:
        """48 bytes that membership certificates name an identity by (vl2 §3.2)."""
        return hashlib.sha384(self.address.to_bytes(5) + self.public).digest()

    def _secret(self) -> bytes:
        if self.secret is None:
            raise NetconError(f"the secret of {format_address(self.address)} is not known here; only its own node has it")
        return self.secret


def _parse_block(text: str, what: str) -> bytes:
    if len(text) != 128:
        raise DecodeError(f"the {what} key of an identity has 128 hexadecimal digits, not {len(text)}")
    try:
        block = bytes.fromhex(text)
    except ValueError:
        block = b""
    if len(block) != 64:
        raise DecodeError(f"the {what} key of an identity is not hexadecimal")
    return block
