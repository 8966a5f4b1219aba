"""`local.conf` (service-api §6) and `networks.d/*.local.conf` (vl2 §6.5, §6.7): parsed, checked, and what they permit."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from netcon.core.address import Endpoint, Scope, format_endpoint, parse_address, parse_endpoint, parse_network, scope_of
from netcon.core.errors import DecodeError
from netcon.core.physical import PeerHints, PhysicalNetwork
from netcon.names.table import NameTable
from netcon.policy import Policy, PolicyError
from netcon.service.errors import SettingsError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORT = 9993
#: Addresses of one network that are added by hand.
MAX_OWN_ADDRESSES = 32
#: What a network's frames may go to: the built-in stack, or a TAP device of the kernel.
PORT_KINDS = ("lwip", "tap")
#: Where a random port is drawn from (vl1 §5.13).
RANDOM_PORTS = range(20000, 65500)


class Physical(msgspec.Struct):
    """Local rules for a physical network (vl1 §2.5.3, §3.3)."""

    blacklist: bool = False
    trustedPathId: int = 0
    mtu: int = 0


class Virtual(msgspec.Struct):
    try_: list[str] = msgspec.field(default_factory=list, name="try")
    blacklist: list[str] = []


class NameSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Names for programs (docs/names.md)."""

    #: Names of the owner's own, and their addresses.
    hosts: dict[str, list[str]] = {}
    #: Networks on whose addresses we answer DNS for the other members.
    serve: list[str] = []


class Settings(msgspec.Struct):
    """The keys of `settings` that this service knows. Others are kept in the file and ignored."""

    primaryPort: int | None = None
    secondaryPort: int = 0
    tertiaryPort: int = 0
    allowSecondaryPort: bool = True
    #: Left out: true, but false in private worlds, where nobody asks a real gateway by accident.
    portMappingEnabled: bool | None = None
    allowTcpFallbackRelay: bool = True
    forceTcpRelay: bool = False
    interfacePrefixBlacklist: list[str] = []
    allowManagementFrom: list[str] = []
    bind: list[str] = []
    softwareUpdate: str = "disable"
    softwareUpdateChannel: str = "release"
    #: Ours: the port of networks whose own settings name none, one of PORT_KINDS.
    networkPort: str = "lwip"
    #: Ours: use 127.0.0.1 as a path, for demos and tests on one machine.
    allowLoopbackPaths: bool = False
    #: Ours.
    names: NameSettings = msgspec.field(default_factory=NameSettings)
    #: Ours: where programs' traffic goes (docs/policy.md), a text or its lines.
    policy: str | list[str] = ""


class LocalConf(msgspec.Struct):
    """`local.conf`, checked. `raw` is the file as it was read."""

    physical: dict[str, Physical] = {}
    virtual: dict[str, Virtual] = {}
    settings: Settings = msgspec.field(default_factory=Settings)
    raw: dict[str, Any] = {}

    def blacklisted_networks(self) -> list[IPNetwork]:
        return [ipaddress.ip_network(net, strict=False) for net, rule in self.physical.items() if rule.blacklist]

    def physical_networks(self) -> list[PhysicalNetwork]:
        """For the engine."""
        return [PhysicalNetwork(_prefix(net), rule.blacklist, rule.trustedPathId, rule.mtu) for net, rule in self.physical.items()]

    def peer_hints(self) -> dict[int, PeerHints]:
        """For the engine."""
        return {
            parse_address(address): PeerHints(tuple(map(parse_endpoint, peer.try_)), tuple(map(_prefix, peer.blacklist)))
            for address, peer in self.virtual.items()
        }

    @property
    def maps_ports(self) -> bool:
        """Whether gateways are asked to map a port: as the user says; otherwise, unless NETCON_PLANET=private."""
        said = self.settings.portMappingEnabled
        return os.environ.get("NETCON_PLANET") != "private" if said is None else said

    def policy(self) -> Policy:
        """Of programs' traffic."""
        return Policy.parse(self.settings.policy)

    def without_effect(self) -> list[str]:
        """Keys that are set and that this version does not act on, for the log: nothing is ignored in silence."""
        found: list[str] = []
        settings = self.settings
        if settings.forceTcpRelay:
            found.append("settings.forceTcpRelay")
        if settings.allowManagementFrom:
            found.append("settings.allowManagementFrom (the API is reachable from this machine only)")
        if settings.tertiaryPort and not self.maps_ports:
            found.append("settings.tertiaryPort (without settings.portMappingEnabled)")
        if settings.softwareUpdate != "disable":
            found.append("settings.softwareUpdate")
        return found


