"""Network and member records: defaults, coercion, revisions, and what comes from the store (service-api §4)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcon.controller.errors import CorruptStore, InvalidRequest
from netcon.controller.records import (
    load_records,
    member_key,
    network_key,
    new_member,
    new_network,
    record_text,
    revised,
    update_member,
    update_network,
)

NETWORK = 0x8056C2E21C000001
MEMBER = 0xDEADBEEF01
NOW = 1_700_000_000_000


def network_with(**changes: Any) -> dict[str, Any]:
    return update_network(new_network(NETWORK, NOW), changes)


def member_with(**changes: Any) -> dict[str, Any]:
    return update_member(new_member(NETWORK, MEMBER, NOW), changes, NOW)


# -- networks --


def test_a_new_network_has_the_documented_shape() -> None:
    assert new_network(NETWORK, NOW) == {
        "id": "8056c2e21c000001",
        "nwid": "8056c2e21c000001",
        "objtype": "network",
        "creationTime": NOW,
        "revision": 1,
        "name": "",
        "private": True,
        "enableBroadcast": True,
        "multicastLimit": 32,
        "mtu": 2800,
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"rfc4193": False, "zt": False, "6plane": False},
        "routes": [],
        "ipAssignmentPools": [],
        "rules": [{"not": False, "or": False, "type": "ACTION_ACCEPT"}],
        "capabilities": [],
        "tags": [],
        "dns": [],
        "authTokens": [None],
        "remoteTraceTarget": None,
        "remoteTraceLevel": 0,
        "rulesSource": "",
        "ssoEnabled": False,
        "clientId": "",
        "authorizationEndpoint": "",
    }


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("name", "office", "office"),
        ("name", "\ud800", "?"),
        ("name", 7, ""),
        ("private", False, False),
        ("private", 0, False),
        ("private", "true", True),
        ("private", "false", False),
        ("private", None, True),
        ("enableBroadcast", [], True),
        ("multicastLimit", "64", 64),
        ("multicastLimit", -1, 32),
        ("multicastLimit", 0, 0),
        ("mtu", 9, 1280),
        ("mtu", 99999, 10000),
        ("mtu", "1500", 1500),
        ("mtu", 1e400, 2800),
        ("mtu", {}, 2800),
        ("v4AssignMode", "zt", {"zt": True}),
        ("v4AssignMode", {"zt": 1}, {"zt": True}),
        ("v4AssignMode", {}, {"zt": False}),
        ("v4AssignMode", 1, {"zt": False}),
        ("v6AssignMode", {"zt": True}, {"zt": True}),
        ("v6AssignMode", "rfc4193,6plane", {"rfc4193": True, "zt": False, "6plane": True}),
        ("routes", [{"target": "10.0.0.0/8"}], [{"target": "10.0.0.0/8", "via": None}]),
        ("routes", [{"target": "10.0.0.0/8", "via": "fd00::1"}], [{"target": "10.0.0.0/8", "via": None}]),
        ("routes", [{"target": "::/0", "via": "FD00::1"}], [{"target": "::/0", "via": "fd00::1"}]),
        ("routes", [{"target": "10.0.0.0/33"}, {"target": "10.0.0.0"}, {"target": "x/8"}, 7, {}], []),
        ("routes", {"target": "10.0.0.0/8"}, []),
        (
            "ipAssignmentPools",
            [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"}, {"ipRangeStart": "10.0.0.1", "ipRangeEnd": "fd00::"}, {}],
            [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"}],
        ),
        ("rules", [{"type": "ACTION_DROP", "not": False}, {"type": "NONSENSE"}, 4], [{"type": "ACTION_DROP"}]),
        (
            "rules",
            [{"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": True}],
            [{"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": True, "or": False}],
        ),
        ("rules", [], []),
        (
            "capabilities",
            [{"id": 9, "default": True, "rules": [{"type": "ACTION_ACCEPT"}]}, {"id": "2"}, {"id": 9, "rules": 1}, {"id": -1}],
            [{"id": 2, "default": False, "rules": []}, {"id": 9, "default": False, "rules": []}],
        ),
        (
            "tags",
            [{"id": 5, "default": 7}, {"id": 1, "default": None}, {"id": 5}, {"default": 1}],
            [{"id": 1, "default": None}, {"id": 5, "default": None}],
        ),
        (
            "dns",
            {"domain": "lab", "servers": ["10.0.0.1", "x", "fd00::53"]},
            {"domain": "lab", "servers": ["10.0.0.1", "fd00::53"]},
        ),
        ("dns", {}, {"domain": "", "servers": []}),
        ("dns", ["10.0.0.1"], []),
        ("authTokens", {"secret": 0, "later": "99", "bad": []}, {"secret": 0, "later": 99}),
        ("authTokens", "none", [None]),
        ("remoteTraceTarget", "DEADBEEF01", "deadbeef01"),
        ("remoteTraceTarget", "short", None),
        ("remoteTraceLevel", 30, 30),
        ("id", "0000000000000000", "8056c2e21c000001"),
        ("revision", 99, 1),
        ("creationTime", 1, NOW),
        ("objtype", "member", "network"),
        ("ssoEnabled", True, False),
    ],
)
def test_network_field(field: str, given: object, kept: object) -> None:
    record = network_with(**{field: given})
    assert record[field] == kept
    assert {**record, field: None} == {**new_network(NETWORK, NOW), field: None}, "nothing else changed"


def test_unknown_fields_are_ignored() -> None:
    assert network_with(surprise=1) == new_network(NETWORK, NOW)


def test_long_arrays_are_cut() -> None:
    assert len(network_with(routes=[{"target": "10.0.0.0/8"}] * 20000)["routes"]) == 16384


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        update_network(new_network(NETWORK, NOW), body)
    with pytest.raises(InvalidRequest, match="JSON object"):
        update_member(new_member(NETWORK, MEMBER, NOW), body, NOW)


# -- members --


def test_a_new_member_has_the_documented_shape() -> None:
    assert new_member(NETWORK, MEMBER, NOW) == {
        "id": "deadbeef01",
        "address": "deadbeef01",
        "nwid": "8056c2e21c000001",
        "objtype": "member",
        "creationTime": NOW,
        "revision": 1,
        "authorized": False,
        "activeBridge": False,
        "noAutoAssignIps": False,
        "ipAssignments": [],
        "capabilities": [],
        "tags": [],
        "ssoExempt": False,
        "authenticationExpiryTime": 0,
        "remoteTraceTarget": None,
        "remoteTraceLevel": 0,
        "lastAuthorizedTime": 0,
        "lastDeauthorizedTime": 0,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedCredential": None,
        "vMajor": -1,
        "vMinor": -1,
        "vRev": -1,
        "vProto": -1,
    }


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("activeBridge", 1, True),
        ("noAutoAssignIps", "t", True),
        ("ipAssignments", ["10.0.0.1/24", "10.0.0.1", "FD00::1", "x", 4, "fe80::1%eth0"], ["10.0.0.1", "fd00::1"]),
        ("ipAssignments", "10.0.0.1", []),
        ("capabilities", [3, "1", 3, -1, None], [1, 3]),
        ("tags", [[5, 1], [2, 9], [5, 7], [1], "x", [1, -1]], [[2, 9], [5, 7]]),
        ("authenticationExpiryTime", 5, 5),
        ("remoteTraceTarget", 4, None),
        ("ssoExempt", True, False),
        ("vMajor", 3, -1),
        ("lastAuthorizedTime", 3, 0),
    ],
)
def test_member_field(field: str, given: object, kept: object) -> None:
    record = member_with(**{field: given})
    assert record[field] == kept
    assert {**record, field: None} == {**new_member(NETWORK, MEMBER, NOW), field: None}, "nothing else changed"


def test_identity_and_unknown_fields_cannot_be_written() -> None:
    assert member_with(identity="x", authenticationURL="y", surprise=1) == new_member(NETWORK, MEMBER, NOW)
    assert member_with(name="laptop")["name"] == "laptop"


def test_authorising_and_deauthorising_leave_their_times() -> None:
    record = update_member(new_member(NETWORK, MEMBER, NOW), {"authorized": True}, NOW + 1)
    assert (record["authorized"], record["lastAuthorizedTime"], record["lastDeauthorizedTime"]) == (True, NOW + 1, 0)
    assert (record["lastAuthorizedCredentialType"], record["lastAuthorizedCredential"]) == ("api", None)
    assert update_member(record, {"authorized": True}, NOW + 2) == record
    record = update_member(record, {"authorized": False}, NOW + 3)
    assert (record["authorized"], record["lastAuthorizedTime"], record["lastDeauthorizedTime"]) == (False, NOW + 1, NOW + 3)


# -- revisions --


def test_the_revision_grows_only_with_an_effective_change() -> None:
    old = new_network(NETWORK, NOW)
    assert revised(old, update_network(old, {"name": "", "mtu": 2800, "surprise": 1})) is None
    new = revised(old, update_network(old, {"name": "x"}))
    assert new is not None
    assert new["revision"] == 2
    assert old["revision"] == 1


# -- from the store --


def rows(**members: Any) -> list[tuple[str, str, str]]:
    network = {**network_with(name="x", routes=[{"target": "10.0.0.0/8"}]), "revision": 7, "certificateTimeoutWindowSize": 300000}
    member = {**member_with(authorized=True, **members), "revision": 5, "vMajor": 1, "identity": "deadbeef01:0:00"}
    return [
        ("network", network_key(NETWORK), record_text(network)),
        ("member", member_key(NETWORK, MEMBER), record_text(member)),
    ]


def test_records_come_back_from_the_store_as_they_were() -> None:
    stored = rows()
    networks, members = load_records(stored)
    assert record_text(networks[NETWORK]) == stored[0][2]
    assert record_text(members[NETWORK][MEMBER]) == stored[1][2]


def test_a_record_of_an_older_program_gets_the_defaults() -> None:
    networks, members = load_records(
        [("network", network_key(NETWORK), "{}"), ("member", member_key(NETWORK, MEMBER), '{"authorized":true}')]
    )
    assert networks[NETWORK] == new_network(NETWORK, 0)
    assert members[NETWORK][MEMBER] == {**new_member(NETWORK, MEMBER, 0), "authorized": True}


@pytest.mark.parametrize(
    "row",
    [
        ("network", "8056c2e21c000001", "{"),
        ("network", "8056c2e21c000001", "[]"),
        ("network", "8056", "{}"),
        ("network", "8056C2E21C000001", "{}"),
        ("member", "8056c2e21c000001", "{}"),
        ("member", "8056c2e21c000001/short", "{}"),
        ("member", "8056c2e21c000009/deadbeef01", "{}"),
        ("other", "8056c2e21c000001", "{}"),
        ("network", "8056c2e21c000001", "[" * 100_000),
    ],
)
def test_a_corrupt_record_is_named(row: tuple[str, str, str]) -> None:
    with pytest.raises(CorruptStore, match=row[1][:16]):
        load_records([row])


# -- anything at all --

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["10.0.0.1", "10.0.0.0/8", "fd00::/9", "zt"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "default", "rules", "target", "via", "type"]) | st.text(), inner)
    ),
    max_leaves=12,
)
RULE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["MATCH_ICMP", "MATCH_IPV4_SOURCE", "MATCH_MAC_DEST", "ACTION_TEE", "INTEGER_RANGE", "MATCH_CHARACTERISTICS"]
        )
    },
    optional=dict.fromkeys(
        ("icmpType", "icmpCode", "ip", "mac", "address", "flags", "length", "start", "end", "idx", "bits", "mask", "not", "or"),
        JSON,
    ),
)


@given(changes=st.dictionaries(st.sampled_from(sorted(new_network(0, 0))) | st.text(), JSON), rules=st.lists(RULE, max_size=3))
@settings(deadline=None)
def test_any_json_makes_a_sound_network(changes: dict[str, Any], rules: list[Any]) -> None:
    old = new_network(NETWORK, NOW)
    record = update_network(update_network(old, changes), {"rules": rules})
    assert record.keys() == old.keys()
    text = json.dumps(record, allow_nan=False)
    assert text.encode("utf-8")
    networks, _ = load_records([("network", network_key(NETWORK), text)])
    assert networks[NETWORK] == record, "what is kept is stable"


@given(changes=st.dictionaries(st.sampled_from(sorted(new_member(0, 0, 0))) | st.text(), JSON))
@settings(deadline=None)
def test_any_json_makes_a_sound_member(changes: dict[str, Any]) -> None:
    old = new_member(NETWORK, MEMBER, NOW)
    record = update_member(old, changes, NOW)
    assert record.keys() - {"name"} == old.keys()
    stored = [("network", network_key(NETWORK), "{}"), ("member", member_key(NETWORK, MEMBER), json.dumps(record, allow_nan=False))]
    assert load_records(stored)[1][NETWORK][MEMBER] == record
