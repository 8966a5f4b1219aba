"""`netcon policy` against a running service, and `netcon run --policy`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from netcon.cli.main import main
from netcon.policy import Policy
from tests.service.running import RunningService, running_world

LINES = "loopback virtual\n10.0.0.0/8 tcp 80 refuse\nraw allow\ndefault host\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_world(tmp_path_factory.mktemp("policy"), 0) as (_, root, _):
        yield root


def netcon(service: RunningService, *words: str, given: str | None = None, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["-D", str(service.home), *words], input=given)
    assert result.exit_code == code, result.output
    return result.output


def test_the_policy_is_set_shown_and_kept(service: RunningService, tmp_path: Path) -> None:
    assert [line.split("  ")[0] for line in netcon(service, "policy").splitlines()] == [
        "loopback host",
        "names refuse",
        "default refuse",
        "raw refuse",
    ]
    netcon(service, "policy", "set", "-", given=LINES + "# a remark\n")
    shown = netcon(service, "policy", "show")
    assert "loopback virtual          # line 1" in shown
    assert "default host" in shown
    assert json.loads(netcon(service, "policy", "show", "--json"))["policy"] == LINES
    kept = json.loads((service.home / "local.conf").read_text())
    assert Policy.parse(kept["settings"]["policy"]) == Policy.parse(LINES)
    (tmp_path / "bad").write_text("loopback host\nany thing\n")
    assert "line 2, column 5" in netcon(service, "policy", "set", str(tmp_path / "bad"), code=1)


def test_explain(service: RunningService) -> None:
    netcon(service, "policy", "set", "-", given=LINES)
    for words, expected in (
        (["10.1.1.1", "--port", "80"], "refuse (line 2: 10.0.0.0/8 tcp 80 refuse)"),
        (["10.1.1.1", "--port", "80", "--udp"], "host (no line, and no network has a way to it)"),
        (["::1"], "virtual (line 1: loopback virtual)"),
        (["::1", "--run", "loopback host"], "host (the run's line 1: loopback host)"),
    ):
        assert netcon(service, "policy", "explain", *words).strip() == expected
    question = ("policy", "explain", "127.0.0.53", "--udp", "--port", "53")
    for text, expected in (("", "answered by the service"), ("names host", "host (no line"), ("loopback host", "host (line 1")):
        netcon(service, "policy", "set", "-", given=text)
        assert netcon(service, *question).startswith(expected)
    assert "names are resolved" in netcon(service, "policy", "explain", "example.org", code=1)


def test_a_run_with_a_wrong_policy_does_not_start(service: RunningService, tmp_path: Path) -> None:
    assert "--policy: line 1, column 1" in netcon(service, "run", "--policy", "nonsense", "true", code=1)
    (tmp_path / "policy").write_text("raw allow")
    assert "netcon policy set" in netcon(service, "run", "--policy", str(tmp_path / "policy"), "true", code=1)
