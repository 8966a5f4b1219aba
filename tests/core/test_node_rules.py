"""A network's rules between nodes: both directions, capabilities, tags, ownership, tee, watch, redirect (vl2 §4.4 to §4.6)."""

from __future__ import annotations

import pytest

from netcon.core.credentials import Thing
from netcon.core.messages import ExtFrame
from netcon.core.netconf import ROLE_ACTIVE_BRIDGE
from netcon.core.packet import Verb
from netcon.core.rule_language import compile_rules
from netcon.core.rules import encode_rules
from tests.simulator import Lab, SimNode

BROADCAST = b"\xff" * 6


def rules(text: str) -> bytes:
    return encode_rules(compile_rules(text).rules)


def lab_with(text: str, members: int = 2) -> Lab:
    """A network with these rules whose members are not joined yet."""
    lab = Lab(members)
    lab.control.rules = rules(text)
    return lab


def join(lab: Lab) -> list[SimNode]:
    lab.join_all()
    lab.fabric.run(1_000)
    return lab.members


def ipv4(source: bytes, destination: bytes, protocol: int, transport: bytes) -> bytes:
    header = bytes((0x45, 0)) + (20 + len(transport)).to_bytes(2) + bytes((0, 1, 0, 0, 64, protocol, 0, 0))
    return header + source + destination + transport


def tcp(lab: Lab, sender: SimNode, receiver: SimNode, port: int, flags: int = 0x02, source_port: int = 40_000) -> bytes:
    segment = source_port.to_bytes(2) + port.to_bytes(2) + bytes(8) + bytes((0x50, flags)) + bytes(6)
    return ipv4(sender.ip(lab.network), receiver.ip(lab.network), 6, segment)


def send(lab: Lab, sender: SimNode, receiver: SimNode, payload: bytes, ethertype: int = 0x0800) -> list[bytes]:
    """What arrives at `receiver`."""
    receiver.take_frames()
    sender.send_frame(lab.network, receiver.mac(lab.network), ethertype, payload)
    lab.fabric.run(2_500)
    return [frame.payload for frame in receiver.take_frames()]


def stop_filtering_outbound(member: SimNode) -> None:
    """A modified sender: its own rules do not bind it (vl2 §9)."""
    member.node._filters.outbound = lambda *arguments, **options: True  # type: ignore[method-assign]


DROP_HTTP = "drop ipprotocol tcp and dport 80 ; accept;"


def test_a_dropped_port_is_shut_in_both_directions_on_either_side() -> None:
    lab = lab_with(DROP_HTTP)
    a, b = join(lab)
    for one, other in ((a, b), (b, a)):
        assert send(lab, one, other, tcp(lab, one, other, 80)) == []
        assert one.node.counters["filtered_out"] == 1
        assert send(lab, one, other, tcp(lab, one, other, 81)) == [tcp(lab, one, other, 81)]
    stop_filtering_outbound(a)
    assert send(lab, a, b, tcp(lab, a, b, 80)) == []
    assert b.node.counters["filtered_in"] == 1


def test_new_rules_count_at_once() -> None:
    lab = lab_with("accept;")
    a, b = join(lab)
    assert send(lab, a, b, tcp(lab, a, b, 80))
    lab.control.rules = rules(DROP_HTTP)
    lab.control.push(lab.fabric.now)
    lab.controller.node.controller_changed(lab.fabric.now)
    lab.controller.perform()
    lab.fabric.run(1_000)
    assert not send(lab, a, b, tcp(lab, a, b, 80))
    assert send(lab, a, b, tcp(lab, a, b, 81))


SSH_BY_CAPABILITY = "break chr tcp_syn and not chr tcp_ack ; accept;"
SSH_CAPABILITY = "accept ipprotocol tcp and dport 22 ;"


def test_a_capability_opens_what_the_rules_leave_open() -> None:
    """Connections need a capability; the answers do not."""
    lab = lab_with(SSH_BY_CAPABILITY, 3)
    a, b, c = lab.members
    lab.control.capabilities[a.identity.address] = (rules(SSH_CAPABILITY),)
    join(lab)
    assert send(lab, a, b, tcp(lab, a, b, 22))
    assert send(lab, b, a, tcp(lab, b, a, 40_000, 0x12, 22)), "a SYN ACK goes back"
    assert not send(lab, a, b, tcp(lab, a, b, 23))
    assert not send(lab, c, b, tcp(lab, c, b, 22)), "who has no capability does not even send"
    assert c.node.counters["filtered_out"] == 1
    stop_filtering_outbound(c)
    assert not send(lab, c, b, tcp(lab, c, b, 22)), "nor is it let in"
    assert b.node.counters["filtered_in"] == 1


