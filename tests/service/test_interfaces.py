"""Which of the machine's addresses carry VL1 (vl1 §5.13)."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.dataplane.reactor import Reactor
from netcon.service.errors import ServiceError
from netcon.service.interfaces import InterfaceAddress, default_gateways, interface_addresses, usable_addresses
from netcon.service.settings import RANDOM_PORTS, LocalConf, Settings
from netcon.service.wire import Wire
from tests.service.support import free_port


def address(interface: str, text: str) -> InterfaceAddress:
    return InterfaceAddress(interface, ipaddress.ip_address(text).packed)


def usable(*addresses: InterfaceAddress, **how: object) -> list[str]:
    return [str(ipaddress.ip_address(found.ip)) for found in usable_addresses(addresses, **how)]  # type: ignore[arg-type]


def test_the_kernel_lists_this_machines_addresses() -> None:
    assert InterfaceAddress("lo", bytes((127, 0, 0, 1))) in interface_addresses()


def test_private_and_global_addresses_are_used_once_each() -> None:
    found = usable(address("eth0", "10.0.0.1"), address("eth1", "8.8.8.8"), address("eth0", "fd00::1"), address("eth2", "10.0.0.1"))
    assert found == ["10.0.0.1", "8.8.8.8", "fd00::1"]


def test_loopback_and_link_local_are_not_used() -> None:
    assert (
        usable(address("lo", "127.0.0.1"), address("lo", "10.0.0.1"), address("eth0", "fe80::5"), address("eth0", "169.254.1.1"))
        == []
    )


def test_tunnels_are_not_used() -> None:
    assert usable(
        address("zt0", "10.0.0.1"), address("tun0", "10.0.0.2"), address("tap3", "10.0.0.3"), address("wlan0", "10.0.0.4")
    ) == ["10.0.0.4"]


def test_our_own_virtual_addresses_are_not_used() -> None:
    assert usable(address("br0", "10.144.0.7"), own=[bytes((10, 144, 0, 7))]) == []


def test_blacklists_by_name_and_by_network() -> None:
    networks = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    addresses = (
        address("docker0", "10.0.0.1"),
        address("eth0", "10.1.2.3"),
        address("eth0", "10.2.2.3"),
        address("eth0", "fd00::1"),
    )
    assert usable(*addresses, prefix_blacklist=["docker"], network_blacklist=networks) == ["10.2.2.3"]


def test_a_kernel_that_does_not_list_addresses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[InterfaceAddress]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("netcon.service.wire.interface_addresses", refuse)
    reactor = Reactor(manual=True)
    with pytest.raises(ServiceError, match=r"Operation not permitted.*settings\.bind"):
        Wire(reactor, 9993, LocalConf()).refresh(LocalConf())
    reactor.stop()


# -- ports --


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor(manual=True)
    yield reactor
    reactor.stop()


def test_the_secondary_port_is_drawn_again_after_two_minutes_offline(reactor: Reactor) -> None:
    wire = Wire(reactor, 9993, LocalConf())
    first = wire.secondary_port
    assert not wire.redraw_if_lost(False, False, 0)
    assert not wire.redraw_if_lost(False, False, 120)
    assert not wire.redraw_if_lost(True, False, 125)
    assert not wire.redraw_if_lost(False, False, 130)
    assert not wire.redraw_if_lost(False, False, 250)
    assert wire.secondary_port == first
    assert wire.redraw_if_lost(False, False, 255)
    assert not wire.redraw_if_lost(False, False, 300)
    assert wire.redraw_if_lost(False, False, 376)
    assert wire.secondary_port in RANDOM_PORTS
    assert wire.redraw_if_lost(True, True, 380)  # it slept


def test_another_secondary_port_takes_the_place_of_the_former(reactor: Reactor) -> None:
    conf = LocalConf(settings=Settings(bind=["127.0.0.1"], portMappingEnabled=False))
    wire = Wire(reactor, free_port(), conf)
    wire.refresh(conf)
    former = wire.local_endpoints
    while wire.secondary_port in {endpoint.port for endpoint in former}:
        assert wire.redraw_if_lost(True, True, 0)
    assert wire.refresh(conf)
    assert {endpoint.port for endpoint in wire.local_endpoints} == {wire.primary_port, wire.secondary_port}


@pytest.mark.parametrize("settings", [Settings(secondaryPort=20001), Settings(allowSecondaryPort=False, secondaryPort=20001)])
def test_a_secondary_port_of_the_users_choice_stays(reactor: Reactor, settings: Settings) -> None:
    wire = Wire(reactor, 9993, LocalConf(settings=settings))
    assert not wire.redraw_if_lost(False, True, 0)
    assert wire.secondary_port == (20001 if settings.allowSecondaryPort else 0)


def test_ports_are_mapped_in_private_worlds_only_if_the_user_says_so(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def tertiary(settings: Settings) -> int:
        return Wire(reactor, 9993, LocalConf(settings=settings)).tertiary_port

    monkeypatch.setenv("NETCON_PLANET", "private")
    assert tertiary(Settings()) == 0
    assert tertiary(Settings(portMappingEnabled=True)) in RANDOM_PORTS
    assert LocalConf(settings=Settings(tertiaryPort=5)).without_effect()
    monkeypatch.delenv("NETCON_PLANET")
    assert tertiary(Settings()) in RANDOM_PORTS
    assert tertiary(Settings(tertiaryPort=20005)) == 20005
    assert tertiary(Settings(portMappingEnabled=False)) == 0


def test_default_gateways_are_read_from_the_kernels_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def route(interface: str, destination: str, gateway: str, flags: int, metric: int, mask: str) -> str:
        words = [int.from_bytes(ipaddress.ip_address(text).packed, sys.byteorder) for text in (destination, gateway, mask)]
        return f"{interface}\t{words[0]:08X}\t{words[1]:08X}\t{flags:04X}\t0\t0\t{metric}\t{words[2]:08X}\t0\t0\t0\n"

    file = tmp_path / "route"
    monkeypatch.setattr("netcon.service.interfaces._ROUTES", file)
    assert default_gateways() == {}
    file.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        + route("eth0", "0.0.0.0", "192.168.1.2", 3, 100, "0.0.0.0")
        + route("eth0", "0.0.0.0", "192.168.1.1", 3, 50, "0.0.0.0")
        + route("eth0", "192.168.1.0", "0.0.0.0", 1, 0, "255.255.255.0")
        + route("eth0", "10.0.0.0", "192.168.1.3", 3, 0, "255.0.0.0")
        + route("wan1", "0.0.0.0", "0.0.0.0", 1, 0, "0.0.0.0")
        + route("eth1", "0.0.0.0", "10.0.0.1", 3, 0, "0.0.0.0")
    )
    assert default_gateways() == {"eth0": bytes((192, 168, 1, 1)), "eth1": bytes((10, 0, 0, 1))}
