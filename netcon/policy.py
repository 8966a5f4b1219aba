"""The policy language: where programs' traffic goes. For people: docs/policy.md; what it becomes: include/netcon/policy.h.

    loopback           virtual             # 127.0.0.0/8 and ::1 are the network's own
    10.0.0.0/8 tcp 80  network 8056c2e21c000001
    192.0.2.0/24       host                # the program's own network namespace
    any udp,tcp 53     network
    bind any tcp 8080  host                # a server that listens on the host
    raw                allow
    names              refuse              # names of no network, and the host's name servers
    default            refuse              # what no network carries

One line is one rule (`;` separates, too), the first that fits decides. Nothing here touches a socket.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Rules of the compiled table (NETCON_POLICY_RULES_MAX); `loopback` and lists of ports take several.
RULES_MAX = 64
TEXT_PREFIX = "1:"
_HEAD = struct.Struct("=BBBB4x")
_RULE = struct.Struct("=16sQBBBBHH")
_IPV6_ONLY = 4

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK: tuple[IPNetwork, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class PolicyError(ValueError):
    """The text is not a policy. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line, self.column = line, column


class Target(enum.IntEnum):
    """enum netcon_policy_target."""

    UNDECIDED = 0
    NETWORK = 1
    HOST = 2
    VIRTUAL = 3
    REFUSE = 4


class Direction(enum.IntFlag):
    CONNECT = 1
    BIND = 2


class Protocol(enum.IntFlag):
    TCP = 1
    UDP = 2
    ICMP = 4


NO_PROTOCOLS = Protocol(0)
_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "icmp": Protocol.ICMP}
_TARGETS = {"network": Target.NETWORK, "host": Target.HOST, "virtual": Target.VIRTUAL, "refuse": Target.REFUSE}
_WORD = re.compile(r"\S+")
#: Of longer numbers Python makes no int.
_PORTS = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `where`: prefixes, none for every address. `ports`: inclusive ranges, none for all. `protocols`: 0 for all."""

    target: Target
    where: tuple[IPNetwork, ...] = ()
    protocols: Protocol = NO_PROTOCOLS
    ports: tuple[tuple[int, int], ...] = ()
    network: int = 0
    directions: Direction = Direction.CONNECT
    line: int = 0

    def __str__(self) -> str:
        words = ["bind"] if self.directions == Direction.BIND else []
        words += ["loopback"] if self.where == LOOPBACK else [str(net) for net in self.where] or ["any"]
        if self.protocols:
            words.append(",".join(name for name, bit in _PROTOCOLS.items() if self.protocols & bit))
        if self.ports:
            words.append(",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ports))
        words.append(self.target.name.lower())
        return " ".join([*words, f"{self.network:016x}"] if self.network else words)

    def fits(self, direction: Direction, protocol: Protocol, ip: IPAddress, port: int) -> bool:
        """As netcon_policy_match."""
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return bool(
            self.directions & direction
            and (not self.protocols or self.protocols & protocol)
            and (not self.where or any(ip in net for net in self.where))
            and (not self.ports or any(a <= port <= b for a, b in self.ports))
        )

    def compiled(self) -> Iterator[bytes]:
        for net in self.where or (None,):
            address, prefix, directions = bytes(16), 0, int(self.directions)
            if isinstance(net, ipaddress.IPv4Network):
                address, prefix = bytes(10) + b"\xff\xff" + net.network_address.packed, 96 + net.prefixlen
            elif net is not None:
                address, prefix = net.network_address.packed, net.prefixlen
                directions |= _IPV6_ONLY
            for first, last in self.ports or ((0, 65535),):
                yield _RULE.pack(address, self.network, prefix, directions, self.protocols, self.target, first, last)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What decides about one destination. `rule` None: no line; joined networks do, and `fallback` where they have no way."""

    rule: Rule | None
    target: Target
    fallback: Target

    def __str__(self) -> str:
        if self.rule is not None:
            return f"line {self.rule.line}: {self.rule}"
        if self.target == Target.HOST:
            return "no line: loopback is the host's"
        return f"no line: the network that has a route to it; default {self.fallback.name.lower()} if there is none"


