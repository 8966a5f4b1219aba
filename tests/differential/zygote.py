"""Run cases, each in a process of its own: `python3 -m tests.differential.zygote`, with or without the intercept library.

A zygote has loaded everything once and opens no socket. For each line on standard input, `[CASE, ADDRESS, SILENT, OTHER]`, it
forks a child that leads its own session, waits for it, ends whatever the child left behind, and prints what the case observed as
one line: `{"observed": …}`, `{"raised": …}`, or `{"ended": STATUS}`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import traceback

from tests.differential import cases
from tests.differential.harness import CASES, PATIENCE, World


def load() -> None:
    """Import every module of `cases`, which registers what they define."""
    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")


def run(name: str, *place: str) -> dict[str, object]:
    try:
        return {"observed": CASES[name].run(World(*place))}
    except BaseException:
        return {"raised": traceback.format_exc().strip().splitlines()[-3:]}


def child(writer: int, name: str, *place: str) -> None:
    """The case's process. What it leaves open or running ends with it."""
    os.setsid()
    # A case that hangs is ended by its own clock, so that a supervisor need not guess.
    signal.alarm(int(PATIENCE) * 2)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    os.close(nothing)
    os.write(writer, json.dumps(run(name, *place)).encode())


def serve(name: str, *place: str) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(writer, name, *place)
        os._exit(0)
    os.close(writer)
    # Not until the end of the pipe: a process that the case has left behind may hold it, too.
    _, status = os.waitpid(pid, 0)
    os.set_blocking(reader, False)
    with os.fdopen(reader, "rb", buffering=0) as stream:
        text = (stream.read(1 << 20) or b"").decode()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return text or json.dumps({"ended": os.waitstatus_to_exitcode(status)})


def main() -> None:
    load()
    for line in sys.stdin:
        print(serve(*json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
