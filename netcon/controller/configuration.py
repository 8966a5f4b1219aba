"""Builds the configuration of one member of one network from their records (vl2 §7.2 to §7.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from netcon.controller.assignment import Assignment, assign
from netcon.controller.certificates import Issuer
from netcon.controller.coercion import as_ip, as_prefix
from netcon.controller.records import Record
from netcon.core.address import Endpoint, parse_address
from netcon.core.credentials import Capability
from netcon.core.dictionary import Dictionary
from netcon.core.identity import Identity
from netcon.core.netconf import (
    FLAG_BROADCAST,
    FLAG_NDP_EMULATION,
    MAX_CAPABILITIES,
    MAX_DNS_SERVERS,
    MAX_NAME,
    MAX_ROUTES,
    MAX_SPECIALISTS,
    MAX_TAGS,
    ROLE_ACTIVE_BRIDGE,
    NetworkConfig,
    Route,
)
from netcon.core.rules import ACCEPT_ALL, MAX_NETWORK_RULES, Rule, rule_from_json

#: How far apart in age the certificates of two members may be (vl2 §7.2), ms.
DEFAULT_WINDOW_MS, MINIMUM_WINDOW_MS, MAXIMUM_WINDOW_MS = 1_800_000, 300_000, 7_200_000
PRIVATE, PUBLIC = 0, 1
#: Versions in member records are small numbers; what a member claims beyond that is cut.
MAXIMUM_VERSION = 0xFFFF


@dataclass(slots=True, frozen=True)
class Requester:
    """Who asks, and what its request said about it (metadata, vl2 §2.2)."""

    identity: Identity
    metadata: Mapping[str, bytes]


def metadata_text(metadata: Mapping[str, bytes], key: str) -> str:
    return metadata.get(key, b"").decode("utf-8", "replace")


def build_configuration(
    issuer: Issuer,
    network: int,
    record: Record,
    member: Record,
    requester: Requester,
    bridges: Iterable[int],
    taken: Container[bytes],
    random: Callable[[int], bytes],
    timestamp: int,
) -> tuple[bytes, Record]:
    """The dictionary for `requester`, and its record with what it got and said on this occasion. `bridges`: all active bridges;
    `taken`: packed addresses that belong to some member; `timestamp`: of the configuration and all certificates in it."""
    address = requester.identity.address
    metadata = Dictionary(requester.metadata)
    understands_rules = 0 < metadata.integer("revr") < 1 << 63
    assignment = assign(network, record, address, member, taken, random)
    member = _observed(member, metadata, assignment)
    if understands_rules:
        member = _with_default_tags(record, member)
    window = certificate_window(record)
    target, level = _trace(record, member)
    ips = [ip for ip, _ in assignment.addresses]
    dns: Record = record["dns"] if isinstance(record["dns"], dict) else {"domain": "", "servers": []}  # a list when unset
    config = NetworkConfig(
        network=network,
        issued_to=address,
        timestamp=timestamp,
        credential_time_max_delta=window,
        revision=record["revision"],
        trace_target=target,
        trace_level=level,
        flags=(FLAG_BROADCAST if record["enableBroadcast"] else 0) | (FLAG_NDP_EMULATION if assignment.emulate_ndp else 0),
        multicast_limit=record["multicastLimit"],
        type=PRIVATE if record["private"] else PUBLIC,
        name=_cut(record["name"], MAX_NAME),
        mtu=record["mtu"],
        membership=issuer.membership(network, requester.identity, timestamp, window),
        capabilities=_capabilities(issuer, network, record, member, address, timestamp) if understands_rules else (),
        tags=issuer.tags(network, address, member["tags"][:MAX_TAGS], timestamp) if understands_rules else (),
        ownerships=issuer.ownerships(network, address, ips, timestamp),
        specialists=tuple(ROLE_ACTIVE_BRIDGE | bridge for bridge in bridges)[:MAX_SPECIALISTS],
        routes=_routes(record),
        addresses=tuple(Endpoint(ip, bits) for ip, bits in assignment.addresses),
        rules=_rules(record["rules"])[:MAX_NETWORK_RULES] if understands_rules else ACCEPT_ALL,
        dns_domain=_cut(dns["domain"], MAX_NAME),
        dns_servers=tuple(ip.packed for text in dns["servers"][:MAX_DNS_SERVERS] if (ip := as_ip(text)) is not None),
    )
    return config.to_dictionary(), member


def _observed(member: Record, metadata: Dictionary, assignment: Assignment) -> Record:
    versions = {
        field: min(metadata.integer(key), MAXIMUM_VERSION) if key in metadata else -1
        for field, key in (("vMajor", "majv"), ("vMinor", "minv"), ("vRev", "revv"), ("vProto", "pv"))
    }
    return {**member, **versions, "ipAssignments": [*member["ipAssignments"], *assignment.allocated]}


def _with_default_tags(record: Record, member: Record) -> Record:
    """A network's default for a tag becomes the value of a member that has none (vl2 §7.4)."""
    values = {tag["id"]: tag["default"] for tag in record["tags"] if tag["default"] is not None}
    values.update(member["tags"])
    return {**member, "tags": [[number, values[number]] for number in sorted(values)]}


def certificate_window(record: Record) -> int:
    """How long certificates of members of a network agree with each other, ms."""
    window: int = record.get("certificateTimeoutWindowSize", DEFAULT_WINDOW_MS)
    return min(max(window, MINIMUM_WINDOW_MS), MAXIMUM_WINDOW_MS)


def _trace(record: Record, member: Record) -> tuple[int, int]:
    """Target and level of remote tracing: the member's, else the network's."""
    for source in (member, record):
        if source["remoteTraceTarget"] is not None:
            return parse_address(source["remoteTraceTarget"]), source["remoteTraceLevel"]
    return 0, 0


def _rules(entries: Iterable[Record]) -> tuple[Rule, ...]:
    return tuple(map(rule_from_json, entries))  # records hold only rules that have a binary form


def _capabilities(
    issuer: Issuer, network: int, record: Record, member: Record, address: int, timestamp: int
) -> tuple[Capability, ...]:
    """Those of the member that the network still defines."""
    defined = {capability["id"]: capability for capability in record["capabilities"]}
    return tuple(
        issuer.capability(network, address, number, _rules(defined[number]["rules"]), timestamp)
        for number in member["capabilities"]
        if number in defined
    )[:MAX_CAPABILITIES]


def _routes(record: Record) -> tuple[Route, ...]:
    routes = []
    for entry in record["routes"][:MAX_ROUTES]:
        prefix, via = as_prefix(entry["target"]), as_ip(entry["via"])
        if prefix is not None:
            # Systems refuse a target with host bits, which people write all the same.
            target = ipaddress.ip_network((prefix[0].packed, prefix[1]), strict=False)
            routes.append(
                Route(Endpoint(target.network_address.packed, target.prefixlen), None if via is None else Endpoint(via.packed, 0))
            )
    return tuple(routes)


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, without half a character."""
    return text.encode()[:limit].decode("utf-8", "ignore")
