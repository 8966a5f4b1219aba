"""Running programs that wait in a call (waiting.py), and what the call gave in the end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from netcon.service.detach import service_environment
from tests.integration import waiting
from tests.integration.programs import command, find
from tests.service.running import DEADLINE_S, RunningService, wait_until

WAITING = str(Path(waiting.__file__))


class Waiter:
    """A running waiting.py."""

    def __init__(self, member: RunningService, network: str, call: str, address: str, port: int) -> None:
        self.call = call
        self.process = subprocess.Popen(
            command(member, network, find("python3"), WAITING, call, address, str(port)),
            env=service_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_it_waits(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "READY\n", self.call
        status = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: status.read_text().rpartition(") ")[2][0] == "S", f"{self.call} to sleep")

    def outcome(self, seconds: float = DEADLINE_S) -> str:
        """What the call gave; "nothing" if it does not end."""
        try:
            return self.process.communicate(timeout=seconds)[0].strip()
        except subprocess.TimeoutExpired:
            return "nothing"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def outcomes(waiters: list[Waiter]) -> dict[str, str]:
    """What each call gave, and in how much time the last of them."""
    begin = time.monotonic()
    found = {waiter.call: waiter.outcome() for waiter in waiters}
    print(f"{len(found)} programs went on after {(time.monotonic() - begin) * 1000:.0f} ms: {found}")
    return found
