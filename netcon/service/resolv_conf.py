"""Whom programs on this host ask about names: resolv.conf(5)."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

from netcon.names.table import IP

RESOLV_CONF = Path("/etc/resolv.conf")
#: Stub resolvers (systemd-resolved, Docker), which the socket server knows without being told (name_service.cpp).
STUBS = (ipaddress.ip_address("127.0.0.53"), ipaddress.ip_address("127.0.0.11"))


def host_name_servers(path: Path = RESOLV_CONF) -> list[IP]:
    """Whom programs on this host ask (resolv.conf(5)). Link-local ones are left out: their interfaces are the host's."""
    found: list[IP] = []
    try:
        text = path.read_text("ascii", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_address(words[1]))
    return [ip for ip in found if not ip.is_link_local] or [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
