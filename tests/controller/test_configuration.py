"""What a configuration contains (vl2 §7.2 to §7.4), byte for byte where a real controller's is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netcon.controller import Controller
from netcon.controller.configuration import MAXIMUM_WINDOW_MS, MINIMUM_WINDOW_MS
from netcon.controller.records import network_key, new_network, record_text
from netcon.core.address import Endpoint, format_endpoint, parse_ip
from netcon.core.controller_role import ConfigRequest, Persist, SendConfig
from netcon.core.dictionary import Dictionary
from netcon.core.identity import Identity
from netcon.core.netconf import NetworkConfig, Route
from netcon.core.rules import ACCEPT_ALL, Rule, RuleType
from tests.controller.lab import CONTROLLER, METADATA, NETWORK, POOL, Lab, node

VECTORS = Path(__file__).parent.parent / "vectors"
CAPTURED = json.loads((VECTORS / "netconf.json").read_text())
#: Identities of the lab's nodes by the letters that netconf.json names them by.
NODES = {name: Identity.parse(entry["secret"]) for name, entry in json.loads((VECTORS / "verbs.json").read_text())["nodes"].items()}
CONFIGURATIONS = {case["name"]: case for case in CAPTURED["captured_configurations"]}


def replay(controller: Controller, name: str) -> bytes:
    """Ask as the captured member did, when it did; returns the dictionary."""
    case = CONFIGURATIONS[name]
    captured = NetworkConfig.from_dictionary(bytes.fromhex(case["dictionary"]))
    metadata = Dictionary((key, value.encode()) for key, value in case["request_metadata"])
    controller.request(ConfigRequest(captured.network, NODES[case["member"]], dict(metadata), 1), captured.timestamp)
    persist, *_ = controller.take_actions()
    assert isinstance(persist, Persist)
    controller.persisted(persist.ticket, captured.timestamp)
    (reply,) = controller.take_actions()
    assert isinstance(reply, SendConfig)
    return reply.dictionary


def real_controller(name: str, random: Callable[[int], bytes] = bytes, **changes: Any) -> Controller:
    """One with the captured network and member settings."""
    case = CONFIGURATIONS[name]
    controller = Controller(Identity.parse(CAPTURED["controller"]["secret"]), random)
    network = int(case["network_id"], 16)
    controller.create_network(0, {**case["controller_settings"], **changes}, network)
    if "member_settings" in case:
        controller.update_member(0, network, int(case["member_address"], 16), case["member_settings"])
    for action in controller.take_actions():
        assert isinstance(action, Persist)
        controller.persisted(action.ticket, 0)
    return controller


def test_a_network_as_a_real_controller_configures_it() -> None:
    controller = real_controller("net1_first_member")
    assert replay(controller, "net1_first_member").hex() == CONFIGURATIONS["net1_first_member"]["dictionary"]
    other = "net1_for_old_1.4.6"
    network, member = (int(CONFIGURATIONS[other][field], 16) for field in ("network_id", "member_address"))
    controller.update_member(0, network, member, {"authorized": True})
    for action in controller.take_actions():
        assert isinstance(action, Persist)
        controller.persisted(action.ticket, 0)
    assert replay(controller, other).hex() == CONFIGURATIONS[other]["dictionary"]


def test_a_minimal_public_network_as_a_real_controller_configures_it() -> None:
    controller = real_controller("net4_minimal_public")
    assert replay(controller, "net4_minimal_public").hex() == CONFIGURATIONS["net4_minimal_public"]["dictionary"]


def test_every_feature_as_a_real_controller_configures_it() -> None:
    """Real controllers drop INTEGER_RANGE rules (vl2 §4.7); the lab's chose fd98::3658 at random from its pool."""
    settings = CONFIGURATIONS["net2_every_feature"]["controller_settings"]
    rules = [rule for rule in settings["rules"] if rule["type"] != "INTEGER_RANGE"]

    def dice(n: int) -> bytes:
        return (0x3658 - 0x1000).to_bytes(n)

    controller = real_controller("net2_every_feature", dice, rules=rules)
    ours = NetworkConfig.from_dictionary(replay(controller, "net2_every_feature"))
    real = NetworkConfig.from_dictionary(bytes.fromhex(CONFIGURATIONS["net2_every_feature"]["dictionary"]))
    for field in NetworkConfig.__slots__:
        assert getattr(ours, field) == getattr(real, field), field
    assert ours.to_dictionary() == real.to_dictionary()


