"""Addresses against the golden vectors (vl1 §1.1, §1.5; vl2 §1.2, §5.1, §5.8)."""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core import address as a
from netcon.core.address import BROADCAST, Endpoint, MulticastGroup, Scope
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError, EncodeError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "addressing.json").read_text())


@pytest.mark.parametrize("case", VECTORS["derived"], ids=lambda case: f"{case['network_id']}-{case['node_address']}")
def test_derived_addresses(case: dict[str, Any]) -> None:
    network, node = a.parse_network(case["network_id"]), a.parse_address(case["node_address"])
    mac = bytes.fromhex(case["mac"])
    assert a.mac_for(network, node) == mac
    assert a.mac_prefix(network) == int(case["mac_first_byte"], 16)
    assert a.address_from_mac(network, mac) == a.parse_address(case["back_to_address"])
    assert a.address_from_mac(network, bytes((mac[0] ^ 0x04,)) + mac[1:]) is None
    assert a.format_address(a.controller_of(network)) == case["controller_address"]
    assert a.rfc4193_address(network, node).hex() == case["rfc4193_bytes"]
    assert a.format_endpoint(Endpoint(a.rfc4193_address(network, node), 88)) == case["rfc4193"]
    assert a.sixplane_address(network, node).hex() == case["sixplane_bytes"]
    assert a.format_endpoint(Endpoint(a.sixplane_address(network, node), 40)) == case["sixplane"]


@pytest.mark.parametrize("case", VECTORS["resolution_groups"], ids=lambda case: case["ip"])
def test_resolution_groups(case: dict[str, Any]) -> None:
    expected = MulticastGroup(bytes.fromhex(case["group_mac"]), int(case["group_adi"], 16))
    assert a.groups_for_addresses([a.parse_ip(case["ip"])]) == {expected}


@pytest.mark.parametrize("case", VECTORS["address_encoding"], ids=lambda case: case["text"])
def test_inet_encoding(case: dict[str, Any]) -> None:
    endpoint = a.parse_endpoint(case["text"]) if case["text"] else None
    assert a.encode_inet(endpoint).hex() == case["bytes"]
    if endpoint is not None:
        assert a.format_endpoint(endpoint) == case["text"]


@pytest.mark.parametrize("case", VECTORS["address_decoding"], ids=lambda case: case["bytes"])
def test_inet_decoding(case: dict[str, Any]) -> None:
    reader = Reader(bytes.fromhex(case["bytes"]))
    if not case["parses"]:
        with pytest.raises(DecodeError):
            a.read_inet(reader)
        return
    endpoint = a.read_inet(reader)
    assert reader.offset == case["consumed"]
    assert ("" if endpoint is None else a.format_endpoint(endpoint)) == case["text"]


