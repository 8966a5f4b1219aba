"""Ad-hoc networks: without a controller, their configuration follows from their id (vl2 §6.6)."""

from __future__ import annotations

from netcon.core.address import Endpoint, sixplane_address
from netcon.core.netconf import FLAG_NDP_EMULATION, NetworkConfig
from netcon.core.rule_language import compile_rules
from netcon.core.rules import ACCEPT_ALL

#: Nobody issues credentials there; the value that the reference has, ms.
_CREDENTIAL_TIME_MS = 7_200_000
_MULTICAST_LIMIT = 1_024
_PORT_RULES = """
drop not ethertype ipv6 ;
accept ipprotocol icmp6 ;
accept ipprotocol udp or ipprotocol tcp and dport {0}-{1} ;
accept not chr tcp_syn ;
accept chr tcp_syn and chr tcp_ack ;
drop;
"""


def is_adhoc(network: int) -> bool:
    return network >> 56 == 0xFF


def adhoc_config(network: int, address: int) -> NetworkConfig | None:
    """The configuration that each member makes for itself; None if the id says nothing that makes sense."""
    sixplane = Endpoint(sixplane_address(network, address), 40)
    if network & 0xFFFFFF == 0:
        start, end = network >> 40 & 0xFFFF, network >> 24 & 0xFFFF
        if end < start:
            return None
        return NetworkConfig(
            network,
            address,
            credential_time_max_delta=_CREDENTIAL_TIME_MS,
            flags=FLAG_NDP_EMULATION,
            multicast_limit=0,
            type=1,
            name=f"adhoc-{start:04x}-{end:04x}",
            addresses=(sixplane,),
            rules=compile_rules(_PORT_RULES.format(start, end)).rules,
        )
    if network & 0xFF == 1:
        first, special = network >> 48 & 0xFF, network >> 8 & 0xFFFFFFFFFF
        return NetworkConfig(
            network,
            address,
            credential_time_max_delta=_CREDENTIAL_TIME_MS,
            flags=FLAG_NDP_EMULATION,
            multicast_limit=_MULTICAST_LIMIT,
            type=1,
            name=f"adhoc-{first}.0.0.0",
            addresses=(sixplane, Endpoint(bytes((first,)) + address.to_bytes(5)[2:], 8)),
            rules=ACCEPT_ALL,
            specialists=(special,) if special else (),
        )
    return None
