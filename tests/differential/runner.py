"""Run one case in this process and print what it observed as JSON: `python3 -m tests.differential.runner CASE ADDRESS SILENT`."""

from __future__ import annotations

import importlib
import json
import pkgutil
import signal
import sys

from tests.differential import cases
from tests.differential.harness import CASES, PATIENCE, World


def load() -> None:
    """Import every module of `cases`, which registers what they define."""
    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")


def main() -> None:
    name, address, silent = sys.argv[1:]
    load()
    # A case that hangs is ended by its own clock, so that a supervisor need not guess.
    signal.alarm(int(PATIENCE) * 2)
    print(json.dumps(CASES[name].run(World(address, silent))))


if __name__ == "__main__":
    main()
