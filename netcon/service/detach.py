"""`netcon service -d`: starts the service in the background, and returns when it can be used or has failed.

The service is a new process, not a fork of this one: no thread, lock or descriptor of ours is in it. It writes one byte to a pipe
when it answers; then this process asks the RPC paths itself, as a program would.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import netcon
from netcon.service.client import Client
from netcon.service.errors import ServiceError
from netcon.service.home import Home
from netcon.service.paths import rpc_socket, well_known_sockets
from netcon.service.socket_rpc import hello

LOG_NAME = "netcon.log"
_STOP_SECONDS = 10
_POLL_SECONDS = 0.1


def service_command(home: Path, port: int | None, *more: str) -> list[str]:
    """The command that runs a service on `home` with this very interpreter and package."""
    command = [sys.executable, "-P", "-m", "netcon.service", str(home), *more]
    return command if port is None else [*command, "--port", str(port)]


def service_environment() -> dict[str, str]:
    """So that the interpreter finds this package wherever it was started from. The service never goes through the intercept."""
    package = str(Path(netcon.__file__).parent.parent)
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return environment


def start_detached(path: Path, *, port: int | None = None, wait_address: bool = False, timeout: float = 30) -> int:
    """Start a service on home folder `path` and return its process id. ServiceError says why it failed; nothing runs then."""
    home = Home(path)
    log = home.path / LOG_NAME
    deadline = time.monotonic() + timeout
    read_end, write_end = os.pipe()
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as log_file:
            log_start = log_file.tell() or log.stat().st_size
            process = subprocess.Popen(
                service_command(home.path, port, "--ready-fd", str(write_end)),
                env=service_environment(),
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )
    finally:
        os.close(write_end)
    try:
        _wait_until_ready(read_end, process, deadline, timeout, log, log_start)
        _wait_until_usable(home, wait_address, deadline, timeout)
    except BaseException:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        os.close(read_end)
    process.returncode = 0  # it lives on; keeps Popen from warning about that
    return process.pid


def _wait_until_ready(
    read_end: int, process: subprocess.Popen[bytes], deadline: float, timeout: float, log: Path, log_start: int
) -> None:
    readable, _, _ = select.select([read_end], [], [], max(deadline - time.monotonic(), 0))
    if not readable:
        raise ServiceError(f"the service did not start within {timeout:g} s and was stopped; see {log}")
    if not os.read(read_end, 1):
        process.wait()
        with log.open("rb") as file:
            file.seek(log_start)
            said = file.read().decode(errors="replace")
        reason = said.rpartition("netcon service: ")[2].strip()  # behind what it warned about before
        raise ServiceError(reason or f"the service ended with status {process.returncode}; see {log}")


def _wait_until_usable(home: Home, wait_address: bool, deadline: float, timeout: float) -> None:
    networks = list(home.networks())
    with Client(home.path) as client:
        for network in networks:
            if client.get(f"/network/{network:016x}")["port"] == "lwip":
                _wait_for_rpc(home, network, deadline, timeout)
        while wait_address:
            states = [client.get(f"/network/{network:016x}") for network in networks]
            waiting = [state for state in states if not state["assignedAddresses"]]
            if not waiting:
                return
            if time.monotonic() >= deadline:
                state = waiting[0]
                raise ServiceError(
                    f"network {state['id']} has no address after {timeout:g} s (status {state['status']}) and the service "
                    "was stopped; has its controller authorised this node?"
                )
            time.sleep(_POLL_SECONDS)


def _wait_for_rpc(home: Home, network: int, deadline: float, timeout: float) -> None:
    """Until our service answers on a path of `network`: a well-known one, or the home's own if another service holds those."""
    while True:
        problem = "nobody answers"
        for path in (*well_known_sockets(network), rpc_socket(home.path, network)):
            try:
                if hello(path).service == home.service_id():
                    return
            except OSError as error:
                problem = f"{path}: {error.strerror or error}"
        if time.monotonic() >= deadline:
            raise ServiceError(
                f"the sockets of network {network:016x} do not answer after {timeout:g} s ({problem}); the service was stopped"
            )
        time.sleep(_POLL_SECONDS)


def stop_service(path: Path) -> bool:
    """Stop the service of a home folder and wait until it is gone; False if none runs there. ServiceError."""
    lock = path / "netcon.lock"
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ServiceError(f"{lock}: {error.strerror}; only the service's own user can stop it") from None
    try:
        if _try_lock(descriptor):
            return False
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        if not text.isdecimal():
            raise ServiceError(f"{lock}: has no process id; the service is just starting, try again")
        with contextlib.suppress(ProcessLookupError):
            try:
                os.kill(int(text), signal.SIGTERM)
            except PermissionError:
                raise ServiceError(f"process {text} belongs to another user, who can stop it") from None
        deadline = time.monotonic() + _STOP_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise ServiceError(f"process {text} does not stop within {_STOP_SECONDS} s; see {path / LOG_NAME}, or kill -9 it")
            time.sleep(_POLL_SECONDS)
        return True
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
