"""What a controller signs: membership, ownership, tags, capabilities and revocations (vl2 §3, §7.4).

All certificates of one configuration carry the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netcon.core.credentials import (
    MAX_THINGS,
    Capability,
    CertificateOfMembership,
    CertificateOfOwnership,
    CredentialType,
    Revocation,
    Tag,
    Thing,
)
from netcon.core.identity import Identity
from netcon.core.rules import MAX_CAPABILITY_RULES, Rule


class Issuer:
    """Signs as the controller `identity`."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def membership(self, network: int, member: Identity, timestamp: int, window: int) -> CertificateOfMembership:
        """Seven qualifiers, so that it names the member's key and not just its address."""
        return CertificateOfMembership.issue(network, member, timestamp, window, self._identity)

    def ownerships(self, network: int, member: int, ips: Sequence[bytes], timestamp: int) -> tuple[CertificateOfOwnership, ...]:
        """One certificate with id 1, as real controllers issue it; more only if the addresses do not fit."""
        parts = [ips[first : first + MAX_THINGS] for first in range(0, len(ips), MAX_THINGS)]
        return tuple(
            CertificateOfOwnership(network, timestamp, 0, number, tuple(map(Thing.ip, part)), member).sign(self._identity)
            for number, part in enumerate(parts, 1)
        )

    def tags(self, network: int, member: int, values: Iterable[tuple[int, int]], timestamp: int) -> tuple[Tag, ...]:
        return tuple(Tag(network, timestamp, number, value, member).sign(self._identity) for number, value in values)

    def capability(self, network: int, member: int, number: int, rules: Sequence[Rule], timestamp: int) -> Capability:
        """A custody chain of one link, to the member."""
        capability = Capability(network, timestamp, number, tuple(rules[:MAX_CAPABILITY_RULES]))
        return capability.sign(self._identity, member)

    def revoke_membership(self, network: int, member: int, number: int, threshold: int) -> bytes:
        """Ends every membership certificate of `member` issued up to `threshold`; members hand it on (vl2 §7.5)."""
        revocation = Revocation(
            id=number,
            network=network,
            credential_id=0,
            threshold=threshold,
            flags=Revocation.FAST_PROPAGATE,
            target=member,
            credential_type=CredentialType.MEMBERSHIP,
        )
        return revocation.sign(self._identity).encode()
