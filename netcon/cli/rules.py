"""`netcon rules`: compile the rules of a network from text, read them back, and say why a frame passes or not."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from netcon.cli.common import ADDRESS, NETWORK, Failure, client, home_option, print_json
from netcon.core.address import BROADCAST_MAC, mac_for, parse_address, parse_ip
from netcon.core.credentials import owned_things
from netcon.core.errors import DecodeError
from netcon.core.netconf import NetworkConfig
from netcon.core.rule_decompiler import decompile_rules, rule_set_from_json, rule_text
from netcon.core.rule_engine import FilteredFrame, emulated_prefixes
from netcon.core.rule_explain import Explanation, ListTrace, Step, decisive, explain
from netcon.core.rule_language import CHARACTERISTICS, CapabilityDefinition, RuleSet, RuleSyntaxError, TagDefinition, compile_rules
from netcon.core.rules import decode_rules, encode_rules

_file = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
#: For frames of which nobody said whose they are.
_OWN, _PEER, _NETWORK = "1111111111", "2222222222", "0123456789000001"


@click.group(short_help="Compile, read and explain network rules.")
def rules() -> None:
    """The rules of a network as text: what its members may send to each other.

    \b
    drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6 ;
    drop ipprotocol tcp and dport 80 ;
    accept;
    """


@rules.command("compile", short_help="Text to rules.")
@click.argument("file", type=_file)
@click.option("--hex", "as_hex", is_flag=True, help="Print the network's rules in binary form, as hexadecimal digits.")
@click.option("--set", "network", type=NETWORK, metavar="NETWORK", help="Give them to this network of our controller.")
@home_option
def compile_file(file: Path, as_hex: bool, network: str | None) -> None:
    """Compile FILE (- is standard input); prints JSON for a controller's network record."""
    compiled = _compile(file, _read(file).decode(errors="replace"))
    if network is not None:
        with client() as api:
            api.post(f"/controller/network/{network}", compiled.to_json()["config"])
        count = len(compiled.rules)
        click.echo(f"{network}: {count} rules, {len(compiled.capabilities)} capabilities, {len(compiled.tags)} tags")
    elif as_hex:
        click.echo(encode_rules(compiled.rules).hex())
    else:
        print_json(compiled.to_json())


@rules.command(short_help="Rules to text.")
@click.argument("file", type=_file)
def decompile(file: Path) -> None:
    """Write the rules in FILE as text. FILE holds JSON of `compile` or of a controller's network, a member's stored
    configuration (networks.d/*.conf), or hexadecimal digits of the binary form; - is standard input."""
    click.echo(decompile_rules(_load(file)[0]), nl=False)


