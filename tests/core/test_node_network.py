"""Joining networks: configuration, refusal, pushes, credentials, deauthorisation, restarts (vl2 §2, §3, §6)."""

from __future__ import annotations

import pytest

from netcon.core.actions import Endpoint, StateKind
from netcon.core.address import MulticastGroup
from netcon.core.dictionary import Dictionary
from netcon.core.errors import NetconError
from netcon.core.netconf import cut_config
from netcon.core.packet import Verb
from tests.simulator import IDENTITIES, Lab, SimNode


def talk(lab: Lab, one: SimNode, other: SimNode, payload: bytes = b"x" * 40) -> bool:
    """One frame each way, and a second for them; whether both arrived."""
    one.take_frames()
    other.take_frames()
    one.send_frame(lab.network, other.mac(lab.network), 0x0800, payload)
    other.send_frame(lab.network, one.mac(lab.network), 0x0800, payload)
    lab.fabric.run(1_000)
    return [f.payload for f in one.take_frames()] == [payload] == [f.payload for f in other.take_frames()]


def test_join_gets_a_configuration_in_well_under_a_second() -> None:
    lab = Lab(1)
    member = lab.members[0]
    member.join(lab.network)
    took = lab.fabric.run_until(lambda: member.status(lab.network) == "OK", 3_000)
    assert took < 500
    status = member.node.network(lab.network)
    assert status is not None
    assert status.config is not None
    assert status.config.name == "sim"
    assert member.stored[(StateKind.NETWORK, lab.network)].startswith(b"v=")


def test_the_answer_leaves_only_after_the_commit() -> None:
    lab = Lab(1)
    member = lab.members[0]
    commit = lab.controller._committed  # type: ignore[attr-defined]
    lab.controller._committed = lambda ticket: None  # type: ignore[method-assign]
    member.join(lab.network)
    lab.fabric.run(10_000)
    assert member.status(lab.network) == "REQUESTING_CONFIGURATION"
    assert lab.controller.persisted
    lab.controller._committed = commit  # type: ignore[method-assign]
    lab.fabric.run(10_000)
    assert member.status(lab.network) == "OK"


def test_a_refused_member_is_told_and_admitted_later() -> None:
    lab = Lab(1)
    member = lab.members[0]
    lab.control.everybody = False
    member.join(lab.network)
    lab.fabric.run(3_000)
    assert member.status(lab.network) == "ACCESS_DENIED"
    lab.control.authorise(member.identity.address)
    lab.fabric.run(6_000)
    assert member.status(lab.network) == "OK"


def test_an_unknown_network_is_not_found() -> None:
    lab = Lab(1)
    member = lab.members[0]
    member.join(lab.network + 1)
    lab.fabric.run(3_000)
    assert member.status(lab.network + 1) == "NOT_FOUND"


def test_a_node_without_controller_refuses_requests() -> None:
    lab = Lab(2)
    member, other = lab.members
    network = other.identity.address << 24 | 5
    member.join(network)
    lab.fabric.run(3_000)
    assert member.status(network) == "NOT_FOUND"


def test_a_controller_can_be_a_member_of_its_own_network() -> None:
    lab = Lab(1, controller_is_root=True)
    lab.root.join(lab.network)
    lab.members[0].join(lab.network)
    lab.fabric.run(2_000)
    assert lab.root.status(lab.network) == "OK"
    assert lab.members[0].status(lab.network) == "OK"
    assert talk(lab, lab.root, lab.members[0])


def test_own_network_without_controller_is_not_found() -> None:
    lab = Lab(1)
    member = lab.members[0]
    member.join(member.identity.address << 24 | 1)
    assert member.status(member.identity.address << 24 | 1) == "NOT_FOUND"


def test_a_configuration_of_many_chunks_arrives_in_spite_of_loss() -> None:
    lab = Lab(1, seed=4, loss=0.05, reorder=0.2, duplicate=0.1)
    lab.control.extra = b"\nbig=" + bytes(range(33, 60)) * 2_000
    member = lab.members[0]
    member.join(lab.network)
    lab.fabric.run_until(lambda: member.status(lab.network) == "OK", 120_000)
    stored = member.stored[(StateKind.NETWORK, lab.network)]
    assert Dictionary.decode(stored)["big"].startswith(bytes(range(33, 60)))
    assert len(stored) > 50_000


