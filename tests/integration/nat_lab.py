"""A small internet of network namespaces, with rootless services behind the kernel's own NAT.

                      root (44.1.0.1)     public (44.2.0.1)
                             \\              /
                              internet, a router
             /              |               |               \\
        plain NAT       plain NAT      symmetric NAT   symmetric NAT
       (44.3.0.1)      (44.4.0.1)       (44.5.0.1)      (44.6.0.1)
        /      \\            |               |               |
      home   sibling      office           cafe           hotel

and two more symmetric NATs, whose boxes map ports for who asks: lodge (44.7.0.1) by NAT-PMP, cabin (44.8.0.1) by UPnP.

Their addresses exist in these namespaces only; nothing in them leads out. Services and programs run as nobody.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from netcon.service.detach import service_environment
from tests.integration import pinger
from tests.netns_hosts import NOBODY, Host, bridge, link
from tests.port_mapper import maps_ports
from tests.service.running import RunningService, wait_for_addresses, wait_until
from tests.service.support import IDENTITIES, make_home, private_planet

PORT = 9993
ROOT = "44.1.0.1"
ECHO_PORT = 7000
#: Debian's, which nobody may run.
PYTHON = "/usr/bin/python3"
#: masquerade's way to be symmetric: a random port for each pair of inside socket and remote.
SYMMETRIC = "random,fully-random"
#: member -> its NAT box and that one's number in the internet, and its kind; or its own number.
BEHIND = {"home": ("nat3", 3, ""), "sibling": ("nat3", 3, ""), "office": ("nat4", 4, "")}
BEHIND |= {"cafe": ("nat5", 5, SYMMETRIC), "hotel": ("nat6", 6, SYMMETRIC)}
BEHIND |= {"lodge": ("nat7", 7, SYMMETRIC), "cabin": ("nat8", 8, SYMMETRIC)}
#: member -> what its box is asked by.
MAPS_BY = {"lodge": "natpmp", "cabin": "upnp"}
PUBLIC = "public"
#: How long anything may take that must happen at all, s.
PATIENCE_S = 120.0


def unprivileged_environment() -> dict[str, str]:
    """For nobody, who can read the installed prefix, and this tree perhaps."""
    environment = service_environment() | {"HOME": "/nonexistent", "NETCON_PLANET": "private"}
    if "NETCON_PREFIX" in os.environ:
        del environment["PYTHONPATH"]
    environment.pop("XDG_RUNTIME_DIR", None)
    return environment


class Internet:
    """The namespaces. `public_address(member)`: where others see its packets come from."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.hosts: dict[str, Host] = {}
        self.core = self._host("internet")
        self.core.forwards()
        self._attach(self._host("root"), 1)
        self._attach(self._host(PUBLIC), 2)
        for member, (box, number, kind) in BEHIND.items():
            if box not in self.hosts:
                self._attach(self._host(box), number)
                self.hosts[box].masquerades("wan", kind)
                bridge(self.hosts[box], "lan")
                self.hosts[box].add_address("lan", f"192.168.{number}.1/24")
                if member in MAPS_BY:
                    stack.enter_context(maps_ports(self.hosts[box], "wan", "lan", MAPS_BY[member]))
            inside = sum(BEHIND[other][0] == box for other in list(BEHIND)[: list(BEHIND).index(member)])
            host = self._host(member)
            link(host, "eth0", self.hosts[box], f"port{inside}")
            self.hosts[box].ip("link", "set", f"port{inside}", "master", "lan")
            host.add_address("eth0", f"192.168.{number}.{10 + inside}/24")
            host.default_route(f"192.168.{number}.1")

    def _host(self, name: str) -> Host:
        host = self.hosts[name] = self._stack.enter_context(Host(name))
        return host

    def _attach(self, host: Host, number: int) -> None:
        link(host, "wan", self.core, f"port{number}")
        host.add_address("wan", f"44.{number}.0.1/24")
        self.core.add_address(f"port{number}", f"44.{number}.0.254/24")
        host.default_route(f"44.{number}.0.254")


