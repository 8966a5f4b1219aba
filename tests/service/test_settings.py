"""What a network's controller may do to this machine (vl2 §6.7)."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path

import pytest

from netcon.service.errors import SettingsError
from netcon.service.settings import NetworkSettings, parse_local_conf

FILE = Path("x.local.conf")


def permits(settings: NetworkSettings, text: str, *, target: bool = False) -> bool:
    interface = ipaddress.ip_interface(text)
    return settings.permits(interface.ip.packed, interface.network.prefixlen, target=target)


@pytest.mark.parametrize("address", ["10.1.2.3/24", "192.168.0.1/16", "172.16.0.1/12", "28.1.2.3/8", "fd00::1/64", "100.64.0.1/10"])
def test_private_addresses_are_accepted(address: str) -> None:
    assert permits(NetworkSettings(), address)
    assert not permits(NetworkSettings(managed=False), address)


@pytest.mark.parametrize("address", ["8.8.8.8/24", "2001:db8::1/64"])
def test_global_addresses_need_allow_global(address: str) -> None:
    assert not permits(NetworkSettings(), address)
    assert permits(NetworkSettings(allow_global=True), address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1/8", "224.0.0.1/4", "169.254.0.1/16", "0.0.0.1/8", "::1/128", "fe80::2/64", "ff02::1/16"]
)
def test_special_addresses_are_never_accepted(address: str) -> None:
    assert not permits(NetworkSettings(allow_global=True, default=True), address)


@pytest.mark.parametrize("target", ["0.0.0.0/0", "::/0"])
def test_a_default_route_needs_allow_default(target: str) -> None:
    assert not permits(NetworkSettings(allow_global=True), target, target=True)
    assert permits(NetworkSettings(default=True), target, target=True)


def test_a_whitelist_narrows_what_is_managed() -> None:
    settings = NetworkSettings.parse("allowManaged=10.1.0.0/16,fd00::/32\nallowGlobal=1\n", FILE)
    assert permits(settings, "10.1.2.3/24")
    assert not permits(settings, "10.1.2.3/8")
    assert not permits(settings, "10.2.2.3/24")
    assert permits(settings, "fd00::1/64")
    assert not permits(settings, "8.8.8.8/32")
    assert NetworkSettings.parse(settings.to_text(), FILE) == settings


def test_only_real_booleans_change_settings() -> None:
    changed = NetworkSettings().changed(
        {"allowGlobal": True, "allowDefault": 1, "allowDNS": "true", "allowManaged": None, "x": True}
    )
    assert changed == NetworkSettings(allow_global=True)


def test_a_post_reduces_a_whitelist_to_yes() -> None:
    assert NetworkSettings.parse("allowManaged=10.0.0.0/8\n", FILE).changed({}) == NetworkSettings()


@pytest.mark.parametrize("text", ["allowManaged", "allowManaged=10.0.0.0/99"])
def test_a_corrupt_file_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=r"x\.local\.conf"):
        NetworkSettings.parse(text, FILE)


def test_addresses_of_our_own_are_kept_in_the_file() -> None:
    settings = NetworkSettings().changed({"localAddresses": ["10.1.2.3/24", "fd00::5/64", "10.1.2.3/16"]})
    assert "addresses=10.1.2.3/16,fd00::5/64\n" in settings.to_text()
    assert NetworkSettings.parse(settings.to_text(), Path("x")) == settings
    assert settings.changed({"allowGlobal": True}).addresses == settings.addresses
    assert settings.changed({"localAddresses": []}).addresses == ()


@pytest.mark.parametrize(
    "value",
    [
        *(None, "10.1.2.3/24", [5], ["10.1.2.3"], ["x/24"], ["127.0.0.1/8"], ["224.0.0.1/4"], ["fe80::1%eth0/64"], ["0.0.0.0/0"]),
        [f"10.1.2.{number}/24" for number in range(33)],
    ],
)
def test_what_is_no_list_of_addresses_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"10\.1\.2\.3/24"):
        NetworkSettings().changed({"localAddresses": value})


def test_names_of_the_owner() -> None:
    names = {"hosts": {"printer.home.arpa": ["10.9.9.9", "fd00::9"]}, "serve": ["8056c2e21c000001"]}
    conf = parse_local_conf(json.dumps({"settings": {"names": names}}).encode(), Path("local.conf"))
    assert conf.settings.names.hosts["printer.home.arpa"] == ["10.9.9.9", "fd00::9"]
    assert not parse_local_conf(b"{}", Path("local.conf")).settings.names.serve


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"hosts": {"a..b": ["10.0.0.1"]}}, "settings.names.hosts: 'a..b' is not a host name"),
        ({"hosts": {"a": ["10.0.0"]}}, "settings.names.hosts.a: '10.0.0' is not an IP address"),
        ({"serve": ["lab"]}, "settings.names.serve: 'lab' is not a network id"),
        ({"elsewhere": "host"}, "elsewhere"),  # the line `names host` of the policy says it
        ({"host": {}}, "host"),
    ],
)
def test_names_that_make_no_sense(names: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        parse_local_conf(json.dumps({"settings": {"names": names}}).encode(), Path("local.conf"))


def test_the_kind_of_port_is_kept_and_checked() -> None:
    assert NetworkSettings().port == ""
    assert "port" not in NetworkSettings().to_text()  # a key of ours only where it says something
    settings = NetworkSettings().changed({"port": "tap"})
    assert NetworkSettings.parse(settings.to_text(), FILE) == settings
    assert settings.changed({"allowGlobal": True}).port == "tap"
    for wrong in ("vhost", 1, None):
        with pytest.raises(SettingsError, match="lwip, tap"):
            settings.changed({"port": wrong})
    with pytest.raises(SettingsError, match=r"x\.local\.conf.*lwip, tap"):
        NetworkSettings.parse("port=vhost\n", FILE)


def test_the_default_kind_of_port_is_checked() -> None:
    conf = Path("local.conf")
    assert parse_local_conf(b"{}", conf).settings.networkPort == "lwip"
    assert parse_local_conf(b'{"settings": {"networkPort": "tap"}}', conf).settings.networkPort == "tap"
    with pytest.raises(SettingsError, match=r"networkPort.*lwip, tap"):
        parse_local_conf(b'{"settings": {"networkPort": "vhost"}}', conf)
