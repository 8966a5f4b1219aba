"""IP assignment from pools, routes and modes (vl2 §7.3)."""

from __future__ import annotations

import ipaddress
import random as random_module
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netcon.controller.assignment import assign

NETWORK = 0x8056C2E21C000001
NODE = 0xA63D56F9A0


def packed(*texts: str) -> set[bytes]:
    return {ipaddress.ip_address(text).packed for text in texts}


def network(**changes: Any) -> dict[str, Any]:
    return {
        "routes": [{"target": "10.9.0.0/24", "via": None}],
        "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.254"}],
        "v4AssignMode": {"zt": True},
        "v6AssignMode": {},
        **changes,
    }


def member(*ips: str, no_auto: bool = False) -> dict[str, Any]:
    return {"noAutoAssignIps": no_auto, "ipAssignments": list(ips)}


def no_dice(n: int) -> bytes:
    raise AssertionError("no randomness is needed here")


def dice(seed: int) -> Callable[[int], bytes]:
    return random_module.Random(seed).randbytes


def run(
    record: dict[str, Any],
    who: dict[str, Any] | None = None,
    taken: set[bytes] | None = None,
    node: int = NODE,
    random: Callable[[int], bytes] = no_dice,
) -> tuple[list[str], list[str], bool]:
    result = assign(NETWORK, record, node, who or member(), taken or set(), random)
    return [f"{ipaddress.ip_address(ip)}/{bits}" for ip, bits in result.addresses], list(result.allocated), result.emulate_ndp


def test_the_example_of_the_specification() -> None:
    assert run(network()) == (["10.9.0.40/24"], ["10.9.0.40"], False)


def test_the_address_that_a_real_controller_chose() -> None:
    """netconf.json, net1_first_member."""
    record = network(
        routes=[{"target": "10.99.0.0/16", "via": None}, {"target": "10.50.0.0/24", "via": "10.99.0.1"}],
        ipAssignmentPools=[{"ipRangeStart": "10.99.0.10", "ipRangeEnd": "10.99.0.250"}],
    )
    assert run(record, node=0x7537051607) == (["10.99.0.129/16"], ["10.99.0.129"], False)


def test_a_taken_address_is_passed_over() -> None:
    assert run(network(), taken=packed("10.9.0.40", "10.9.0.41"))[0] == ["10.9.0.42/24"]


def test_the_search_wraps_and_never_takes_the_last_address() -> None:
    record = network(ipAssignmentPools=[{"ipRangeStart": "10.9.0.10", "ipRangeEnd": "10.9.0.13"}])
    found: set[bytes] = set()
    for node in range(NODE, NODE + 5):
        found |= packed(*run(record, taken=found, node=node)[1])
    assert found == packed("10.9.0.10", "10.9.0.11", "10.9.0.12")


def test_a_pool_of_one_address() -> None:
    record = network(ipAssignmentPools=[{"ipRangeStart": "10.9.0.7", "ipRangeEnd": "10.9.0.7"}])
    assert run(record) == (["10.9.0.7/24"], ["10.9.0.7"], False)
    assert run(record, taken=packed("10.9.0.7")) == ([], [], False)


def test_addresses_that_end_in_255_are_skipped() -> None:
    record = network(
        routes=[{"target": "10.8.0.0/15", "via": None}],
        ipAssignmentPools=[{"ipRangeStart": "10.9.0.255", "ipRangeEnd": "10.9.1.0"}],
    )
    assert run(record)[0] == []
    record["ipAssignmentPools"].append({"ipRangeStart": "10.9.2.5", "ipRangeEnd": "10.9.2.5"})
    assert run(record)[0] == ["10.9.2.5/15"]


def test_a_pool_address_needs_a_route_and_the_first_that_fits_gives_the_length() -> None:
    assert run(network(routes=[]))[0] == []
    assert run(network(routes=[{"target": "0.0.0.0/0", "via": "10.9.0.1"}]))[0] == []
    routes = [{"target": "10.0.0.0/8", "via": "10.9.0.1"}, {"target": "10.9.0.0/24", "via": None}]
    assert run(network(routes=routes))[0] == ["10.9.0.40/8"]


def test_reversed_and_zero_pools_give_nothing() -> None:
    assert run(network(ipAssignmentPools=[{"ipRangeStart": "10.9.0.9", "ipRangeEnd": "10.9.0.1"}]))[0] == []
    assert run(network(ipAssignmentPools=[{"ipRangeStart": "0.0.0.0", "ipRangeEnd": "0.0.0.9"}]))[0] == []


def test_assigned_addresses_take_the_longest_covering_prefix() -> None:
    routes = [
        {"target": "10.0.0.0/8", "via": None},
        {"target": "10.9.0.0/24", "via": "10.0.0.1"},
        {"target": "fd00::/8", "via": None},
    ]
    record = network(routes=routes)
    assert run(record, member("10.9.0.7", "10.1.0.7", "fd00::7", "192.0.2.1")) == (
        ["10.9.0.7/24", "10.1.0.7/8", "fd00::7/8"],
        [],
        False,
    )


