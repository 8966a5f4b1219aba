"""`netcon demo`: a private world on this machine, from nothing to a real nginx and a real curl that meet on a virtual network.

Everything lies in one temporary folder and runs as an unprivileged user: called by root, the demo first becomes `nobody`. Each
process that it starts leads a process group of its own, which is ended in the reverse order of its start, whatever happened; should
the demo itself be killed, the kernel kills them (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from netcon.cli.common import Failure
from netcon.core.actions import Endpoint
from netcon.core.world import Root, make_planet
from netcon.service.client import Client
from netcon.service.detach import service_command, service_environment
from netcon.service.home import Home
from netcon.service.settings import RANDOM_PORTS

_PROGRAMS = {
    "nginx": "nginx-light",
    "curl": "curl",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "python3": "python3",
    "setpriv": "util-linux",
}
_SUBNET = "10.144.0"
_DEADLINE_S = 60
_TRANSFER_DEADLINE_S = 600
_POLL_S = 0.1
_PAGE = "Hello from nginx, on an encrypted network that only these two processes share.\n"
_LOOPBACK = bytes((127, 0, 0, 1))


@click.command(short_help="Show a private network on this machine.")
@click.option("--megabytes", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Size of the download.")
def demo(megabytes: int) -> None:
    """Start a root, a controller and two members on this machine, and let real programs talk over their encrypted network.

    Needs nginx, curl and redis, but no privilege, and leaves nothing behind.
    """
    _check_programs()
    if os.geteuid() == 0:
        _become_nobody(megabytes)
    os.environ["NETCON_PLANET"] = "private"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="netcon-demo-"))
    interfaces = _interfaces()
    show = Demo(folder)
    try:
        show.run(megabytes)
        if _interfaces() != interfaces:
            raise Failure(f"this machine's interfaces changed: {sorted(_interfaces() ^ interfaces)}")
        click.echo(f"\nThis machine's interfaces are what they were: {', '.join(sorted(interfaces))}")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        show.close()
        shutil.rmtree(folder, ignore_errors=True)
    click.echo("Done; nothing is left behind.")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Failure(f"interrupted by {signal.Signals(number).name}; everything was stopped and removed")


def _interfaces() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def _check_programs() -> None:
    missing = sorted({package for program, package in _PROGRAMS.items() if _find(program) is None})
    if missing:
        raise Failure(f"the demo needs more programs: apt-get install {' '.join(missing)}")


def _become_nobody(megabytes: int) -> NoReturn:
    """Start again as `nobody`, without groups, capabilities or root's environment."""
    nobody = pwd.getpwnam("nobody")
    drop = [
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
    ]
    environment = {
        **{key: value for key, value in service_environment().items() if key in ("PATH", "PYTHONPATH", "LANG", "TERM")},
        "HOME": "/nonexistent",
        "TMPDIR": "/tmp",
    }
    python = [sys.executable, "-P"]
    os.chdir("/")
    probe = subprocess.run([*drop, *python, "-c", "import netcon.cli.demo"], env=environment, capture_output=True, check=False)
    if probe.returncode:
        raise Failure(
            f"user {nobody.pw_name} cannot read {Path(sys.executable).parent} or netcon itself: install into a prefix that other "
            "users may read (`make demo` does), or call the demo as an ordinary user"
        )
    sys.stdout.flush()
    os.execvpe("setpriv", [*drop, *python, "-m", "netcon.cli.main", "demo", f"--megabytes={megabytes}"], environment)


