"""Credentials that a network's controller signs: membership, tags, capabilities, ownership, revocations (vl2 §3).

All are immutable; `sign` returns a signed copy. `decode` reads from a `Reader`, since credentials lie back to back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from struct import Struct
from typing import ClassVar, NamedTuple

from netcon.core.address import controller_of
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.rules import MAX_CAPABILITY_RULES, Rule, encode_rules

MAX_QUALIFIERS = 8
MAX_THINGS = 16
MAX_CUSTODY_CHAIN = 7

#: Frames the signed bytes; never on the wire (vl2 §3.1).
_FRAME = b"\x7f" * 8
_SIGNATURE_HEAD = b"\x01\x00\x60"
_SIGNATURE_LENGTH = 96
#: Length of additional fields, which end each credential but membership: none.
_NO_MORE = b"\0\0"


class CredentialType(IntEnum):
    """vl2 §3.1"""

    MEMBERSHIP = 1
    CAPABILITY = 2
    TAG = 3
    OWNERSHIP = 4
    REVOCATION = 6


def _read_signature(reader: Reader) -> bytes:
    """A signature block. Of a type that we do not know: empty, which never verifies."""
    kind, length = reader.u8(), reader.u16()
    if kind != 1:
        reader.bytes(length)
        return b""
    if length != _SIGNATURE_LENGTH:
        raise DecodeError(f"a signature has {_SIGNATURE_LENGTH} bytes, not {length}")
    return reader.bytes(length)


def _signature_block(signature: bytes) -> bytes:
    return _SIGNATURE_HEAD + signature if signature else b"\0\0\0"


def _framed(fields: bytes) -> bytes:
    return b"".join((_FRAME, fields, _NO_MORE, _FRAME))


def _skip_additional(reader: Reader) -> None:
    reader.bytes(reader.u16())


def _by_controller(network: int, signer: int, controller: Identity, message: bytes, signature: bytes) -> bool:
    return signer == controller.address == controller_of(network) and controller.verify(message, signature)


# -- membership (vl2 §3.2) --

_QUALIFIER = Struct(">QQQ")
_NO_LIMIT = 0xFFFFFFFFFFFFFFFF
_ID_TIMESTAMP, _ID_NETWORK, _ID_MEMBER, _ID_FINGERPRINT = 0, 1, 2, 3
_FINGERPRINT_WORDS = 4


class Qualifier(NamedTuple):
    id: int
    value: int
    max_delta: int


def _fingerprint_words(identity: Identity) -> tuple[int, ...]:
    fingerprint = identity.fingerprint()
    return tuple(int.from_bytes(fingerprint[8 * i : 8 * i + 8]) for i in range(_FINGERPRINT_WORDS))


@dataclass(slots=True, frozen=True)
class CertificateOfMembership:
    """Says that a node is a member of a network, as of a time. `signer` 0: unsigned."""

    qualifiers: tuple[Qualifier, ...]
    signer: int = 0
    signature: bytes = b""

    @classmethod
    def issue(cls, network: int, member: Identity, timestamp: int, window: int, controller: Identity) -> CertificateOfMembership:
        """As controllers since 1.6.6 make it: seven qualifiers. `window`: milliseconds that two members may differ by."""
        qualifiers = (
            Qualifier(_ID_TIMESTAMP, timestamp, window),
            Qualifier(_ID_NETWORK, network, 0),
            Qualifier(_ID_MEMBER, member.address, _NO_LIMIT),
            *(Qualifier(_ID_FINGERPRINT + i, word, _NO_LIMIT) for i, word in enumerate(_fingerprint_words(member))),
        )
        return cls(qualifiers).sign(controller)

    @classmethod
    def decode(cls, reader: Reader) -> CertificateOfMembership:
        version = reader.u8()
        if version != 1:
            raise DecodeError(f"unknown version of a membership certificate: {version}")
        count = reader.u16()
        if count > MAX_QUALIFIERS:
            raise DecodeError(f"a membership certificate has at most {MAX_QUALIFIERS} qualifiers, not {count}")
        qualifiers = tuple(map(Qualifier._make, _QUALIFIER.iter_unpack(reader.bytes(24 * count))))
        if any(before.id > after.id for before, after in pairwise(qualifiers)):
            raise DecodeError("the qualifiers of a membership certificate are not in order")
        signer = reader.address()
        return cls(qualifiers, signer, reader.bytes(_SIGNATURE_LENGTH) if signer else b"")

    def encode(self) -> bytes:
        head = b"\x01" + len(self.qualifiers).to_bytes(2)
        return b"".join((head, self.signed_bytes(), self.signer.to_bytes(5), self.signature))

    def signed_bytes(self) -> bytes:
        return b"".join(_QUALIFIER.pack(*qualifier) for qualifier in self.qualifiers)

    def sign(self, controller: Identity) -> CertificateOfMembership:
        return replace(self, signer=controller.address, signature=controller.sign(self.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        """Whether the controller of the network it names signed it."""
        return _by_controller(self.network, self.signer, controller, self.signed_bytes(), self.signature)

    def _value(self, qualifier_id: int) -> int:
        return next((qualifier.value for qualifier in self.qualifiers if qualifier.id == qualifier_id), 0)

    @property
    def timestamp(self) -> int:
        return self._value(_ID_TIMESTAMP)

    @property
    def network(self) -> int:
        return self._value(_ID_NETWORK)

    @property
    def issued_to(self) -> int:
        return self._value(_ID_MEMBER)

    def agrees_with(self, theirs: CertificateOfMembership, their_identity: Identity) -> bool:
        """Whether a peer's certificate agrees with this one of ours: by our deltas only (vl2 §3.2). Checks no signature."""
        if not self.qualifiers or not theirs.qualifiers:
            return False
        their_values: dict[int, int] = {}
        for qualifier in theirs.qualifiers:
            their_values.setdefault(qualifier.id, qualifier.value)
        names_key = False
        for qualifier_id, value, max_delta in self.qualifiers:
            other = their_values.get(qualifier_id)
            if other is None or abs(value - other) > max_delta:
                return False
            names_key |= _ID_FINGERPRINT <= qualifier_id < _ID_FINGERPRINT + _FINGERPRINT_WORDS
        if not names_key:
            return True
        words = _fingerprint_words(their_identity)
        return all(their_values.get(_ID_FINGERPRINT + i) == word for i, word in enumerate(words))