# -- certificates --


def test_certificates_are_valid_agree_and_carry_the_same_time() -> None:
    lab = Lab()
    lab.network(**POOL, tags=[{"id": 7, "default": 1}], capabilities=[{"id": 3, "rules": [{"type": "ACTION_ACCEPT"}]}])
    lab.authorize(node(1), node(2), capabilities=[3, 4])
    first, second = lab.served(node(1)), lab.served(node(2))
    assert first.membership is not None
    assert second.membership is not None
    assert len(first.membership.qualifiers) == 7
    assert first.membership.verify(CONTROLLER)
    assert first.membership.agrees_with(second.membership, node(2))
    assert not first.membership.agrees_with(second.membership, node(3))
    (ownership,) = first.ownerships
    assert ownership.verify(CONTROLLER)
    assert (ownership.id, ownership.issued_to) == (1, node(1).address)
    assert [format_endpoint(address) for address in first.addresses] == ["10.9.0.2/24"]
    assert ownership.owns_ip(first.addresses[0].ip)
    (tag,) = first.tags
    assert tag.verify(CONTROLLER)
    assert (tag.id, tag.value, tag.issued_to) == (7, 1, node(1).address)
    (capability,) = first.capabilities
    assert capability.verify(lambda address: CONTROLLER if address == CONTROLLER.address else None)
    assert (capability.id, capability.issued_to, len(capability.chain)) == (3, node(1).address, 1)
    times = {first.membership.timestamp, ownership.timestamp, tag.timestamp, capability.timestamp, first.timestamp}
    assert times == {lab.now}


def test_each_request_gets_fresh_certificates() -> None:
    lab = Lab()
    lab.network(private=False)
    before = lab.served(node(1))
    lab.now += 60_000
    after = lab.served(node(1))
    assert (before.timestamp, after.timestamp) == (lab.now - 60_000, lab.now)
    assert after.membership is not None
    assert after.membership.timestamp == lab.now


def test_more_addresses_than_one_ownership_certificate_holds() -> None:
    lab = Lab()
    lab.network(**POOL)
    lab.authorize(node(1), ipAssignments=[f"10.9.0.{n}" for n in range(1, 21)])
    config = lab.served(node(1))
    assert [certificate.id for certificate in config.ownerships] == [1, 2]
    assert all(certificate.verify(CONTROLLER) for certificate in config.ownerships)
    assert all(any(c.owns_ip(address.ip) for c in config.ownerships) for address in config.addresses)


@pytest.mark.parametrize(
    ("size", "window"), [(None, 1_800_000), (1, MINIMUM_WINDOW_MS), (600_000, 600_000), (1 << 40, MAXIMUM_WINDOW_MS)]
)
def test_the_certificate_window_comes_from_the_record_within_limits(size: int | None, window: int) -> None:
    record = {**new_network(NETWORK, 0), "private": False}
    if size is not None:
        record["certificateTimeoutWindowSize"] = size
    lab = Lab()
    lab.store.commit([("network", network_key(NETWORK), record_text(record))])
    lab.start()
    config = lab.served(node(1))
    assert config.credential_time_max_delta == window
    assert config.membership is not None
    assert config.membership.qualifiers[0].max_delta == window


# -- tags, capabilities, rules --


def test_member_tags_override_defaults_which_are_written_into_its_record() -> None:
    lab = Lab()
    lab.network(tags=[{"id": 1, "default": 10}, {"id": 2, "default": 20}, {"id": 3, "default": None}])
    lab.authorize(node(1), tags=[[2, 99], [8, 8]])
    assert [(tag.id, tag.value) for tag in lab.served(node(1)).tags] == [(1, 10), (2, 99), (8, 8)]
    assert lab.controller.get_member(NETWORK, node(1).address)["tags"] == [[1, 10], [2, 99], [8, 8]]


