"""`netcon ping`, and the system's ping under the intercept: ICMP echo between two members."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from netcon.cli.ping import CannotPing, Statistics, resolve
from netcon.service.detach import service_environment
from netcon.service.paths import rpc_socket
from tests.integration.lab import Lab, running_lab
from tests.integration.programs import command, find
from tests.service.running import RunningService

UNREACHABLE = "203.0.113.7"  # in no network


def netcon_ping(member: RunningService, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(member.home), "ping", *words]


def ping(member: RunningService, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        netcon_ping(member, *words), env=service_environment(), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("family", [4, 6])
def test_replies_and_statistics_look_like_pings(lab: Lab, family: int) -> None:
    address, overhead = (lab.address, 28) if family == 4 else (lab.address6, 8)
    done = ping(lab.b, f"-{family}", "-c", "3", "-i", "0.01", address)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"PING {address} ({address}) 56({56 + overhead}) bytes of data."
    for sequence, line in enumerate(lines[1:4], 1):
        assert re.fullmatch(rf"64 bytes from {address}: icmp_seq={sequence} ttl=\d+ time=[\d.e+]+ ms", line)
    assert lines[5] == f"--- {address} ping statistics ---"
    assert re.fullmatch(r"3 packets transmitted, 3 received, 0% packet loss, time \d+ms", lines[6])
    assert re.fullmatch(r"rtt min/avg/max/mdev = [\d.]+/[\d.]+/[\d.]+/[\d.]+ ms", lines[7])


@pytest.mark.parametrize("size", [0, 8, 4000])
def test_sizes_up_to_fragments(lab: Lab, size: int) -> None:
    done = ping(lab.b, "-c", "1", "-s", str(size), lab.address)
    assert done.returncode == 0, done.stdout
    assert f"{size + 8} bytes from {lab.address}: icmp_seq=1" in done.stdout


def test_a_list_of_networks_in_the_environment(lab: Lab) -> None:
    environment = {**service_environment(), "ZT_NC_NWID": f"{lab.network},8056c2e21c0000f1"}
    for destination, code in ((lab.address, 0), (UNREACHABLE, 1)):
        command = netcon_ping(lab.b, "-c", "1", "-W", "20", destination)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr


def test_our_own_address_answers(lab: Lab) -> None:
    assert ping(lab.b, "-c", "1", "--network", lab.network, lab.address_b).returncode == 0


def test_no_answer_is_exit_code_1(lab: Lab) -> None:
    free = next(f"10.147.0.{last}" for last in range(10, 20) if f"10.147.0.{last}" not in (lab.address, lab.address_b))
    done = ping(lab.b, "-c", "1", "-W", "0.2", "-q", free)
    assert done.returncode == 1
    assert "1 packets transmitted, 0 received" in done.stdout
    assert "100% packet loss" in done.stdout


def test_no_network_for_the_destination_is_told(lab: Lab) -> None:
    done = ping(lab.b, "-c", "1", "-W", "0.2", UNREACHABLE)
    assert done.returncode == 1
    assert f"From {UNREACHABLE} icmp_seq=1 Network is unreachable" in done.stdout
    assert "1 packets transmitted, 0 received, +1 errors" in done.stdout


def test_a_deadline_ends_it(lab: Lab) -> None:
    done = ping(lab.b, "-i", "0.01", "-w", "0.5", lab.address)
    assert done.returncode == 0
    assert "packets transmitted" in done.stdout


def test_an_interrupt_ends_it_with_the_summary(lab: Lab) -> None:
    with subprocess.Popen(netcon_ping(lab.b, lab.address), env=service_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "icmp_seq=1" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "ping statistics" in rest


def test_a_service_that_goes_away_ends_it(tmp_path: Path) -> None:
    with running_lab(tmp_path) as lab:
        words = netcon_ping(lab.b, "-i", "0.05", lab.address_b)
        with subprocess.Popen(words, env=service_environment(), stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while "icmp_seq=1" not in process.stdout.readline():
                pass
            lab.b.kill()
            told = process.stderr.read()
            assert "ping statistics" in process.stdout.read()
        assert process.returncode == 2
        assert "gone" in told or "reset" in told.lower()


def test_without_a_service_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    from netcon.cli.main import main

    result = CliRunner().invoke(main, ["-D", str(tmp_path), "ping", "10.0.0.1"])
    assert result.exit_code == 1
    assert "service -d" in result.output


def test_names_are_resolved_as_programs_on_the_network_see_them(lab: Lab) -> None:
    path = rpc_socket(lab.b.home)
    assert resolve("10.1.2.3", None, path, None) == "10.1.2.3"
    assert resolve("localhost", socket.AF_INET, path, lab.network) == "127.0.0.1"
    with pytest.raises(CannotPing, match="is an IPv4 address"):
        resolve("10.1.2.3", socket.AF_INET6, path, None)
    with pytest.raises(CannotPing, match="give the address"):
        resolve("no.such.name.invalid", None, path, lab.network)


def test_duplicates_are_counted_and_no_loss_is_below_zero() -> None:
    counted = Statistics(sent=2)
    assert counted.answered(1, 1.0)
    assert not counted.answered(1, 3.0)
    assert counted.summary("x", 7)[2] == "2 packets transmitted, 1 received, +1 duplicates, 50% packet loss, time 7ms"
    assert counted.summary("x", 7)[3] == "rtt min/avg/max/mdev = 1.000/1.000/1.000/0.000 ms"


def test_the_systems_ping_works_without_its_capability(lab: Lab, tmp_path: Path) -> None:
    """A plain copy has no file capability, so the loader preloads the library; its ICMP datagram socket is the service's."""
    copy = tmp_path / "ping"
    shutil.copyfile(find("ping"), copy)
    copy.chmod(0o755)
    assert "security.capability" not in os.listxattr(copy)
    done = subprocess.run(
        command(lab.b, lab.network, str(copy), "-n", "-c", "3", "-i", "0.2", lab.address),
        env=service_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 packets transmitted, 3 received, 0% packet loss" in done.stdout
    six = subprocess.run(
        command(lab.b, lab.network, str(copy), "-n", "-6", "-c", "2", "-i", "0.2", lab.address6),
        env=service_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 packets transmitted, 2 received, 0% packet loss" in six.stdout, six.stdout + six.stderr