def test_a_capability_counts_for_its_holder_only() -> None:
    lab = lab_with(SSH_BY_CAPABILITY, 3)
    _, b, c = lab.members
    lab.control.capabilities[b.identity.address] = (rules(SSH_CAPABILITY),)
    join(lab)
    stop_filtering_outbound(c)
    assert not send(lab, c, b, tcp(lab, c, b, 22)), "the receiver's own capability is no permission for others"
    assert send(lab, b, c, tcp(lab, b, c, 22))


TEAMS = "tag team id 7 enum 1 red enum 2 blue ; drop not tdiff team 0 ; accept;"


def test_tags_separate_teams() -> None:
    lab = lab_with(TEAMS, 3)
    a, b, c = lab.members
    lab.control.tags = {a.identity.address: {7: 1}, b.identity.address: {7: 1}, c.identity.address: {7: 2}}
    join(lab)
    assert send(lab, a, b, b"team" * 10)
    assert send(lab, b, a, b"team" * 10)
    # The sender does not know the other's tag yet: it sends, and the receiver decides (vl2 §4.4).
    assert not send(lab, a, c, b"other" * 10)
    assert c.node.counters["filtered_in"] >= 1
    # c told a by its credentials who it is when it answered something: now a does not even send.
    c.send_frame(lab.network, a.mac(lab.network), 0x0800, b"other" * 10)
    lab.fabric.run(1_000)
    before = c.node.counters["filtered_in"]
    dropped = a.node.counters["filtered_out"]
    assert not send(lab, a, c, b"other" * 10)
    assert a.node.counters["filtered_out"] == dropped + 1
    assert c.node.counters["filtered_in"] == before


def test_sender_and_receiver_tags() -> None:
    lab = lab_with("accept tseq 7 1 ; accept treq 7 1 ; drop;", 3)
    server, a, b = lab.members
    lab.control.tags = {member.identity.address: {7: int(member is server)} for member in lab.members}
    join(lab)
    assert send(lab, a, server, b"request" * 10)
    assert send(lab, server, a, b"answer" * 10)
    assert not send(lab, a, b, b"aside" * 10)


OWN_ONLY = "drop ethertype ipv4 and not chr ipauth ; accept;"


def test_only_the_owner_may_use_an_address() -> None:
    lab = lab_with(OWN_ONLY)
    a, b = lab.members
    for member in lab.members:
        ip = lab.control.authorise(member.identity.address)
        lab.control.owned[member.identity.address] = (Thing.ip(ip),)
    join(lab)
    assert send(lab, a, b, tcp(lab, a, b, 80))
    spoofed = ipv4(bytes((10, 9, 99, 99)), b.ip(lab.network), 6, bytes(20))
    assert not send(lab, a, b, spoofed)
    assert a.node.counters["filtered_out"] == 1
    stop_filtering_outbound(a)
    assert not send(lab, a, b, spoofed)
    assert b.node.counters["filtered_in"] == 1


def observed(lab: Lab, direction: Verb = Verb.EXT_FRAME) -> list[tuple[int, int]]:
    """(flags, length of the payload) of the EXT_FRAMEs that nodes take in, as they are opened."""
    seen: list[tuple[int, int]] = []
    for member in lab.members:
        original = member.node._frames.receive_ext_frame

        def receive(inbound, now, original=original):  # type: ignore[no-untyped-def]
            message = ExtFrame.decode(inbound.body)
            seen.append((message.flags, len(message.payload)))
            return original(inbound, now)

        member.node._handlers[direction] = receive
    return seen


@pytest.mark.parametrize(("word", "outbound", "inbound"), [("tee", 0x02, 0x08), ("watch", 0x16, 0x1C)])
def test_an_observer_gets_a_copy_from_both_ends(word: str, outbound: int, inbound: int) -> None:
    lab = Lab(3)
    a, b, observer = lab.members
    lab.control.rules = rules(f"{word} 24 {observer.identity.address:010x} ; accept;")
    join(lab)
    seen = observed(lab)
    payload = bytes(range(60))
    assert send(lab, a, b, payload) == [payload]
    copies = observer.take_frames()
    assert [frame.payload for frame in copies] == [payload[:24]] * 2
    assert {(frame.source, frame.destination) for frame in copies} == {(a.mac(lab.network), b.mac(lab.network))}
    assert sorted(seen) == [(outbound, 24), (inbound, 24)]


