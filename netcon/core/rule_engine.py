"""The rules evaluator (vl2 §4.2 to §4.6): rule lists are compiled once per configuration, then asked about each frame.

Pure: what a frame is judged by (direction, tags, owned addresses, randomness) is in its `FilteredFrame`. Behaviour of 1.14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from struct import Struct
from typing import NamedTuple

from netcon.core.address import BROADCAST_MAC, rfc4193_address, sixplane_address
from netcon.core.credentials import Capability
from netcon.core.messages.frames import ExtFrame
from netcon.core.netconf import NetworkConfig
from netcon.core.rules import Rule, RuleType, prefix_of

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP4, _TCP, _ICMP6 = 1, 6, 58
_PORT_PROTOCOLS = frozenset((_TCP, 17, 132, 136))  # TCP, UDP, SCTP, UDP-Lite
_EXTENSION_HEADERS = frozenset((0, 43, 60, 135))
_ICMP6_SOLICITATION, _ICMP6_ADVERTISEMENT = 135, 136

#: What a match says. The hard ones hold whether the rule says NOT or not (vl2 §4.3).
_NO, _YES, _HARD_NO, _HARD_YES = 0, 1, 2, 3

_FORWARD = Struct(">QIH").unpack_from
_TAG = Struct(">II").unpack_from
_RANGE = Struct(">HH").unpack_from
_INTEGER = Struct(">QQHB").unpack_from

_CHR_INBOUND = 1 << 63
_CHR_MULTICAST = 1 << 62
_CHR_BROADCAST = 1 << 61
_CHR_IP_OWNED = 1 << 60
_CHR_MAC_OWNED = 1 << 59


class FilteredFrame:
    """A frame and all that rules judge it by. `payload` follows the EtherType.

    `own`, `source`, `destination`: node addresses (destination 0 in the first pass of multicast and of unknown bridged frames).
    `local_tags`, `remote_tags`: id to value, ours and the other side's, only those that count now. `owned_ips`, `owned_macs`: of
    the sending side, hence ours when outbound. `own_prefixes`: see `emulated_prefixes`. `random`: bytes for MATCH_RANDOM.
    """

    __slots__ = (
        "_ip",
        "destination",
        "destination_mac",
        "ethertype",
        "inbound",
        "local_tags",
        "own",
        "own_prefixes",
        "owned_ips",
        "owned_macs",
        "payload",
        "random",
        "remote_tags",
        "skip_drop",
        "source",
        "source_mac",
        "super_accept",
    )

    def __init__(
        self,
        inbound: bool,
        own: int,
        source: int,
        destination: int,
        source_mac: bytes,
        destination_mac: bytes,
        ethertype: int,
        payload: bytes,
        random: Callable[[int], bytes],
        local_tags: Mapping[int, int],
        remote_tags: Mapping[int, int],
        owned_ips: frozenset[bytes] = frozenset(),
        owned_macs: frozenset[bytes] = frozenset(),
        own_prefixes: tuple[bytes, ...] = (),
    ) -> None:
        self.inbound = inbound
        self.own = own
        self.source = source
        self.destination = destination
        self.source_mac = source_mac
        self.destination_mac = destination_mac
        self.ethertype = ethertype
        self.payload = payload
        self.random = random
        self.local_tags = local_tags
        self.remote_tags = remote_tags
        self.owned_ips = owned_ips
        self.owned_macs = owned_macs
        self.own_prefixes = own_prefixes
        self.super_accept = False
        self.skip_drop = False
        self._ip: tuple[int, int] | None = None

    def transport(self) -> tuple[int, int]:
        """(protocol, offset of its header); (-1, 0) if this is no complete IP header."""
        if self._ip is None:
            self._ip = self._find_transport()
        return self._ip

    def _find_transport(self) -> tuple[int, int]:
        payload = self.payload
        if self.ethertype == _IPV4:
            return (payload[9], 4 * (payload[0] & 0x0F)) if len(payload) >= 20 else (-1, 0)
        if self.ethertype != _IPV6 or len(payload) < 40:
            return -1, 0
        protocol, offset = payload[6], 40
        while protocol in _EXTENSION_HEADERS:
            if offset + 8 > len(payload):
                return -1, 0
            protocol, offset = payload[offset], offset + 8 * (payload[offset + 1] + 1)
        return (protocol, offset) if offset <= len(payload) else (-1, 0)

    def characteristics(self) -> int:
        bits = _CHR_INBOUND if self.inbound else 0
        if self.destination_mac[0] & 0x01:
            bits |= _CHR_MULTICAST
            if self.destination_mac == BROADCAST_MAC:
                bits |= _CHR_BROADCAST
        if self.source_mac in self.owned_macs:
            bits |= _CHR_MAC_OWNED
        if self._ip_owned():
            bits |= _CHR_IP_OWNED
        protocol, offset = self.transport()
        if protocol == _TCP and len(self.payload) >= offset + 14:
            bits |= (self.payload[offset + 12] & 0x0F) << 8 | self.payload[offset + 13]
        return bits

    def _ip_owned(self) -> bool:
        payload, length = self.payload, len(self.payload)
        match self.ethertype:
            case 0x0800:
                return length >= 20 and payload[12:16] in self.owned_ips
            case 0x0806:
                return length >= 28 and payload[14:18] in self.owned_ips
            case 0x86DD if length >= 40:
                ip = payload[8:24]
                if payload[6] == _ICMP6 and length > 40:
                    if payload[40] == _ICMP6_SOLICITATION:
                        return True
                    if payload[40] == _ICMP6_ADVERTISEMENT and length >= 64:
                        ip = payload[48:64]
                return ip in self.owned_ips or (self.inbound and ip.startswith(self.own_prefixes))
        return False


def emulated_prefixes(config: NetworkConfig) -> tuple[bytes, ...]:
    """Beginnings of IPv6 addresses that need no certificate of ownership: with NDP emulation, the 6PLANE /40 and the RFC4193
    /88 of the network, as far as we have such an address assigned (vl2 §4.3, bit 60)."""
    if not config.ndp_emulation:
        return ()
    assigned = {address.ip for address in config.addresses}
    sixplane = sixplane_address(config.network, config.issued_to)
    rfc4193 = rfc4193_address(config.network, config.issued_to)
    return tuple(ip[:size] for ip, size in ((sixplane, 5), (rfc4193, 11)) if ip in assigned)


# -- matches --

_Match = Callable[[FilteredFrame], int]


def _constant(value: int) -> _Match:
    return lambda frame: value


def _match_source_address(rule: Rule, unknown: bool) -> _Match:
    address = int.from_bytes(rule.data[:5])
    return lambda frame: frame.source == address


def _match_destination_address(rule: Rule, unknown: bool) -> _Match:
    address = int.from_bytes(rule.data[:5])
    return lambda frame: frame.destination == address


def _match_vlan_id(rule: Rule, unknown: bool) -> _Match:
    return _constant(rule.data[:2] == b"\0\0")  # the VLAN of a frame is always 0 (vl2 §1.5)


def _match_vlan_priority(rule: Rule, unknown: bool) -> _Match:
    return _constant(rule.data[0] == 0)


def _match_source_mac(rule: Rule, unknown: bool) -> _Match:
    mac = rule.data[:6]
    return lambda frame: frame.source_mac == mac


def _match_destination_mac(rule: Rule, unknown: bool) -> _Match:
    mac = rule.data[:6]
    return lambda frame: frame.destination_mac == mac


def _match_prefix(ethertype: int, shortest: int, start: int, size: int) -> Callable[[Rule, bool], _Match]:
    def build(rule: Rule, unknown: bool) -> _Match:
        prefix = prefix_of(rule)
        shift = 8 * size - min(prefix.port, 8 * size)
        wanted = int.from_bytes(prefix.ip)
        if size == 4:
            wanted = wanted >> shift << shift  # the IPv6 rule's own host bits count: they must be 0 (vl2 §4.3)

        def match(frame: FilteredFrame) -> int:
            if frame.ethertype != ethertype or len(frame.payload) < shortest:
                return _HARD_NO
            return int.from_bytes(frame.payload[start : start + size]) >> shift << shift == wanted

        return match

    return build


def _match_tos(rule: Rule, unknown: bool) -> _Match:
    mask, low, high = rule.data[:3]

    def match(frame: FilteredFrame) -> int:
        payload = frame.payload
        if frame.ethertype == _IPV4 and len(payload) >= 20:
            value = payload[1]
        elif frame.ethertype == _IPV6 and len(payload) >= 40:
            value = (payload[0] << 4 & 0xF0) | payload[1] >> 4
        else:
            return _HARD_NO
        return bool(low <= value & mask <= high)

    return match


def _match_protocol(rule: Rule, unknown: bool) -> _Match:
    wanted = rule.data[0]

    def match(frame: FilteredFrame) -> int:
        protocol = frame.transport()[0]
        return _HARD_NO if protocol < 0 else protocol == wanted

    return match


def _match_ethertype(rule: Rule, unknown: bool) -> _Match:
    ethertype = int.from_bytes(rule.data[:2])
    return lambda frame: frame.ethertype == ethertype


def _match_icmp(rule: Rule, unknown: bool) -> _Match:
    kind, code, flags = rule.data[:3]

    def match(frame: FilteredFrame) -> int:
        protocol, offset = frame.transport()
        if protocol != (_ICMP4 if frame.ethertype == _IPV4 else _ICMP6) or len(frame.payload) < offset + 2:
            return _HARD_NO
        if frame.payload[offset] != kind:
            return _HARD_NO  # NOT acts on the comparison of the code alone (vl2 §4.3)
        return frame.payload[offset + 1] == code if flags & 0x01 else _HARD_YES

    return match


def _match_port(which: int) -> Callable[[Rule, bool], _Match]:
    def build(rule: Rule, unknown: bool) -> _Match:
        low, high = _RANGE(rule.data)

        def match(frame: FilteredFrame) -> int:
            protocol, offset = frame.transport()
            if protocol < 0:
                return _HARD_NO
            if protocol not in _PORT_PROTOCOLS or len(frame.payload) <= offset + 4:
                return _NO
            start = offset + which
            port = int.from_bytes(frame.payload[start : start + 2])
            return bool(low <= port <= high and (port > 0 or frame.ethertype == _IPV4))

        return match

    return build


def _match_characteristics(rule: Rule, unknown: bool) -> _Match:
    mask = int.from_bytes(rule.data[:8])
    return lambda frame: frame.characteristics() & mask != 0


def _match_size(rule: Rule, unknown: bool) -> _Match:
    low, high = _RANGE(rule.data)
    return lambda frame: low <= len(frame.payload) <= high


def _match_random(rule: Rule, unknown: bool) -> _Match:
    probability = int.from_bytes(rule.data[:4])
    return lambda frame: int.from_bytes(frame.random(4)) <= probability


def _lenient(frame: FilteredFrame) -> int:
    """A tag is not known here: match, and leave the decision to the receiver (vl2 §4.4)."""
    frame.skip_drop = True
    return _HARD_YES


def _match_tags(compare: Callable[[int, int, int], bool]) -> Callable[[Rule, bool], _Match]:
    def build(rule: Rule, unknown: bool) -> _Match:
        tag, value = _TAG(rule.data)

        def match(frame: FilteredFrame) -> int:
            local = frame.local_tags.get(tag)
            if local is None:
                return _HARD_NO
            remote = frame.remote_tags.get(tag)
            if remote is None:
                return _HARD_NO if frame.inbound and not frame.super_accept else _lenient(frame)
            return compare(local, remote, value)

        return match

    return build


def _match_tag_of(sender: bool) -> Callable[[Rule, bool], _Match]:
    def build(rule: Rule, unknown: bool) -> _Match:
        tag, value = _TAG(rule.data)

        def match(frame: FilteredFrame) -> int:
            if frame.super_accept:
                return _lenient(frame)
            remote = sender == frame.inbound
            held = (frame.remote_tags if remote else frame.local_tags).get(tag)
            if held is None:
                return _lenient(frame) if remote and not sender else _HARD_NO
            return bool(held == value)

        return match

    return build


def _match_integer(rule: Rule, unknown: bool) -> _Match:
    start, end, index, shape = _INTEGER(rule.data)
    bits = (shape & 0x3F) + 1
    size = (bits + 7) // 8
    little = bool(shape & 0x80)
    mask = (1 << bits) - 1

    def match(frame: FilteredFrame) -> int:
        payload = frame.payload
        value = 0
        if little:
            if index + size <= len(payload):
                value = int.from_bytes(payload[index : index + size], "little") >> 8 * size - bits
        elif index + 8 <= len(payload):  # the tail of an 8-byte window (vl2 §4.3)
            value = int.from_bytes(payload[index + 8 - size : index + 8]) & mask
        return bool(start <= value <= end)

    return match


def _match_unknown(rule: Rule, unknown: bool) -> _Match:
    return _constant(unknown)


_MATCHES: dict[int, Callable[[Rule, bool], _Match]] = {
    RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS: _match_source_address,
    RuleType.MATCH_DEST_ZEROTIER_ADDRESS: _match_destination_address,
    RuleType.MATCH_VLAN_ID: _match_vlan_id,
    RuleType.MATCH_VLAN_PCP: _match_vlan_priority,
    RuleType.MATCH_VLAN_DEI: _match_vlan_priority,
    RuleType.MATCH_MAC_SOURCE: _match_source_mac,
    RuleType.MATCH_MAC_DEST: _match_destination_mac,
    RuleType.MATCH_IPV4_SOURCE: _match_prefix(_IPV4, 20, 12, 4),
    RuleType.MATCH_IPV4_DEST: _match_prefix(_IPV4, 20, 16, 4),
    RuleType.MATCH_IPV6_SOURCE: _match_prefix(_IPV6, 40, 8, 16),
    RuleType.MATCH_IPV6_DEST: _match_prefix(_IPV6, 40, 24, 16),
    RuleType.MATCH_IP_TOS: _match_tos,
    RuleType.MATCH_IP_PROTOCOL: _match_protocol,
    RuleType.MATCH_ETHERTYPE: _match_ethertype,
    RuleType.MATCH_ICMP: _match_icmp,
    RuleType.MATCH_IP_SOURCE_PORT_RANGE: _match_port(0),
    RuleType.MATCH_IP_DEST_PORT_RANGE: _match_port(2),
    RuleType.MATCH_CHARACTERISTICS: _match_characteristics,
    RuleType.MATCH_FRAME_SIZE_RANGE: _match_size,
    RuleType.MATCH_RANDOM: _match_random,
    RuleType.MATCH_TAGS_DIFFERENCE: _match_tags(lambda local, remote, value: abs(local - remote) <= value),
    RuleType.MATCH_TAGS_BITWISE_AND: _match_tags(lambda local, remote, value: local & remote == value),
    RuleType.MATCH_TAGS_BITWISE_OR: _match_tags(lambda local, remote, value: local | remote == value),
    RuleType.MATCH_TAGS_BITWISE_XOR: _match_tags(lambda local, remote, value: local ^ remote == value),
    RuleType.MATCH_TAGS_EQUAL: _match_tags(lambda local, remote, value: local == value == remote),
    RuleType.MATCH_TAG_SENDER: _match_tag_of(sender=True),
    RuleType.MATCH_TAG_RECEIVER: _match_tag_of(sender=False),
    RuleType.MATCH_INTEGER_RANGE: _match_integer,
}


# -- one rule list --


class Result(Enum):
    """What one rule list says (vl2 §4.2)."""

    NO_MATCH = "no_match"
    DROP = "drop"
    ACCEPT = "accept"
    REDIRECT = "redirect"
    SUPER_ACCEPT = "super_accept"


class CopyTo(NamedTuple):
    """A tee or watch: the first `length` bytes of the payload go to `target` as well."""

    target: int
    length: int
    watched: bool


class Outcome(NamedTuple):
    result: Result
    copy: CopyTo | None = None
    redirect_to: int = 0


_ACCEPTED = Outcome(Result.ACCEPT)


class _Forward(NamedTuple):
    target: int
    length: int


#: (match, NOT, OR) for matches; (None, action, forward) for actions.
_Entry = tuple[_Match, bool, bool] | tuple[None, int, _Forward | None]


class CompiledRules:
    """A rule list, ready to be asked."""

    __slots__ = ("_entries", "accepts_all")

    def __init__(self, rules: Sequence[Rule], unknown_match: bool = False) -> None:
        #: The list begins with an unconditional accept: no frame needs to be looked at.
        self.accepts_all = bool(rules) and rules[0].type == RuleType.ACTION_ACCEPT
        self._entries = tuple(_compile(rule, unknown_match) for rule in rules)

    def evaluate(self, frame: FilteredFrame) -> Outcome:
        if self.accepts_all:
            return _ACCEPTED
        frame.super_accept = frame.skip_drop = False
        inbound = frame.inbound
        holds = True
        copy: CopyTo | None = None
        for entry in self._entries:
            if entry[0] is not None:
                match, negated, alternative = entry
                if not holds and not alternative:
                    continue
                value = match(frame)
                matched = value ^ negated if value <= _YES else value == _HARD_YES
                holds = bool(holds or matched) if alternative else bool(matched)
                continue
            _, action, forward = entry
            if not holds:
                if inbound and forward is not None and forward.target == frame.own:
                    frame.super_accept = True
                holds = True
                continue
            if action == RuleType.ACTION_DROP:
                if not frame.skip_drop:
                    return Outcome(Result.DROP, copy)
                frame.skip_drop = False
            elif action == RuleType.ACTION_ACCEPT:
                return Outcome(Result.SUPER_ACCEPT if frame.super_accept else Result.ACCEPT, copy)
            elif action == RuleType.ACTION_PRIORITY:
                return Outcome(Result.ACCEPT, copy)
            elif action == RuleType.ACTION_BREAK:
                return Outcome(Result.NO_MATCH, copy)
            elif forward is not None:
                target = forward.target
                if target == frame.source:
                    continue
                if target == frame.own:
                    if inbound:
                        return Outcome(Result.SUPER_ACCEPT, copy)
                    continue
                if target == frame.destination:
                    continue
                if action == RuleType.ACTION_REDIRECT:
                    return Outcome(Result.REDIRECT, copy, target)
                length = len(frame.payload)
                copy = CopyTo(target, min(length, forward.length or length), action == RuleType.ACTION_WATCH)
        return Outcome(Result.NO_MATCH, copy)


def _compile(rule: Rule, unknown_match: bool) -> _Entry:
    if not rule.is_action:
        build = _MATCHES.get(rule.type, _match_unknown)
        return build(rule, unknown_match), rule.negated, rule.alternative
    if rule.type in (RuleType.ACTION_TEE, RuleType.ACTION_WATCH, RuleType.ACTION_REDIRECT):
        target, _flags, length = _FORWARD(rule.data)
        return None, rule.type, _Forward(target, length)
    return None, rule.type, None


def compile_capabilities(capabilities: Iterable[Capability], unknown_match: bool = False) -> tuple[CompiledRules, ...]:
    """In the order in which they are asked."""
    return tuple(
        CompiledRules(capability.rules, unknown_match) for capability in sorted(capabilities, key=lambda capability: capability.id)
    )


# -- the filters --


class Verdict(Enum):
    """`ACCEPT`: goes on its way. `SUPER_ACCEPT`: deliver without the checks of addressing (vl2 §1.7). `REDIRECT`: it is among the
    copies, and goes nowhere else. `DROP`: nowhere."""

    DROP = "drop"
    ACCEPT = "accept"
    SUPER_ACCEPT = "super_accept"
    REDIRECT = "redirect"


class FrameCopy(NamedTuple):
    """Send EXT_FRAME with these flags, the original MACs and the first `length` bytes of the payload to `target`."""

    target: int
    flags: int
    length: int


class Decision(NamedTuple):
    verdict: Verdict
    copies: tuple[FrameCopy, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.verdict is Verdict.ACCEPT or self.verdict is Verdict.SUPER_ACCEPT


_DROP = Decision(Verdict.DROP)
_ACCEPT = Decision(Verdict.ACCEPT)
#: (tee, watch, redirect) flags, outbound and inbound (vl2 §1.4).
_OUTBOUND = (ExtFrame.TEE_OUTBOUND, ExtFrame.WATCH_OUTBOUND, ExtFrame.REDIRECT_OUTBOUND)
_INBOUND = (ExtFrame.TEE_INBOUND, ExtFrame.WATCH_INBOUND, ExtFrame.REDIRECT_INBOUND)
_ACCEPTING = frozenset((Result.ACCEPT, Result.SUPER_ACCEPT, Result.REDIRECT))


def _filter(
    rules: CompiledRules, capabilities: Sequence[CompiledRules], frame: FilteredFrame, flags: tuple[int, int, int], tee: bool
) -> Decision:
    first = rules.evaluate(frame)
    outcome = first
    if first.result is Result.NO_MATCH:
        for capability in capabilities:
            outcome = capability.evaluate(frame)
            if outcome.result in _ACCEPTING:
                break
    if outcome.result not in _ACCEPTING:
        return _DROP
    copies: list[FrameCopy] = []
    if tee:
        for copy in (first.copy,) if outcome is first else (first.copy, outcome.copy):
            if copy is not None:
                copies.append(FrameCopy(copy.target, flags[copy.watched], copy.length))
    if outcome.result is Result.REDIRECT:
        copies.append(FrameCopy(outcome.redirect_to, flags[2], len(frame.payload)))
        return Decision(Verdict.REDIRECT, tuple(copies))
    verdict = Verdict.SUPER_ACCEPT if outcome.result is Result.SUPER_ACCEPT else Verdict.ACCEPT
    return Decision(verdict, tuple(copies))


def filter_outbound(
    rules: CompiledRules, capabilities: Sequence[CompiledRules], frame: FilteredFrame, *, tee: bool = True
) -> Decision:
    """May we send this frame (vl2 §4.5)? `capabilities`: our own. `tee` False: make no copies, an earlier pass did."""
    if rules.accepts_all:
        return _ACCEPT
    return _filter(rules, capabilities, frame, _OUTBOUND, tee)


def filter_inbound(rules: CompiledRules, capabilities: Sequence[CompiledRules], frame: FilteredFrame) -> Decision:
    """May this frame come in (vl2 §4.6)? `capabilities`: the sender's, those that count now."""
    if rules.accepts_all:
        return _ACCEPT
    return _filter(rules, capabilities, frame, _INBOUND, True)
