"""The order of addresses (RFC 6724) on virtual networks."""

from __future__ import annotations

import ipaddress

from netcon.names.ordering import order


def ordered(destinations: list[str], sources: list[str], reachable: list[str]) -> list[str]:
    found = order(
        map(ipaddress.ip_address, destinations),
        list(map(ipaddress.ip_address, sources)),
        list(map(ipaddress.ip_network, reachable)),
    )
    return list(map(str, found))


NETS = ["10.1.0.0/24", "fd00::/64", "2001:db8::/64"]


def test_what_no_network_leads_to_comes_last() -> None:
    assert ordered(["192.0.2.1", "10.1.0.7"], ["10.1.0.1"], NETS) == ["10.1.0.7", "192.0.2.1"]
    assert ordered(["fd00::7", "10.1.0.7"], ["10.1.0.1"], NETS) == ["10.1.0.7", "fd00::7"]


def test_global_ipv6_before_ipv4_before_unique_local() -> None:
    sources = ["10.1.0.1", "fd00::1", "2001:db8::1"]
    assert ordered(["fd00::7", "10.1.0.7", "2001:db8::7"], sources, NETS) == ["2001:db8::7", "10.1.0.7", "fd00::7"]


def test_the_longer_common_prefix_first_else_as_given() -> None:
    assert ordered(["fd00::2:0:0:7", "fd00::7"], ["fd00::1"], ["fd00::/16"]) == ["fd00::2:0:0:7", "fd00::7"]
    assert ordered(["fd00:2::7", "fd00:1::7"], ["fd00:1::1"], ["fd00::/16"]) == ["fd00:1::7", "fd00:2::7"]
    assert ordered(["10.1.0.9", "10.1.0.2"], ["10.1.0.1"], NETS) == ["10.1.0.9", "10.1.0.2"]


def test_each_address_once() -> None:
    assert ordered(["10.1.0.7", "10.1.0.7"], [], []) == ["10.1.0.7"]
