"""A service whose programs are silent sleeps: at most four wake-ups a second, of all threads together (a limit of the product)."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.lab import Lab
from tests.integration.programs import server, wait_for_port
from tests.integration.waiter import WAITING, Waiter
from tests.service.running import RunningService

SECONDS = 10
WAKEUPS_PER_SECOND = 4
TRIES_TO_CALM_DOWN = 20


def wakeups(process: int) -> dict[str, int]:
    """How often each thread has gone to sleep of its own will, which is how often it has been woken."""
    found = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        lines = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
        found[f"{lines['Name']} {thread.name}"] = int(lines["voluntary_ctxt_switches"])
    return found


def rates(members: list[RunningService], seconds: float) -> list[dict[str, float]]:
    """Wake-ups a second of each member's threads over the next `seconds`."""
    before = [wakeups(member.process.pid) for member in members]
    begin = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begin
    after = [wakeups(member.process.pid) for member in members]
    return [
        {name: (count - earlier.get(name, 0)) / elapsed for name, count in later.items()}
        for earlier, later in zip(before, after, strict=True)
    ]


def test_idle_services_sleep(lab: Lab, tmp_path: Path) -> None:
    """The members have joined, know each other directly, and hold a listener and an open connection; the third is their root."""
    members = [lab.root, lab.a, lab.b]
    with server(lab.a, lab.network, "python3", WAITING, "hold", lab.address, "7000", log=tmp_path / "log"):
        wait_for_port(lab.b, lab.network, lab.address, 7000)
        client = Waiter(lab.b, lab.network, "read", lab.address, 7000)
        try:
            client.wait_until_it_waits()
            # Timers of what went before run out: TIME_WAIT, group reports, the worker thread's own wait.
            for _ in range(TRIES_TO_CALM_DOWN):
                if all(sum(threads.values()) <= WAKEUPS_PER_SECOND for threads in rates(members, 1)):
                    break
            measured = rates(members, SECONDS)
            for member, threads in zip(members, measured, strict=True):
                print(f"{member.home.name}: " + ", ".join(f"{name}: {rate:.1f}/s" for name, rate in threads.items()))
            assert max(sum(threads.values()) for threads in measured) <= WAKEUPS_PER_SECOND
            assert client.process.poll() is None
        finally:
            client.end()
