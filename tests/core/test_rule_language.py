"""The rule language, there and back (vl2 §4.8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.errors import DecodeError
from netcon.core.rule_decompiler import NotExpressible, decompile_rules, rule_set_from_json, rule_text
from netcon.core.rule_language import ACTION_TYPES, SIMPLE_MATCHES, TAG_MATCHES, RuleSet, RuleSyntaxError, compile_rules
from netcon.core.rules import Rule, RuleType, decode_rules, encode_rules, rule_to_json

EXAMPLE = """\
drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6 ;
macro web($p) accept ipprotocol tcp and dport $p ; ;
tag team id 7 enum 1 red enum 2 blue flag 4 oncall default red ;
cap ops id 12 accept ipprotocol tcp dport 22 or dport 3389 ; ;
include web(80-443)
accept tseq team red and treq team 2 ;
tee 128 deadbeef01 chr inbound ;
accept;
"""
#: The rules of vl2 appendix A, in words and in bytes.
APPENDIX = """
drop not ethertype ipv6 ;
drop ztsrc deadbeef01 vlan 7 macdest 01:02:03:04:05:06 ipsrc 10.1.2.0/24 or ipdest fd00::1/8 iptos 0xfc 8-16 icmp 8 1
     dport 80-443 chr inbound,tcp_syn random 0.5 tdiff 1000 3 ;
