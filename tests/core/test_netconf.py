"""Network configurations, chunks and requests against the golden vectors (vl2 §2)."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import format_address, format_endpoint, format_ip, format_network, parse_ip, parse_prefix
from netcon.core.credentials import Capability, CertificateOfMembership, Tag
from netcon.core.dictionary import Dictionary
from netcon.core.errors import DecodeError, EncodeError
from netcon.core.identity import Identity
from netcon.core.messages import NetworkConfigPush, NetworkConfigRequest, Ok, OkNetworkConfigRequest, decode_message, decode_reply
from netcon.core.netconf import (
    FLAG_NO_MULTICAST_COMPRESSION,
    FLAG_UNKNOWN_MATCH,
    MAX_METADATA,
    ROLE_ACTIVE_BRIDGE,
    ROLE_ANCHOR,
    ConfigAssembler,
    ConfigChunk,
    NetworkConfig,
    Route,
    SingleSignOn,
    cut_config,
    request_metadata,
)
from netcon.core.packet import BODY, PacketHeader
from netcon.core.rules import ACCEPT_ALL, Rule, RuleType

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "netconf.json").read_text())
CONTROLLER = Identity.parse(VECTORS["controller"]["secret"])
CAPTURED = VECTORS["captured_configurations"]


def as_parsed(config: NetworkConfig) -> dict[str, Any]:
    """In the form of the vectors' `reference_parse`."""
    return {
        "accepted": True,
        "network_id": format_network(config.network),
        "timestamp": config.timestamp,
        "credential_time_max_delta": config.credential_time_max_delta,
        "revision": config.revision,
        "issued_to": format_address(config.issued_to),
        "flags": f"{config.flags:016x}",
        "broadcast": config.broadcast,
        "ndp_emulation": config.ndp_emulation,
        "mtu": config.mtu,
        "multicast_limit": config.multicast_limit,
        "type": config.type,
        "private": not config.public,
        "name": config.name,
        "static_ips": [format_endpoint(address) for address in config.addresses],
        "routes": [
            {
                "target": format_endpoint(route.target),
                "via": format_ip(route.via.ip) if route.via else "",
                "flags": route.flags,
                "metric": route.metric,
            }
            for route in config.routes
        ],
        "specialists": [f"{entry:016x}" for entry in config.specialists],
        "rule_count": len(config.rules),
        "capability_count": len(config.capabilities),
        "tag_count": len(config.tags),
        "ownership_count": len(config.ownerships),
        "has_membership": config.membership is not None,
        "dns_domain": config.dns_domain,
        "dns_servers": [format_ip(ip) for ip in config.dns_servers],
        "sso_enabled": config.sso.enabled,
    }


@pytest.mark.parametrize("case", CAPTURED, ids=lambda case: case["name"])
def test_captured_configuration(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["dictionary"])
    config = NetworkConfig.from_dictionary(data)
    assert as_parsed(config) == case["reference_parse"]
    assert config.to_dictionary() == data
    assert config.membership is not None
    assert config.membership.verify(CONTROLLER)
    assert all(tag.verify(CONTROLLER) for tag in config.tags)
    assert all(ownership.verify(CONTROLLER) for ownership in config.ownerships)
    assert all(capability.verify({CONTROLLER.address: CONTROLLER}.get) for capability in config.capabilities)
    assert all(config.credential_current(tag.timestamp) for tag in config.tags)


@pytest.mark.parametrize("case", VECTORS["dictionary_as_configuration"], ids=lambda case: case["name"])
def test_changed_configuration(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["dictionary"])
    if not case["reference_parse"]["accepted"]:
        with pytest.raises(DecodeError):
            NetworkConfig.from_dictionary(data)
    else:
        assert as_parsed(NetworkConfig.from_dictionary(data)) == case["reference_parse"]


