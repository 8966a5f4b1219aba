"""One network's stack: what of a configuration is applied to it, the paths it is found by, and its restart after a failure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

import lwip
from netcon.core.address import MulticastGroup, mac_for, parse_endpoint, parse_prefix
from netcon.core.netconf import NetworkConfig, Route
from netcon.core.network import NetworkStatus, State
from netcon.dataplane.reactor import Reactor
from netcon.service.home import Home
from netcon.service.paths import rpc_socket, well_known_sockets
from netcon.service.port import NetworkPort, interface_name, permitted_addresses, permitted_routes
from netcon.service.settings import NetworkSettings
from netcon.service.socket_rpc import Hello, hello

NETWORK = 0x701BEB847C4A52C7
ADDRESS = 0x0082915F5E
SERVICE, EPOCH = 0x1234, 0x5678


def config(addresses: list[str], routes: list[tuple[str, str | None]] = [], **more: object) -> NetworkConfig:  # noqa: B006
    return NetworkConfig(
        NETWORK,
        ADDRESS,
        addresses=tuple(parse_prefix(text) for text in addresses),
        routes=tuple(Route(parse_prefix(target), parse_endpoint(f"{via}/0") if via else None) for target, via in routes),
        **more,  # type: ignore[arg-type]
    )


def status(configuration: NetworkConfig) -> NetworkStatus:
    return NetworkStatus(NETWORK, mac_for(NETWORK, ADDRESS), State.OK, configuration, False, ())


def routes(*wanted: tuple[str, str | None], addresses: list[str], settings: NetworkSettings | None = None) -> list[str]:
    found = permitted_routes(config(addresses, list(wanted)), settings or NetworkSettings())
    return [f"{ipaddress.ip_address(target)}/{bits} {via and ipaddress.ip_address(via)}" for target, bits, via in found]


# -- what is applied --


def test_addresses_are_filtered_by_local_settings() -> None:
    addresses = config(["10.9.0.7/24", "8.8.8.8/24", "127.0.0.1/8"])
    assert [ip for ip, _ in permitted_addresses(addresses, NetworkSettings())] == [bytes((10, 9, 0, 7))]
    assert permitted_addresses(addresses, NetworkSettings(managed=False)) == []


def test_routes_without_gateway_come_first() -> None:
    found = routes(("10.1.0.0/16", "10.9.0.1"), ("10.2.0.0/16", None), addresses=["10.9.0.7/24"])
    assert found == ["10.2.0.0/16 None", "10.1.0.0/16 10.9.0.1"]


def test_routes_through_ourselves_implied_ones_and_other_families_are_left_out() -> None:
    found = routes(("10.1.0.0/16", "10.9.0.7"), ("10.9.0.0/24", None), ("fd00::/64", None), addresses=["10.9.0.7/24"])
    assert found == []


def test_a_default_route_needs_permission() -> None:
    wanted = ("0.0.0.0/0", "10.9.0.1")
    assert routes(wanted, addresses=["10.9.0.7/24"]) == []
    assert routes(wanted, addresses=["10.9.0.7/24"], settings=NetworkSettings(default=True)) == ["0.0.0.0/0 10.9.0.1"]


def test_the_interface_name_is_the_one_zerotier_gives() -> None:
    assert interface_name(NETWORK) == "zt6rt2dvv3"  # service-api §5


# -- the port --


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Home(tmp_path / "home").path


@pytest.fixture
def port(home: Path) -> Iterator[NetworkPort]:
    reactor = Reactor()
    reactor.start()
    server = lwip.SocketServer(reactor.capsule(), service=SERVICE, epoch=EPOCH)
    made = NetworkPort(reactor, server, home, NETWORK, mac_for(NETWORK, ADDRESS), 1)
    yield made
    made.close()
    server.close()
    reactor.stop()


def addresses_of(port: NetworkPort) -> set[str]:
    return {f"{ip}/{bits}" for ip, bits in port.stack.addresses() if not ip.startswith("fe80")}


def test_programs_find_it_by_its_home_and_by_the_well_known_path(port: NetworkPort, home: Path) -> None:
    expected = Hello(SERVICE, EPOCH, NETWORK)
    assert hello(rpc_socket(home, NETWORK)) == expected
    assert hello(well_known_sockets(NETWORK)[0]) == expected


def test_a_well_known_path_that_another_service_holds_is_left_to_it(port: NetworkPort, tmp_path: Path) -> None:
    other_home = Home(tmp_path / "other").path
    reactor = Reactor()
    reactor.start()
    server = lwip.SocketServer(reactor.capsule(), service=SERVICE + 1, epoch=EPOCH)
    other = NetworkPort(reactor, server, other_home, NETWORK, mac_for(NETWORK, ADDRESS + 1), 1)
    assert hello(well_known_sockets(NETWORK)[0]).service == SERVICE
    assert hello(rpc_socket(other_home, NETWORK)).service == SERVICE + 1
    other.close()
    server.close()
    reactor.stop()
    assert hello(well_known_sockets(NETWORK)[0]).service == SERVICE


def test_a_new_configuration_changes_what_differs(port: NetworkPort) -> None:
    port.configure(status(config(["10.9.0.7/24", "fd00::7/64"], mtu=1500)), NetworkSettings())
    assert addresses_of(port) == {"10.9.0.7/24", "fd00::7/64"}
    assert port.mtu == 1500
    port.configure(status(config(["10.9.0.7/16", "10.9.0.8/16"])), NetworkSettings())
    assert addresses_of(port) == {"10.9.0.7/16", "10.9.0.8/16"}
    assert port.addresses == [bytes((10, 9, 0, 7)), bytes((10, 9, 0, 8))]


def test_multicast_groups_follow_the_addresses(port: NetworkPort) -> None:
    port.configure(status(config(["10.9.0.7/24", "fd00::12:3456/64"])), NetworkSettings())
    groups = port.groups()
    assert MulticastGroup(b"\xff" * 6, 0x0A090007) in groups  # ARP for our IPv4 address
    assert MulticastGroup(bytes.fromhex("3333ff123456"), 0) in groups  # neighbour discovery for our IPv6 address
    assert MulticastGroup(bytes.fromhex("333300000001"), 0) in groups  # all nodes
    link_local = next(ip for ip, _ in port.stack.addresses() if ip.startswith("fe80"))
    assert MulticastGroup(b"\x33\x33\xff" + ipaddress.ip_address(link_local).packed[13:], 0) in groups


def test_a_failed_stack_is_started_again_with_its_addresses(port: NetworkPort, home: Path) -> None:
    port.configure(status(config(["10.9.0.7/24"], [("10.1.0.0/16", "10.9.0.1")])), NetworkSettings())
    assert not port.restart_if_failed()
    failed = port.stack
    failed.inject_failure("a test's assertion")
    assert port.restart_if_failed()
    assert port.stack is not failed
    assert port.stack.failed is None
    assert addresses_of(port) == {"10.9.0.7/24"}
    assert hello(rpc_socket(home, NETWORK)).network == NETWORK
    assert not port.restart_if_failed()


def test_a_stack_that_cannot_be_started_again_yet_is_tried_again(port: NetworkPort, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError("no memory")

    port.configure(status(config(["10.9.0.7/24"])), NetworkSettings())
    port.stack.inject_failure("a test's assertion")
    with monkeypatch.context() as broken:
        broken.setattr(lwip, "Stack", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="no memory"):
                port.restart_if_failed()
    assert port.restart_if_failed()
    assert addresses_of(port) == {"10.9.0.7/24"}
