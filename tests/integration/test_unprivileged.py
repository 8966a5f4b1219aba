"""A machine account without any privilege: services and programs of a user with no capability, who cannot get one.

Everything here runs as nobody, with no_new_privs: roots, members, and the programs that use their network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab import Lab
from tests.integration.nat_lab import unprivileged_environment
from tests.integration.programs import command, find
from tests.netns_hosts import NOBODY
from tests.service.running import RunningService, World, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")

AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
DOMAIN = "lab.example"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where nobody may be; pytest's own folders are root's."""
    path = Path(tempfile.mkdtemp(prefix="netcon-nobody-"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    """Two members whose network has names; `web` is a."""
    world = World(folder, 2)
    for home in (world.root_home, *world.homes):
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    with contextlib.ExitStack() as stack:
        root, a, b = (
            stack.enter_context(RunningService(home, prefix=AS_NOBODY, environment=unprivileged_environment))
            for home in (world.root_home, *world.homes)
        )
        network = world.make_network(root)
        address, address6 = world.join(root, a, network)
        address_b, _ = world.join(root, b, network)
        yield Lab(world, root, a, b, network, address, address6, address_b)


def test_the_service_has_no_privilege(lab: Lab) -> None:
    for member in (lab.root, lab.a, lab.b):
        lines = Path(f"/proc/{member.process.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"


def run(member: RunningService, network: str, *words: str) -> str:
    done = subprocess.run(
        command(member, network, *words), env=unprivileged_environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(member: RunningService, network: str, log: Path, *words: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(member, network, *words),
            env=unprivileged_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def works(member: RunningService, network: str, *words: str) -> bool:
    return (
        subprocess.run(
            command(member, network, *words), env=unprivileged_environment(), capture_output=True, timeout=90, check=False
        ).returncode
        == 0
    )


def test_a_dns_server_on_port_53_that_dig_and_curl_use(lab: Lab, folder: Path, tmp_path: Path) -> None:
    """The name server is a program of nobody's on member a; the network names it, and curl finds the web server by its name."""
    site = folder / "site"
    site.mkdir()
    (site / "index.html").write_text("without privilege\n")
    script, controller = str(HERE / "dns_server.py"), f"/controller/network/{lab.network}"
    dns = {"domain": DOMAIN, "servers": [lab.address]}
    record = f"www.{DOMAIN}={lab.address}"
    with (
        running(lab.a, lab.network, tmp_path / "dns", sys.executable, script, lab.address, record),
        running(lab.a, lab.network, tmp_path / "http", sys.executable, "-m", "http.server", "-d", str(site), "80"),
    ):
        ask = ("dig", "+short", "+tries=1", "+time=2", f"@{lab.address}", f"www.{DOMAIN}")
        wait_until(lambda: works(lab.b, lab.network, *ask), "the name server")
        assert run(lab.b, lab.network, *ask).split() == [lab.address]
        lab.root.client.post(controller, {"dns": dns})
        wait_until(lambda: lab.b.client.get(f"/network/{lab.network}")["dns"] == dns, "the network's DNS configuration")
        wait_until(lambda: works(lab.b, lab.network, "curl", "-sS", f"http://{lab.address}/"), "the web server")
        assert run(lab.b, lab.network, "curl", "-sS", "--fail", f"http://www.{DOMAIN}/") == "without privilege\n"


def test_iperf3_over_udp(lab: Lab, tmp_path: Path) -> None:
    with running(lab.a, lab.network, tmp_path / "log", "iperf3", "-s", "-B", lab.address):
        words = ("iperf3", "-c", lab.address, "-u", "-b", "10M", "-n", "500K", "-l", "1200", "-J")
        wait_until(lambda: works(lab.b, lab.network, *words), "iperf3")


def test_ping_by_netcon_and_by_the_systems_binary(lab: Lab, folder: Path) -> None:
    netcon = [*AS_NOBODY, sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(lab.b.home), "ping", "-c", "1", lab.address]
    done = subprocess.run(netcon, env=unprivileged_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert "1 received" in done.stdout, done.stderr
    shutil.copyfile(find("ping"), folder / "ping")  # a copy has no file capability
    (folder / "ping").chmod(0o755)
    assert "1 received" in run(lab.b, lab.network, str(folder / "ping"), "-n", "-c", "1", lab.address)


@pytest.mark.parametrize("version", [4, 6])
def test_multicast_dns_between_two_members(lab: Lab, tmp_path: Path, version: int) -> None:
    script, log = str(HERE / "mdns.py"), tmp_path / "log"
    with running(lab.a, lab.network, log, sys.executable, "-u", script, "serve", lab.address, "web.local"):
        wait_until(lambda: "READY" in log.read_text(), "the responder")
        assert run(lab.b, lab.network, sys.executable, script, f"ask{version}", "web.local").strip() == lab.address
