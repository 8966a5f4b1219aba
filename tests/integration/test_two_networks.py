"""One service on two networks with the same address range: each socket is on the network that it names, addresses never mix."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netcon import intercept
from netcon.service.detach import service_environment
from netcon.service.paths import rpc_socket
from netcon.service.port import interface_name
from tests.integration.programs import find, output, run
from tests.service.running import RunningService, running_world, wait_for_addresses

#: The same in both networks: of the node that serves, and of each network's other member.
SERVER, CLIENT = "10.147.0.1", "10.147.0.2"


#: A network with other addresses.
THIRD = {
    "routes": [{"target": "10.148.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.148.0.1", "ipRangeEnd": "10.148.0.254"}],
    "v4AssignMode": {"zt": True},
}


class Twins(NamedTuple):
    root: RunningService
    server: RunningService  # on both networks
    clients: dict[str, RunningService]  # each on one


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with running_world(tmp_path_factory.mktemp("twins"), 3) as (world, root, (server, *others)):
        clients = {world.make_network(root): client for client in others}
        for network, client in clients.items():
            for member, address in ((server, SERVER), (client, CLIENT)):
                record = f"/controller/network/{network}/member/{member.address}"
                root.client.post(record, {"authorized": True, "ipAssignments": [address]})
                member.client.post(f"/network/{network}", {})
                assert wait_for_addresses(member, network)[0] == address
        yield Twins(root, server, clients)


#: One process, one listener for each network on the same address and port; which one a connection came to is the answer.
SERVE_BOTH = f"""
import selectors, socket, sys
selector = selectors.DefaultSelector()
for device in sys.argv[1:]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.bind(({SERVER!r}, 7000))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        selector.register(sock, selectors.EVENT_READ, device)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            stream, peer = key.fileobj.accept()
            stream.sendall(f"{{key.data}} {{peer[0]}} {{stream.getsockname()[0]}}".encode())
            stream.close()
        else:
            data, peer = key.fileobj.recvfrom(100)
            key.fileobj.sendto(f"{{key.data}} {{peer[0]}} {{data.decode()}}".encode(), peer)
"""
#: One process on the wildcard address: it is on both networks, and the answer goes back where the question came from.
SERVE_ALL = """
import socket
listener = socket.create_server(("", 7001))
print("ready", flush=True)
while True:
    stream, peer = listener.accept()
    stream.sendall(peer[0].encode() + b" " + stream.recv(100))
    stream.close()
"""
ASK = f"""
import socket
stream = socket.create_connection(({SERVER!r}, 7000), timeout=30)
print(stream.makefile().read())
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
sock.sendto(b"hello", ({SERVER!r}, 7000))
print(sock.recv(100).decode())
"""
ASK_ALL = f"""
import socket, sys
stream = socket.create_connection(({SERVER!r}, 7001), timeout=30)
stream.sendall(sys.argv[1].encode())
print(stream.makefile().read())
"""


def python(service: RunningService, script: str, *words: str, network: str | None = None) -> subprocess.Popen[str]:
    environment = intercept.run_environment(
        network=network,
        socket_path=rpc_socket(service.home),
        environment={**service_environment(), "PATH": os.environ["PATH"]},
    )
    command = [find("python3"), "-c", script, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)


@pytest.fixture(scope="module", params=[SERVE_BOTH, SERVE_ALL], ids=["a listener each", "one on the wildcard"])
def served(request: pytest.FixtureRequest, twins: Twins) -> Iterator[str]:
    devices = [interface_name(int(network, 16)) for network in twins.clients]
    with python(twins.server, request.param, *devices) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield request.param
        finally:
            process.kill()


def test_one_process_serves_two_networks_with_the_same_addresses(twins: Twins, served: str) -> None:
    for network, client in twins.clients.items():
        with python(client, ASK if served == SERVE_BOTH else ASK_ALL, network, network=network) as asker:
            answer, _ = asker.communicate(timeout=60)
        device = interface_name(int(network, 16))
        both = f"{device} {CLIENT} {SERVER}\n{device} {CLIENT} hello\n"
        assert answer == (both if served == SERVE_BOTH else f"{CLIENT} {network}\n")


def test_one_process_is_a_client_of_both(twins: Twins, tmp_path: Path) -> None:
    """The other way round: the same destination, twice, by the interface."""
    serve = f"""