class NatLab:
    """Services in the internet: a root with the controller, and members that have joined its network."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.folder = Path(tempfile.mkdtemp(prefix="netcon-nat-"))
        stack.callback(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.internet = Internet(stack)
        self._planet = private_planet(IDENTITIES[0], PORT, bytes(map(int, ROOT.split("."))))
        self.members: dict[str, RunningService] = {}
        self.addresses: dict[str, str] = {}
        self.root = self.start("root", self.home("root", 0))
        self.network = self._make_network()

    def home(self, name: str, identity: int, **settings: Any) -> Path:
        home = self.folder / name
        settings = {"allowLoopbackPaths": False, "bind": [], "allowSecondaryPort": True, **settings}
        make_home(home, IDENTITIES[identity], self._planet, port=PORT, settings=settings)
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        return home

    def start(self, name: str, home: Path) -> RunningService:
        return self._stack.enter_context(self._service(name, home))

    def _service(self, name: str, home: Path) -> RunningService:
        prefix = self.internet.hosts[name].inside(user=NOBODY)
        return RunningService(home, prefix=prefix, environment=unprivileged_environment)

    def _start_all(self, homes: dict[str, Path]) -> None:
        with ThreadPoolExecutor() as pool:
            starting = {name: pool.submit(self._service, name, home) for name, home in homes.items()}
        for name, future in starting.items():
            if future.exception() is None:
                self.members[name] = self._stack.enter_context(future.result())
        for future in starting.values():
            future.result()

    def stop(self) -> None:
        """All at once."""
        running = [service for service in (self.root, *self.members.values()) if service.process.poll() is None]
        for service in running:
            service.process.terminate()
        for service in running:
            assert service.process.wait(PATIENCE_S) == 0, service.log.read_text()

    def _make_network(self) -> str:
        body = {
            "private": False,
            "routes": [{"target": "10.147.0.0/24", "via": None}],
            "ipAssignmentPools": [{"ipRangeStart": "10.147.0.1", "ipRangeEnd": "10.147.0.254"}],
            "v4AssignMode": {"zt": True},
        }
        return str(self.root.client.post("/controller/network", body)["id"])

    def join(self, *names: str) -> None:
        """Start members and join, all at once."""
        homes: dict[str, Path] = {}
        for number, name in enumerate(names, len(self.members) + 1):
            settings = {"portMappingEnabled": True} if name in MAPS_BY else {}
            homes[name] = self.home(name, number, **settings)
        self._start_all(homes)
        for name in names:
            self.members[name].client.post(f"/network/{self.network}", {})
        for name in names:
            self.addresses[name] = wait_for_addresses(self.members[name], self.network)[0]
            self._stack.enter_context(self.program(name, f"{name}-echo", "serve", self.addresses[name], str(ECHO_PORT)))

    # -- traffic --

    @contextlib.contextmanager
    def program(self, member: str, log: str, *arguments: str) -> Iterator[Path]:
        """pinger.py, unmodified, on a member, until the end. Gives its log."""
        path = self.folder / f"{log}.out"
        netcon = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(self.members[member].home)]
        source = Path(pinger.__file__).read_text()
        inside = self.internet.hosts[member].inside(user=NOBODY)
        with path.open("wb") as output:
            process = subprocess.Popen(
                [*inside, *netcon, "run", "--network", self.network, PYTHON, "-c", source, *arguments],
                env=unprivileged_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield path
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def flow(self, one: str, other: str) -> Iterator[Flow]:
        """A TCP connection from a program on one member to one on the other, in use all the time."""
        log = f"{one}-{other}-{time.monotonic_ns()}"
        with self.program(one, log, "ping", self.addresses[other], str(ECHO_PORT)) as path:
            yield Flow(path)

    # -- what the services know --

    def paths(self, one: str, other: str) -> list[str]:
        """Where `one` would send to reach `other`, the preferred path first; nothing if only through the root."""
        members = {"root": self.root, **self.members}
        peer = next((p for p in members[one].client.get("/peer") if p["address"] == members[other].address), None)
        found = [path for path in peer["paths"] if path["active"] and not path["expired"]] if peer else []
        return [path["address"] for path in sorted(found, key=lambda path: not path["preferred"])]

    def direct(self, one: str, other: str) -> bool:
        return bool(self.paths(one, other) and self.paths(other, one))

    def wait_until_direct(self, one: str, other: str) -> None:
        self.timed(f"{one} and {other} have direct paths", lambda: self.direct(one, other))
        print(f"    {one} -> {other}: {self.paths(one, other)}; {other} -> {one}: {self.paths(other, one)}")

    @staticmethod
    def timed(what: str, condition: Callable[[], Any]) -> float:
        begin = time.monotonic()
        wait_until(condition, what, PATIENCE_S)
        took = time.monotonic() - begin
        print(f"{what}: after {took:.1f} s")
        return took


class Flow:
    """A running exchange: each line of its log is the number of an answer that arrived, on one and the same connection."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def count(self) -> int:
        lines = self._log.read_text().split()
        assert all(line.isdecimal() for line in lines[:-1]), f"the flow ended: {self._log.read_text()[-2000:]}"
        return len(lines)

    def wait_for_progress(self, what: str, answers: int = 5) -> float:
        """Until that many more answers came."""
        wanted = self.count() + answers
        return NatLab.timed(what, lambda: self.count() >= wanted)


@contextlib.contextmanager
def running_nat_lab() -> Iterator[NatLab]:
    with contextlib.ExitStack() as stack:
        lab = NatLab(stack)
        yield lab
        lab.stop()