@rules.command("explain", short_help="Say which rule decides about a frame.")
@click.argument("file", type=_file)
@click.option("--in/--out", "inbound", help="The frame comes in from the peer, or goes out to it. Default: out.")
@click.option("--packet", metavar="WORDS", help='As "tcp 10.9.0.1:40000 10.9.0.2:80 syn".')
@click.option("--frame", metavar="HEX", help="A whole Ethernet frame: both MACs, EtherType, payload.")
@click.option("--own", type=ADDRESS, default=_OWN, help="Our node address.")
@click.option("--peer", type=ADDRESS, default=_PEER, help="The other node's address.")
@click.option("--network", type=NETWORK, default=_NETWORK, help="The network's id, which the MACs follow from.")
@click.option("--own-tag", "own_tags", multiple=True, metavar="TAG=VALUE", help="A tag of ours, by name or id; repeatable.")
@click.option("--peer-tag", "peer_tags", multiple=True, metavar="TAG=VALUE", help="A tag of the peer's; repeatable.")
@click.option("--capability", "capabilities", multiple=True, metavar="NAME", help="A capability that the sender holds; repeatable.")
@click.option("--owned", multiple=True, metavar="IP", help="An address that the sender has a certificate of; repeatable.")
def explain_frame(
    file: Path,
    inbound: bool,
    packet: str | None,
    frame: str | None,
    own: str,
    peer: str,
    network: str,
    own_tags: tuple[str, ...],
    peer_tags: tuple[str, ...],
    capabilities: tuple[str, ...],
    owned: tuple[str, ...],
) -> None:
    """Show, rule by rule, how the rules in FILE judge a frame. FILE is rules as text, or whatever `decompile` reads.
    `random` matches hold.

    \b
    WORDS of --packet:   tcp|udp|sctp SOURCE:PORT DESTINATION:PORT [syn,ack,...]
                         icmp SOURCE DESTINATION TYPE [CODE]
                         ip SOURCE DESTINATION PROTOCOL
                         arp SENDER TARGET
                         ethertype NUMBER
    """
    if (packet is None) == (frame is None):
        raise click.UsageError("give the frame either as --packet WORDS or as --frame HEX")
    rule_set, config = _load(file, text=True)
    if config is not None:
        own, network = f"{config.issued_to:010x}", f"{config.network:016x}"
    us, other, network_id = parse_address(own), parse_address(peer), int(network, 16)
    sender, receiver = (other, us) if inbound else (us, other)
    source_mac, destination_mac = mac_for(network_id, sender), mac_for(network_id, receiver)
    if frame is not None:
        destination_mac, source_mac, ethertype, payload = _whole_frame(frame)
    else:
        destination_mac, ethertype, payload = _packet((packet or "").split(), source_mac, destination_mac)
    own_values = dict(_tag_value(text, rule_set.tags) for text in own_tags)
    if config is not None:
        own_values = {tag.id: tag.value for tag in config.tags} | own_values
    ips = frozenset(_ip(text) for text in owned)
    macs: frozenset[bytes] = frozenset()
    if config is not None and not inbound:
        own_ips, macs = owned_things(config.ownerships)
        ips |= own_ips
    asked = FilteredFrame(
        inbound,
        us,
        sender,
        0 if not inbound and destination_mac[0] & 1 else receiver,
        source_mac,
        destination_mac,
        ethertype,
        payload,
        bytes,  # zeros: a random match always holds
        own_values,
        dict(_tag_value(text, rule_set.tags) for text in peer_tags),
        ips,
        macs,
        own_prefixes=emulated_prefixes(config) if config is not None else (),
    )
    held = _held(rule_set, capabilities, own=config is not None and not inbound)
    unknown = config is not None and config.unknown_match
    found = explain(rule_set.rules, [(f"capability {cap.name}", cap.rules) for cap in held], asked, unknown_match=unknown)
    lines = {"the network's rules": rule_set.lines} | {f"capability {cap.name}": cap.lines for cap in held}
    _print_explanation(found, {tag.id: tag for tag in rule_set.tags}, lines)


# -- reading --


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def _compile(path: Path, text: str) -> RuleSet:
    try:
        compiled = compile_rules(text)
    except RuleSyntaxError as error:
        lines = text.splitlines()
        shown = lines[error.line - 1] if error.line <= len(lines) else ""
        blank = "".join("\t" if character == "\t" else " " for character in shown[: error.column - 1])
        raise Failure(f"{path}:{error.line}:{error.column}: {error.message}\n{shown}\n{blank}^") from None
    for line, column, message in compiled.warnings:
        click.echo(f"{path}:{line}:{column}: warning: {message}", err=True)
    return compiled


def _load(path: Path, *, text: bool = False) -> tuple[RuleSet, NetworkConfig | None]:
    """Rules in any form; with the whole configuration if that is what the file holds. `text`: also in the rule language."""
    data = _read(path)
    try:
        if data.lstrip()[:1] in (b"{", b"["):
            return rule_set_from_json(json.loads(data)), None
        if b"nwid=" in data:
            config = NetworkConfig.from_dictionary(data)
            return _rule_set_of(config), config
        digits = b"".join(data.split())
        if digits and all(digit in b"0123456789abcdefABCDEF" for digit in digits):
            return RuleSet(decode_rules(bytes.fromhex(digits.decode()))), None
    except (DecodeError, ValueError) as error:
        raise Failure(f"{path}: {error}") from None
    if text:
        return _compile(path, data.decode(errors="replace")), None
    raise Failure(f"{path}: neither JSON nor a stored configuration nor hexadecimal digits")


