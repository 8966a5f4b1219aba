"""Unmodified programs under the intercept, started as a user would: through `netcon run`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from netcon.service.detach import service_environment
from tests.service.running import RunningService, wait_until

TIMEOUT_S = 120


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    assert path is not None, f"{program} is missing; `make install-test-tools` installs it"
    return path


def command(member: RunningService, network: str, *words: str) -> list[str]:
    netcon = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(member.home)]
    program = words[0] if "/" in words[0] else find(words[0])
    return [*member.prefix, *netcon, "run", "--network", network, program, *words[1:]]


@contextlib.contextmanager
def server(member: RunningService, network: str, *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the test is over, in a process group of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(member, network, *words),
            env=service_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def run(member: RunningService, network: str, *words: str, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(member, network, *words),
        env=service_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def output(member: RunningService, network: str, *words: str, timeout: float = TIMEOUT_S) -> bytes:
    """What the program prints; it must succeed."""
    result = run(member, network, *words, timeout=timeout)
    assert result.returncode == 0, f"{words}: {result.returncode}, {result.stderr.decode(errors='replace')}"
    return result.stdout


def wait_for_port(member: RunningService, network: str, host: str, port: int) -> None:
    """Until something listens on `host`:`port` of the network, as seen from `member`."""
    script = f"import socket; socket.create_connection(({host!r}, {port}), timeout=5).close()"
    words = (find("python3"), "-c", script)
    wait_until(lambda: run(member, network, *words).returncode == 0, f"a listener on {host} port {port}")