def test_anybody_may_bring_a_configuration_but_only_the_controller_makes_one() -> None:
    lab = Lab(2)
    member, other = lab.members
    lab.join_all()
    dictionary = Dictionary.decode(member.stored[(StateKind.NETWORK, lab.network)])
    dictionary.set_text("n", "renamed")
    for signer, name in ((IDENTITIES[9], "sim"), (lab.control.identity, "renamed")):
        for chunk in cut_config(lab.network, dictionary.encode(), 77, signer):
            other.node._sender.send(member.identity.address, Verb.NETWORK_CONFIG, chunk.encode(), lab.fabric.now)
        other.perform()
        lab.fabric.run(1_000)
        status = member.node.network(lab.network)
        assert status is not None
        assert status.config is not None
        assert status.config.name == name
    assert member.node.counters["chunk_refused"] == 1


def test_a_recorded_configuration_does_not_come_back() -> None:
    lab = Lab(2)
    member, other = lab.members
    lab.join_all()
    old = member.stored[(StateKind.NETWORK, lab.network)]
    lab.control.mtu = 1_500
    lab.fabric.run(61_000)
    network = member.node._networks[lab.network]
    assert network.config is not None
    assert network.config.mtu == 1_500
    assert not network.unanswered

    def replay(update: int) -> None:
        for chunk in cut_config(lab.network, old, update, lab.control.identity):
            other.node._sender.send(member.identity.address, Verb.NETWORK_CONFIG, chunk.encode(), lab.fabric.now)
        other.perform()
        lab.fabric.run(500)

    replay(77)
    assert network.config.mtu == 1_500
    # A controller whose clock went back is believed when it answers.
    network.requests = 1
    replay(78)
    assert network.config.mtu != 1_500


def test_pushed_changes_apply_at_once() -> None:
    lab = Lab(2)
    lab.join_all()
    lab.control.mtu = 1_500
    lab.control.push(lab.fabric.now)
    lab.controller.node.controller_changed(lab.fabric.now)
    lab.controller.perform()
    lab.fabric.run(500)
    for member in lab.members:
        status = member.node.network(lab.network)
        assert status is not None
        assert status.config is not None
        assert status.config.mtu == 1_500


def test_the_configuration_is_asked_for_every_minute() -> None:
    lab = Lab(1)
    lab.join_all()
    before = lab.control.requests
    lab.fabric.run(600_000)
    assert 9 <= lab.control.requests - before <= 11


def test_members_exchange_credentials_before_the_first_frame() -> None:
    lab = Lab(2)
    lab.join_all()
    assert talk(lab, *lab.members)
    for member in lab.members:
        assert member.node.counters["credential_new"] >= 1


def test_a_public_network_needs_no_certificate() -> None:
    lab = Lab(2)
    lab.control.public = True
    lab.join_all()
    assert talk(lab, *lab.members)


def test_a_stranger_to_the_network_gets_no_frame_through() -> None:
    lab = Lab(3)
    a, b, outsider = lab.members
    for member in (a, b):
        member.join(lab.network)
    lab.fabric.run(2_000)
    assert talk(lab, a, b)
    lab.control.everybody = False
    cached = a.stored[(StateKind.NETWORK, lab.network)]
    outsider.join(lab.network, cached)  # somebody else's configuration: not for it
    assert outsider.status(lab.network) == "REQUESTING_CONFIGURATION"
    body = lab.network.to_bytes(8) + b"\x08\x00" + b"intruder" * 5
    b.take_frames()
    for _ in range(3):
        outsider.node._sender.send(b.identity.address, 6, body, lab.fabric.now)
        outsider.perform()
        lab.fabric.run(1_500)
    assert b.take_frames() == []
    assert b.node.counters["not_permitted"] >= 1
    assert b.node.counters["membership_asked"] >= 1


def test_deauthorisation_cuts_a_member_off_at_once() -> None:
    lab = Lab(3)
    a, b, c = lab.members
    lab.join_all()
    assert talk(lab, a, b)
    assert talk(lab, a, c)
    lab.control.everybody = False
    lab.control.deauthorise(b.identity.address, lab.fabric.now)
    lab.controller.node.controller_changed(lab.fabric.now)
    lab.controller.perform()
    lab.fabric.run(500)
    a.take_frames()
    b.send_frame(lab.network, a.mac(lab.network), 0x0800, b"still here?" * 3)
    lab.fabric.run(6_000)
    assert a.take_frames() == []
    assert talk(lab, a, c)
    lab.fabric.run(65_000)
    assert b.status(lab.network) == "ACCESS_DENIED"


def test_a_readmitted_member_is_heard_again() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    assert talk(lab, a, b)
    lab.control.everybody = False
    lab.control.deauthorise(b.identity.address, lab.fabric.now)
    lab.controller.node.controller_changed(lab.fabric.now)
    lab.controller.perform()
    lab.fabric.run(70_000)
    assert not talk(lab, a, b)
    lab.control.authorise(b.identity.address)
    lab.fabric.run(7_000)
    assert b.status(lab.network) == "OK"
    assert talk(lab, a, b) or talk(lab, a, b)


