"""What programs see when their service dies or stops, and that they go on with the next one."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from netcon.service.detach import service_environment
from tests.integration.programs import command, find, output, server, wait_for_port
from tests.service.running import DEADLINE_S, RunningService, World, wait_for_addresses

#: Connects, says so, and tells how its connection ended.
_WAITING = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 8000), timeout=60)
connection.settimeout(60)
print("connected", flush=True)
try:
    print("data" if connection.recv(1) else "end of file", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
#: Accepts one connection and keeps it open.
_SERVING = """
import socket, time
listener = socket.create_server(("", 8000))
connections = []
while True:
    connections.append(listener.accept())
"""


def waiting_program(member: RunningService, network: str, address: str) -> subprocess.Popen[str]:
    words = command(member, network, find("python3"), "-c", _WAITING, address)
    process = subprocess.Popen(words, env=service_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    return process


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGKILL, {"end of file", "ConnectionResetError"}), (signal.SIGTERM, {"ConnectionResetError"})],
    ids=["killed", "stopped in order"],
)
def test_programs_notice_the_end_of_their_service_at_once(tmp_path: Path, number: signal.Signals, expected: set[str]) -> None:
    world = World(tmp_path, 2)
    with RunningService(world.root_home) as root, RunningService(world.homes[0]) as a:
        network = world.make_network(root)
        address, _ = world.join(root, a, network)
        with RunningService(world.homes[1]) as b:
            world.join(root, b, network)
            with server(a, network, find("python3"), "-c", _SERVING, log=tmp_path / "serving"):
                wait_for_port(b, network, address, 8000)
                with waiting_program(b, network, address) as program:
                    b.stop(number)
                    said, _ = program.communicate(timeout=DEADLINE_S)
        assert said.strip() in expected


def test_programs_work_with_a_service_that_was_killed_and_started_again(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("still here\n")
    with RunningService(world.root_home) as root, RunningService(world.homes[0]) as a, RunningService(world.homes[1]) as b:
        network = world.make_network(root)
        address, _ = world.join(root, a, network)
        addresses_b = world.join(root, b, network)
        with server(a, network, "python3", "-m", "http.server", "-d", str(site), "8000", log=tmp_path / "http"):
            wait_for_port(b, network, address, 8000)
            b.kill()
            with RunningService(world.homes[1]) as again:
                assert wait_for_addresses(again, network) == addresses_b
                wait_for_port(again, network, address, 8000)
                assert output(again, network, "curl", "-sS", "--fail", f"http://{address}:8000/") == b"still here\n"
