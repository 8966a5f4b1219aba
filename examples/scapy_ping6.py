"""An ICMPv6 echo that Scapy builds, and that Scapy answers: IPv6 without any TCP/IP stack.

    pip install 'netcon[examples]'
    python examples/scapy_ping6.py

One node asks another's IPv6 address with a neighbour solicitation, then sends it an echo request.
"""

from __future__ import annotations

import socket

import trio
from _world import LIMIT_S, mac, options, world
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.utils6 import in6_getnsma, in6_getnsmac

from netcon.embed import Frame, Node, Subscription

ETHERTYPE = 0x86DD
#: IPv6 addresses from a pool: solicitations for those of the RFC 4193 form are answered by the node itself (vl2 §5.8).
POOL = {
    "routes": [{"target": "fd12:3456::/64", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "fd12:3456::1", "ipRangeEnd": "fd12:3456::ffff"}],
    "v6AssignMode": {"zt": True},
}


def address(node: Node, network: int) -> str:
    return str(next(each.ip for each in node.addresses(network) if each.version == 6))


def send(node: Node, network: int, to: str, packet: IPv6) -> None:
    node.send_frame(network, bytes.fromhex(to.replace(":", "")), ETHERTYPE, bytes(packet))


async def answer(node: Node, network: int, frames: Subscription[Frame]) -> None:
    """What a host's kernel does: advertise our MAC, answer echo requests."""
    own, own_mac = address(node, network), mac(node.mac(network))
    async for frame in frames:
        packet = Ether(frame.ethernet)
        if ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt == own:
            advertisement = ICMPv6ND_NA(tgt=own, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=own_mac)
            send(node, network, packet.src, IPv6(src=own, dst=packet[IPv6].src, hlim=255) / advertisement)
        elif ICMPv6EchoRequest in packet:
            request = packet[ICMPv6EchoRequest]
            reply = ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data)
            send(node, network, packet.src, IPv6(src=own, dst=packet[IPv6].src) / reply)


async def expect(frames: Subscription[Frame], kind: type) -> Ether:
    while True:
        packet = Ether((await frames.receive()).ethernet)
        if kind in packet:
            return packet


async def main() -> None:
    options(__doc__ or "", nodes=2).parse_args()
    async with world(2, **POOL) as (network, (asker, other)), trio.open_nursery() as nursery:
        nursery.start_soon(answer, other, network, other.frames(network))
        source, target, own_mac = address(asker, network), address(other, network), mac(asker.mac(network))
        with asker.frames(network) as frames, trio.fail_after(LIMIT_S):
            group = in6_getnsma(socket.inet_pton(socket.AF_INET6, target))
            solicitation = ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=own_mac)
            packet = IPv6(src=source, dst=socket.inet_ntop(socket.AF_INET6, group), hlim=255) / solicitation
            send(asker, network, in6_getnsmac(group), packet)
            found = (await expect(frames, ICMPv6ND_NA))[ICMPv6NDOptDstLLAddr].lladdr
            print(f"{target} is at {found}")
            assert found == mac(other.mac(network))
            send(asker, network, found, IPv6(src=source, dst=target) / ICMPv6EchoRequest(id=7, seq=1, data=b"built by Scapy"))
            reply = await expect(frames, ICMPv6EchoReply)
            print(reply[IPv6].summary())
            assert reply[ICMPv6EchoReply].data == b"built by Scapy"
            assert reply[IPv6].src == target
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
