"""`zerotier-cli`: what scripts around ZeroTier One expect to read (service-api §5)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netcon.service.detach import service_environment
from tests.service.running import RunningService, running_world

NETWORK = "1122334455445566"  # of a controller that nobody knows


class Lab(NamedTuple):
    root: RunningService
    member: RunningService
    network: str
    addresses: list[str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_world(tmp_path_factory.mktemp("zerotier"), 1) as (world, root, (member,)):
        network = world.make_network(root, v6AssignMode={"rfc4193": True, "6plane": True})
        yield Lab(root, member, network, world.join(root, member, network))


def cli(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "netcon.cli.zerotier_cli", *words]
    result = subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_info(lab: Lab) -> None:
    assert cli(f"-D{lab.member.home}", "info") == f"200 info {lab.member.address} 1.14.1 ONLINE\n"
    assert cli("-D", str(lab.member.home), "status").startswith("200 info ")
    assert json.loads(cli("-j", f"-D{lab.member.home}", "info"))["address"] == lab.member.address


def test_listnetworks(lab: Lab) -> None:
    header, line = cli(f"-D{lab.member.home}", "listnetworks").splitlines()
    assert header == "200 listnetworks <nwid> <name> <mac> <status> <type> <dev> <ZT assigned ips>"
    pattern = rf"200 listnetworks {lab.network} lab (..:){{5}}.. OK PRIVATE zt[a-z2-7]{{8}} \S+,\S+,\S+"
    assert re.fullmatch(pattern, line)


def test_listpeers_and_peers(lab: Lab) -> None:
    lines = cli(f"-D{lab.member.home}", "listpeers").splitlines()
    assert lines[0] == "200 listpeers <ztaddr> <path> <latency> <version> <role>"
    assert re.fullmatch(rf"200 listpeers {lab.root.address} 127\.0\.0\.1/\d+;\d+;\d+ \d+ 1\.14\.1 PLANET", lines[1])
    lines = cli(f"-D{lab.member.home}", "peers").splitlines()
    assert lines[:2] == ["200 peers", "<ztaddr>   <ver>  <role> <lat> <link>   <lastTX> <lastRX> <path>"]
    assert re.fullmatch(rf"{lab.root.address} 1\.14\.1 PLANET +\d+ DIRECT   \d+ +\d+ +127\.0\.0\.1/\d+", lines[2])


def test_join_set_get_and_leave(lab: Lab) -> None:
    home = f"-D{lab.member.home}"
    assert cli(home, "join", NETWORK) == "200 join OK\n"
    assert json.loads(cli(home, "set", NETWORK, "allowDefault=1"))["allowDefault"] is True
    assert cli(home, "get", NETWORK, "allowDefault") == "true\n"
    assert cli(home, "get", NETWORK, "status") == "REQUESTING_CONFIGURATION\n"
    assert cli(home, "leave", NETWORK) == "200 leave OK\n"


def test_get_addresses(lab: Lab) -> None:
    home = f"-D{lab.member.home}"
    assert sorted(cli(home, "get", lab.network, "ip").split()) == sorted(lab.addresses)
    assert cli(home, "get", lab.network, "ip4").strip() == lab.addresses[0]
    assert sorted(cli(home, "get", lab.network, "ip6").split()) == sorted(lab.addresses[1:])
    assert cli(home, "get", lab.network, "ip6plane").startswith("fc")


def test_a_path_is_passed_through(lab: Lab) -> None:
    assert json.loads(cli(f"-D{lab.member.home}", "/status"))["address"] == lab.member.address
    assert cli(f"-D{lab.member.home}", "/nowhere", code=1).startswith("404 /nowhere")


@pytest.mark.parametrize("words", [[], ["-x"], ["dance"], ["join"], ["join", "123"], ["set", NETWORK, "mtu=1"]])
def test_wrong_use_is_exit_code_2(lab: Lab, words: list[str]) -> None:
    cli(f"-D{lab.member.home}", *words, code=2)


def test_a_wrong_network_id_is_told_as_ever(lab: Lab) -> None:
    assert cli(f"-D{lab.member.home}", "join", "123", code=2) == "invalid network id\n"


def test_a_token_on_the_command_line_is_refused(lab: Lab) -> None:
    assert "seen by all users" in cli(f"-D{lab.member.home}", "-Tsecret", "info", code=2)


def test_without_a_service(tmp_path: Path) -> None:
    assert "zerotier-one.port not found" in cli(f"-D{tmp_path}", "info", code=2)
    (tmp_path / "zerotier-one.port").write_text("9")
    (tmp_path / "authtoken.secret").write_text("x")
    assert cli(f"-D{tmp_path}", "info", code=1).startswith("Error connecting to the ZeroTier service:")


def test_help_and_version_are_answers() -> None:
    assert cli("-h").startswith("zerotier-cli [switches] <command>")
    assert cli("-v") == "1.14.1\n"
