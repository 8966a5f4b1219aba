"""Requests, authorisation, pushes and revocations (vl2 §7.1, §7.5)."""

from __future__ import annotations

import pytest

from netcon.controller.controller import NEVER
from netcon.controller.records import NETWORK_TABLE, network_key, record_text
from netcon.core.buffer import Reader
from netcon.core.controller_role import ControllerRole, SendConfig, SendError, SendRevocations
from netcon.core.credentials import CredentialType, Revocation
from netcon.core.identity import Identity
from netcon.core.netconf import NetworkConfig
from tests.controller.lab import CONTROLLER, METADATA, NETWORK, POOL, START, Lab, node

NOT_FOUND, DENIED = 0x03, 0x07


def token(text: str) -> dict[str, bytes]:
    return {**METADATA, "a": text.encode()}


def parsed(data: bytes) -> Revocation:
    revocation = Revocation.decode(Reader(data))
    assert revocation.verify(CONTROLLER)
    assert (revocation.credential_type, revocation.credential_id) == (CredentialType.MEMBERSHIP, 0)
    assert revocation.fast_propagate
    return revocation


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_it_plays_the_controller_role(lab: Lab) -> None:
    role: ControllerRole = lab.controller
    assert role.background(START) == NEVER
    assert role.take_actions() == []


# -- requests --


def test_an_unknown_network_is_not_found(lab: Lab) -> None:
    assert lab.refused(node(1)) == NOT_FOUND
    lab.ask(node(1))
    assert lab.commit() == [], "the rate limit holds for unknown networks too"
    lab.ask(node(1), NETWORK + 1)
    assert lab.commit() == [], "and for all of them together"
    assert lab.refused(node(2)) == NOT_FOUND
    lab.now += 1001
    assert lab.refused(node(1)) == NOT_FOUND


def test_a_network_of_another_controller_is_ignored(lab: Lab) -> None:
    foreign = lab.network(0x8056C2E21C000001, private=False)
    lab.ask(node(1), foreign)
    assert lab.commit() == []


def test_a_node_asks_at_most_once_a_second(lab: Lab) -> None:
    lab.network(private=False)
    lab.network(NETWORK + 1, private=False)
    lab.served(node(1))
    for _ in range(2):
        lab.now += 500
        lab.ask(node(1))
        assert lab.commit() == []
    lab.served(node(1), NETWORK + 1)
    lab.served(node(2))
    lab.now += 1
    lab.served(node(1))


def test_a_clock_set_back_shuts_nobody_out(lab: Lab) -> None:
    lab.network(private=False)
    first = lab.served(node(1))
    lab.now -= 3_600_000
    second = lab.served(node(1))
    assert second.timestamp > first.timestamp, "certificates must not become older"


def test_a_member_of_a_private_network_waits_for_authorisation(lab: Lab) -> None:
    lab.network(**POOL)
    assert lab.refused(node(1)) == DENIED
    record = lab.controller.get_member(NETWORK, node(1).address)
    assert (record["authorized"], record["identity"], record["creationTime"]) == (False, node(1).to_text(), START)
    assert lab.controller.list_members(NETWORK) == {f"{node(1).address:010x}": 1}
    assert lab.controller.count_members(NETWORK) == (1, 0)
    lab.now += 2000
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": True})
    assert lab.pushed().keys() == {node(1).address}, "it asked a moment ago, so it is told at once"
    lab.now += 2000
    assert lab.served(node(1)).issued_to == node(1).address
    assert lab.controller.count_members(NETWORK) == (1, 1)


def test_a_member_of_a_public_network_is_authorised_by_asking(lab: Lab) -> None:
    lab.network(private=False)
    lab.served(node(1))
    record = lab.controller.get_member(NETWORK, node(1).address)
    assert (record["authorized"], record["lastAuthorizedTime"]) == (True, START)
    assert (record["lastAuthorizedCredentialType"], record["lastAuthorizedCredential"]) == ("public", None)


def test_a_member_authorised_in_advance_is_served_at_once(lab: Lab) -> None:
    lab.network()
    record = lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": True})
    assert "identity" not in record
    lab.settle()
    lab.served(node(1))
    assert lab.controller.get_member(NETWORK, node(1).address)["identity"] == node(1).to_text()


