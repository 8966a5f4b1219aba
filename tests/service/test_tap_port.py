"""A network's TAP device: its name, addresses, routes and groups, as the kernel shows them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netcon.core.address import MulticastGroup, mac_for
from netcon.core.netconf import NetworkConfig
from netcon.core.network import NetworkStatus, State
from netcon.dataplane.reactor import Reactor, Tap
from netcon.service.errors import PortError
from netcon.service.settings import NetworkSettings
from netcon.service.tap_port import TapPort, kernel_groups
from tests.namespaces import Namespace, ip, needs_namespaces
from tests.service.test_port import ADDRESS, NETWORK, config

MAC = mac_for(NETWORK, ADDRESS)
DEVICE = "zt6rt2dvv3"


def in_namespace(test: Callable[[Namespace, Reactor], None]) -> Callable[[], None]:
    """The whole test runs on one thread in a namespace of its own."""

    @functools.wraps(test)
    def run() -> None:
        with Namespace() as namespace:
            reactor = Reactor()
            reactor.start()
            try:
                namespace.inside(lambda: test(namespace, reactor))
            finally:
                reactor.stop()

    del run.__wrapped__  # type: ignore[attr-defined] # pytest would see fixtures in its arguments
    return needs_namespaces(run)


def shown(what: str, *words: str) -> Any:
    return json.loads(ip("-j", *words, what, "show", "dev", DEVICE) or "[]")


def addresses() -> set[str]:
    return {f"{entry['local']}/{entry['prefixlen']}" for entry in shown("address")[0]["addr_info"] if entry["scope"] != "link"}


def routes(family: str = "-4") -> set[tuple[str, str | None]]:
    """Those that were set, not those that the kernel makes of addresses."""
    return {(entry["dst"], entry.get("gateway")) for entry in shown("route", family) if entry["protocol"] == "static"}


def apply(port: TapPort, configuration: NetworkConfig, settings: NetworkSettings | None = None) -> None:
    port.configure(NetworkStatus(NETWORK, MAC, State.OK, configuration, False, ()), settings or NetworkSettings())


@in_namespace
def test_the_device_has_the_networks_name_mac_and_mtu_and_is_up(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    assert (port.failure, port.device) == (None, DEVICE)
    link = shown("link")[0]
    assert (link["address"], link["mtu"], "UP" in link["flags"]) == ("c6:52:c8:ed:db:b5", 2800, True)
    apply(port, config([], mtu=1400))
    assert shown("link")[0]["mtu"] == 1400
    port.close()
    assert DEVICE not in ip("link")


@in_namespace
def test_addresses_follow_the_configuration_and_others_stay(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    apply(port, config(["10.9.0.7/24", "fd00::7/64", "8.8.8.8/24"]))
    ip("address", "add", "10.77.0.1/24", "dev", DEVICE)
    assert addresses() == {"10.9.0.7/24", "fd00::7/64", "10.77.0.1/24"}
    assert "tentative" not in json.dumps([each for each in shown("address")[0]["addr_info"] if each["local"] == "fd00::7"])
    apply(port, config(["10.9.0.7/16", "10.9.0.8/16"]))
    assert addresses() == {"10.9.0.7/16", "10.9.0.8/16", "10.77.0.1/24"}
    assert port.addresses == [bytes((10, 9, 0, 7)), bytes((10, 9, 0, 8))]
    apply(port, config(["10.9.0.7/16"]), NetworkSettings(managed=False))
    assert addresses() == {"10.77.0.1/24"}
    port.close()


@in_namespace
def test_routes_with_and_without_gateway(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    given = config(["10.9.0.7/24", "fd00::7/64"], [("10.1.0.0/16", "10.9.0.1"), ("10.2.0.0/16", None), ("fd01::/64", "fd00::1")])
    apply(port, given)
    assert routes() == {("10.1.0.0/16", "10.9.0.1"), ("10.2.0.0/16", None)}
    assert routes("-6") == {("fd01::/64", "fd00::1")}
    apply(port, config(["10.9.0.7/24"], [("10.2.0.0/16", "10.9.0.2")]))
    assert routes() == {("10.2.0.0/16", "10.9.0.2")}
    assert routes("-6") == set()
    port.close()


@in_namespace
def test_a_default_route_is_two_halves_and_stands_while_the_node_is_online(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    given = config(["10.9.0.7/24"], [("0.0.0.0/0", "10.9.0.1")])
    allowed = NetworkSettings(default=True)
    apply(port, given, allowed)
    assert routes() == set()
    assert not port.has_default_route
    port.online = True
    apply(port, given, allowed)
    assert routes() == {("0.0.0.0/1", "10.9.0.1"), ("128.0.0.0/1", "10.9.0.1")}
    assert port.has_default_route
    apply(port, given)
    assert routes() == set()
    port.close()


@in_namespace
def test_what_somebody_takes_away_comes_back(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    apply(port, config(["10.9.0.7/24", "fd00::7/64"], [("10.1.0.0/16", "10.9.0.1")]))
    ip("link", "set", DEVICE, "down")  # takes routes and IPv6 addresses away
    ip("address", "del", "10.9.0.7/24", "dev", DEVICE)
    ip("link", "set", DEVICE, "up")
    assert addresses() == set()
    port.refresh()
    assert addresses() == {"10.9.0.7/24", "fd00::7/64"}
    assert routes() == {("10.1.0.0/16", "10.9.0.1")}
    port.close()


@in_namespace
def test_a_route_of_the_system_stays_and_is_reported_once(namespace: Namespace, reactor: Reactor) -> None:
    ip("link", "add", "other", "type", "bridge")
    ip("link", "set", "other", "up")
    ip("route", "add", "10.1.0.0/16", "dev", "other")
    port = TapPort(reactor, NETWORK, MAC, 1)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("netcon.service.tap_port.log.error", lambda _, text: said.append(text))
        apply(port, config(["10.9.0.7/24"], [("10.1.0.0/16", None)]))
        port.refresh()
    assert [f"{DEVICE}: route 10.1.0.0/16: the system has such a route already, which stays" in text for text in said] == [True]
    assert "10.1.0.0/16 dev other" in ip("route")
    port.close()


@in_namespace
def test_a_deleted_device_is_made_again_with_all_it_had(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    apply(port, config(["10.9.0.7/24"], [("10.1.0.0/16", "10.9.0.1")], mtu=1400))
    assert not port.restart_if_failed()
    ip("link", "del", DEVICE)
    assert port.restart_if_failed()
    assert shown("link")[0]["mtu"] == 1400
    assert addresses() == {"10.9.0.7/24"}
    assert routes() == {("10.1.0.0/16", "10.9.0.1")}
    port.close()


@in_namespace
def test_a_taken_name_leads_to_the_next_one(namespace: Namespace, reactor: Reactor) -> None:
    other = Tap(reactor, DEVICE)
    port = TapPort(reactor, NETWORK, MAC, 1)
    assert port.device == "zt6rt2dvv4"
    port.close()
    other.close()


@in_namespace
def test_a_given_name_that_is_taken_is_a_failure_until_it_is_free(namespace: Namespace, reactor: Reactor) -> None:
    other = Tap(reactor, "mine")
    port = TapPort(reactor, NETWORK, MAC, 1, name="mine")
    assert port.failure is not None
    assert "devicemap" in str(port.failure)
    assert port.groups() == set()
    apply(port, config(["10.9.0.7/24"]))
    with pytest.raises(PortError, match="mine is taken"):
        port.restart_if_failed()
    other.close()
    assert port.restart_if_failed()
    assert port.failure is None
    assert "10.9.0.7/24" in ip("address", "show", "dev", "mine")
    port.close()


@in_namespace
def test_groups_are_those_of_all_addresses_and_of_what_the_kernel_joined(namespace: Namespace, reactor: Reactor) -> None:
    port = TapPort(reactor, NETWORK, MAC, 1)
    apply(port, config(["10.9.0.7/24", "fd00::12:3456/64"]))
    ip("address", "add", "10.77.0.1/24", "dev", DEVICE)
    ip("maddress", "add", "01:00:5e:01:02:03", "dev", DEVICE)
    groups = port.groups()
    assert MulticastGroup(b"\xff" * 6, 0x0A090007) in groups
    assert MulticastGroup(b"\xff" * 6, 0x0A4D0001) in groups  # an address added by hand
    for mac in ("3333ff123456", "333300000001", "01005e000001", "01005e010203"):
        assert MulticastGroup(bytes.fromhex(mac), 0) in groups
    port.close()


def test_groups_are_read_for_one_device_alone(tmp_path: Path) -> None:
    file = tmp_path / "dev_mcast"
    file.write_text("2    eth0            1     0     333300000001\n3    zt0             1     0     01005e000001\n")
    assert kernel_groups("zt0", file) == {MulticastGroup(bytes.fromhex("01005e000001"), 0)}