tee 128 deadbeef02 ;
accept;
"""
APPENDIX_BYTES = bytes.fromhex(
    "a50286dd0000"
    "1805deadbeef01"
    "1a020007"
    "1e06010203040506"
    "1f050a01020018"
    "6211fd00000000000000000000000000000108"
    "2303fc0810"
    "2603080101"
    "280400500 1bb".replace(" ", "")
    + "29088000000000000002"
    + "2b047fffffff"
    + "2c08000003e800000003"
    + "0000"
    + "020e000000deadbeef02000000000080"
    + "0100"
)


def test_the_example_of_the_specification() -> None:
    found = compile_rules(EXAMPLE).to_json()
    config = found["config"]
    short = [
        (rule["type"], *(rule[key] for key in sorted(rule) if key not in ("type", "not", "or", "flags")))
        for rule in config["rules"]
    ]
    assert short == [
        ("MATCH_ETHERTYPE", 2048),
        ("MATCH_ETHERTYPE", 2054),
        ("MATCH_ETHERTYPE", 34525),
        ("ACTION_DROP",),
        ("MATCH_IP_PROTOCOL", 6),
        ("MATCH_IP_DEST_PORT_RANGE", 443, 80),
        ("ACTION_ACCEPT",),
        ("MATCH_TAG_SENDER", 7, 1),
        ("MATCH_TAG_RECEIVER", 7, 2),
        ("ACTION_ACCEPT",),
        ("MATCH_CHARACTERISTICS", "8000000000000000"),
        ("ACTION_TEE", "deadbeef01", 128),
        ("ACTION_ACCEPT",),
    ]
    assert [rule["not"] for rule in config["rules"][:3]] == [True, True, True]
    assert config["rules"][5] == {"type": "MATCH_IP_DEST_PORT_RANGE", "not": False, "or": False, "start": 80, "end": 443}
    (cap,) = config["capabilities"]
    assert (cap["id"], cap["default"], len(cap["rules"])) == (12, False, 4)
    assert cap["rules"][2] == {"type": "MATCH_IP_DEST_PORT_RANGE", "not": False, "or": True, "start": 3389, "end": 3389}
    assert config["tags"] == [{"id": 7, "default": 1}]
    assert found["capabilitiesByName"] == {"ops": 12}
    assert found["tagsByName"] == {"team": {"id": 7, "default": 1, "enums": {"red": 1, "blue": 2}, "flags": {"oncall": 16}}}


def test_binary_form_as_in_the_appendix() -> None:
    compiled = compile_rules(APPENDIX)
    assert encode_rules(compiled.rules) == APPENDIX_BYTES
    (warning,) = compiled.warnings
    assert (warning.line, warning.column) == (3, 84)
    assert "fd00::1/8 matches nothing" in warning.message


def one(text: str) -> Rule:
    """The only match of `drop <text> ;`."""
    match, action = compile_rules(f"drop {text} ;").rules
    assert action == Rule(RuleType.ACTION_DROP)
    return match


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("ztdest DEADBEEF01", RuleType.MATCH_DEST_ZEROTIER_ADDRESS, "deadbeef01"),
        ("vlanpcp 3", RuleType.MATCH_VLAN_PCP, "03"),
        ("vlandei 1", RuleType.MATCH_VLAN_DEI, "01"),
        ("ethertype 0x88cc", RuleType.MATCH_ETHERTYPE, "88cc"),
        ("ethertype ipx_b", RuleType.MATCH_ETHERTYPE, "8138"),
        ("macsrc 0211.2233.4455", RuleType.MATCH_MAC_SOURCE, "021122334455"),
        ("macsrc 02-11-22-33-44-55", RuleType.MATCH_MAC_SOURCE, "021122334455"),
        ("ipdest 10.0.0.0/8", RuleType.MATCH_IPV4_DEST, "0a00000008"),
        ("ipsrc fd00::/8", RuleType.MATCH_IPV6_SOURCE, "fd" + "00" * 15 + "08"),
        ("ipprotocol icmpv6", RuleType.MATCH_IP_PROTOCOL, "3a"),
        ("ipprotocol 99", RuleType.MATCH_IP_PROTOCOL, "63"),
        ("icmp 8 -1", RuleType.MATCH_ICMP, "080000"),
        ("icmp 3 4", RuleType.MATCH_ICMP, "030401"),
        ("sport 53", RuleType.MATCH_IP_SOURCE_PORT_RANGE, "00350035"),
        ("framesize 0-1500", RuleType.MATCH_FRAME_SIZE_RANGE, "000005dc"),
        ("chr 63,31,0", RuleType.MATCH_CHARACTERISTICS, "8000000080000001"),
        ("chr tcp_rs0,tcp_rs1,tcp_rs2", RuleType.MATCH_CHARACTERISTICS, "0000000000000e00"),
        ("random 1.0", RuleType.MATCH_RANDOM, "ffffffff"),
        ("random 0.25", RuleType.MATCH_RANDOM, "3fffffff"),
        ("tand 5 0x10", RuleType.MATCH_TAGS_BITWISE_AND, "0000000500000010"),
    ],
)
def test_matches(text: str, kind: RuleType, data: str) -> None:
    assert one(text) == Rule(kind, bytes.fromhex(data))
    assert one(f"not {text}") == Rule(kind, bytes.fromhex(data), negated=True)
    assert one(f"or not {text}") == Rule(kind, bytes.fromhex(data), negated=True, alternative=True)


def test_actions() -> None:
    compiled = compile_rules("watch -1 deadbeef01 ; redirect deadbeef02 vlan 1 ; break vlan 2 ; accept")
    assert [rule.type for rule in compiled.rules if rule.is_action] == [
        RuleType.ACTION_WATCH,
        RuleType.ACTION_REDIRECT,
        RuleType.ACTION_BREAK,
        RuleType.ACTION_ACCEPT,
    ]
    assert compiled.rules[0].data == bytes.fromhex("000000deadbeef0100000000ffff")
    assert rule_to_json(compiled.rules[2]) == {"type": "ACTION_REDIRECT", "address": "deadbeef02", "flags": 0}


def test_statements_may_be_unconditional_anywhere() -> None:
    assert [rule.type for rule in compile_rules("break; accept; drop;").rules] == [5, 1, 0]
    (cap,) = compile_rules("cap all id 1 accept; ;").capabilities
    assert cap.rules == (Rule(RuleType.ACTION_ACCEPT),)


def test_comments_and_layout_do_not_matter() -> None:
    spread = compile_rules("# all of IPv4\r\naccept\n\tethertype ipv4 # not IPv6\n;\r\n#accept;\n")
    assert spread.rules == compile_rules("accept ethertype ipv4;").rules
    assert spread.lines == (2, 2)
    assert compile_rules("").rules == ()
    assert compile_rules("# nothing").rules == ()


def test_macros() -> None:
    text = """
    macro port($proto,$p) ipv4only ; """
    with pytest.raises(RuleSyntaxError):
        compile_rules(text)
    nested = compile_rules(
        """
        macro both($p) include one(tcp,$p) include one(udp,$p) ;
        macro one($proto,$p) accept ipprotocol $proto and dport $p ; ;
        include both(53)
        include Both(80-81) ;
        """
    )
    assert [rule.data.hex() for rule in nested.rules if not rule.is_action] == [
        *("06", "00350035", "11", "00350035"),
        *("06", "00500051", "11", "00500051"),
    ]
    assert compile_rules("macro all accept ; ; include all").rules == (Rule(RuleType.ACTION_ACCEPT),)


def test_tags_have_values_by_name() -> None:
    compiled = compile_rules(
        """
        tag dept id 0x10 enum 100 sales enum 200 Engineering default engineering ;
        tag role id 2 flag 0 ops flag 31 dev flag ops,dev,4 both default 0 ;
        drop not tdiff dept 0 ;
        accept tand role both treq dept Sales teq 2 dev ;
        """
    )
    dept, role = compiled.tags
    assert (dept.id, dept.default, dict(dept.enums)) == (16, 200, {"sales": 100, "engineering": 200})
    assert dict(role.flags) == {"ops": 1, "dev": 1 << 31, "both": 0x80000011}
    assert [rule.data[4:].hex() for rule in compiled.rules if not rule.is_action] == [
        "00000000",
        "80000011",
        "00000064",
        "80000000",
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("accept ethertype ipv5 ;", 1, 18, "no EtherType"),
        ("accept\n  ethertype ipv4\n  dport 99999 ;", 3, 9, "0 to 65535"),
        ("accept dport 443-80 ;", 1, 14, "ends before it begins"),
        ("accept dport 80-x ;", 1, 17, "no number"),
        ("accept dport ;", 1, 14, "dport wants an argument here"),
        ("accept icmp 8 ;", 1, 15, "icmp wants 2 arguments here"),
        ("accept icmp 8", 1, 14, "icmp wants 2 arguments here"),
        ("accept prot tcp ;", 1, 8, "no match"),
        ("accept ipprotocol tcp drop ;", 1, 23, "is a ; missing"),
        ("acept ;", 1, 1, "no statement"),
        ("ethertype ipv4 ;", 1, 1, "belongs into a statement"),
        ("priority 1 ;", 1, 1, "reserved"),
        ("accept; ;", 1, 9, "closes nothing"),
        ("accept ipsrc 10.0.0.1 ;", 1, 14, "no prefix"),
        ("accept macsrc 02:11 ;", 1, 15, "no MAC address"),
        ("accept ztsrc 1234 ;", 1, 14, "no node address"),
        ("tee 70000 deadbeef01 ;", 1, 5, "-1 to 65535"),
        ("tee 1 ;", 1, 7, "tee wants a length and an address"),
        ("accept random 1.5 ;", 1, 15, "no probability"),
        ("accept random nan ;", 1, 15, "no probability"),
        ("accept chr inbound,,tcp_syn ;", 1, 20, "missing beside this comma"),
        ("accept chr 64 ;", 1, 12, "0 to 63"),
        ("accept teq team 1 ;", 1, 12, "no tag team"),
        ("tag team id 1 enum 1 red ;\naccept teq team blue ;", 2, 17, "red"),
        ("tag team enum 1 red ;", 1, 5, "no id"),
        ("tag a id 1 ; tag A id 2 ;", 1, 18, "defined already"),
        ("tag a id 1 ; tag b id 1 ;", 1, 18, "has the id of tag a"),
        ("tag accept id 1 ;", 1, 5, "word of the language"),
        ("tag 1a id 1 ;", 1, 5, "no name"),
        ("tag a id 1 flag 32 x ;", 1, 17, "0 to 31"),
        ("tag a id 1 color 3 ;", 1, 12, "it may hold"),
        ("cap a accept; ;", 1, 5, "no id"),
        ("cap a id 1 ; cap b id 1 ;", 1, 18, "has the id of cap a"),
        ("cap a id 1 tag b id 2 ; ;", 1, 12, "top level only"),
        ("include nothing", 1, 9, "no macro"),
        ("macro m($p) drop dport $p ; ; include m", 1, 39, "takes 1 arguments, not 0"),
        ("macro m($p) drop dport $p ; ;\ninclude m(http)", 2, 11, "'http'"),
        ("macro m(p) drop; ;", 1, 9, "begins with $"),
        ("macro m($p drop; ;", 1, 7, "without blanks"),
        ("macro m ; ", 1, 7, "is empty"),
        ("macro m drop dport $q ; ;", 1, 20, "no parameter $q"),
        ("macro m include m ; include m", 1, 17, "includes itself"),
        ("drop dport $q ;", 1, 12, "no parameter of a macro here"),
    ],
)
def test_errors_point_at_their_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(RuleSyntaxError) as caught:
        compile_rules(text)
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"line {line}, column {column}: ")


def test_limits() -> None:
    assert len(compile_rules("drop;" * 1024).rules) == 1024
    with pytest.raises(RuleSyntaxError, match="line 1025, column 1: a network has at most 1024 rules"):
        compile_rules("drop;\n" * 1025)
    with pytest.raises(RuleSyntaxError, match="cap big has at most 64 rules"):
        compile_rules(f"cap big id 1 {'drop;' * 65} ;")
    with pytest.raises(RuleSyntaxError, match="more than 128 tags"):
        compile_rules("".join(f"tag t{number} id {number} ;" for number in range(129)))
    doubling = "".join(f"macro m{n} include m{n - 1} include m{n - 1} ;\n" for n in range(1, 16))
    with pytest.raises(RuleSyntaxError, match="at most 1024"):
        compile_rules(f"macro m0 drop; ;\n{doubling}include m15")


def test_the_examples_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    examples = page.split("```rules\n")[1:]
    assert examples
    for example in examples:
        compiled = compile_rules(example.partition("```")[0])
        assert compiled.rules
        assert compiled.warnings == ()


def test_the_documentation_knows_every_match() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    for word in (*SIMPLE_MATCHES, *TAG_MATCHES, *ACTION_TYPES, "ipsrc", "ipdest"):
        assert f"`{word}" in page


# -- the way back --


@pytest.mark.parametrize("text", [EXAMPLE, APPENDIX])
def test_what_was_compiled_can_be_read_again(text: str) -> None:
    compiled = compile_rules(text)
    again = compile_rules(decompile_rules(compiled))
    assert again.to_json() == compiled.to_json()


def test_decompiled_text_is_for_people() -> None:
    assert decompile_rules(compile_rules(EXAMPLE)).startswith(
        """\
