"""`netcon service -d`: returns success only when programs can use the service, and says why when they cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.service.detach import service_environment
from netcon.service.paths import rpc_socket
from netcon.service.socket_rpc import hello
from tests.service.running import RunningService, World

NETWORK = 0xC6AB4C729F654321


def netcon(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "netcon.cli.main", *words]
    environment = service_environment() | {"NETCON_PLANET": "private"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, 1)
    yield made
    for home in (made.root_home, *made.homes):
        netcon("-D", str(home), "stop")


def test_success_means_that_the_sockets_of_all_networks_answer(world: World) -> None:
    home = world.root_home
    (home / "networks.d").mkdir()
    for network in (NETWORK, NETWORK + 1):
        (home / "networks.d" / f"{network:016x}.conf").touch()
    result = netcon("service", "-d", str(home))
    assert result.returncode == 0, result.stderr
    assert hello(rpc_socket(home, NETWORK)).network == NETWORK
    assert hello(rpc_socket(home, NETWORK + 1)).network == NETWORK + 1

    stopped = netcon("-D", str(home), "stop")
    assert stopped.returncode == 0, stopped.stderr
    with pytest.raises(OSError):
        hello(rpc_socket(home, NETWORK))
    again = netcon("-D", str(home), "stop")
    assert again.returncode == 1
    assert "no service runs on" in again.stderr


def test_the_service_in_the_background_holds_nothing_of_its_starter(world: World) -> None:
    assert netcon("service", "-d", str(world.root_home)).returncode == 0  # would hang if it kept our pipes
    process = int((world.root_home / "zerotier-one.pid").read_text())
    assert os.getsid(process) == process
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    assert os.readlink(f"/proc/{process}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{process}/fd/2") == str(world.root_home / "netcon.log")


def test_wait_address_waits_for_addresses(world: World) -> None:
    member = world.homes[0]
    with RunningService(world.root_home) as root:
        network = world.make_network(root)
        root.client.post(f"/controller/network/{network}/member/{member_address(member)}", {"authorized": True})
        (member / "networks.d").mkdir()
        (member / "networks.d" / f"{network}.conf").touch()
        result = netcon("service", "-d", "--wait-address", str(member))
        assert result.returncode == 0, result.stderr
        networks = json.loads(netcon("-D", str(member), "networks", "--json").stdout)
        assert networks[0]["assignedAddresses"]
        assert netcon("-D", str(member), "stop").returncode == 0


def test_no_address_in_time_is_a_failure_and_nothing_runs(world: World) -> None:
    member = world.homes[0]
    with RunningService(world.root_home) as root:
        network = world.make_network(root)
        (member / "networks.d").mkdir()
        (member / "networks.d" / f"{network}.conf").touch()
        result = netcon("service", "-d", "--wait-address", "--timeout", "3", str(member))
    assert result.returncode == 1
    assert f"network {network} has no address" in result.stderr
    assert "authorised" in result.stderr
    assert "no service runs on" in netcon("-D", str(member), "stop").stderr


def test_a_service_that_cannot_start_is_a_failure_with_its_reason(world: World) -> None:
    (world.root_home / "identity.secret").write_text("nonsense")
    result = netcon("service", "-d", str(world.root_home))
    assert result.returncode == 1
    assert f"netcon: {world.root_home / 'identity.secret'}: not an identity" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_one_is_a_failure_and_the_first_goes_on(world: World) -> None:
    home = str(world.root_home)
    assert netcon("service", "-d", home).returncode == 0
    second = netcon("service", "-d", home)
    assert second.returncode == 1
    assert "uses this home folder" in second.stderr
    assert netcon("-D", home, "info").returncode == 0


def test_a_taken_port_is_told(world: World) -> None:
    port = json.loads((world.root_home / "local.conf").read_text())["settings"]["primaryPort"]
    (world.root_home / "identity.secret").chmod(0o644)  # a warning comes before the error
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        result = netcon("service", "-d", str(world.root_home))
        assert result.returncode == 1
        assert result.stderr.startswith(f"netcon: port {port}: Address already in use")
        assert netcon("service", "-d", "-p", "0", str(world.root_home)).returncode == 0


def test_stop_takes_the_home_folder_as_service_does(world: World) -> None:
    assert netcon("service", "-d", str(world.root_home)).returncode == 0
    assert netcon("stop", str(world.root_home)).returncode == 0
    assert "no service runs on" in netcon("stop", str(world.root_home)).stderr


def test_wait_address_without_d_is_a_usage_error(world: World) -> None:
    assert netcon("service", "--wait-address", str(world.root_home)).returncode == 2


def test_the_names_of_the_original_work_start_it_too(world: World) -> None:
    script = "import sys; sys.argv[0] = 'zerotier-netcon-service'; from netcon.cli.main import service_main; service_main()"
    command = [sys.executable, "-P", "-c", script, "-d", str(world.root_home)]
    result = subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert netcon("-D", str(world.root_home), "info").stdout.endswith("ONLINE\n")


def member_address(home: Path) -> str:
    return (home / "identity.secret").read_text()[:10]
