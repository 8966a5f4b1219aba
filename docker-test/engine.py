"""A Docker engine for the container tests: the one that runs already, or one of our own that leaves nothing behind.

Ours keeps images and state below one folder that the caller names, listens on a Unix socket in it, and is stopped, unmounted and
its bridge removed when the `with` block ends. Starting one needs root; talking to a running one needs only its socket.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker

DEFAULT_SOCKET = Path("/var/run/docker.sock")
#: A cold engine needs some seconds on a small machine; this is only the point at which waiting is given up.
START_TIMEOUT = 120.0


class EngineError(RuntimeError):
    """No engine runs and none could be started; the message says why and what to do."""


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[docker.DockerClient]:
    """A client of a working engine: the environment's if that answers, else one started in `folder`."""
    if "DOCKER_HOST" in os.environ or _answers(DEFAULT_SOCKET):
        client = docker.from_env()
        try:
            yield client
        finally:
            client.close()
        return
    with _own_engine(folder) as client:
        yield client


@contextlib.contextmanager
def _own_engine(folder: Path) -> Iterator[docker.DockerClient]:
    daemon = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/usr/local/sbin")
    if daemon is None:
        raise EngineError("no Docker engine answers and dockerd is not installed: apt-get install docker.io")
    if os.geteuid() != 0:
        raise EngineError("no Docker engine answers and only root can start one: run as root, or start the engine")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "docker.sock"
    # The log is outside what is swept at the end, so that a failed start can be read.
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                daemon,
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'dockerd.pid'}",
                f"--host=unix://{path}",
                "--live-restore=false",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    had_bridge = Path("/sys/class/net/docker0").exists()
    try:
        client = _connect(process, path, folder / "dockerd.log")
        try:
            yield client
        finally:
            client.close()
    finally:
        _stop(process)
        _sweep(folder)
        if not had_bridge:
            subprocess.run(["ip", "link", "delete", "docker0"], check=False, capture_output=True)


def _connect(process: subprocess.Popen[bytes], path: Path, log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(path):
            return docker.DockerClient(base_url=f"unix://{path}", timeout=120)
        time.sleep(0.1)  # the engine announces itself by nothing but its answer
    tail = log.read_text(errors="replace").splitlines()[-5:]
    raise EngineError("dockerd did not come up; its last words:\n" + "\n".join(tail))


def _answers(path: Path) -> bool:
    """Whether something listens on a Unix socket. (The Docker SDK leaks a descriptor when it asks in vain.)"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _sweep(folder: Path) -> None:
    """Unmount what the engine left mounted below `folder` (deepest first), then remove its state."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    shutil.rmtree(folder / "exec", ignore_errors=True)
