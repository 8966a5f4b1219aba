"""Rules of a network, given by command, hold for programs: connections to a port are dropped, whichever side asks (vl2 §4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from netcon.cli.main import main
from tests.integration.lab import Lab
from tests.integration.programs import run, server, wait_for_port
from tests.service.running import RunningService, wait_until

OPEN, SHUT = 8081, 8080
RULES = f"""
drop
    ipprotocol tcp
    and dport {SHUT}
;
accept;
"""


@pytest.fixture(scope="module")
def servers(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "index.html").write_text("through\n")

    def serve(member: RunningService, port: int) -> AbstractContextManager[object]:
        words = ("python3", "-m", "http.server", "-d", str(folder), str(port))
        return server(member, lab.network, *words, log=folder / f"log{port}{member.address}")

    with serve(lab.a, OPEN), serve(lab.a, SHUT), serve(lab.b, SHUT):
        for member, host, port in ((lab.b, lab.address, OPEN), (lab.b, lab.address, SHUT), (lab.a, lab.address_b, SHUT)):
            wait_for_port(member, lab.network, host, port)
        yield


def set_rules(lab: Lab, text: str, path: Path) -> None:
    path.write_text(text)
    words = ["-D", str(lab.root.home), "rules", "compile", str(path), "--set", lab.network]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output


def fetched(member: RunningService, network: str, host: str, port: int) -> bool:
    result = run(member, network, "curl", "-sS", "--fail", "--connect-timeout", "3", f"http://{host}:{port}/")
    assert result.returncode in (0, 28), result.stderr  # 28: timed out
    return result.returncode == 0


def test_a_port_is_shut_and_opened_again(lab: Lab, servers: None, tmp_path: Path) -> None:
    set_rules(lab, RULES, tmp_path / "shut")
    wait_until(lambda: not fetched(lab.b, lab.network, lab.address, SHUT), "the new rules at b")
    wait_until(lambda: not fetched(lab.a, lab.network, lab.address_b, SHUT), "the new rules at a")
    assert fetched(lab.b, lab.network, lab.address, OPEN)
    set_rules(lab, "accept;", tmp_path / "open")
    wait_until(lambda: fetched(lab.b, lab.network, lab.address, SHUT), "the port's opening")
    wait_until(lambda: fetched(lab.a, lab.network, lab.address_b, SHUT), "the port's opening on the other side")