@dataclass(frozen=True, slots=True)
class Policy:
    """`fallback` and `names` UNDECIDED, `raw` None: nothing was said."""

    rules: tuple[Rule, ...] = ()
    fallback: Target = Target.UNDECIDED
    raw: bool | None = None
    names: Target = Target.UNDECIDED

    @classmethod
    def parse(cls, text: str | Iterable[str]) -> Policy:
        """A text, or the list of its lines. PolicyError."""
        rules: list[Rule] = []
        said: dict[str, str] = {}
        number = 0
        for number, line in enumerate(text.splitlines() if isinstance(text, str) else text, 1):
            start = 0
            for piece in line.split("#", 1)[0].split(";"):
                words = [(match.group().lower(), start + match.start() + 1) for match in _WORD.finditer(piece)]
                start += len(piece) + 1
                if not words:
                    continue
                (keyword, column), rest = words[0], words[1:]
                if keyword in ("raw", "default", "names"):
                    allowed = ("allow", "refuse") if keyword == "raw" else ("host", "refuse")
                    if len(rest) != 1 or rest[0][0] not in allowed:
                        raise PolicyError(
                            f"`{keyword}` is followed by `{allowed[0]}` or `{allowed[1]}` and nothing else", number, column
                        )
                    if keyword in said:
                        raise PolicyError(f"`{keyword}` is said twice", number, column)
                    said[keyword] = rest[0][0]
                else:
                    rules.append(_parse_rule(words, number))
        policy = cls(
            tuple(rules),
            _TARGETS.get(said.get("default", ""), Target.UNDECIDED),
            said["raw"] == "allow" if "raw" in said else None,
            _TARGETS.get(said.get("names", ""), Target.UNDECIDED),
        )
        if len(list(policy._compiled_rules())) > RULES_MAX:
            raise PolicyError(
                f"too long: more than {RULES_MAX} rules, where `loopback` counts as 2 and each port of a list as one", number
            )
        return policy

    def __str__(self) -> str:
        lines = [str(rule) for rule in self.rules]
        if self.raw is not None:
            lines.append(f"raw {'allow' if self.raw else 'refuse'}")
        if self.names:
            lines.append(f"names {self.names.name.lower()}")
        if self.fallback:
            lines.append(f"default {self.fallback.name.lower()}")
        return "".join(f"{line}\n" for line in lines)

    def _compiled_rules(self) -> Iterator[bytes]:
        for rule in self.rules:
            yield from rule.compiled()

    def compiled(self, *, run: bool = False) -> bytes:
        """struct netcon_policy. What a service's leaves open is closed; what a run's leaves open is asked of the service."""
        rules = list(self._compiled_rules())
        fallback = self.fallback or (Target.UNDECIDED if run else Target.REFUSE)
        return _HEAD.pack(len(rules), fallback, bool(self.raw), self.names) + b"".join(rules)

    def environment(self) -> str:
        """The value of NETCON_POLICY."""
        return TEXT_PREFIX + self.compiled(run=True).hex()

    def decide(
        self, ip: IPAddress, port: int = 0, protocol: Protocol = Protocol.TCP, direction: Direction = Direction.CONNECT
    ) -> Verdict:
        """Which line decides about this address."""
        fallback = self.fallback or Target.REFUSE
        for rule in self.rules:
            if rule.fits(direction, protocol, ip, port):
                return Verdict(rule, rule.target, fallback)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        loopback = any(ip in net for net in LOOPBACK)
        return Verdict(None, Target.HOST if loopback else Target.UNDECIDED, fallback)


def _parse_rule(words: list[tuple[str, int]], line: int) -> Rule:
    at = 0

    def word() -> str:
        return words[at][0] if at < len(words) else ""

    def fail(message: str) -> PolicyError:
        last, column = words[-1]
        return PolicyError(message, line, words[at][1] if at < len(words) else column + len(last))

    bind = word() == "bind"
    at += bind
    where: tuple[IPNetwork, ...] = ()
    directions = Direction.BIND if bind else Direction.CONNECT
    if word() == "loopback":
        where = LOOPBACK
        if not bind:
            directions = Direction.CONNECT | Direction.BIND
        at += 1
    elif word() == "any":
        at += 1
    elif "." in word() or ":" in word():
        try:
            where = (ipaddress.ip_network(word()),)
        except ValueError as error:
            raise fail(f"not an address or prefix: {error}") from None
        if isinstance(where[0], ipaddress.IPv6Network) and where[0].subnet_of(ipaddress.IPv6Network("::ffff:0:0/96")):
            raise fail("write IPv4 addresses as such: an IPv4-mapped destination is treated as the IPv4 one")
        at += 1
    protocols = NO_PROTOCOLS
    if word() and all(part in _PROTOCOLS for part in word().split(",")):
        for part in word().split(","):
            protocols |= _PROTOCOLS[part]
        at += 1
    ports: tuple[tuple[int, int], ...] = ()
    if _PORTS.fullmatch(word()):
        parts = (part.partition("-") for part in word().split(","))
        ports = tuple((int(first), int(last or first)) for first, _, last in parts)
        if any(not first <= last <= 65535 for first, last in ports):
            raise fail("ports go from 0 to 65535, the lower one first")
        if protocols & Protocol.ICMP or not protocols:
            raise fail("ports belong to `tcp` or `udp`: name the protocol before them")
        at += 1
    if word() not in _TARGETS:
        expected = "`network [ID]`, `host`, `virtual` or `refuse`"
        if at == 0:
            expected = f"an address, `any`, `loopback`, `bind`, a protocol, `raw`, `names`, `default`, or {expected}"
        raise fail(f"{f'`{word()}`' if word() else 'the end of the line'} is not {expected}")
    if at == bind:
        raise fail("say what this is about: an address, `any`, `loopback` or a protocol")
    target = _TARGETS[word()]
    if (
        target == Target.VIRTUAL
        and where != LOOPBACK
        and not all(any(_inside(net, loop) for loop in LOOPBACK) for net in where or (None,))
    ):
        raise fail("`virtual` is for loopback addresses: networks carry the others")
    at += 1
    network = 0
    if target == Target.NETWORK and word():
        if not re.fullmatch(r"[0-9a-f]{16}", word()):
            raise fail("a network id has 16 hexadecimal digits")
        network = int(word(), 16)
        at += 1
    if at < len(words):
        raise fail(f"`{word()}`: nothing may follow here")
    return Rule(target, where, protocols, ports, network, directions, line)


def _inside(net: IPNetwork | None, outer: IPNetwork) -> bool:
    if isinstance(net, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return net.subnet_of(outer)
    return isinstance(net, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network) and net.subnet_of(outer)
