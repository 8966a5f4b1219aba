"""Management calls with any JSON: a sound record or the typed error, and a configuration afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from netcon.controller import ControllerError, InvalidRequest
from netcon.controller.records import new_member, new_network
from tests.controller.lab import NETWORK, Lab, node

TEXTS = st.sampled_from(
    [
        "10.9.0.1",
        "10.9.0.0/24",
        "0.0.0.0/0",
        "fd00::1",
        "fd00::/64",
        "fd00::ffff:ffff:ffff:ffff",
        "zt",
        "token:x",
        "MATCH_ICMP",
        "00000000aa",
    ]
)
NUMBERS = st.integers(-2, 70) | st.sampled_from([2**31, 2**32, 2**63, 2**64, -(2**63)]) | st.floats()
KEYS = st.sampled_from(
    [
        "id",
        "default",
        "rules",
        "type",
        "target",
        "via",
        "ipRangeStart",
        "ipRangeEnd",
        "zt",
        "rfc4193",
        "6plane",
        "domain",
        "servers",
        "ip",
        "mac",
        "start",
        "end",
        "not",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
TAG = st.fixed_dictionaries({"id": NUMBERS, "default": NUMBERS})
CAPABILITY = st.fixed_dictionaries({"id": NUMBERS, "default": st.booleans(), "rules": JSON})
LIKELY = {
    "routes": st.lists(st.fixed_dictionaries({"target": TEXTS, "via": TEXTS | st.none()}), max_size=4),
    "ipAssignmentPools": st.lists(st.fixed_dictionaries({"ipRangeStart": TEXTS, "ipRangeEnd": TEXTS}), max_size=3),
    "v4AssignMode": st.just({"zt": True}),
    "v6AssignMode": st.just({"zt": True, "rfc4193": True, "6plane": True}),
    "tags": st.lists(TAG | st.lists(NUMBERS, min_size=2, max_size=2), max_size=4),
    "capabilities": st.lists(NUMBERS | CAPABILITY, max_size=4),
    "ipAssignments": st.lists(TEXTS, max_size=4),
    "private": st.booleans(),
    "mtu": NUMBERS,
    "multicastLimit": NUMBERS,
    "authorized": st.just(True),
}


def body(fields: list[str]) -> st.SearchStrategy[Any]:
    known = {field: LIKELY.get(field, JSON) | JSON for field in fields}
    return JSON | st.fixed_dictionaries({}, optional=known)


def outcome(call: Callable[[], Any]) -> Any:
    """The record, or the typed error; anything else ends the test."""
    try:
        return call()
    except ControllerError as error:
        return error


@given(
    network=st.lists(body(sorted(new_network(0, 0))), max_size=3),
    member=st.lists(body(sorted(new_member(0, 0, 0))), max_size=3),
    metadata=st.dictionaries(st.sampled_from(["v", "pv", "majv", "revr", "a"]), st.binary(max_size=12)),
)
@settings(deadline=None, max_examples=200)
def test_any_json_is_taken_or_refused_with_the_typed_error(
    network: list[Any], member: list[Any], metadata: dict[str, bytes]
) -> None:
    lab = Lab()
    controller = lab.controller
    lab.network()
    lab.ask(node(1))
    for changes in network:
        result = outcome(lambda changes=changes: controller.update_network(lab.now, NETWORK, changes))
        assert result == controller.get_network(NETWORK) if isinstance(changes, dict) else isinstance(result, InvalidRequest)
    for changes in member:
        result = outcome(lambda changes=changes: controller.update_member(lab.now, NETWORK, node(1).address, changes))
        if isinstance(changes, dict):
            assert result == controller.get_member(NETWORK, node(1).address)
        else:
            assert isinstance(result, InvalidRequest)
    lab.settle()
    lab.authorize(node(1))
    lab.now += 2000
    assert lab.served(node(1), metadata=metadata).issued_to == node(1).address
    stored = lab.store.load()
    lab.start()
    assert lab.controller.get_member(NETWORK, node(1).address)["authorized"]
    assert lab.store.load() == stored


@given(network=st.integers(-1, 1 << 65), member=st.integers(-1, 1 << 41))
@example(network=0, member=1)
@example(network=NETWORK, member=0xFF00000001)
def test_any_id_is_taken_or_refused_with_the_typed_error(network: int, member: int) -> None:
    lab = Lab()
    controller = lab.controller
    network_valid = 0 < network < 1 << 64
    member_valid = network_valid and 0 < member < 0xFF << 32
    expected = [
        (network_valid, lambda: controller.create_network(lab.now, {}, network)),
        (member_valid, lambda: controller.update_member(lab.now, network, member, {})),
        (member_valid, lambda: controller.get_member(network, member)),
        (member_valid, lambda: controller.delete_member(lab.now, network, member)),
        (False, lambda: controller.get_member(network, member)),
        (network_valid, lambda: controller.delete_network(lab.now, network)),
        (False, lambda: controller.delete_network(lab.now, network)),
        (False, lambda: controller.get_network(network)),
        (False, lambda: controller.list_members(network)),
    ]
    for succeeds, call in expected:
        assert isinstance(outcome(call), dict) is succeeds
    lab.settle()
    assert lab.store.load() == []
