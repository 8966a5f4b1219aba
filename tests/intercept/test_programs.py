"""Real programs, unmodified, through one service: both ends on its own address."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.intercept.conftest import ADDRESS, ADDRESS6, PATIENCE, Service

MEGABYTE = 1 << 20


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a server that has no other way to say that it listens."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def listens(service: Service, address: str, port: int) -> bool:
    code = f"import socket; socket.create_connection(({address!r}, {port})).close()"
    return service.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "small.txt").write_text("hello\n")
    (folder / "large.bin").write_bytes(os.urandom(8 * MEGABYTE))
    for one in [tmp_path, *tmp_path.parents[:2]]:  # not the temporary folder itself
        one.chmod(0o755)
    return folder


@pytest.mark.parametrize(("address", "url"), [(ADDRESS, f"http://{ADDRESS}:8001"), (ADDRESS6, f"http://[{ADDRESS6}]:8001")])
def test_python_http_server_and_curl(real_service: Service, content: Path, tmp_path: Path, address: str, url: str) -> None:
    command = [sys.executable, "-m", "http.server", "--bind", address, "8001"]
    with real_service.running(command, folder=content):
        until(lambda: listens(real_service, address, 8001), "http.server does not listen")
        assert real_service.succeeds("curl", "-sS", "--fail", f"{url}/small.txt") == "hello\n"
        got = tmp_path / "got"
        real_service.succeeds("curl", "-sS", "--fail", "-o", str(got), f"{url}/large.bin")
        expected = hashlib.sha256((content / "large.bin").read_bytes()).digest()
        assert hashlib.sha256(got.read_bytes()).digest() == expected
        refused = real_service.run(["curl", "-sS", f"http://{ADDRESS}:8999/"])
        assert refused.returncode == 7, refused.stderr  # CURLE_COULDNT_CONNECT


@pytest.fixture
def nginx(tmp_path: Path, content: Path) -> tuple[Path, Path]:
    """nginx's configuration and prefix."""
    prefix = tmp_path / "nginx"
    prefix.mkdir()
    (prefix / "temp").mkdir()
    temporary = "\n".join(
        f"{kind}_temp_path {prefix}/temp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = prefix / "nginx.conf"
    configuration.write_text(f"""
daemon off;
user root;
worker_processes 2;
pid {prefix}/pid;
error_log {prefix}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    {temporary}
    server {{
        listen {ADDRESS}:80;
        listen [{ADDRESS6}]:80;
        root {content};
        location /proxied/ {{ proxy_pass http://{ADDRESS}:80/; }}
    }}
}}
""")
    return configuration, prefix


def test_nginx_with_ab_and_curl(real_service: Service, nginx: tuple[Path, Path], content: Path, tmp_path: Path) -> None:
    configuration, prefix = nginx
    with real_service.running(["nginx", "-c", str(configuration), "-p", str(prefix)]) as server:
        until(lambda: (prefix / "pid").exists() and listens(real_service, ADDRESS, 80), "nginx does not listen")
        for options in (["-n", "5000", "-k", "-c", "50"], ["-n", "1000", "-c", "20"]):
            report = real_service.succeeds("ab", "-q", *options, f"http://{ADDRESS}/small.txt")
            assert re.search(r"Failed requests:\s+0\n", report), report
            assert re.search(rf"Complete requests:\s+{options[1]}\n", report), report
        got = tmp_path / "got"
        for url in (f"http://{ADDRESS}/large.bin", f"http://[{ADDRESS6}]/large.bin", f"http://{ADDRESS}/proxied/large.bin"):
            real_service.succeeds("curl", "-sS", "--fail", "-o", str(got), url)
            assert got.read_bytes() == (content / "large.bin").read_bytes()
        # A reload executes nothing, but starts new workers on the same listeners, under load.
        load = subprocess.Popen(
            ["ab", "-q", "-n", "2000", "-c", "10", f"http://{ADDRESS}/small.txt"],
            env=real_service.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        server.send_signal(1)
        report, _ = load.communicate(timeout=PATIENCE)
        assert re.search(r"Failed requests:\s+0\n", report), report
    assert "crit" not in (prefix / "error.log").read_text()


def test_redis_and_its_command_line(real_service: Service, tmp_path: Path) -> None:
    command = ["redis-server", "--bind", ADDRESS, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", str(tmp_path)]
    with real_service.running(command):
        until(lambda: listens(real_service, ADDRESS, 6379), "redis does not listen")
        client = ["redis-cli", "-h", ADDRESS]
        assert real_service.succeeds(*client, "set", "key", "value") == "OK\n"
        assert real_service.succeeds(*client, "get", "key") == "value\n"
        report = real_service.succeeds("redis-benchmark", "-h", ADDRESS, "-q", "-n", "2000", "-c", "20", "-t", "set,get")
        assert "SET" in report
        assert "GET" in report