def _rule_set_of(config: NetworkConfig) -> RuleSet:
    return RuleSet(
        config.rules,
        tuple(CapabilityDefinition(f"cap_{held.id}", held.id, False, held.rules) for held in config.capabilities),
        tuple(TagDefinition(f"tag_{tag.id}", tag.id, tag.value) for tag in config.tags),
    )


def _tag_value(text: str, tags: Sequence[TagDefinition]) -> tuple[int, int]:
    name, equals, value = text.partition("=")
    tag = next((tag for tag in tags if name.lower() == tag.name or name == str(tag.id)), None)
    names: Mapping[str, int] = {} if tag is None else tag.value_names()
    number = names.get(value.lower(), int(value) if value.isdecimal() else -1)
    tag_id = tag.id if tag is not None else int(name) if name.isdecimal() else -1
    if not equals or tag_id < 0 or number < 0:
        raise click.BadParameter(f"{text!r}: write TAG=VALUE, as team=red or 7=1, with a tag of the rules.")
    return tag_id, number


def _held(rule_set: RuleSet, names: Sequence[str], *, own: bool) -> list[CapabilityDefinition]:
    """Those that the sender holds, in the order of their ids; all, if `own`: a configuration holds nobody else's."""
    known = {cap.name: cap for cap in rule_set.capabilities} | {str(cap.id): cap for cap in rule_set.capabilities}
    for name in names:
        if name.lower() not in known:
            raise click.BadParameter(f"there is no capability {name} in the rules.", param_hint="--capability")
    held = rule_set.capabilities if own else dict.fromkeys(known[name.lower()].name for name in names)
    return sorted((cap for cap in rule_set.capabilities if own or cap.name in held), key=lambda cap: cap.id)


def _ip(text: str) -> bytes:
    try:
        return parse_ip(text)
    except DecodeError as error:
        raise click.BadParameter(f"{error}.") from None


# -- frames --


def _whole_frame(text: str) -> tuple[bytes, bytes, int, bytes]:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) < 14:
        raise click.BadParameter("not the hexadecimal digits of an Ethernet frame of 14 bytes or more.", param_hint="--frame")
    return data[:6], data[6:12], int.from_bytes(data[12:14]), data[14:]


_TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132}


def _packet(words: list[str], source_mac: bytes, destination_mac: bytes) -> tuple[bytes, int, bytes]:
    """(destination MAC, EtherType, payload) of a frame described in words."""
    try:
        match words:
            case [("tcp" | "udp" | "sctp") as kind, source, destination, *flags] if len(flags) <= (kind == "tcp"):
                (source_ip, source_port), (ip, port) = _socket(source), _socket(destination)
                ports = source_port.to_bytes(2) + port.to_bytes(2)
                rest = bytes(8) + _tcp_flags(flags) + bytes(6) if kind == "tcp" else bytes(8)
                return _ip_packet(source_ip, ip, _TRANSPORTS[kind], ports + rest, destination_mac)
            case ["icmp", source, destination, number, *code] if len(code) <= 1:
                ip = parse_ip(destination)
                message = bytes((int(number), int(code[0]) if code else 0)) + bytes(6)
                return _ip_packet(parse_ip(source), ip, 1 if len(ip) == 4 else 58, message, destination_mac)
            case ["ip", source, destination, protocol]:
                return _ip_packet(parse_ip(source), parse_ip(destination), int(protocol), bytes(8), destination_mac)
            case ["arp", sender, target]:
                body = bytes.fromhex("0001080006040001") + source_mac + parse_ip(sender) + bytes(6) + parse_ip(target)
                return BROADCAST_MAC, 0x0806, body
            case ["ethertype", number]:
                ethertype = int(number, 0)
                ethertype.to_bytes(2)
                return destination_mac, ethertype, bytes(46)
    except (DecodeError, ValueError, OverflowError) as error:
        raise click.BadParameter(f"{error}.", param_hint="--packet") from None
    raise click.BadParameter(f"{' '.join(words)!r} is none of the forms that --help shows.", param_hint="--packet")


