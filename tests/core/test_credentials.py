"""Credentials against the golden vectors and vl2 appendix A (vl2 §3)."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import format_address, format_network, parse_address, parse_ip
from netcon.core.buffer import Reader
from netcon.core.credentials import (
    Capability,
    CertificateOfMembership,
    CertificateOfOwnership,
    CredentialType,
    Custody,
    Revocation,
    Tag,
    Thing,
    ThingType,
    owned_things,
)
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.rules import Rule, RuleType

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "netconf.json").read_text())["credentials"]
CONTROLLER = Identity.parse(VECTORS["controller_secret"])
MEMBERS = [Identity.parse(VECTORS[name]) for name in ("member1_secret", "member2_secret")]
NETWORK = int(VECTORS["network_id"], 16)
IDENTITIES = {identity.address: identity for identity in (CONTROLLER, *MEMBERS)}


def number_ids(case: dict[str, Any]) -> str:
    return case.get("name") or case["why"][:40]


@pytest.mark.parametrize("case", VECTORS["membership"], ids=number_ids)
def test_membership(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    if not case["parses"]:
        with pytest.raises(DecodeError):
            CertificateOfMembership.decode(reader)
        return
    certificate = CertificateOfMembership.decode(reader)
    assert reader.offset == case["consumed"]
    assert certificate.timestamp == case["timestamp"]
    assert format_network(certificate.network) == case["network_id"]
    assert format_address(certificate.issued_to) == case["issued_to"]
    assert format_address(certificate.signer) == case["signed_by"]
    assert certificate.signed_bytes().hex() == case["signed_bytes"]
    assert certificate.verify(CONTROLLER) == case["signature_valid"]
    assert certificate.encode() == reader.data[: reader.offset]


def test_membership_by_another_signer_does_not_verify_even_with_its_key() -> None:
    certificate = CertificateOfMembership.issue(NETWORK, MEMBERS[0], 1, 1, CONTROLLER)
    assert certificate.verify(CONTROLLER)
    forged = certificate.sign(MEMBERS[1])
    assert not forged.verify(MEMBERS[1])
    assert not forged.verify(CONTROLLER)


@pytest.mark.parametrize("case", VECTORS["membership_agreement"], ids=lambda case: case["name"])
def test_membership_agreement(case: dict[str, Any]) -> None:
    ours, theirs = (CertificateOfMembership.decode(Reader(bytes.fromhex(case[name]))) for name in ("ours", "theirs"))
    assert ours.agrees_with(theirs, Identity.parse(case["their_identity"])) == case["agrees"]


def test_a_certificate_with_fingerprint_does_not_agree_with_one_without() -> None:
    full = CertificateOfMembership.issue(NETWORK, MEMBERS[0], 5, 5, CONTROLLER)
    old = CertificateOfMembership(CertificateOfMembership.issue(NETWORK, MEMBERS[1], 5, 5, CONTROLLER).qualifiers[:3])
    assert not full.agrees_with(old, MEMBERS[1])
    assert old.agrees_with(full, MEMBERS[0])
    assert not CertificateOfMembership(()).agrees_with(full, MEMBERS[0])


def test_issued_membership_is_the_references() -> None:
    expected = VECTORS["membership"][0]
    certificate = CertificateOfMembership.issue(NETWORK, MEMBERS[0], expected["timestamp"], 0x6DDD00, CONTROLLER)
    assert certificate.encode().hex() == expected["bytes"]


@pytest.mark.parametrize("case", VECTORS["tags"], ids=lambda case: f"{case.get('id')} {case['why']}")
def test_tag(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    if not case.get("parses", True):
        with pytest.raises(DecodeError):
            Tag.decode(reader)
        return
    tag = Tag.decode(reader)
    assert reader.remaining == 0
    assert tag.encode() == reader.data
    assert tag.signed_bytes().hex() == case["signed_bytes"]
    assert tag.verify(CONTROLLER) == case["signature_valid"]
    if "signed_by" in case:
        assert format_address(tag.signed_by) == case["signed_by"]
    if "id" in case:
        assert (tag.id, tag.value, tag.timestamp) == (case["id"], case["value"], case["timestamp"])
        made = Tag(tag.network, tag.timestamp, tag.id, tag.value, tag.issued_to).sign(CONTROLLER)
        assert made == tag


@pytest.mark.parametrize("case", VECTORS["ownership"], ids=number_ids)
def test_ownership(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    certificate = CertificateOfOwnership.decode(reader)
    assert reader.remaining == 0
    assert certificate.encode() == reader.data
    assert certificate.signed_bytes().hex() == case["signed_bytes"]
    assert certificate.verify(CONTROLLER) == case["signature_valid"]
    for query in case.get("owns", []):
        assert certificate.owns_ip(parse_ip(query["ip"])) == query["owns"]
        assert (parse_ip(query["ip"]) in owned_things([certificate])[0]) == query["owns"]
    if case["signature_valid"]:
        assert replace(certificate, signed_by=0, signature=b"").sign(CONTROLLER) == certificate


def test_ownership_of_macs() -> None:
    mac = bytes.fromhex("c652c8eddbb5")
    certificate = CertificateOfOwnership(NETWORK, 1, 0, 1, (Thing.mac(mac), Thing.ip(b"\x0a\1\2\3")), 1)
    assert certificate.owns_mac(mac)
    assert not certificate.owns_mac(bytes(6))
    assert owned_things([certificate]) == ({b"\x0a\1\2\3"}, {mac})
    assert [thing.type for thing in certificate.things] == [ThingType.MAC, ThingType.IPV4]


@pytest.mark.parametrize("case", VECTORS["revocations"], ids=number_ids)
def test_revocation(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    revocation = Revocation.decode(reader)
    assert reader.remaining == 0
    assert revocation.encode() == reader.data
    assert revocation.signed_bytes().hex() == case["signed_bytes"]
    assert revocation.verify(CONTROLLER) == case["signature_valid"]
    if "id" in case:
        fields = ("id", "credential_id", "threshold", "flags", "credential_type")
        assert {name: getattr(revocation, name) for name in fields} == {name: case[name] for name in fields}
        assert format_address(revocation.target) == case["target"]
        assert revocation.fast_propagate == bool(case["flags"] & 1)
        assert replace(revocation, signed_by=0, signature=b"").sign(CONTROLLER) == revocation


@pytest.mark.parametrize("case", VECTORS["capabilities"], ids=number_ids)
def test_capability(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    if not case.get("parses", True):
        with pytest.raises(DecodeError):
            Capability.decode(reader)
        return
    capability = Capability.decode(reader)
    assert reader.remaining == 0
    assert capability.encode() == reader.data
    assert capability.signed_bytes().hex() == case["signed_bytes"]
    assert capability.verify(IDENTITIES.get) == case["signature_valid"]
    if "chain" in case:
        chain = [{"to": format_address(link.receiver), "from": format_address(link.giver)} for link in capability.chain]
        assert chain == case["chain"]
        assert format_address(capability.holder) == case["chain"][-1]["to"]
        made = replace(capability, chain=())
        for link in capability.chain:
            made = made.sign(IDENTITIES[link.giver], link.receiver)
        assert made == capability


def test_capability_chain_must_have_no_gap_and_no_stranger() -> None:
    capability = Capability(NETWORK, 1, 2, (Rule(RuleType.ACTION_ACCEPT),), 3)
    gap = capability.sign(CONTROLLER, MEMBERS[0].address).sign(MEMBERS[1], 5)
    assert not gap.verify(IDENTITIES.get)
    chain = capability.sign(CONTROLLER, MEMBERS[0].address).sign(MEMBERS[0], 5)
    assert chain.verify(IDENTITIES.get)
    assert not chain.verify({CONTROLLER.address: CONTROLLER}.get)
    assert capability.holder == 0


def test_custody_chain_longer_than_allowed_is_refused() -> None:
    capability = Capability(NETWORK, 1, 2, (), 1, (Custody(1, 2, bytes(96)), Custody(2, 3, bytes(96))))
    with pytest.raises(DecodeError, match="chain"):
        Capability.decode(Reader(capability.encode()))
    for limit in (0, 8):
        with pytest.raises(DecodeError, match="chain"):
            Capability.decode(Reader(replace(capability, max_chain=limit, chain=()).encode()))


def test_signature_of_unknown_type_is_skipped_and_never_verifies() -> None:
    tag = Tag(NETWORK, 1, 2, 3, 4).sign(CONTROLLER)
    data = tag.encode().replace(b"\x01\x00\x60" + tag.signature, b"\x02\x00\x03abc")
    reader = Reader(data + b"next")
    unknown = Tag.decode(reader)
    assert reader.rest() == b"next"
    assert not unknown.verify(CONTROLLER)


def test_additional_fields_are_skipped() -> None:
    tag = Tag(NETWORK, 1, 2, 3, 4).sign(CONTROLLER)
    reader = Reader(tag.encode()[:-2] + b"\0\3abcnext")
    assert Tag.decode(reader) == tag
    assert reader.rest() == b"next"


# -- vl2 appendix A --

APPENDIX_CONTROLLER = Identity.parse(
    "701beb847c:0:04efa37ab563cf6d66a9e9fe751bfc419554959c02106e4c9986b39575efb3789bff73bcd7457d9cccae47c9e72422bbb2af4fcdb68c05"
    "313628db751dc69071:bc27dc7c1845c887b74f8c557a7784aa095876d4774fba7191130ce81a1a9b2723b1ef7882405ce73543f61c7e8cd998642f6809"
    "3b528dde4cedd8648e8a0e2b"
)
APPENDIX_MEMBER = Identity.parse(
    "0082915f5e:0:30d2d409653fbbc54e2e984da874c971e2ce0e327e1f7e6818e5caa5cad4082d66fdf8a1c0f49669c63f343d5213549e064857dd1d316a"
    "5d0e84d3dbdfc498ac"
)
APPENDIX_NETWORK, APPENDIX_TIME = 0x701BEB847C4A52C7, 1700000000123


def test_appendix_tag() -> None:
    tag = Tag(APPENDIX_NETWORK, APPENDIX_TIME, 1000, 0xDEADBEEF, APPENDIX_MEMBER.address).sign(APPENDIX_CONTROLLER)
    assert tag.encode().hex() == (
        "701beb847c4a52c70000018bcfe5687b000003e8deadbeef0082915f5e701beb847c010060dbf99870f95f723daa38f2b5115d70dcb27aed933437328794"
        "b78cffd00fb71a8837426c84cf1590036cbc3b9544ca3b0dfefe259a8cc7cd8a6d6ef9f7524c01c24588dd520c95b7ea8cab42850a7ee8b9deaa5507806e"
        "4158dc593f820f54280000"
    )


def test_appendix_capability() -> None:
    rules = (Rule(RuleType.MATCH_ETHERTYPE, b"\x86\xdd", negated=True), Rule(RuleType.ACTION_DROP))
    capability = Capability(APPENDIX_NETWORK, APPENDIX_TIME, 12, rules).sign(APPENDIX_CONTROLLER, APPENDIX_MEMBER.address)
    assert capability.encode().hex() == (
        "701beb847c4a52c70000018bcfe5687b0000000c0002a50286dd0000010082915f5e701beb847c010060198af43340ff28c528b654a320ce805ed4618f05"
        "593fc876efd488b17d9f2bfa82eaeacf8f0dd9cb481e5cfa1fdcb737557c1a1239d8323462eafb525502860fce93bf68370ccaa49de082585a9324e691ac"
        "b2e3ba087c69dc448d2aedb1216000000000000000"
    )


def test_appendix_ownership() -> None:
    things = (Thing.ip(parse_ip("10.1.2.3")), Thing.ip(parse_ip("fd00::5")), Thing.mac(bytes.fromhex("c652c8eddbb5")))
    certificate = CertificateOfOwnership(APPENDIX_NETWORK, APPENDIX_TIME, 0, 1, things, APPENDIX_MEMBER.address)
    assert certificate.sign(APPENDIX_CONTROLLER).encode().hex() == (
        "701beb847c4a52c70000018bcfe5687b0000000000000000000000010003020a010203000000000000000000000000"
        "03fd00000000000000000000000000000501c652c8eddbb5000000000000000000000082915f5e"
        "701beb847c010060c9c7fa370483993f8142392a74f3039158f07cb10c3ff43e317c59a6b85d74b525dd8c"
        "81635ac7c67530811410f5ec143a943e95f175a0969c2468d278ed3e0293ec68082bc3cf026b3b1332da7c"
        "7a0a25c19b43aea1f19ac853d5f7d6008e9d0000"
    )


def test_appendix_revocation() -> None:
    revocation = Revocation(
        0x01020304, APPENDIX_NETWORK, 0, APPENDIX_TIME, 1, parse_address("0082915f5e"), CredentialType.MEMBERSHIP
    ).sign(APPENDIX_CONTROLLER)
    assert len(revocation.encode()) == 152
    assert revocation.encode().hex() == (
        "0000000001020304701beb847c4a52c700000000000000000000018bcfe5687b000000000000000100829"
        "15f5e701beb847c0101006015ee8b8906dee837532853ce242605ba720acf06d3fde56fd0ea99860f3447b"
        "a5c833fa9074b4bd758e2c1813c41667db8125afea4677f3ba6989b0745ce7a06582eb9639a6dc0ddabe9c"
        "1a0ffaa01a6ea2d985c6e1345c866accb933ce69de50000"
    )


KINDS = {
    "membership": CertificateOfMembership,
    "tags": Tag,
    "ownership": CertificateOfOwnership,
    "revocations": Revocation,
    "capabilities": Capability,
}


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=300), st.data())
def test_hostile_bytes_raise_nothing_but_decode_error(section: str, noise: bytes, data: st.DataObject) -> None:
    kind: Any = KINDS[section]
    good = bytearray.fromhex(data.draw(st.sampled_from(VECTORS[section]))["bytes"])
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (noise, bytes(good), bytes(good[: len(good) // 2])):
        with suppress(DecodeError):
            kind.decode(Reader(candidate)).encode()
