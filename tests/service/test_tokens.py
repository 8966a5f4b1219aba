"""Join tokens and memberships that end, with running services and the commands that users have."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from netcon.cli.main import main
from tests.service.running import RunningService, World, running_world, wait_for_addresses, wait_until

WRONG = "wrong-wrong-wrong-wrong"


def netcon(service: RunningService, *words: object, code: int = 0, env: dict[str, str] | None = None) -> str:
    result = CliRunner(env=env).invoke(main, ["-D", str(service.home), *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def status(member: RunningService, network: str) -> str:
    return str(member.client.get(f"/network/{network}")["status"])


def test_a_token_lets_a_node_in_and_is_forgotten(tmp_path: Path) -> None:
    with running_world(tmp_path, 2) as (world, root, (first, second)):
        network = world.make_network(root)
        token = netcon(root, "controller", "token", "create", network, "--uses", 1, "--name", "ci", "--expires", "1h").strip()
        file = world.homes[0] / "networks.d" / f"{network}.token"

        assert "must authorise" in netcon(first, "join", network, "--wait", 3, "--token", WRONG, code=1)
        wait_until(lambda: status(first, network) == "ACCESS_DENIED", "refusal")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == WRONG

        netcon(first, "join", network, "--wait", 30, "--token", token)
        wait_until(lambda: not file.exists(), "the end of the token's file")
        (record,) = json.loads(netcon(root, "controller", "token", "list", network, "--json"))
        assert (record["uses"], record["state"]) == (1, "used up")
        assert netcon(root, "controller", "token", "list", network).split()[5:10] == [record["id"], "ci", "USED", "UP", "1/1"]
        assert token not in netcon(root, "controller", "member", "show", network, first.address)

        # Used up; and from the environment.
        netcon(second, "join", network, env={"NETCON_JOIN_TOKEN": token})
        wait_until(lambda: status(second, network) == "ACCESS_DENIED", "refusal")
        another = netcon(root, "controller", "token", "create", network).strip()
        netcon(second, "join", network, "--wait", 30, env={"NETCON_JOIN_TOKEN": another})
        used = [record["id"] for record in json.loads(netcon(root, "controller", "token", "list", network, "--json"))]
        for number in used:
            netcon(root, "controller", "token", "revoke", network, number)
        assert "has no token" in netcon(root, "controller", "token", "revoke", network, used[0], code=1)
        assert "no network" in netcon(root, "controller", "token", "create", "1122334455112233", code=1)
        assert "is not a duration" in netcon(root, "controller", "token", "create", network, "--expires", "soon", code=2)


def test_a_token_outlives_a_restart_until_the_controller_is_there(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    with RunningService(world.root_home) as root:
        network = world.make_network(root)
        token = netcon(root, "controller", "token", "create", network).strip()
    with RunningService(world.homes[0]) as member:
        netcon(member, "join", network, "--token", token)
        member.kill()
    with RunningService(world.root_home), RunningService(world.homes[0]) as member:
        assert wait_for_addresses(member, network)
    assert not (world.homes[0] / "networks.d" / f"{network}.token").exists()


@pytest.mark.parametrize("token", ["with space", "x" * 300])
def test_what_is_no_token_is_refused(tmp_path: Path, token: str) -> None:
    with running_world(tmp_path, 0) as (world, root, _):
        assert "no join token" in netcon(root, "join", world.make_network(root), "--token", token, code=1)
        assert root.client.get("/network") == []


def test_a_membership_that_ends(tmp_path: Path) -> None:
    with running_world(tmp_path, 1) as (world, root, (member,)):
        network = world.make_network(root)
        netcon(root, "controller", "member", "authorize", network, member.address, "--expires", "3s")
        netcon(member, "join", network, "--wait", 30)
        rows = netcon(root, "controller", "member", "list", network).splitlines()
        assert rows[0].split() == ["MEMBER", "AUTHORIZED", "UNTIL", "ADDRESSES"]
        path = f"/controller/network/{network}/member/{member.address}"
        wait_until(lambda: not root.client.get(path)["authorized"], "the end of the membership")
        netcon(root, "controller", "member", "authorize", network, member.address, "--expires", "never")
        assert root.client.get(path)["authorizedUntil"] == 0
        netcon(root, "controller", "member", "set", network, member.address, "authorizedUntil=1", "name=guest")
        wait_until(lambda: not root.client.get(path)["authorized"], "the end of the membership")
