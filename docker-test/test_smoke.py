"""The first container: nginx in one, curl in another, each beside a service, all unprivileged, on a virtual network."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from containers import USER, Member, World, world
from engine import engine
from images import base_image, netcon_image

PAGE = "nginx in a container, with no capability"
NGINX = f"""
daemon off; worker_processes 2; pid /tmp/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {{ listen 80; location / {{ return 200 "{PAGE}"; }} }}
}}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    with engine(tmp_path_factory.mktemp("docker")) as running:
        yield running


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> Iterator[str]:
    """netcon as `make` installed it (NETCON_PREFIX), or the environment that runs this test."""
    base_image(client)
    tag = netcon_image(client, Path(os.environ.get("NETCON_PREFIX", sys.prefix)), f"netcon-test:{secrets.token_hex(4)}")
    yield tag
    client.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def small_world(client: docker.DockerClient, image: str) -> Iterator[World]:
    with world(client, image) as made:
        yield made


def joined(small_world: World, name: str, network: str) -> tuple[Member, str]:
    """A new member of `network`, authorised, and its virtual IPv4 address."""
    member = small_world.member(name)
    node = member.netcon("info").split()[0]
    small_world.root.netcon("controller", "member", "authorize", network, node)
    member.netcon("join", network, "--wait", "60")
    return member, address_of(member, network)


def address_of(member: Member, network: str) -> str:
    found = next(n for n in json.loads(member.netcon("networks", "--json")) if n["id"] == network)
    return str(next(a.partition("/")[0] for a in found["assignedAddresses"] if ":" not in a))


@pytest.mark.timeout(600)
def test_nginx_in_one_container_serves_curl_in_another(small_world: World) -> None:
    network = small_world.root.netcon("controller", "network", "create", "--name", "smoke", "--subnet", "10.99.0.0/24").split()[0]
    server, address = joined(small_world, "a", network)
    visitor, _ = joined(small_world, "b", network)

    server.command("sh", "-c", f"printf %s '{NGINX}' > /tmp/nginx.conf")
    server.background("netcon", "-D", "/home/node", "run", "/usr/sbin/nginx", "-e", "stderr", "-c", "/tmp/nginx.conf")
    answer = visitor.until("netcon", "-D", "/home/node", "run", "curl", "-sS", "--fail", "--max-time", "10", f"http://{address}/")
    assert answer == PAGE

    for member in (server, visitor):
        status = dict(line.split(":\t", 1) for line in member.command("cat", "/proc/1/status").splitlines() if ":\t" in line)
        assert status["Uid"].split() == [str(USER)] * 4
        assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {"0" * 16}
        # The virtual network is no interface: only what Docker gave is there.
        assert member.command("ls", "/sys/class/net").split() == ["eth0", "lo"]
