"""What is held about other members: acceptance, revocation, age, the gate (vl2 §3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netcon.core.credentials import (
    Capability,
    CertificateOfMembership,
    CertificateOfOwnership,
    CredentialType,
    Revocation,
    Tag,
    Thing,
)
from netcon.core.identity import Identity
from netcon.core.membership import PUSH_MS, Members, Result
from netcon.core.netconf import NetworkConfig
from netcon.core.rules import decode_rules
from tests.simulator import IDENTITIES

CONTROLLER, US, PEER, OTHER = IDENTITIES[1], IDENTITIES[2], IDENTITIES[3], IDENTITIES[4]
NETWORK = CONTROLLER.address << 24 | 1
NOW = 1_700_000_000_000
WINDOW = 1_800_000
CONFIG = NetworkConfig(NETWORK, US.address, NOW, WINDOW)


def com(member: object = PEER, timestamp: int = NOW) -> CertificateOfMembership:
    return CertificateOfMembership.issue(NETWORK, member, timestamp, WINDOW, CONTROLLER)  # type: ignore[arg-type]


def members() -> Members:
    return Members(NETWORK, CONTROLLER.address)


def revocation(kind: CredentialType, threshold: int, credential_id: int = 0) -> Revocation:
    return Revocation(1, NETWORK, credential_id, threshold, 0, PEER.address, kind).sign(CONTROLLER)


def gate(table: Members, own: CertificateOfMembership | None = None, generation: int = 1) -> bool:
    return table.permitted(table.record(PEER.address), own or com(US), PEER, generation)


def test_a_certificate_opens_the_gate_and_is_redundant_the_second_time() -> None:
    table = members()
    assert not gate(table)
    assert table.add_certificate(com(), CONTROLLER) is Result.NEW
    assert gate(table)
    assert table.add_certificate(com(), CONTROLLER) is Result.REDUNDANT


def test_only_the_controllers_signature_counts() -> None:
    table = members()
    forged = CertificateOfMembership.issue(NETWORK, PEER, NOW, WINDOW, OTHER)
    assert table.add_certificate(forged, CONTROLLER) is Result.REJECTED
    assert table.add_certificate(replace(forged, signer=CONTROLLER.address), CONTROLLER) is Result.REJECTED
    assert not table.by_address


def test_an_older_certificate_does_not_replace_a_newer_one() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    assert table.add_certificate(com(timestamp=NOW - 1), CONTROLLER) is Result.REJECTED
    assert table.add_certificate(com(timestamp=NOW + 1), CONTROLLER) is Result.NEW


def test_certificates_too_far_apart_do_not_agree() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    assert gate(table, com(US, NOW + WINDOW), 1)
    assert not gate(table, com(US, NOW + WINDOW + 1), 2)


def test_a_certificate_of_another_key_does_not_fit() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    assert not table.permitted(table.record(PEER.address), com(US), OTHER, 1)


def test_revocation_shuts_the_gate_until_a_newer_certificate() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    assert gate(table)
    assert table.add_revocation(revocation(CredentialType.MEMBERSHIP, NOW), CONTROLLER) is Result.NEW
    assert not gate(table)
    assert table.add_revocation(revocation(CredentialType.MEMBERSHIP, NOW), CONTROLLER) is Result.REDUNDANT
    assert table.add_certificate(com(timestamp=NOW - 5), CONTROLLER) is Result.REJECTED
    assert table.add_certificate(com(timestamp=NOW + 1), CONTROLLER) is Result.NEW
    assert gate(table)


def test_a_forged_revocation_is_refused() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    forged = Revocation(1, NETWORK, 0, NOW, 0, PEER.address, CredentialType.MEMBERSHIP).sign(OTHER)
    assert table.add_revocation(forged, CONTROLLER) is Result.REJECTED
    assert table.add_revocation(revocation(CredentialType.REVOCATION, NOW), CONTROLLER) is Result.REJECTED
    assert gate(table)


def test_revoking_a_tag_does_not_lock_the_member_out() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    tag = Tag(NETWORK, NOW, 7, 42, PEER.address).sign(CONTROLLER)
    assert table.add_tag(tag, CONTROLLER) is Result.NEW
    assert table.valid(PEER.address, CONFIG, 1).tags == {7: 42}
    assert table.add_revocation(revocation(CredentialType.TAG, NOW, 7), CONTROLLER) is Result.NEW
    assert table.valid(PEER.address, CONFIG, 1).tags == {}
    assert table.add_tag(tag, CONTROLLER) is Result.REDUNDANT
    assert table.add_tag(Tag(NETWORK, NOW - 1, 7, 9, PEER.address).sign(CONTROLLER), CONTROLLER) is Result.REJECTED
    assert table.add_tag(Tag(NETWORK, NOW + 1, 7, 43, PEER.address).sign(CONTROLLER), CONTROLLER) is Result.NEW
    assert table.valid(PEER.address, CONFIG, 1).tags == {7: 43}
    assert gate(table)


@pytest.mark.parametrize(("age", "counts"), [(0, True), (WINDOW, True), (WINDOW + 1, False), (-WINDOW - 1, False)])
def test_credentials_count_only_within_the_window_of_our_config(age: int, counts: bool) -> None:
    table = members()
    at = NOW - age
    table.add_tag(Tag(NETWORK, at, 7, 42, PEER.address).sign(CONTROLLER), CONTROLLER)
    ownership = CertificateOfOwnership(NETWORK, at, 0, 1, (Thing.ip(b"\x0a\x01\x02\x03"),), PEER.address).sign(CONTROLLER)
    assert table.add_ownership(ownership, CONTROLLER) is Result.NEW
    capability = Capability(NETWORK, at, 5, decode_rules(b"\x01\x00")).sign(CONTROLLER, PEER.address)
    assert table.add_capability(capability, {CONTROLLER.address: CONTROLLER}.get) is Result.NEW
    valid = table.valid(PEER.address, CONFIG, 1)
    assert valid.tags == ({7: 42} if counts else {})
    assert valid.ips == ({b"\x0a\x01\x02\x03"} if counts else frozenset())
    assert len(valid.capabilities) == counts


def test_unverified_credentials_are_not_kept() -> None:
    table = members()
    capability = Capability(NETWORK, NOW, 5, decode_rules(b"\x01\x00")).sign(OTHER, PEER.address)
    assert table.add_capability(capability, {OTHER.address: OTHER}.get) is Result.REJECTED
    assert table.add_tag(Tag(NETWORK, NOW, 7, 42, PEER.address).sign(OTHER), CONTROLLER) is Result.REJECTED
    assert not table.by_address


def test_the_verdict_follows_a_new_configuration() -> None:
    table = members()
    table.add_certificate(com(), CONTROLLER)
    assert gate(table, com(US), 1)
    assert gate(table, com(US, NOW + 2 * WINDOW), 1)  # the same generation: the verdict stands
    assert not gate(table, com(US, NOW + 2 * WINDOW), 2)


def test_credentials_are_due_after_each_config_and_after_a_while() -> None:
    member = members().record(PEER.address)
    assert member.push_due(1, NOW)
    member.pushed_generation, member.last_push = 1, NOW
    assert not member.push_due(1, NOW + PUSH_MS - 1)
    assert member.push_due(1, NOW + PUSH_MS)
    assert member.push_due(2, NOW)


def test_signatures_are_looked_at_last() -> None:
    table = members()
    asked: list[int] = []

    def identity_of(address: int) -> Identity | None:
        asked.append(address)
        return CONTROLLER

    capability = Capability(NETWORK, NOW, 7, decode_rules(b"\x01\x00"), 1).sign(CONTROLLER, PEER.address)
    assert table.add_capability(capability, identity_of) is Result.NEW
    assert len(asked) == 1
    assert table.add_capability(capability, identity_of) is Result.REDUNDANT
    assert len(asked) == 1
