"""`netcon forward` and `netcon proxy` beside real services, for programs that run without the intercept library."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from netcon.service.detach import service_environment
from tests.integration.lab import Lab
from tests.integration.programs import find, output, run, server, wait_for_port
from tests.service.running import wait_until
from tests.service.support import free_port

DATA = b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(1 << 18))
TIMEOUT_S = 60


@contextlib.contextmanager
def running(lab: Lab, *words: str, prefix: Sequence[str] = ()) -> Iterator[list[str]]:
    """A `netcon` command on member b, until SIGTERM, after which it must have ended well; yields the lines that it prints first."""
    listening = sum(word in ("-L", "-R", "--socks", "--http") for word in words)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(lab.b.home), *words, "--network", lab.network],
        env=service_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield [process.stdout.readline() for _ in range(listening)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def port_in(line: str) -> str:
    found = re.search(r":(\d+)(?:,|$)", line.strip())
    assert found is not None, line
    return found[1]


@pytest.fixture(scope="module")
def web(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on member a; its address and port."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "data").write_bytes(DATA)
    with server(lab.a, lab.network, "python3", "-m", "http.server", "--bind", "::", "-d", str(folder), "8000", log=folder / "log"):
        wait_for_port(lab.b, lab.network, lab.address, 8000)
        yield f"{lab.address}:8000"


def curl(*words: str) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [find("curl"), "-sS", "--fail", *words], env=environment, capture_output=True, check=True, timeout=TIMEOUT_S
    ).stdout


def same(got: bytes) -> bool:
    return hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()


def test_a_file_through_a_local_forward(lab: Lab, web: str) -> None:
    with running(lab, "forward", "-L", f"0:{web}") as (line,):
        assert same(curl(f"http://127.0.0.1:{port_in(line)}/data"))


def test_more_connections_than_the_soft_limit_of_descriptors(lab: Lab, web: str) -> None:
    prefix = [find("prlimit"), "--nofile=64:4096"]
    with running(lab, "forward", "-L", f"0:{web}", prefix=prefix) as (line,), contextlib.ExitStack() as stack:
        for _ in range(70):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", int(port_in(line))), TIMEOUT_S))
        stream.sendall(b"GET /none HTTP/1.0\r\n\r\n")
        assert b" 404 " in stream.recv(100)


def test_a_file_through_a_unix_socket_and_over_ipv6(lab: Lab, web: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with running(lab, "forward", "-L", f"{path}:[{lab.address6}]:8000"):
        assert same(curl("--unix-socket", path, "http://member/data"))


def test_a_file_out_of_the_network(lab: Lab) -> None:
    """Sent to a server of the host through member b's virtual address, by a program under the intercept on a."""
    received = hashlib.sha256()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def receive() -> None:
            stream, _ = listener.accept()
            with stream:
                while data := stream.recv(1 << 16):
                    received.update(data)
                stream.sendall(b"thanks")

        thread = threading.Thread(target=receive)
        thread.start()
        with running(lab, "forward", "-R", f"0:127.0.0.1:{listener.getsockname()[1]}") as (line,):
            script = (
                "import socket, hashlib; data = b''.join(hashlib.sha512(b'%d' % n).digest() for n in range(1 << 18));"
                f"s = socket.create_connection(({lab.address_b!r}, {port_in(line)}), 30); s.sendall(data);"
                "s.shutdown(socket.SHUT_WR); assert s.recv(100) == b'thanks'"
            )
            output(lab.a, lab.network, find("python3"), "-c", script)
        thread.join(TIMEOUT_S)
    assert received.digest() == hashlib.sha256(DATA).digest()


def test_curl_through_the_proxies(lab: Lab, web: str) -> None:
    with running(lab, "proxy", "--socks", "0", "--http", "0") as (socks, http):
        assert same(curl("--socks5-hostname", f"127.0.0.1:{port_in(socks)}", f"http://{web}/data"))
        assert same(curl("-x", f"http://127.0.0.1:{port_in(http)}", f"http://{web}/data"))
        assert same(curl("-p", "-x", f"http://127.0.0.1:{port_in(http)}", f"http://{web}/data"))


