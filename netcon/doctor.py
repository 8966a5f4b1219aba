"""Will a program work under the intercept library, how, and if not, why and what to do: what `netcon doctor` finds out.

Each check appends findings to a report, and goes on as far as it makes sense after a failure. The service is asked over its own
doors; the program itself is never started, only its loader, which lists the libraries that it would load.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from netcon import kernel_facts
from netcon.elf import DamagedElf, Elf
from netcon.intercept import (
    PRELOAD,
    InterceptError,
    NotInterceptable,
    ProgramFile,
    ProgramNotFound,
    check_program,
    find_program,
    library_path,
    run_environment,
)
from netcon.service.client import Client, RequestFailed, ServiceNotRunning
from netcon.service.paths import api_socket
from netcon.service.socket_rpc import hello

#: Functions of a C library that make, name or move sockets, or start programs.
INTERESTING = re.compile(
    r"^(_*)(socket|bind$|listen$|accept|connect$|recv|send|getpeername|getsock|setsock|shutdown$|ioctl$|sockatmark|syscall$|exec[lv]|fexecve|"
    r"posix_spawn|system$|popen$|getaddrinfo|gethostby|getnameinfo|getifaddrs|if_name|if_index|res_|bindresvport|poll$|ppoll|select$|pselect|"
    r"epoll_|fork$|vfork$|splice|dup[23]?$|close_range|io_uring)"
)
#: The C library and the loader, which call their own functions from inside, where nothing can be wrapped.
C_LIBRARY = re.compile(r"(libc|libm|libdl|librt|libpthread|libresolv|libc\.musl-\w+|ld-linux.*|ld-musl.*)(\.so|-\d)")

_LISTING_S, _SELF_TEST_S = 20, 30
_CACHE_NUMBER = 900  # intercept/src/kept.h: the connection to the service is kept from here on
_FEW_DESCRIPTORS = 64
_OK = "OK"

#: Run under the library: is what `socket` gives really one end of a pair? The pair is AF_UNIX, so the kernel lists its inode there.
_SELF_TEST = """
import os, socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
inode = str(os.fstat(made.fileno()).st_ino)
with open("/proc/self/net/unix") as table:
    sys.exit(0 if any(line.split()[6] == inode for line in table if len(line.split()) > 6) else 3)
