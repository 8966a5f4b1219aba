"""Explanations say what the engine does (vl2 §4.2 to §4.6)."""

from __future__ import annotations

from typing import Any

import pytest

from netcon.core.rule_engine import CompiledRules, FilteredFrame, Result, Verdict
from netcon.core.rule_explain import decisive, explain
from netcon.core.rule_language import compile_rules
from netcon.core.rules import decode_rules
from tests.core.rule_cases import CASES, NAMES, filtered_frame

OWN, PEER, OBSERVER = 0x1111111111, 0x2222222222, 0x3333333333
UDP = bytes.fromhex("4500001c00010000401100000a0100010a010002") + bytes.fromhex("0035003500080000")


def frame(inbound: bool = False, payload: bytes = UDP) -> FilteredFrame:
    source, destination = (PEER, OWN) if inbound else (OWN, PEER)
    macs = b"\x02" + source.to_bytes(5), b"\x02" + destination.to_bytes(5)
    return FilteredFrame(inbound, OWN, source, destination, *macs, 0x0800, payload, bytes, {7: 1}, {})


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_explanation_agrees_with_the_evaluation(case: dict[str, Any]) -> None:
    asked = filtered_frame(case)
    rules = decode_rules(bytes.fromhex(case["rules"]))
    unknown = case.get("unknown_match_is_true", False)
    plain = CompiledRules(rules, unknown).evaluate(asked)
    (trace,) = explain(rules, [], asked, unknown_match=unknown).lists
    assert trace.outcome == plain
    assert [step.position for step in trace.steps] == list(range(len(trace.steps)))
    if trace.decided is None:
        assert plain.result is Result.NO_MATCH
        assert len(trace.steps) == len(rules)
    else:
        last = trace.steps[-1]
        assert last.position == trace.decided
        assert last.rule.is_action
        assert last.said == "done"


def said(text: str, inbound: bool = False) -> list[str]:
    (trace,) = explain(compile_rules(text).rules, [], frame(inbound)).lists
    return [step.said for step in trace.steps]


def test_each_match_says_what_it_found() -> None:
    text = "drop ethertype arp ipprotocol tcp ; drop not ethertype ipv4 ; tee 1 3333333333 icmp 8 -1 or dport 53 ; accept;"
    assert said(text) == ["no", "", "skipped", "yes", "skipped", "never", "yes", "done", "done"]
    assert said("drop teq 7 1 ; accept;")[0] == "always"


def test_the_deciding_rule() -> None:
    found = explain(compile_rules("drop ethertype arp ; accept ipprotocol udp ; drop;").rules, [], frame())
    (trace,) = found.lists
    assert found.decision.verdict is Verdict.ACCEPT
    assert trace.decided == 3
    assert decisive(found) is trace


def test_capabilities_are_shown_in_their_order() -> None:
    caps = [
        (name, compile_rules(text).rules) for name, text in (("one", "drop;"), ("two", "accept dport 53 ;"), ("three", "accept;"))
    ]
    found = explain(compile_rules("break;").rules, caps, frame())
    assert [trace.name for trace in found.lists] == ["the network's rules", "one", "two"]
    decided = decisive(found)
    assert decided is not None
    assert decided.name == "two"
    refused = explain(compile_rules("break;").rules, caps[:1], frame(inbound=True))
    assert refused.decision.verdict is Verdict.DROP
    assert decisive(refused) is None


def test_an_unconditional_accept_is_explained_too() -> None:
    found = explain(compile_rules("accept;").rules, [], frame())
    assert found.lists[0].decided == 0
    assert explain((), [], frame()).lists[0].decided is None
