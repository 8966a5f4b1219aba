"""The long run of the native targets: `python -m tests.fuzz.native.run [--seed=NUMBER] SECONDS [TARGET…]`.

Corpora are kept in build/fuzz/corpus; what fails is made smaller by libFuzzer and stored in build/fuzz/crashes. A seed is drawn
unless one is given, and printed. What a run finds joins the corpus when the run ended well: seed and corpus together repeat a
failure, also one that needs the inputs before it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from tests.fuzz.native import build, seeds

FOLDER = build.ROOT / "build" / "fuzz"


def fuzz(name: str, program: Path, seconds: int, seed: int) -> bool:
    corpus, crashes = FOLDER / "corpus" / f"native-{name}", FOLDER / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds.of(name)):
        (corpus / f"seed-{number:03}").write_bytes(data)
    crash = crashes / f"native-{name}"
    crash.unlink(missing_ok=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    same = [str(program), f"-seed={seed}", "-max_len=3000", "-timeout=25"]
    print(f"native {name}: seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(dir=corpus.parent) as found:
        limits = [f"-max_total_time={seconds}", "-print_final_stats=1", f"-exact_artifact_path={crash}"]
        command = [*same, *limits, found, str(corpus)]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
        if done.returncode == 0:
            for file in Path(found).iterdir():
                file.replace(corpus / file.name)
    lines = done.stderr.splitlines()
    print(f"native {name}:", *[line for line in lines if "DONE" in line or "number_of_executed" in line][-2:], flush=True)
    if done.returncode == 0:
        return True
    print("\n".join(lines[-60:]))
    if crash.exists():
        small = crashes / f"native-{name}-small"
        shrink = [str(program), "-minimize_crash=1", "-max_total_time=30", f"-exact_artifact_path={small}", str(crash)]
        subprocess.run(shrink, env=environment, capture_output=True)
        print(f"  to reproduce: {program} {small if small.exists() else crash}")
    print(f"  with all inputs before it: ASAN_OPTIONS=detect_leaks=0 {' '.join(same)} $(mktemp -d) {corpus}", flush=True)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.native.run")
    parser.add_argument(
        "--seed", type=int, default=int.from_bytes(os.urandom(4)) | 1, help="of all targets; 0 has libFuzzer draw one"
    )
    parser.add_argument("seconds", type=int, help="in all")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(build.TARGETS))
    given = parser.parse_args()
    if unknown := set(given.targets) - set(build.TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    names = tuple(given.targets) or build.TARGETS
    programs = build.build(names)
    share = max(given.seconds // len(names), 1)
    good = [fuzz(name, programs[name], share, given.seed) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
