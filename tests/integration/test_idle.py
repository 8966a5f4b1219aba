"""A service whose programs are silent sleeps: at most four wake-ups a second, of all its threads together (a limit of the product)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.lab import Lab
from tests.integration.programs import server, wait_for_port
from tests.integration.waiter import Waiter
from tests.integration.waiting import __file__ as waiting
from tests.service.running import RunningService

SECONDS = 10
WAKEUPS_PER_SECOND = 4


def wakeups(process: int) -> dict[str, int]:
    """How often each thread has gone to sleep of its own will, which is how often it has been woken."""
    found = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        lines = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
        found[f"{lines['Name']} {thread.name}"] = int(lines["voluntary_ctxt_switches"])
    return found


def test_idle_services_sleep(lab: Lab, tmp_path: Path) -> None:
    """Both members have joined, know each other directly, and hold an open connection and a listener."""

    def assert_sleeps(member: RunningService, before: dict[str, int], seconds: float) -> None:
        rates = {name: (count - before.get(name, 0)) / seconds for name, count in wakeups(member.process.pid).items()}
        print(f"{member.home.name}: " + ", ".join(f"{name}: {rate:.1f}/s" for name, rate in rates.items()))
        assert sum(rates.values()) <= WAKEUPS_PER_SECOND

    with server(lab.a, lab.network, "python3", waiting, "hold", lab.address, "7000", log=tmp_path / "log") as holder:
        wait_for_port(lab.b, lab.network, lab.address, 7000)
        client = Waiter(lab.b, lab.network, "read", lab.address, 7000)
        try:
            client.wait_until_it_waits()
            members = [lab.root, lab.a, lab.b]
            before = [wakeups(member.process.pid) for member in members]
            begin = time.monotonic()
            with pytest.raises(subprocess.TimeoutExpired):
                holder.wait(SECONDS)
            seconds = time.monotonic() - begin
            for member, earlier in zip(members, before, strict=True):
                assert_sleeps(member, earlier, seconds)
            assert client.process.poll() is None
        finally:
            client.end()