def test_the_first_copy_arrives_at_an_observer_that_never_heard_of_us() -> None:
    """Our certificate goes before it."""
    lab = Lab(3)
    a, b, observer = lab.members
    lab.control.rules = rules(f"tee -1 {observer.identity.address:010x} chr inbound ; accept;")
    lab.join_all()
    lab.fabric.run(100)
    b.send_frame(lab.network, a.mac(lab.network), 0x0800, b"x" * 60)
    lab.fabric.run(1_500)
    assert len(observer.take_frames()) == 1
    assert observer.node.counters["membership_asked"] == 0


def test_an_observer_needs_no_rule_that_lets_it_in() -> None:
    """Super-accept: what is teed to us is taken, though a later rule would drop it (vl2 §4.2)."""
    lab = Lab(3)
    a, b, observer = lab.members
    target = f"{observer.identity.address:010x}"
    lab.control.rules = rules(f"tee -1 {target} ipprotocol tcp ; drop not ztdest {b.identity.address:010x} ; accept;")
    join(lab)
    payload = tcp(lab, a, b, 80)
    assert send(lab, a, b, payload) == [payload]
    assert [frame.payload for frame in observer.take_frames()] == [payload] * 2
    assert not send(lab, a, observer, b"not teed" * 8)


def test_redirect_goes_elsewhere_and_only_there() -> None:
    lab = Lab(3)
    a, b, target = lab.members
    lab.control.rules = rules(f"redirect {target.identity.address:010x} ipprotocol tcp ; accept;")
    join(lab)
    seen = observed(lab)
    payload = tcp(lab, a, b, 80)
    assert send(lab, a, b, payload) == []
    assert [frame.payload for frame in target.take_frames()] == [payload]
    assert seen == [(0x04, len(payload))]
    # A sender that does not redirect is redirected by the receiver.
    stop_filtering_outbound(a)
    assert send(lab, a, b, payload) == []
    assert [frame.payload for frame in target.take_frames()] == [payload]
    assert seen[1:] == [(0x0A, len(payload))]
    # The target itself may pass it on to where it wanted to go.
    assert send(lab, target, b, payload) == [payload]


def test_multicast_is_teed_once_by_its_sender_and_filtered_for_each_recipient() -> None:
    lab = Lab(4)
    a, b, c, observer = lab.members
    lab.control.rules = rules(
        f"tee -1 {observer.identity.address:010x} chr broadcast and not chr inbound ;"
        f"drop ztdest {c.identity.address:010x} and chr broadcast ; accept;"
    )
    join(lab)
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to all" * 10)
    lab.fabric.run(2_500)
    assert len(b.take_frames()) == 1
    assert c.take_frames() == []
    assert c.node.counters["filtered_in"] == 0, "it was not sent in the first place"
    # One copy by the tee, one as a listener of the group.
    assert len(observer.take_frames()) == 2


def test_multicast_is_filtered_by_the_receiver_too() -> None:
    lab = lab_with("drop chr broadcast and chr inbound ; accept;")
    a, b = join(lab)
    a.send_frame(lab.network, BROADCAST, 0x0800, b"to all" * 10)
    lab.fabric.run(2_500)
    assert b.take_frames() == []
    assert b.node.counters["filtered_in"] == 1


def test_unknown_destinations_are_teed_once_and_filtered_for_each_bridge() -> None:
    lab = Lab(4)
    a, b, c, observer = lab.members
    lab.control.specialists = tuple(ROLE_ACTIVE_BRIDGE | member.identity.address for member in (b, c))
    lab.control.rules = rules(
        f"tee -1 {observer.identity.address:010x} not chr inbound ; drop ztdest {c.identity.address:010x} ; accept;"
    )
    join(lab)
    a.send_frame(lab.network, bytes.fromhex("00163e000001"), 0x0800, b"behind a bridge" * 4)
    lab.fabric.run(2_500)
    assert len(b.take_frames()) == 1
    assert c.take_frames() == []
    assert len(observer.take_frames()) == 1