def test_default_capabilities_go_to_members_that_came_by_themselves() -> None:
    lab = Lab()
    lab.network(capabilities=[{"id": 5, "default": True, "rules": []}, {"id": 6, "rules": []}], private=False)
    lab.controller.update_member(lab.now, NETWORK, node(2).address, {"authorized": True})
    lab.settle()
    assert [capability.id for capability in lab.served(node(1)).capabilities] == [5]
    assert lab.served(node(2)).capabilities == ()


def test_a_member_that_knows_no_rules_gets_one_that_accepts_all() -> None:
    lab = Lab()
    lab.network(
        rules=[{"type": "ACTION_DROP"}],
        tags=[{"id": 1, "default": 1}],
        capabilities=[{"id": 5, "default": True, "rules": []}],
        private=False,
    )
    for number, value in enumerate([None, b"0", b"-1"]):
        metadata = {key: v for key, v in METADATA.items() if key != "revr"} | ({} if value is None else {"revr": value})
        config = lab.served(node(number), metadata=metadata)
        assert (config.rules, config.tags, config.capabilities) == (ACCEPT_ALL, (), ())
    config = lab.served(node(9))
    assert config.rules == (Rule(RuleType.ACTION_DROP),)
    assert (len(config.tags), len(config.capabilities)) == (1, 1)


# -- the rest --


def test_fields_of_the_network() -> None:
    lab = Lab()
    lab.network(
        name="ü" * 100,
        private=False,
        enableBroadcast=False,
        mtu=1400,
        multicastLimit=5,
        routes=[{"target": "10.1.2.3/16", "via": None}, {"target": "0.0.0.0/0", "via": "10.1.0.1"}],
        dns={"domain": "lab", "servers": [f"10.1.0.{n}" for n in range(1, 7)]},
    )
    config = lab.served(node(1))
    assert config.name == "ü" * 63, "127 bytes hold 63 whole characters"
    assert (config.public, config.broadcast, config.mtu, config.multicast_limit, config.revision) == (True, False, 1400, 5, 1)
    assert config.routes == (
        Route(Endpoint(parse_ip("10.1.0.0"), 16)),
        Route(Endpoint(bytes(4), 0), Endpoint(parse_ip("10.1.0.1"), 0)),
    )
    assert config.dns_domain == "lab"
    assert config.dns_servers == tuple(parse_ip(f"10.1.0.{n}") for n in range(1, 5))


def test_active_bridges_are_named_to_everybody() -> None:
    lab = Lab()
    lab.network()
    lab.authorize(node(1), node(2))
    lab.authorize(node(1), activeBridge=True)
    config = lab.served(node(2))
    assert config.is_active_bridge(node(1).address)
    assert not config.is_active_bridge(node(2).address)


def test_remote_tracing_of_the_member_goes_before_that_of_the_network() -> None:
    lab = Lab()
    lab.network(private=False, remoteTraceTarget="00000000aa", remoteTraceLevel=10)
    lab.authorize(node(2), remoteTraceTarget="00000000bb", remoteTraceLevel=30)
    first, second = lab.served(node(1)), lab.served(node(2))
    assert (first.trace_target, first.trace_level) == (0xAA, 10)
    assert (second.trace_target, second.trace_level) == (0xBB, 30)


def test_versions_are_recorded() -> None:
    lab = Lab()
    lab.network(private=False)
    lab.served(node(1))
    record = lab.controller.get_member(NETWORK, node(1).address)
    assert [record[field] for field in ("vMajor", "vMinor", "vRev", "vProto")] == [1, 14, 1, 12]
    lab.served(node(2), metadata={"majv": b"ffffffffffffffff"})
    record = lab.controller.get_member(NETWORK, node(2).address)
    assert [record[field] for field in ("vMajor", "vMinor", "vRev", "vProto")] == [0xFFFF, -1, -1, -1]