def _socket(text: str) -> tuple[bytes, int]:
    ip, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not IP:PORT")
    return parse_ip(ip.strip("[]")), int(port)


def _tcp_flags(words: list[str]) -> bytes:
    bits = 0
    for name in words[0].split(",") if words else ():
        if f"tcp_{name}" not in CHARACTERISTICS:
            raise ValueError(f"{name!r} is no TCP flag")
        bits |= 1 << CHARACTERISTICS[f"tcp_{name}"]
    return (0x5000 | bits).to_bytes(2)


def _ip_packet(source: bytes, destination: bytes, protocol: int, body: bytes, mac: bytes) -> tuple[bytes, int, bytes]:
    if len(source) != len(destination):
        raise ValueError("source and destination are of different IP versions")
    if ipaddress.ip_address(destination).is_multicast:
        mac = (
            b"\x01\x00\x5e" + bytes((destination[1] & 0x7F,)) + destination[2:]
            if len(destination) == 4
            else b"33" + destination[12:]
        )
    if len(source) == 4:
        header = b"\x45\0" + (20 + len(body)).to_bytes(2) + bytes(4) + bytes((64, protocol)) + bytes(2)
        return mac, 0x0800, header + source + destination + body
    header = b"\x60\0\0\0" + len(body).to_bytes(2) + bytes((protocol, 64))
    return mac, 0x86DD, header + source + destination + body


# -- writing --


def _place(trace: ListTrace, position: int, lines: Mapping[str, tuple[int, ...]]) -> str:
    known = lines.get(trace.name, ())
    return f"rule {position + 1}" + (f", line {known[position]}" if position < len(known) else "")


def _print_explanation(found: Explanation, tags: Mapping[int, TagDefinition], lines: Mapping[str, tuple[int, ...]]) -> None:
    for trace in found.lists:
        click.echo(f"{trace.name}:")
        for step in trace.steps:
            indent = "" if step.rule.is_action else "    "
            click.echo(f"  {step.position + 1:>4}  {_said(step):<9}  {indent}{rule_text(step.rule, tags)}")
        if trace.decided is None:
            click.echo("        the end is reached: nothing decided")
    click.echo(f"\n{found.decision.verdict.value.replace('_', '-')}: {_reason(found, tags, lines)}")
    for copy in found.decision.copies:
        click.echo(f"sent as well to {copy.target:010x}: the first {copy.length} bytes (EXT_FRAME flags 0x{copy.flags:02x})")


def _said(step: Step) -> str:
    """What came of a rule, its NOT included. A match that does not apply to the frame is false with NOT as well (vl2 §4.3)."""
    match step.said:
        case "yes" | "no":
            return "yes" if (step.said == "yes") != step.rule.negated else "no"
        case "never":
            return "n/a"
        case "always":
            return "yes"
    return step.said or "not asked"


def _reason(found: Explanation, tags: Mapping[int, TagDefinition], lines: Mapping[str, tuple[int, ...]]) -> str:
    trace = decisive(found)
    if trace is None or trace.decided is None:
        asked = "neither the network's rules nor a capability" if len(found.lists) > 1 else "no rule"
        return f"{asked} accepted it, and what nothing accepts is dropped"
    rule = trace.steps[-1].rule
    return f"{_place(trace, trace.decided, lines)} of {trace.name}: {rule_text(rule, tags)}"
