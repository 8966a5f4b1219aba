"""The same programs on two networks, for benches: netcon's, between two services on this machine, and the kernel's loopback.

What is compared is measured in turns, so that a machine that is busy for a while hurts both; ratios hold between machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.integration import streams
from tests.integration.lab import Lab, running_lab
from tests.integration.programs import find, output, server, wait_for_port
from tests.service.running import wait_until
from tests.service.support import free_port

PROGRAM = str(Path(streams.__file__))
PORT = 7000


class Networks:
    """A server of byte streams on each network, and clients that measure."""

    def __init__(self, lab: Lab, loopback_port: int) -> None:
        self.lab = lab
        self._loopback_port = loopback_port

    def netcon(self, *words: object) -> dict[str, float]:
        what, *rest = map(str, words)
        command = (find("python3"), PROGRAM, what, self.lab.address, str(PORT), *rest)
        return dict(json.loads(output(self.lab.b, self.lab.network, *command)))

    def kernel(self, *words: object) -> dict[str, float]:
        what, *rest = map(str, words)
        command = [find("python3"), PROGRAM, what, "127.0.0.1", str(self._loopback_port), *rest]
        return dict(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))

    def cpu(self) -> float:
        """Seconds of processor time that the two services have used."""
        ticks = 0
        for member in (self.lab.a, self.lab.b):
            fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def compare(self, rounds: int, *words: object) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """What both networks say in `rounds` turns."""
        pairs = [(self.netcon(*words), self.kernel(*words)) for _ in range(rounds)]
        return [ours for ours, _ in pairs], [kernel for _, kernel in pairs]


def median(said: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in said)


def print_buffers(both: Networks, ours: dict[str, float], kernel: dict[str, float]) -> None:
    """What is in effect: as the programs see it, and the services' UDP sockets."""
    for name, said in (("netcon", ours), ("kernel", kernel)):
        print(f"    {name}, a connected socket says: SO_SNDBUF {said['SO_SNDBUF']:,.0f}, SO_RCVBUF {said['SO_RCVBUF']:,.0f}")
    limits = {name: int(Path(f"/proc/sys/net/core/{name}").read_text()) for name in ("wmem_max", "rmem_max")}
    sockets = subprocess.run(["ss", "-Huanpm"], capture_output=True, text=True, check=True).stdout
    memory = re.search(rf"pid={both.lab.a.process.pid},.*?\n?.*?rb(\d+),.*?tb(\d+)", sockets)
    assert memory is not None, sockets
    print(f"    a service's UDP socket: {int(memory[2]):,} to send, {int(memory[1]):,} to receive; limits {limits}")


@contextlib.contextmanager
def networks() -> Iterator[Networks]:
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder) / "world") as lab:
        port = free_port()
        kernel_server = subprocess.Popen([find("python3"), PROGRAM, "serve", "127.0.0.1", str(port)])
        try:
            found = Networks(lab, port)
            words = (find("python3"), PROGRAM, "serve", lab.address, str(PORT))
            with server(lab.a, lab.network, *words, log=Path(folder) / "log"):
                wait_for_port(lab.b, lab.network, lab.address, PORT)
                probe = [find("python3"), PROGRAM, "connect", "127.0.0.1", str(port), "1"]
                wait_until(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0, "the kernel's server")
                yield found
        finally:
            kernel_server.kill()
            kernel_server.wait()
