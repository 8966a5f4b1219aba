"""A program of the kernel's sockets through `netcon forward -L`, beside the same program under the intercept library, and beside
socat as the forwarder (under the library, too), in turns. The processor time is the forwarder's own.

python -m tests.bench.bench_forward [megabytes]
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from netcon.service.detach import service_environment
from tests.bench.two_services import PORT, PROGRAM, Networks, networks
from tests.integration.programs import find, server
from tests.service.running import wait_until
from tests.service.support import free_port

ROUNDS = 3
EXCHANGES = 2000


def cpu(pid: int) -> float:
    """Seconds of processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def through(port: int, *words: object) -> dict[str, float]:
    """What a program of the kernel's sockets says of its transfer to `port` of 127.0.0.1."""
    what, *rest = map(str, words)
    command = [find("python3"), PROGRAM, what, "127.0.0.1", str(port), *rest]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))


@contextlib.contextmanager
def netcon_forward(both: Networks) -> Iterator[tuple[int, int]]:
    """(port, process)."""
    command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(both.lab.b.home), "forward", "--network", both.lab.network]
    target = f"0:{both.lab.address}:{PORT}"
    process = subprocess.Popen([*command, "-L", target], env=service_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r":(\d+), for", process.stdout.readline())
        assert found is not None
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def socat(both: Networks, folder: str) -> Iterator[tuple[int, int]]:
    """(port, process); with our forward's size of a read."""
    port = free_port()
    words = (find("socat"), "-b", "262144", f"TCP-LISTEN:{port},bind=127.0.0.1,fork", f"TCP:{both.lab.address}:{PORT},nodelay")
    with server(both.lab.b, both.lab.network, *words, log=Path(folder) / "socat") as process:
        probe = [find("python3"), PROGRAM, "connect", "127.0.0.1", str(port), "1"]
        wait_until(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0, "socat")
        yield port, process.pid


def main() -> None:
    size = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 100_000_000
    with (
        tempfile.TemporaryDirectory() as folder,
        networks() as both,
        netcon_forward(both) as (forward, forward_pid),
        socat(both, folder) as (peer, peer_pid),
    ):
        ways: dict[str, tuple[Callable[..., dict[str, float]], int]] = {
            "intercepted": (both.netcon, os.getpid()),
            "forward": (lambda *words: through(forward, *words), forward_pid),
            "socat": (lambda *words: through(peer, *words), peer_pid),
        }
        print(f"one stream of {size // 1_000_000} MB, median of {ROUNDS}")
        for what, title in (("pull", "to the client"), ("push", "to the server")):
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            used = dict.fromkeys(ways, 0.0)
            for _ in range(ROUNDS):
                for name, (run, pid) in ways.items():
                    before = cpu(pid)
                    seconds[name].append(run(what, size)["seconds"])
                    used[name] += cpu(pid) - before
            rates = {name: size * 8 / statistics.median(each) / 1e6 for name, each in seconds.items()}
            each_gb = {name: used[name] / ROUNDS / size * 1e9 for name in ways}
            print(
                f"{title}: forward {rates['forward']:,.0f} Mbit/s, {each_gb['forward']:.2f} CPU s/GB; intercepted "
                f"{rates['intercepted']:,.0f}, ratio {rates['forward'] / rates['intercepted']:.2f}; socat {rates['socat']:,.0f}, "
                f"{each_gb['socat']:.2f} CPU s/GB, ratio {rates['forward'] / rates['socat']:.2f}"
            )
        for what, title, count in (
            ("exchange", "one byte and back", EXCHANGES),
            ("connect", "a connection with one exchange", EXCHANGES // 10),
        ):
            times = {name: run(what, count)["seconds"] / count * 1e6 for name, (run, _) in ways.items()}
            print(f"{title}, microseconds: " + ", ".join(f"{name} {time:,.0f}" for name, time in times.items()))


if __name__ == "__main__":
    main()