def test_an_assigned_address_outside_all_routes_does_not_replace_an_automatic_one() -> None:
    assert run(network(), member("192.0.2.1")) == (["10.9.0.40/24"], ["10.9.0.40"], False)


def test_no_automatic_addresses_when_the_member_or_the_network_says_so() -> None:
    modes = network(v6AssignMode={"rfc4193": True, "6plane": True, "zt": True})
    assert run(modes, member(no_auto=True)) == ([], [], False)
    assert run(modes, member("10.9.0.7", no_auto=True)) == (["10.9.0.7/24"], [], False)
    assert run(network(v4AssignMode={"zt": False}))[0] == []


def test_addresses_that_name_their_node() -> None:
    """vl2 §5.8, example."""
    record = network(v4AssignMode={}, v6AssignMode={"rfc4193": True, "6plane": True})
    addresses, allocated, emulate = run(record, node=0xDEADBEEF01)
    assert addresses == ["fd80:56c2:e21c:0:199:93de:adbe:ef01/88", "fc9c:56c2:e3de:adbe:ef01::1/40"]
    assert allocated == []
    assert emulate


def test_an_ipv6_pool_with_room_starts_with_the_node_address() -> None:
    record = network(
        v4AssignMode={},
        v6AssignMode={"zt": True},
        routes=[{"target": "fd00:1::/64", "via": None}],
        ipAssignmentPools=[{"ipRangeStart": "fd00:1::", "ipRangeEnd": "fd00:1::ffff:ffff:ffff"}],
    )
    first = f"fd00:1::{NODE >> 32:x}:{NODE >> 16 & 0xFFFF:x}:{NODE & 0xFFFF:x}"
    assert run(record)[0] == [f"{ipaddress.ip_address(first)}/64"]
    (second,) = run(record, taken=packed(first), random=dice(1))[1]
    assert second != first
    assert ipaddress.ip_address(second) in ipaddress.ip_network("fd00:1::/64")


def test_a_small_ipv6_pool_and_routes_through_gateways() -> None:
    record = network(
        v4AssignMode={},
        v6AssignMode={"zt": True},
        routes=[{"target": "fd00:1::/64", "via": "fd00::1"}],
        ipAssignmentPools=[{"ipRangeStart": "fd00:1::10", "ipRangeEnd": "fd00:1::14"}],
    )
    assert run(record, random=dice(2))[0] == [], "pool addresses must not lie behind a gateway"
    record["routes"].append({"target": "fd00::/16", "via": None})
    found: set[bytes] = set()
    for n in range(6):
        found |= packed(*run(record, taken=found, node=NODE + n, random=dice(n))[1])
    assert found == packed("fd00:1::10", "fd00:1::11", "fd00:1::12", "fd00:1::13")


def test_at_most_32_addresses() -> None:
    assert len(run(network(), member(*(f"10.9.0.{n}" for n in range(1, 60))))[0]) == 32


ANY_IP = st.ip_addresses().map(str)
POOLS = st.lists(
    st.one_of(
        st.tuples(st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str)),
        st.tuples(st.ip_addresses(v=6).map(str), st.ip_addresses(v=6).map(str)),
    ).map(lambda pair: {"ipRangeStart": min(pair, key=ipaddress.ip_address), "ipRangeEnd": max(pair, key=ipaddress.ip_address)}),
    max_size=3,
)
ROUTES = st.lists(
    st.one_of(
        st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6).map(str), st.integers(0, 128))
    ).map(lambda pair: {"target": f"{pair[0]}/{pair[1]}", "via": None}),
    max_size=4,
)


@given(pools=POOLS, routes=ROUTES, ips=st.lists(ANY_IP, max_size=4), node=st.integers(1, 0xFEFFFFFFFF), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_whatever_is_assigned_lies_in_a_route_and_pool_addresses_in_a_pool(
    pools: list[Any], routes: list[Any], ips: list[str], node: int, seed: int
) -> None:
    record = network(routes=routes, ipAssignmentPools=pools, v6AssignMode={"zt": True})
    result = assign(NETWORK, record, node, member(*ips), packed(*ips), dice(seed))
    networks = [ipaddress.ip_network(route["target"], strict=False) for route in routes]
    for ip, bits in result.addresses:
        assert any(ipaddress.ip_address(ip) in candidate and candidate.prefixlen == bits for candidate in networks)
    for text in result.allocated:
        ip = ipaddress.ip_address(text)
        assert text not in ips
        ranges = [(ipaddress.ip_address(p["ipRangeStart"]), ipaddress.ip_address(p["ipRangeEnd"])) for p in pools]
        assert any(start.version == ip.version and int(start) <= int(ip) <= int(end) for start, end in ranges)
