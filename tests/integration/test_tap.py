"""A host that is a member by its kernel (a TAP device), and members whose TCP/IP is lwIP behind bad links, on one network.

The host is a network namespace, with one cable to another where root, controller and the lwIP members are.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from netcon.core.actions import Endpoint
from netcon.core.world import Root, make_planet
from netcon.service.detach import service_environment
from tests.integration import datagrams, streams
from tests.integration.programs import find, output, server, wait_for_port
from tests.namespaces import Namespace, cable, needs_namespaces
from tests.service.running import RunningService, wait_for_addresses, wait_until
from tests.service.support import IDENTITIES, WORLD_KEY, make_home

pytestmark = needs_namespaces

HOST_IP, ROOT_IP = "10.201.1.1", "10.201.2.1"
ROOT_PORT = 9993
LOSSES = [0.0, 0.01, 0.05]
STREAM_BYTES = {0.0: 1 << 20, 0.01: 1 << 18, 0.05: 1 << 16}
STREAMS, DATAGRAMS = str(Path(streams.__file__)), str(Path(datagrams.__file__))
PYTHON = sys.executable
#: Added by hand, to the TAP device; and those of a machine behind the bridge.
EXTRA_IP = "10.147.0.210"
BEHIND, BEHIND6 = "10.147.0.220", "fd00:147::220"


class Lab(NamedTuple):
    host_space: Namespace
    members_space: Namespace
    root: RunningService
    host: RunningService
    members: dict[float, RunningService]
    network: str
    device: str
    addresses: dict[str, list[str]]  # node -> IPv4, IPv6

    def address(self, member: RunningService, v6: bool) -> str:
        return self.addresses[member.address][v6]


def settings(ip: str) -> dict[str, Any]:
    return {"bind": [ip], "allowLoopbackPaths": False}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("tap")
    planet = make_planet(0x7E57, 1, [Root(IDENTITIES[0], (Endpoint(socket.inet_aton(ROOT_IP), ROOT_PORT),))], WORLD_KEY)
    with contextlib.ExitStack() as stack:
        host_space, members_space = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        stack.enter_context(cable(host_space, members_space, "cable", "cable"))
        host_space.ip("address", "add", f"{HOST_IP}/32", "dev", "cable")
        host_space.ip("route", "add", "default", "dev", "cable")
        members_space.ip("address", "add", f"{ROOT_IP}/24", "dev", "cable")
        members_space.ip("route", "add", f"{HOST_IP}/32", "dev", "cable")

        def start(name: str, number: int, space: Namespace, ip: str, port: int = 0, **more: Any) -> RunningService:
            home = make_home(folder / name, IDENTITIES[number], planet, port=port, settings=settings(ip))
            return stack.enter_context(RunningService(home, prefix=space.command(), **more))

        root = start("root", 0, members_space, ROOT_IP, ROOT_PORT)
        host = start("host", 1, host_space, HOST_IP)
        members = {}
        for number, loss in enumerate(LOSSES):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NETCON_TEST_LOSS", str(loss))
                members[loss] = start(f"m{number}", 2 + number, members_space, ROOT_IP, module="tests.integration.impaired_service")
        network = str(
            root.client.post(
                "/controller/network",
                {
                    "name": "lab",
                    "routes": [{"target": "10.147.0.0/24", "via": None}],
                    "ipAssignmentPools": [{"ipRangeStart": "10.147.0.1", "ipRangeEnd": "10.147.0.199"}],
                    "v4AssignMode": {"zt": True},
                    "v6AssignMode": {"rfc4193": True},
                },
            )["id"]
        )
        for member in (host, *members.values()):
            root.client.post(
                f"/controller/network/{network}/member/{member.address}", {"authorized": True, "activeBridge": member is host}
            )
        device = str(host.client.post(f"/network/{network}", {"port": "tap"})["portDeviceName"])
        for member in members.values():
            member.client.post(f"/network/{network}", {})
        addresses = {member.address: wait_for_addresses(member, network) for member in (host, *members.values())}
        yield Lab(host_space, members_space, root, host, members, network, device, addresses)


def on_host(lab: Lab, *words: str) -> str:
    """What a program of the host prints; it must succeed."""
    result = lab.host_space.run(*words, timeout=120)
    assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
    return result.stdout


@contextlib.contextmanager
def host_server(lab: Lab, *words: str, port: int = 0) -> Iterator[None]:
    """A server among the host's own programs; `port`: wait until it is listened on (TCP)."""
    process = subprocess.Popen(lab.host_space.command(*words), stdin=subprocess.DEVNULL)
    try:
        if port:
            wait_until(lambda: f":{port} " in lab.host_space.run("ss", "-Hltn").stdout, f"a listener on port {port}")
        else:
            wait_until(lambda: lab.host_space.run("ss", "-Hlun").stdout.strip(), "a UDP server")
        yield
    finally:
        process.terminate()
        process.wait(10)


FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
WITH_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=[f"{loss:.0%}" for loss in LOSSES])


def test_the_host_is_an_ordinary_member(lab: Lab) -> None:
    state = lab.host.client.get(f"/network/{lab.network}")
    assert (state["status"], state["port"], state["bridge"]) == ("OK", "tap", True)
    link = json.loads(lab.host_space.ip("-j", "address", "show", "dev", lab.device))[0]
    assert (link["ifname"], link["address"], link["mtu"]) == (state["portDeviceName"], state["mac"], state["mtu"])
    shown = {f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"] if entry["scope"] == "global"}
    assert shown == set(state["assignedAddresses"])
    groups = {group["mac"] for group in state["multicastSubscriptions"]}
    assert {"33:33:00:00:00:01", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"} <= groups


@WITH_LOSS
@FAMILIES
def test_ping(lab: Lab, loss: float, v6: bool) -> None:
    address = lab.address(lab.members[loss], v6)
    shown = on_host(lab, "ping", "-q", "-i", "0.02", "-c", "20", "-W", "10", address)
    answered = re.search(r"(\d+) received", shown)
    assert answered is not None
    assert int(answered[1]) == 20 if not loss else 0 < int(answered[1]) <= 20


@FAMILIES
def test_tcp_to_the_kernel(lab: Lab, v6: bool) -> None:
    address = lab.address(lab.host, v6)
    with host_server(lab, PYTHON, STREAMS, "serve", address, "7001", port=7001):
        for loss, member in lab.members.items():
            output(member, lab.network, find("python3"), STREAMS, "both", address, "7001", str(STREAM_BYTES[loss]))


@FAMILIES
def test_tcp_from_the_kernel(lab: Lab, v6: bool, tmp_path: Path) -> None:
    for loss, member in lab.members.items():
        address = lab.address(member, v6)
        with server(member, lab.network, find("python3"), STREAMS, "serve", address, "7002", log=tmp_path / "log"):
            wait_until(
                lambda address=address: lab.host_space.run("nc", "-z", "-w", "5", address, "7002").returncode == 0, "the server"
            )
            on_host(lab, PYTHON, STREAMS, "both", address, "7002", str(STREAM_BYTES[loss]))


@FAMILIES
def test_udp_to_the_kernel(lab: Lab, v6: bool) -> None:
    address = lab.address(lab.host, v6)
    with host_server(lab, PYTHON, DATAGRAMS, "serve", address, "7003"):
        for loss, member in lab.members.items():
            sent = int(output(member, lab.network, find("python3"), DATAGRAMS, "ask", address, "7003", "40"))
            assert sent == 40 if not loss else sent >= 40


def test_addresses_and_groups_of_the_kernel_become_subscriptions(lab: Lab) -> None:
    member = lab.members[0.0]
    lab.host_space.ip("address", "add", f"{EXTRA_IP}/24", "dev", lab.device)
    adi = int.from_bytes(socket.inet_aton(EXTRA_IP))
    listener = lab.host_space.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with listener:
        listener.bind(("", 7004))
        listener.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            socket.inet_aton("239.1.2.3") + socket.inet_aton(lab.address(lab.host, False)),
        )
        wait_until(
            lambda: (
                {"mac": "01:00:5e:01:02:03", "adi": 0} in subscriptions(lab)
                and {"mac": "ff:ff:ff:ff:ff:ff", "adi": adi} in subscriptions(lab)
            ),
            "the new subscriptions",
        )
        listener.settimeout(60)
        for address in (EXTRA_IP, "239.1.2.3"):
            script = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'to {address}', ({address!r}, 7004))"
            output(member, lab.network, find("python3"), "-W", "ignore", "-c", script)
            assert listener.recv(100) == f"to {address}".encode()
    lab.host_space.ip("address", "del", f"{EXTRA_IP}/24", "dev", lab.device)


