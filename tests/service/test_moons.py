"""Moons with running services: made by command, brought by a seed, kept over a restart, forgotten (vl1 §6, service-api §3.6)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from netcon.cli.main import main
from netcon.core.world import World as MoonFile
from tests.service.running import RunningService, World, wait_until
from tests.service.support import IDENTITIES, free_port, make_home


def netcon(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_a_moon_is_made_orbited_kept_and_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    seed, port = IDENTITIES[2], free_port()
    seed_home = make_home(tmp_path / "seed", seed, MoonFile.parse((world.root_home / "planet").read_bytes()), port=port)
    public = tmp_path / "seed.public"
    public.write_text(seed.to_text())
    moon, address = f"{seed.address:016x}", f"{seed.address:010x}"
    file = seed_home / "moons.d" / f"{moon}.moon"
    file.parent.mkdir()
    words = ("world", "make", "--moon", "--root", f"{public}=127.0.0.1/{port}", "--key", tmp_path / "moon.key", "-o", file)
    assert f"world {moon} with 1 root" in netcon(*words)
    assert f"moon {moon}" in netcon("world", "show", file)
    with RunningService(world.root_home), RunningService(seed_home) as seed_service:
        assert seed_service.client.get(f"/moon/{moon}")["waiting"] is False
        home = world.homes[0]
        with RunningService(home) as member:
            assert member.client.get("/moon") == []
            assert netcon("-D", home, "orbit", moon, address) in (f"{moon} WAITING\n", f"{moon} OK\n")
            wait_until(lambda: not member.client.get(f"/moon/{moon}")["waiting"], "the moon")
            state = member.client.get(f"/moon/{moon}")
            assert state["roots"] == [{"identity": seed.to_text(), "stableEndpoints": [f"127.0.0.1/{port}"]}]
            assert state["timestamp"] == MoonFile.parse(file.read_bytes()).timestamp
            wait_until((home / "moons.d" / f"{moon}.moon").exists, "the moon's file")
            roles = {peer["address"]: peer["role"] for peer in member.client.get("/peer")}
            assert roles[address] == "MOON"
            assert netcon("-D", home, "moons").splitlines()[1].split() == [moon, "OK", str(state["timestamp"]), address]
        with RunningService(home) as member:
            assert member.client.get("/moon")[0]["id"] == moon
            netcon("-D", home, "deorbit", moon)
            assert member.client.get("/moon") == []
            wait_until(lambda: not (home / "moons.d" / f"{moon}.moon").exists(), "the end of the moon's file")
            # Its file makes a node orbit it without a seed.
            (home / "moons.d" / f"{moon}.moon").write_bytes(file.read_bytes())
            assert netcon("-D", home, "orbit", address) == f"{moon} OK\n"
            assert json.loads(netcon("-D", home, "moons", "--json"))[0]["waiting"] is False


def test_a_moon_that_did_not_come_yet_is_waited_for_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    home, moon = world.homes[0], f"{0xDEADBEEF01:016x}"
    with RunningService(home) as member:
        assert netcon("-D", home, "orbit", moon, "deadbeef01") == f"{moon} WAITING\n"
        member.kill()
    with RunningService(home) as member:
        assert [(state["id"], state["waiting"]) for state in member.client.get("/moon")] == [(moon, True)]
        netcon("-D", home, "deorbit", moon)
    (home / "moons.d" / "00000000deadbeef.seed").write_text("nobody")
    with RunningService(home) as member:
        assert member.client.get("/moon") == []
        assert "00000000deadbeef.seed: not a node address" in member.log.read_text()


@pytest.mark.parametrize("data", [b"", b"nonsense"])
def test_a_corrupt_moon_file_does_not_stop_the_start(tmp_path: Path, data: bytes) -> None:
    world = World(tmp_path, 0)
    path = world.root_home / "moons.d" / "00000000deadbeef.moon"
    path.parent.mkdir()
    path.write_bytes(data)
    with RunningService(world.root_home) as service:
        assert service.client.get("/moon") == []
    assert f"{path}: not orbited" in service.log.read_text()
