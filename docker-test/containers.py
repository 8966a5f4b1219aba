"""A small netcon world in containers: one is root and controller, the others members; none has any privilege."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network

import docker
from docker.models.containers import Container
from docker.models.networks import Network

from netcon.core.actions import Endpoint
from netcon.core.identity import Identity
from netcon.core.world import Root, make_planet

#: nobody; the same in every Debian image.
USER = 65534
HOME = "/home/node"
PORT = 9993
SUBNET = IPv4Network("10.213.77.0/24")
DEADLINE = 180.0


class ContainerError(RuntimeError):
    """A command in a container failed, or what was waited for did not come."""


class Member:
    """A container that runs a service; `command` runs others beside it."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def command(self, *command: str) -> str:
        """Run to the end; what it printed. ContainerError if it fails."""
        status, output = self.container.exec_run(list(command), user=str(USER), environment={"NETCON_PLANET": "private"})
        text = output.decode(errors="replace").strip()
        if status != 0:
            raise ContainerError(
                f"{shlex.join(command)}: status {status}: {text}\n{self.container.logs().decode(errors='replace')}"
            )
        return text

    def netcon(self, *command: str) -> str:
        return self.command("netcon", "-D", HOME, *command)

    def background(self, *command: str) -> None:
        self.container.exec_run(list(command), user=str(USER), detach=True, environment={"NETCON_PLANET": "private"})

    def until(self, *command: str) -> str:
        """Run again and again until it succeeds, at most DEADLINE seconds."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return self.command(*command)
            except ContainerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def wait_ready(self) -> None:
        self.until("netcon", "-D", HOME, "info")


class World:
    """Containers on one Docker network of their own; a planet whose only root is the first of them."""

    def __init__(self, client: docker.DockerClient, image: str, network: Network) -> None:
        self.client, self.image, self.network = client, image, network
        self.addresses = iter(list(SUBNET.hosts())[1:])
        self.stack = ExitStack()
        self.identity = Identity.generate(os.urandom)
        self.root_address = next(self.addresses)
        root = Root(self.identity, (Endpoint(self.root_address.packed, PORT),))
        self.planet = make_planet(secrets.randbits(63) | 1, time.time_ns() // 1_000_000, [root], os.urandom(64)).encode()
        self.root = self._start("root", str(self.root_address), {"identity.secret": self.identity.to_text(secret=True).encode()})

    def member(self, name: str) -> Member:
        return self._start(name, str(next(self.addresses)), {})

    def _start(self, name: str, address: str, files: dict[str, bytes]) -> Member:
        container = self.client.containers.create(
            self.image,
            # `sh` waits for the home folder's files, which can be put there only once its tmpfs is mounted.
            ["sh", "-c", f"until [ -e {HOME}/planet ]; do sleep 0.1; done; exec netcon service {HOME}"],
            name=f"netcon-test-{name}-{secrets.token_hex(4)}",
            user=str(USER),
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=True,
            init=True,
            tmpfs={"/tmp": "mode=1777", HOME: f"uid={USER},gid={USER},mode=700", "/run": f"uid={USER}"},
            environment={"NETCON_PLANET": "private"},
            networking_config=self.client.api.create_networking_config(
                {self.network.name: self.client.api.create_endpoint_config(ipv4_address=address)}
            ),
            network=self.network.name,
        )
        self.stack.callback(container.remove, force=True, v=True)
        container.start()
        member = Member(container)
        settings = {"settings": {"primaryPort": PORT, "allowSecondaryPort": False, "portMappingEnabled": False}}
        for file, data in {**files, "local.conf": json.dumps(settings).encode(), "planet": self.planet}.items():
            _put(member, f"{HOME}/{file}", data)
        member.wait_ready()
        return member


def _put(member: Member, path: str, data: bytes) -> None:
    """Write a file as the container's user: the archive API cannot reach into a tmpfs."""
    temporary = f"{path}.new"
    decode = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))"
    script = f"umask 077; python3 -c '{decode}' {data.hex()} > {temporary} && mv {temporary} {path}"
    member.command("sh", "-c", script)


@contextmanager
def world(client: docker.DockerClient, image: str) -> Iterator[World]:
    """A world that is removed whole at the end."""
    pool = docker.types.IPAMPool(subnet=str(SUBNET))
    network = client.networks.create(f"netcon-test-{secrets.token_hex(4)}", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    try:
        made = World(client, image, network)
        try:
            yield made
        finally:
            made.stack.close()
    finally:
        network.remove()
