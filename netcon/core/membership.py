"""What we hold about the other members of a network, and the gate that frames must pass (vl2 §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple, TypeVar

from netcon.core.credentials import (
    Capability,
    CertificateOfMembership,
    CertificateOfOwnership,
    CredentialType,
    Revocation,
    Tag,
    owned_things,
)
from netcon.core.identity import Identity
from netcon.core.netconf import NetworkConfig
from netcon.core.path import NEVER
from netcon.core.rule_engine import CompiledRules, compile_capabilities

#: Credentials were not pushed to a member since the last config, or for this long: push before the next frame (vl2 §3.9), ms.
PUSH_MS = 500_000
#: On request of the member: at most this often, unless the config is newer (vl2 §3.9), ms.
PUSH_ON_REQUEST_MS = 1_000
#: Records per network. Only the controller's signature creates one (vl2 §9).
MAX_MEMBERS = 32_768
#: Tags, capabilities and ownership certificates kept per member, as many as a config may carry.
MAX_CREDENTIALS = 128

_Credential = Tag | Capability | CertificateOfOwnership
_Held = TypeVar("_Held", Tag, Capability, CertificateOfOwnership)


class Result(Enum):
    """What became of a credential."""

    NEW = "new"
    REDUNDANT = "redundant"
    REJECTED = "rejected"


class ValidCredentials(NamedTuple):
    """What counts now of a member's credentials, in the form in which the rules ask for it."""

    tags: dict[int, int]
    capabilities: tuple[CompiledRules, ...]
    ips: frozenset[bytes]
    macs: frozenset[bytes]


#: Of a node of which we hold nothing.
NO_CREDENTIALS = ValidCredentials({}, (), frozenset(), frozenset())


def valid_credentials(
    config: NetworkConfig,
    tags: Iterable[Tag],
    capabilities: Iterable[Capability],
    ownerships: Iterable[CertificateOfOwnership],
) -> ValidCredentials:
    """Those whose age the configuration allows (vl2 §3.7)."""

    def current(credential: _Credential) -> bool:
        return config.credential_current(credential.timestamp)

    ips, macs = owned_things(filter(current, ownerships))
    return ValidCredentials(
        {tag.id: tag.value for tag in tags if current(tag)},
        compile_capabilities(filter(current, capabilities), config.unknown_match),
        ips,
        macs,
    )


class Member:
    """Credentials of one member, and when we last sent it ours."""

    __slots__ = (
        "address",
        "capabilities",
        "com",
        "com_threshold",
        "gate_generation",
        "last_complaint",
        "last_like",
        "last_push",
        "ownerships",
        "permitted",
        "pushed_generation",
        "tags",
        "thresholds",
        "valid",
        "valid_generation",
    )

    def __init__(self, address: int) -> None:
        self.address = address
        self.com: CertificateOfMembership | None = None
        self.com_threshold = 0
        self.tags: dict[int, Tag] = {}
        self.capabilities: dict[int, Capability] = {}
        self.ownerships: dict[int, CertificateOfOwnership] = {}
        self.thresholds: dict[tuple[int, int], int] = {}
        self.permitted = False
        self.valid = NO_CREDENTIALS
        self.valid_generation = -1  # of `valid`
        self.gate_generation = -1  # of `permitted`
        self.last_push = NEVER
        self.pushed_generation = -1
        self.last_like = NEVER
        self.last_complaint = NEVER

    def push_due(self, generation: int, now: int) -> bool:
        """Whether our credentials go out before the next frame to this member."""
        return self.pushed_generation != generation or now - self.last_push >= PUSH_MS


