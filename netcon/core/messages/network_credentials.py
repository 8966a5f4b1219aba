"""NETWORK_CREDENTIALS: certificates, capabilities, tags, revocations, ownership (vl2 §3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from netcon.core.buffer import Reader
from netcon.core.credentials import Capability, CertificateOfMembership, CertificateOfOwnership, Revocation, Tag
from netcon.core.packet import Verb

_LISTS = 4


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


_Credential = TypeVar("_Credential", Capability, Tag, Revocation, CertificateOfOwnership)


@dataclass(slots=True, frozen=True)
class NetworkCredentials:
    """`lists`: how many of the four lists are in the packet; old senders end early."""

    VERB: ClassVar[Verb] = Verb.NETWORK_CREDENTIALS

    memberships: tuple[CertificateOfMembership, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    ownerships: tuple[CertificateOfOwnership, ...] = ()
    lists: int = _LISTS

    @classmethod
    def decode(cls, body: bytes) -> NetworkCredentials:
        reader = Reader(body)
        memberships = []
        while body[reader.offset : reader.offset + 1] != b"\0":
            memberships.append(CertificateOfMembership.decode(reader))
        reader.u8()
        present = 0

        def read_list(kind: type[_Credential]) -> tuple[_Credential, ...]:
            nonlocal present
            if not reader.remaining:
                return ()
            present += 1
            return tuple(kind.decode(reader) for _ in range(reader.u16()))

        return cls(
            tuple(memberships),
            read_list(Capability),
            read_list(Tag),
            read_list(Revocation),
            read_list(CertificateOfOwnership),
            present,
        )

    def encode(self) -> bytes:
        parts = [membership.encode() for membership in self.memberships]
        parts.append(b"\0")
        lists: tuple[Sequence[_Encodable], ...] = (self.capabilities, self.tags, self.revocations, self.ownerships)
        for credentials in lists[: self.lists]:
            parts.append(len(credentials).to_bytes(2))
            parts.extend(credential.encode() for credential in credentials)
        return b"".join(parts)
