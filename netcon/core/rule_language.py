"""The textual rule language (vl2 §4.8): from text to rules, capabilities and tags. The way back is `rule_decompiler`.

A text goes through `_tokens` (words with their places), `_Parser` (statements and definitions) and `_Compiler` (macros expanded,
names resolved, `Rule` objects made). Whatever is wrong is a `RuleSyntaxError` that names line and column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from netcon.core.address import parse_prefix
from netcon.core.errors import DecodeError, NetconError
from netcon.core.rules import MAX_CAPABILITY_RULES, MAX_NETWORK_RULES, Rule, RuleType, rule_to_json

MAX_TAGS = 128
MAX_CAPABILITIES = 128
#: Macros within macros.
MAX_DEPTH = 16

ETHERTYPES = {
    "ipv4": 0x0800,
    "arp": 0x0806,
    "wol": 0x0842,
    "rarp": 0x8035,
    "ipv6": 0x86DD,
    "atalk": 0x809B,
    "aarp": 0x80F3,
    "ipx_a": 0x8137,
    "ipx_b": 0x8138,
}
PROTOCOLS = {
    "icmp": 1,
    "icmp4": 1,
    "icmpv4": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "rdp": 27,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "icmpv6": 58,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}
CHARACTERISTICS = {
    "inbound": 63,
    "multicast": 62,
    "broadcast": 61,
    "ipauth": 60,
    "macauth": 59,
    "tcp_fin": 0,
    "tcp_syn": 1,
    "tcp_rst": 2,
    "tcp_psh": 3,
    "tcp_ack": 4,
    "tcp_urg": 5,
    "tcp_ece": 6,
    "tcp_cwr": 7,
    "tcp_ns": 8,
    "tcp_rs2": 9,
    "tcp_rs1": 10,
    "tcp_rs0": 11,
}
TAG_MATCHES = {
    "tand": RuleType.MATCH_TAGS_BITWISE_AND,
    "tor": RuleType.MATCH_TAGS_BITWISE_OR,
    "txor": RuleType.MATCH_TAGS_BITWISE_XOR,
    "tdiff": RuleType.MATCH_TAGS_DIFFERENCE,
    "teq": RuleType.MATCH_TAGS_EQUAL,
    "tseq": RuleType.MATCH_TAG_SENDER,
    "treq": RuleType.MATCH_TAG_RECEIVER,
}
#: Number of arguments of each match.
_ARITY = {
    "ztsrc": 1,
    "ztdest": 1,
    "vlan": 1,
    "vlanpcp": 1,
    "vlandei": 1,
    "ethertype": 1,
    "macsrc": 1,
    "macdest": 1,
    "ipsrc": 1,
    "ipdest": 1,
    "iptos": 2,
    "ipprotocol": 1,
    "icmp": 2,
    "sport": 1,
    "dport": 1,
    "framesize": 1,
    "chr": 1,
    "random": 1,
    **dict.fromkeys(TAG_MATCHES, 2),
}
#: Arguments of each action, before its matches.
_ACTIONS = {"drop": 0, "accept": 0, "break": 0, "tee": 2, "watch": 2, "redirect": 1}
_DEFINITIONS = ("macro", "tag", "cap")
RESERVED = frozenset(
    (
        *_ACTIONS,
        *_DEFINITIONS,
        *_ARITY,
        *("priority", "default", "type", "enum", "class", "define", "import", "include", "log"),
        *("not", "xor", "or", "and", "set", "var", "let"),
    )
)
_WORD = re.compile(r"#[^\n\r]*|;|[^\s;]+")
_NAME = re.compile(r"[^\W\d]\w*")
_CALL = re.compile(r"([^()]+)(?:\(([^()]*)\))?")


class RuleSyntaxError(NetconError):
    """A text that is no rule set. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


class Token(NamedTuple):
    """A word of the text and where it begins."""

    text: str
    line: int
    column: int

    def error(self, message: str) -> RuleSyntaxError:
        return RuleSyntaxError(self.line, self.column, message)

    def part(self, offset: int, text: str) -> Token:
        return Token(text, self.line, self.column + offset)


def is_name(text: str) -> bool:
    """Whether a macro, tag, capability, enum or flag may be called this."""
    return _NAME.fullmatch(text) is not None and text.lower() not in RESERVED


# -- what a text compiles to --


