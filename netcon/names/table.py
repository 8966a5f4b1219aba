"""The names that this node knows by itself, and who is to be asked about the others (docs/names.md).

A table is made anew whenever something changed that it is made of; it is never changed. A look-up ends in one of four ways:
`Found`, `Absent` (the name would be ours, and is not there), `Forward` (the network's DNS servers know), `Outside` (no network's).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.reversename

from netcon.core.address import rfc4193_address, sixplane_address

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Below which every network has a domain, `<network id>.internal`; ICANN has reserved it for private use.
PRIVATE_DOMAIN = dns.name.from_text("internal.")
_LOCALHOST = dns.name.from_text("localhost.")
_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
_V4_REVERSE = dns.name.from_text("in-addr.arpa.")
_V6_REVERSE = dns.name.from_text("ip6.arpa.")
_MEMBER_LABEL = re.compile(rb"zt-([0-9a-f]{10})")
_NOT_IN_LABELS = re.compile(r"[^a-z0-9-]+")
_LABEL_MAX = 63


def label_of(text: str) -> str:
    """A member's name, which is free text, as one DNS label (RFC 1123 §2.1); empty if nothing of it is left.

    Lower case; runs of other characters become one hyphen.
    """
    return _NOT_IN_LABELS.sub("-", text.lower()).strip("-")[:_LABEL_MAX].rstrip("-")


def parse_name(text: str | bytes) -> dns.name.Name | None:
    """An absolute name in lower case, or None if that is none. Non-ASCII text is encoded by IDNA 2003, bytes must be ASCII."""
    try:
        name = dns.name.from_text(text.decode("ascii") if isinstance(text, bytes) else text)
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return None
    return name.canonicalize()


@dataclass(slots=True, frozen=True)
class Member:
    """A member of which more is known than its address. `label` may be empty: then it has its `zt-` name alone."""

    address: int
    label: str
    ips: tuple[IP, ...]
    source: str
    """Who says so, for people."""


@dataclass(slots=True, frozen=True)
class NetworkNames:
    """What names of one network are made of."""

    network: int
    domain: str = ""
    """Of its configuration, may be empty or nonsense."""
    servers: tuple[IP, ...] = ()
    members: tuple[Member, ...] = ()
    """Earlier ones win where two have the same label."""
    prefixes: tuple[IPNetwork, ...] = ()
    """Where its members' addresses lie: assigned networks and managed routes."""
    rfc4193: bool = False
    sixplane: bool = False


@dataclass(slots=True, frozen=True)
class Found:
    name: dns.name.Name
    addresses: tuple[IP, ...]
    source: str


@dataclass(slots=True, frozen=True)
class Absent:
    zone: dns.name.Name
    source: str


@dataclass(slots=True, frozen=True)
class Forward:
    network: int
    zone: dns.name.Name
    servers: tuple[IP, ...]


@dataclass(slots=True, frozen=True)
class Outside:
    pass


Verdict = Found | Absent | Forward | Outside


class _Network:
    """One network's names, indexed."""

    def __init__(self, names: NetworkNames) -> None:
        self.names = names
        own = dns.name.Name([f"{names.network:016x}".encode()]).concatenate(PRIVATE_DOMAIN)
        given = parse_name(names.domain) if names.domain.strip(".") else None
        self.domains = (given, own) if given is not None and given != own else (own,)
        self.labels: dict[bytes, Member] = {}
        self.addresses: dict[int, Member] = {}
        self.ips: dict[IP, Member] = {}
        for member in names.members:
            if member.label:
                self.labels.setdefault(member.label.encode(), member)
            self.addresses.setdefault(member.address, member)
            for ip in member.ips:
                self.ips.setdefault(ip, member)

    def computed(self, address: int) -> list[IP]:
        """The addresses that a member has because the network gives each one (vl2 §3.4)."""
        found: list[IP] = []
        if self.names.rfc4193:
            found.append(ipaddress.IPv6Address(rfc4193_address(self.names.network, address)))
        if self.names.sixplane:
            found.append(ipaddress.IPv6Address(sixplane_address(self.names.network, address)))
        return found

    def ips_of(self, address: int, known: Member | None) -> tuple[IP, ...]:
        return tuple(dict.fromkeys([*(known.ips if known else ()), *self.computed(address)]))

    def node_with(self, ip: IP) -> int | None:
        """Whose computed address that is."""
        if isinstance(ip, ipaddress.IPv6Address):
            packed = ip.packed
            for address in (int.from_bytes(packed[11:16], "big"), int.from_bytes(packed[5:10], "big")):
                if ip in self.computed(address):
                    return address
        return None


