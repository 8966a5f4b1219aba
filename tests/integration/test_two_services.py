"""Unmodified programs on two rootless services meet on an encrypted network."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.service.detach import service_environment
from tests.integration.lab import Lab
from tests.integration.programs import find, output, run, server, wait_for_port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("served on a virtual network\n")
    (folder / "data").write_bytes(b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(1 << 18)))
    return folder


@pytest.fixture(scope="module")
def http_server(lab: Lab, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = tmp_path_factory.mktemp("http") / "log"
    with server(lab.a, lab.network, "python3", "-m", "http.server", "--bind", "::", "-d", str(site), "8000", log=log):
        wait_for_port(lab.b, lab.network, lab.address, 8000)
        yield 8000


def test_curl_gets_a_page_from_pythons_http_server(lab: Lab, http_server: int) -> None:
    page = output(lab.b, lab.network, "curl", "-sS", "--fail", f"http://{lab.address}:{http_server}/")
    assert page == b"served on a virtual network\n"


def test_the_same_over_ipv6(lab: Lab, http_server: int) -> None:
    page = output(lab.b, lab.network, "curl", "-sS", "--fail", "-g", f"http://[{lab.address6}]:{http_server}/")
    assert page == b"served on a virtual network\n"


def test_a_file_arrives_whole(lab: Lab, http_server: int, site: Path) -> None:
    data = output(lab.b, lab.network, "curl", "-sS", "--fail", f"http://{lab.address}:{http_server}/data")
    assert hashlib.sha256(data).digest() == hashlib.sha256((site / "data").read_bytes()).digest()


def test_without_the_network_the_server_is_not_there(lab: Lab, http_server: int) -> None:
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", http_server), timeout=5):
        pass


def test_a_port_where_nobody_listens_refuses(lab: Lab) -> None:
    script = f"import socket; socket.create_connection(({lab.address!r}, 81), timeout=30)"
    result = run(lab.b, lab.network, "python3", "-c", script)
    assert b"ConnectionRefusedError: [Errno 111]" in result.stderr


def test_members_reach_each_other_directly(lab: Lab, http_server: int) -> None:
    output(lab.b, lab.network, "curl", "-sS", "--fail", f"http://{lab.address}:{http_server}/")
    peer = lab.b.client.get(f"/peer/{lab.a.address}")
    assert peer["role"] == "LEAF"
    assert [path["preferred"] for path in peer["paths"]] == [True]


def test_a_program_without_the_option_finds_the_network_by_its_destination(lab: Lab, http_server: int) -> None:
    command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(lab.b.home), "run", find("curl"), "-sS", "--fail"]
    page = subprocess.run(
        [*command, f"http://{lab.address}:{http_server}/"], env=service_environment(), capture_output=True, timeout=60, check=True
    )
    assert page.stdout == b"served on a virtual network\n"
