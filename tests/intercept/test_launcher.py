"""netcon.intercept: the environment of a program, and which programs would not obey the library."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from netcon import intercept
from netcon.intercept import NoNetwork, NotInterceptable, ProgramNotFound

NETWORK = "8056c2e21c000001"


def executable(path: Path, content: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def elf(*, kind: int = 2, machine: int = 62, types: tuple[int, ...] = (3, 1)) -> bytes:
    head = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", kind, 1, 3, machine, 1, 0, 64, 0, 0, 64, 56, len(types), 0, 0, 0)
    return head + b"".join(struct.pack("<I52x", one) for one in types)


def test_environment_names_the_library_and_the_network() -> None:
    made = intercept.run_environment(network=NETWORK, environment={"HOME": "/h"})
    assert made == {"HOME": "/h", "LD_PRELOAD": str(intercept.library_path()), "ZT_NC_NWID": NETWORK}


def test_network_as_a_number_is_padded() -> None:
    assert intercept.run_environment(network=0x1234, environment={})["ZT_NC_NWID"] == "0000000000001234"


def test_socket_path_becomes_absolute() -> None:
    made = intercept.run_environment(socket_path="rpc.sock", environment={})
    assert made["NETCON_SOCK"] == os.path.join(os.getcwd(), "rpc.sock")


def test_a_named_network_replaces_what_was_there() -> None:
    before = {"NETCON_SOCK": "/other", "NETCON_NETWORK": "1", "ZT_NC_NWID": "2"}
    made = intercept.run_environment(network=NETWORK, environment=before)
    assert (made["ZT_NC_NWID"], made.get("NETCON_SOCK"), made.get("NETCON_NETWORK")) == (NETWORK, None, None)


def test_other_preloaded_libraries_stay_and_ours_is_named_once() -> None:
    library = str(intercept.library_path())
    made = intercept.run_environment(network=NETWORK, environment={"LD_PRELOAD": f"/a.so {library}:/b.so"})
    assert made["LD_PRELOAD"] == f"{library}:/a.so:/b.so"


@pytest.mark.parametrize("network", ["", "xyz", "0", 0, -1, 1 << 64])
def test_what_is_no_network_id_is_refused(network: int | str) -> None:
    with pytest.raises(NoNetwork, match="network"):
        intercept.run_environment(network=network, environment={})


def test_without_a_network_the_error_tells_what_to_do() -> None:
    with pytest.raises(NoNetwork, match="--network"):
        intercept.run_environment(environment={})


def test_find_program_searches_the_path(tmp_path: Path) -> None:
    program = executable(tmp_path / "tool", elf())
    assert intercept.find_program("tool", f"/nowhere:{tmp_path}") == program
    with pytest.raises(ProgramNotFound, match="is it installed"):
        intercept.find_program("tool", "/nowhere")


def test_folders_of_the_path_that_cannot_be_looked_into_are_passed_over(tmp_path: Path) -> None:
    assert intercept.find_program("true", f"{tmp_path / ('x' * 300)}:/bin") == Path("/bin/true")


@pytest.mark.parametrize("program", ["/usr/sbin/nginx", "/usr/bin/curl", "/usr/bin/redis-server", sys.executable])
def test_real_programs_pass(program: str) -> None:
    intercept.check_program(program)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (elf(types=(1, 2)), "statically linked"),
        (elf(kind=1, machine=3), "for 32-bit x86"),
        (elf(machine=183), "for aarch64"),
    ],
)
def test_programs_that_cannot_load_the_library_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(NotInterceptable, match=reason):
        intercept.check_program(executable(tmp_path / "program", content))


def test_scripts_are_judged_by_their_interpreter(tmp_path: Path) -> None:
    static = executable(tmp_path / "static", elf(types=(1,)))
    script = executable(tmp_path / "script", b"#! %s -x\n" % bytes(static))
    with pytest.raises(NotInterceptable, match="statically linked"):
        intercept.check_program(executable(tmp_path / "outer", b"#!%s\n" % bytes(script)))
    intercept.check_program(executable(tmp_path / "good", b"#!/bin/sh\n"))
    intercept.check_program(executable(tmp_path / "env", b"#!/usr/bin/env python3\n"))


def test_scripts_that_call_each_other_end(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    with pytest.raises(NotInterceptable, match="too many interpreters"):
        intercept.check_program(executable(path, b"#!%s\n" % bytes(path)))


def test_missing_and_not_executable_files(tmp_path: Path) -> None:
    with pytest.raises(ProgramNotFound):
        intercept.check_program(tmp_path / "nothing")
    with pytest.raises(NotInterceptable, match="not an executable"):
        intercept.check_program(executable(tmp_path / "text", b"text", 0o644))


@pytest.mark.parametrize(("mode", "reason"), [(0o4755, "set-user-id"), (0o2755, "set-group-id")])
def test_programs_with_other_rights_are_refused(tmp_path: Path, mode: int, reason: str) -> None:
    program = executable(tmp_path / "program", elf())
    os.chown(program, 12345, 12345)
    program.chmod(mode)
    with pytest.raises(NotInterceptable, match=reason):
        intercept.check_program(program)


def test_file_capabilities_are_refused_to_an_ordinary_user(tmp_path: Path) -> None:
    program = executable(tmp_path / "program", elf())
    # VFS_CAP_REVISION_2 with the effective bit, CAP_NET_RAW (linux/capability.h)
    os.setxattr(program, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    intercept.check_program(program)  # root gains nothing by them
    for folder in [tmp_path, *tmp_path.parents]:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    code = f"import os; os.setgid(65534); os.setuid(65534); from netcon import intercept; intercept.check_program({str(program)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert "has file capabilities" in done.stderr


def test_starting_a_program_imports_nothing_heavy() -> None:
    heavy = ("trio", "starlette", "httpx", "click", "lwip")
    code = f"import sys; from netcon import intercept; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == ""
