"""Torture for as long as wanted: `python3 -m tests.torture --seconds 3600`; `make torture SECONDS=3600`.

Prints the seed of each script that differs, and the smallest part of it that does; the exit status is then 1. With `--seed` and
`--scripts 1` one script is run again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from netcon import intercept
from tests.standalone import StandaloneService
from tests.torture.runner import Side, Torture, compile_interpreter
from tests.torture.script import generate

ADDRESSES = (("127.0.0.1", "10.77.0.1"), ("::1", "fd77::1"))
COMPILERS = ("gcc", "musl-gcc")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first script; the next ones follow (default: random)")
    parser.add_argument("--scripts", type=int, default=1 << 60)
    parser.add_argument("--ops", type=int, default=60, help="operations of a script")
    parser.add_argument("--stop-after", type=int, default=3, metavar="N", help="differences")
    parser.add_argument("--shrink", type=float, default=120.0, metavar="SECONDS", help="to spend on making a script small")
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"torture: from seed {seed} on, {options.ops} operations each", flush=True)

    started = told = time.monotonic()
    found = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        programs = [compile_interpreter(Path(name), compiler) for compiler in COMPILERS]
        with StandaloneService(Path(name), ["10.77.0.1/24", "fd77::1/64"]) as service:
            environment = intercept.run_environment(socket_path=service.path)
            tortures = [
                Torture(Side(program, kernel), Side(program, ours, environment))
                for program in programs
                for kernel, ours in ADDRESSES
            ]
            for number in range(seed, seed + options.scripts):
                now = time.monotonic()
                if now - started > options.seconds or found >= options.stop_after:
                    break
                torture = tortures[number % len(tortures)]
                ops = generate(number, options.ops)
                difference = torture.compare(ops)
                if difference is not None:
                    found += 1
                    print(f"torture: seed {number} differs: {difference.first()}", flush=True)
                    small = torture.shrink(ops, options.shrink, time.monotonic)
                    print(f"torture: seed {number}, smallest: {small}\n{torture.compare(small)}", flush=True)
                if now - told > 60:
                    told = now
                    print(f"torture: {totals(tortures)}, {found} differ", flush=True)
    print(f"torture: {totals(tortures)}, {found} differ; {time.monotonic() - started:.0f} s", flush=True)
    for torture in tortures:
        for line in torture.unsteady[:5]:
            print(f"torture: the kernel was not steady at {line}")
    return 1 if found else 0


def totals(tortures: list[Torture]) -> str:
    scripts, operations, unstable = (
        sum(getattr(torture, name) for torture in tortures) for name in ("scripts", "operations", "unstable")
    )
    return f"{scripts} scripts of {operations} operations, {unstable} unstable"


if __name__ == "__main__":
    sys.exit(main())
