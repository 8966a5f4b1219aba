"""`netcon trace`: a program's calls as lines, its exit code, its children."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netcon.service.detach import service_environment
from tests.service.running import RunningService, running_world

DEADLINE_S = 60


class Lab(NamedTuple):
    member: RunningService
    network: str
    address: str


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_world(tmp_path_factory.mktemp("trace"), 1) as (world, root, (member,)):
        network = world.make_network(root)
        yield Lab(member, network, world.join(root, member, network)[0])


def command(lab: Lab, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(lab.member.home), "trace", *words]


def trace(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(lab, *words), env=service_environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_each_call_has_a_line_with_decision_and_result(lab: Lab, tmp_path: Path) -> None:
    script = f"""
import socket
listener = socket.create_server(({lab.address!r}, 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.sendall(b"hello"); server.recv(5)
socket.create_server(("127.0.0.1", 0))
socket.socket().connect_ex(({lab.address!r}, 9))
"""
    output = tmp_path / "calls"
    done = trace(lab, "-o", str(output), "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    calls = output.read_text()
    where = rf"\[network {lab.network}, \d+\.\d ms\]"
    for pattern in (
        r"socket\(AF_INET, SOCK_STREAM\|SOCK_CLOEXEC, \d+\) = \d+ \[network, \d+\.\d ms\]",
        rf"bind\(\d+, {lab.address}:0\) = 0 \[",
        rf"listen\(\d+, \d+\) = 0 {where}",
        rf"connect\(\d+, {lab.address}:\d+\) = 0 {where}",
        rf"accept4\(\d+, {lab.address}:\d+, SOCK_CLOEXEC\) = \d+ {where}",
        rf"sendto\(\d+, 5, 0\) = 5 {where}",
        r"bind\(\d+, 127.0.0.1:0\) = 0 \[host: loopback, ",
        rf"connect\(\d+, {lab.address}:9\) = -1 ECONNREFUSED \(Connection refused\) \[network",
    ):
        assert re.search(rf"^\d+ {pattern}", calls, re.MULTILINE), f"{pattern} in\n{calls}"


def test_children_are_traced_to_their_end_and_the_exit_code_is_the_programs(lab: Lab) -> None:
    done = trace(lab, "sh", "-c", f"{sys.executable} -c 'import socket; socket.socket()' & sleep 0; exit 7")
    assert done.returncode == 7
    assert "execve(" in done.stderr
    assert "socket(AF_INET, " in done.stderr


def test_a_program_that_a_signal_ends(lab: Lab) -> None:
    code = f"import socket, os, threading; l = socket.create_server(({lab.address!r}, 0)); "
    code += "threading.Timer(0.1, lambda: os.kill(os.getpid(), 15)).start(); l.accept()"
    done = trace(lab, sys.executable, "-c", code)
    assert done.returncode == 128 + signal.SIGTERM
    assert re.search(r"accept4\(\d+, NULL, SOCK_CLOEXEC\) = \? <unfinished …>$", done.stderr, re.MULTILINE)


def test_all_shows_what_is_no_internet_socket(lab: Lab) -> None:
    script = "import socket; a, b = socket.socketpair(); a.send(b'x')"
    assert "sendto" not in trace(lab, sys.executable, "-c", script).stderr
    assert "[not an internet socket, " in trace(lab, "-a", sys.executable, "-c", script).stderr


def test_a_program_that_would_ignore_the_library_is_refused(lab: Lab, tmp_path: Path) -> None:
    assert trace(lab, str(tmp_path / "nothing")).returncode == 127
    assert trace(lab, str(tmp_path)).returncode == 126