@pytest.mark.parametrize("case", CAPTURED, ids=lambda case: case["name"])
def test_captured_chunks_assemble(case: dict[str, Any]) -> None:
    assembler = ConfigAssembler(int(case["network_id"], 16))
    result = None
    for number, recorded in enumerate(case["chunks"]):
        packet = bytes.fromhex(recorded["packet_plaintext"])
        message = decode_message(PacketHeader.parse(packet).verb, packet[BODY:])
        if isinstance(message, Ok):
            reply = decode_reply(message)
            assert isinstance(reply, OkNetworkConfigRequest)
            chunk = reply.chunk
        else:
            assert isinstance(message, NetworkConfigPush)
            chunk = message.chunk
        start, length = recorded["signed_bytes_offset"], recorded["signed_bytes_length"]
        assert chunk.signed_bytes() == packet[start : start + length]
        assert chunk.verify(CONTROLLER) == recorded["signature_valid"]
        assert f"{chunk.update_id:016x}" == recorded["update_id"]
        assert (chunk.total, chunk.offset) == (recorded["total_length"], recorded["chunk_index"])
        added = assembler.add(chunk, CONTROLLER.address, CONTROLLER)
        assert added.accepted
        assert (added.dictionary is not None) == (number == len(case["chunks"]) - 1)
        result = added.dictionary
    assert result is not None
    assert result.hex() == case["dictionary"]


@pytest.mark.parametrize("case", [case for case in CAPTURED if case.get("request_plaintext")], ids=lambda case: case["name"])
def test_captured_requests(case: dict[str, Any]) -> None:
    packet = bytes.fromhex(case["request_plaintext"])
    request = decode_message(PacketHeader.parse(packet).verb, packet[BODY:])
    assert isinstance(request, NetworkConfigRequest)
    assert request.encode() == packet[BODY:]
    metadata = Dictionary.decode(request.metadata)
    assert [[key, value.decode()] for key, value in metadata.items()] == [entry[:2] for entry in case["request_metadata"]]


@pytest.mark.parametrize("case", VECTORS["chunk_cases"]["cases"], ids=lambda case: case["name"])
def test_chunk_sequences(case: dict[str, Any]) -> None:
    controller = Identity.parse(VECTORS["chunk_cases"]["controller_public"])
    assembler = ConfigAssembler(int(VECTORS["chunk_cases"]["network_id"], 16))
    complete = []
    for payload in case["payloads_after_in_re_packet_id"]:
        with suppress(DecodeError):
            chunk = ConfigChunk.decode(bytes.fromhex(payload))
            assert chunk.encode().hex() == payload
            added = assembler.add(chunk, controller.address, controller)
            if added.dictionary is not None:
                complete.append(NetworkConfig.from_dictionary(added.dictionary))
    assert len(complete) == case["assembles"]


NETWORK = 0xCE350AEFF9CAFE04
MEMBER = Identity(0x7537051607, bytes(64))


def test_unsigned_chunk_counts_only_from_the_controller() -> None:
    chunk = ConfigChunk.decode(ConfigChunk(NETWORK, b"v=7").encode())
    assembler = ConfigAssembler(NETWORK)
    assert assembler.add(chunk, MEMBER.address, CONTROLLER) == (False, None)
    assert assembler.add(chunk, CONTROLLER.address, CONTROLLER) == (True, b"v=7")


def test_cut_configuration_assembles_in_any_order_and_only_once() -> None:
    dictionary = bytes(range(1, 256)) * 100
    chunks = cut_config(NETWORK, dictionary, 5, CONTROLLER)
    assert len(chunks) == 3
    assembler = ConfigAssembler(NETWORK)
    assert [assembler.add(chunk, 1, CONTROLLER) for chunk in reversed(chunks)] == [(True, None), (True, None), (True, dictionary)]
    assert [assembler.add(chunk, 1, CONTROLLER) for chunk in chunks] == [(False, None)] * 3


