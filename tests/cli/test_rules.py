"""`netcon rules`: files in, text out, no service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netcon.cli.main import main
from netcon.core.address import Endpoint
from netcon.core.credentials import Tag
from netcon.core.netconf import NetworkConfig
from netcon.core.rule_language import compile_rules
from tests.simulator import IDENTITIES

RULES = """\
tag team id 7 enum 1 red enum 2 blue ;
cap web id 3 accept dport 80 ; ;
drop not ethertype ipv4 and not ethertype arp ;
drop ipprotocol tcp and dport 22 ;
accept tdiff team 0 ;
break;
"""


def netcon(*words: object, code: int = 0, given: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["rules", *(str(word) for word in words)], input=given)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.rules"
    path.write_text(RULES)
    return path


def test_compile_and_back(file: Path, tmp_path: Path) -> None:
    compiled = netcon("compile", file).output
    assert json.loads(compiled) == compile_rules(RULES).to_json()
    (tmp_path / "c.json").write_text(compiled)
    again = netcon("decompile", tmp_path / "c.json").output
    assert compile_rules(again).to_json() == compile_rules(RULES).to_json()
    digits = netcon("compile", "--hex", "-", given="drop vlan 7 ; accept;").output
    assert digits == "1a02000700000100\n"
    assert netcon("decompile", "-", given=digits).output == "drop\n\tvlan 7\n;\naccept;\n"


def test_an_error_shows_its_place(file: Path) -> None:
    file.write_text("accept\n\tdport 99999\n;\n")
    output = netcon("compile", file, code=1).output
    assert f"{file}:2:8: '99999' is no number from 0 to 65535\n\tdport 99999\n\t      ^" in output
    assert "none: No such file" in netcon("compile", file.parent / "none", code=1).output
    assert "neither JSON" in netcon("decompile", file, code=1).output


def test_a_rule_that_never_matches_is_warned_about() -> None:
    assert "-:1:12: warning: fd00::1/8 matches nothing" in netcon("compile", "-", given="drop ipsrc fd00::1/8 ;").output


def test_explain_names_the_deciding_rule(file: Path) -> None:
    output = netcon("explain", file, "--packet", "tcp 10.9.0.1:4000 10.9.0.2:22 syn").output
    assert "drop: rule 6, line 4 of the network's rules: drop" in output
    assert "     4  yes            ipprotocol tcp" in output
    assert "     1  no             not ethertype ipv4" in output
    assert "     2  not asked      not ethertype arp" in output
    assert "     3  skipped    drop" in output
    arp = netcon("explain", "-", "--packet", "arp 10.0.0.1 10.0.0.2", given="accept not ipprotocol tcp;").output
    assert "     1  n/a            not ipprotocol tcp" in arp
    assert "the end is reached" in arp


def test_explain_with_tags_and_capabilities(file: Path) -> None:
    web = ("--packet", "tcp 10.9.0.1:4000 10.9.0.2:80")
    together = netcon("explain", file, "--in", *web, "--own-tag", "team=red", "--peer-tag", "7=1").output
    assert "accept: rule 8, line 5 of the network's rules: accept" in together
    assert "tdiff team 0" in together
    apart = netcon("explain", file, "--in", *web, "--own-tag", "team=red", "--peer-tag", "team=blue").output
    assert "drop: no rule accepted it" in apart
    held = netcon("explain", file, "--in", *web, "--capability", "web").output
    assert "accept: rule 2, line 2 of capability web: accept" in held
    other = netcon("explain", file, "--in", "--packet", "udp 10.9.0.1:1 10.9.0.2:9", "--capability", "web").output
    assert "neither the network's rules nor a capability" in other


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        ("arp 10.9.0.1 10.9.0.2", "no rule"),
        ("ethertype 0x88cc", "rule 3"),
        ("icmp fd00::1 fd00::2 128", "rule 3"),
        ("icmp 10.9.0.1 10.9.0.2 8 0", "no rule"),
        ("ip 10.9.0.1 224.0.0.5 89", "no rule"),
        ("udp [fd00::1]:1 [fd00::2]:2", "rule 3"),
    ],
)
def test_packets_in_words(file: Path, packet: str, verdict: str) -> None:
    assert verdict in netcon("explain", file, "--packet", packet).output


@pytest.mark.parametrize(
    "packet", ["", "tcp 10.0.0.1 10.0.0.2", "tcp 1.2.3.4:1 [::1]:2", "tcp 1.2.3.4:1 1.2.3.4:1 fyn", "ethertype 70000"]
)
def test_packets_that_are_none(file: Path, packet: str) -> None:
    assert "Invalid value for --packet" in netcon("explain", file, "--packet", packet, code=2).output


def test_a_whole_frame(file: Path) -> None:
    frame = "3333000000010211111111110800" + "4500001400000000401100000a0900010a090002"
    assert "no rule" in netcon("explain", file, "--frame", frame).output
    assert "14 bytes" in netcon("explain", file, "--frame", "00", code=2).output
    assert "either" in netcon("explain", file, code=2).output


def test_the_configuration_of_a_member(tmp_path: Path) -> None:
    """As in networks.d: our tags, capabilities and addresses are in it."""
    controller, member = IDENTITIES[:2]
    network = controller.address << 24 | 1
    compiled = compile_rules("drop not teq 7 1 ; watch 100 deadbeef01 ; accept;")
    config = NetworkConfig(
        network,
        member.address,
        addresses=(Endpoint(bytes((10, 9, 0, 1)), 24),),
        rules=compiled.rules,
        tags=(Tag(network, 0, 7, 1, member.address),),
    )
    path = tmp_path / f"{network:016x}.conf"
    path.write_bytes(config.to_dictionary())
    words = ("explain", path, "--packet", "udp 10.9.0.1:1 10.9.0.2:2", "--peer-tag", "7=1")
    output = netcon(*words).output
    assert "accept: rule 4 of the network's rules: accept" in output
    assert "sent as well to deadbeef01: the first 32 bytes (EXT_FRAME flags 0x16)" in output
    assert "teq tag_7 1" in netcon("decompile", path).output
