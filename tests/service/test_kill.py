"""A controller that is killed in the middle of writes: everything that it acknowledged is found again (issue 4)."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from netcon.service.client import Client, ServiceNotRunning
from tests.service.running import RunningService, World

WRITERS = 4
ROUNDS = 6


class Writer(threading.Thread):
    """Makes, changes and deletes records of its own, one after the other, until the service is gone.

    `acknowledged`: what the answers say there is, by path, None where it was deleted. `under_way`: the one path whose last change
    was not answered, and what it would have made of it.
    """

    def __init__(
        self, number: int, home: Path, network: str, seed: int, known: dict[str, str | None], answered: threading.Semaphore
    ):
        super().__init__()
        self.number = number
        self.acknowledged = known
        self.under_way: tuple[str, str | None] | None = None
        self.failure: BaseException | None = None
        self._client = Client(home)
        self._network = network
        self._random = random.Random(seed)
        self._answered = answered

    def run(self) -> None:
        try:
            with self._client:
                for count in range(1_000_000):
                    self._write(count)
                    self._answered.release()
        except (ServiceNotRunning, httpx.HTTPError, ValueError):
            pass  # killed: perhaps in the middle of an answer
        except BaseException as error:
            self.failure = error

    def _write(self, count: int) -> None:
        address = f"{0x1000000000 + (self.number << 16) + self._random.randrange(12):010x}"
        path = f"/controller/network/{self._network}/member/{address}"
        if self.acknowledged.get(path) is not None and self._random.random() < 0.2:
            self.under_way = path, None
            self._client.delete(path)
            self.acknowledged[path] = None
        else:
            name = f"{count} {self._random.random()}"
            self.under_way = path, name
            body: dict[str, Any] = {"name": name, "authorized": self._random.random() < 0.5}
            self._client.post(path, body)
            self.acknowledged[path] = name
        self.under_way = None


# Who asks after the kill is refused the connection, and httpcore leaves the Unix socket of a connection that failed to the garbage
# collector (SyncBackend.connect_unix_socket).
@pytest.mark.filterwarnings("ignore:unclosed <socket.socket fd=[0-9]+, family=1,:ResourceWarning")
def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    generator = random.Random(4)
    network = ""
    known: list[dict[str, str | None]] = [{} for _ in range(WRITERS)]
    unanswered: list[tuple[str, str | None]] = []
    writes = 0
    for number in range(ROUNDS + 1):
        with RunningService(world.root_home) as service:
            if number == 0:
                network = world.make_network(service)
            for writer in known:
                for path, name in writer.items():
                    found = service.client.raw("GET", path)
                    actual = found.json()["name"] if found.status_code == 200 else None
                    possible = {name, *(value for where, value in unanswered if where == path)}
                    assert actual in possible, f"{path} after {number} kills: {actual!r}, not {possible}"
                    writer[path] = actual
            if number == ROUNDS:
                break
            answered = threading.Semaphore(0)
            writers = [
                Writer(index, world.root_home, network, generator.randrange(1 << 30), known[index], answered)
                for index in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            for _ in range(generator.randrange(20, 120)):
                assert answered.acquire(timeout=30)
                writes += 1
            service.kill()
            with Client(world.root_home) as late, pytest.raises(ServiceNotRunning, match="Connection refused"):
                late.get("/status")
            for writer in writers:
                writer.join(30)
                assert not writer.is_alive()
                assert writer.failure is None
            unanswered = [writer.under_way for writer in writers if writer.under_way is not None]
            for path, _ in unanswered:
                known[int(path[-10:], 16) >> 16 & 0xFF].setdefault(path, None)
    assert writes >= 20 * ROUNDS
