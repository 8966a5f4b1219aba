"""Running scripts on kernel sockets and on ours, comparing what they say, and making a script that differs small."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.model import Op, build

HERE = Path(__file__).parent
SHARED_BYTES = 4 + 4 * 1024
#: A script is ended, and differs, after this many seconds.
PATIENCE = 60.0

Log = dict[int, str]


def compile_interpreter(folder: Path, compiler: str = "gcc") -> Path:
    """torture.c for one of the C libraries."""
    target = folder / f"torture-{compiler}"
    sources = sorted(str(source) for source in HERE.glob("*.c"))
    flags = ["-O1", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(target), *sources], check=True)
    os.chmod(folder, 0o755)
    return target


@dataclass(frozen=True)
class Side:
    """One kind of sockets."""

    program: Path
    address: str
    environment: dict[str, str] | None = None

    def run(self, lines: Sequence[str], expected: Log | None = None) -> Log:
        """What each line said, by number; line -1 is how the whole ended."""
        with tempfile.TemporaryDirectory(prefix="torture-") as name:
            folder = Path(name)
            (folder / "script").write_text("\n".join(lines) + "\n")
            (folder / "shared").write_bytes(bytes(SHARED_BYTES))
            if expected is not None:
                (folder / "expected").write_text("".join(f"{number} {text}\n" for number, text in expected.items()))
            arguments = [
                str(self.program),
                "run",
                str(folder / "script"),
                str(folder / "shared"),
                "-" if expected is None else str(folder / "expected"),
                self.address,
            ]
            with open(folder / "log", "ab") as log, open(folder / "complaints", "wb") as complaints:
                process = subprocess.Popen(
                    arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=complaints, env=self.environment, start_new_session=True
                )
                try:
                    ending = f"exit {process.wait(PATIENCE)}"
                except subprocess.TimeoutExpired:
                    ending = "stuck"
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said: Log = {}
            for line in (folder / "log").read_text(errors="replace").splitlines():
                number, _, text = line.partition(" ")
                said[int(number)] = text
            said[-1] = ending + (folder / "complaints").read_text(errors="replace")
            return said


@dataclass(frozen=True)
class Difference:
    """The first lines on which the sides disagree."""

    lines: list[str]
    kernel: Log
    ours: Log

    def first(self) -> str:
        """The first line that differs."""
        for number in [*range(len(self.lines)), -1]:
            by_kernel, by_us = self.kernel.get(number, "(nothing)"), self.ours.get(number, "(nothing)")
            if by_kernel != by_us:
                return f"{number}: {self.lines[number] if number >= 0 else 'the end'}: kernel {by_kernel}, ours {by_us}"
        return "nothing"

    def __str__(self) -> str:
        """The lines up to the first that differs, with what they said."""
        rows = []
        for number, line in enumerate(self.lines):
            by_kernel, by_us = self.kernel.get(number, "(nothing)"), self.ours.get(number, "(nothing)")
            rows.append(f"  {number}: {line:40} {by_kernel}")
            if by_kernel != by_us:
                rows.append(f"  ours: {by_us}")
                if by_us != "(nothing)":
                    break
        return "\n".join([*rows, f"  the end: {self.kernel.get(-1)}, ours {self.ours.get(-1)}"])


@dataclass
class Torture:
    """Both sides, and what has been found."""

    kernel: Side
    ours: Side
    scripts: int = 0
    operations: int = 0
    unstable: int = 0
    #: The first lines on which the kernel disagreed with itself.
    unsteady: list[str] = field(default_factory=list)

    def compare(self, ops: list[Op]) -> Difference | None:
        """A difference that is there every time; what the kernel itself says differently from time to time is none."""
        lines = build(ops).lines
        self.scripts += 1
        self.operations += len(lines)
        kernel = self.kernel.run(lines)
        if kernel[-1] != "exit 0":  # a script that waits for what never comes, or a C library that failed: nothing to compare with
            self.unstable += 1
            self.unsteady.append(f"the end: {kernel[-1]}")
            return None
        ours = self.ours.run(lines, kernel)
        if kernel == ours:
            return None
        twice = self.kernel.run(lines)
        if twice != kernel:
            self.unstable += 1
            self.unsteady.append(Difference(lines, kernel, twice).first())
            return None
        return Difference(lines, kernel, ours)

    def shrink(self, ops: list[Op], seconds: float, clock: Callable[[], float]) -> list[Op]:
        """Delta debugging: the fewest operations that still differ, found within a time."""
        end = clock() + seconds
        size = max(len(ops) // 2, 1)
        while clock() < end:
            start, shorter = 0, False
            while start < len(ops) and clock() < end:
                fewer = ops[:start] + ops[start + size :]
                if self.compare(fewer) is not None:
                    ops, shorter = build(fewer).applied, True
                    ops = [op for op in ops if op in fewer]
                else:
                    start += size
            if size == 1 and not shorter:
                break
            size = max(size // 2, 1)
        return ops
