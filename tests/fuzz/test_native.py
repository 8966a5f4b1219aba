"""The native decoders under libFuzzer with Address- and UndefinedBehaviorSanitizer: a fixed number of inputs, the same each time.
The long run is `make fuzz` (docs/fuzzing.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.native import seeds

BUILD = Path(__file__).parent / "native" / "build.py"
PROGRAMS = BUILD.parents[3] / "build" / "fuzz" / "native"
RUNS = {"armour": 20000, "intercept": 50000, "rpc": 3000, "frames": 3000}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    done = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RUNS)
def test_target(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds.of(name)):
        (corpus / f"seed-{number:03}").write_bytes(data)
    command = [str(PROGRAMS / f"fuzz_{name}"), "-seed=1", f"-runs={RUNS[name]}", "-max_len=3000", "-len_control=0", str(corpus)]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, errors="replace", timeout=250)
    assert done.returncode == 0, done.stderr[-6000:]
    assert f"Done {RUNS[name]} runs" in done.stderr