"""


class Level(StrEnum):
    FINE = "ok"
    NOTE = "note"
    WARNING = "warning"
    FATAL = "error"


class Finding(NamedTuple):
    """`about`: program, library, service, network, kernel or limits. `advice`: what to do next, empty if there is nothing to do."""

    level: Level
    about: str
    text: str
    advice: str = ""


class SymbolTable(NamedTuple):
    """Of intercept/symbols.toml, which lies beside the library."""

    wrapped: frozenset[str]
    left: dict[str, str]
    """Name to reason."""


def load_symbols() -> SymbolTable:
    """LibraryMissing, or OSError if the table is not beside the library."""
    table = tomllib.loads(library_path().with_name("symbols.toml").read_text(encoding="utf-8"))
    wrapped = frozenset(entry["name"] for entry in table["symbol"] if entry["kind"] != "number")
    return SymbolTable(wrapped, {name: group["reason"] for group in table["left"] for name in group["names"]})


class Doctor:
    """One examination. `socket_path`: of the service that programs would use; None if there is none, and `no_service` tells why."""

    def __init__(self, home: Path, network: str | None = None, socket_path: Path | None = None, no_service: str = "") -> None:
        self.findings: list[Finding] = []
        self._home = home
        self._network = network
        self._socket_path = socket_path
        self._no_service = no_service

    @property
    def works(self) -> bool:
        return all(finding.level is not Level.FATAL for finding in self.findings)

    def _add(self, level: Level, about: str, text: str, advice: str = "") -> None:
        self.findings.append(Finding(level, about, text, advice))

    def examine(self, program: str | None) -> None:
        self._check_kernel()
        self._check_limits()
        if self._check_library() and self._check_service():
            self._check_networks()
            self._try_out()
        if program is not None:
            self._check_program(program)

    # -- where we are --

    def _check_kernel(self) -> None:
        facts = kernel_facts.check()
        failed = [fact for fact in facts if fact.problem]
        if kernel_facts.seccomp_mode() == 2:
            self._add(Level.NOTE, "kernel", "a seccomp filter is in force here; what it refuses, programs cannot use")
        for fact in failed:
            if fact.needed:
                advice = "leave the sandbox, or let its filter pass this; netcon cannot do without"
                self._add(Level.FATAL, "kernel", f"not here: {fact.what} ({fact.problem})", advice)
            else:
                self._add(Level.NOTE, "kernel", f"not here: {fact.what} ({fact.problem}); private files are used instead")
        if not any(fact.needed for fact in failed):
            self._add(Level.FINE, "kernel", f"{os.uname().release} does all {len(facts) - len(failed)} things that netcon needs")

    def _check_limits(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft <= _FEW_DESCRIPTORS:
            advice = f"raise it: ulimit -n {min(hard, 1024) if hard >= 0 else 1024}"
            self._add(Level.WARNING, "limits", f"a process may have {soft} open files only; each request needs two", advice)
        elif soft <= _CACHE_NUMBER:
            text = f"a process may have {soft} open files: no connection to the service is kept (above {_CACHE_NUMBER})"
            self._add(Level.NOTE, "limits", text, "ulimit -n 1024")
        if os.environ.get("LD_BIND_NOW"):
            self._add(Level.NOTE, "limits", "LD_BIND_NOW is set; that makes no difference")

    def _check_library(self) -> bool:
        try:
            path = library_path()
        except InterceptError as error:
            self._add(Level.FATAL, "library", str(error))
            return False
        try:
            with path.open("rb") as file:
                ours = Elf(file)
                wrapped = ours.exports
        except (OSError, DamagedElf) as error:
            self._add(Level.FATAL, "library", f"{path}: {error}", "reinstall netcon")
            return False
        if wrapped != load_symbols().wrapped:
            advice = "build both again: python setup.py build_ext --inplace"
            self._add(Level.FATAL, "library", f"{path} and its table symbols.toml are of different versions", advice)
        else:
            self._add(Level.FINE, "library", f"{path} wraps {len(wrapped)} functions")
        for other in filter(None, re.split("[: ]", os.environ.get(PRELOAD, ""))):
            if other != str(path):
                self._check_other_preloaded(Path(other), wrapped)
        return True

    def _check_other_preloaded(self, path: Path, wrapped: frozenset[str]) -> None:
        try:
            with path.open("rb") as file:
                both = sorted(Elf(file).exports & wrapped)
        except (OSError, DamagedElf):
            return  # the loader looks for it elsewhere, and says what it thinks of it
        if both:
            text = f"LD_PRELOAD has {path} too, which wraps {', '.join(both[:5])}{' …' if both[5:] else ''}; netcon goes first"
            self._add(Level.WARNING, "library", text, "take it out of LD_PRELOAD if it is there for the network")

    # -- the service --

    def _check_service(self) -> bool:
        if self._socket_path is None:
            self._add(Level.FATAL, "service", self._no_service)
            return False
        path = self._socket_path
        try:
            hello(path)
        except OSError as error:
            if error.errno == errno.EPROTO:
                text, advice = f"{path}: the service speaks another version of socket RPC", "restart the service with this netcon"
            elif error.errno == errno.EACCES:
                text, advice = (
                    f"{path}: this user may not use the service",
                    "its owner can let you in; or start your own",
                )
            else:
                text, advice = f"{path}: no service answers ({error.strerror or error})", f"netcon -D {self._home} service -d"
            self._add(Level.FATAL, "service", text, advice)
            return False
        self._add(Level.FINE, "service", f"answers at {path}")
        return True

    def _check_networks(self) -> None:
        if not api_socket(self._home).exists():
            self._add(Level.NOTE, "network", f"nothing is known of its networks: {self._home} is not the service's home", "-D HOME")
            return
        with Client(self._home) as client:
            try:
                status, networks = client.get("/status"), client.get("/network")
            except (ServiceNotRunning, RequestFailed) as error:
                self._add(Level.WARNING, "network", str(error))
                return
        if not status["online"]:
            self._add(Level.WARNING, "network", "the node is offline: no root answers", "see `netcon peers`; may UDP leave?")
        chosen = [network for network in networks if self._network is None or network["id"] in self._network.split(",")]
        if not chosen:
            name = f"network {self._network}" if self._network else "any network"
            advice = f"netcon -D {self._home} join {self._network or 'NETWORK'}"
            self._add(Level.FATAL, "network", f"the service has not joined {name}: there is nowhere to connect to", advice)
        judged = [self._judge_network(network, str(status["address"])) for network in chosen]
        some = any(finding.level is Level.FINE for finding in judged)
        for finding in judged:
            # One of several that does not work is no reason for a program not to.
            self.findings.append(finding._replace(level=Level.WARNING) if some and finding.level is Level.FATAL else finding)

    def _judge_network(self, network: dict[str, Any], member: str) -> Finding:
        number, status = network["id"], network["status"]
        addresses = ", ".join(network["assignedAddresses"])
        if status == _OK and addresses:
            return Finding(Level.FINE, "network", f"{number} {network['name']}: {addresses}")
        problem, advice = {
            _OK: ("joined, but without an address", "the controller's owner assigns one"),
            "ACCESS_DENIED": ("not authorised", f"the controller's owner authorises member {member}"),
            "REQUESTING_CONFIGURATION": ("its controller has not answered yet", f"is {number[:10]} up, and a root reachable?"),
            "NOT_FOUND": ("its controller does not know it", "check the network id"),
            "AUTHENTICATION_REQUIRED": ("asks for single sign-on, which netcon does not have", "use a network without it"),
        }.get(status, (status, "see `netcon networks`"))
        return Finding(Level.FATAL, "network", f"{number}: {problem}", advice)

    def _try_out(self) -> None:
        """A Python under the library makes a socket: library, loader and service fit together."""
        environment = run_environment(network=self._network, socket_path=self._socket_path)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _SELF_TEST],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SELF_TEST_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self._add(Level.FATAL, "library", f"the trial under it failed: {error}")
            return
        if done.returncode == 0:
            self._add(Level.FINE, "library", "a socket that was made under it belongs to the service")
        elif done.returncode == 3:
            text = "a socket that was made under it is the kernel's: the loader did not preload it"
            self._add(Level.FATAL, "library", text, "see `LD_DEBUG=libs netcon run /bin/true`")
        else:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            told = next((line for line in why if line.startswith("netcon:")), why[-1])
            self._add(Level.FATAL, "library", f"no socket could be made under it: {told}", "restart the service")

    # -- the program --

    def _check_program(self, name: str) -> None:
        try:
            found = check_program(find_program(name))
        except ProgramNotFound as error:
            self._add(Level.FATAL, "program", str(error))
            return
        except NotInterceptable as error:
            self._add(Level.FATAL, "program", str(error))
            return
        via = "".join(f"{script} → " for script in found.chain)
        if not found.readable:
            text = f"{via}{found.path} may be executed but not read: whether it is statically linked is not known"
            self._add(Level.WARNING, "program", text, "look as a user who may read it")
            return
        if not found.is_elf:
            self._add(Level.FINE, "program", f"{via}{found.path} has no #! line: it runs as a script of /bin/sh")
            found = ProgramFile(Path("/bin/sh"), True, True, found.chain)
        try:
            with found.path.open("rb") as file:
                self._check_elf(found, via, Elf(file))
        except (OSError, DamagedElf) as error:
            self._add(Level.FATAL, "program", f"{found.path}: {error}")
        self._check_confinement(found)

    def _check_elf(self, found: ProgramFile, via: str, elf: Elf) -> None:
        interpreter = elf.interpreter or ""
        known = next((name for part, name in (("ld-musl", "musl"), ("ld-linux", "glibc")) if part in interpreter), None)
        library = known or f"the C library of {interpreter}"
        if not os.path.exists(interpreter):
            text = f"{found.path} needs the loader {interpreter}, which is not here: it cannot run at all"
            self._add(Level.FATAL, "program", text, f"install {library}, or a build for this system")
            return
        listed = self._list_libraries(interpreter, found.path)
        if listed is None:
            return
        how = ", bound at start" if elf.binds_now else ""
        self._add(Level.FINE, "program", f"{via}{found.path}: {elf.machine_name}, dynamically linked to {library}{how}")
        if known is None:
            self._add(Level.WARNING, "program", f"the library was made for glibc and musl, not for {library}", "try it with care")
        self._check_symbols(found.path, listed)

    def _list_libraries(self, interpreter: str, program: Path) -> list[Path] | None:
        """What the loader would load, ours included; None if the program cannot run."""
        environment = run_environment(socket_path=self._socket_path or "/")
        try:
            done = subprocess.run(
                [interpreter, "--list", str(program)],
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LISTING_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self._add(Level.FATAL, "program", f"its loader {interpreter} does not answer: {error}")
            return None
        missing = re.findall(
            r"^\s*(\S+) => not found|Error loading shared library (\S+?):", done.stdout + done.stderr, re.MULTILINE
        )
        if missing:
            names = ", ".join(sorted({one or other for one, other in missing}))
            self._add(Level.FATAL, "program", f"{program} lacks libraries and cannot run at all: {names}", "install them")
            return None
        paths = [Path(match[1]) for match in re.finditer(r"^\s*(?:\S+ => )?(/\S+)(?: \(0x|$)", done.stdout, re.MULTILINE)]
        if library_path() not in paths:
            why = (done.stderr.strip().splitlines() or ["it gives no reason"])[0]
            text = f"the loader of {program} would not preload the library: {why}"
            self._add(Level.FATAL, "program", text, "may this user read netcon's folder?")
            return None
        return [path for path in paths if path != library_path()]

    def _check_symbols(self, program: Path, libraries: Sequence[Path]) -> None:
        table = load_symbols()
        objects = [program, *(path for path in libraries if path != program and not C_LIBRARY.match(path.name))]
        unknown: dict[str, list[str]] = {}
        wrapped: set[str] = set()
        left: set[str] = set()
        for path in objects:
            with path.open("rb") as file:
                imports = Elf(file).imports
            wrapped |= imports & table.wrapped
            left |= imports & table.left.keys()
            for name in sorted(filter(INTERESTING.match, imports - table.wrapped - table.left.keys())):
                unknown.setdefault(name, []).append(path.name)
        # What a library of the program's own defines under such a name is no function of the C library.
        own: set[str] = set()
        for path in objects:
            with path.open("rb") as file:
                own |= Elf(file).exports
        for name in sorted(unknown.keys() - own):
            text = f"{', '.join(unknown[name])} uses {name}, which the library does not know: that call is the host's"
            self._add(Level.WARNING, "program", text, "watch it with `netcon trace`, and report it")
        if not wrapped:
            text = "neither it nor its libraries import a function that the library wraps"
            self._add(Level.NOTE, "program", text, "if it loads plug-ins that do, these are wrapped")
        else:
            self._add(Level.FINE, "program", f"uses {len(wrapped)} functions that the library wraps")
        for reason in dict.fromkeys(table.left[name] for name in sorted(left)):
            names = ", ".join(sorted(name for name in left if table.left[name] == reason))
            self._add(Level.NOTE, "left", f"left alone: {names}: {reason}")
        names_of = {path.name.split(".so")[0] for path in libraries}
        if "liburing" in names_of:
            text = "uses io_uring, by which it can reach the host's network past the library"
            self._add(Level.WARNING, "program", text, "switch it off in the program, or set the sysctl kernel.io_uring_disabled=2")
        if "libseccomp" in names_of:
            text = "may confine itself by seccomp; its filter must let sendmsg, recvmsg and getsockname pass"
            self._add(Level.NOTE, "program", text, "if it is killed, switch its sandbox off")

    def _check_confinement(self, found: ProgramFile) -> None:
        """AppArmor: a profile in force may forbid to map the library or to reach the service's socket."""
        profile = Path("/etc/apparmor.d") / str(found.path.resolve()).lstrip("/").replace("/", ".")
        try:
            enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
            confined = enabled and profile.exists()
        except OSError:
            return
        if confined:
            text = f"AppArmor has the profile {profile}, which may forbid the library or the service's socket"
            self._add(Level.WARNING, "program", text, f"if it fails: allow {library_path()} mr, in it, and the socket rw")