import socket
listener = socket.create_server(({CLIENT!r}, 7002))
print("ready", flush=True)
while True:
    stream, _ = listener.accept()
    stream.sendall(__import__("sys").argv[1].encode())
    stream.close()
"""
    ask = f"""
import socket, sys
for device in sys.argv[1:]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.settimeout(30)
    sock.connect(({CLIENT!r}, 7002))
    print(sock.makefile().read())
"""
    processes = [python(client, serve, network, network=network) for network, client in twins.clients.items()]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        devices = [interface_name(int(network, 16)) for network in twins.clients]
        with python(twins.server, ask, *devices) as asker:
            answer, _ = asker.communicate(timeout=90)
        assert answer.split() == list(twins.clients)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


#: A server on the wildcard address under a list of networks.
LISTEN = """
import socket
listener = socket.create_server(("", 7003))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", 7003))
print("ready", flush=True)
while True:
    stream, _ = listener.accept()
    stream.recv(1)
    stream.close()
"""
TRY = f"""
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(30)
    try:
        sock.connect(({SERVER!r}, 7003))
        sock.send(b"?")
        if kind == socket.SOCK_DGRAM:
            sock.settimeout(1)
        sock.recv(1)
        print("there")
    except TimeoutError:
        print("there")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture
def third(twins: Twins) -> Iterator[str]:
    """A third network, with addresses of its own, on which the server is, too."""
    root = twins.root
    network = str(root.client.post("/controller/network", {**THIRD, "name": "third"})["id"])
    for member in (twins.server, *twins.clients.values()):
        root.client.post(f"/controller/network/{network}/member/{member.address}", {"authorized": True})
        member.client.post(f"/network/{network}", {})
        wait_for_addresses(member, network)
    yield network
    for member in (twins.server, *twins.clients.values()):
        member.client.delete(f"/network/{network}")


def test_a_list_of_networks_is_where_a_server_listens(twins: Twins, third: str) -> None:
    """ZT_NC_NWID with the two: not on the third. And with one of the two and the third: not on the other."""
    a, b = twins.clients
    address = wait_for_addresses(twins.server, third)[0]
    for networks, expected in ((f"{a},{b}", {a: "there", b: "there", third: "Connection refused"}), (f"{b},{third}", None)):
        expected = expected or {a: "Connection refused", b: "there", third: "there"}
        with python(twins.server, LISTEN, network=networks) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                for network, answer in expected.items():
                    client = twins.clients.get(network, twins.clients[b])
                    script = TRY.replace(SERVER, address) if network == third else TRY
                    with python(client, script, network=network) as asker:
                        assert asker.communicate(timeout=60)[0] == f"{answer}\n" * 2, (networks, network)
            finally:
                server.kill()


def test_two_servers_with_lists_that_have_a_network_in_common(twins: Twins, third: str) -> None:
    a, b = twins.clients
    bind = """
import errno, socket
try:
    socket.create_server(("", 7003))
    print("OK")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    with python(twins.server, LISTEN, network=f"{a},{b}") as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            for networks, answer in ((f"{b},{third}", "EADDRINUSE"), (b, "EADDRINUSE"), (third, "OK")):
                with python(twins.server, bind, network=networks) as other:
                    assert other.communicate(timeout=60)[0] == f"{answer}\n", networks
        finally:
            server.kill()


def test_a_client_reaches_the_networks_of_its_list_only(twins: Twins, third: str) -> None:
    a, b = twins.clients
    address = wait_for_addresses(twins.clients[b], third)[0]
    script = f"""
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as sock:
        print(sock.connect_ex(({address!r}, 9)))
"""
    for networks, answer in ((f"{a},{b}", "101\n101\n"), (f"{a},{third}", "111\n0\n")):
        with python(twins.server, script, network=networks) as client:
            assert client.communicate(timeout=60)[0] == answer, networks


def test_netcon_run_takes_a_list(twins: Twins, third: str) -> None:
    a, b = twins.clients
    script = f"import socket; s = socket.socket(); print(s.connect_ex(({wait_for_addresses(twins.clients[b], third)[0]!r}, 9)))"
    for networks, answer in ((f"{a},{b}", b"101\n"), (f"{third},{a}", b"111\n")):
        assert output(twins.server, networks, "python3", "-c", script) == answer
    refused = run(twins.server, f"{a},nonsense", "true")
    assert b"'nonsense' is not a network id" in refused.stderr
