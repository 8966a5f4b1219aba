"""How a service starts, stops, dies and starts again; what it says when it cannot."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from netcon.service.client import Client, ServiceNotRunning
from netcon.service.detach import service_command, service_environment
from netcon.service.home import Home
from netcon.service.paths import rpc_socket, well_known_sockets
from netcon.service.socket_rpc import hello
from tests.service.running import RunningService, World, wait_for_addresses, wait_until

NETWORK = 0xC6AB4C729F123456


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, 1)


def refusal(home: Path, *options: str) -> str:
    """What a service says that cannot start."""
    command = service_command(home, None, *options)
    environment = service_environment() | {"NETCON_PLANET": "private"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr


# -- stopping --


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_nothing_is_left(world: World, number: int) -> None:
    home = world.root_home
    (home / "networks.d").mkdir()
    (home / "networks.d" / f"{NETWORK:016x}.conf").touch()
    with RunningService(home) as service:
        assert hello(well_known_sockets(NETWORK)[0]).service == Home(home).service_id()
        assert service.stop(number) == 0
    assert list((home / "run").iterdir()) == []
    assert not (home / "zerotier-one.pid").exists()
    assert not any(path.exists() for path in well_known_sockets(NETWORK))


def test_peers_are_remembered_at_a_stop(world: World) -> None:
    with RunningService(world.root_home) as root:
        with RunningService(world.homes[0]) as member:
            wait_until(lambda: member.client.get("/status")["online"], "the root")
        assert (world.homes[0] / "peers.d" / f"{root.address}.peer").stat().st_size > 71


def test_a_client_that_never_reads_does_not_hold_up_the_stop(world: World) -> None:
    with RunningService(world.root_home) as service:
        token = (world.root_home / "authtoken.secret").read_text()
        port = int((world.root_home / "zerotier-one.port").read_text())
        with socket.create_connection(("127.0.0.1", port)) as hog:
            hog.setblocking(False)
            request = f"GET /status HTTP/1.1\r\nHost: localhost\r\nX-ZT1-Auth: {token}\r\n\r\n".encode()
            for _ in range(20000):
                try:
                    hog.send(request)
                except BlockingIOError:
                    break
            assert service.stop() == 0


# -- a second one, and starting again --


def test_a_second_service_on_the_same_home_says_so(world: World) -> None:
    with RunningService(world.root_home) as service:
        said = refusal(world.root_home)
        assert f"another service (process {service.process.pid}) uses this home folder" in said
        assert service.client.get("/status")["online"] is True


def test_after_kill_9_the_service_starts_again_on_the_same_home_and_works(world: World) -> None:
    with RunningService(world.root_home) as root:
        with RunningService(world.homes[0]) as member:
            network = world.make_network(root)
            addresses = world.join(root, member, network)
            member.kill()
            assert rpc_socket(world.homes[0]).exists()  # left behind, dead
        with RunningService(world.homes[0]) as member:
            assert wait_for_addresses(member, network) == addresses
            assert hello(rpc_socket(world.homes[0], int(network, 16))).network == int(network, 16)


def test_a_killed_root_and_controller_comes_back_with_its_networks(world: World) -> None:
    with RunningService(world.root_home) as root:
        network = world.make_network(root)
        root.kill()
    with RunningService(world.root_home) as root, RunningService(world.homes[0]) as member:
        assert root.client.get("/controller/network") == [network]
        assert world.join(root, member, network)


def test_the_cached_configuration_serves_while_the_controller_is_away(world: World) -> None:
    with RunningService(world.root_home) as root, RunningService(world.homes[0]) as member:
        network = world.make_network(root)
        addresses = world.join(root, member, network)
    with RunningService(world.homes[0]) as member:
        assert wait_for_addresses(member, network) == addresses


def test_a_port_of_its_own_choice_is_kept_over_restarts(world: World) -> None:
    ports = set()
    for _ in range(2):
        with RunningService(world.homes[0]) as member:
            ports.add(member.client.get("/status")["config"]["settings"]["primaryPort"])
    assert len(ports) == 1


def test_a_network_that_was_left_is_not_joined_again(world: World) -> None:
    home = world.root_home
    with RunningService(home) as service:
        service.client.post(f"/network/{NETWORK:016x}", {})
        assert service.client.delete(f"/network/{NETWORK:016x}") == {"result": True}
    assert list((home / "networks.d").iterdir()) == []
    with RunningService(home) as service:
        assert service.client.get("/network") == []


# -- what it says when it cannot --


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("identity.secret", b"nonsense"),
        ("planet", b"nonsense"),
        ("local.conf", b"{"),
        ("service.id", b"nonsense"),
        ("authtoken.secret", b""),
        ("networks.d/c6ab4c729f123456.local.conf", b"allowManaged"),
    ],
)
def test_a_corrupt_home_gets_an_error_that_names_the_file(world: World, name: str, content: bytes) -> None:
    path = world.root_home / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    (world.root_home / "networks.d").mkdir(exist_ok=True)
    (world.root_home / "networks.d" / "c6ab4c729f123456.conf").touch()
    assert str(path) in refusal(world.root_home)


def test_a_corrupt_controller_store_is_named(world: World) -> None:
    folder = world.root_home / "controller.d"
    folder.mkdir()
    (folder / "controller.sqlite3").write_bytes(b"not a database, but long enough to be one" * 100)
    assert str(folder / "controller.sqlite3") in refusal(world.root_home)


def test_corrupt_caches_are_named_in_the_log_and_done_without(world: World) -> None:
    home = world.root_home
    for name in ("networks.d/c6ab4c729f123456.conf", "peers.d/0082915f5e.peer"):
        (home / name).parent.mkdir()
        (home / name).write_bytes(b"\x00\x01 nonsense")
    with RunningService(home) as service:
        assert service.client.get("/status")["online"] is True
        assert [network["id"] for network in service.client.get("/network")] == ["c6ab4c729f123456"]
        log = service.log.read_text()
    assert "networks.d/c6ab4c729f123456.conf: corrupt" in log
    assert "peers.d/0082915f5e.peer: corrupt" in log


def test_a_port_that_is_taken_says_what_to_do(world: World) -> None:
    port = json.loads((world.root_home / "local.conf").read_text())["settings"]["primaryPort"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        said = refusal(world.root_home)
    assert f"port {port}: Address already in use" in said
    assert "-p PORT" in said


def test_the_public_planet_is_refused_where_only_private_ones_are_allowed(world: World) -> None:
    (world.root_home / "planet").unlink()
    assert "NETCON_PLANET=private forbids the public planet" in refusal(world.root_home)


def test_nobody_answers_for_a_service_that_is_not_running(world: World) -> None:
    with RunningService(world.root_home):
        pass
    with Client(world.root_home) as client, pytest.raises(ServiceNotRunning, match="no service answers"):
        client.get("/status")


def test_leaving_and_joining_again_at_once_stays_joined(world: World) -> None:
    home = world.root_home
    with RunningService(home) as service:
        for _ in range(20):
            service.client.post(f"/network/{NETWORK:016x}", {})
            service.client.delete(f"/network/{NETWORK:016x}")
        service.client.post(f"/network/{NETWORK:016x}", {})
    assert [path.name for path in (home / "networks.d").glob("*[0-9a-f].conf")] == [f"{NETWORK:016x}.conf"]