@dataclass(slots=True, frozen=True)
class TagDefinition:
    name: str
    id: int
    default: int | None = None
    enums: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)

    def value_names(self) -> dict[str, int]:
        return {**self.enums, **self.flags}


@dataclass(slots=True, frozen=True)
class CapabilityDefinition:
    """`default`: given to new members. `lines`: of the statement that each rule comes from."""

    name: str
    id: int
    default: bool
    rules: tuple[Rule, ...]
    lines: tuple[int, ...] = ()


class Warned(NamedTuple):
    """Something that compiles but will not do what it seems to say."""

    line: int
    column: int
    message: str


@dataclass(slots=True, frozen=True)
class RuleSet:
    """`lines`: for each rule the line of its statement."""

    rules: tuple[Rule, ...]
    capabilities: tuple[CapabilityDefinition, ...] = ()
    tags: tuple[TagDefinition, ...] = ()
    lines: tuple[int, ...] = ()
    warnings: tuple[Warned, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The output of the command-line compiler (vl2 §4.8); `config` can be posted to a controller as it is."""
        return {
            "config": {
                "rules": [rule_to_json(rule) for rule in self.rules],
                "capabilities": [
                    {"id": cap.id, "default": cap.default, "rules": [rule_to_json(rule) for rule in cap.rules]}
                    for cap in self.capabilities
                ],
                "tags": [{"id": tag.id, "default": tag.default} for tag in self.tags],
            },
            "capabilitiesByName": {cap.name: cap.id for cap in self.capabilities},
            "tagsByName": {
                tag.name: {"id": tag.id, "default": tag.default, "enums": dict(tag.enums), "flags": dict(tag.flags)}
                for tag in self.tags
            },
        }


def compile_rules(text: str) -> RuleSet:
    """Compile a whole file. RuleSyntaxError."""
    return _Compiler(_Parser(text)).result()


# -- words --


def _tokens(text: str) -> Iterator[Token]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        for word in _WORD.finditer(line):
            if not word.group().startswith("#"):
                yield Token(word.group(), number, word.start() + 1)


# -- syntax --


class _Match(NamedTuple):
    name: Token
    arguments: tuple[Token, ...]
    negated: bool
    alternative: bool


class _Statement(NamedTuple):
    action: Token
    arguments: tuple[Token, ...]
    matches: tuple[_Match, ...]


class _Include(NamedTuple):
    name: Token
    arguments: tuple[Token, ...]


_Body = list[_Statement | _Include]


class _Macro(NamedTuple):
    name: Token
    parameters: tuple[str, ...]
    body: _Body


class _Capability(NamedTuple):
    name: Token
    id: int
    default: bool
    body: _Body


class _Parser:
    """Reads the whole text when made; the results are its attributes."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        last = self._tokens[-1] if self._tokens else Token("", 1, 1)
        #: The end of the text closes all blocks; errors there point behind the last word.
        self._end = Token("", last.line, last.column + len(last.text))
        self._at = 0
        self.statements: _Body = []
        self.macros: dict[str, _Macro] = {}
        self.tags: dict[str, TagDefinition] = {}
        self.capabilities: list[_Capability] = []
        self._file()

    # -- words --

    def _peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else self._end

    def _take(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _argument(self, owner: Token, what: str) -> Token:
        """The next word, which belongs to `owner`; a block may not end before it."""
        token = self._peek()
        if token.text in ("", ";"):
            raise token.error(f"{owner.text} wants {what} here")
        return self._take()

    def _closes(self) -> bool:
        """Whether the open block ends here; its `;` is taken. The end of the text closes everything."""
        if self._peek().text == ";":
            self._at += 1
            return True
        return self._peek() is self._end

    def _name(self, owner: Token, known: Mapping[str, object], token: Token | None = None) -> Token:
        token = token or self._argument(owner, "a name")
        if not _NAME.fullmatch(token.text):
            raise token.error(f"{token.text!r} is no name: letters, digits and _, not beginning with a digit")
        if token.text.lower() in RESERVED:
            raise token.error(f"{token.text!r} is a word of the language; call this {owner.text} something else")
        if token.text.lower() in known:
            raise token.error(f"{owner.text} {token.text.lower()} is defined already")
        return token._replace(text=token.text.lower())

    # -- blocks --

    def _file(self) -> None:
        after_include = False
        while (token := self._take()) is not self._end:
            if token.text == ";":
                if not after_include:
                    raise token.error("this ; closes nothing")
                after_include = False
                continue
            after_include = token.text == "include"
            match token.text:
                case "macro":
                    self._macro(token)
                case "tag":
                    self._tag(token)
                case "cap":
                    self._capability(token)
                case _:
                    self.statements.append(self._statement(token))

    def _statement(self, token: Token) -> _Statement | _Include:
        if token.text == "include":
            return self._include(token)
        count = _ACTIONS.get(token.text)
        if count is None:
            if token.text == "priority":
                raise token.error("priority is reserved: its bucket is not transported, so it would be the same as accept")
            if token.text in _DEFINITIONS:
                raise token.error(f"{token.text} can be defined at the top level only; is a ; missing before it?")
            if token.text.lower() in _ARITY or token.text in ("and", "or", "not"):
                raise token.error(f"{token.text} belongs into a statement: begin with drop, accept, tee, watch, redirect or break")
            raise token.error(
                f"{token.text!r} is no statement; they are drop, accept, break, tee, watch, redirect, include, macro, tag and cap"
            )
        arguments = tuple(self._argument(token, "a length and an address" if count == 2 else "an address") for _ in range(count))
        return _Statement(token, arguments, self._matches(token))

    def _matches(self, owner: Token) -> tuple[_Match, ...]:
        matches: list[_Match] = []
        while not self._closes():
            negated = alternative = False
            token = self._take()
            while token.text.lower() in ("and", "not", "or"):
                negated = negated or token.text.lower() == "not"
                alternative = alternative or token.text.lower() == "or"
                token = self._argument(token, "a match")
            name = token._replace(text=token.text.lower())
            arity = _ARITY.get(name.text)
            if arity is None:
                if token.text in _ACTIONS or token.text in (*_DEFINITIONS, "include"):
                    raise token.error(f"{token.text} inside of the {owner.text} of line {owner.line}; is a ; missing before it?")
                raise token.error(f"{token.text!r} is no match; they are {', '.join(sorted(_ARITY))}")
            arguments = tuple(self._argument(name, f"{arity} arguments" if arity > 1 else "an argument") for _ in range(arity))
            matches.append(_Match(name, arguments, negated, alternative))
        return tuple(matches)

    def _include(self, token: Token) -> _Include:
        name, arguments = _call(self._argument(token, "the name of a macro"))
        return _Include(name, arguments)

    def _macro(self, token: Token) -> None:
        name, parameters = _call(self._argument(token, "a name"))
        name = self._name(token, self.macros, name)
        seen: list[str] = []
        for parameter in parameters:
            if not parameter.text.startswith("$") or not _NAME.fullmatch(parameter.text[1:]) or parameter.text in seen:
                raise parameter.error(f"{parameter.text!r} is no parameter: a name of its own that begins with $")
            seen.append(parameter.text)
        body: _Body = []
        while not self._closes():
            body.append(self._statement(self._take()))
        if not body:
            raise name.error(f"macro {name.text} is empty")
        self.macros[name.text] = _Macro(name, tuple(seen), body)

    def _tag(self, token: Token) -> None:
        name = self._name(token, self.tags)
        number: int | None = None
        default: Token | None = None
        enums: dict[str, int] = {}
        flags: dict[str, int] = {}
        while not self._closes():
            word = self._take()
            match word.text:
                case "id":
                    number = _number(self._argument(word, "a number"), 0xFFFFFFFF)
                case "default":
                    default = self._argument(word, "a number or a name")
                case "enum":
                    value = _number(self._argument(word, "a number"), 0xFFFFFFFF)
                    enums[self._name(word, {**enums, **flags}).text] = value
                case "flag":
                    mask = _flag_mask(self._argument(word, "bits"), flags)
                    flags[self._name(word, {**enums, **flags}).text] = mask
                case _:
                    raise word.error(f"{word.text!r} in tag {name.text}: it may hold id, default, enum and flag; is a ; missing?")
        if number is None:
            raise name.error(f"tag {name.text} has no id")
        if other := next((tag for tag in self.tags.values() if tag.id == number), None):
            raise name.error(f"tag {name.text} has the id of tag {other.name}")
        if len(self.tags) == MAX_TAGS:
            raise name.error(f"more than {MAX_TAGS} tags")
        value_of = {**enums, **flags}
        initial = None if default is None else _value(default, value_of, f"tag {name.text}")
        self.tags[name.text] = TagDefinition(name.text, number, initial, enums, flags)

    def _capability(self, token: Token) -> None:
        name = self._name(token, {cap.name.text: cap for cap in self.capabilities})
        number: int | None = None
        default = False
        body: _Body = []
        while not self._closes():
            word = self._take()
            if word.text == "id":
                number = _number(self._argument(word, "a number"), 0xFFFFFFFF)
            elif word.text == "default":
                default = True
            else:
                body.append(self._statement(word))
        if number is None:
            raise name.error(f"cap {name.text} has no id")
        if other := next((cap for cap in self.capabilities if cap.id == number), None):
            raise name.error(f"cap {name.text} has the id of cap {other.name.text}")
        if len(self.capabilities) == MAX_CAPABILITIES:
            raise name.error(f"more than {MAX_CAPABILITIES} capabilities")
        self.capabilities.append(_Capability(name, number, default, body))


def _call(token: Token) -> tuple[Token, tuple[Token, ...]]:
    """`name` or `name(a,b)`, one word."""
    found = _CALL.fullmatch(token.text)
    if found is None:
        raise token.error(f"{token.text!r}: write name or name(first,second) without blanks")
    if found.group(2) is None:
        return token, ()
    return token.part(0, found.group(1)), tuple(_commas(token.part(found.start(2), found.group(2))))


def _commas(token: Token) -> Iterator[Token]:
    at = 0
    for piece in token.text.split(","):
        part = token.part(at, piece)
        if not piece:
            raise part.error("something is missing beside this comma" if "," in token.text else "nothing in the parentheses")
        yield part
        at += len(piece) + 1


# -- values --


def _number(token: Token, limit: int, lowest: int = 0) -> int:
    text = token.text
    try:
        value = int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        value = -2
    if not lowest <= value <= limit or not re.fullmatch(r"-?\d+|0[xX][0-9a-fA-F]+", text, re.ASCII):
        raise token.error(f"{text!r} is no number from {lowest} to {limit}")
    return value


def _range(token: Token, limit: int) -> tuple[int, int]:
    low, dash, high = token.text.partition("-")
    first = _number(token.part(0, low), limit)
    last = _number(token.part(len(low) + 1, high), limit) if dash else first
    if last < first:
        raise token.error(f"{token.text!r}: the range ends before it begins")
    return first, last


def _named(token: Token, names: Mapping[str, int], limit: int, what: str) -> int:
    known = names.get(token.text.lower())
    if known is not None:
        return known
    if token.text[:1].isdigit():
        return _number(token, limit)
    raise token.error(f"{token.text!r} is no {what}: a number from 0 to {limit}, or {', '.join(names)}")


def _value(token: Token, names: Mapping[str, int], owner: str) -> int:
    known = names.get(token.text.lower())
    if known is not None:
        return known
    if token.text[:1].isdigit():
        return _number(token, 0xFFFFFFFF)
    choice = f", or {', '.join(names)}" if names else "; it names no values"
    raise token.error(f"{token.text!r} is no value of {owner}: a number from 0 to 4294967295{choice}")


def _flag_mask(token: Token, flags: Mapping[str, int]) -> int:
    mask = 0
    for piece in _commas(token):
        known = flags.get(piece.text.lower())
        mask |= known if known is not None else 1 << _number(piece, 31)
    return mask


def _address(token: Token) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{10}", token.text):
        raise token.error(f"{token.text!r} is no node address: 10 hexadecimal digits")
    return bytes.fromhex(token.text)


def _mac(token: Token) -> bytes:
    digits = re.sub("[^0-9a-fA-F]", "", token.text)
    if len(digits) != 12 or re.search("[g-zG-Z]", token.text):
        raise token.error(f"{token.text!r} is no MAC address: 12 hexadecimal digits, as 02:11:22:33:44:55")
    return bytes.fromhex(digits)


# -- matches: arguments to the rule's data --

_Simple = tuple[RuleType, Callable[[Sequence[Token]], bytes]]


def _tos(arguments: Sequence[Token]) -> bytes:
    return bytes((_number(arguments[0], 255), *_range(arguments[1], 255)))


def _icmp(arguments: Sequence[Token]) -> bytes:
    code = _number(arguments[1], 255, -1)
    return bytes((_number(arguments[0], 255), max(code, 0), int(code >= 0)))


def _ports(arguments: Sequence[Token]) -> bytes:
    low, high = _range(arguments[0], 0xFFFF)
    return low.to_bytes(2) + high.to_bytes(2)


def _characteristics(arguments: Sequence[Token]) -> bytes:
    mask = 0
    for piece in _commas(arguments[0]):
        mask |= 1 << _named(piece, CHARACTERISTICS, 63, "characteristic")
    return mask.to_bytes(8)


def _probability(arguments: Sequence[Token]) -> bytes:
    token = arguments[0]
    try:
        share = Decimal(token.text)
    except InvalidOperation:
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= 1:
        raise token.error(f"{token.text!r} is no probability: 0.0 to 1.0")
    return math.floor(0xFFFFFFFF * share).to_bytes(4)


def _plain(size: int, names: Mapping[str, int] | None = None, what: str = "") -> Callable[[Sequence[Token]], bytes]:
    limit = (1 << 8 * size) - 1
    if names is None:
        return lambda arguments: _number(arguments[0], limit).to_bytes(size)
    return lambda arguments: _named(arguments[0], names, limit, what).to_bytes(size)


SIMPLE_MATCHES: dict[str, _Simple] = {
    "ztsrc": (RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS, lambda arguments: _address(arguments[0])),
    "ztdest": (RuleType.MATCH_DEST_ZEROTIER_ADDRESS, lambda arguments: _address(arguments[0])),
    "vlan": (RuleType.MATCH_VLAN_ID, _plain(2)),
    "vlanpcp": (RuleType.MATCH_VLAN_PCP, _plain(1)),
    "vlandei": (RuleType.MATCH_VLAN_DEI, _plain(1)),
    "ethertype": (RuleType.MATCH_ETHERTYPE, _plain(2, ETHERTYPES, "EtherType")),
    "macsrc": (RuleType.MATCH_MAC_SOURCE, lambda arguments: _mac(arguments[0])),
    "macdest": (RuleType.MATCH_MAC_DEST, lambda arguments: _mac(arguments[0])),
    "iptos": (RuleType.MATCH_IP_TOS, _tos),
    "ipprotocol": (RuleType.MATCH_IP_PROTOCOL, _plain(1, PROTOCOLS, "protocol")),
    "icmp": (RuleType.MATCH_ICMP, _icmp),
    "sport": (RuleType.MATCH_IP_SOURCE_PORT_RANGE, _ports),
    "dport": (RuleType.MATCH_IP_DEST_PORT_RANGE, _ports),
    "framesize": (RuleType.MATCH_FRAME_SIZE_RANGE, _ports),
    "chr": (RuleType.MATCH_CHARACTERISTICS, _characteristics),
    "random": (RuleType.MATCH_RANDOM, _probability),
}
ACTION_TYPES = {
    "drop": RuleType.ACTION_DROP,
    "accept": RuleType.ACTION_ACCEPT,
    "break": RuleType.ACTION_BREAK,
    "tee": RuleType.ACTION_TEE,
    "watch": RuleType.ACTION_WATCH,
    "redirect": RuleType.ACTION_REDIRECT,
}


# -- making rules --


class _Compiler:
    """Turns what was parsed into rules."""

    def __init__(self, parsed: _Parser) -> None:
        self._parsed = parsed
        self._tags_by_id = {tag.id: tag for tag in parsed.tags.values()}
        self._warnings: list[Warned] = []

    def result(self) -> RuleSet:
        parsed = self._parsed
        rules, lines = self._list(parsed.statements, MAX_NETWORK_RULES, "a network")
        capabilities = []
        for cap in parsed.capabilities:
            held, held_lines = self._list(cap.body, MAX_CAPABILITY_RULES, f"cap {cap.name.text}")
            capabilities.append(CapabilityDefinition(cap.name.text, cap.id, cap.default, held, held_lines))
        for macro in parsed.macros.values():
            self._check(macro)
        return RuleSet(rules, tuple(capabilities), tuple(parsed.tags.values()), lines, tuple(self._warnings))

    def _list(self, body: _Body, limit: int, owner: str) -> tuple[tuple[Rule, ...], tuple[int, ...]]:
        rules: list[Rule] = []
        lines: list[int] = []
        for statement, arguments in self._expand(body, {}, ()):
            made = self._statement(statement, arguments)
            rules.extend(made)
            lines.extend([statement.action.line] * len(made))
            if len(rules) > limit:
                raise statement.action.error(f"{owner} has at most {limit} rules (each match and each action counts)")
        return tuple(rules), tuple(lines)

    def _check(self, macro: _Macro) -> None:
        """A macro that nobody includes is looked at, too: what it includes must exist, and its `$` words must be parameters."""
        for item in macro.body:
            if isinstance(item, _Include):
                self._macro_of(item)
                used = list(item.arguments)
            else:
                used = [*item.arguments, *(word for match in item.matches for word in match.arguments)]
            for word in used:
                if word.text.startswith("$") and word.text not in macro.parameters:
                    raise word.error(f"macro {macro.name.text} has no parameter {word.text}")

    def _macro_of(self, include: _Include) -> _Macro:
        macro = self._parsed.macros.get(include.name.text.lower())
        if macro is None:
            raise include.name.error(f"there is no macro {include.name.text}")
        if len(include.arguments) != len(macro.parameters):
            raise include.name.error(
                f"macro {include.name.text} takes {len(macro.parameters)} arguments, not {len(include.arguments)}"
            )
        return macro

    def _expand(
        self, body: _Body, arguments: Mapping[str, Token], within: tuple[str, ...]
    ) -> Iterator[tuple[_Statement, Mapping[str, Token]]]:
        for item in body:
            if isinstance(item, _Statement):
                yield item, arguments
                continue
            macro = self._macro_of(item)
            name = macro.name.text
            if name in within:
                raise item.name.error(f"macro {name} includes itself")
            if len(within) >= MAX_DEPTH:
                raise item.name.error(f"macros are nested more than {MAX_DEPTH} deep")
            given = tuple(_substitute(word, arguments) for word in item.arguments)
            yield from self._expand(macro.body, dict(zip(macro.parameters, given, strict=True)), (*within, name))

    def _statement(self, statement: _Statement, arguments: Mapping[str, Token]) -> list[Rule]:
        rules = []
        for match in statement.matches:
            kind, data = self._match(match.name, [_substitute(word, arguments) for word in match.arguments])
            rules.append(Rule(kind, data, match.negated, match.alternative))
        words = [_substitute(word, arguments) for word in statement.arguments]
        kind = ACTION_TYPES[statement.action.text]
        data = b""
        if words:
            length = _number(words[0], 0xFFFF, -1) if len(words) == 2 else 0
            data = b"".join((bytes(3), _address(words[-1]), bytes(4), (length & 0xFFFF).to_bytes(2)))
        rules.append(Rule(kind, data))
        return rules

    def _match(self, name: Token, words: list[Token]) -> tuple[RuleType, bytes]:
        if name.text in TAG_MATCHES:
            return TAG_MATCHES[name.text], self._tag(words)
        if name.text in ("ipsrc", "ipdest"):
            return self._prefix(name.text == "ipsrc", words[0])
        kind, build = SIMPLE_MATCHES[name.text]
        return kind, build(words)

    def _tag(self, words: list[Token]) -> bytes:
        which, what = words
        tag: TagDefinition | None
        if which.text[:1].isdigit():
            number = _number(which, 0xFFFFFFFF)
            tag = self._tags_by_id.get(number)
        else:
            tag = self._parsed.tags.get(which.text.lower())
            if tag is None:
                raise which.error(f"there is no tag {which.text}")
            number = tag.id
        value = _value(what, {} if tag is None else tag.value_names(), f"tag {which.text}")
        return number.to_bytes(4) + value.to_bytes(4)

    def _prefix(self, source: bool, token: Token) -> tuple[RuleType, bytes]:
        try:
            prefix = parse_prefix(token.text)
        except DecodeError:
            raise token.error(f"{token.text!r} is no prefix: address/bits, as 10.1.0.0/16 or fd00::/8") from None
        data = prefix.ip + prefix.port.to_bytes(1)
        if len(prefix.ip) == 4:
            return (RuleType.MATCH_IPV4_SOURCE if source else RuleType.MATCH_IPV4_DEST), data
        if int.from_bytes(prefix.ip) & ((1 << 128 - prefix.port) - 1):
            self._warnings.append(Warned(token.line, token.column, f"{token.text} matches nothing: its host bits are not zero"))
        return (RuleType.MATCH_IPV6_SOURCE if source else RuleType.MATCH_IPV6_DEST), data


def _substitute(word: Token, arguments: Mapping[str, Token]) -> Token:
    """A macro's parameter becomes its argument; errors about it point to where the argument was given."""
    if not word.text.startswith("$"):
        return word
    given = arguments.get(word.text)
    if given is None:
        raise word.error(f"{word.text} is no parameter of a macro here")
    return given