class Demo:
    """What is running, in the order of its start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    # -- processes --

    def start(self, name: str, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to a file of its name."""
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env=service_environment(),
                **options,
            )
        self._running.append((name, process))
        return process

    def output(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace").strip()

    def check_running(self) -> None:
        for name, process in self._running:
            if process.poll() is not None:
                raise Failure(f"{name} ended with status {process.returncode}: {self.output(name) or 'it said nothing'}")

    def close(self) -> None:
        """End everything, the last first."""
        for _, process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def poll(self, what: str, seconds: float = _DEADLINE_S) -> Iterator[None]:
        """Each turn of a loop that waits for `what`; Failure when it takes too long or a process ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_running()
            yield
            time.sleep(_POLL_S)
        raise Failure(f"waited {seconds:g} s for {what}, in vain")

    # -- services --

    def start_service(self, name: str) -> Client:
        home = self.folder / name
        read_end, write_end = os.pipe()
        try:
            process = self.start(name, service_command(home, None, "--ready-fd", str(write_end)), pass_fds=[write_end])
        finally:
            os.close(write_end)
        try:
            readable, _, _ = select.select([read_end], [], [], _DEADLINE_S)
            if not readable or not os.read(read_end, 1):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                raise Failure(f"service {name} did not start: {self.output(name)}")
        finally:
            os.close(read_end)
        return Client(home)

    def program(self, member: str, network: str, *command: str) -> list[str]:
        """The command that runs a program on a member's network."""
        netcon = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(self.folder / member)]
        program, *arguments = command
        return [*netcon, "run", "--network", network, _find(program) or program, *arguments]

    def ask(self, network: str, *command: str, seconds: float = _DEADLINE_S) -> str:
        """What a program on member b prints, once it succeeds."""
        for _ in self.poll(f"`{' '.join(command)}`", seconds):
            result = subprocess.run(
                self.program("b", network, *command),
                env=service_environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=seconds,
            )
            if result.returncode == 0:
                return result.stdout.decode(errors="replace").strip()
        raise AssertionError("poll ends by an exception")

    # -- the show --

    def run(self, megabytes: int) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        _step(f"Everything runs as {user} (user id {os.geteuid()}), in {self.folder}")
        self._make_world()
        _step("Starting three services: one that is root and controller, and the members a and b")
        with self.start_service("root") as root, self.start_service("a") as a, self.start_service("b") as b:
            network = self._make_network(root)
            addresses = {name: self._join(network, name, api, root) for name, api in (("a", a), ("b", b))}
            target = addresses["a"]
            self._show_nginx(network, target)
            self._show_download(network, target, megabytes)
            self._show_peers(b)
        self._show_python(network, target)
        self._show_redis(network, target)

    def _make_world(self) -> None:
        _step("Making a planet of our own: the only root is on this machine, and only on 127.0.0.1")
        port = _free_port()
        homes = {name: Home(self.folder / name) for name in ("root", "a", "b")}
        identity = homes["root"].identity()
        planet = make_planet(
            secrets.randbits(63) | 1, time.time_ns() // 1_000_000, [Root(identity, (Endpoint(_LOOPBACK, port),))], os.urandom(64)
        )
        for name, home in homes.items():
            settings = {
                "primaryPort": port if name == "root" else 0,
                "allowSecondaryPort": False,
                "allowLoopbackPaths": True,
                "bind": ["127.0.0.1"],
            }
            home.write("planet", planet.encode())
            home.write("local.conf", json.dumps({"settings": settings}).encode())

    def _make_network(self, root: Client) -> str:
        body = {
            "name": "demo",
            "private": True,
            "routes": [{"target": f"{_SUBNET}.0/24", "via": None}],
            "ipAssignmentPools": [{"ipRangeStart": f"{_SUBNET}.1", "ipRangeEnd": f"{_SUBNET}.254"}],
            "v4AssignMode": {"zt": True},
            "v6AssignMode": {"rfc4193": True},
        }
        network = str(root.post("/controller/network", body)["id"])
        _step(f"The controller made the private network {network}")
        return network

    def _join(self, network: str, name: str, api: Client, root: Client) -> str:
        """Join and authorise a member; returns its IPv4 address."""
        node = api.get("/status")["address"]
        api.post(f"/network/{network}", {})
        root.post(f"/controller/network/{network}/member/{node}", {"authorized": True})
        for _ in self.poll(f"an address for member {name}"):
            state = api.get(f"/network/{network}")
            if state["assignedAddresses"] and state["status"] == "OK":
                break
        addresses = [address.partition("/")[0] for address in state["assignedAddresses"]]
        _step(f"Member {name} ({node}) joined and has {' and '.join(addresses)}")
        return str(next(address for address in addresses if ":" not in address))

    def _show_nginx(self, network: str, target: str) -> None:
        _step(f"nginx, unmodified, under the intercept on a, port 80 without any privilege; curl on b gets http://{target}/")
        site = self.folder / "site"
        site.mkdir()
        (site / "index.html").write_text(_PAGE)
        (self.folder / "nginx.conf").write_text(_NGINX_CONF.format(folder=self.folder))
        self.start("nginx", self.program("a", network, "nginx", "-e", "stderr", "-p", str(self.folder), "-c", "nginx.conf"))
        answer = self.ask(network, "curl", "-sS", "--fail", "--max-time", "10", f"http://{target}/")
        if answer != _PAGE.strip():
            raise Failure(f"the answer is not nginx's page: {answer!r}")
        click.echo(f"    {answer}")

    def _show_download(self, network: str, target: str, megabytes: int) -> None:
        digest, block = hashlib.sha256(), os.urandom(1_000_000)
        with (self.folder / "site" / "data").open("wb") as file:
            for number in range(megabytes):
                part = number.to_bytes(8) + block[8:]
                digest.update(part)
                file.write(part)
        received = self.folder / "received"
        report = self.ask(
            network,
            "curl",
            "-sS",
            "--fail",
            "-o",
            str(received),
            "-w",
            "%{speed_download} %{time_total}",
            f"http://{target}/data",
            seconds=_TRANSFER_DEADLINE_S,
        )
        speed, seconds = map(float, report.split())
        with received.open("rb") as file:
            arrived = hashlib.file_digest(file, "sha256").hexdigest()
        if arrived != digest.hexdigest():
            raise Failure(f"the download is damaged: SHA-256 {arrived}, sent {digest.hexdigest()}")
        _step(f"{megabytes} MB from nginx to curl in {seconds:.1f} s, {speed * 8 / 1e6:.0f} Mbit/s, SHA-256 equal: {arrived[:16]}…")

    def _show_peers(self, api: Client) -> None:
        _step("Whom b knows, and how it reaches them:")
        for peer in api.get("/peer"):
            path = next((path["address"] for path in peer["paths"] if path["preferred"]), "through the root")
            click.echo(f"    {peer['address']} {peer['role']:<6} {path}")

    def _show_python(self, network: str, target: str) -> None:
        server = self.program("a", network, "python3", "-m", "http.server", "--directory", str(self.folder / "site"), "8000")
        self.start("http.server", server)
        answer = self.ask(network, "curl", "-sS", "--fail", "--max-time", "10", f"http://{target}:8000/index.html")
        if answer != _PAGE.strip():
            raise Failure(f"the answer is not the page: {answer!r}")
        _step(f"python3 -m http.server on a answers curl on b at http://{target}:8000/")

    def _show_redis(self, network: str, target: str) -> None:
        options = ("--bind", "0.0.0.0", "--port", "6379", "--protected-mode", "no", "--save", "", "--dir", str(self.folder))
        self.start("redis-server", self.program("a", network, "redis-server", *options))
        self.ask(network, "redis-cli", "-h", target, "set", "greeting", "hello")
        answer = self.ask(network, "redis-cli", "-h", target, "get", "greeting")
        if answer != "hello":
            raise Failure(f"redis answers {answer!r} instead of what was stored")
        _step(f"redis-server on a gives redis-cli on b what it stored: {answer}")


_NGINX_CONF = """\
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 80;
        root {folder}/site;
    }}
}}
"""


def _step(text: str) -> None:
    click.echo(f"* {text}")


def _free_port() -> int:
    for _ in range(100):
        port = secrets.choice(RANDOM_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure("found no free port on 127.0.0.1")
