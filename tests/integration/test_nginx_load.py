"""nginx with two workers on one member, ab on the other, neither changed: not one request fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from netcon.service.detach import service_environment
from tests.integration.lab import Lab
from tests.integration.nginx import Nginx, running_nginx
from tests.integration.programs import TIMEOUT_S, command, output
from tests.service.running import wait_until


@pytest.fixture(scope="module")
def nginx(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(lab.a, lab.network, tmp_path_factory.mktemp("nginx"), lab.b, lab.address) as nginx:
        yield nginx


def assert_none_failed(report: str, requests: int) -> None:
    """`report`: what ab printed. It leaves lines out whose count is zero, except for the first two."""
    print(*re.findall(r"^(?:Requests per second|Time taken).*", report, re.MULTILINE), sep="\n")
    counts = {name: int(count) for name, count in re.findall(r"^([\w -]+):\s+(\d+)$", report, re.MULTILINE)}
    assert counts["Complete requests"] == requests, report
    assert counts["Failed requests"] == 0, report
    assert counts.get("Non-2xx responses", 0) == 0, report
    assert counts.get("Write errors", 0) == 0, report


def test_ten_thousand_requests_over_kept_connections(lab: Lab, nginx: Nginx) -> None:
    report = output(lab.b, lab.network, "ab", "-q", "-k", "-c", "50", "-n", "10000", f"http://{lab.address}/").decode()
    assert_none_failed(report, 10_000)
    assert re.search(r"^Keep-Alive requests:\s+10000$", report, re.MULTILINE), report


def test_two_thousand_requests_with_a_connection_each(lab: Lab, nginx: Nginx) -> None:
    report = output(lab.b, lab.network, "ab", "-q", "-c", "50", "-n", "2000", f"http://{lab.address}/").decode()
    assert_none_failed(report, 2_000)


def test_reloads_under_load_lose_no_request(lab: Lab, nginx: Nginx) -> None:
    """SIGHUP replaces both workers, which take the same listening sockets over, while connections are made and accepted."""
    requests = 2_000
    load = subprocess.Popen(
        command(lab.b, lab.network, "ab", "-q", "-c", "20", "-n", str(requests), f"http://{lab.address}/"),
        env=service_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        reloads = 0
        while load.poll() is None and reloads < 5:
            before = nginx.workers()
            os.kill(nginx.master, signal.SIGHUP)
            wait_until(lambda before=before: len(nginx.workers() - before) == 2 and not nginx.workers() & before, "new workers")
            reloads += 1
        report = load.communicate(timeout=TIMEOUT_S)[0].decode()
    finally:
        load.kill()
        load.wait()
    print(f"{reloads} reloads")
    assert_none_failed(report, requests)
    assert reloads >= 1