def test_a_static_program_that_cannot_be_intercepted(lab: Lab, web: str, tmp_path: Path) -> None:
    busybox = find("busybox")
    refused = run(lab.b, lab.network, busybox, "wget", f"http://{web}/data")
    assert refused.returncode == 126
    assert b"netcon forward" in refused.stderr

    def wget(url: str, **proxy: str) -> bytes:
        words = [busybox, "wget", "-q", "-O", "-", url]
        return subprocess.run(words, env=proxy, capture_output=True, check=True, timeout=TIMEOUT_S).stdout

    with running(lab, "forward", "-L", f"0:{web}") as (line,):
        assert same(wget(f"http://127.0.0.1:{port_in(line)}/data"))
    with running(lab, "proxy", "--http", "0") as (line,):
        assert same(wget(f"http://{web}/data", http_proxy=f"http://127.0.0.1:{port_in(line)}"))


@pytest.mark.parametrize("kind", ["socks", "http"])
def test_ncat_through_a_proxy_with_credentials(lab: Lab, web: str, kind: str) -> None:
    """As ssh's ProxyCommand would call it."""
    with running(lab, "proxy", f"--{kind}", "0", "--auth", "bob:secret") as (line,):
        proxy = ["--proxy", f"127.0.0.1:{port_in(line)}", "--proxy-type", {"socks": "socks5"}.get(kind, kind)]
        words = [find("ncat"), "--no-shutdown", *proxy, *web.split(":")]
        request = b"GET /data HTTP/1.0\r\n\r\n"
        for password, good in (("secret", True), ("wrong", False)):
            done = subprocess.run(
                [*words, "--proxy-auth", f"bob:{password}"], input=request, capture_output=True, timeout=TIMEOUT_S, check=False
            )
            assert same(done.stdout.partition(b"\r\n\r\n")[2]) is good, done.stderr


@pytest.mark.parametrize("back", [[], ["-R"]], ids=["there", "back"])
def test_iperf3_with_its_tcp_and_udp_forwarded(lab: Lab, tmp_path: Path, back: list[str]) -> None:
    port = free_port()
    with (
        server(lab.a, lab.network, "iperf3", "-s", "-p", "5201", log=tmp_path / "log"),
        running(lab, "forward", "-L", f"{port}:{lab.address}:5201", "-L", f"udp:{port}:{lab.address}:5201"),
    ):
        words = [find("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-u", "-b", "10M", "-n", "1M", "-l", "1200", "-J", *back]
        said: list[dict[str, Any]] = []

        def attempt() -> bool:
            """Until the server listens: it would take a probe for a client."""
            said.append(json.loads(subprocess.run(words, capture_output=True, check=False, timeout=TIMEOUT_S).stdout))
            return "error" not in said[-1]

        wait_until(attempt, "iperf3 is served")
        total = said[-1]["end"]["sum"]
        assert total["packets"] > total["lost_packets"]


def test_dig_through_a_udp_forward(lab: Lab) -> None:
    """A question and its answer, by a name server of ten lines under the intercept."""
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 5353))\n"
        "while True:\n"
        "    q, peer = s.recvfrom(512); end = q.index(b'\\0', 12) + 5\n"
        "    head = q[:2] + bytes.fromhex('84000001000100000000')\n"
        "    s.sendto(head + q[12:end] + bytes.fromhex('c00c000100010000000a0004c0000207'), peer)\n"
    )
    with (
        server(lab.a, lab.network, find("python3"), "-c", script, log=lab.a.home.parent / "dns.log"),
        running(lab, "forward", "-u", "-L", f"0:{lab.address}:5353") as (line,),
    ):
        words = [find("dig"), "@127.0.0.1", "-p", port_in(line), "+short", "+noedns", "+tries=20", "+time=2", "name.example"]
        answer = subprocess.run(words, capture_output=True, timeout=TIMEOUT_S, check=False).stdout
    assert answer.split()[-1] == b"192.0.2.7"  # after the tries that came before the name server had started


def test_faults_are_said_in_one_line(lab: Lab) -> None:
    def fails(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(lab.b.home), *words]
        result = subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert result.returncode in (1, 2)
        assert "Traceback" not in result.stderr
        return result.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another port" in fails("forward", "-L", f"{taken.getsockname()[1]}:10.1.2.3:80")
    assert "[udp:][bind:]port:host:hostport" in fails("forward", "-L", "80")
    assert "not an address of ours" in fails("forward", "-R", "10.9.9.9:80:localhost:80")
    assert "give -L or -R" in fails("forward")
    assert "--socks or --http" in fails("proxy")
    assert "NAME:PASSWORD" in fails("proxy", "--socks", "0", "--auth", "name")
