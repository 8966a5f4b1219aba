"""Builds the native targets with clang, libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, into build/fuzz/native.

lwIP's core becomes a shared object beside the programs, as in the product. Objects are kept, and made again when the command, the
source or any header changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = ROOT / "tests" / "fuzz" / "native"
OUTPUT = ROOT / "build" / "fuzz" / "native"
TARGETS = ("armour", "intercept", "rpc", "frames")
sys.path[:0] = [str(ROOT / "lwip"), str(ROOT / "intercept")]
import build_core  # noqa: E402
import generate  # noqa: E402
import source  # noqa: E402

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize=alignment,function,vptr", "-fno-sanitize-recover=all", "-g", "-O1"]
COVER = ["-fsanitize=fuzzer-no-link"]
#: The intercept's own functions on bytes, checked like everything else instead of taking the C library's place.
RENAMED = [f"-D{name}=own_{name}" for name in ("memcpy", "memset", "memcmp", "strlen")]


def clang(plus: bool = False) -> str:
    name = "clang++" if plus else "clang"
    found = next((path for path in map(shutil.which, (f"{name}-14", name, f"{name}-16", f"{name}-19")) if path), None)
    if found is None:
        raise SystemExit("fuzzing the native parts needs clang and its runtime: apt-get install clang-14 libclang-rt-14-dev")
    return found


def build(targets: tuple[str, ...] = TARGETS) -> dict[str, Path]:
    """The program of each target."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    tree = source.obtain()
    generate.write(OUTPUT, generate.load())
    headers = [*ROOT.glob("include/netcon/*.h"), *ROOT.glob("lwip/**/*.h*"), *ROOT.glob("netcon/dataplane/src/*.hpp")]
    headers += [*ROOT.glob("intercept/src/*.h"), *HERE.glob("*.hpp")]
    common = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(headers)) + str(tree).encode()).hexdigest()
    cpp = [clang(True), *SANITIZE, *COVER, "-std=c++20", "-fno-strict-aliasing", f"-I{ROOT / 'include'}", f"-I{ROOT / 'lwip/src'}"]
    cpp += [f"-I{ROOT / 'lwip/core'}", f"-I{ROOT / 'netcon/dataplane/src'}", "-isystem", str(tree / "src" / "include")]
    core = [clang(), *SANITIZE, *COVER, "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"]
    core += [f"-I{ROOT / 'lwip/core'}", "-isystem", str(tree / "src" / "include")]
    own = [clang(), *SANITIZE, *COVER, "-std=c11", "-D_GNU_SOURCE", "-fno-strict-aliasing", f"-I{ROOT / 'intercept/src'}"]
    own += [f"-I{OUTPUT}", f"-I{ROOT / 'include'}"]
    jobs: list[tuple[list[str], Path, str]] = []

    def compile_all(command: list[str], files: list[Path], prefix: str) -> list[str]:
        jobs.extend((command, file, f"{prefix}-{file.stem}.o") for file in files)
        return [str(OUTPUT / f"{prefix}-{file.stem}.o") for file in files]

    bindings = {"module", "probe", "server_binding", "stack_binding"}
    dataplane = ROOT / "netcon" / "dataplane" / "src"
    parts: dict[str, list[str]] = {}
    if "armour" in targets:
        parts["armour"] = compile_all(cpp, [dataplane / "armour.cpp", HERE / "fuzz_armour.cpp"], "armour")
    if "intercept" in targets:
        files = [ROOT / "intercept" / "src" / f"{name}.c" for name in ("memory", "names", "address", "ancillary")]
        parts["intercept"] = compile_all([*own, *RENAMED, "-ffreestanding"], files, "intercept")
        parts["intercept"] += compile_all(own, [HERE / "fuzz_intercept.c"], "intercept")
    library: list[str] = []
    if {"rpc", "frames"} & set(targets):
        files = [file for file in sorted((ROOT / "lwip" / "src").glob("*.cpp")) if file.stem not in bindings]
        server = compile_all(cpp, files, "lwip") + compile_all(cpp, [dataplane / "reactor.cpp"], "dataplane")
        for name in {"rpc", "frames"} & set(targets):
            parts[name] = server + compile_all(cpp, [HERE / f"fuzz_{name}.cpp"], "target")
        library = compile_all(core, sorted((ROOT / "lwip" / "core").glob("*.c")), "core")
        library += compile_all(core, build_core.lwip_files(tree), "tcpip")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: compile_one(*job, common), dict.fromkeys((tuple(c), f, o) for c, f, o in jobs)))
    if library:
        link = [clang(), *SANITIZE, *COVER, "-shared", "-Wl,-Bsymbolic", *library, "-o", str(OUTPUT / "liblwip-core.so")]
        subprocess.run(link, check=True)
    for name, objects in parts.items():
        link = [clang(True), *SANITIZE, "-fsanitize=fuzzer", *objects, "-lsodium", "-lcrypto", "-ldl", "-pthread", "-rdynamic"]
        subprocess.run([*link, "-o", str(OUTPUT / f"fuzz_{name}")], check=True)
    return {name: OUTPUT / f"fuzz_{name}" for name in parts}


def compile_one(command: tuple[str, ...], file: Path, name: str, common: str) -> None:
    output = OUTPUT / name
    whole = [*command, "-c", str(file), "-o", str(output)]
    stamp = hashlib.sha256(("\0".join(whole) + common).encode() + file.read_bytes()).hexdigest()
    mark = output.with_suffix(".stamp")
    if not (output.exists() and mark.exists() and mark.read_text() == stamp):
        subprocess.run(whole, check=True)
        mark.write_text(stamp)


if __name__ == "__main__":
    build(tuple(sys.argv[1:]) or TARGETS)
