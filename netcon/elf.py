"""Program files (ELF, elf(5)): what tells how the loader treats one, and which functions it takes from libraries.

Only 64-bit little-endian files are looked into; of others the head alone is known. Reads what is asked for, when it is asked for:
`netcon run` needs a few hundred bytes of a file, `netcon doctor` its dynamic symbols. Imports next to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO, NamedTuple

_MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")  # ident (magic, class, data), type, machine …
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<QQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_SHT_DYNSYM = 11
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_FLAGS, _DT_FLAGS_1 = 1, 5, 10, 30, 0x6FFFFFFB
_DF_BIND_NOW, _DF_1_NOW = 8, 1
_SHN_UNDEF = 0
_STB_LOCAL = 0
_LOOKED_AT_MAX = 64 << 20  # bytes of one table or segment: no program comes near

HEAD_SIZE = _HEADER.size
MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 62: "x86-64", 183: "aarch64", 243: "RISC-V"}


class DamagedElf(ValueError):
    """The file's tables point outside of it, or have impossible sizes."""


class Segment(NamedTuple):
    """What is looked at of a program header: type, offset in the file, address in memory, bytes in the file."""

    type: int
    offset: int
    address: int
    size: int


def is_elf(head: bytes) -> bool:
    return len(head) >= HEAD_SIZE and head.startswith(_MAGIC)


class Elf:
    """An open program file or shared object. DamagedElf from every property."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = self._read(0, HEAD_SIZE)
        if not is_elf(head):
            raise DamagedElf("not an ELF file")
        fields = _HEADER.unpack(head)
        self.machine: int = fields[4]
        #: The layout that this module reads; nothing but `machine` is known of another.
        self.readable = (fields[1], fields[2]) == (_CLASS_64, _LITTLE_ENDIAN)
        self._program_headers = (fields[7], fields[11], fields[12])
        self._section_headers = (fields[8], fields[13], fields[14])

    @property
    def machine_name(self) -> str:
        return MACHINES.get(self.machine, f"machine {self.machine}")

    def _read(self, offset: int, size: int) -> bytes:
        if size > _LOOKED_AT_MAX or offset >= 1 << 63:
            raise DamagedElf("a table of impossible size")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise DamagedElf("a table that lies outside of the file")
        return data

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        offset, size, count = self._program_headers
        if count and size < _PROGRAM_HEADER.size:
            raise DamagedElf("program headers that are too small")
        data = self._read(offset, size * count)
        found = (_PROGRAM_HEADER.unpack_from(data, size * index) for index in range(count))
        return tuple(Segment(fields[0], fields[2], fields[3], fields[5]) for fields in found)

    def _of_type(self, wanted: int) -> Iterator[Segment]:
        return (segment for segment in self.segments if segment.type == wanted)

    @cached_property
    def interpreter(self) -> str | None:
        """The loader that the program asks for; None if it is statically linked, or a library."""
        segment = next(self._of_type(_PT_INTERP), None)
        return None if segment is None else self._read(segment.offset, segment.size).split(b"\0", 1)[0].decode(errors="replace")

    @cached_property
    def is_dynamic(self) -> bool:
        return next(self._of_type(_PT_DYNAMIC), None) is not None

    @cached_property
    def is_go(self) -> bool:
        """Made by the Go compiler, which leaves a note with its build id."""
        for segment in self._of_type(_PT_NOTE):
            data, at = self._read(segment.offset, segment.size), 0
            while at + _NOTE.size <= len(data):
                name_size, size, _ = _NOTE.unpack_from(data, at)
                at += _NOTE.size
                if data[at : at + name_size] == b"Go\0\0":
                    return True
                at += (name_size + 3 & ~3) + (size + 3 & ~3)
        return False

    @cached_property
    def _dynamic(self) -> tuple[tuple[int, int], ...]:
        segment = next(self._of_type(_PT_DYNAMIC), None)
        if segment is None:
            return ()
        data = self._read(segment.offset, segment.size - segment.size % _DYNAMIC.size)
        return tuple(_DYNAMIC.iter_unpack(data))

    def _tag(self, wanted: int) -> int:
        return next((value for tag, value in self._dynamic if tag == wanted), 0)

    @cached_property
    def _strings(self) -> bytes:
        address = self._tag(_DT_STRTAB)
        for segment in self._of_type(_PT_LOAD):
            if segment.address <= address < segment.address + segment.size:
                return self._read(address - segment.address + segment.offset, self._tag(_DT_STRSZ))
        return b""

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise DamagedElf("a name that lies outside of the string table")
        return self._strings[offset:end].decode(errors="replace")

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """Names of the libraries that it is linked to."""
        return tuple(self._string(value) for tag, value in self._dynamic if tag == _DT_NEEDED)

    @property
    def binds_now(self) -> bool:
        return bool(self._tag(_DT_FLAGS) & _DF_BIND_NOW or self._tag(_DT_FLAGS_1) & _DF_1_NOW)

    @cached_property
    def _symbols(self) -> tuple[tuple[str, bool], ...]:
        """(name, is defined here) of the dynamic symbols that are not local."""
        offset, size, count = self._section_headers
        if count and size < _SECTION_HEADER.size:
            raise DamagedElf("section headers that are too small")
        headers = self._read(offset, size * count)
        result = []
        for index in range(count):
            fields = _SECTION_HEADER.unpack_from(headers, size * index)
            if fields[1] != _SHT_DYNSYM:
                continue
            table = self._read(fields[4], fields[5] - fields[5] % _SYMBOL.size)
            for name, info, _, section, _, _ in _SYMBOL.iter_unpack(table):
                if name and info >> 4 != _STB_LOCAL:
                    result.append((self._string(name), section != _SHN_UNDEF))
        return tuple(result)

    @cached_property
    def imports(self) -> frozenset[str]:
        """The functions and objects that it takes from libraries."""
        return frozenset(name for name, defined in self._symbols if not defined)

    @cached_property
    def exports(self) -> frozenset[str]:
        return frozenset(name for name, defined in self._symbols if defined)
