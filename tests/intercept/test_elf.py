"""netcon.elf against binutils, and on files that are damaged."""

from __future__ import annotations

import io
import random
import struct
import subprocess
from pathlib import Path

import pytest

from netcon.elf import DamagedElf, Elf
from netcon.intercept import library_path

PROGRAMS = ["/usr/bin/curl", "/bin/bash", "/usr/bin/python3", str(library_path())]


def read(path: str | Path) -> Elf:
    return Elf(io.BytesIO(Path(path).read_bytes()))


def nm(path: str, option: str) -> set[str]:
    output = subprocess.run(["nm", "-D", option, path], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in output.splitlines()}


@pytest.mark.parametrize("path", PROGRAMS)
def test_symbols_are_those_that_nm_shows(path: str) -> None:
    elf = read(path)
    assert elf.imports == nm(path, "--undefined-only")
    assert elf.exports >= nm(path, "--defined-only")


@pytest.mark.parametrize("path", PROGRAMS)
def test_what_is_needed_is_what_readelf_shows(path: str) -> None:
    output = subprocess.run(["readelf", "-dlW", path], check=True, capture_output=True, text=True).stdout
    elf = read(path)
    assert list(elf.needed) == [line.split("[")[1].split("]")[0] for line in output.splitlines() if "(NEEDED)" in line]
    assert elf.binds_now == ("NOW" in output.split("Dynamic section")[1])
    assert (elf.interpreter or "") in output
    assert (elf.interpreter is None) == ("INTERP" not in output)


def test_a_note_of_go_is_seen() -> None:
    note = struct.pack("<III", 4, 4, 4) + b"Go\0\0" + b"idid"
    head = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf = Elf(io.BytesIO(head + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), 0, 0) + note))
    assert elf.is_go
    assert not read("/bin/bash").is_go


def test_damaged_files_are_told_and_never_anything_else() -> None:
    whole = Path("/bin/true").read_bytes()
    choose = random.Random(1)
    told = 0
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(4):
            broken[choose.choice([choose.randrange(64), choose.randrange(64, 1024), choose.randrange(len(whole))])] = (
                choose.randrange(256)
            )
        try:
            elf = Elf(io.BytesIO(broken[: choose.randrange(len(broken))]))
            _ = (elf.interpreter, elf.is_go, elf.needed, elf.imports, elf.exports, elf.binds_now)
        except DamagedElf:
            told += 1
    assert told > 200
