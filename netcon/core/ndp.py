"""IPv6 neighbour discovery answered locally for addresses that contain the node address (vl2 §5.8)."""

from __future__ import annotations

from netcon.core.actions import DeliverFrame
from netcon.core.address import rfc4193_address, sixplane_address
from netcon.core.network import Network

_ICMP6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136


def emulate_neighbour(network: Network, asker: bytes, packet: bytes) -> DeliverFrame | None:
    """The advertisement for the neighbour solicitation in `packet` (an IPv6 packet to a multicast MAC), if the network's
    addressing tells who has the target. None: nothing to be answered here."""
    config = network.config
    if config is None or len(packet) < 64 or packet[6] != _ICMP6 or packet[40] != _SOLICITATION:
        return None
    target = packet[48:64]
    rfc4193 = rfc4193_address(network.id, network.address)
    sixplane = sixplane_address(network.id, network.address)
    for ip, bits in config.addresses:
        if bits == 88 and ip == rfc4193 and target[:11] == ip[:11]:
            node = int.from_bytes(target[11:16])
        elif bits == 40 and ip == sixplane and target[:5] == ip[:5]:
            node = int.from_bytes(target[5:10])
        else:
            continue
        if node in (0, network.address):
            return None
        mac = network.mac_of(node)
        return DeliverFrame(network.id, asker, mac, 0x86DD, advertisement(target, ip, mac))
    return None


def advertisement(target: bytes, destination: bytes, mac: bytes) -> bytes:
    """A solicited, overriding neighbour advertisement: IPv6 header and ICMPv6, 72 bytes."""
    icmp = b"".join((bytes((_ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0)), target, b"\x02\x01", mac))
    pseudo = b"".join((target, destination, len(icmp).to_bytes(4), b"\0\0\0", bytes((_ICMP6,)), icmp))
    total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, len(pseudo), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    checksum = (~total & 0xFFFF) or 0xFFFF
    header = b"".join((b"\x60\0\0\0", len(icmp).to_bytes(2), bytes((_ICMP6, 255)), target, destination))
    return b"".join((header, icmp[:2], checksum.to_bytes(2), icmp[4:]))
