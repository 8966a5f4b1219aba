"""A connection's four-tuple in TIME_WAIT: the next connection of the same four-tuple ends the wait (RFC 1122 §4.2.2.13)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

import lwip
from tests.lwip.wire import Lab, Wire, arp_request, checksum, ethertype, ip4, mac

PEER = bytes.fromhex("0200000000ee")
PEER_IP, OWN_IP, PORT = "10.1.0.2", "10.1.0.1", 80
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


def segment(port: int, sequence: int, acknowledgement: int, flags: int) -> bytes:
    header = struct.pack("!HHIIBBHHH", port, PORT, sequence, acknowledgement, 0x50, flags, 0xFFFF, 0, 0)
    pseudo = IPv4Address(PEER_IP).packed + IPv4Address(OWN_IP).packed + struct.pack("!BBH", 0, 6, len(header))
    header = header[:16] + struct.pack("!H", checksum(pseudo + header)) + header[18:]
    return ip4(PEER, mac(1), PEER_IP, OWN_IP, 6, header)


class Peer:
    """A peer whose segments are made by hand."""

    def __init__(self, lab: Lab, wire: Wire, port: int) -> None:
        self.lab, self.wire, self.port = lab, wire, port

    def say(self, sequence: int, acknowledgement: int, flags: int) -> list[tuple[int, int, int]]:
        """Send a segment; returns (flags, sequence, acknowledgement) of what comes back."""
        self.wire.give(segment(self.port, sequence, acknowledgement, flags))
        self.lab.run(0.05)
        heard = []
        for frame in self.wire.take():
            if ethertype(frame) == 0x0800 and frame[23] == 6:
                sequence_back, acknowledged, _, flags_back = struct.unpack_from("!IIBB", frame, 38)
                heard.append((flags_back & (FIN | SYN | RST | ACK), sequence_back, acknowledged))
        return heard

    def connect(self, sequence: int) -> int:
        """The peer's initial sequence number."""
        (answer,) = self.say(sequence, 0, SYN)
        assert (answer[0], answer[2]) == (SYN | ACK, sequence + 1)
        self.say(sequence + 1, answer[1] + 1, ACK)
        return answer[1]


@pytest.fixture
def stack(lab: Lab) -> lwip.Stack:
    return lab.stack(1, f"{OWN_IP}/24")


@pytest.fixture
def server(lab: Lab, stack: lwip.Stack) -> lwip.Probe:
    server = lwip.Probe(stack)
    server.listen(PORT)
    return server


@pytest.fixture
def peer(lab: Lab, stack: lwip.Stack, server: lwip.Probe) -> Peer:
    """Whose connection, begun with sequence number 5000, the server has closed first and keeps in TIME_WAIT."""
    peer = Peer(lab, Wire(stack), 40000)
    peer.wire.give(arp_request(PEER, PEER_IP, OWN_IP))
    own = peer.connect(5000)
    server.finish()
    lab.run(0.05)
    peer.wire.take()
    peer.say(5001, own + 2, FIN | ACK)
    assert stack.stats()["tcp_time_wait"] == 1
    return peer


def test_a_later_connection_is_accepted(stack: lwip.Stack, peer: Peer) -> None:
    peer.connect(5003)
    assert (stack.stats()["tcp_time_wait"], stack.stats()["tcp_active"]) == (0, 1)


def test_an_old_duplicate_is_not(stack: lwip.Stack, peer: Peer) -> None:
    assert [flags for flags, _, _ in peer.say(4000, 0, SYN)] == [ACK]
    assert (stack.stats()["tcp_time_wait"], stack.stats()["tcp_active"]) == (1, 0)


def test_without_a_listener_it_is_refused(stack: lwip.Stack, server: lwip.Probe, peer: Peer) -> None:
    server.close()
    assert [flags for flags, _, _ in peer.say(9000, 0, SYN)] == [RST | ACK]
    assert stack.stats()["tcp_time_wait"] == 0