def test_join_tokens(lab: Lab) -> None:
    lab.network(authTokens={"forever": 0, "short": START + 1000, "": 0})
    assert lab.refused(node(1), metadata=token("token:wrong")) == DENIED
    assert lab.refused(node(2), metadata=token("forever")) == DENIED
    assert lab.refused(node(3), metadata=token("token:")) == DENIED
    assert lab.refused(node(4), metadata=token("secret:forever")) == DENIED
    lab.served(node(5), metadata=token("token:forever"))
    lab.served(node(6), metadata=token("token:short"))
    record = lab.controller.get_member(NETWORK, node(5).address)
    assert (record["lastAuthorizedCredentialType"], record["lastAuthorizedCredential"]) == ("token", "forever")
    lab.now += 1001
    assert lab.refused(node(7), metadata=token("token:short")) == DENIED
    lab.served(node(6))
    assert lab.refused(node(8), metadata={**METADATA, "a": b"token:\xff\xfe"}) == DENIED


def test_a_network_without_tokens_takes_none(lab: Lab) -> None:
    lab.network()
    assert lab.refused(node(1), metadata=token("token:None")) == DENIED


def test_another_key_at_a_known_address_is_refused(lab: Lab) -> None:
    lab.network(private=False)
    lab.served(node(1))
    before = lab.controller.get_member(NETWORK, node(1).address)
    lab.now += 2000
    impostor = Identity(node(1).address, node(2).public)
    assert lab.refused(impostor) == DENIED
    assert lab.controller.get_member(NETWORK, node(1).address) == before
    lab.served(node(1))


def test_a_controller_that_is_a_member_of_its_own_network(lab: Lab) -> None:
    lab.network(private=False)
    assert lab.served(CONTROLLER).issued_to == CONTROLLER.address


def test_an_address_once_given_stays(lab: Lab) -> None:
    lab.network(**POOL, private=False)
    first = lab.served(node(1))
    assert lab.controller.get_member(NETWORK, node(1).address)["ipAssignments"] == ["10.9.0.2"]
    lab.now += 60_000
    assert lab.served(node(1)).addresses == first.addresses
    lab.start()
    assert lab.served(node(1)).addresses == first.addresses


def test_the_record_changes_only_with_news(lab: Lab) -> None:
    lab.network(**POOL, private=False)
    lab.served(node(1))
    assert lab.controller.get_member(NETWORK, node(1).address)["revision"] == 1
    ticket = lab.controller.last_ticket
    lab.now += 60_000
    lab.served(node(1))
    assert lab.controller.last_ticket == ticket, "nothing to commit"
    lab.now += 60_000
    lab.served(node(1), metadata={**METADATA, "revv": b"2"})
    assert lab.controller.get_member(NETWORK, node(1).address)["revision"] == 2


# -- management --


def test_networks_are_created_listed_changed_and_deleted(lab: Lab) -> None:
    record = lab.controller.create_network(START, {"name": "office"})
    network = int(record["id"], 16)
    assert network >> 24 == CONTROLLER.address
    assert network & 0xFFFFFF != 0
    assert (record["name"], record["revision"]) == ("office", 1)
    lab.network()
    assert lab.controller.list_networks() == sorted([record["id"], f"{NETWORK:016x}"])
    changed = lab.controller.update_network(START, network, {"name": "home"})
    assert (changed["name"], changed["revision"]) == ("home", 2)
    assert lab.controller.update_network(START, network, {"name": "home"})["revision"] == 2
    assert lab.controller.get_network(network) == changed
    assert lab.controller.delete_network(START, network) == changed
    assert lab.controller.list_networks() == [f"{NETWORK:016x}"]
    lab.settle()
    assert [row[:2] for row in lab.store.load()] == [(NETWORK_TABLE, network_key(NETWORK))]


def test_an_update_creates_what_is_missing(lab: Lab) -> None:
    assert lab.controller.update_network(START, NETWORK, {"name": "x"})["revision"] == 1
    assert lab.controller.update_member(START, NETWORK, 0xDEADBEEF01, {"name": "y"})["revision"] == 1


def test_random_network_ids_avoid_zero_and_what_exists(lab: Lab) -> None:
    lab.network()
    draws = [bytes(3), NETWORK.to_bytes(8)[5:], b"\0\0\x07"]
    lab.controller._random = lambda n: draws.pop(0)[:n]
    assert lab.controller.create_network(START)["id"] == f"{CONTROLLER.address << 24 | 7:016x}"


