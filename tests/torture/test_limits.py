"""Many sockets, few descriptors, a busy service, and a service that dies: what the random scripts do not do for long enough."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon import intercept
from tests.standalone import StandaloneService
from tests.torture.runner import SHARED_BYTES, Side, Torture, compile_interpreter
from tests.torture.script import generate

ADDRESSES = ["10.77.0.1/24", "fd77::1/64"]
PATIENCE = 60.0
#: 10,000 in all. Of connections fewer: the stack looks for each segment's among all that there are.
PAIRS, DATAGRAMS = 2000, 6000
#: What a call may say whose service is gone (tests/integration/test_death.py); 0: nothing, as at the end of a stream.
GONE = {0, 22, 32, 100, 104, 107}  # EINVAL, EPIPE, ENETDOWN, ECONNRESET, ENOTCONN


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_interpreter(tmp_path_factory.mktemp("interpreter"))


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """What is started meanwhile may have so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], max(before[1], count)))
    try:
        yield
    finally:
        if before[1] < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ours(program: Path, service: StandaloneService, address: str = "10.77.0.1") -> Side:
    return Side(program, address, intercept.run_environment(socket_path=service.path))


def test_ten_thousand_sockets_of_one_process(program: Path, tmp_path: Path) -> None:
    lines = [f"0 0 limit {2 * PAIRS + DATAGRAMS + 100}", f"1 0 many {PAIRS} 7 {DATAGRAMS}", "2 0 exercise 4 1", "3 0 end 0"]
    with descriptors(2 * (2 * PAIRS + DATAGRAMS)), StandaloneService(tmp_path, ADDRESSES) as service:
        kernel = Side(program, "127.0.0.1").run(lines)
        assert kernel == {0: "0", 1: "well", 2: "well", 3: "", -1: "exit 0"}
        assert ours(program, service).run(lines) == kernel


def test_a_full_table_loses_no_connection(program: Path, tmp_path: Path) -> None:
    """A connection that waits while accept() says EMFILE is there when a descriptor is free; all else goes on meanwhile."""
    steps = [
        "0 limit 64",
        "0 socket 0 0 0",
        "0 bind 0 0 -1",
        "0 listen 0 4",
        *(f"0 {line}" for slot in (1, 2) for line in (f"socket {slot} 0 0", f"connect {slot} 0")),
        "0 accept 0 3 0",
        "0 full 0",
        "0 accept 0 4 0",
        "0 socket 5 0 0",
        "0 send 1 100 1 0 0 -1",
        "0 recv 3 100 0 256 0",
        "0 name 3 1",
        "0 get 3 4",
        "0 observe 0 0 1 1 3 1",
        "0 empty",
        "0 accept 0 4 0",
        "0 send 2 50 2 0 0 -1",
        "0 recv 4 50 0 256 0",
        "0 end 0",
    ]
    lines = [f"{number} {step}" for number, step in enumerate(steps)]
    with StandaloneService(tmp_path, ADDRESSES) as service:
        kernel = Side(program, "127.0.0.1").run(lines)
        assert kernel[10] == kernel[11] == "error 24"
        assert kernel[-1] == "exit 0"
        assert ours(program, service).run(lines, kernel) == kernel


class Running:
    """An interpreter that performs a script meanwhile."""

    def __init__(self, side: Side, lines: list[str], folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        (self.folder / "script").write_text("\n".join(lines) + "\n")
        (self.folder / "shared").write_bytes(bytes(SHARED_BYTES))
        with open(self.folder / "log", "ab") as log, open(self.folder / "complaints", "wb") as complaints:
            self.process = subprocess.Popen(
                [str(side.program), "run", str(self.folder / "script"), str(self.folder / "shared"), "-", side.address],
                env=side.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=complaints,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def complaints(self) -> str:
        return (self.folder / "complaints").read_text()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


#: Threads, processes, and a storm of signals, all busy for ever.
BUSY = [
    "0 0 storm 1 1",
    "1 0 fork 1",
    "2 0 fork 2",
    "3 0 thread 3",
    "4 0 exercise 1000000 0",
    "4 1 threads 4 1000000 1",
    "4 2 forks 3 1000000 2",
    "4 3 exercise 1000000 3",
    "8 1 end 0",
    "8 0 reap 1",
    "10 2 end 0",
    "10 0 reap 2",
    "12 3 end 1",
    "12 0 reap 3",
    "14 0 end 0",
]


def test_scripts_agree_beside_programs_that_are_busy(program: Path, tmp_path: Path) -> None:
    with StandaloneService(tmp_path, ADDRESSES) as service:
        side = ours(program, service)
        with Running(side, BUSY, tmp_path) as busy:
            torture = Torture(Side(program, "127.0.0.1"), side)
            for seed in range(500, 504):
                difference = torture.compare(generate(seed, 40))
                assert difference is None, f"seed {seed}: {difference.first()}"
            assert busy.process.poll() is None, busy.said() + busy.complaints()


def test_a_service_that_is_killed_ends_all_calls(program: Path, tmp_path: Path) -> None:
    """In the middle of whatever threads, processes and signal handlers do: each call returns, with the errors of a dead service."""
    with StandaloneService(tmp_path, ADDRESSES) as service, Running(ours(program, service), BUSY, tmp_path) as busy:
        # All have begun when another program has had its turns.
        assert ours(program, service).run(["0 0 exercise 60 5", "1 0 end 0"])[0] == "well"
        assert busy.process.poll() is None, busy.said() + busy.complaints()
        service.process.kill()
        service.process.wait()
        assert busy.process.wait(PATIENCE) == 0, busy.said() + busy.complaints()
        errors = {int(number) for number in re.findall(r"errno (\d+)", busy.said() + busy.complaints())}
        assert errors
        assert errors <= GONE, busy.said() + busy.complaints()
        # Who started before the service did, or goes on after it, has sockets of the next one.
        with StandaloneService(tmp_path, ADDRESSES) as again:
            assert ours(program, again).run(["0 0 exercise 8 5", "1 0 end 0"])[0] == "well"


def test_a_program_goes_on_with_the_next_service(program: Path, tmp_path: Path) -> None:
    """Its cached connection is to the dead service; that is noticed, and replaced."""
    lines = ["0 0 exercise 4 1", "1 0 pause", "2 0 exercise 8 1", "3 0 end 0"]
    with StandaloneService(tmp_path, ADDRESSES) as service, Running(ours(program, service), lines, tmp_path) as running:
        end = time.monotonic() + PATIENCE
        while "1 waiting" not in running.said():
            assert time.monotonic() < end
            time.sleep(0.01)
        service.process.kill()
        service.process.wait()
        with StandaloneService(tmp_path, ADDRESSES):
            running.process.send_signal(signal.SIGUSR2)
            assert running.process.wait(PATIENCE) == 0
            assert "2 well" in running.said(), running.said() + running.complaints()
