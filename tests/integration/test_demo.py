"""`netcon demo`: it succeeds, as an unprivileged user, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netcon.service.detach import service_environment
from tests.service.running import wait_until

TIMEOUT_S = 240


def start(*options: str) -> subprocess.Popen[str]:
    """From the installed prefix if there is one, for the user it becomes must be able to read it."""
    prefix = os.environ.get("NETCON_PREFIX")
    command = [f"{prefix}/bin/netcon"] if prefix else [sys.executable, "-P", "-m", "netcon.cli.main"]
    environment = dict(os.environ) if prefix else service_environment()
    return subprocess.Popen(
        [*command, "demo", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_about(folder: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(process / "cwd")
        except OSError:
            continue
        if folder in command or where.startswith(folder):
            found.append(command)
    return found


def assert_nothing_is_left(folder: str, output: str) -> None:
    assert not Path(folder).exists()
    wait_until(lambda: not processes_about(folder), "the end of the last process")
    network = re.search(r"private network ([0-9a-f]{16})", output)
    if network:
        assert not Path(f"/tmp/.ztnc_{network[1]}").exists()


def test_the_demo_succeeds_without_privilege_and_leaves_nothing() -> None:
    process = start("--megabytes", "20")
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert "user id 0" not in output
    for said in (
        "Hello from nginx",
        "20 MB from nginx to curl",
        "SHA-256 equal",
        "http.server",
        "redis-cli",
        "nothing is left behind",
    ):
        assert said in output
    folder = re.search(r"in (/\S+/netcon-demo-\S+)", output)
    assert folder is not None
    assert_nothing_is_left(folder[1], output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("said", ["Everything runs as", "Starting three", "Member a", "Hello from nginx", "http.server"])
def test_an_interrupt_at_any_point_leaves_nothing(said: str, number: signal.Signals) -> None:
    process = start("--megabytes", "20")
    output = ""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            output += line
            if said in line:
                process.send_signal(number)
                break
        output += process.stdout.read()
        process.wait(TIMEOUT_S)
    assert process.returncode == 1, output
    assert f"interrupted by {number.name}" in output
    assert "Traceback" not in output
    folder = re.search(r"in (/\S+/netcon-demo-\S+)", output)
    assert folder is not None
    assert_nothing_is_left(folder[1], output)
