"""Sockets follow the addresses of a machine that changes, and nothing leaves where it must not; in a network namespace."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns_hosts import Host, hosts, link, needs_namespaces
from tests.service.running import RunningService, wait_until
from tests.service.support import IDENTITIES, make_home, private_planet

pytestmark = needs_namespaces
PORT = 9993
#: The root of the planet, which nobody is: HELLOs to it are what a lonely node sends.
NOWHERE = "44.0.0.9"


@contextlib.contextmanager
def service(host: Host, folder: Path, **settings: object) -> Iterator[RunningService]:
    planet = private_planet(IDENTITIES[0], PORT, socket.inet_aton(NOWHERE))
    local = {"bind": [], "allowLoopbackPaths": False, **settings}
    home = make_home(folder / "home", IDENTITIES[1], planet, port=PORT, settings=local)
    with RunningService(home, prefix=host.inside()) as running:
        yield running


def bound(running: RunningService) -> set[str]:
    listening = running.client.get("/status")["config"]["settings"]["listeningOn"]
    return {entry.rpartition("/")[0] for entry in listening}


def wait_for_bound(running: RunningService, *addresses: str) -> None:
    wait_until(lambda: bound(running) == set(addresses), f"sockets on {addresses}", 25)


def test_sockets_follow_the_addresses(tmp_path: Path) -> None:
    """Sooner than the looking every 30 s would."""
    with hosts("one", "other") as (host, other):
        link(host, "eth0", other, "far")
        host.add_address("eth0", "10.1.0.1/24")
        with service(host, tmp_path) as running:
            assert bound(running) == {"10.1.0.1"}
            host.add_address("eth0", "fd00:1::1/64")
            wait_for_bound(running, "10.1.0.1", "fd00:1::1")
            # A second interface comes, with an address; the other's goes; an unusable class changes nothing.
            host.ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth1-far")
            host.ip("link", "set", "eth1", "up")
            host.add_address("eth1", "10.2.0.1/24")
            host.add_address("eth1", "169.254.3.3/16")
            wait_for_bound(running, "10.1.0.1", "10.2.0.1", "fd00:1::1")
            host.ip("address", "del", "10.1.0.1/24", "dev", "eth0")
            wait_for_bound(running, "10.2.0.1", "fd00:1::1")
            # An address that moves to another interface gets a socket there.
            host.add_address("eth0", "10.2.0.2/24")
            host.ip("link", "del", "eth1")
            wait_for_bound(running, "10.2.0.2", "fd00:1::1")
            # None at all is no reason to end.
            host.ip("address", "flush", "dev", "eth0")
            wait_for_bound(running)
            host.add_address("eth0", "10.3.0.1/24")
            wait_for_bound(running, "10.3.0.1")


def test_temporary_ipv6_addresses_are_used_and_tentative_and_deprecated_ones_are_not(tmp_path: Path) -> None:
    with hosts("one", "other") as (host, other):
        link(host, "eth0", other, "far")
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.use_tempaddr=2", "net.ipv6.conf.eth0.dad_transmits=0")
        host.ip("address", "add", "fd00:2::1/64", "dev", "eth0", "nodad", "mngtmpaddr")  # the kernel adds a temporary one
        (temporary,) = re.findall(r"inet6 (fd00:2::\S+)/64 scope global temporary", host.ip("address", "show", "dev", "eth0"))
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=1")
        host.ip("address", "add", "fd00:1::1/64", "dev", "eth0")  # with duplicate detection: tentative for a second or two
        host.ip("address", "add", "fd00:1::2/64", "dev", "eth0", "nodad", "preferred_lft", "0")  # deprecated
        host.add_address("eth0", "10.1.0.1/24")
        with service(host, tmp_path) as running:
            wait_for_bound(running, "10.1.0.1", "fd00:1::1", "fd00:2::1", temporary)


@pytest.mark.parametrize("how", ["prefix", "network"])
def test_nothing_leaves_by_an_excluded_interface(tmp_path: Path, how: str) -> None:
    """Although the machine's only route to the root goes there."""
    excluded = {"interfacePrefixBlacklist": ["bad"]}
    with hosts("one", "good", "bad") as (host, good, bad), contextlib.ExitStack() as stack:
        link(host, "good0", good, "far")
        link(host, "bad0", bad, "far")
        host.add_address("good0", "10.1.0.1/24")
        host.add_address("bad0", "10.2.0.1/24")
        host.default_route("10.2.0.254")
        listeners = [stack.enter_context(packet_socket(each)) for each in (good, bad)]
        with service(host, tmp_path, **(excluded if how == "prefix" else {})) as running:
            if how == "network":
                path = running.home / "local.conf"
                settings = json.loads(path.read_text())
                path.write_text(json.dumps(settings | {"physical": {"10.2.0.0/16": {"blacklist": True}}}))
            wait_for_bound(running, "10.1.0.1")
            drain(listeners[1])
            # HELLOs to the root go out every second or five: on the allowed interface (where the kernel asks for its address).
            assert select.select([listeners[0]], [], [], 20)[0]
            wait_until(lambda: asks_for_root(listeners[0]), "a packet on the allowed interface", 20)
            assert all(not carries_vl1(packet) for packet in drain(listeners[1]))


@contextlib.contextmanager
def packet_socket(host: Host) -> Iterator[socket.socket]:
    """Everything that arrives in a namespace. Opened there by a process that hands it over."""
    ours, theirs = socket.socketpair()
    code = (
        "import socket,sys; s=socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3));"
        "socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [s.fileno()])"
    )
    with ours, theirs:
        subprocess.run(
            [*host.inside(), "/usr/bin/python3", "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            check=True,
            timeout=30,
        )
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=descriptor) as packets:
        packets.setblocking(False)
        yield packets


def drain(packets: socket.socket) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(packets.recv(2048))
    return found


def asks_for_root(packets: socket.socket) -> bool:
    """An ARP request for the root, or a datagram to it: the interface is tried."""
    return any(socket.inet_aton(NOWHERE) in packet for packet in drain(packets))


def carries_vl1(packet: bytes) -> bool:
    """IPv4 and UDP, or the question for where the root is."""
    (kind,) = struct.unpack_from(">H", packet, 12)
    return (kind == 0x0800 and packet[23] == socket.IPPROTO_UDP) or socket.inet_aton(NOWHERE) in packet
