"""From rules back to the textual rule language (vl2 §4.8). What `compile_rules` makes of the text is the same again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from netcon.core.address import format_endpoint, format_mac
from netcon.core.errors import DecodeError
from netcon.core.rule_language import (
    ACTION_TYPES,
    CHARACTERISTICS,
    ETHERTYPES,
    PROTOCOLS,
    TAG_MATCHES,
    CapabilityDefinition,
    RuleSet,
    TagDefinition,
    is_name,
)
from netcon.core.rules import LAST_ACTION, Rule, RuleType, prefix_of, rule_from_json

_ACTION_WORDS = {kind: word for word, kind in ACTION_TYPES.items()}
_TAG_WORDS = {kind: word for word, kind in TAG_MATCHES.items()}


def _first_names(names: Mapping[str, int]) -> dict[int, str]:
    """The name of each number, the first if it has several."""
    return {number: name for name, number in reversed(list(names.items()))}


_ETHERTYPE_NAMES = _first_names(ETHERTYPES)
_PROTOCOL_NAMES = _first_names(PROTOCOLS)
_BIT_NAMES = _first_names(CHARACTERISTICS)


class NotExpressible(DecodeError):
    """A rule that the language has no words for."""


def _named(names: Mapping[int, str], number: int) -> str:
    return names.get(number, str(number))


def _range(low: int, high: int) -> str:
    if high < low:
        raise NotExpressible(f"a range from {low} to {high}")
    return str(low) if low == high else f"{low}-{high}"


def _characteristics(data: bytes) -> str:
    mask = int.from_bytes(data[:8])
    if mask == 0:
        raise NotExpressible("a match of no characteristic at all")
    return ",".join(_named(_BIT_NAMES, bit) for bit in range(63, -1, -1) if mask >> bit & 1)


def _probability(data: bytes) -> str:
    """The shortest decimal that is at least this share; twelve digits tell 2^32 values apart."""
    value = int.from_bytes(data[:4])
    if value == 0xFFFFFFFF:
        return "1.0"
    scaled = -(-value * 10**12 // 0xFFFFFFFF)
    return f"0.{scaled:012d}".rstrip("0").ljust(3, "0")


def _ports(data: bytes) -> str:
    return _range(int.from_bytes(data[:2]), int.from_bytes(data[2:4]))


def _icmp(data: bytes) -> str:
    return f"{data[0]} {data[1] if data[2] & 0x01 else -1}"


_MATCHES: dict[int, tuple[str, Callable[[bytes], str]]] = {
    RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS: ("ztsrc", lambda data: data[:5].hex()),
    RuleType.MATCH_DEST_ZEROTIER_ADDRESS: ("ztdest", lambda data: data[:5].hex()),
    RuleType.MATCH_VLAN_ID: ("vlan", lambda data: str(int.from_bytes(data[:2]))),
    RuleType.MATCH_VLAN_PCP: ("vlanpcp", lambda data: str(data[0])),
    RuleType.MATCH_VLAN_DEI: ("vlandei", lambda data: str(data[0])),
    RuleType.MATCH_MAC_SOURCE: ("macsrc", lambda data: format_mac(data[:6])),
    RuleType.MATCH_MAC_DEST: ("macdest", lambda data: format_mac(data[:6])),
    RuleType.MATCH_IP_TOS: ("iptos", lambda data: f"{data[0]} {_range(data[1], data[2])}"),
    RuleType.MATCH_IP_PROTOCOL: ("ipprotocol", lambda data: _named(_PROTOCOL_NAMES, data[0])),
    RuleType.MATCH_ETHERTYPE: ("ethertype", lambda data: _named(_ETHERTYPE_NAMES, int.from_bytes(data[:2]))),
    RuleType.MATCH_ICMP: ("icmp", _icmp),
    RuleType.MATCH_IP_SOURCE_PORT_RANGE: ("sport", _ports),
    RuleType.MATCH_IP_DEST_PORT_RANGE: ("dport", _ports),
    RuleType.MATCH_FRAME_SIZE_RANGE: ("framesize", _ports),
    RuleType.MATCH_CHARACTERISTICS: ("chr", _characteristics),
    RuleType.MATCH_RANDOM: ("random", _probability),
}
_PREFIXES = {
    RuleType.MATCH_IPV4_SOURCE: "ipsrc",
    RuleType.MATCH_IPV6_SOURCE: "ipsrc",
    RuleType.MATCH_IPV4_DEST: "ipdest",
    RuleType.MATCH_IPV6_DEST: "ipdest",
}


def match_text(rule: Rule, tags: Mapping[int, TagDefinition] | None = None) -> str:
    """A match without its `not` and `or`. NotExpressible."""
    if rule.type in _PREFIXES:
        prefix = prefix_of(rule)
        if prefix.port > 8 * len(prefix.ip):
            raise NotExpressible(f"a prefix of {prefix.port} bits")
        return f"{_PREFIXES[RuleType(rule.type)]} {format_endpoint(prefix)}"
    if rule.type in _TAG_WORDS:
        number, value = int.from_bytes(rule.data[:4]), int.from_bytes(rule.data[4:8])
        tag = (tags or {}).get(number)
        if tag is None:
            return f"{_TAG_WORDS[RuleType(rule.type)]} {number} {value}"
        return f"{_TAG_WORDS[RuleType(rule.type)]} {tag.name} {_named(_first_names(tag.value_names()), value)}"
    known = _MATCHES.get(rule.type)
    if known is None:
        name = RuleType(rule.type).name if rule.type in set(RuleType) else f"type {rule.type}"
        raise NotExpressible(f"{name} has no word in the rule language")
    word, write = known
    return f"{word} {write(rule.data)}"


def action_text(rule: Rule) -> str:
    """An action with its arguments. NotExpressible."""
    try:
        kind = RuleType(rule.type)
        word = _ACTION_WORDS[kind]
    except (ValueError, KeyError):
        raise NotExpressible(f"action {rule.type} has no word in the rule language") from None
    if kind not in (RuleType.ACTION_TEE, RuleType.ACTION_WATCH, RuleType.ACTION_REDIRECT):
        return word
    if rule.data[:3] != bytes(3) or rule.data[8:12] != bytes(4):
        raise NotExpressible(f"{word} with flags")
    length = int.from_bytes(rule.data[12:14])
    address = rule.data[3:8].hex()
    if kind is RuleType.ACTION_REDIRECT:
        if length:
            raise NotExpressible("redirect with a length")
        return f"{word} {address}"
    return f"{word} {-1 if length == 0xFFFF else length} {address}"


def _statements(rules: Sequence[Rule], tags: Mapping[int, TagDefinition], indent: str) -> Iterable[str]:
    matches: list[str] = []
    for number, rule in enumerate(rules):
        try:
            if rule.type > LAST_ACTION:
                words = ["and"] if matches else []
                if rule.alternative:
                    words = ["or"]
                if rule.negated:
                    words.append("not")
                matches.append(f"{indent}\t{' '.join((*words, match_text(rule, tags)))}\n")
                continue
            action = action_text(rule)
        except NotExpressible as error:
            raise NotExpressible(f"rule {number + 1} cannot be written in the rule language: {error}") from None
        if matches:
            yield f"{indent}{action}\n{''.join(matches)}{indent};\n"
        else:
            yield f"{indent}{action};\n"
        matches = []
    if matches:
        raise NotExpressible("the list ends with matches that no action follows")


def _tag_text(tag: TagDefinition) -> str:
    lines = [f"tag {tag.name}\n\tid {tag.id}\n"]
    lines += [f"\tenum {value} {name}\n" for name, value in tag.enums.items()]
    for name, mask in tag.flags.items():
        bits = ",".join(str(bit) for bit in range(32) if mask >> bit & 1)
        if not bits:
            raise NotExpressible(f"flag {name} of tag {tag.name} has no bit")
        lines.append(f"\tflag {bits} {name}\n")
    if tag.default is not None:
        lines.append(f"\tdefault {_named(_first_names(tag.value_names()), tag.default)}\n")
    return "".join((*lines, ";\n"))


def decompile_rules(rule_set: RuleSet) -> str:
    """The text of a rule set. NotExpressible."""
    tags = {tag.id: tag for tag in rule_set.tags}
    parts = [_tag_text(tag) for tag in rule_set.tags]
    for cap in rule_set.capabilities:
        head = f"cap {cap.name}\n\tid {cap.id}\n" + ("\tdefault\n" if cap.default else "")
        parts.append(f"{head}{''.join(_statements(cap.rules, tags, chr(9)))};\n")
    parts.append("".join(_statements(rule_set.rules, tags, "")))
    return "\n".join(part for part in parts if part)


# -- from JSON --


def rule_set_from_json(source: Any) -> RuleSet:
    """A rule set from the compiler's output, from a controller's network record, or from a plain list of rules. DecodeError."""
    if isinstance(source, list):
        source = {"rules": source}
    if not isinstance(source, Mapping):
        raise DecodeError("neither a network record nor a list of rules")
    names = source
    source = source.get("config", source)
    if not isinstance(source, Mapping) or not any(key in source for key in ("rules", "capabilities", "tags")):
        raise DecodeError("neither a network record nor a list of rules: it has no `rules`")
    cap_names = {number: name for name, number in _mapping(names, "capabilitiesByName").items() if isinstance(number, int)}
    tag_info = {
        info["id"]: (name, info)
        for name, info in _mapping(names, "tagsByName").items()
        if isinstance(info, Mapping) and isinstance(info.get("id"), int)
    }
    return RuleSet(
        _rules(source.get("rules", [])),
        tuple(_capability(entry, cap_names) for entry in _list(source, "capabilities")),
        tuple(_tag(entry, tag_info) for entry in _list(source, "tags")),
    )


def _mapping(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = source.get(key, {})
    return value if isinstance(value, Mapping) else {}


def _list(source: Mapping[str, Any], key: str) -> list[Any]:
    value = source.get(key, [])
    if not isinstance(value, list):
        raise DecodeError(f"{key} is no list")
    return value


def _rules(source: Any) -> tuple[Rule, ...]:
    if not isinstance(source, list):
        raise DecodeError("rules are a list")
    rules = []
    for number, entry in enumerate(source):
        try:
            rules.append(rule_from_json(entry))
        except DecodeError as error:
            raise DecodeError(f"rule {number + 1}: {error}") from None
    return tuple(rules)


def _id(entry: Any, what: str) -> int:
    number = entry.get("id") if isinstance(entry, Mapping) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
        raise DecodeError(f"{what} without an id from 0 to 4294967295: {entry!r}")
    return number


def _usable_name(name: str, fallback: str) -> str:
    return name.lower() if is_name(name) else fallback


def _capability(entry: Any, names: Mapping[int, str]) -> CapabilityDefinition:
    number = _id(entry, "a capability")
    name = _usable_name(names.get(number, ""), f"cap_{number}")
    return CapabilityDefinition(name, number, bool(entry.get("default", False)), _rules(entry.get("rules", [])))


def _tag(entry: Any, known: Mapping[int, tuple[str, Mapping[str, Any]]]) -> TagDefinition:
    number = _id(entry, "a tag")
    name, info = known.get(number, ("", {}))
    default = entry.get("default")
    return TagDefinition(
        _usable_name(name, f"tag_{number}"),
        number,
        default if isinstance(default, int) and not isinstance(default, bool) and 0 <= default < 1 << 32 else None,
        _values(info, "enums"),
        _values(info, "flags"),
    )


def _values(info: Mapping[str, Any], key: str) -> dict[str, int]:
    return {
        name.lower(): value
        for name, value in _mapping(info, key).items()
        if isinstance(value, int) and 0 <= value < 1 << 32 and is_name(name)
    }


def rule_text(rule: Rule, tags: Mapping[int, TagDefinition] | None = None) -> str:
    """One rule for people, also one that the language cannot say."""
    try:
        if rule.is_action:
            return action_text(rule)
        words = (["or"] if rule.alternative else []) + (["not"] if rule.negated else [])
        return " ".join((*words, match_text(rule, tags)))
    except NotExpressible:
        kind = RuleType(rule.type).name if rule.type in set(RuleType) else f"type {rule.type}"
        return re.sub(r"\s+$", "", f"{kind} {rule.data.hex()}")
