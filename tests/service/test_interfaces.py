"""Which of the machine's addresses carry VL1 (vl1 §5.13)."""

from __future__ import annotations

import ipaddress

import pytest

from netcon.dataplane.reactor import Reactor
from netcon.service.errors import ServiceError
from netcon.service.interfaces import InterfaceAddress, interface_addresses, usable_addresses
from netcon.service.settings import LocalConf
from netcon.service.wire import Wire


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
