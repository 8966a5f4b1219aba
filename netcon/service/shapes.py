"""The JSON objects of the local API, with the fields that clients of ZeroTier One know (service-api §3)."""

from __future__ import annotations

from typing import Any

from netcon.core.address import format_endpoint, format_ip, format_mac
from netcon.core.netconf import NetworkConfig, SingleSignOn
from netcon.core.network import NetworkStatus, State
from netcon.core.peer import PeerStatus
from netcon.core.world import MoonStatus
from netcon.names.table import IP
from netcon.service.resolver import Answer, View
from netcon.service.settings import NetworkSettings

Json = dict[str, Any]


def version_fields(version: tuple[int, int, int]) -> Json:
    major, minor, revision = version
    return {"versionMajor": major, "versionMinor": minor, "versionRev": revision, "version": f"{major}.{minor}.{revision}"}


def network_object(status: NetworkStatus, settings: NetworkSettings, port: str, device: str) -> Json:
    """service-api §3.4, and of ours `port`, its kind, and `localAddresses`, those added by hand. Other addresses and routes are
    what the controller sent, not what `settings` permits."""
    config = status.config
    network = f"{status.id:016x}"
    return {
        "id": network,
        "nwid": network,
        "name": config.name if config else "",
        "mac": format_mac(status.mac),
        "status": status.status.name,
        "type": "PUBLIC" if config and config.public else "PRIVATE",
        "mtu": config.mtu if config else 0,
        "dhcp": False,
        "bridge": bool(status.bridge),
        "broadcastEnabled": bool(config and config.broadcast),
        "portError": -1 if status.status is State.PORT_ERROR else 0,
        "netconfRevision": config.revision if config else 0,
        "portDeviceName": device,
        "port": port,
        "allowManaged": settings.managed,
        "allowGlobal": settings.allow_global,
        "allowDefault": settings.default,
        "allowDNS": settings.dns,
        "assignedAddresses": assigned_addresses(config),
        "localAddresses": [format_endpoint(address) for address in settings.addresses],
        "routes": route_objects(config),
        "multicastSubscriptions": [
            {"mac": format_mac(group.mac), "adi": group.adi}
            for group in sorted(status.groups)
            if group.mac != b"\xff" * 6 or group.adi
        ],
        "dns": dns_object(config),
        **_sign_on(status),
    }


def _sign_on(status: NetworkStatus) -> Json:
    """Where to sign on, of networks that want it; clients look whether the fields are there (service-api §3.4)."""
    sso = status.config.sso if status.config else SingleSignOn()
    required = status.status is State.AUTHENTICATION_REQUIRED
    if not (required or sso.enabled):
        return {}
    return {
        "ssoEnabled": True,
        "authenticationURL": status.authentication_url if required else sso.login_url,
        "authenticationExpiryTime": sso.expiry,
    }


def assigned_addresses(config: NetworkConfig | None) -> list[str]:
    return sorted(format_endpoint(address) for address in config.addresses) if config else []


def route_objects(config: NetworkConfig | None) -> list[Json]:
    if config is None:
        return []
    return [
        {
            "target": format_endpoint(route.target),
            "via": format_ip(route.via.ip) if route.via else None,
            "flags": route.flags,
            "metric": route.metric,
        }
        for route in config.routes
    ]


def dns_object(config: NetworkConfig | None) -> Json:
    if config is None:
        return {"domain": "", "servers": []}
    return {"domain": config.dns_domain, "servers": [format_ip(server) for server in config.dns_servers]}


def names_object(view: View) -> Json:
    """Ours: `GET /names`."""
    return {
        "others": "host" if view.host else "refuse",
        "networks": [
            {
                "id": f"{names.network:016x}",
                "domains": [domain.to_text(omit_final_dot=True) for domain in view.table.domains(names.network)],
                "servers": [str(server) for server in names.servers],
            }
            for names in view.networks
        ],
        "names": [
            {"name": name, "addresses": [str(ip) for ip in ips], "source": source} for name, ips, source in view.table.rows()
        ],
    }


def answer_object(answer: Answer, addresses: list[IP]) -> Json:
    """Ours: `GET /names/{name}`."""
    return {
        "status": answer.status.name,
        "name": answer.name.to_text(omit_final_dot=True) if answer.name is not None else None,
        "addresses": [str(ip) for ip in addresses],
        "ttl": answer.ttl,
        "source": answer.source,
    }


def moon_object(moon: MoonStatus) -> Json:
    """service-api §3.6."""
    world = moon.world
    return {
        "id": f"{moon.id:016x}",
        "timestamp": world.timestamp if world else 0,
        "signature": world.signature.hex() if world else None,
        "updatesMustBeSignedBy": world.update_key.hex() if world else None,
        "roots": [
            {"identity": root.identity.to_text(), "stableEndpoints": [format_endpoint(endpoint) for endpoint in root.endpoints]}
            for root in (world.roots if world else ())
        ],
        "waiting": world is None,
    }


def peer_object(peer: PeerStatus) -> Json:
    """service-api §3.5."""
    version = peer.version or (-1, -1, -1)
    return {
        "address": f"{peer.address:010x}",
        **version_fields(version),
        "latency": peer.latency,
        "role": peer.role,
        "isBonded": False,
        "tunneled": False,
        "paths": [
            {
                "address": format_endpoint(path.endpoint),
                "lastSend": path.last_send,
                "lastReceive": path.last_receive,
                "active": path.active,
                "expired": path.expired,
                "preferred": path.preferred,
                "trustedPathId": path.trusted_path,
                "localSocket": path.socket,
            }
            for path in peer.paths
        ],
    }
