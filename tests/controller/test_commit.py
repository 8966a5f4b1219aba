"""A reply leaves only after its commit: whatever crashes, no address is handed out twice (architecture, issue 2 item 4)."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcon.controller import StoreFailed
from netcon.controller.commit_gate import CommitGate
from netcon.controller.sqlite_store import SqliteStore
from netcon.core.controller_role import ControllerAction, SendConfig, SendError, SendRevocations
from netcon.core.netconf import NetworkConfig
from tests.controller.lab import NETWORK, POOL, Lab, node

ONE_ADDRESS: dict[str, Any] = {
    "private": False,
    "routes": [{"target": "10.9.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.9.0.7", "ipRangeEnd": "10.9.0.7"}],
    "v4AssignMode": {"zt": True},
}


def told(action: ControllerAction) -> list[str]:
    """The addresses that an action tells its member."""
    assert isinstance(action, SendConfig)
    return [str(ipaddress.ip_address(address.ip)) for address in NetworkConfig.from_dictionary(action.dictionary).addresses]


# -- the gate itself --


def test_an_item_waits_for_every_commit_of_its_network() -> None:
    gate: CommitGate[str] = CommitGate()
    assert gate.hold(1, "a", "free") is False
    first, second, other = gate.persist(1, []), gate.persist(1, []), gate.persist(2, [])
    assert (first.ticket, second.ticket, other.ticket) == (1, 2, 3)
    assert gate.hold(1, "a", "held")
    assert gate.hold(3, "b", "of a quiet network") is False
    assert gate.persisted(second.ticket) == []
    assert gate.persisted(other.ticket) == []
    assert not gate.is_persisted(first.ticket)
    assert gate.persisted(first.ticket) == ["held"]
    assert gate.is_persisted(first.ticket)
    assert gate.persisted(first.ticket) == [], "a ticket counts once"
    assert gate.persisted(99) == []


def test_a_newer_item_of_the_same_key_replaces_the_older_and_may_be_discarded() -> None:
    gate: CommitGate[str] = CommitGate()
    ticket = gate.persist(1, []).ticket
    for key, item in (("a", "old"), ("b", "other"), ("c", "unwanted"), ("a", "new")):
        assert gate.hold(1, key, item)
    assert gate.held(1, "a") == "new"
    gate.discard(1, "c")
    gate.discard(1, "never held")
    assert gate.persisted(ticket) == ["other", "new"]


# -- replies --


def test_nothing_leaves_before_the_commit() -> None:
    lab = Lab()
    lab.network(**ONE_ADDRESS)
    lab.ask(node(1))
    assert lab.take() == []
    (reply,) = lab.commit()
    assert told(reply) == ["10.9.0.7"]


def test_an_error_that_leaves_a_record_waits_too() -> None:
    lab = Lab()
    lab.network()
    lab.ask(node(1))
    assert lab.take() == []
    (reply,) = lab.commit()
    assert isinstance(reply, SendError)


def test_a_reply_that_changes_nothing_waits_for_what_it_is_built_on() -> None:
    lab = Lab()
    lab.network(private=False)
    lab.network(NETWORK + 1, private=False)
    lab.served(node(1))
    lab.served(node(1), NETWORK + 1)
    lab.now += 2000
    lab.controller.update_network(lab.now, NETWORK, {"name": "not yet durable"})
    lab.ask(node(1))
    lab.ask(node(1), NETWORK + 1)
    left = lab.take()
    assert [action.network for action in left if isinstance(action, SendConfig)] == [NETWORK + 1]
    left = lab.commit()
    assert len(left) == 1, "the push and the reply are one"
    assert isinstance(left[0], SendConfig)
    assert left[0].packet_id is not None


def test_a_push_that_replaces_a_waiting_reply_answers_its_request() -> None:
    lab = Lab()
    lab.network(private=False)
    packet_id = lab.ask(node(1))
    lab.controller.update_network(lab.now, NETWORK, {"name": "newer"})
    (reply,) = lab.commit()
    assert isinstance(reply, SendConfig)
    assert reply.packet_id == packet_id
    assert NetworkConfig.from_dictionary(reply.dictionary).name == "newer"


def test_retries_during_a_slow_commit_get_one_answer() -> None:
    lab = Lab()
    lab.network(private=False)
    for _ in range(50):
        last = lab.ask(node(1))
        lab.now += 5000
    assert lab.take() == []
    (reply,) = lab.commit()
    assert isinstance(reply, SendConfig)
    assert reply.packet_id == last


def test_a_member_deauthorised_while_its_configuration_waits_never_gets_it() -> None:
    lab = Lab()
    lab.network()
    lab.authorize(node(1), node(2))
    lab.served(node(2))
    lab.ask(node(1))
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": False})
    left = lab.commit()
    assert all(isinstance(action, SendRevocations) and action.member == node(2).address for action in left)


@pytest.mark.parametrize("delete", ["member", "network"])
def test_what_waits_for_something_deleted_never_leaves(delete: str) -> None:
    lab = Lab()
    lab.network(private=False)
    lab.ask(node(1))
    if delete == "member":
        lab.controller.delete_member(lab.now, NETWORK, node(1).address)
    else:
        lab.controller.delete_network(lab.now, NETWORK)
    assert lab.commit() == []


def test_revocations_wait_for_the_commit_that_evicts() -> None:
    lab = Lab()
    lab.network()
    lab.authorize(node(1), node(2))
    lab.served(node(1))
    lab.served(node(2))
    lab.controller.update_member(lab.now, NETWORK, node(1).address, {"authorized": False})
    assert lab.take() == []
    assert lab.revoked().keys() == {node(2).address}


# -- crashes --


def test_a_crash_before_the_commit_told_nobody() -> None:
    lab = Lab()
    lab.network(**ONE_ADDRESS)
    lab.ask(node(1))
    assert lab.take() == []
    lab.start()
    assert lab.controller.list_members(NETWORK) == {}
    assert lab.ask(node(2))
    (reply,) = lab.commit()
    assert told(reply) == ["10.9.0.7"], "the address is free"


def test_a_crash_after_the_commit_remembers() -> None:
    lab = Lab()
    lab.network(**ONE_ADDRESS)
    lab.ask(node(1))
    lab.take()
    (persist,) = lab.pending
    lab.store.commit(persist.changes)
    lab.start()
    lab.ask(node(2))
    lab.ask(node(1))
    second, first = lab.commit()
    assert told(second) == []
    assert told(first) == ["10.9.0.7"]


def test_two_members_race_for_the_last_address() -> None:
    lab = Lab()
    lab.network(**ONE_ADDRESS)
    lab.ask(node(1))
    lab.ask(node(2))
    assert lab.take() == []
    assert len(lab.pending) == 2
    (first,) = lab.commit(1)
    assert told(first) == ["10.9.0.7"]
    (second,) = lab.commit(1)
    assert told(second) == [], "what is not yet committed is taken all the same"


def test_a_store_that_fails_holds_the_reply_back() -> None:
    lab = Lab()
    lab.network(**ONE_ADDRESS)
    lab.store.failing = True
    lab.ask(node(1))
    with pytest.raises(StoreFailed):
        lab.commit()
    assert lab.take() == []
    lab.store.failing = False
    lab.start()
    lab.ask(node(2))
    (reply,) = lab.commit()
    assert told(reply) == ["10.9.0.7"]


def test_a_controller_on_sqlite_restarts_with_what_was_committed(tmp_path: Any) -> None:
    lab = Lab()
    with SqliteStore(tmp_path) as store:
        lab.store = store  # type: ignore[assignment]
        lab.network(**ONE_ADDRESS)
        assert len(lab.served(node(1)).addresses) == 1
        lab.ask(node(2))
        lab.take()
    with SqliteStore(tmp_path) as store:
        lab.store = store  # type: ignore[assignment]
        lab.start()
        assert list(lab.controller.list_members(NETWORK)) == [f"{node(1).address:010x}"]
        lab.now += 2000
        assert len(lab.served(node(1)).addresses) == 1
        assert lab.served(node(2)).addresses == ()


# -- any order of events --

STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 4)),
    st.tuples(st.just("ask"), st.integers(0, 4)),
    st.tuples(st.just("commit"), st.just(1)),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("delete"), st.integers(0, 4)),
    st.tuples(st.just("authorize"), st.integers(0, 4)),
    st.tuples(st.just("deauthorize"), st.integers(0, 4)),
    st.tuples(st.just("pool"), st.integers(2, 4)),
)


@given(steps=st.lists(STEP, max_size=40), seed=st.integers(0, 1 << 16))
@settings(deadline=None, max_examples=150)
def test_no_address_is_ever_handed_out_twice(steps: list[tuple[str, Any]], seed: int) -> None:
    """Whenever a configuration leaves, the durable records say that its addresses are this member's and nobody else's."""
    lab = Lab(seed=seed)
    order = random.Random(seed)
    lab.network(**{**POOL, "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.3"}], "private": seed % 2 == 0})

    def check(left: list[ControllerAction]) -> None:
        durable = {key: json.loads(text) for table, key, text in lab.store.load() if table == "member"}
        owners: dict[str, list[str]] = {}
        for record in durable.values():
            for ip in record["ipAssignments"]:
                owners.setdefault(ip, []).append(record["id"])
        assert all(len(members) == 1 for members in owners.values())
        for action in left:
            if isinstance(action, SendConfig):
                assert durable[f"{NETWORK:016x}/{action.member:010x}"]["authorized"]
                assert all(owners[ip] == [f"{action.member:010x}"] for ip in told(action))

    for step, argument in steps:
        lab.now += order.choice([0, 1, 1001, 5000])
        address = node(argument).address if step != "crash" else 0
        match step:
            case "ask":
                lab.ask(node(argument))
            case "commit":
                check(lab.commit(argument))
            case "crash":
                if argument and lab.pending:
                    lab.store.commit(lab.pending[0].changes)
                lab.start()
            case "delete" if f"{address:010x}" in lab.controller.list_members(NETWORK):
                lab.controller.delete_member(lab.now, NETWORK, address)
            case "authorize" | "deauthorize":
                lab.controller.update_member(lab.now, NETWORK, address, {"authorized": step == "authorize"})
            case "pool":
                pools = [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": f"10.9.0.{argument}"}]
                lab.controller.update_network(lab.now, NETWORK, {"ipAssignmentPools": pools})
        check(lab.take())
    check(lab.commit())
