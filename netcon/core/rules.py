"""Rules: binary form (vl2 §4.1) and the controller's JSON form (vl2 §4.7). What they mean: `rule_engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from netcon.core.address import (
    Endpoint,
    format_address,
    format_endpoint,
    format_mac,
    parse_address,
    parse_mac,
    parse_prefix,
)
from netcon.core.buffer import Reader
from netcon.core.errors import DecodeError

MAX_NETWORK_RULES = 1024
MAX_CAPABILITY_RULES = 64

NOT_BIT = 0x80
OR_BIT = 0x40
TYPE_MASK = 0x3F


class RuleType(IntEnum):
    """Types 0 to 15 are actions, 16 to 63 matches."""

    ACTION_DROP = 0
    ACTION_ACCEPT = 1
    ACTION_TEE = 2
    ACTION_WATCH = 3
    ACTION_REDIRECT = 4
    ACTION_BREAK = 5
    ACTION_PRIORITY = 6
    MATCH_SOURCE_ZEROTIER_ADDRESS = 24
    MATCH_DEST_ZEROTIER_ADDRESS = 25
    MATCH_VLAN_ID = 26
    MATCH_VLAN_PCP = 27
    MATCH_VLAN_DEI = 28
    MATCH_MAC_SOURCE = 29
    MATCH_MAC_DEST = 30
    MATCH_IPV4_SOURCE = 31
    MATCH_IPV4_DEST = 32
    MATCH_IPV6_SOURCE = 33
    MATCH_IPV6_DEST = 34
    MATCH_IP_TOS = 35
    MATCH_IP_PROTOCOL = 36
    MATCH_ETHERTYPE = 37
    MATCH_ICMP = 38
    MATCH_IP_SOURCE_PORT_RANGE = 39
    MATCH_IP_DEST_PORT_RANGE = 40
    MATCH_CHARACTERISTICS = 41
    MATCH_FRAME_SIZE_RANGE = 42
    MATCH_RANDOM = 43
    MATCH_TAGS_DIFFERENCE = 44
    MATCH_TAGS_BITWISE_AND = 45
    MATCH_TAGS_BITWISE_OR = 46
    MATCH_TAGS_BITWISE_XOR = 47
    MATCH_TAGS_EQUAL = 48
    MATCH_TAG_SENDER = 49
    MATCH_TAG_RECEIVER = 50
    MATCH_INTEGER_RANGE = 51


LAST_ACTION = 15
_FORWARD = Struct(">QIH")
_TAG = Struct(">II")
_U16_PAIR = Struct(">HH")
_INTEGER = Struct(">QQHB")

#: Length of the data of each known type.
_LENGTHS = {
    RuleType.ACTION_DROP: 0,
    RuleType.ACTION_ACCEPT: 0,
    RuleType.ACTION_TEE: 14,
    RuleType.ACTION_WATCH: 14,
    RuleType.ACTION_REDIRECT: 14,
    RuleType.ACTION_BREAK: 0,
    RuleType.ACTION_PRIORITY: 0,
    RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS: 5,
    RuleType.MATCH_DEST_ZEROTIER_ADDRESS: 5,
    RuleType.MATCH_VLAN_ID: 2,
    RuleType.MATCH_VLAN_PCP: 1,
    RuleType.MATCH_VLAN_DEI: 1,
    RuleType.MATCH_MAC_SOURCE: 6,
    RuleType.MATCH_MAC_DEST: 6,
    RuleType.MATCH_IPV4_SOURCE: 5,
    RuleType.MATCH_IPV4_DEST: 5,
    RuleType.MATCH_IPV6_SOURCE: 17,
    RuleType.MATCH_IPV6_DEST: 17,
    RuleType.MATCH_IP_TOS: 3,
    RuleType.MATCH_IP_PROTOCOL: 1,
    RuleType.MATCH_ETHERTYPE: 2,
    RuleType.MATCH_ICMP: 3,
    RuleType.MATCH_IP_SOURCE_PORT_RANGE: 4,
    RuleType.MATCH_IP_DEST_PORT_RANGE: 4,
    RuleType.MATCH_CHARACTERISTICS: 8,
    RuleType.MATCH_FRAME_SIZE_RANGE: 4,
    RuleType.MATCH_RANDOM: 4,
    RuleType.MATCH_TAGS_DIFFERENCE: 8,
    RuleType.MATCH_TAGS_BITWISE_AND: 8,
    RuleType.MATCH_TAGS_BITWISE_OR: 8,
    RuleType.MATCH_TAGS_BITWISE_XOR: 8,
    RuleType.MATCH_TAGS_EQUAL: 8,
    RuleType.MATCH_TAG_SENDER: 8,
    RuleType.MATCH_TAG_RECEIVER: 8,
    RuleType.MATCH_INTEGER_RANGE: 19,
}


class Rule(NamedTuple):
    """One entry of a rule list. `data` is laid out as vl2 §4.1 says for `type`, and kept as it came for types not known."""

    type: int
    data: bytes = b""
    negated: bool = False
    alternative: bool = False  # the OR bit

    @property
    def is_action(self) -> bool:
        return self.type <= LAST_ACTION

    def encode(self) -> bytes:
        first = self.type | (NOT_BIT if self.negated else 0) | (OR_BIT if self.alternative else 0)
        return bytes((first, len(self.data))) + self.data

    @classmethod
    def decode(cls, reader: Reader) -> Rule:
        first = reader.u8()
        kind = first & TYPE_MASK
        data = reader.bytes(reader.u8())
        if len(data) < _LENGTHS.get(kind, 0):  # type: ignore[call-overload]
            raise DecodeError(f"rule of type {kind} with only {len(data)} bytes of data")
        return cls(kind, data, bool(first & NOT_BIT), bool(first & OR_BIT))


ACCEPT_ALL = (Rule(RuleType.ACTION_ACCEPT),)


def encode_rules(rules: Iterable[Rule]) -> bytes:
    return b"".join(rule.encode() for rule in rules)


def decode_rules(data: bytes) -> tuple[Rule, ...]:
    """A whole rule list without count, as in configurations."""
    reader = Reader(data)
    rules = []
    while reader.remaining:
        rules.append(Rule.decode(reader))
    return tuple(rules)


def prefix_of(rule: Rule) -> Endpoint:
    """The prefix of an IPv4 or IPv6 match."""
    size = 4 if rule.type in (RuleType.MATCH_IPV4_SOURCE, RuleType.MATCH_IPV4_DEST) else 16
    return Endpoint(rule.data[:size], rule.data[size])


# -- JSON (vl2 §4.7) --

JsonObject = Mapping[str, Any]
_INTEGER_RANGE_NAME = "INTEGER_RANGE"  # named without MATCH_ in JSON


def _shown(value: Any) -> str:
    """For a message: of a number of more than 4,300 digits Python makes no text."""
    try:
        return repr(value)
    except ValueError:
        return "one with thousands of digits"


def _number(source: JsonObject, key: str, limit: int, default: int | None = None) -> int:
    value = source.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise DecodeError(f"{source.get('type')}: {key} must be a number from 0 to {limit}, not {_shown(value)}")
    return value


def _hex_or_number(source: JsonObject, key: str) -> int:
    value = source.get(key)
    if isinstance(value, str):
        try:
            value = int(value, 16)
        except ValueError:
            raise DecodeError(f"{source.get('type')}: {key} must be hexadecimal digits, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise DecodeError(f"{source.get('type')}: {key} must be a 64-bit number, not {_shown(value)}")
    return value


def _string(source: JsonObject, key: str) -> str:
    value = source.get(key)
    if not isinstance(value, str):
        raise DecodeError(f"{source.get('type')}: {key} is missing or no string")
    return value


def _forward_from(source: JsonObject) -> bytes:
    length = source.get("length", 0)
    if length == -1:
        length = 0xFFFF
    elif isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= 0xFFFF:
        raise DecodeError(f"{source.get('type')}: length must be a number from -1 to 65535, not {_shown(length)}")
    return _FORWARD.pack(parse_address(_string(source, "address")), _number(source, "flags", 0xFFFFFFFF, 0), length)


def _forward_to(data: bytes) -> dict[str, Any]:
    address, flags, length = _FORWARD.unpack_from(data)
    return {"address": format_address(address), "flags": flags, "length": length}


def _redirect_to(data: bytes) -> dict[str, Any]:
    fields = _forward_to(data)
    del fields["length"]
    return fields


def _prefix_from(size: int) -> Callable[[JsonObject], bytes]:
    def read(source: JsonObject) -> bytes:
        prefix = parse_prefix(_string(source, "ip"))
        if len(prefix.ip) != size:
            raise DecodeError(f"{source.get('type')}: {source['ip']!r} is of the other IP version")
        return prefix.ip + prefix.port.to_bytes(1)

    return read


def _prefix_to(size: int) -> Callable[[bytes], dict[str, Any]]:
    return lambda data: {"ip": format_endpoint(Endpoint(data[:size], data[size]))}


def _plain(*fields: tuple[str, int]) -> tuple[Callable[[JsonObject], bytes], Callable[[bytes], dict[str, Any]]]:
    """Readers and writers of plain numbers: (key, bytes)."""

    def read(source: JsonObject) -> bytes:
        return b"".join(_number(source, key, (1 << 8 * size) - 1).to_bytes(size) for key, size in fields)

    def write(data: bytes) -> dict[str, Any]:
        reader = Reader(data)
        return {key: int.from_bytes(reader.bytes(size)) for key, size in fields}

    return read, write


def _range_from(source: JsonObject) -> bytes:
    start = _number(source, "start", 0xFFFF)
    return _U16_PAIR.pack(start, _number(source, "end", 0xFFFF, start))


def _icmp_from(source: JsonObject) -> bytes:
    code = source.get("icmpCode")
    if code is None or code == -1:
        return bytes((_number(source, "icmpType", 255), 0, 0))
    return bytes((_number(source, "icmpType", 255), _number(source, "icmpCode", 255), 1))


def _icmp_to(data: bytes) -> dict[str, Any]:
    return {"icmpType": data[0], "icmpCode": data[1] if data[2] & 0x01 else None}


def _integer_from(source: JsonObject) -> bytes:
    start, end = _hex_or_number(source, "start"), _hex_or_number(source, "end")
    if not 0 <= end - start <= 0xFFFFFFFF:
        raise DecodeError(f"{_INTEGER_RANGE_NAME}: end must lie at most 2^32-1 above start")
    bits = _number(source, "bits", 64)
    if bits < 1:
        raise DecodeError(f"{_INTEGER_RANGE_NAME}: bits must be a number from 1 to 64")
    little = 0x80 if source.get("little", False) else 0
    return _INTEGER.pack(start, end, _number(source, "idx", 0xFFFF), little | bits - 1)


def _integer_to(data: bytes) -> dict[str, Any]:
    start, end, index, shape = _INTEGER.unpack_from(data)
    return {
        "start": f"{start:016x}",
        "end": f"{end:016x}",
        "idx": index,
        "little": bool(shape & 0x80),
        "bits": (shape & 0x3F) + 1,
    }


_NOTHING = _plain()
_TAG_FIELDS = _plain(("id", 4), ("value", 4))
_ZT = (lambda source: parse_address(_string(source, "zt")).to_bytes(5), lambda data: {"zt": data[:5].hex()})
_MAC = (lambda source: parse_mac(_string(source, "mac")), lambda data: {"mac": format_mac(data[:6])})
_RANGE = (_range_from, _plain(("start", 2), ("end", 2))[1])
_IPV4 = (_prefix_from(4), _prefix_to(4))
_IPV6 = (_prefix_from(16), _prefix_to(16))

_JSON: dict[RuleType, tuple[Callable[[JsonObject], bytes], Callable[[bytes], dict[str, Any]]]] = {
    RuleType.ACTION_DROP: _NOTHING,
    RuleType.ACTION_ACCEPT: _NOTHING,
    RuleType.ACTION_TEE: (_forward_from, _forward_to),
    RuleType.ACTION_WATCH: (_forward_from, _forward_to),
    RuleType.ACTION_REDIRECT: (_forward_from, _redirect_to),
    RuleType.ACTION_BREAK: _NOTHING,
    RuleType.ACTION_PRIORITY: _NOTHING,
    RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS: _ZT,
    RuleType.MATCH_DEST_ZEROTIER_ADDRESS: _ZT,
    RuleType.MATCH_VLAN_ID: _plain(("vlanId", 2)),
    RuleType.MATCH_VLAN_PCP: _plain(("vlanPcp", 1)),
    RuleType.MATCH_VLAN_DEI: _plain(("vlanDei", 1)),
    RuleType.MATCH_MAC_SOURCE: _MAC,
    RuleType.MATCH_MAC_DEST: _MAC,
    RuleType.MATCH_IPV4_SOURCE: _IPV4,
    RuleType.MATCH_IPV4_DEST: _IPV4,
    RuleType.MATCH_IPV6_SOURCE: _IPV6,
    RuleType.MATCH_IPV6_DEST: _IPV6,
    RuleType.MATCH_IP_TOS: _plain(("mask", 1), ("start", 1), ("end", 1)),
    RuleType.MATCH_IP_PROTOCOL: _plain(("ipProtocol", 1)),
    RuleType.MATCH_ETHERTYPE: _plain(("etherType", 2)),
    RuleType.MATCH_ICMP: (_icmp_from, _icmp_to),
    RuleType.MATCH_IP_SOURCE_PORT_RANGE: _RANGE,
    RuleType.MATCH_IP_DEST_PORT_RANGE: _RANGE,
    RuleType.MATCH_CHARACTERISTICS: (
        lambda source: _hex_or_number(source, "mask").to_bytes(8),
        lambda data: {"mask": data[:8].hex()},
    ),
    RuleType.MATCH_FRAME_SIZE_RANGE: _RANGE,
    RuleType.MATCH_RANDOM: _plain(("probability", 4)),
    RuleType.MATCH_TAGS_DIFFERENCE: _TAG_FIELDS,
    RuleType.MATCH_TAGS_BITWISE_AND: _TAG_FIELDS,
    RuleType.MATCH_TAGS_BITWISE_OR: _TAG_FIELDS,
    RuleType.MATCH_TAGS_BITWISE_XOR: _TAG_FIELDS,
    RuleType.MATCH_TAGS_EQUAL: _TAG_FIELDS,
    RuleType.MATCH_TAG_SENDER: _TAG_FIELDS,
    RuleType.MATCH_TAG_RECEIVER: _TAG_FIELDS,
    RuleType.MATCH_INTEGER_RANGE: (_integer_from, _integer_to),
}


def _json_name(kind: RuleType) -> str:
    return _INTEGER_RANGE_NAME if kind is RuleType.MATCH_INTEGER_RANGE else kind.name


_BY_NAME = {_json_name(kind): kind for kind in RuleType} | {"MATCH_INTEGER_RANGE": RuleType.MATCH_INTEGER_RANGE}


def rule_from_json(source: Any) -> Rule:
    """DecodeError with the reason if the object is no rule."""
    if not isinstance(source, Mapping):
        raise DecodeError(f"a rule is an object, not {_shown(source)}")
    name = source.get("type")
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DecodeError(f"unknown type of rule: {_shown(name)}")
    data = _JSON[kind][0](source)
    if kind <= LAST_ACTION:
        return Rule(kind, data)
    return Rule(kind, data, bool(source.get("not", False)), bool(source.get("or", False)))


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """DecodeError for a type that has no JSON form. Actions are written without `not` and `or`."""
    try:
        kind = RuleType(rule.type)
    except ValueError:
        raise DecodeError(f"unknown type of rule: {rule.type}") from None
    result: dict[str, Any] = {"type": _json_name(kind)}
    if not rule.is_action:
        result |= {"not": rule.negated, "or": rule.alternative}
    return result | _JSON[kind][1](rule.data)
