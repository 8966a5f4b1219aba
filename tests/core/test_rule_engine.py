"""The rules evaluator against the golden vectors of the real core, and the filters around it (vl2 §4.2 to §4.6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import Endpoint, parse_address, rfc4193_address, sixplane_address
from netcon.core.credentials import Capability
from netcon.core.messages import ExtFrame
from netcon.core.netconf import FLAG_NDP_EMULATION, NetworkConfig
from netcon.core.rule_engine import (
    CompiledRules,
    CopyTo,
    FilteredFrame,
    FrameCopy,
    Result,
    Verdict,
    compile_capabilities,
    emulated_prefixes,
    filter_inbound,
    filter_outbound,
)
from netcon.core.rules import ACCEPT_ALL, Rule, RuleType, decode_rules, rule_from_json
from tests.core.rule_cases import CASES, NAMES, filtered_frame, no_random


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_rule_list(case: dict[str, Any]) -> None:
    frame = filtered_frame(case)
    rules = CompiledRules(decode_rules(bytes.fromhex(case["rules"])), case.get("unknown_match_is_true", False))
    expect = case["expect"]
    outcome = rules.evaluate(frame)
    assert outcome.result.value == expect["result"]
    assert outcome.redirect_to == int(expect.get("redirect_to", "0"), 16)
    if "copy_to" in expect:
        assert outcome.copy == CopyTo(parse_address(expect["copy_to"]), expect["copy_length"], expect["copy_watched"])
    else:
        assert outcome.copy is None


def rules(*forms: dict[str, Any]) -> list[Rule]:
    return [rule_from_json(form) for form in forms]


ACCEPT, DROP, BREAK = ({"type": f"ACTION_{name}"} for name in ("ACCEPT", "DROP", "BREAK"))
OWN, PEER, OBSERVER = 0x1111111111, 0x2222222222, 0x3333333333
UDP = bytes.fromhex("4500001c00010000401100000a0100010a010002") + bytes.fromhex("0035003500080000")


def frame(inbound: bool = False, payload: bytes = UDP, ethertype: int = 0x0800, **changes: Any) -> FilteredFrame:
    source, destination = (PEER, OWN) if inbound else (OWN, PEER)
    made = FilteredFrame(
        inbound,
        OWN,
        source,
        destination,
        b"\x02" + source.to_bytes(5),
        b"\x02" + destination.to_bytes(5),
        ethertype,
        payload,
        no_random,
        {},
        {},
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_accept_all_is_seen_without_looking() -> None:
    compiled = CompiledRules(ACCEPT_ALL)
    assert compiled.accepts_all
    assert filter_outbound(compiled, (), frame()).verdict is Verdict.ACCEPT
    assert filter_inbound(compiled, (), frame(inbound=True)).verdict is Verdict.ACCEPT
    assert not CompiledRules(rules(DROP, ACCEPT)).accepts_all


def test_no_rules_let_nothing_through() -> None:
    compiled = CompiledRules(())
    assert not compiled.accepts_all
    assert filter_outbound(compiled, (), frame()).verdict is Verdict.DROP
    assert filter_inbound(compiled, (), frame(inbound=True)).verdict is Verdict.DROP


def capabilities(*lists: list[Rule]) -> tuple[CompiledRules, ...]:
    return compile_capabilities(Capability(1, 1, number, tuple(entries)) for number, entries in enumerate(lists))


@pytest.mark.parametrize("inbound", [False, True])
def test_capabilities_are_asked_when_the_network_decided_nothing(inbound: bool) -> None:
    run = filter_inbound if inbound else filter_outbound
    undecided = CompiledRules(rules(BREAK))
    assert run(undecided, capabilities(rules(ACCEPT)), frame(inbound)).accepted
    assert run(undecided, capabilities(rules(DROP), rules(ACCEPT)), frame(inbound)).accepted, "a capability cannot drop"
    assert not run(undecided, capabilities(rules(DROP), rules(BREAK)), frame(inbound)).accepted
    assert not run(CompiledRules(rules(DROP)), capabilities(rules(ACCEPT)), frame(inbound)).accepted, "the network can"


def test_capabilities_are_asked_in_the_order_of_their_ids() -> None:
    tee = {"type": "ACTION_TEE", "address": f"{OBSERVER:010x}", "length": 5}
    held = [Capability(1, 1, 9, tuple(rules(ACCEPT))), Capability(1, 1, 2, tuple(rules(tee, ACCEPT)))]
    decision = filter_outbound(CompiledRules(rules(BREAK)), compile_capabilities(held), frame())
    assert decision.copies == (FrameCopy(OBSERVER, ExtFrame.TEE_OUTBOUND, 5),)


def forward(kind: str, target: int = OBSERVER, length: int = 0) -> dict[str, Any]:
    return {"type": f"ACTION_{kind}", "address": f"{target:010x}", "length": length}


@pytest.mark.parametrize(
    ("inbound", "kind", "flags"), [(False, "TEE", 0x02), (False, "WATCH", 0x16), (True, "TEE", 0x08), (True, "WATCH", 0x1C)]
)
def test_copies(inbound: bool, kind: str, flags: int) -> None:
    run = filter_inbound if inbound else filter_outbound
    compiled = CompiledRules(rules(forward(kind, length=20), ACCEPT))
    assert run(compiled, (), frame(inbound)) == (Verdict.ACCEPT, (FrameCopy(OBSERVER, flags, 20),))
    dropping = CompiledRules(rules(forward(kind, length=20), DROP))
    assert run(dropping, (), frame(inbound)) == (Verdict.DROP, ())


def test_network_and_capability_may_each_cause_a_copy() -> None:
    compiled = CompiledRules(rules(forward("TEE"), BREAK))
    decision = filter_outbound(compiled, capabilities(rules(forward("WATCH", 0x4444444444, 9), ACCEPT)), frame())
    assert decision.copies == (
        FrameCopy(OBSERVER, ExtFrame.TEE_OUTBOUND, len(UDP)),
        FrameCopy(0x4444444444, ExtFrame.WATCH_OUTBOUND, 9),
    )


def test_no_copies_in_the_second_pass() -> None:
    compiled = CompiledRules(rules(forward("TEE"), ACCEPT))
    assert filter_outbound(compiled, (), frame(), tee=False) == (Verdict.ACCEPT, ())


@pytest.mark.parametrize(("inbound", "flags"), [(False, 0x04), (True, 0x0A)])
def test_redirect(inbound: bool, flags: int) -> None:
    run = filter_inbound if inbound else filter_outbound
    compiled = CompiledRules(rules(forward("REDIRECT")))
    decision = run(compiled, (), frame(inbound))
    assert decision == (Verdict.REDIRECT, (FrameCopy(OBSERVER, flags, len(UDP)),))
    assert not decision.accepted


def test_a_target_of_tee_takes_what_is_not_addressed_to_it() -> None:
    compiled = CompiledRules(rules(forward("TEE"), DROP))
    seen = frame(inbound=True, own=OBSERVER)
    assert filter_inbound(compiled, (), seen).verdict is Verdict.SUPER_ACCEPT


def test_state_of_one_list_does_not_leak_into_the_next() -> None:
    unknown_tag = {"type": "MATCH_TAGS_EQUAL", "id": 7, "value": 6}
    asked = frame(local_tags={7: 6})
    first = CompiledRules(rules(unknown_tag, BREAK))
    assert first.evaluate(asked).result is Result.NO_MATCH
    assert CompiledRules(rules(DROP)).evaluate(asked).result is Result.DROP


def test_random() -> None:
    half = CompiledRules(rules({"type": "MATCH_RANDOM", "probability": 0x7FFFFFFF}, ACCEPT))
    assert half.evaluate(frame(random=lambda length: b"\x7f\xff\xff\xff"[:length])).result is Result.ACCEPT
    assert half.evaluate(frame(random=lambda length: b"\x80\0\0\0"[:length])).result is Result.NO_MATCH


MAC_OWNED = rules({"type": "MATCH_CHARACTERISTICS", "mask": "0800000000000000"}, ACCEPT)
IP_OWNED = rules({"type": "MATCH_CHARACTERISTICS", "mask": "1000000000000000"}, ACCEPT)


def test_owned_macs() -> None:
    assert CompiledRules(MAC_OWNED).evaluate(frame(owned_macs=frozenset((b"\x02" + OWN.to_bytes(5),)))).result is Result.ACCEPT
    assert CompiledRules(MAC_OWNED).evaluate(frame()).result is Result.NO_MATCH


def test_emulated_addresses_need_no_certificate_inbound() -> None:
    network = 0x8056C2E21C000001
    config = NetworkConfig(
        network,
        OWN,
        flags=FLAG_NDP_EMULATION,
        addresses=(Endpoint(sixplane_address(network, OWN), 40), Endpoint(rfc4193_address(network, OWN), 88)),
    )
    prefixes = emulated_prefixes(config)
    assert [len(prefix) for prefix in prefixes] == [5, 11]
    assert emulated_prefixes(NetworkConfig(network, OWN, addresses=config.addresses)) == ()
    assert emulated_prefixes(NetworkConfig(network, OWN, flags=FLAG_NDP_EMULATION)) == ()
    compiled = CompiledRules(IP_OWNED)
    for theirs in (sixplane_address(network, PEER), rfc4193_address(network, PEER)):
        packet = bytes.fromhex("6000000000003b40") + theirs + bytes(16)
        assert compiled.evaluate(frame(True, packet, 0x86DD, own_prefixes=prefixes)).result is Result.ACCEPT
        assert compiled.evaluate(frame(False, packet, 0x86DD, own_prefixes=prefixes)).result is Result.NO_MATCH
        assert compiled.evaluate(frame(True, packet, 0x86DD)).result is Result.NO_MATCH


EVERY_TYPE = [Rule(kind, bytes(19)) for kind in RuleType if kind > 15]


@given(st.binary(max_size=90), st.sampled_from([0x0800, 0x0806, 0x86DD, 0x1234]), st.booleans(), st.integers(0, 255))
def test_hostile_frames_never_break_a_match(payload: bytes, ethertype: int, inbound: bool, first: int) -> None:
    asked = frame(inbound, bytes((first,)) + payload, ethertype, local_tags={0: 0}, remote_tags={0: 0}, random=bytes)
    for rule in EVERY_TYPE:
        for index in (0, 60):
            data = bytes(16) + index.to_bytes(2) + b"\xbf"
            tried = rule._replace(data=data) if rule.type == RuleType.MATCH_INTEGER_RANGE else rule
            assert CompiledRules([tried, Rule(RuleType.ACTION_ACCEPT)]).evaluate(asked).result in Result
