"""Rules: binary and JSON forms against the golden vectors and vl2 appendix A (vl2 §4.1, §4.7)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import format_ip
from netcon.core.errors import DecodeError
from netcon.core.rules import Rule, RuleType, decode_rules, encode_rules, prefix_of, rule_from_json, rule_to_json

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "netconf.json").read_text())
CREDENTIALS = VECTORS["credentials"]

#: The vectors' names of JSON fields, where they differ from the controller's.
FIELD_NAMES = {
    "vlan": "vlanId",
    "pcp": "vlanPcp",
    "dei": "vlanDei",
    "protocol": "ipProtocol",
    "ethertype": "etherType",
    "tag": "id",
    "type": "icmpType",
}


@pytest.mark.parametrize("case", CREDENTIALS["rules"], ids=lambda case: case["name"])
def test_rule(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    (rule,) = decode_rules(data)
    assert (rule.type, rule.negated, rule.alternative) == (case["type"], case["not"], case["or"])
    assert rule.is_action == (case["type"] < 16)
    assert encode_rules([rule]) == data
    if case["name"].startswith("unknown"):
        with pytest.raises(DecodeError):
            rule_to_json(rule)
        return
    form = rule_to_json(rule)
    again = rule_from_json(json.loads(json.dumps(form)))
    if rule.type == RuleType.ACTION_REDIRECT:
        assert again.data[:12] == rule.data[:12]  # the length, which means nothing here, has no JSON form
    else:
        assert again == rule
    for name, value in case["value"].items():
        if (key := FIELD_NAMES.get(name, name)) in form and isinstance(value, int):
            assert form[key] == value


def test_all_rules_in_one_list() -> None:
    data = bytes.fromhex(CREDENTIALS["rules_all_concatenated"])
    rules = decode_rules(data)
    assert len(rules) == CREDENTIALS["rules_all_count"]
    assert encode_rules(rules) == data


def captured(name: str) -> dict[str, Any]:
    return next(case for case in VECTORS["captured_configurations"] if case["name"] == name)


def test_json_rules_compile_to_what_the_reference_controller_sends() -> None:
    case = captured("net2_every_feature")
    sent = bytes.fromhex(next(entry["value_bytes"] for entry in case["entries"] if entry["key"] == "R"))
    # The reference discards INTEGER_RANGE (vl2 §4.7).
    kept = [rule for rule in case["controller_settings"]["rules"] if rule["type"] != "INTEGER_RANGE"]
    assert encode_rules(map(rule_from_json, kept)) == sent


def test_appendix_rule_list() -> None:
    data = bytes.fromhex(
        "a50286dd00001805deadbeef011a0200071e060102030405061f050a010200186211fd0000000000000000000000000000010823"
        "03fc081026030801012804005001bb290880000000000000022b047fffffff2c08000003e80000000333130000000000000064"
        "000000000000009b000c8f020e000000deadbeef0200000000008006000100"
    )
    forms: list[dict[str, Any]] = [
        {"type": "MATCH_ETHERTYPE", "not": True, "or": False, "etherType": 0x86DD},
        {"type": "ACTION_DROP"},
        {"type": "MATCH_SOURCE_ZEROTIER_ADDRESS", "not": False, "or": False, "zt": "deadbeef01"},
        {"type": "MATCH_VLAN_ID", "not": False, "or": False, "vlanId": 7},
        {"type": "MATCH_MAC_DEST", "not": False, "or": False, "mac": "01:02:03:04:05:06"},
        {"type": "MATCH_IPV4_SOURCE", "not": False, "or": False, "ip": "10.1.2.0/24"},
        {"type": "MATCH_IPV6_DEST", "not": False, "or": True, "ip": "fd00::1/8"},
        {"type": "MATCH_IP_TOS", "not": False, "or": False, "mask": 0xFC, "start": 8, "end": 16},
        {"type": "MATCH_ICMP", "not": False, "or": False, "icmpType": 8, "icmpCode": 1},
        {"type": "MATCH_IP_DEST_PORT_RANGE", "not": False, "or": False, "start": 80, "end": 443},
        {"type": "MATCH_CHARACTERISTICS", "not": False, "or": False, "mask": "8000000000000002"},
        {"type": "MATCH_RANDOM", "not": False, "or": False, "probability": 0x7FFFFFFF},
        {"type": "MATCH_TAGS_DIFFERENCE", "not": False, "or": False, "id": 1000, "value": 3},
        {
            "type": "INTEGER_RANGE",
            "not": False,
            "or": False,
            "start": "0000000000000064",
            "end": "000000000000009b",
            "idx": 12,
            "little": True,
            "bits": 16,
        },
        {"type": "ACTION_TEE", "address": "deadbeef02", "flags": 0, "length": 128},
        {"type": "ACTION_PRIORITY"},
        {"type": "ACTION_ACCEPT"},
    ]
    assert encode_rules(map(rule_from_json, forms)) == data
    assert list(map(rule_to_json, decode_rules(data))) == forms


def test_json_conveniences() -> None:
    assert rule_from_json({"type": "MATCH_IP_DEST_PORT_RANGE", "start": 80}).data == b"\0\x50\0\x50"
    assert rule_from_json({"type": "ACTION_TEE", "address": "deadbeef02", "length": -1}).data[-2:] == b"\xff\xff"
    assert rule_from_json({"type": "MATCH_CHARACTERISTICS", "mask": 2}).data == bytes(7) + b"\2"
    assert rule_from_json({"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": None}).data == b"\x08\0\0"
    assert rule_from_json({"type": "MATCH_MAC_DEST", "mac": "010203040506"}).data == bytes(range(1, 7))


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        "ACTION_DROP",
        {},
        {"type": "ACTION_NOTHING"},
        {"type": "MATCH_VLAN_ID"},
        {"type": "MATCH_VLAN_ID", "vlanId": 65536},
        {"type": "MATCH_VLAN_ID", "vlanId": -1},
        {"type": "MATCH_VLAN_ID", "vlanId": True},
        {"type": "MATCH_VLAN_ID", "vlanId": "1"},
        {"type": "MATCH_IPV4_SOURCE", "ip": "10.0.0.1"},
        {"type": "MATCH_IPV4_SOURCE", "ip": "fd00::/8"},
        {"type": "MATCH_IPV6_DEST", "ip": "10.0.0.0/8"},
        {"type": "MATCH_MAC_DEST", "mac": "01:02"},
        {"type": "ACTION_TEE"},
        {"type": "ACTION_TEE", "address": "deadbeef02", "length": 65536},
        {"type": "MATCH_CHARACTERISTICS", "mask": "no"},
        {"type": "MATCH_CHARACTERISTICS", "mask": "1" * 17},
        {"type": "INTEGER_RANGE", "start": 2, "end": 1, "idx": 0, "bits": 8},
        {"type": "INTEGER_RANGE", "start": 0, "end": 1 << 32, "idx": 0, "bits": 8},
        {"type": "INTEGER_RANGE", "start": 0, "end": 1, "idx": 0, "bits": 65},
        {"type": "INTEGER_RANGE", "start": 0, "end": 1, "idx": 0, "bits": 0},
    ],
)
def test_bad_json_is_refused_with_a_reason(form: Any) -> None:
    with pytest.raises(DecodeError, match=r".+"):
        rule_from_json(form)


def test_prefix_of_a_rule() -> None:
    prefix = prefix_of(rule_from_json({"type": "MATCH_IPV6_SOURCE", "ip": "fd00::/8"}))
    assert (format_ip(prefix.ip), prefix.port) == ("fd00::", 8)


def test_unknown_types_are_kept_with_their_data() -> None:
    data = bytes.fromhex("3c036162630100")
    assert decode_rules(data) == (Rule(60, b"abc"), Rule(RuleType.ACTION_ACCEPT))
    assert encode_rules(decode_rules(data)) == data


@pytest.mark.parametrize("data", ["01", "020e00", "1a0107", "3313ff"])
def test_rules_cut_short_are_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_rules(bytes.fromhex(data))


@given(st.binary(max_size=120))
def test_arbitrary_bytes_raise_nothing_but_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        rules = decode_rules(data)
        assert encode_rules(rules) == data
        for rule in rules:
            with suppress(DecodeError):
                rule_to_json(rule)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5
    )
)
def test_arbitrary_json_raises_nothing_but_decode_error(form: Any) -> None:
    with suppress(DecodeError):
        rule_from_json(form)


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["large", "small"])
@pytest.mark.parametrize(
    "rule",
    [
        {"type": "INTEGER_RANGE", "start": 0},
        {"type": "MATCH_ETHERTYPE", "etherType": 0},
        {"type": "ACTION_TEE", "length": 0},
        {"type": 0},
    ],
)
def test_numbers_that_python_writes_no_text_of_are_refused_with_a_text(rule: dict[str, Any], number: int) -> None:
    """Found by fuzzing: the message of the refusal failed."""
    for source in (rule | {list(rule)[-1]: number, "address": "1234567890"}, [number]):
        with pytest.raises(DecodeError, match="thousands of digits"):
            rule_from_json(source)
