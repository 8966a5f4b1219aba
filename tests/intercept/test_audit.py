"""What the built library may and may not contain, and that no real program calls a socket function that the table forgot."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from netcon.doctor import C_LIBRARY, INTERESTING, load_symbols
from tests.intercept.test_table import generate

WEAK_ALLOWED = {
    "__errno_location",
    "environ",
    "dlsym",
    "gnu_get_libc_version",
    "__chk_fail",
    "malloc",
    "__h_errno_location",
    "free",
}

PROGRAMS = [
    "/usr/sbin/nginx",
    "/usr/bin/curl",
    "/usr/bin/redis-server",
    "/usr/bin/redis-cli",
    "/usr/bin/ab",
    "/usr/bin/python3",
    "/usr/bin/strace",
    "/bin/bash",
]


def nm(path: Path, *options: str) -> list[list[str]]:
    output = subprocess.run(["nm", "-D", *options, str(path)], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def test_no_library_is_needed(library: Path) -> None:
    dynamic = subprocess.run(["readelf", "-d", str(library)], check=True, capture_output=True, text=True).stdout
    assert "NEEDED" not in dynamic
    assert "SYMBOLIC" in dynamic
    assert "TEXTREL" not in dynamic


def test_what_is_undefined_is_weak_and_expected(library: Path) -> None:
    undefined = nm(library, "--undefined-only")
    assert {kind for kind, _ in undefined} == {"w"}
    assert {name for _, name in undefined} <= WEAK_ALLOWED


def test_exported_is_exactly_the_table(library: Path) -> None:
    exported = nm(library, "--defined-only")
    assert {name for *_, name in exported} == generate.load().exported
    assert {kind for _, kind, _ in exported} == {"T"}, "functions only: an exported object would be copied into programs"


def test_the_table_beside_the_library_is_of_this_library() -> None:
    table = generate.load()
    assert load_symbols() == (table.exported, table.left)


def test_exported_symbols_have_no_version(library: Path) -> None:
    versions = subprocess.run(["readelf", "-V", str(library)], check=True, capture_output=True, text=True).stdout
    assert "No version information" in versions


def test_the_stack_is_not_executable(library: Path) -> None:
    headers = subprocess.run(["readelf", "-lW", str(library)], check=True, capture_output=True, text=True).stdout
    (stack,) = [line for line in headers.splitlines() if "GNU_STACK" in line]
    assert " RW " in stack


def libraries_of(program: str) -> list[Path]:
    output = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    paths = [Path(match[1]).resolve() for match in re.finditer(r"=> (/\S+)", output)]
    return [path for path in paths if not C_LIBRARY.match(path.name)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_socket_function_that_real_programs_import_is_in_the_table(program: str) -> None:
    known = generate.load().known
    libc = {name.split("@")[0] for *_, name in nm(Path("/lib/x86_64-linux-gnu/libc.so.6").resolve(), "--defined-only")}
    forgotten = {}
    for path in [Path(program).resolve(), *libraries_of(program)]:
        imported = {name.split("@")[0] for *_, name in nm(path, "--undefined-only")}
        if missing := {name for name in imported & libc if INTERESTING.match(name)} - known:
            forgotten[path.name] = sorted(missing)
    assert not forgotten
