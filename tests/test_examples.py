"""The programs of examples/ do what their texts say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDRESS = r"[0-9a-f]{10}"


def run(name: str, *options: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(ROOT / "examples" / f"{name}.py"), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "NETCON_PLANET": "private"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_nodes_show_identities_networks_and_addresses() -> None:
    shown = run("nodes")
    nodes = re.findall(rf"node ({ADDRESS})  online\n  identity ({ADDRESS}):0:[0-9a-f]{{128}}\n", shown)
    assert len(nodes) == 3
    assert all(node == identity for node, identity in nodes)
    assert len(set(re.findall(r"  network ([0-9a-f]{16}) example: ", shown))) == 1
    assert len(set(re.findall(r"10\.121\.15\.[0-9]+/24, fd[0-9a-f:]+/88", shown))) == 3


def test_nodes_lists_only_networks_if_asked() -> None:
    lines = run("nodes", "-n", "2", "--nwids").splitlines()
    assert len(lines) == 2
    assert len(set(lines)) == 1
    assert re.fullmatch(r"[0-9a-f]{16}", lines[0])


def test_frames_reach_one_node_and_all_nodes() -> None:
    lines = run("frames").splitlines()
    got = [
        re.match(rf"({ADDRESS}) got (for me |for all) from [0-9a-f:]{{17}}: hello (\w+), here is ({ADDRESS})", line)
        for line in lines
    ]
    assert all(got)
    nodes = {match[1] for match in got if match}
    personal = {(match[1], match[3]) for match in got if match and match[2] == "for me "}
    everybody = {(match[1], match[4]) for match in got if match and match[2] == "for all"}
    assert personal == {(node, node) for node in nodes}
    assert everybody == {(node, other) for node in nodes for other in nodes if node != other}
    assert (len(nodes), len(lines)) == (3, 9)


def test_ping_and_pong() -> None:
    lines = run("ping_pong", "--count", "5").splitlines()
    assert [line.split()[:2] for line in lines] == [["pong", str(number)] for number in range(5)] * 2


def test_scapy_builds_and_answers_an_echo() -> None:
    shown = run("scapy_ping6")
    assert re.search(r"^fd12:3456::[0-9a-f]+ is at [0-9a-f:]{17}$", shown, re.MULTILINE)
    assert "Echo Reply (id: 0x7 seq: 0x1)" in shown


def test_events_say_why_a_frame_was_dropped() -> None:
    arrived, by_rule, no_bridge = run("why_dropped").splitlines()
    assert arrived == "arrived: this one arrives"
    assert "'filterReason': 'rule 2'" in by_rule
    assert "'sourceMac': '02:00:00:00:00:01'" in no_bridge


def test_every_example_is_named_in_the_readme_and_tested() -> None:
    names = {file.stem for file in (ROOT / "examples").glob("[a-z]*.py")}
    readme, tests = (ROOT / "examples" / "README.md").read_text(), Path(__file__).read_text()
    assert all(f"`{name}.py`" in readme and f'run("{name}"' in tests for name in names)
