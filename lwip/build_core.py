"""Builds liblwip-core.so: lwIP (core/, core/ipv4, core/ipv6, netif/ethernet.c) and our C beside it, one shared object without a
dependency on ours, which exports one symbol. `python lwip/build_core.py TARGET`; setup.py calls it.

Builds only what changed: each object has a stamp of its command and the contents of what it includes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import source

HERE = Path(__file__).resolve().parent
CORE = HERE / "core"
OPTIMISE = ["-O2", "-g", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffunction-sections", "-fdata-sections"]
OURS = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror"]
THEIRS = ["-std=gnu11", "-Werror=implicit-function-declaration", "-Werror=int-conversion", "-Werror=incompatible-pointer-types"]
LINK = [
    "-shared",
    "-Wl,-Bsymbolic",
    "-Wl,-z,defs",
    "-Wl,-z,now",
    "-Wl,-z,noexecstack",
    "-Wl,--gc-sections",
    "-Wl,-soname,liblwip-core.so",
]


def lwip_files(tree: Path) -> list[Path]:
    core = tree / "src" / "core"
    files = [*core.glob("*.c"), *(core / "ipv4").glob("*.c"), *(core / "ipv6").glob("*.c")]
    return [*sorted(files), tree / "src" / "netif" / "ethernet.c"]


def compile_one(compiler: list[str], flags: list[str], file: Path, output: Path, headers: str) -> Path:
    command = [*compiler, *OPTIMISE, *flags, "-c", str(file), "-o", str(output)]
    stamp = hashlib.sha256((shlex.join(command) + headers).encode() + file.read_bytes()).hexdigest()
    stamp_file = output.with_suffix(".stamp")
    if not (output.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp):
        subprocess.run(command, check=True)
        stamp_file.write_text(stamp)
    return output


def build(target: Path) -> None:
    tree = source.obtain()
    objects = HERE.parent / "build" / "lwip-core"
    objects.mkdir(parents=True, exist_ok=True)
    with (objects / "lock").open("w") as lock:  # one build at a time: they share the objects
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_in(objects, tree, target)


def build_in(objects: Path, tree: Path, target: Path) -> None:
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    ours = sorted(CORE.glob("*.c"))
    headers = "".join(path.read_text() for path in sorted([*CORE.glob("*.h"), *CORE.glob("arch/*.h")])) + str(tree)
    include = ["-I", str(CORE)]
    theirs = ["-isystem", str(tree / "src" / "include")]
    jobs = [(file, [*OURS, *include, *theirs], f"ours-{file.stem}.o") for file in ours]
    jobs += [(file, [*THEIRS, *include, *theirs], f"lwip-{file.stem}.o") for file in lwip_files(tree)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        built = list(pool.map(lambda job: compile_one(compiler, job[1], job[0], objects / job[2], headers), jobs))
    command = [*compiler, *LINK, *map(str, built)]
    stamp = hashlib.sha256(
        (shlex.join(command) + "".join(path.with_suffix(".stamp").read_text() for path in built)).encode()
    ).hexdigest()
    stamp_file = objects / f"link-{hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:16]}.stamp"
    if target.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp:
        return
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    subprocess.run([*command, "-o", str(scratch)], check=True)
    scratch.replace(target)  # never a half-written library in the place of a used one
    stamp_file.write_text(stamp)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: build_core.py TARGET")
    try:
        build(Path(sys.argv[1]))
    except source.SourceError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(error.cmd)} failed")
