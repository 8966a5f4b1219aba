"""Bulk data between unmodified programs: every byte, both ways, on many connections at once; and redis with small messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import streams
from tests.integration.lab import Lab
from tests.integration.nginx import running_nginx
from tests.integration.programs import find, output, server, wait_for_port

SIZE = 128 << 20
STREAMS = Path(streams.__file__)


@pytest.fixture(scope="module")
def stream_server(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = tmp_path_factory.mktemp("streams") / "log"
    with server(lab.a, lab.network, "python3", str(STREAMS), "serve", lab.address, "7000", log=log):
        wait_for_port(lab.b, lab.network, lab.address, 7000)
        yield 7000


def move(lab: Lab, port: int, what: str, size: int, count: int = 1) -> None:
    """The program compares the SHA-256 of what arrived itself, and fails if they differ."""
    words = (find("python3"), str(STREAMS), what, lab.address, str(port), str(size), str(count))
    seconds = json.loads(output(lab.b, lab.network, *words))["seconds"]
    total = size * count * (2 if what == "both" else 1)
    print(f"{what} of {count} x {size >> 20} MiB: {seconds:.2f} s, {total * 8 / seconds / 1e6:.0f} Mbit/s")


@pytest.mark.parametrize("what", ["download", "upload"])
def test_128_mib_arrive_unchanged(lab: Lab, stream_server: int, what: str) -> None:
    move(lab, stream_server, what, SIZE)


def test_eight_streams_each_way_at_once(lab: Lab, stream_server: int) -> None:
    move(lab, stream_server, "both", 2 << 20, 8)


def test_curl_downloads_128_mib_from_nginx(lab: Lab, tmp_path: Path) -> None:
    """sendfile at one end, a pipe at the other."""
    with running_nginx(lab.a, lab.network, tmp_path / "nginx", lab.b, lab.address) as nginx:
        with (nginx.site / "data").open("wb") as file:
            for block in streams.content(1, SIZE):
                file.write(block)
        data = output(lab.b, lab.network, "curl", "-sS", "--fail", f"http://{lab.address}/data")
    assert len(data) == SIZE
    assert hashlib.sha256(data).digest() == streams.digest(1, SIZE)


@pytest.fixture(scope="module")
def redis(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """A redis server on a; the words that begin a client's command line."""
    folder = tmp_path_factory.mktemp("redis")
    words = ("--bind", lab.address, "--port", "6379", "--protected-mode", "no", "--save", "", "--dir", str(folder))
    with server(lab.a, lab.network, "redis-server", *words, log=folder / "log"):
        wait_for_port(lab.b, lab.network, lab.address, 6379)
        yield "-h", lab.address, "-p", "6379"


def test_redis_keeps_what_redis_cli_gives_it(lab: Lab, redis: tuple[str, ...]) -> None:
    assert output(lab.b, lab.network, "redis-cli", *redis, "set", "key", "value") == b"OK\n"
    assert output(lab.b, lab.network, "redis-cli", *redis, "get", "key") == b"value\n"


def test_redis_benchmark_with_fifty_clients_and_pipelining(lab: Lab, redis: tuple[str, ...]) -> None:
    for more in ((), ("-P", "16")):
        report = output(lab.b, lab.network, "redis-benchmark", *redis, "-t", "set,get,lrange_100", "-n", "2000", "--csv", *more)
        rows = [line.split(",") for line in report.decode().splitlines() if line.startswith('"')]
        print(*rows[1:], sep="\n")
        assert [row[0].strip('"').split()[0] for row in rows[1:]] == ["SET", "GET", "LPUSH", "LRANGE_100"]
    assert int(output(lab.b, lab.network, "redis-cli", *redis, "llen", "mylist")) > 0
