"""probe.c built for glibc and for musl: one library serves both, and calls that Python does not make work too."""

from __future__ import annotations

import pytest

from tests.intercept.conftest import ADDRESS, ADDRESS6, Service

WAYS = [
    "execv",
    "execve",
    "execvp",
    "execvpe",
    "execl",
    "execle",
    "execlp",
    "fexecve",
    "execveat",
    "syscall",
    "vfork",
    "posix_spawn",
    "posix_spawnp",
    "empty",
]


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
@pytest.mark.parametrize("command", ["data", "datagrams", "number", "threads", "title"])
def test_probe(service: Service, probe: str, command: str, address: str) -> None:
    assert service.succeeds(probe, command, address) == "done\n"


def test_after_chroot_and_closefrom(service: Service, probe: str) -> None:
    done = service.run([probe, "chroot", ADDRESS])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
    assert done.stderr.startswith(f"netcon: {service.path}: no service here"), done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_started_program_keeps_the_variables_and_nothing_else(service: Service, probe: str, way: str) -> None:
    environment = service.environment(ZT_NC_EXTRA="more", SECRET="dropped")
    done = service.run([probe, "start", way], ZT_NC_EXTRA="more", SECRET="dropped")
    assert done.returncode == 0, done.stdout + done.stderr
    own = [] if way == "empty" else ["OWN=1"]
    ours = ("LD_PRELOAD", "NETCON_", "ZT_NC_")
    kept = [f"{name}={value}" for name, value in environment.items() if name.startswith(ours)]
    assert sorted(done.stdout.splitlines()) == sorted(own + kept)


@pytest.mark.parametrize("way", WAYS)
def test_without_the_variables_an_environment_is_left_as_it_is(probe: str, library: str, way: str) -> None:
    import subprocess

    done = subprocess.run([probe, "start", way], env={"LD_PRELOAD": str(library)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ([] if way == "empty" else ["OWN=1"])
