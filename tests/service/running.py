"""Services as processes of their own, for tests; and small private worlds of them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netcon.service.client import Client
from netcon.service.detach import service_command, service_environment
from tests.service.support import IDENTITIES, free_port, make_home, private_planet

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; AssertionError when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}, in vain"
        time.sleep(0.05)
    return value


class RunningService:
    """A service process on `home`. As a context manager it is stopped, and must end well, unless the test killed it."""

    def __init__(
        self,
        home: Path,
        *options: str,
        prefix: Sequence[str] = (),
        environment: Callable[[], dict[str, str]] = service_environment,
        module: str = "netcon.service",
    ) -> None:
        """`prefix`: words before the command, which run it elsewhere or as somebody else. `module`: what to run."""
        self.home = home
        self.prefix = list(prefix)
        self.log = home.parent / f"{home.name}.log"
        read_end, write_end = os.pipe()
        command = service_command(home, None, "--ready-fd", str(write_end), *options)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *(module if word == "netcon.service" else word for word in command)],
                env=environment() | {"NETCON_PLANET": "private"},
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(write_end)
        try:
            readable, _, _ = select.select([read_end], [], [], DEADLINE_S)
            ready = bool(readable) and os.read(read_end, 1) == b"1"
        finally:
            os.close(read_end)
        if not ready:
            self.kill()
            raise AssertionError(f"the service on {home} did not start: {self.log.read_text()}")
        self.client = Client(home)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def address(self) -> str:
        return str(self.client.get("/status")["address"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.client:
            if self.process.poll() is not None:
                return
            code = self.stop()
        if kind is None:
            assert code == 0, self.log.read_text()


class World:
    """A private planet on 127.0.0.1: one service that is root and controller, and members that can be started and stopped."""

    def __init__(self, folder: Path, members: int) -> None:
        port = free_port()
        planet = private_planet(IDENTITIES[0], port)
        self.root_home = make_home(folder / "root", IDENTITIES[0], planet, port=port)
        self.homes = [make_home(folder / f"m{number}", IDENTITIES[number], planet) for number in range(1, members + 1)]

    def make_network(self, root: RunningService, **more: Any) -> str:
        body = {
            "name": "lab",
            "routes": [{"target": "10.147.0.0/24", "via": None}],
            "ipAssignmentPools": [{"ipRangeStart": "10.147.0.1", "ipRangeEnd": "10.147.0.254"}],
            "v4AssignMode": {"zt": True},
            "v6AssignMode": {"rfc4193": True},
            **more,
        }
        return str(root.client.post("/controller/network", body)["id"])

    def join(self, root: RunningService, member: RunningService, network: str) -> list[str]:
        """Join and authorise; returns the member's addresses, IPv4 first."""
        root.client.post(f"/controller/network/{network}/member/{member.address}", {"authorized": True})
        member.client.post(f"/network/{network}", {})
        return wait_for_addresses(member, network)


def wait_for_addresses(member: RunningService, network: str) -> list[str]:
    def addresses() -> list[str]:
        state = member.client.get(f"/network/{network}")
        found = [address.partition("/")[0] for address in state["assignedAddresses"]]
        return sorted(found, key=lambda address: ":" in address) if state["status"] == "OK" else []

    found: list[str] = wait_until(addresses, f"an address on network {network}")
    return found


@contextlib.contextmanager
def running_world(folder: Path, members: int) -> Iterator[tuple[World, RunningService, list[RunningService]]]:
    """A world whose root and members all run."""
    world = World(folder, members)
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(RunningService(world.root_home))
        yield world, root, [stack.enter_context(RunningService(home)) for home in world.homes]
