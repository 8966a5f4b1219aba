"""The commands against a running service: what they print, their exit codes, and that errors tell what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from netcon.cli.main import COMMANDS, main
from netcon.service.detach import service_environment
from tests.service.running import RunningService, World, running_world

NETWORK = "1122334455112233"  # of a controller that nobody knows
STRANGER = "0082915f5e"


class Lab(NamedTuple):
    world: World
    root: RunningService
    member: RunningService
    network: str


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_world(tmp_path_factory.mktemp("cli"), 1) as (world, root, (member,)):
        network = world.make_network(root)
        world.join(root, member, network)
        yield Lab(world, root, member, network)


def netcon(service: RunningService, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["-D", str(service.home), *words])
    assert result.exit_code == code, result.output
    return result


# -- the node --


def test_info(lab: Lab) -> None:
    assert netcon(lab.member, "info").output == f"{lab.member.address} 1.14.1 ONLINE\n"
    assert json.loads(netcon(lab.member, "info", "--json").output)["address"] == lab.member.address


def test_status_shows_node_networks_and_peers(lab: Lab) -> None:
    output = netcon(lab.member, "status").output
    assert lab.member.address in output
    assert lab.network in output
    assert lab.root.address in output
    assert set(json.loads(netcon(lab.member, "status", "--json").output)) == {"status", "networks", "peers"}


def test_networks(lab: Lab) -> None:
    lines = netcon(lab.member, "networks").output.splitlines()
    assert lines[0].split() == ["NETWORK", "NAME", "STATUS", "TYPE", "MAC", "PORT", "ADDRESSES", "DOMAIN"]
    assert lines[1].split()[:4] == [lab.network, "lab", "OK", "PRIVATE"]


def test_peers(lab: Lab) -> None:
    lines = netcon(lab.member, "peers").output.splitlines()
    root = next(line.split() for line in lines if line.startswith(lab.root.address))
    assert root[1] == "PLANET"
    assert root[-1].startswith("127.0.0.1/")


def test_the_home_folder_may_be_named_after_the_command_too(lab: Lab) -> None:
    result = CliRunner().invoke(main, ["info", "-D", str(lab.member.home)])
    assert result.output.startswith(lab.member.address)


def test_the_home_folder_may_come_from_the_environment(lab: Lab) -> None:
    result = CliRunner().invoke(main, ["info"], env={"NETCON_HOME": str(lab.member.home)})
    assert result.output.startswith(lab.member.address)


def test_join_and_leave(lab: Lab) -> None:
    assert netcon(lab.member, "join", NETWORK).output == f"{NETWORK} REQUESTING_CONFIGURATION -\n"
    assert netcon(lab.member, "leave", NETWORK).output == ""
    assert "was not joined" in netcon(lab.member, "leave", NETWORK, code=1).output


def test_join_with_wait_says_who_must_authorise_whom(lab: Lab) -> None:
    output = netcon(lab.member, "join", NETWORK, "--wait", "0", code=1).output
    assert "gave no address" in output
    assert f"authorise member {lab.member.address}" in output
    netcon(lab.member, "leave", NETWORK)


@pytest.mark.parametrize("text", ["", "123", NETWORK + "0", "x" * 16, "+" + NETWORK[1:]])
def test_a_wrong_network_id_is_a_usage_error(lab: Lab, text: str) -> None:
    assert "16 hexadecimal digits" in netcon(lab.member, "join", text, code=2).output


def test_without_a_service_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["-D", str(tmp_path), "info"])
    assert result.exit_code == 1
    assert f"netcon -D {tmp_path} service -d" in result.output


# -- the controller --


def test_a_home_folder_that_cannot_be_looked_into_is_told(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 300)
    result = CliRunner().invoke(main, ["-D", str(home), "info"])
    assert result.exit_code == 1
    assert "File name too long" in result.output


def test_the_service_of_another_user_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as denied:
        denied.setattr(Path, "stat", refuse)
        result = CliRunner().invoke(main, ["-D", str(tmp_path), "info"])
    assert result.exit_code == 1
    assert "only the service's own user can ask it" in result.output


def test_a_network_is_made_changed_and_deleted(lab: Lab) -> None:
    made = netcon(lab.root, "controller", "network", "create", "--name", "x", "--subnet", "10.5.0.0/24", "--rfc4193").output.strip()
    record = json.loads(netcon(lab.root, "controller", "network", "show", made).output)
    assert record["routes"] == [{"target": "10.5.0.0/24", "via": None}]
    assert record["ipAssignmentPools"] == [{"ipRangeStart": "10.5.0.1", "ipRangeEnd": "10.5.0.254"}]
    assert record["v6AssignMode"]["rfc4193"] is True
    changed = json.loads(netcon(lab.root, "controller", "network", "set", made, "mtu=1500", "name=y").output)
    assert (changed["mtu"], changed["name"]) == (1500, "y")
    assert made in netcon(lab.root, "controller", "network", "list").output
    netcon(lab.root, "controller", "network", "delete", made)
    assert "no network" in netcon(lab.root, "controller", "network", "show", made, code=1).output


def test_an_unknown_key_is_an_error_not_ignored(lab: Lab) -> None:
    assert "unknown key mut" in netcon(lab.root, "controller", "network", "set", lab.network, "mut=1500", code=1).output


def test_a_wrong_subnet_is_a_usage_error(lab: Lab) -> None:
    assert "10.9.0.0/24" in netcon(lab.root, "controller", "network", "create", "--subnet", "10.5.0.1/24", code=2).output


def test_members(lab: Lab) -> None:
    controller = ("controller", "member")
    netcon(lab.root, *controller, "authorize", lab.network, STRANGER)
    assert [STRANGER, "yes", "-", "-"] in [
        line.split() for line in netcon(lab.root, *controller, "list", lab.network).output.splitlines()
    ]
    netcon(lab.root, *controller, "set", lab.network, STRANGER, 'ipAssignments=["10.147.0.99"]')
    record = json.loads(netcon(lab.root, *controller, "show", lab.network, STRANGER).output)
    assert record["ipAssignments"] == ["10.147.0.99"]
    netcon(lab.root, *controller, "deauthorize", lab.network, STRANGER)
    assert json.loads(netcon(lab.root, *controller, "show", lab.network, STRANGER).output)["authorized"] is False
    netcon(lab.root, *controller, "delete", lab.network, STRANGER)
    assert "has no member" in netcon(lab.root, *controller, "show", lab.network, STRANGER, code=1).output


# -- help, start-up --


def test_every_command_has_help_that_says_something() -> None:
    for command in COMMANDS:
        result = CliRunner().invoke(main, [command, "--help"])
        assert result.exit_code == 0
        assert result.output.count("\n") > 5
    overview = CliRunner().invoke(main, ["--help"]).output
    for command in COMMANDS:
        assert f"\n  {command} " in overview


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["jion"]).exit_code == 2


def test_run_imports_nothing_slow() -> None:
    script = "import sys, netcon.cli.run, netcon.cli.main; print(sorted({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-P", "-c", script]
    output = subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=True).stdout
    for slow in ("trio", "starlette", "hypercorn", "httpx", "msgspec", "rich", "lwip", "sqlite3"):
        assert f"'{slow}'" not in output


# -- run --


def run(service: RunningService, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(service.home), "run", *words]
    return subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=False)


def test_run_becomes_the_program_with_its_own_options(lab: Lab) -> None:
    result = run(lab.member, "--network", lab.network, "sh", "-c", "echo $ZT_NC_NWID $NETCON_SOCK; exit 7")
    assert result.returncode == 7
    assert result.stdout == f"{lab.network} {lab.member.home / 'run' / (lab.network + '.sock')}\n"


def test_run_on_a_network_that_is_not_joined_says_how_to_join(lab: Lab) -> None:
    result = run(lab.member, "--network", NETWORK, "true")
    assert result.returncode == 1
    assert f"join {NETWORK}" in result.stderr


def test_run_has_a_shells_exit_codes(lab: Lab) -> None:
    assert run(lab.member, "no-such-program").returncode == 127
    assert run(lab.member, "/etc/passwd").returncode == 126


def test_run_refuses_a_program_that_would_escape(lab: Lab) -> None:
    result = run(lab.member, "/sbin/ldconfig")
    assert result.returncode == 126
    assert "statically linked" in result.stderr


def test_run_without_a_service_says_how_to_start_one(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(tmp_path), "run", "true"]
    result = subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "service -d" in result.stderr


def test_zerotier_intercept_takes_the_network_from_the_environment(lab: Lab) -> None:
    script = "from netcon.cli.main import intercept_main; intercept_main()"
    environment = service_environment() | {"ZT_NC_NWID": lab.network, "NETCON_HOME": str(lab.member.home)}
    command = [sys.executable, "-P", "-c", script, "sh", "-c", "echo $LD_PRELOAD $ZT_NC_NWID"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.split()[0].endswith("libnetcon-intercept.so")
    assert result.stdout.split()[1] == lab.network
