"""The table of names: who has which name, who is asked about the others (docs/names.md)."""

from __future__ import annotations

import ipaddress

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import rfc4193_address, sixplane_address
from netcon.names.table import (
    IP,
    Absent,
    Forward,
    Found,
    Member,
    NameTable,
    NetworkNames,
    Outside,
    label_of,
    parse_name,
    reversed_address,
)

NETWORK, OTHER = 0x8056C2E21C000001, 0x8056C2E21C000002
WEB, DB, STRANGER = 0x1122334455, 0x66778899AA, 0xABCDEF0123


def ip(text: str) -> IP:
    return ipaddress.ip_address(text)


def name(text: str) -> dns.name.Name:
    made = parse_name(text)
    assert made is not None
    return made


def network(number: int = NETWORK, **more: object) -> NetworkNames:
    fields: dict[str, object] = {
        "domain": "lab.example",
        "members": (
            Member(WEB, "web", (ip("10.1.0.7"),), "the controller"),
            Member(DB, "", (ip("10.1.0.8"),), "the controller"),
        ),
        "prefixes": (ipaddress.ip_network("10.1.0.0/24"),),
        "rfc4193": True,
    }
    return NetworkNames(number, **(fields | more))  # type: ignore[arg-type]


COMPUTED = ipaddress.IPv6Address(rfc4193_address(NETWORK, WEB))


def test_a_member_has_its_name_in_the_networks_domain() -> None:
    found = NameTable([network()]).look_up(name("Web.LAB.example"))
    assert found == Found(name("web.lab.example"), (ip("10.1.0.7"), COMPUTED), "the controller")


def test_and_in_the_networks_own_domain_which_needs_no_configuration() -> None:
    table = NameTable([network(domain="")])
    found = table.look_up(name(f"web.{NETWORK:016x}.internal"))
    assert isinstance(found, Found)
    assert found.addresses[0] == ip("10.1.0.7")
    assert table.domains(NETWORK) == [name(f"{NETWORK:016x}.internal")]


def test_every_member_is_found_by_its_address() -> None:
    found = NameTable([network()]).look_up(name(f"zt-{DB:010x}.lab.example"))
    assert isinstance(found, Found)
    assert found.addresses[0] == ip("10.1.0.8")


def test_addresses_of_unknown_members_are_computed_where_the_network_gives_such() -> None:
    asked = name(f"zt-{STRANGER:010x}.lab.example")
    for modes, expected in (
        ({"rfc4193": True}, [rfc4193_address(NETWORK, STRANGER)]),
        ({"rfc4193": False, "sixplane": True}, [sixplane_address(NETWORK, STRANGER)]),
    ):
        found = NameTable([network(**modes)]).look_up(asked)
        assert isinstance(found, Found)
        assert [each.packed for each in found.addresses] == expected
    assert isinstance(NameTable([network(rfc4193=False)]).look_up(asked), Absent)


def test_nobody_takes_another_members_address_for_a_name() -> None:
    thief = Member(STRANGER, f"zt-{WEB:010x}", (ip("10.1.0.66"),), "the controller")
    table = NameTable([network(members=(thief, *network().members))])
    found = table.look_up(name(f"zt-{WEB:010x}.lab.example"))
    assert isinstance(found, Found)
    assert ip("10.1.0.66") not in found.addresses


def test_other_names_of_the_domain_are_asked_of_its_servers_or_absent() -> None:
    servers = (ip("10.1.0.1"),)
    asked = name("deep.down.lab.example")
    assert NameTable([network(servers=servers)]).look_up(asked) == Forward(NETWORK, name("lab.example"), servers)
    assert isinstance(NameTable([network()]).look_up(asked), Absent)


def test_the_networks_own_domain_is_never_asked_of_its_servers() -> None:
    table = NameTable([network(servers=(ip("10.1.0.1"),))])
    assert isinstance(table.look_up(name(f"nobody.{NETWORK:016x}.internal")), Absent)


def test_the_longest_domain_decides() -> None:
    servers = (ip("10.2.0.1"),)
    table = NameTable([network(domain="example"), network(OTHER, domain="lab.example", servers=servers, members=())])
    assert table.look_up(name("web.lab.example")) == Forward(OTHER, name("lab.example"), servers)
    assert isinstance(table.look_up(name("web.example")), Found)


def test_two_networks_may_share_a_domain() -> None:
    other = network(OTHER, members=(Member(DB, "db", (ip("10.2.0.9"),), "the controller"),))
    table = NameTable([network(), other])
    assert all(isinstance(table.look_up(name(text)), Found) for text in ("web.lab.example", "db.lab.example"))


