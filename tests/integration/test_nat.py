"""Rootless members behind the kernel's own NAT: who finds whom, and what happens when something changes under a running flow.

Every disturbance has flows of its own, and all that do not touch each other run at the same time. The tests print how long each
recovery took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.integration.nat_lab import BEHIND, MAPS_BY, PUBLIC, NatLab, running_nat_lab
from tests.netns_hosts import needs_namespaces
from tests.port_mapper import mapped_ports

pytestmark = needs_namespaces


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with running_nat_lab() as lab:
        # Blocked from the beginning: these two never had a direct path.
        lab.internet.core.blocks_udp(("44.4.0.1", "44.5.0.1"))
        lab.join(*BEHIND, PUBLIC)
        yield lab


def test_everything_runs_without_privilege(lab: NatLab) -> None:
    for service in (lab.root, *lab.members.values()):
        with open(f"/proc/{service.process.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == 0


def test_who_finds_whom(lab: NatLab) -> None:
    with contextlib.ExitStack() as stack:
        pairs = [("home", "office"), ("home", "sibling"), ("home", PUBLIC), ("cafe", PUBLIC), ("lodge", "hotel"), ("cafe", "cabin")]
        pairs += [("cafe", "hotel"), ("office", "cafe")]
        flows = {pair: stack.enter_context(lab.flow(*pair)) for pair in pairs}
        for one, other in pairs:
            flows[one, other].wait_for_progress(f"a connection from {one} to {other}")
        for one, other in pairs[:6]:
            lab.wait_until_direct(one, other)
        # Two plain NATs: each sees the other's public address.
        assert lab.paths("home", "office")[0].startswith("44.4.0.1/")
        assert lab.paths("office", "home")[0].startswith("44.3.0.1/")
        # Behind the same one they use their own network.
        assert lab.paths("home", "sibling")[0].startswith("192.168.3.11/")
        assert lab.paths("sibling", "home")[0].startswith("192.168.3.10/")
        assert lab.paths(PUBLIC, "cafe")[0].startswith("44.5.0.1/")
        # Symmetric on both sides, but one of the boxes maps a port.
        for member, other in (("lodge", "hotel"), ("cabin", "cafe")):
            mapped = lab.members[member].client.get("/status")["config"]["settings"]["tertiaryPort"]
            assert lab.paths(other, member)[0] == f"44.{BEHIND[member][1]}.0.1/{mapped}"
        # Long after the others found each other: two symmetric NATs, and where UDP is blocked, go through the root; and go on.
        lab.timed("all flows are old", lambda: all(flow.count() >= 100 for flow in flows.values()))
        for one, other in pairs[6:]:
            assert lab.paths(one, other) == lab.paths(other, one) == []


def test_a_node_knows_its_surface(lab: NatLab) -> None:
    lab.wait_until_direct("home", "sibling")  # who sees it from the inside
    for name, addresses in {"home": {"44.3.0.1", "192.168.3.10"}, "cafe": {"44.5.0.1"}, PUBLIC: {"44.2.0.1"}}.items():
        surface = lab.members[name].client.get("/status")["config"]["settings"]["surfaceAddresses"]
        assert {entry.partition("/")[0] for entry in surface} == addresses


def test_new_mappings_and_a_new_address_and_blocked_udp(lab: NatLab) -> None:
    """At once: a NAT box forgets its mappings and makes others; a member moves; UDP between two is blocked. All flows go on."""
    core, public, box = lab.internet.core, lab.internet.hosts[PUBLIC], lab.internet.hosts["nat3"]
    with contextlib.ExitStack() as stack:
        pairs = {
            "remapped": ("home", "office"),
            "moved": ("hotel", PUBLIC),
            "blocked": ("office", PUBLIC),
            "unhurt": ("sibling", "home"),
        }
        flows = {name: stack.enter_context(lab.flow(*pair)) for name, pair in pairs.items()}
        for name, pair in pairs.items():
            flows[name].wait_for_progress(f"the flow to be {name}")
            lab.wait_until_direct(*pair)

        counts = {name: flow.count() for name, flow in flows.items()}
        core.blocks_udp(("44.4.0.1", "44.5.0.1"), ("44.4.0.1", "44.2.0.1"), ("44.4.0.1", "44.2.0.2"))
        box.masquerades("wan", "to :20000-30000")
        public.ip("address", "del", "44.2.0.1/24", "dev", "wan")
        public.add_address("wan", "44.2.0.2/24")
        public.default_route("44.2.0.254")
        lab.timed("all flows go on", lambda: all(flow.count() >= counts[name] + 20 for name, flow in flows.items()))
        lab.timed("the office uses a new mapping", lambda: any(20000 <= port <= 30000 for port in ports(lab, "office", "home")))
        lab.timed("the hotel uses the new address", lambda: any("44.2.0.2/" in path for path in lab.paths("hotel", PUBLIC)))
        lab.wait_until_direct("home", "office")
        core.blocks_udp(("44.4.0.1", "44.5.0.1"))


def ports(lab: NatLab, one: str, other: str) -> list[int]:
    return [int(path.partition("/")[2]) for path in lab.paths(one, other)]


def test_a_member_behind_nat_gets_another_address(lab: NatLab) -> None:
    office = lab.internet.hosts["office"]
    with lab.flow("office", PUBLIC) as flow:
        flow.wait_for_progress("a flow")
        lab.wait_until_direct("office", PUBLIC)
        office.ip("link", "set", "eth0", "down")
        office.ip("address", "flush", "dev", "eth0")
        office.ip("link", "set", "eth0", "up")
        office.add_address("eth0", "192.168.4.77/24")
        office.default_route("192.168.4.1")
        flow.wait_for_progress("after the interface was away")
        status = lab.members["office"].client.get("/status")
        assert {entry.partition("/")[0] for entry in status["config"]["settings"]["listeningOn"]} == {"192.168.4.77"}
        lab.wait_until_direct("office", PUBLIC)


def test_the_root_is_killed_and_comes_back(lab: NatLab) -> None:
    """Direct flows do not notice; relayed ones wait and go on."""
    with lab.flow("home", PUBLIC) as direct, lab.flow("cafe", "hotel") as relayed:
        direct.wait_for_progress("a direct flow")
        relayed.wait_for_progress("a relayed flow")
        lab.wait_until_direct("home", PUBLIC)
        lab.root.kill()
        direct.wait_for_progress("a direct flow without any root", 20)
        answers = relayed.count()
        lab.root = lab.start("root", lab.root.home)
        relayed.wait_for_progress("the relayed flow after the root's return")
        assert relayed.count() > answers


def test_a_mapped_port_follows_the_member_and_goes_with_it(lab: NatLab) -> None:
    """Last, for these members are gone then."""
    lodge = lab.internet.hosts["lodge"]
    boxes = {member: lab.internet.hosts[BEHIND[member][0]] for member in MAPS_BY}
    ports = {member: lab.members[member].client.get("/status")["config"]["settings"]["tertiaryPort"] for member in MAPS_BY}
    lodge.ip("address", "del", "192.168.7.10/24", "dev", "eth0")
    lodge.add_address("eth0", "192.168.7.77/24")
    lodge.default_route("192.168.7.1")
    lab.timed(
        "the new address is mapped", lambda: any(f"192.168.7.77:{ports['lodge']}" in rule for rule in mapped_ports(boxes["lodge"]))
    )
    assert any(f"192.168.8.10:{ports['cabin']}" in rule for rule in mapped_ports(boxes["cabin"]))
    for member in MAPS_BY:
        assert lab.members[member].stop() == 0
    assert mapped_ports(boxes["cabin"]) == []
    # What was mapped to the former address could not be taken back from the new one: its lease ends.
    assert not any("192.168.7.77" in rule for rule in mapped_ports(boxes["lodge"]))
