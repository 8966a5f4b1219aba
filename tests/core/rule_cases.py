"""The cases of rules_eval.json as the evaluator takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from netcon.core.address import parse_address, parse_ip
from netcon.core.rule_engine import FilteredFrame

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "rules_eval.json").read_text())["cases"]
NAMES = [f"{number}-{case['name']}" for number, case in enumerate(CASES)]
#: Credential lifetime in the vectors, milliseconds.
DELTA = 7_200_000


def no_random(length: int) -> bytes:
    raise AssertionError("no rule here needs randomness")


def tags(entries: list[list[int]]) -> dict[int, int]:
    return {tag: value for tag, value, *age in entries if not age or abs(age[0]) <= DELTA}


def filtered_frame(case: dict[str, Any]) -> FilteredFrame:
    """The frame of a case, with what is known about its two ends."""
    owned = case.get("remote_owned" if case["inbound"] else "local_owned", [])
    return FilteredFrame(
        case["inbound"],
        parse_address(case["own_address"]),
        parse_address(case["source_address"]),
        parse_address(case["destination_address"]),
        bytes.fromhex(case["source_mac"]),
        bytes.fromhex(case["destination_mac"]),
        case["ethertype"],
        bytes.fromhex(case["frame"]),
        no_random,
        tags(case.get("local_tags", [])),
        tags(case.get("remote_tags", [])),
        frozenset(map(parse_ip, owned)),
    )