def subscriptions(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.host.client.get(f"/network/{lab.network}")["multicastSubscriptions"]
    return found


def test_machines_behind_the_bridge_are_on_the_network(lab: Lab, tmp_path: Path) -> None:
    """The TAP device in a Linux bridge, and a machine that knows nothing of ZeroTier plugged into it."""
    member = lab.members[0.0]
    with Namespace() as behind, cable(behind, lab.host_space, "eth", "plug"):
        lab.host_space.ip("link", "add", "br0", "type", "bridge")
        lab.host_space.ip("link", "set", "br0", "up")
        lab.host_space.ip("link", "set", lab.device, "master", "br0")
        lab.host_space.ip("link", "set", "plug", "master", "br0")
        try:
            behind.ip("address", "add", f"{BEHIND}/24", "dev", "eth")
            behind.ip("link", "set", "eth", "mtu", "1400")
            behind.ip("address", "add", f"{BEHIND6}/64", "dev", "eth", "nodad")
            lab.root.client.post(
                f"/controller/network/{lab.network}/member/{member.address}",
                {"ipAssignments": [lab.address(member, False), "fd00:147::5"]},
            )
            lab.root.client.post(
                f"/controller/network/{lab.network}",
                {"routes": [{"target": "10.147.0.0/24", "via": None}, {"target": "fd00:147::/64", "via": None}]},
            )
            wait_until(
                lambda: "fd00:147::5/64" in member.client.get(f"/network/{lab.network}")["assignedAddresses"], "an IPv6 address"
            )
            for address in (BEHIND, BEHIND6):
                process = subprocess.Popen(behind.command(PYTHON, STREAMS, "serve", address, "7005"))
                try:
                    wait_for_port(member, lab.network, address, 7005)
                    output(member, lab.network, find("python3"), STREAMS, "both", address, "7005", str(1 << 18))
                finally:
                    process.terminate()
                    process.wait(10)
            for address in (lab.address(member, False), "fd00:147::5"):
                assert " 0% packet loss" in behind.run("ping", "-c", "3", "-i", "0.05", "-W", "20", address).stdout
        finally:
            lab.host_space.ip("link", "set", lab.device, "nomaster")
            lab.host_space.ip("link", "del", "br0")


def test_a_default_route_does_not_swallow_our_own_packets(lab: Lab) -> None:
    member = lab.members[0.0]
    routes = lab.root.client.get(f"/controller/network/{lab.network}")["routes"]
    gateway = lab.address(member, False)
    lab.root.client.post(f"/controller/network/{lab.network}", {"routes": [*routes, {"target": "0.0.0.0/0", "via": gateway}]})
    lab.host.client.post(f"/network/{lab.network}", {"allowDefault": True})
    try:
        wait_until(lambda: "0.0.0.0/1" in lab.host_space.ip("route"), "the default route")
        assert lab.device in lab.host_space.ip("route", "get", ROOT_IP)  # the kernel would send it into the network
        assert " 0% packet loss" in on_host(lab, "ping", "-c", "5", "-i", "0.1", "-W", "20", lab.address(member, True))
        assert lab.host.client.get("/status")["online"]
        bound = lab.host_space.run("ss", "-Hlun").stdout
        assert f"{HOST_IP}%cable:" in bound
    finally:
        lab.host.client.post(f"/network/{lab.network}", {"allowDefault": False})
        lab.root.client.post(f"/controller/network/{lab.network}", {"routes": routes})
    assert "0.0.0.0/1" not in lab.host_space.ip("route")
    assert f"{HOST_IP}%cable:" not in lab.host_space.run("ss", "-Hlun").stdout


def test_the_port_of_a_joined_network_may_be_changed(lab: Lab) -> None:
    lab.host.client.post(f"/network/{lab.network}", {"port": "lwip"})
    assert lab.device not in lab.host_space.ip("link")
    state = lab.host.client.get(f"/network/{lab.network}")
    assert (state["port"], state["status"]) == ("lwip", "OK")
    lab.host.client.post(f"/network/{lab.network}", {"port": "tap"})
    assert lab.address(lab.host, False) in lab.host_space.ip("address", "show", "dev", lab.device)
    assert "port=tap" in (lab.host.home / "networks.d" / f"{lab.network}.local.conf").read_text()


@pytest.mark.parametrize("end", ["leave", "stop", "kill"])
def test_nothing_is_left_of_the_device(lab: Lab, tmp_path: Path, end: str) -> None:
    home = make_home(
        tmp_path / "home", IDENTITIES[6], make_planet(7, 1, [Root(IDENTITIES[0], ())], WORLD_KEY), settings=settings(HOST_IP)
    )
    with Namespace() as space:
        space.ip("address", "add", f"{HOST_IP}/32", "dev", "lo")
        with RunningService(home, prefix=space.command()) as service:
            state = service.client.post(f"/network/{lab.network}", {"port": "tap"})
            assert state["portDeviceName"] in space.ip("link")
            if end == "leave":
                service.client.delete(f"/network/{lab.network}")
            elif end == "stop":
                assert service.stop(signal.SIGINT) == 0
            else:
                service.kill()
            assert state["portDeviceName"] not in space.ip("link")


def test_without_the_privilege_it_says_what_to_do_and_goes_on(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", IDENTITIES[6], make_planet(7, 1, [Root(IDENTITIES[0], ())], WORLD_KEY))
    network = "701beb847c4a52c7"
    (home / "networks.d").mkdir()
    (home / "networks.d" / "1234567890abcd52.conf").write_bytes(b"\n")
    (home / "networks.d" / "1234567890abcd52.local.conf").write_text("port=tap\n")
    with RunningService(home, prefix=["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]) as service:
        command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(home)]
        result = subprocess.run(
            [*command, "join", "--port", "tap", network],
            env=service_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode != 0
        assert "CAP_NET_ADMIN" in result.stderr
        assert "--port lwip" in result.stderr
        assert service.client.raw("GET", f"/network/{network}").status_code == 404
        joined_before = service.client.get("/network/1234567890abcd52")
        assert (joined_before["status"], joined_before["portError"]) == ("PORT_ERROR", -1)
        assert service.client.post(f"/network/{network}", {})["port"] == "lwip"
        refused = service.client.raw("POST", f"/network/{network}", {"port": "tap"})
        assert (refused.status_code, "CAP_NET_ADMIN" in refused.text) == (500, True)
        assert service.client.get(f"/network/{network}")["port"] == "lwip"  # as before
        assert service.client.raw("POST", f"/network/{network}", {"port": "vhost"}).status_code == 400
    assert service.log.read_text().count("network 1234567890abcd52: a TAP device needs the capability CAP_NET_ADMIN") == 1