def test_returned_records_are_copies(lab: Lab) -> None:
    lab.network(**POOL)
    lab.controller.get_network(NETWORK)["routes"].clear()
    lab.controller.update_network(START, NETWORK, {})["v4AssignMode"]["zt"] = None
    assert lab.controller.get_network(NETWORK)["routes"] == POOL["routes"]
    assert lab.controller.get_network(NETWORK)["v4AssignMode"] == {"zt": True}


# -- pushes --


def test_a_changed_network_is_pushed_to_the_members_seen_lately(lab: Lab) -> None:
    lab.network(private=False)
    lab.served(node(1))
    lab.now += 100_000
    lab.served(node(2))
    lab.network(NETWORK + 1, private=False)
    lab.served(node(3), NETWORK + 1)
    lab.now += 20_001
    lab.controller.update_network(lab.now, NETWORK, {"name": "renamed"})
    pushes = lab.pushed()
    assert pushes.keys() == {node(2).address}
    assert pushes[node(2).address].name == "renamed"
    lab.controller.update_network(lab.now, NETWORK, {"name": "renamed"})
    assert lab.commit() == [], "no effective change, no push"


def test_a_push_assigns_addresses_from_a_new_pool(lab: Lab) -> None:
    lab.network(private=False)
    assert lab.served(node(1)).addresses == ()
    lab.controller.update_network(lab.now, NETWORK, POOL)
    assert lab.pushed()[node(1).address].addresses[0].ip == bytes([10, 9, 0, 2])
    assert lab.controller.get_member(NETWORK, node(1).address)["ipAssignments"] == ["10.9.0.2"]


def test_a_changed_member_is_told_alone_unless_it_becomes_a_bridge(lab: Lab) -> None:
    lab.network(private=False, **POOL)
    lab.served(node(1))
    lab.served(node(2))
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"ipAssignments": ["10.9.0.77"]})
    pushes = lab.pushed()
    assert pushes.keys() == {node(1).address}
    assert pushes[node(1).address].addresses[0].ip == bytes([10, 9, 0, 77])
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"activeBridge": True})
    assert lab.pushed().keys() == {node(1).address, node(2).address}
    lab.controller.delete_member(lab.now, NETWORK, node(1).address)
    left = lab.commit()
    (push,) = (action for action in left if isinstance(action, SendConfig))
    assert push.member == node(2).address
    assert NetworkConfig.from_dictionary(push.dictionary).specialists == ()


def test_configurations_of_the_same_millisecond_still_have_an_order(lab: Lab) -> None:
    lab.network(private=False)
    times = [lab.served(node(1)).timestamp]
    for name in "abc":
        lab.controller.update_network(lab.now, NETWORK, {"name": name})
        times.append(lab.pushed()[node(1).address].timestamp)
    assert times == sorted(set(times))


# -- deauthorisation and deletion --


def test_deauthorising_revokes_and_refuses(lab: Lab) -> None:
    lab.network()
    lab.authorize(node(1), node(2), node(3))
    last = lab.served(node(1))
    for other in (node(2), node(3)):
        lab.served(other)
    lab.refused(node(4))
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": False})
    revoked = lab.revoked()
    assert revoked.keys() == {node(2).address, node(3).address}, "not to the evicted, nor to one that never was a member"
    revocation = parsed(revoked[node(2).address][0])
    assert (revocation.network, revocation.target) == (NETWORK, node(1).address)
    assert last.membership is not None
    assert revocation.threshold >= last.membership.timestamp
    lab.now += 2000
    assert lab.refused(node(1)) == DENIED


def test_a_member_that_comes_back_has_certificates_newer_than_its_revocation(lab: Lab) -> None:
    lab.network()
    lab.authorize(node(1), node(2))
    lab.served(node(1))
    lab.served(node(2))
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": False})
    threshold = parsed(lab.revoked()[node(2).address][0]).threshold
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": True})
    assert lab.pushed()[node(1).address].timestamp > threshold


def test_revocations_for_one_recipient_share_a_packet(lab: Lab) -> None:
    lab.network()
    members = [node(n) for n in range(1, 6)]
    lab.authorize(*members)
    for member in members:
        lab.served(member)
    for member in members[1:]:
        lab.controller.update_member(lab.now, NETWORK, member.address, {"authorized": False})
    packets = [action for action in lab.commit() if action.member == members[0].address]
    assert [len(packet.revocations) for packet in packets if isinstance(packet, SendRevocations)] == [1]
    due = lab.controller.background(lab.now)
    assert due == lab.now + 1100
    lab.now = due
    lab.controller.background(lab.now)
    packets = [action for action in lab.commit() if action.member == members[0].address]
    assert [len(packet.revocations) for packet in packets if isinstance(packet, SendRevocations)] == [3]