def test_a_revocation_spreads_among_members() -> None:
    lab = Lab(3)
    a, b, c = lab.members
    lab.join_all()
    for one, other in ((a, b), (a, c), (b, c)):
        assert talk(lab, one, other)
    lab.control.everybody = False
    lab.fabric.block(lab.controller, c)  # c hears of it from a only
    lab.fabric.block(lab.root, c)
    lab.control.deauthorise(b.identity.address, lab.fabric.now)
    lab.controller.node.controller_changed(lab.fabric.now)
    lab.controller.perform()
    lab.fabric.run(3_000)
    c.take_frames()
    b.send_frame(lab.network, c.mac(lab.network), 0x0800, b"psst" * 10)
    lab.fabric.run(6_000)
    assert c.take_frames() == []


@pytest.mark.parametrize("who", ["a", "b", "controller", "root"])
def test_everybody_may_restart(who: str) -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    assert talk(lab, a, b)
    lab.fabric.run(5_000)
    node = {"a": a, "b": b, "controller": lab.controller, "root": lab.root}[who]
    node.restart()
    lab.fabric.run(3_000)
    assert talk(lab, a, b) or talk(lab, a, b)
    lab.fabric.run(70_000)
    assert a.status(lab.network) == b.status(lab.network) == "OK"
    assert talk(lab, a, b)


def test_a_member_restarts_on_its_cached_configuration_while_the_controller_is_down() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    assert talk(lab, a, b)
    lab.controller.stop()
    b.restart()
    assert b.status(lab.network) == "OK"
    lab.fabric.run(3_000)
    assert talk(lab, a, b) or talk(lab, a, b)


def test_leaving_forgets_everything() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    assert talk(lab, a, b)
    b.node.leave(lab.network, lab.fabric.now)
    b.perform()
    assert b.node.network(lab.network) is None
    assert b.node.networks() == []
    assert (StateKind.NETWORK, lab.network) not in b.stored
    a.send_frame(lab.network, a.mac(lab.network), 0x0800, b"self" * 10)
    assert len(a.take_frames()) == 1
    b.node.leave(lab.network, lab.fabric.now)
    b.node.join(lab.network, lab.fabric.now)
    b.perform()
    lab.fabric.run(2_000)
    assert talk(lab, a, b) or talk(lab, a, b)


def test_joining_twice_is_nothing() -> None:
    lab = Lab(1)
    lab.join_all()
    status = lab.members[0].node.network(lab.network)
    lab.members[0].join(lab.network)
    assert lab.members[0].node.network(lab.network) == status


def test_a_port_error_shows_above_all() -> None:
    lab = Lab(1)
    lab.join_all()
    lab.members[0].node.set_port_error(lab.network, True)
    assert lab.members[0].status(lab.network) == "PORT_ERROR"
    lab.members[0].node.set_port_error(lab.network, False)
    assert lab.members[0].status(lab.network) == "OK"


def test_groups_of_a_network_that_is_not_joined_are_an_error() -> None:
    lab = Lab(1)
    with pytest.raises(NetconError, match="join"):
        lab.members[0].node.set_multicast_groups(lab.network, [MulticastGroup(bytes(6), 0)], lab.fabric.now)


@pytest.mark.parametrize("inside", [bytes((10, 9, 0, 77)), bytes((172, 30, 5, 7))], ids=["managed", "added by hand"])
def test_the_virtual_network_is_no_path(inside: bytes) -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    for member in (a, b):
        member.node.set_added_addresses(lab.network, [Endpoint(bytes((172, 30, 5, 1)), 24)])
    a.node.set_local_endpoints([Endpoint(inside, 9993), a.endpoint])
    seen: list[bytes] = []
    lab.fabric.tap = lambda sender, remote, data: seen.append(remote.ip) is None
    assert talk(lab, a, b)
    lab.fabric.run(60_000)
    assert inside not in seen


def test_addresses_that_were_taken_away_again_are_paths() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.join_all()
    elsewhere = bytes((172, 30, 5, 7))
    for addresses in ([Endpoint(bytes((172, 30, 5, 1)), 24)], []):
        for member in (a, b):
            member.node.set_added_addresses(lab.network, addresses)
    a.node.set_local_endpoints([Endpoint(elsewhere, 9993), a.endpoint])
    seen: list[bytes] = []
    lab.fabric.tap = lambda sender, remote, data: seen.append(remote.ip) is None
    assert talk(lab, a, b)
    lab.fabric.run(60_000)
    assert elsewhere in seen