@pytest.mark.parametrize(
    ("ip", "scope", "usable"),
    [
        ("0.1.2.3", Scope.NONE, False),
        ("255.1.2.3", Scope.NONE, False),
        ("224.0.0.1", Scope.MULTICAST, False),
        ("239.255.255.255", Scope.MULTICAST, False),
        ("127.0.0.1", Scope.LOOPBACK, False),
        ("6.0.0.1", Scope.PSEUDO_PRIVATE, True),
        ("56.1.1.1", Scope.PSEUDO_PRIVATE, True),
        ("240.0.0.1", Scope.PSEUDO_PRIVATE, True),
        ("8.8.8.8", Scope.GLOBAL, True),
        ("172.32.0.1", Scope.GLOBAL, True),
        ("100.128.0.1", Scope.GLOBAL, True),
        ("198.20.0.1", Scope.GLOBAL, True),
        ("169.254.1.1", Scope.LINK_LOCAL, False),
        ("10.0.0.1", Scope.PRIVATE, True),
        ("172.16.0.1", Scope.PRIVATE, True),
        ("172.31.255.255", Scope.PRIVATE, True),
        ("192.168.0.1", Scope.PRIVATE, True),
        ("100.64.0.1", Scope.PRIVATE, True),
        ("100.127.255.255", Scope.PRIVATE, True),
        ("192.0.2.1", Scope.PRIVATE, True),
        ("198.18.0.1", Scope.PRIVATE, True),
        ("198.19.0.1", Scope.PRIVATE, True),
        ("198.51.100.1", Scope.PRIVATE, True),
        ("203.0.113.1", Scope.PRIVATE, True),
        ("::", Scope.NONE, False),
        ("ff02::1", Scope.MULTICAST, False),
        ("::1", Scope.LOOPBACK, False),
        ("fe80::1", Scope.LOOPBACK, False),
        ("::ffff:127.0.0.1", Scope.LOOPBACK, False),
        ("::ffff:10.0.0.1", Scope.GLOBAL, True),
        ("fe80::2", Scope.LINK_LOCAL, False),
        ("febf::1", Scope.LINK_LOCAL, False),
        ("fd00::1", Scope.PRIVATE, True),
        ("fc00::1", Scope.PRIVATE, True),
        ("2001:db8::1", Scope.GLOBAL, True),
        ("2001:470::1", Scope.GLOBAL, False),
    ],
)
def test_scopes(ip: str, scope: Scope, usable: bool) -> None:
    packed = ipaddress.ip_address(ip).packed
    assert a.scope_of(packed) is scope
    assert a.usable_for_paths(packed) is usable


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_every_address_has_a_scope(ip: bytes) -> None:
    assert a.scope_of(ip) in Scope


def test_reserved_addresses() -> None:
    assert a.is_reserved(0)
    assert a.is_reserved(0xFF00000000)
    assert not a.is_reserved(0xFEFFFFFFFF)
    assert not a.is_reserved(1)


def test_text_forms() -> None:
    assert a.format_address(0x0082915F5E) == "0082915f5e"
    assert a.parse_address("0082915F5E") == 0x0082915F5E
    assert a.format_network(0x701BEB847C4A52C7) == "701beb847c4a52c7"
    assert a.format_mac(bytes.fromhex("02deada20dc3")) == "02:de:ad:a2:0d:c3"
    for text in ("02:de:ad:a2:0d:c3", "02-DE-AD-A2-0D-C3", "02deada20dc3", "02de.ada2.0dc3"):
        assert a.parse_mac(text).hex() == "02deada20dc3"


@pytest.mark.parametrize(
    "text", ["", "0082915f5", "0082915f5e0", "0082915f5g", "-082915f5e", "0x82915f5e", "0082_15f5e", "\uff10\uff1082915f5e"]
)
def test_bad_node_addresses(text: str) -> None:
    with pytest.raises(DecodeError):
        a.parse_address(text)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "10.0.0.1/", "/9993", "10.0.0/1", "10.0.0.1/65536", "10.0.0.1/-1", "::1/1/1", "x/1"]
)
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(DecodeError):
        a.parse_endpoint(text)


def test_prefixes() -> None:
    assert a.parse_prefix("10.1.2.3/24") == Endpoint(bytes((10, 1, 2, 3)), 24)
    for text in ("10.0.0.0/33", "::/129", "10.0.0.0"):
        with pytest.raises(DecodeError):
            a.parse_prefix(text)


def test_broadcast_group() -> None:
    assert BROADCAST == (b"\xff" * 6, 0)


def test_endpoint_is_a_plain_pair() -> None:
    assert Endpoint(b"\x0a\0\0\1", 1) == (b"\x0a\0\0\1", 1)


def test_inet_of_neither_version_is_refused() -> None:
    with pytest.raises(EncodeError):
        a.encode_inet(Endpoint(b"abc", 1))


@given(st.binary(max_size=40))
def test_arbitrary_inet_raises_nothing_but_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        a.read_inet(Reader(data))


@given(st.text(max_size=50))
def test_arbitrary_text_raises_nothing_but_decode_error(text: str) -> None:
    for parse in (a.parse_address, a.parse_network, a.parse_mac, a.parse_ip, a.parse_endpoint, a.parse_prefix):
        with suppress(DecodeError):
            parse(text)
