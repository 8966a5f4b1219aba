"""Starting a program under the intercept library: where the library is, what environment it needs, and whether a program would
obey it at all.

Pure functions that import next to nothing: `netcon run` starts as fast as the program itself. The library's own view of the
environment is in intercept/src/environment.h.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from netcon.elf import HEAD_SIZE, DamagedElf, Elf, is_elf

PRELOAD, NETWORK, SOCKET, POLICY = "LD_PRELOAD", "ZT_NC_NWID", "NETCON_SOCK", "NETCON_POLICY"

_SHEBANG_MAX = 256
_SCRIPT_DEPTH_MAX = 4


class InterceptError(Exception):
    """A program cannot be started under the intercept library; the text tells why and what to do."""


class LibraryMissing(InterceptError):
    """The library was not built, or lies where the loader cannot take it from."""


class NoNetwork(InterceptError):
    """Neither a network nor a socket was named."""


class ProgramNotFound(InterceptError):
    """No such program (a shell would exit with 127)."""


class NotInterceptable(InterceptError):
    """The program would ignore the library and silently use the host's network (126)."""


class ProgramFile(NamedTuple):
    """What is executed when a program is started. `readable`: its content could be looked at; if not, only its rights were."""

    path: Path
    readable: bool
    is_elf: bool
    chain: tuple[Path, ...]
    """Scripts that lead to it, the one that was named first."""


def library_path() -> Path:
    """The intercept library. Raises LibraryMissing."""
    path = Path(__file__).parent / "lib" / "libnetcon-intercept.so"
    if not path.is_file():
        raise LibraryMissing(f"{path} is missing: reinstall netcon, or in a clone run 'python setup.py build_ext --inplace'")
    if ":" in str(path) or " " in str(path):
        raise LibraryMissing(f"{path} has a colon or a blank in it, and LD_PRELOAD cannot name it: install netcon elsewhere")
    return path


def run_environment(
    *,
    network: int | str | None = None,
    socket_path: str | os.PathLike[str] | None = None,
    policy: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment for a program: `environment` (default: this process's) with the library and its variables.

    `network`: id, as a number or hexadecimal, or such ids with commas between; the well-known path of the (first) one is used
    unless `socket_path` names a service's socket. What is not given is taken from `environment`. `policy`: of this run, compiled
    (netcon.policy.Policy.environment). Raises NoNetwork,
    LibraryMissing.
    """
    made = dict(os.environ if environment is None else environment)
    if network is not None:
        made[NETWORK] = _network_text(network)
        made.pop("NETCON_NETWORK", None)
        if socket_path is None:
            made.pop(SOCKET, None)
    if socket_path is not None:
        made[SOCKET] = os.path.abspath(socket_path)
    if not made.get(NETWORK) and not made.get(SOCKET):
        raise NoNetwork("no network: give --network NWID (see 'netcon networks') or --socket PATH, or set ZT_NC_NWID")
    if policy is not None:
        made[POLICY] = policy
    library = str(library_path())
    others = [entry for entry in made.get(PRELOAD, "").replace(" ", ":").split(":") if entry and entry != library]
    made[PRELOAD] = ":".join([library, *others])
    return made


def _network_text(network: int | str) -> str:
    if isinstance(network, str) and "," in network:
        return ",".join(map(_network_text, network.split(",")))
    try:
        number = network if isinstance(network, int) else int(network, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 64:
        raise NoNetwork(f"{network!r} is not a network id: 16 hexadecimal digits, as 'netcon networks' shows them")
    return f"{number:016x}"


def find_program(name: str, search: str | None = None) -> Path:
    """The file that a shell would run. `search`: a PATH, default this process's. Raises ProgramNotFound."""
    if "/" in name:
        if not os.path.exists(name):
            raise ProgramNotFound(f"{name}: no such file")
        return Path(name)
    for folder in (os.environ.get("PATH", os.defpath) if search is None else search).split(":"):
        candidate = Path(folder or ".") / name
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # a folder that we may not enter is passed over
            return candidate
    raise ProgramNotFound(f"{name}: not found in PATH (is it installed?)")


def check_program(path: str | os.PathLike[str]) -> ProgramFile:
    """Would the loader preload the library into this program? Scripts are followed to their interpreter.

    Raises ProgramNotFound, or NotInterceptable with the reason.
    """
    program, seen = Path(path), str(path)
    chain: list[Path] = []
    for _ in range(_SCRIPT_DEPTH_MAX + 1):
        try:
            status = program.stat()
        except OSError as error:
            raise ProgramNotFound(f"{program}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
            raise NotInterceptable(f"{program}: is not an executable file")
        head = _head(program)
        if not head.startswith(b"#!"):
            break
        words = head[2:].split(b"\n", 1)[0].split(maxsplit=1)
        if not words:
            raise NotInterceptable(f"{program}: its first line names no interpreter")
        interpreter = Path(os.fsdecode(words[0]))
        if interpreter.name == "env" and len(words) == 2:
            command = words[1].split()[0]
            if not command.startswith(b"-") and b"=" not in command:
                _check_rights(interpreter, seen)
                interpreter = find_program(os.fsdecode(command))
        chain.append(program)
        program = interpreter
    else:
        raise NotInterceptable(f"{seen}: too many interpreters, one calling the other")
    _check_rights(program, seen)
    if is_elf(head):
        _check_elf(program)
    return ProgramFile(program, bool(head), is_elf(head), tuple(chain))


def _head(program: Path) -> bytes:
    """The first bytes; nothing if the file may be executed but not read, of which only the rights can be judged."""
    try:
        with program.open("rb") as file:
            return file.read(max(_SHEBANG_MAX, HEAD_SIZE))
    except PermissionError:
        return b""


def _check_rights(program: Path, seen: str) -> None:
    """As the kernel decides AT_SECURE, under which the loader ignores LD_PRELOAD."""
    status = program.stat()
    rights = ""
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        rights = "is set-user-id"
    elif status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getgid():
        rights = "is set-group-id"
    elif os.getuid() != 0 and _has_capabilities(program):
        rights = "has file capabilities"
    if rights:
        what = seen if str(program) == seen else f"{seen}: its interpreter {program}"
        raise NotInterceptable(
            f"{what} {rights}, so it ignores LD_PRELOAD and would use the host's network: run a copy without them "
            f"(cp {program} /some/folder), or run it outside of netcon, with a way in by `netcon forward` or `netcon proxy`"
        )


def _has_capabilities(program: Path) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _check_elf(program: Path) -> None:
    """Everything but ELF, the C library runs as a script of /bin/sh."""
    try:
        with program.open("rb") as file, library_path().open("rb") as library:
            elf, ours = Elf(file), Elf(library)
            if not elf.readable or elf.machine != ours.machine:
                raise NotInterceptable(
                    f"{program} is a program for {elf.machine_name}, the library is for {ours.machine_name}: "
                    f"use a build of it for {ours.machine_name}"
                )
            if elf.interpreter is None:
                kind = "statically linked (static-pie)" if elf.is_dynamic else "statically linked (as Go programs are)"
                raise NotInterceptable(
                    f"{program} is {kind}, makes its system calls itself, and would use the host's network: "
                    "use a dynamically linked build of it, or give it a way in with `netcon forward` or `netcon proxy`"
                )
            if elf.is_go:
                raise NotInterceptable(
                    f"{program} is a Go program: although dynamically linked it makes its system calls itself, and would use the "
                    "host's network: use a program that is not written in Go"
                )
    except DamagedElf as error:
        raise NotInterceptable(f"{program}: a damaged program file: {error}") from None
