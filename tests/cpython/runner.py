"""Run CPython's tests on kernel sockets and on ours, and say where the results differ.

    python3 -m tests.cpython.runner [--only PATTERN] [--log FILE]    shows each difference, explained or not

A *lane* is a zygote (`zygote.py`) without privilege in a network namespace of its own; a lane of ours has a service of its own,
too, whose loopback is virtual. Lanes take classes of tests from one queue, slow ones first.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fnmatch
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from netcon import intercept
from tests.standalone import StandaloneService

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3.11"
#: Lanes for each side: tests wait more than they compute.
LANES = 3
#: Modules whose classes take seconds: they begin.
LONG = {"test_ssl", "test_events", "test_sendfile", "test_sock_lowlevel"}
#: A test that takes longer hangs.
PATIENCE = 60.0

#: The modules of test_asyncio in which there are sockets of the internet.
ASYNCIO = [
    "test_base_events",
    "test_buffered_proto",
    "test_events",
    "test_selector_events",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_streams",
    "test_unix_events",
]
MODULES = {
    "test_socket": ["test.test_socket"],
    "test_selectors": ["test.test_selectors"],
    "test_socketserver": ["test.test_socketserver"],
    "test_httplib": ["test.test_httplib"],
    "test_ssl": ["test.test_ssl"],
    "test_asyncio": [f"test.test_asyncio.{module}" for module in ASYNCIO],
}


@dataclass(frozen=True, order=True)
class Job:
    """Some tests of one class."""

    module: str
    kind: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module.removeprefix('test.')}.{self.kind}"


@dataclass
class Result:
    """Of one test on one side."""

    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.status}: {self.text}" if self.text else self.status


#: By test id: `test_socket.BasicTCPTest.testRecv`.
Results = dict[str, Result]


class Lane:
    """A zygote, with a service if it is one of ours."""

    def __init__(self, folder: Path, *, ours: bool, log: str | None = None) -> None:
        """`folder`: empty, open to other users."""
        self.folder = folder
        self.service = StandaloneService(folder, ["10.77.0.1/24", "fd77::1/64"], policy="loopback virtual") if ours else None
        temporary = folder / "tmp"
        temporary.mkdir()
        temporary.chmod(0o1777)
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), "HOME": str(temporary), "LC_ALL": "C.UTF-8"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
        if log:
            environment["ZYGOTE_LOG"] = log
        if self.service:
            os.chmod(self.service.path, 0o666)
            # Where other users can read it.
            library = shutil.copy(intercept.library_path(), folder)
            environment = intercept.run_environment(socket_path=self.service.path, environment=environment)
            environment[intercept.PRELOAD] = str(library)
        zygote = shutil.copy(HERE / "zygote.py", folder)
        modules = [module for modules in MODULES.values() for module in modules]
        assignments = (f"{name}={value}" for name, value in environment.items())
        self.process = subprocess.Popen(
            [PYTHON, str(HERE / "confine.py"), *assignments, "--", PYTHON, zygote, *modules],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a zygote has ended")
        return line

    def jobs(self) -> list[Job]:
        """What there is; to be called once, first."""
        return [Job(module, kind, tuple(tests)) for module, kind, tests in json.loads(self.read())]

    def run(self, job: Job, patience: float) -> Results:
        assert self.process.stdin is not None
        print(json.dumps([job.module, job.kind, job.tests, patience]), file=self.process.stdin, flush=True)
        return {f"{job}.{test}": Result(*result) for test, result in json.loads(self.read()).items()}

    def stop(self) -> None:
        self.process.communicate(timeout=60)
        if self.service:
            self.service.stop()


@dataclass
class Runs:
    """Both sides' results."""

    kernel: Results = field(default_factory=dict)
    ours: Results = field(default_factory=dict)
    seconds: dict[tuple[bool, str], float] = field(default_factory=dict)

    def of(self, ours: bool) -> Results:
        return self.ours if ours else self.kernel

    def update(self, other: Runs) -> None:
        self.kernel.update(other.kernel)
        self.ours.update(other.ours)


def _same(jobs: list[list[Job]]) -> list[Job]:
    if any(other != jobs[0] for other in jobs):
        raise RuntimeError("the two sides have not the same tests")
    return jobs[0]


class Lanes:
    """LANES of each side, running."""

    def __init__(self, log: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="netcon-cpython-"))
        self.folder.chmod(0o755)
        self.lanes: list[tuple[bool, Lane]] = []
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            for number in range(LANES):
                for ours in (False, True):
                    place = self.folder / f"{number}-{'ours' if ours else 'kernel'}"
                    place.mkdir(mode=0o755)
                    lane = Lane(place, ours=ours, log=log)
                    stack.callback(lane.stop)
                    self.lanes.append((ours, lane))
            #: What there is, as all lanes see it.
            self.jobs = _same([lane.jobs() for _, lane in self.lanes])
            self.end = stack.pop_all()

    def jobs_of(self, wanted: Collection[str]) -> list[Job]:
        """The jobs for some tests."""
        chosen = [replace(job, tests=tuple(test for test in job.tests if f"{job}.{test}" in wanted)) for job in self.jobs]
        return [job for job in chosen if job.tests]

    def run(self, jobs: Sequence[Job], patience: float = PATIENCE) -> Runs:
        """Each job on both sides."""
        runs = Runs()
        ordered = sorted(jobs, key=lambda job: (job.module.split(".")[-1] not in LONG, -len(job.tests)))
        waiting = {ours: collections.deque(ordered) for ours in (False, True)}
        failures: list[BaseException] = []

        def serve(ours: bool, lane: Lane) -> None:
            try:
                while True:
                    job = waiting[ours].popleft()
                    began = time.monotonic()
                    runs.of(ours).update(lane.run(job, patience))
                    runs.seconds[ours, str(job)] = time.monotonic() - began
            except IndexError:
                return
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=serve, args=lane) for lane in self.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return runs

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="tests to run: module.Class.test, with wildcards")
    parser.add_argument("--log", help="append what the tests print to this file (anyone must be able to write it)")
    parser.add_argument("--patience", type=float, default=PATIENCE)
    parser.add_argument("--json", help="write all results to this file")
    parser.add_argument("--slow", action="store_true", help="show the slowest classes")
    options = parser.parse_args()
    with Lanes(options.log) as lanes:
        known = [f"{job}.{test}" for job in lanes.jobs for test in job.tests]
        jobs = lanes.jobs_of(set(fnmatch.filter(known, options.only)))
        began = time.monotonic()
        runs = lanes.run(jobs, options.patience)
        print(f"{time.monotonic() - began:.1f} s", len(runs.kernel), "tests")
    for test in known:
        if runs.kernel.get(test) and runs.kernel[test].status != runs.ours[test].status:
            print(f"{test}\n    kernel  {runs.kernel[test]}\n    ours    {runs.ours[test]}")
    if options.json:
        Path(options.json).write_text(json.dumps({t: [str(runs.kernel[t]), str(runs.ours[t])] for t in runs.kernel}, indent=1))
    if options.slow:
        for (ours, job), seconds in sorted(runs.seconds.items(), key=lambda item: -item[1])[:40]:
            print(f"{seconds:7.1f} {'ours' if ours else 'kernel'} {job}")


if __name__ == "__main__":
    main()