def parse_local_conf(text: bytes, path: Path) -> LocalConf:
    """Check `local.conf`. SettingsError names the file and the key."""
    advice = "correct it, or remove the file to use the defaults"
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid JSON ({error}); {advice}") from None
    try:
        conf = msgspec.convert(raw, LocalConf)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {error}; {advice}") from None
    conf.raw = raw
    settings = conf.settings
    for key in ("primaryPort", "secondaryPort", "tertiaryPort"):
        port = getattr(settings, key)
        if port is not None and not 0 <= port <= 65535:
            raise SettingsError(f"{path}: settings.{key} is {port}: a port is a number from 0 (any) to 65535; {advice}")
    try:
        conf.policy()
    except PolicyError as error:
        raise SettingsError(f"{path}: settings.policy: {error}; {advice}") from None
    if settings.networkPort not in PORT_KINDS:
        raise SettingsError(f"{path}: settings.networkPort is {settings.networkPort!r}: one of {', '.join(PORT_KINDS)}; {advice}")
    for address in settings.bind:
        _check(ipaddress.ip_address, address, path, "settings.bind", "an IP address")
    for name, addresses in settings.names.hosts.items():
        _check(_host_name, name, path, "settings.names.hosts", "a host name")
        for address in addresses:
            _check(ipaddress.ip_address, address, path, f"settings.names.hosts.{name}", "an IP address")
    for network in settings.names.serve:
        _check(parse_network, network, path, "settings.names.serve", "a network id of 16 hexadecimal digits")
    for net, rule in conf.physical.items():
        _check(_prefix, net, path, "physical", "a network as 10.0.0.0/8")
        if not 0 <= rule.trustedPathId < 1 << 64:
            raise SettingsError(f"{path}: physical.{net}.trustedPathId is {rule.trustedPathId}: at most 64 bits; {advice}")
    for node, peer in conf.virtual.items():
        _check(parse_address, node, path, "virtual", "a node address of 10 hexadecimal digits")
        for hint in peer.try_:
            _check(parse_endpoint, hint, path, f"virtual.{node}.try", "an endpoint as 192.0.2.1/9993")
        for net in peer.blacklist:
            _check(_prefix, net, path, f"virtual.{node}.blacklist", "a network as 10.0.0.0/8")
    return conf


def _prefix(text: str) -> Endpoint:
    """A network with or without its bits, host bits allowed."""
    network = ipaddress.ip_network(text, strict=False)
    return Endpoint(network.network_address.packed, network.prefixlen)


def _host_name(text: str) -> NameTable:
    return NameTable((), {text: []})


def _check(parse: Any, value: str, path: Path, key: str, expected: str) -> None:
    try:
        parse(value)
    except (ValueError, DecodeError):
        raise SettingsError(f"{path}: {key}: {value!r} is not {expected}; correct it, or remove the key") from None