def test_many_revocations_are_spread_over_packets_that_fit(lab: Lab) -> None:
    lab.network()
    lab.authorize(node(0))
    lab.served(node(0))
    for n in range(1, 131):
        lab.controller.update_member(lab.now, NETWORK, node(n).address, {"authorized": True})
    lab.settle()
    lab.controller.delete_network(lab.now, NETWORK)
    sizes = []
    targets = set()
    for _ in range(10):
        for action in lab.commit():
            assert isinstance(action, SendRevocations)
            assert action.member == node(0).address
            sizes.append(len(action.revocations))
            targets |= {parsed(data).target for data in action.revocations}
        lab.now += 1100
        lab.controller.background(lab.now)
    assert max(sizes) <= 60
    assert targets == {node(n).address for n in range(1, 131)}


def test_a_deleted_member_is_revoked_and_reappears_unauthorised(lab: Lab) -> None:
    lab.network(**POOL)
    lab.authorize(node(1), node(2))
    lab.served(node(1))
    lab.served(node(2))
    record = lab.controller.delete_member(lab.now, NETWORK, node(1).address)
    assert record["authorized"]
    assert lab.revoked().keys() == {node(2).address}
    lab.now += 2000
    assert lab.refused(node(1)) == DENIED
    assert lab.controller.get_member(NETWORK, node(1).address)["authorized"] is False


def test_the_address_of_a_deleted_member_is_free_again(lab: Lab) -> None:
    pool = {**POOL, "ipAssignmentPools": [{"ipRangeStart": "10.9.0.7", "ipRangeEnd": "10.9.0.7"}]}
    lab.network(private=False, **pool)
    assert len(lab.served(node(1)).addresses) == 1
    assert lab.served(node(2)).addresses == ()
    lab.controller.delete_member(lab.now, NETWORK, node(1).address)
    lab.settle()
    lab.now += 2000
    assert len(lab.served(node(2)).addresses) == 1


def test_a_deleted_network_is_gone_for_everybody(lab: Lab) -> None:
    lab.network(private=False)
    lab.served(node(1))
    lab.served(node(2))
    lab.controller.delete_network(lab.now, NETWORK)
    revoked = lab.revoked()
    assert {parsed(data).target for data in revoked[node(1).address]} == {node(2).address}
    assert {parsed(data).target for data in revoked[node(2).address]} == {node(1).address}
    assert lab.store.load() == []
    lab.now += 2000
    assert lab.refused(node(1)) == NOT_FOUND
    lab.network(private=False)
    lab.now += 2000
    assert lab.served(node(1)).timestamp == lab.now


# -- housekeeping --


def test_nodes_that_ceased_to_ask_are_forgotten(lab: Lab) -> None:
    lab.network(private=False)
    for n in range(50):
        lab.served(node(n))
        lab.refused(node(n), NETWORK + 1)
    due = lab.controller.background(lab.now)
    while due != NEVER:
        assert due > lab.now
        lab.now = due
        due = lab.controller.background(lab.now)
    assert lab.now - START < 300_000
    assert not lab.controller._presence
    assert not lab.controller._strangers
    assert lab.commit() == []


def test_a_restarted_controller_serves_from_its_records(lab: Lab) -> None:
    lab.network(name="kept")
    lab.authorize(node(1))
    before = lab.served(node(1))
    stored = lab.store.load()
    lab.start()
    lab.now += 1
    after = lab.served(node(1))
    assert (after.name, after.revision) == (before.name, before.revision)
    assert lab.store.load() == stored
    assert record_text(lab.controller.get_network(NETWORK)) in {row[2] for row in stored}


def test_a_full_network_refuses_newcomers_but_serves_its_members(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netcon.controller.controller.MAXIMUM_MEMBERS", 2)
    lab.network(private=False)
    lab.served(node(1))
    lab.served(node(2))
    assert lab.refused(node(3)) == DENIED
    assert len(lab.controller.list_members(NETWORK)) == 2
    lab.now += 2000
    lab.served(node(1))
    lab.ask(node(3))
    (reply,) = lab.commit()
    assert isinstance(reply, SendError)