def test_at_most_three_updates_at_once_the_stalest_goes() -> None:
    dictionary = bytes(20)
    updates = {number: cut_config(NETWORK, dictionary, number, CONTROLLER, size=10) for number in range(1, 5)}
    assembler = ConfigAssembler(NETWORK)
    for number in range(1, 5):
        assembler.add(updates[number][0], 1, CONTROLLER)
    assert assembler.add(updates[4][1], 1, CONTROLLER).dictionary == dictionary
    assert assembler.add(updates[2][1], 1, CONTROLLER).dictionary == dictionary
    assert assembler.add(updates[1][1], 1, CONTROLLER).dictionary is None  # its first half was evicted


def test_chunks_of_other_networks_and_other_signers_are_refused() -> None:
    assembler = ConfigAssembler(NETWORK)
    (other,) = cut_config(NETWORK ^ 1, b"a=1", 5, CONTROLLER)
    assert assembler.add(other, 1, CONTROLLER) == (False, None)
    stranger = Identity.parse(VECTORS["credentials"]["controller_secret"])
    (forged,) = cut_config(NETWORK, b"a=1", 5, stranger)
    assert assembler.add(forged, 1, CONTROLLER) == (False, None)
    assert assembler.add(forged, 1, stranger) == (False, None)


def test_overlapping_chunks_never_assemble() -> None:
    assembler = ConfigAssembler(NETWORK)
    for offset in (0, 5):
        chunk = ConfigChunk(NETWORK, bytes(10), 0, 7, 20, offset).sign(CONTROLLER)
        assert assembler.add(chunk, 1, CONTROLLER).dictionary is None


def test_an_update_of_too_many_chunks_is_abandoned() -> None:
    assembler = ConfigAssembler(NETWORK)
    for offset in range(ConfigAssembler.MAX_CHUNKS):
        assert assembler.add(ConfigChunk(NETWORK, b"x", 0, 7, 1000, offset).sign(CONTROLLER), 1, CONTROLLER).accepted
    last = ConfigChunk(NETWORK, b"x", 0, 7, 1000, ConfigAssembler.MAX_CHUNKS).sign(CONTROLLER)
    assert not assembler.add(last, 1, CONTROLLER).accepted


def full_config() -> NetworkConfig:
    return NetworkConfig(
        network=NETWORK,
        issued_to=MEMBER.address,
        timestamp=1_700_000_000_000,
        credential_time_max_delta=1_800_000,
        revision=3,
        trace_target=5,
        trace_level=10,
        flags=FLAG_UNKNOWN_MATCH | FLAG_NO_MULTICAST_COMPRESSION,
        multicast_limit=32,
        type=1,
        name="a=b\\c é",
        mtu=1500,
        membership=CertificateOfMembership.issue(NETWORK, MEMBER, 1, 2, CONTROLLER),
        specialists=(ROLE_ACTIVE_BRIDGE | 0x1122334455, ROLE_ANCHOR | 0x5544332211),
        routes=(Route(parse_prefix("10.0.0.0/8")), Route(parse_prefix("::/0"), parse_prefix("fd00::1/0"), 1, 2)),
        addresses=(parse_prefix("10.1.2.3/24"),),
        rules=ACCEPT_ALL,
        dns_domain="example",
        dns_servers=(parse_ip("10.0.0.1"), parse_ip("fd00::1")),
    )


def test_round_trip_of_everything() -> None:
    config = full_config()
    assert NetworkConfig.from_dictionary(config.to_dictionary()) == config
    assert config.unknown_match
    assert not config.compress_multicast
    assert config.public
    assert config.is_active_bridge(0x1122334455)
    assert not config.is_active_bridge(0x5544332211)
    assert config.specialists_with(ROLE_ANCHOR) == (0x5544332211,)


@pytest.mark.parametrize(
    "sso",
    [
        SingleSignOn(version=0, enabled=True, login_url="https://login/?a=b", expiry=77),
        SingleSignOn(1, True, "", 0, "https://issuer", "https://central", "nonce", "state", "client", "auth0"),
    ],
)
def test_single_sign_on_round_trip(sso: SingleSignOn) -> None:
    config = replace(full_config(), sso=sso)
    assert NetworkConfig.from_dictionary(config.to_dictionary()).sso == sso