class NameTable:
    """All names of this node's networks and of its owner."""

    def __init__(self, networks: Iterable[NetworkNames] = (), hosts: Mapping[str, Sequence[str]] | None = None) -> None:
        """`hosts`: names and their addresses, by the owner. ValueError: one of them is no name or no address."""
        self._networks = [_Network(names) for names in networks]
        self._hosts: dict[dns.name.Name, tuple[IP, ...]] = {}
        for text, addresses in (hosts or {}).items():
            name = parse_name(text)
            if name is None or name == dns.name.root:
                raise ValueError(f"{text!r} is not a host name")
            self._hosts[name] = tuple(map(ipaddress.ip_address, addresses))

    def _visible(self, network: int) -> list[_Network]:
        return [each for each in self._networks if network in (0, each.names.network)]

    def look_up(self, name: dns.name.Name, network: int = 0) -> Verdict:
        """What is known about the absolute, lower-case `name`. `network`: of the program that asks, 0 all."""
        if name in self._hosts:
            return Found(name, self._hosts[name], "local.conf")
        if name.is_subdomain(_LOCALHOST):  # RFC 6761 §6.3
            return Found(name, _LOOPBACK, "the loopback interface")
        # The longest domain decides; where networks share one, whoever knows the name.
        zones = [(domain, each) for each in self._visible(network) for domain in each.domains if name.is_subdomain(domain)]
        if not zones:
            return Outside()
        longest = max(len(domain.labels) for domain, _ in zones)
        zones = [(domain, each) for domain, each in zones if len(domain.labels) == longest]
        for domain, each in zones:
            if (found := self._member(name, domain, each)) is not None:
                return found
        for domain, each in zones:
            if each.names.servers and domain == each.domains[0] and len(each.domains) > 1:
                return Forward(each.names.network, domain, each.names.servers)
        domain, each = zones[0]
        if name == domain:
            return Found(name, (), f"the domain of network {each.names.network:016x}")
        return Absent(domain, f"no such member of network {each.names.network:016x} is known here")

    def _member(self, name: dns.name.Name, domain: dns.name.Name, each: _Network) -> Found | None:
        relative = name.relativize(domain).labels
        if len(relative) != 1:
            return None
        if match := _MEMBER_LABEL.fullmatch(relative[0]):
            address = int(match[1], 16)
            known = each.addresses.get(address)
            ips = each.ips_of(address, known)
            if known is not None or ips:
                return Found(name, ips, known.source if known else "computed from the node's address")
        if (member := each.labels.get(relative[0])) is not None:
            return Found(name, each.ips_of(member.address, member), member.source)
        return None

    def name_of(self, ip: IP, network: int = 0) -> Verdict:
        """The first name of an address; `Found.addresses` is (ip,)."""
        for name, addresses in self._hosts.items():
            if ip in addresses:
                return Found(name, (ip,), "local.conf")
        if ip in _LOOPBACK:
            return Found(_LOCALHOST, (ip,), "the loopback interface")
        for each in self._visible(network):
            domain = each.domains[0]
            if (member := each.ips.get(ip)) is not None:
                label = member.label or f"zt-{member.address:010x}"
                return self._named(label, domain, ip, member.source)
            if (address := each.node_with(ip)) is not None:
                known = each.addresses.get(address)
                label = known.label if known and known.label else f"zt-{address:010x}"
                return self._named(label, domain, ip, known.source if known else "computed from the address")
        for each in self._visible(network):
            if any(ip.version == prefix.version and ip in prefix for prefix in each.names.prefixes):
                zone = dns.reversename.from_address(str(ip))
                if each.names.servers:
                    return Forward(each.names.network, zone, each.names.servers)
                return Absent(zone, f"network {each.names.network:016x} has it, and no name for it is known here")
        return Outside()

    @staticmethod
    def _named(label: str, domain: dns.name.Name, ip: IP, source: str) -> Found:
        return Found(dns.name.Name([label.encode()]).concatenate(domain), (ip,), source)

    def candidates(self, text: str | bytes, network: int = 0) -> list[dns.name.Name]:
        """The absolute names that a program may mean by `text`, in order: a single label is looked for in each network's domain
        first. Empty: no name at all."""
        name = parse_name(text)
        if name is None or name == dns.name.root:
            return []
        absolute = text.endswith(b"." if isinstance(text, bytes) else ".")  # type: ignore[arg-type]
        if absolute or len(name.labels) > 2:
            return [name]
        found = []
        for each in self._visible(network):
            try:
                found.append(name.relativize(dns.name.root).concatenate(each.domains[0]))
            except dns.name.NameTooLong:
                continue
        return [*dict.fromkeys(found), name]

    def domains(self, network: int) -> list[dns.name.Name]:
        """The domains of one network, the one that its names are shown with first."""
        return [domain for each in self._networks if each.names.network == network for domain in each.domains]

    def rows(self) -> list[tuple[str, tuple[IP, ...], str]]:
        """(name, addresses, who says so) of all that is known without computing, for people."""
        rows = [(name.to_text(omit_final_dot=True), ips, "local.conf") for name, ips in self._hosts.items()]
        for each in self._networks:
            domain = each.domains[0].to_text(omit_final_dot=True)
            for member in each.names.members:
                for label in filter(None, (member.label, f"zt-{member.address:010x}")):
                    rows.append((f"{label}.{domain}", each.ips_of(member.address, member), member.source))
        return rows


def reversed_address(name: dns.name.Name) -> IP | None:
    """The address that a name of in-addr.arpa or ip6.arpa stands for, if it is a whole one."""
    if not (name.is_subdomain(_V4_REVERSE) or name.is_subdomain(_V6_REVERSE)):
        return None
    try:
        return ipaddress.ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None