@dataclass(slots=True, frozen=True)
class NetworkSettings:
    """What this node lets a network's controller do to it (vl2 §6.7). A non-empty `whitelist` narrows `managed`. `port`: one of
    PORT_KINDS, "" for the service's default; `addresses`: our own choice of more, with their prefix lengths. Both are keys of ours,
    which others ignore."""

    managed: bool = True
    allow_global: bool = False
    default: bool = False
    dns: bool = False
    whitelist: tuple[IPNetwork, ...] = field(default=())
    port: str = ""
    addresses: tuple[Endpoint, ...] = ()

    @classmethod
    def parse(cls, text: str, path: Path) -> NetworkSettings:
        values: dict[str, str] = {}
        for line in text.splitlines():
            key, separator, value = line.partition("=")
            if line.strip() and not separator:
                raise SettingsError(f"{path}: {line!r} is not key=value; correct it, or remove the file to use the defaults")
            values[key.strip()] = value.strip()
        managed = values.get("allowManaged", "1")
        whitelist: list[IPNetwork] = []
        if "/" in managed:
            for net in managed.split(","):
                try:
                    whitelist.append(ipaddress.ip_network(net.strip(), strict=False))
                except ValueError:
                    raise SettingsError(f"{path}: allowManaged: {net!r} is not a network as 10.0.0.0/8; correct it") from None
        return cls(
            managed=bool(whitelist) or managed[:1] in ("1", "t", "T"),
            allow_global=values.get("allowGlobal", "0")[:1] in ("1", "t", "T"),
            default=values.get("allowDefault", "0")[:1] in ("1", "t", "T"),
            dns=values.get("allowDNS", "0")[:1] in ("1", "t", "T"),
            whitelist=tuple(whitelist),
            port=_port_kind(values.get("port", ""), str(path)),
            addresses=_own_addresses(values.get("addresses", "").split(","), str(path)),
        )

    def to_text(self) -> str:
        managed = ",".join(map(str, self.whitelist)) if self.whitelist else f"{self.managed:d}"
        text = f"allowManaged={managed}\nallowGlobal={self.allow_global:d}\nallowDefault={self.default:d}\nallowDNS={self.dns:d}\n"
        if self.port:
            text += f"port={self.port}\n"
        if self.addresses:
            text += f"addresses={','.join(map(format_endpoint, self.addresses))}\n"
        return text

    def changed(self, body: Mapping[str, object]) -> NetworkSettings:
        """With the settings of a POST /network body (service-api §3.4): real booleans only; a whitelist does not survive a POST.
        `port` and `localAddresses`, a list that takes the place of the old one, are ours. SettingsError."""
        names = {"allowManaged": "managed", "allowGlobal": "allow_global", "allowDefault": "default", "allowDNS": "dns"}
        changes: dict[str, Any] = {name: body[key] for key, name in names.items() if isinstance(body.get(key), bool)}
        if "port" in body:
            changes["port"] = _port_kind(body["port"], "port")
        if "localAddresses" in body:
            changes["addresses"] = _own_addresses(body["localAddresses"], "localAddresses")
        return replace(self, whitelist=(), **changes)

    def permits(self, ip: bytes, prefix: int, *, target: bool) -> bool:
        """Whether an assigned address, or (`target`) a route to `ip`/`prefix`, may be applied (vl2 §6.7)."""
        if not self.managed:
            return False
        if self.whitelist and not any(_contains(net, ip, prefix) for net in self.whitelist):
            return False
        if target and prefix == 0:
            return self.default
        scope = scope_of(ip)
        if scope in (Scope.NONE, Scope.MULTICAST, Scope.LOOPBACK, Scope.LINK_LOCAL):
            return False
        return self.allow_global if scope == Scope.GLOBAL else True


def _port_kind(value: object, where: str) -> str:
    if value not in ("", *PORT_KINDS):
        raise SettingsError(f"{where}: {value!r} is no kind of port; use one of {', '.join(PORT_KINDS)}")
    return str(value)


def _own_addresses(value: object, where: str) -> tuple[Endpoint, ...]:
    """A list of `ip/bits`, host bits and all; empty strings do not count."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or len(value) > MAX_OWN_ADDRESSES:
        raise SettingsError(f"{where}: a list of at most {MAX_OWN_ADDRESSES} addresses as 10.1.2.3/24 is wanted")
    found: dict[bytes, Endpoint] = {}
    for text in filter(None, map(str.strip, value)):
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            raise SettingsError(f"{where}: {text!r} is no address; write it as 10.1.2.3/24") from None
        ip = interface.ip
        if "/" not in text or "%" in text or ip.is_unspecified or ip.is_multicast or ip.is_loopback or ip.is_link_local:
            raise SettingsError(f"{where}: {text!r} cannot be a host's address on a network; write it as 10.1.2.3/24")
        found[ip.packed] = Endpoint(ip.packed, interface.network.prefixlen)
    return tuple(found.values())


def _contains(net: IPNetwork, ip: bytes, prefix: int) -> bool:
    address = ipaddress.ip_address(ip)
    return address.version == net.version and prefix >= net.prefixlen and address in net