def test_credentials_count_within_the_delta() -> None:
    config = replace(full_config(), credential_time_max_delta=10)
    assert config.credential_current(config.timestamp - 10)
    assert config.credential_current(config.timestamp + 10)
    assert not config.credential_current(config.timestamp - 11)
    assert not replace(config, credential_time_max_delta=0).credential_current(config.timestamp - 1)


def test_lists_are_bounded() -> None:
    route, address, rule = Route(parse_prefix("10.0.0.0/8")), parse_prefix("10.0.0.1/8"), Rule(RuleType.ACTION_BREAK)
    config = replace(
        full_config(),
        routes=(route,) * 200,
        addresses=(address,) * 40,
        rules=(rule,) * 1100,
        specialists=(1,) * 300,
        name="x" * 200,
    )
    read = NetworkConfig.from_dictionary(config.to_dictionary())
    lengths = [len(read.routes), len(read.addresses), len(read.rules), len(read.specialists), len(read.name)]
    assert lengths == [128, 32, 1024, 256, 127]


def test_tags_are_sorted_and_a_malformed_one_ends_the_list_only() -> None:
    tags = tuple(Tag(NETWORK, 1, number, 0, MEMBER.address).sign(CONTROLLER) for number in (3, 1, 2))
    capabilities = tuple(Capability(NETWORK, 1, number, ()).sign(CONTROLLER, MEMBER.address) for number in (9, 4))
    config = replace(full_config(), tags=tags, capabilities=capabilities)
    read = NetworkConfig.from_dictionary(config.to_dictionary())
    assert [tag.id for tag in read.tags] == [1, 2, 3]
    assert [capability.id for capability in read.capabilities] == [4, 9]
    broken = Dictionary.decode(config.to_dictionary())
    broken["TAG"] = broken["TAG"][:-1]
    assert [tag.id for tag in NetworkConfig.from_dictionary(broken.encode()).tags] == [1, 3]


@pytest.mark.parametrize(
    ("key", "value"), [("C", b"\x01"), ("COO", b"x"), ("RT", b"\x04"), ("I", b"\x09"), ("I", bytes((4, 1, 1, 1, 1, 0, 33)))]
)
def test_malformed_lists_refuse_the_configuration(key: str, value: bytes) -> None:
    source = Dictionary.decode(full_config().to_dictionary())
    source[key] = value
    with pytest.raises(DecodeError):
        NetworkConfig.from_dictionary(source.encode())


def test_request_metadata() -> None:
    metadata = Dictionary.decode(request_metadata((1, 14, 1), platform="linux/x86_64", token="secret"))
    numbers = {
        key: metadata.integer(key) for key in ("v", "vend", "pv", "majv", "minv", "revv", "mr", "mc", "mcr", "mt", "f", "revr")
    }
    assert numbers == {
        "v": 7,
        "vend": 1,
        "pv": 12,
        "majv": 1,
        "minv": 14,
        "revv": 1,
        "mr": 1024,
        "mc": 128,
        "mcr": 64,
        "mt": 128,
        "f": 0,
        "revr": 1,
    }
    assert metadata.text("o") == "linux/x86_64"
    assert metadata.text("a") == "token:secret"
    with pytest.raises(EncodeError, match="join token"):
        request_metadata((1, 14, 1), token="x" * MAX_METADATA)


@given(st.binary(max_size=300))
def test_arbitrary_chunks_raise_nothing_but_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        ConfigChunk.decode(data)


@given(st.sampled_from(["C", "CAP", "TAG", "COO", "S", "RT", "I", "R", "DNS", "nwid", "id", "mtu", "v"]), st.binary(max_size=200))
def test_hostile_values_raise_nothing_but_decode_error(key: str, value: bytes) -> None:
    source = Dictionary.decode(full_config().to_dictionary())
    source[key] = value
    with suppress(DecodeError):
        NetworkConfig.from_dictionary(source.encode()).to_dictionary()