class Members:
    """The member table of one network. `controller` is the one address whose signatures count."""

    def __init__(self, network: int, controller: int) -> None:
        self.network = network
        self.controller = controller
        self.by_address: dict[int, Member] = {}

    def record(self, address: int) -> Member:
        """The record of `address`, made if need be."""
        member = self.by_address.get(address)
        if member is None:
            if len(self.by_address) >= MAX_MEMBERS:
                self._make_room()
            member = self.by_address[address] = Member(address)
        return member

    def _make_room(self) -> None:
        # Without thresholds nothing is forgotten that cannot be learned again; a record with one keeps a revocation in force.
        victim = next((m for m in self.by_address.values() if not m.thresholds and not m.com_threshold), None)
        if victim is None:
            victim = next(iter(self.by_address.values()))
        del self.by_address[victim.address]

    # -- acceptance (vl2 §3.2, §3.7): cheap comparisons before signatures --

    def add_certificate(self, com: CertificateOfMembership, signer: Identity) -> Result:
        known = self.by_address.get(com.issued_to)
        if known is not None:
            if known.com == com:
                return Result.REDUNDANT
            if com.timestamp <= known.com_threshold or (known.com is not None and com.timestamp < known.com.timestamp):
                return Result.REJECTED
        if com.signer != self.controller or not com.verify(signer):
            return Result.REJECTED
        member = self.record(com.issued_to)
        member.com = com
        member.gate_generation = -1
        return Result.NEW

    def add_tag(self, tag: Tag, signer: Identity) -> Result:
        member = self.by_address.get(tag.issued_to)
        held: Mapping[int, _Credential] = {} if member is None else member.tags
        result = self._judge(member, CredentialType.TAG, tag, held)
        if result is None:
            if tag.signed_by != self.controller or not tag.verify(signer):
                return Result.REJECTED
            member = self.record(tag.issued_to)
            member.tags[tag.id] = tag
            member.valid_generation = -1
            return Result.NEW
        return result

    def add_ownership(self, ownership: CertificateOfOwnership, signer: Identity) -> Result:
        member = self.by_address.get(ownership.issued_to)
        held: Mapping[int, _Credential] = {} if member is None else member.ownerships
        result = self._judge(member, CredentialType.OWNERSHIP, ownership, held)
        if result is None:
            if ownership.signed_by != self.controller or not ownership.verify(signer):
                return Result.REJECTED
            member = self.record(ownership.issued_to)
            member.ownerships[ownership.id] = ownership
            member.valid_generation = -1
            return Result.NEW
        return result

    def add_capability(self, capability: Capability, identity_of: Callable[[int], Identity | None]) -> Result:
        """`identity_of`: the identities of the custody chain, as far as they are known."""
        holder = capability.issued_to
        member = self.by_address.get(holder)
        held: Mapping[int, _Credential] = {} if member is None else member.capabilities
        result = self._judge(member, CredentialType.CAPABILITY, capability, held)
        if result is None:
            if not capability.verify(identity_of):
                return Result.REJECTED
            member = self.record(holder)
            member.capabilities[capability.id] = capability
            member.valid_generation = -1
            return Result.NEW
        return result

    def _judge(
        self, member: Member | None, kind: CredentialType, credential: _Credential, held: Mapping[int, _Credential]
    ) -> Result | None:
        """The comparisons with what we hold; None means: look at the signature."""
        if member is None:
            return None
        known = held.get(credential.id)
        if known == credential:
            return Result.REDUNDANT
        if known is not None and known.timestamp > credential.timestamp:
            return Result.REJECTED
        if known is None and len(held) >= MAX_CREDENTIALS:
            return Result.REJECTED
        if member.thresholds.get((kind, credential.id), -1) >= credential.timestamp:
            return Result.REJECTED
        return None

    def add_revocation(self, revocation: Revocation, signer: Identity) -> Result:
        """Raise a threshold (vl2 §3.6). Revoking a tag does not lock the member out, as it does in the reference."""
        known = self.by_address.get(revocation.target)
        kind = revocation.credential_type
        key = (kind, revocation.credential_id)
        if kind == CredentialType.MEMBERSHIP:
            if known is not None and revocation.threshold <= known.com_threshold:
                return Result.REDUNDANT
        elif kind in (CredentialType.TAG, CredentialType.CAPABILITY, CredentialType.OWNERSHIP):
            if known is not None and revocation.threshold <= known.thresholds.get(key, -1):
                return Result.REDUNDANT
        else:
            return Result.REJECTED
        if revocation.signed_by != self.controller or not revocation.verify(signer):
            return Result.REJECTED
        member = self.record(revocation.target)
        if kind == CredentialType.MEMBERSHIP:
            member.com_threshold = revocation.threshold
            member.gate_generation = -1
        else:
            member.thresholds[key] = revocation.threshold
            member.valid_generation = -1
        return Result.NEW

    # -- use --

    def valid(self, address: int, config: NetworkConfig, generation: int) -> ValidCredentials:
        """What counts now of the credentials of `address`; kept until a credential or our config changes."""
        member = self.by_address.get(address)
        if member is None:
            return NO_CREDENTIALS
        if member.valid_generation != generation:
            thresholds = member.thresholds

            def in_force(kind: CredentialType, held: Iterable[_Held]) -> list[_Held]:
                return [c for c in held if c.timestamp > thresholds.get((kind, c.id), -1)]

            member.valid = valid_credentials(
                config,
                in_force(CredentialType.TAG, member.tags.values()),
                in_force(CredentialType.CAPABILITY, member.capabilities.values()),
                in_force(CredentialType.OWNERSHIP, member.ownerships.values()),
            )
            member.valid_generation = generation
        return member.valid

    def permitted(self, member: Member, own: CertificateOfMembership | None, identity: Identity, generation: int) -> bool:
        """The gate of a private network (vl2 §3.8); the verdict is kept until a certificate, threshold or our config changes."""
        if member.gate_generation == generation:
            return member.permitted
        com = member.com
        member.permitted = (
            own is not None and com is not None and com.timestamp > member.com_threshold and own.agrees_with(com, identity)
        )
        member.gate_generation = generation
        return member.permitted
