"""The long run of the Python targets: `python -m tests.fuzz SECONDS [TARGET…]`; `make fuzz` calls it.

Each target gets its share of the time, in a seed of its own each time, with the mutator and, if it is installed, atheris, which is
guided by coverage (pip install atheris). An input that fails is made smaller, stored in build/fuzz/crashes, and printed with the
command that shows it again: `python -m tests.fuzz show TARGET FILE`.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutator import LONGEST, Mutator
from tests.fuzz.targets import TARGETS, Target

FOLDER = Path("build/fuzz")
CRASHES = FOLDER / "crashes"


def fails(target: Target, data: bytes) -> BaseException | None:
    try:
        target(data)
    except Exception as fault:
        return fault
    return None


def minimised(data: bytes, still_fails: Callable[[bytes], bool], tries: int = 4_000) -> bytes:
    """`data` without what the failure does not need: pieces are left out, half of it first, bytes last."""
    size = len(data) // 2
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            shorter = data[:at] + data[at + size :]
            tries -= 1
            if still_fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def report(target: Target, data: bytes, fault: BaseException) -> None:
    kind = type(fault)
    small = minimised(data, lambda shorter: type(fails(target, shorter)) is kind)
    CRASHES.mkdir(parents=True, exist_ok=True)
    file = CRASHES / f"{target.name}-{kind.__name__}-{len(small)}"
    file.write_bytes(small)
    print(f"{target.name}: {kind.__name__}: {fault}\n  {small[:64].hex()} ({len(small)} bytes)")
    print(f"  to reproduce: {sys.executable} -m tests.fuzz show {target.name} {file}", flush=True)


def mutate(target: Target, seconds: float) -> bool:
    """False: a fault was found."""
    seed = int.from_bytes(os.urandom(4))
    mutator = Mutator(target.corpus(), random.Random(seed))
    until = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < until:
        data = mutator.next()
        runs += 1
        if fault := fails(target, data):
            report(target, data, fault)
            return False
    print(f"{target.name}: {runs} inputs", flush=True)
    return True


def guided(target: Target, seconds: float) -> bool:
    """atheris in a process of its own: libFuzzer ends it. Its corpus is kept in build/fuzz/corpus."""
    folder = FOLDER / "corpus" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.corpus()):
        (folder / f"vector-{number}").write_bytes(data)
    found = CRASHES / f"{target.name}-atheris"
    found.parent.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={int(seconds)}", f"-max_len={LONGEST}", f"-exact_artifact_path={found}", "-rss_limit_mb=1024"]
    command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(folder), *options, "-timeout=10", "-verbosity=0"]
    result = subprocess.run([*command, "-print_final_stats=1"], stderr=subprocess.PIPE, text=True, errors="replace")
    numbers = [line.split()[-1] for line in result.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{target.name}: {' '.join(numbers) or '?'} guided inputs", flush=True)
    if result.returncode == 0:
        return True
    print(result.stderr[-4_000:])
    if found.exists():
        data = found.read_bytes()
        report(target, data, fails(target, data) or TimeoutError("too slow, or too much memory"))
    return False


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def main(arguments: list[str]) -> int:
    by_name = {target.name: target for target in TARGETS}
    if arguments[:1] == ["show"] and len(arguments) == 3:
        try:
            accepted = by_name[arguments[1]](Path(arguments[2]).read_bytes())
        except Exception:
            traceback.print_exc()
            return 1
        print("accepted" if accepted else "refused, as documented")
        return 0
    if not arguments or any(name not in by_name for name in arguments[1:]):
        print(f"{__doc__}\nTargets: {', '.join(by_name)}", file=sys.stderr)
        return 2
    targets = [by_name[name] for name in arguments[1:]] or list(TARGETS)
    guide = has_atheris()
    share = float(arguments[0]) / len(targets) / (2 if guide else 1)
    good = True
    for target in targets:
        good &= mutate(target, share)
        good &= not guide or guided(target, share)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
