"""Programs under the intercept library: how tests start them, and the two services against which they run.

Each behaviour is tested twice: with a fake service, which proves the library alone, and with the real socket server on lwIP.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from netcon import intercept
from tests.standalone import StandaloneService

HERE = Path(__file__).parent
ADDRESS, ADDRESS6 = "10.77.0.1", "fd77::1"
SILENT = "10.77.0.99"
"""An address that never answers."""
PATIENCE = 60.0


@dataclass(frozen=True)
class Service:
    """A running service and the ways to start programs on it."""

    path: str
    kind: str

    def environment(self, **more: str) -> dict[str, str]:
        return {**intercept.run_environment(socket_path=self.path), "PYTHONUNBUFFERED": "1", **more}

    def run(self, arguments: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, env=self.environment(**more), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def python(self, code: str, *arguments: str) -> str:
        """Runs a Python program under the library; returns what it printed. Fails if it failed."""
        done = self.run([sys.executable, "-c", PRELUDE + code, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def succeeds(self, *arguments: str) -> str:
        done = self.run(arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, arguments: Sequence[str], *, folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A server, ended with the block."""
        process = subprocess.Popen(
            arguments, env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


PRELUDE = f"""
import array, contextlib, errno, fcntl, os, select, signal, socket, struct, sys, threading
ADDRESS, ADDRESS6, SILENT = {ADDRESS!r}, {ADDRESS6!r}, {SILENT!r}
def listener(address=ADDRESS, backlog=16):
    made = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
    made.bind((address, 0))
    made.listen(backlog)
    return made
def connection(address=ADDRESS):
    waiting = listener(address)
    client = socket.socket(waiting.family)
    client.connect(waiting.getsockname())
    server, _ = waiting.accept()
    return client, server
def error(call, *arguments):
    try:
        call(*arguments)
    except OSError as failure:
        return errno.errorcode[failure.errno]
    return 'OK'
"""


@pytest.fixture(scope="session")
def library() -> Path:
    return intercept.library_path()


@contextlib.contextmanager
def fake_service(path: Path) -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_service.py"), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdin, process.stdout:
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert readable
        assert process.stdout.readline() == "READY\n"
        yield Service(str(path), "fake")
        process.stdin.close()
        process.wait(PATIENCE)


@pytest.fixture(scope="session", params=["fake", "lwip"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    if request.param == "fake":
        with fake_service(folder / "rpc.sock") as running:
            yield running
    else:
        with StandaloneService(folder, [f"{ADDRESS}/24", f"{ADDRESS6}/64"]) as running:
            yield Service(running.path, "lwip")


@pytest.fixture(scope="session")
def real_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with StandaloneService(tmp_path_factory.mktemp("real"), [f"{ADDRESS}/24", f"{ADDRESS6}/64"]) as running:
        yield Service(running.path, "lwip")


@pytest.fixture(scope="session", params=["gcc", "musl-gcc"])
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """probe.c, built for glibc and for musl: one library serves both."""
    target = tmp_path_factory.mktemp("probe") / f"probe-{request.param}"
    source = HERE / "programs" / "probe.c"
    subprocess.run([request.param, "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source), "-pthread"], check=True)
    os.chmod(target.parent, 0o755)
    return str(target)