# -- tags (vl2 §3.4) --

_TAG = Struct(">QQII")


@dataclass(slots=True, frozen=True)
class Tag:
    network: int
    timestamp: int
    id: int
    value: int
    issued_to: int
    signed_by: int = 0
    signature: bytes = b""

    @classmethod
    def decode(cls, reader: Reader) -> Tag:
        network, timestamp, tag_id, value = _TAG.unpack(reader.bytes(24))
        tag = cls(network, timestamp, tag_id, value, reader.address(), reader.address(), _read_signature(reader))
        _skip_additional(reader)
        return tag

    def _fields(self) -> bytes:
        numbers = _TAG.pack(self.network, self.timestamp, self.id, self.value)
        return b"".join((numbers, self.issued_to.to_bytes(5), self.signed_by.to_bytes(5)))

    def encode(self) -> bytes:
        return b"".join((self._fields(), _signature_block(self.signature), _NO_MORE))

    def signed_bytes(self) -> bytes:
        return _framed(self._fields())

    def sign(self, controller: Identity) -> Tag:
        named = replace(self, signed_by=controller.address)
        return replace(named, signature=controller.sign(named.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        return _by_controller(self.network, self.signed_by, controller, self.signed_bytes(), self.signature)


# -- capabilities (vl2 §3.5) --

_CAPABILITY = Struct(">QQIH")


class Custody(NamedTuple):
    """One link of the chain: `giver` handed the capability to `receiver`."""

    receiver: int
    giver: int
    signature: bytes


@dataclass(slots=True, frozen=True)
class Capability:
    """Rules that apply to what its holder sends when the network's rules decided nothing."""

    network: int
    timestamp: int
    id: int
    rules: tuple[Rule, ...]
    max_chain: int = 1
    chain: tuple[Custody, ...] = ()

    @classmethod
    def decode(cls, reader: Reader) -> Capability:
        network, timestamp, capability_id, count = _CAPABILITY.unpack(reader.bytes(22))
        if count > MAX_CAPABILITY_RULES:
            raise DecodeError(f"a capability has at most {MAX_CAPABILITY_RULES} rules, not {count}")
        rules = tuple(Rule.decode(reader) for _ in range(count))
        max_chain = reader.u8()
        if not 1 <= max_chain <= MAX_CUSTODY_CHAIN:
            raise DecodeError(f"a custody chain of at most {max_chain} links")
        chain: list[Custody] = []
        while receiver := reader.address():
            if len(chain) == max_chain:
                raise DecodeError(f"a custody chain longer than the {max_chain} links it may have")
            chain.append(Custody(receiver, reader.address(), _read_signature(reader)))
        _skip_additional(reader)
        return cls(network, timestamp, capability_id, rules, max_chain, tuple(chain))

    def _fields(self) -> bytes:
        head = _CAPABILITY.pack(self.network, self.timestamp, self.id, len(self.rules))
        return b"".join((head, encode_rules(self.rules), self.max_chain.to_bytes(1)))

    def encode(self) -> bytes:
        parts = [self._fields()]
        for receiver, giver, signature in self.chain:
            parts += (receiver.to_bytes(5), giver.to_bytes(5), _signature_block(signature))
        return b"".join((*parts, bytes(5), _NO_MORE))

    def signed_bytes(self) -> bytes:
        """The same for each link: who gave to whom is not covered."""
        return _framed(self._fields())

    def sign(self, giver: Identity, receiver: int) -> Capability:
        """With one more link: the controller gives it to a member, or its holder hands it on."""
        return replace(self, chain=(*self.chain, Custody(receiver, giver.address, giver.sign(self.signed_bytes()))))

    @property
    def holder(self) -> int:
        """The last receiver; 0 without a chain."""
        return self.chain[-1].receiver if self.chain else 0

    @property
    def issued_to(self) -> int:
        return self.holder

    def verify(self, identity_of: Callable[[int], Identity | None]) -> bool:
        """Whether the chain leads from the controller to the holder without a gap. False if a signer's identity is not known."""
        if not self.chain:
            return False
        message = self.signed_bytes()
        expected = controller_of(self.network)
        for receiver, giver, signature in self.chain:
            identity = identity_of(giver) if giver == expected else None
            if identity is None or not identity.verify(message, signature):
                return False
            expected = receiver
        return True


# -- ownership (vl2 §3.3) --

_OWNERSHIP = Struct(">QQQIH")


class ThingType(IntEnum):
    MAC = 1
    IPV4 = 2
    IPV6 = 3


class Thing(NamedTuple):
    """What is owned: type and value, zero padded to 16 bytes."""

    type: int
    value: bytes

    @classmethod
    def ip(cls, ip: bytes) -> Thing:
        return cls(ThingType.IPV4 if len(ip) == 4 else ThingType.IPV6, ip.ljust(16, b"\0"))

    @classmethod
    def mac(cls, mac: bytes) -> Thing:
        return cls(ThingType.MAC, mac.ljust(16, b"\0"))


_THING_SIZES = {ThingType.MAC: 6, ThingType.IPV4: 4, ThingType.IPV6: 16}


@dataclass(slots=True, frozen=True)
class CertificateOfOwnership:
    """Says that a member may use some addresses as its own."""

    network: int
    timestamp: int
    flags: int
    id: int
    things: tuple[Thing, ...]
    issued_to: int
    signed_by: int = 0
    signature: bytes = b""

    @classmethod
    def decode(cls, reader: Reader) -> CertificateOfOwnership:
        network, timestamp, flags, certificate_id, count = _OWNERSHIP.unpack(reader.bytes(30))
        if count > MAX_THINGS:
            raise DecodeError(f"a certificate of ownership covers at most {MAX_THINGS} things, not {count}")
        things = tuple(Thing(reader.u8(), reader.bytes(16)) for _ in range(count))
        issued_to, signed_by = reader.address(), reader.address()
        certificate = cls(network, timestamp, flags, certificate_id, things, issued_to, signed_by, _read_signature(reader))
        _skip_additional(reader)
        return certificate

    def _fields(self) -> bytes:
        head = _OWNERSHIP.pack(self.network, self.timestamp, self.flags, self.id, len(self.things))
        things = b"".join(thing.type.to_bytes(1) + thing.value for thing in self.things)
        return b"".join((head, things, self.issued_to.to_bytes(5), self.signed_by.to_bytes(5)))

    def encode(self) -> bytes:
        return b"".join((self._fields(), _signature_block(self.signature), _NO_MORE))

    def signed_bytes(self) -> bytes:
        return _framed(self._fields())

    def sign(self, controller: Identity) -> CertificateOfOwnership:
        named = replace(self, signed_by=controller.address)
        return replace(named, signature=controller.sign(named.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        return _by_controller(self.network, self.signed_by, controller, self.signed_bytes(), self.signature)

    def _owns(self, kind: ThingType, value: bytes) -> bool:
        size = _THING_SIZES[kind]
        return any(thing.type == kind and thing.value[:size] == value for thing in self.things)

    def owns_ip(self, ip: bytes) -> bool:
        return self._owns(ThingType.IPV4 if len(ip) == 4 else ThingType.IPV6, ip)

    def owns_mac(self, mac: bytes) -> bool:
        return self._owns(ThingType.MAC, mac)


def owned_things(certificates: Iterable[CertificateOfOwnership]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """(IPs, MACs) of several certificates, for `rule_engine`."""
    ips: set[bytes] = set()
    macs: set[bytes] = set()
    for certificate in certificates:
        for kind, value in certificate.things:
            if kind == ThingType.MAC:
                macs.add(value[:6])
            elif kind in (ThingType.IPV4, ThingType.IPV6):
                ips.add(value[:4] if kind == ThingType.IPV4 else value)
    return frozenset(ips), frozenset(macs)


# -- revocations (vl2 §3.6) --

_REVOCATION = Struct(">4xIQ4xIQQ")


@dataclass(slots=True, frozen=True)
class Revocation:
    """Credentials of `target` of one type (and id) with a timestamp up to `threshold` count no more."""

    FAST_PROPAGATE: ClassVar[int] = 0x01

    id: int
    network: int
    credential_id: int
    threshold: int
    flags: int
    target: int
    credential_type: int
    signed_by: int = 0
    signature: bytes = b""

    @classmethod
    def decode(cls, reader: Reader) -> Revocation:
        revocation_id, network, credential_id, threshold, flags = _REVOCATION.unpack(reader.bytes(40))
        target, signed_by, kind = reader.address(), reader.address(), reader.u8()
        signature = _read_signature(reader)
        _skip_additional(reader)
        return cls(revocation_id, network, credential_id, threshold, flags, target, kind, signed_by, signature)

    def _fields(self) -> bytes:
        numbers = _REVOCATION.pack(self.id, self.network, self.credential_id, self.threshold, self.flags)
        return b"".join((numbers, self.target.to_bytes(5), self.signed_by.to_bytes(5), self.credential_type.to_bytes(1)))

    def encode(self) -> bytes:
        return b"".join((self._fields(), _signature_block(self.signature), _NO_MORE))

    def signed_bytes(self) -> bytes:
        return _framed(self._fields())

    def sign(self, controller: Identity) -> Revocation:
        named = replace(self, signed_by=controller.address)
        return replace(named, signature=controller.sign(named.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        return _by_controller(self.network, self.signed_by, controller, self.signed_bytes(), self.signature)

    @property
    def fast_propagate(self) -> bool:
        return bool(self.flags & self.FAST_PROPAGATE)
