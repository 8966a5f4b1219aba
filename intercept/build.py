"""Builds the intercept library: `python intercept/build.py TARGET`. setup.py calls it.

One shared object serves glibc and musl programs, so it is linked with no library at all: it makes raw system calls, and what it
needs of the program's C library (errno, environ, the real posix_spawn) are weak symbols. $CC names another compiler (a cross
compiler, for instance), $NETCON_INTERCEPT_CFLAGS adds options.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402  (a script's neighbour, not a package)

COMPILE = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g",
    "-fPIC",
    "-fvisibility=hidden",
    # The compiler may call memcpy and memset, which memory.c has, and nothing else.
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wmissing-prototypes",
    "-Wstrict-prototypes",
]
# No vector register is touched on behalf of the program; atomic operations are instructions, not calls of libgcc.
ARCHITECTURES = {"x86_64": ["-mgeneral-regs-only"], "aarch64": ["-mgeneral-regs-only", "-mno-outline-atomics"]}
LINK = ["-shared", "-nostdlib", "-Wl,-Bsymbolic", "-Wl,--no-undefined", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]
LINK += ["-Wl,--hash-style=both", "-Wl,--build-id"]


def build(target: Path, work: Path) -> None:
    """Compiles into `work`, links to `target`, and puts the table beside it, for `netcon doctor`.

    The target is replaced at once: running programs have the old one mapped.
    """
    table = generate.load()
    generate.write(work, table)
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    machine = subprocess.run([*compiler, "-dumpmachine"], check=True, capture_output=True, text=True).stdout.split("-")[0]
    extra = ARCHITECTURES.get(machine, []) + shlex.split(os.environ.get("NETCON_INTERCEPT_CFLAGS", ""))
    includes = [f"-I{HERE / 'src'}", f"-I{work}", f"-I{HERE.parent / 'include'}"]
    objects = []
    for source in [*sorted((HERE / "src").glob("*.c")), work / "wrappers.c"]:
        item = work / f"{source.stem}.o"
        subprocess.run([*compiler, *COMPILE, *extra, *includes, "-c", str(source), "-o", str(item)], check=True)
        objects.append(str(item))
    exported = f"-Wl,--version-script={work / 'exports.map'}"
    aliases = [f"-Wl,--defsym={line}" for line in generate.aliases(table).splitlines()]
    fresh = target.with_name(target.name + ".new")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*compiler, *extra, *LINK, exported, *aliases, "-o", str(fresh), *objects], check=True)
    fresh.replace(target)
    shutil.copyfile(generate.TABLE, target.with_name(generate.TABLE.name))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        build(Path(arguments[0]), HERE.parent / "build" / "intercept")
    except subprocess.CalledProcessError as failure:
        print(f"the intercept library was not built: {shlex.join(failure.cmd)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
