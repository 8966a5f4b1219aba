"""Real programs that speak UDP, unmodified, through one service: both ends on its own address."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.intercept.conftest import ADDRESS, ADDRESS6, PATIENCE, Service

#: A DNS server on port 53: every name has one address.
DNS_SERVER = """
import socket, struct, sys
server = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    query, client = server.recvfrom(2000)
    end = 12
    while query[end]:
        end += query[end] + 1
    answer = b'\\xc0\\x0c' + struct.pack('!HHIH', 1, 1, 60, 4) + bytes([10, 77, 0, 42])
    server.sendto(query[:2] + b'\\x85\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + query[12:end + 5] + answer, client)
"""


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


def until(attempt: Callable[[], bool], what: str) -> None:
    """Tries until a server that has no other way to say that it is there answers."""
    deadline = time.monotonic() + PATIENCE
    while not attempt():
        assert time.monotonic() < deadline, what


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_dig(real_service: Service, address: str) -> None:
    needs("dig")
    command = ["dig", "+short", "+time=1", "+tries=1", f"@{address}", "member.test"]
    with real_service.running([sys.executable, "-c", DNS_SERVER, address]):
        until(lambda: real_service.run(command).stdout == "10.77.0.42\n", "dig got no answer")


def test_iperf3_by_udp(real_service: Service) -> None:
    needs("iperf3")
    command = ["iperf3", "-c", ADDRESS, "-u", "-b", "20M", "-n", "1M", "-J"]
    with real_service.running(["iperf3", "-s", "-B", ADDRESS]):
        reports: list[subprocess.CompletedProcess[str]] = []

        def attempt() -> bool:
            reports.append(real_service.run(command))
            return "error" not in json.loads(reports[-1].stdout)

        until(attempt, "iperf3 reached no server")
    total = json.loads(reports[-1].stdout)["end"]["streams"][0]["udp"]
    assert total["packets"] > 100
    assert total["lost_packets"] < total["packets"]  # a full queue drops, as on any host


def test_netcat_listens_and_answers(real_service: Service) -> None:
    """It peeks, connects to who has sent, and then reads."""
    needs("nc")
    server = subprocess.Popen(
        ["nc", "-u", "-l", ADDRESS, "7777"],
        env=real_service.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        real_service.python("""
import time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((ADDRESS, 7777))
while True:
    error(client.send, b'question\\n')
    client.settimeout(0.2)
    try:
        client.recv(99)
    except TimeoutError:
        break  # somebody heard it
    except ConnectionRefusedError:
        time.sleep(0.02)
""")
        assert server.stdout is not None
        assert server.stdout.readline() == "question\n"
    finally:
        server.kill()
        server.communicate(timeout=PATIENCE)
