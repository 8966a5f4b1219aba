"""The long run of the native targets: `python -m tests.fuzz.native.run SECONDS [TARGET…]`. Corpora are kept in build/fuzz/corpus;
what fails is made smaller by libFuzzer and stored in build/fuzz/crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.native import build, seeds

FOLDER = build.ROOT / "build" / "fuzz"


def fuzz(name: str, program: Path, seconds: int) -> bool:
    corpus, crashes = FOLDER / "corpus" / f"native-{name}", FOLDER / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds.of(name)):
        (corpus / f"seed-{number:03}").write_bytes(data)
    crash = crashes / f"native-{name}"
    crash.unlink(missing_ok=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    options = [f"-max_total_time={seconds}", "-max_len=3000", "-timeout=25", "-print_final_stats=1"]
    command = [str(program), *options, f"-exact_artifact_path={crash}", str(corpus)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    lines = done.stderr.splitlines()
    print(f"native {name}:", *[line for line in lines if "DONE" in line or "number_of_executed" in line][-2:], flush=True)
    if done.returncode == 0:
        return True
    print("\n".join(lines[-60:]))
    if crash.exists():
        small = crashes / f"native-{name}-small"
        shrink = [str(program), "-minimize_crash=1", "-max_total_time=30", f"-exact_artifact_path={small}", str(crash)]
        subprocess.run(shrink, env=environment, capture_output=True)
        print(f"  to reproduce: {program} {small if small.exists() else crash}", flush=True)
    return False


def main(arguments: list[str]) -> int:
    names = tuple(arguments[1:]) or build.TARGETS
    programs = build.build(names)
    return 0 if all(fuzz(name, programs[name], max(int(arguments[0]) // len(names), 1)) for name in names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
