"""Network namespaces for tests: hosts, the links between them, and NAT boxes of the kernel's own.

A namespace has no name and no file: it is that of a process which lives as long as the test holds the other end of its standard
input. However the test ends, the namespace, its links and its packet filter end with it. What runs inside may be given to an
unprivileged user. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

#: Who is nobody: no privilege in any namespace.
NOBODY = 65534

needs_namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces with links between them")


class Host:
    """A network namespace. As a context manager it is there until the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", f"no network namespace for {name}"
        self.pid = self._holder.pid
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def inside(self, *, user: int | None = None) -> list[str]:
        """What to put before a command so that it runs here, as `user` without any privilege."""
        enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        if user is not None:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        return enter

    def run(self, *command: str, stdin: str = "") -> str:
        result = subprocess.run([*self.inside(), *command], input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, f"{self.name}: {' '.join(command)}: {result.stderr}\n{stdin}"
        return result.stdout

    def ip(self, *arguments: str) -> str:
        return self.run("ip", *arguments)

    def nft(self, rules: str) -> None:
        self.run("nft", "-f", "-", stdin=rules)

    def add_address(self, device: str, address: str) -> None:
        """With its bits. IPv6 without duplicate detection."""
        self.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def default_route(self, via: str) -> None:
        self.ip("route", "replace", "default", "via", via)

    def forwards(self) -> None:
        """Make it a router."""
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def masquerades(self, device: str, how: str = "") -> None:
        """Make it a NAT box for what leaves by `device`. A port is kept if it is free, or as `how` says; nothing comes in that
        nothing went out to before. Called again, all its mappings are lost, as when it is switched off and on."""
        self.forwards()
        self.nft(
            f"""
            table inet nat
            delete table inet nat
            table inet nat {{
                chain out {{
                    type nat hook postrouting priority srcnat;
                    oifname "{device}" meta l4proto {{ tcp, udp }} masquerade {how}
                }}
                chain through {{
                    type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    iifname != "{device}" accept
                    ct status dnat accept
                }}
                # What the box itself took from outside would hold the port that an inside socket is about to be given.
                chain in {{
                    type filter hook input priority filter; policy accept;
                    iifname "{device}" ct state new drop
                }}
            }}
            """
        )
        self.forget_flows()

    def forget_flows(self) -> None:
        self.run("conntrack", "-F")

    def blocks_udp(self, *pairs: tuple[str, str]) -> None:
        """A router that drops UDP between these addresses, both ways, whatever went before; and nothing else any more."""
        rules = "\n".join(
            f"ip saddr {one} ip daddr {other} meta l4proto udp drop\nip saddr {other} ip daddr {one} meta l4proto udp drop"
            for one, other in pairs
        )
        self.nft(
            f"""
            table ip block
            delete table ip block
            table ip block {{
                chain through {{
                    type filter hook forward priority filter; policy accept;
                    {rules}
                }}
            }}
            """
        )


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Host(name)) for name in names]


def link(one: Host, device: str, other: Host, other_device: str) -> None:
    """A cable between two hosts; both ends are up, without addresses."""
    one.ip("link", "add", device, "type", "veth", "peer", "name", other_device, "netns", f"/proc/{other.pid}/ns/net")
    one.ip("link", "set", device, "up")
    other.ip("link", "set", other_device, "up")


def bridge(host: Host, device: str, *ports: str) -> None:
    """A switch inside `host` of some of its devices."""
    host.ip("link", "add", device, "type", "bridge")
    for port in ports:
        host.ip("link", "set", port, "master", device)
    host.ip("link", "set", device, "up")
