"""What the user says about the physical network: blacklists, trusted paths, MTUs, and where peers are (vl1 §2.5.3, §3.3, §7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from netcon.core.address import Endpoint

#: Configured physical networks (vl1 §1.2).
MAX_PHYSICAL = 32
#: What a configured MTU is clamped to, bytes of UDP payload (vl1 §1.2).
MIN_MTU, MAX_MTU = 1_400, 10_324
#: Addresses whose settings are remembered.
_MAX_REMEMBERED = 4_096


class PhysicalNetwork(NamedTuple):
    """`prefix`: network and bits. `blacklist`: never use it. `trusted_path`: both ends say the same id, not 0: packets in clear
    (suite 2). `mtu`: largest UDP payload sent there, 0 for the default."""

    prefix: Endpoint
    blacklist: bool = False
    trusted_path: int = 0
    mtu: int = 0


class PeerHints(NamedTuple):
    """Of one peer: endpoints to try, and networks in which it is not to be looked for."""

    endpoints: tuple[Endpoint, ...] = ()
    blacklist: tuple[Endpoint, ...] = ()


_NOTHING = PhysicalNetwork(Endpoint(b"", 0))


def _contains(prefix: Endpoint, ip: bytes) -> bool:
    """Same family, same leading bits; host bits of `prefix` do not count."""
    shift = 8 * len(ip) - prefix.port
    return len(prefix.ip) == len(ip) and int.from_bytes(ip) >> shift == int.from_bytes(prefix.ip) >> shift


class Physical:
    """The settings in force. The longest prefix that an address lies in decides."""

    def __init__(self) -> None:
        #: Whether there is any trusted path, or any MTU of its own: senders need not look otherwise.
        self.matters = False
        self.peers: dict[int, PeerHints] = {}
        self._networks: tuple[PhysicalNetwork, ...] = ()
        self._found: dict[bytes, PhysicalNetwork] = {}

    def set(self, networks: Iterable[PhysicalNetwork], peers: Mapping[int, PeerHints]) -> None:
        clamped = (network._replace(mtu=min(max(network.mtu, MIN_MTU), MAX_MTU) if network.mtu > 0 else 0) for network in networks)
        self._networks = tuple(sorted(clamped, key=lambda network: -network.prefix.port)[:MAX_PHYSICAL])
        self._found = {}
        self.matters = any(network.trusted_path or network.mtu for network in self._networks)
        self.peers = dict(peers)

    def of(self, ip: bytes) -> PhysicalNetwork:
        """What holds for an address."""
        found = self._found.get(ip)
        if found is None:
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            found = next((network for network in self._networks if _contains(network.prefix, ip)), _NOTHING)
            self._found[ip] = found
        return found

    def trusted_path(self, ip: bytes) -> int:
        """The trusted path id of an address, 0 for none."""
        return self.of(ip).trusted_path if self.matters else 0

    def forbids(self, ip: bytes) -> bool:
        return bool(self._networks) and self.of(ip).blacklist

    def forbids_for(self, peer: int, ip: bytes) -> bool:
        hints = self.peers.get(peer)
        return hints is not None and any(_contains(prefix, ip) for prefix in hints.blacklist)