def test_a_program_on_one_network_sees_the_names_of_that_one() -> None:
    table = NameTable([network(), network(OTHER, domain="other.example")])
    assert isinstance(table.look_up(name("web.other.example"), NETWORK), Outside)
    assert isinstance(table.look_up(name("web.other.example"), OTHER), Found)


def test_the_owners_hosts_go_first() -> None:
    table = NameTable([network()], {"web.lab.example": ["192.0.2.1"], "printer.home.arpa": ["10.9.9.9", "fd00::9"]})
    assert table.look_up(name("web.lab.example")) == Found(name("web.lab.example"), (ip("192.0.2.1"),), "local.conf")
    assert table.name_of(ip("fd00::9")) == Found(name("printer.home.arpa"), (ip("fd00::9"),), "local.conf")


@pytest.mark.parametrize("hosts", [{"a..b": ["10.0.0.1"]}, {"": ["10.0.0.1"]}, {"a": ["10.0.0"]}, {"a" * 300: []}])
def test_hosts_that_make_no_sense_are_refused(hosts: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError):
        NameTable((), hosts)


def test_localhost_is_the_loopback_interface() -> None:
    table = NameTable()
    for text in ("localhost", "app.localhost"):
        found = table.look_up(name(text))
        assert isinstance(found, Found)
        assert found.addresses == (ip("127.0.0.1"), ip("::1"))
    assert isinstance(table.name_of(ip("::1")), Found)


def test_addresses_have_names() -> None:
    table = NameTable([network(members=(*network().members,))])
    expected = {
        "10.1.0.7": "web.lab.example",
        "10.1.0.8": f"zt-{DB:010x}.lab.example",
        str(COMPUTED): "web.lab.example",
        str(ipaddress.IPv6Address(rfc4193_address(NETWORK, STRANGER))): f"zt-{STRANGER:010x}.lab.example",
    }
    for text, owner in expected.items():
        found = table.name_of(ip(text))
        assert isinstance(found, Found), text
        assert found.name == name(owner)


def test_addresses_without_a_name() -> None:
    servers = (ip("10.1.0.1"),)
    assert isinstance(NameTable([network()]).name_of(ip("10.1.0.99")), Absent)
    assert isinstance(NameTable([network(servers=servers)]).name_of(ip("10.1.0.99")), Forward)
    assert isinstance(NameTable([network()]).name_of(ip("192.0.2.1")), Outside)


def test_a_single_label_is_looked_for_in_the_domains_first() -> None:
    table = NameTable([network(), network(OTHER, domain="other.example")])
    assert table.candidates(b"web") == [name("web.lab.example"), name("web.other.example"), name("web")]
    assert table.candidates("web", OTHER) == [name("web.other.example"), name("web")]
    assert table.candidates("web.") == [name("web")]
    assert table.candidates("a.b") == [name("a.b")]
    assert table.candidates("") == table.candidates("a..b") == table.candidates(b"\xff") == []


def test_a_single_label_too_long_for_a_domain_is_not_looked_for_there() -> None:
    long = ".".join(["a" * 60] * 4)
    assert NameTable([network(domain=long)]).candidates("b" * 60) == [name("b" * 60)]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Web", "web"),
        ("Anna's Laptop", "anna-s-laptop"),
        ("  -x- ", "x"),
        ("Büro", "b-ro"),
        ("", ""),
        ("!?", ""),
        ("a" * 62 + " b", "a" * 62),
    ],
)
def test_labels_of_free_text(text: str, label: str) -> None:
    assert label_of(text) == label


@given(st.text())
def test_any_text_makes_a_label_or_none(text: str) -> None:
    label = label_of(text)
    assert not label or parse_name(f"{label}.example") is not None


@given(st.one_of(st.text(), st.binary()))
def test_any_question_ends_in_a_verdict(text: str | bytes) -> None:
    table = NameTable([network(domain=text if isinstance(text, str) else "lab.example", servers=(ip("10.1.0.1"),))])
    for candidate in table.candidates(text):
        assert isinstance(table.look_up(candidate), Found | Absent | Forward | Outside)


def test_reverse_names() -> None:
    assert reversed_address(name("7.0.1.10.in-addr.arpa")) == ip("10.1.0.7")
    assert reversed_address(name("0.1.10.in-addr.arpa")) is None
    assert reversed_address(name("a.b.c.d.in-addr.arpa")) is None
    assert reversed_address(name("web.lab.example")) is None


def test_rows_for_people() -> None:
    rows = NameTable([network()], {"printer": ["10.9.9.9"]}).rows()
    assert ("printer", (ip("10.9.9.9"),), "local.conf") in rows
    assert ("web.lab.example", (ip("10.1.0.7"), COMPUTED), "the controller") in rows
    assert f"zt-{DB:010x}.lab.example" in [row[0] for row in rows]