tag team
	id 7
	enum 1 red
	enum 2 blue
	flag 4 oncall
	default red
;

cap ops
	id 12
	accept
		ipprotocol tcp
		and dport 22
		or dport 3389
	;
;

drop
	not ethertype ipv4
	and not ethertype arp
	and not ethertype ipv6
;
accept
	ipprotocol tcp
	and dport 80-443
;
accept
	tseq team red
	and treq team blue
;
"""
    )


def test_json_of_compiler_and_controller_is_understood() -> None:
    compiled = compile_rules(EXAMPLE)
    output = json.loads(json.dumps(compiled.to_json()))
    named = rule_set_from_json(output)
    assert decompile_rules(named) == decompile_rules(compiled)
    record = rule_set_from_json(output["config"])
    assert record.tags[0].name == "tag_7"
    assert compile_rules(decompile_rules(record)).to_json()["config"] == output["config"]
    assert rule_set_from_json(output["config"]["rules"]).rules == compiled.rules


@pytest.mark.parametrize(
    "broken",
    [
        3,
        {},
        {"rules": 3},
        {"rules": [{"type": "X"}]},
        {"capabilities": [{}]},
        {"tags": [{"id": -1}]},
        {"tags": {}},
        {"config": []},
    ],
)
def test_json_that_is_no_rule_set(broken: Any) -> None:
    with pytest.raises(DecodeError):
        rule_set_from_json(broken)


@pytest.mark.parametrize(
    "data",
    [
        "3313" + "00" * 18 + "0f" + "0100",  # integer range
        "0600",  # priority
        "020e000000deadbeef02000000010080",  # flags
        "2908" + "00" * 8 + "0000",  # no characteristic
        "28040050000a0000",  # 80 to 10
        "25020800",  # no action
        "3e000000",  # unknown match
    ],
)
def test_what_the_language_cannot_say_is_refused_with_its_place(data: str) -> None:
    rules = decode_rules(bytes.fromhex(data))
    with pytest.raises(NotExpressible):
        decompile_rules(RuleSet(rules))
    assert all(rule_text(rule) for rule in rules)


_u16 = st.integers(0, 0xFFFF)
_u32 = st.integers(0, 0xFFFFFFFF)
_range16 = st.tuples(_u16, _u16).map(lambda pair: min(pair).to_bytes(2) + max(pair).to_bytes(2))
_tag = st.binary(min_size=8, max_size=8)
_bytes = {
    **{RuleType(kind): st.binary(min_size=5, max_size=5) for kind in (24, 25)},
    RuleType.MATCH_VLAN_ID: st.binary(min_size=2, max_size=2),
    **{RuleType(kind): st.binary(min_size=1, max_size=1) for kind in (27, 28, 36)},
    **{RuleType(kind): st.binary(min_size=6, max_size=6) for kind in (29, 30)},
    **{RuleType(kind): st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 32)) for kind in (31, 32)},
    **{RuleType(kind): st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 128)) for kind in (33, 34)},
    RuleType.MATCH_IP_TOS: st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)),
    RuleType.MATCH_ETHERTYPE: st.binary(min_size=2, max_size=2),
    RuleType.MATCH_ICMP: st.one_of(
        st.integers(0, 255).map(lambda kind: bytes((kind, 0, 0))), st.binary(min_size=2, max_size=2).map(lambda two: two + b"\1")
    ),
    **{RuleType(kind): _range16 for kind in (39, 40, 42)},
    RuleType.MATCH_CHARACTERISTICS: st.integers(1, (1 << 64) - 1).map(lambda mask: mask.to_bytes(8)),
    RuleType.MATCH_RANDOM: _u32.map(lambda value: value.to_bytes(4)),
    **{RuleType(kind): _tag for kind in range(44, 51)},
}


def _data(kind: RuleType, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if kind is RuleType.MATCH_IP_TOS:
        mask, low, high = value
        return bytes((mask, min(low, high), max(low, high)))
    ip, bits = value
    return bytes(ip) + bytes((bits,))


@st.composite
def _matches(draw: st.DrawFn) -> Rule:
    kind = draw(st.sampled_from(sorted(_bytes)))
    return Rule(kind, _data(kind, draw(_bytes[kind])), draw(st.booleans()), draw(st.booleans()))


@st.composite
def _actions(draw: st.DrawFn) -> Rule:
    kind = draw(st.sampled_from(range(6)))
    if kind in (0, 1, 5):
        return Rule(kind)
    length = 0 if kind == 4 else draw(_u16)
    return Rule(kind, bytes(3) + draw(st.binary(min_size=5, max_size=5)) + bytes(4) + length.to_bytes(2))


@given(st.lists(st.tuples(st.lists(_matches(), max_size=4), _actions()), max_size=5))
def test_any_rules_come_back_the_same(sets: list[tuple[list[Rule], Rule]]) -> None:
    rules = tuple(rule for matches, action in sets for rule in (*matches, action))
    assert compile_rules(decompile_rules(RuleSet(rules))).rules == rules


_WORDS = "macro tag cap drop accept tee include id default enum flag and or not dport chr web web($p) $p 1 80-90 ; ;"


@given(st.lists(st.sampled_from([*_WORDS.split(" "), "\n"]), max_size=25).map(" ".join) | st.text(max_size=60))
def test_nonsense_is_an_error_with_a_place_and_nothing_else(text: str) -> None:
    try:
        compile_rules(text)
        return
    except RuleSyntaxError as error:
        caught = error
    assert 1 <= caught.line <= len(text) + 1
    assert caught.column >= 1


def test_rules_of_the_vectors_can_be_shown() -> None:
    cases = json.loads((Path(__file__).parent.parent / "vectors" / "rules_eval.json").read_text())["cases"]
    for case in cases:
        for rule in decode_rules(bytes.fromhex(case["rules"])):
            assert rule_text(rule)
