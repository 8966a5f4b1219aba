"""Nothing that a program under the intercept does reaches the host's interfaces, by the default policy.

Each attempt runs twice in a network namespace whose default route is a captured interface: as it is, which shows that the capture
sees it, and under the library, where the interface must stay silent.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from netcon import intercept
from tests.namespaces import Namespace, needs_namespaces
from tests.standalone import StandaloneService

pytestmark = needs_namespaces

ALL_FRAMES, SMALLEST = 3, 14
GATEWAY_MAC = "02:00:00:00:00:fe"
PRELUDE = """
from socket import *
import ctypes, os, socket, struct, sys
V4, V6 = ("198.51.100.9", 7), ("2001:db8:1::9", 7)
PING4, PING6 = struct.pack(">BBHHH", 8, 0, 0xf7f8, 7, 0), struct.pack(">BBHHH", 128, 0, 0, 7, 0)
libc = ctypes.CDLL(None, use_errno=True)
def index():
    return int(next(line.split()[1] for line in open('/proc/net/if_inet6') if line.split()[5] == 'leak0'), 16)
"""
ATTEMPTS = {
    "tcp": "s = socket.socket(); s.setblocking(False); s.connect(V4)",
    "tcp6": "s = socket.socket(AF_INET6); s.setblocking(False); s.connect(V6)",
    "tcp_mapped": "s = socket.socket(AF_INET6); s.setblocking(False); s.connect(('::ffff:198.51.100.9', 7))",
    "fast_open": "s = socket.socket(); s.setblocking(False); s.sendto(b'x', MSG_FASTOPEN, V4)",
    "mptcp": "s = socket.socket(AF_INET, SOCK_STREAM, 262); s.setblocking(False); s.connect(V4)",
    "udp": "socket.socket(AF_INET, SOCK_DGRAM).sendto(b'x', V4)",
    "udp6": "socket.socket(AF_INET6, SOCK_DGRAM).sendto(b'x', V6)",
    "udp_connected": "s = socket.socket(AF_INET, SOCK_DGRAM); s.connect(V4); s.send(b'x')",
    "udp_bound": "s = socket.socket(AF_INET, SOCK_DGRAM); s.bind(('', 0)); s.sendmsg([b'x'], [], 0, V4)",
    "dns_query": "socket.socket(AF_INET, SOCK_DGRAM).sendto(b'\\1' * 30, ('198.51.100.53', 53))",
    "multicast": "socket.socket(AF_INET, SOCK_DGRAM).sendto(b'x', ('239.1.2.3', 7))",
    "broadcast": "s = socket.socket(AF_INET, SOCK_DGRAM); s.setsockopt(SOL_SOCKET, SO_BROADCAST, 1);"
    " s.sendto(b'x', ('255.255.255.255', 7))",
    "ping": "socket.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP).sendto(PING4, V4)",
    "ping6": "socket.socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6).sendto(PING6, V6)",
    "raw": "socket.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP).sendto(PING4, V4)",
    "raw6": "socket.socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6).sendto(PING6, (V6[0], 0))",
    "raw_any_protocol": "socket.socket(AF_INET, SOCK_RAW, 253).sendto(b'x', V4)",
    "packet": "s = socket.socket(AF_PACKET, SOCK_RAW); s.bind(('leak0', 0)); s.send(bytes(60))",
    "sock_packet": "s = libc.socket(AF_INET, 10, 0x0300)\n"
    "if s < 0 or libc.sendto(s, bytes(60), 60, 0, struct.pack('=H14s', 2, b'leak0'), 16) < 0: raise OSError",
    "by_number": "s = libc.syscall(41, AF_INET, SOCK_DGRAM, 0)\n"
    "libc.syscall(44, s, b'x', 1, 0, struct.pack('=HH4s8x', AF_INET, htons(7), inet_aton(V4[0])), 16)",
    "disconnected_from_loopback": "s = socket.socket(AF_INET, SOCK_DGRAM); s.connect(('127.0.0.1', 7))\n"
    "libc.connect(s.fileno(), bytes(16), 16)\ns.sendto(b'x', V4)",
    "stream_disconnected_from_loopback": "l = socket.create_server(('127.0.0.1', 0)); s = socket.socket()\n"
    "s.connect(l.getsockname()); libc.connect(s.fileno(), bytes(16), 16); s.setblocking(False); s.connect(V4)",
    "bound_to_loopback": "s = socket.socket(AF_INET6, SOCK_DGRAM); s.bind(('::1', 0)); s.sendto(b'x', V6)",
    "interface_by_control_data": "s = socket.socket(AF_INET, SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', 7))\n"
    "s.sendmsg([b'x'], [(IPPROTO_IP, 8, struct.pack('=iII', index(), 0, 0))], 0, V4)",
    "interface_by_control_data_mapped": "s = socket.socket(AF_INET6, SOCK_DGRAM); s.sendto(b'x', ('::ffff:127.0.0.1', 7))\n"
    "info = inet_pton(AF_INET6, '::ffff:0.0.0.0') + struct.pack('=i', index())\n"
    "s.sendmsg([b'x'], [(IPPROTO_IPV6, IPV6_PKTINFO, info)], 0, ('::ffff:198.51.100.9', 7))",
    "interface_by_scope": "s = socket.socket(AF_INET6, SOCK_DGRAM); s.sendto(b'x', ('::1', 7))\n"
    "s.sendto(b'x', ('ff02::123', 7, 0, index()))",
    "interface_by_scope_of_many": "s = socket.socket(AF_INET6, SOCK_DGRAM); s.sendto(b'x', ('::1', 7))\n"
    "to = struct.pack('=HHI16sI', AF_INET6, htons(7), 0, inet_pton(AF_INET6, 'ff02::123'), index())\n"
    "name = ctypes.create_string_buffer(to, 28); part = (ctypes.c_ulong * 2)(ctypes.addressof(name), 1)\n"
    "many = (ctypes.c_ulong * 8)(ctypes.addressof(name), 28, ctypes.addressof(part), 1)\n"
    "if libc.sendmmsg(s.fileno(), many, 1, 0) != 1: raise OSError(ctypes.get_errno(), 'sendmmsg')",
    "child_without_environment": "pid = os.fork()\nif pid == 0:\n"
    "    os.execve(sys.executable, [sys.executable, '-c', 'import socket\\n"
    'socket.socket(2, 2).sendto(b"x", ("198.51.100.9", 7))\'], {})\nos.waitpid(pid, 0)',
    "io_uring": "ring = libc.syscall(425, 4, bytes(120))\n"
    "if ring < 0: raise OSError(ctypes.get_errno(), 'io_uring_setup')\n"
    "socket.socket(AF_INET, SOCK_DGRAM).sendto(b'x', V4)",
}
#: What the kernel itself refuses or carries over no interface: only the second half counts.
NOT_SEEN_WITHOUT = {"bound_to_loopback", "mptcp", "io_uring"}
NETLINK = "s = socket.socket(AF_NETLINK, SOCK_RAW, 0); s.send(struct.pack('=IHHII4xxx', 17, 18, 0x301, 1, 0)); assert s.recv(65536)"


@dataclass
class Host:
    """The namespace; its only way out is `leak0`."""

    namespace: Namespace
    capture: socket.socket

    def frames(self) -> list[bytes]:
        """What has left since the last call, without what a kernel's IPv6 says of its own accord (ICMPv6 133 to 143)."""
        seen = []
        while True:
            try:
                frame = self.capture.recv(65536)
            except BlockingIOError:
                return seen
            ipv6 = frame[12:14] == b"\x86\xdd"
            own = ipv6 and ((frame[20] == 58 and 133 <= frame[54] <= 143) or (frame[20] == 0 and frame[54] == 58))
            if not own:
                seen.append(frame)

    def run(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        self.frames()
        return subprocess.run(
            self.namespace.command(*words), env=environment, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Namespace() as namespace:
        namespace.ip("link", "add", "leak0", "type", "veth", "peer", "name", "nowhere")
        settings = "net.ipv6.conf.leak0.accept_dad=0", "net.ipv6.conf.nowhere.disable_ipv6=1"
        assert namespace.run("sysctl", "-qw", *settings, "net.ipv4.ping_group_range=0 2147483647").returncode == 0
        namespace.ip("link", "set", "nowhere", "up")
        namespace.ip("link", "set", "leak0", "up")
        for address, gateway in (("198.18.0.1/24", "198.18.0.254"), ("2001:db8::1/64", "2001:db8::fe")):
            namespace.ip("address", "add", address, "dev", "leak0", *(["nodad"] if ":" in address else []))
            namespace.ip("neighbour", "add", gateway, "lladdr", GATEWAY_MAC, "nud", "permanent", "dev", "leak0")
            namespace.ip("route", "add", "default", "via", gateway)

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL_FRAMES))
            sock.bind(("leak0", ALL_FRAMES))
            return sock

        with namespace.inside(listen) as capture:
            yield Host(namespace, capture)


@pytest.fixture(scope="module")
def intercepted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a program under the library, on a service with the default policy."""
    with StandaloneService(tmp_path_factory.mktemp("leak"), ["10.77.0.1/24", "fd77::1/64"]) as service:
        yield intercept.run_environment(socket_path=service.path)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_leaks(host: Host, intercepted: dict[str, str], name: str) -> None:
    words = [sys.executable, "-c", PRELUDE + ATTEMPTS[name]]
    plain = host.run(words, {"PATH": os.environ["PATH"]})
    assert host.frames() or name in NOT_SEEN_WITHOUT, f"the attempt itself does nothing: {plain.stderr}"
    done = host.run(words, intercepted)
    assert host.frames() == [], done.stderr
    refused = ("OSError", "PermissionError", "BlockingIOError")
    assert done.returncode == 0 or any(error in done.stderr for error in refused), done.stderr


@pytest.mark.parametrize(
    "question",
    ["getaddrinfo('www.example.org', 80)", "gethostbyname('www.example.org')", "gethostbyaddr('198.51.100.9')"],
    ids=lambda question: question.partition("(")[0],
)
def test_no_question_about_a_name_leaks(host: Host, intercepted: dict[str, str], tmp_path: Path, question: str) -> None:
    """The C library's own resolver opens its sockets past the symbols that are wrapped; its name server is behind `leak0`."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 198.51.100.53\noptions timeout:1 attempts:1\n")
    words = [sys.executable, "-c", f"import socket; socket.{question}"]
    with_resolver = ["unshare", "--mount", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh", *words]
    host.run(with_resolver, {"PATH": os.environ["PATH"]})
    assert host.frames(), "the question itself does nothing"
    done = host.run(with_resolver, intercepted)
    assert host.frames() == []
    assert "gaierror" in done.stderr or "herror" in done.stderr, done.stderr


def test_netlink_is_no_leak(host: Host, intercepted: dict[str, str]) -> None:
    done = host.run([sys.executable, "-c", PRELUDE + NETLINK], intercepted)
    assert done.returncode == 0, done.stderr
    assert host.frames() == []


SENDER = """
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr = {inet_addr("198.51.100.9")}};
    return sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1;
}
"""


@pytest.fixture(scope="module", params=["static", "set_user_id", "file_capability"])
def disobedient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that would ignore the library."""
    program = tmp_path_factory.mktemp("programs") / "sender"
    flags = ["-static"] if request.param == "static" else []
    subprocess.run(["gcc", *flags, "-x", "c", "-o", program, "-"], input=SENDER, text=True, check=True)
    if request.param == "set_user_id":
        os.chown(program, 65534, 65534)
        program.chmod(0o4755)
    elif request.param == "file_capability":
        setcap = shutil.which("setcap") or "/usr/sbin/setcap"
        subprocess.run([setcap, "cap_net_raw+ep", program], check=True)
    return program


def test_programs_that_ignore_the_library_are_refused(
    host: Host, intercepted: dict[str, str], disobedient: Path, request: pytest.FixtureRequest
) -> None:
    host.run([str(disobedient)], {"PATH": os.environ["PATH"]})
    assert host.frames(), "the attempt itself does nothing"
    done = host.run(
        [sys.executable, "-m", "netcon.cli.main", "run", "--socket", intercepted["NETCON_SOCK"], str(disobedient)],
        {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    # For root a file capability adds nothing, and the loader obeys LD_PRELOAD: other users' case is in test_launcher.py.
    obeys = "file_capability" in request.node.name
    assert done.returncode == (0 if obeys else 126), done.stderr
    assert host.frames() == []
    if "static" not in request.node.name:  # a static one may be started by another program: docs/intercept.md, Limits
        done = host.run([sys.executable, "-c", f"import os; os.execv({str(disobedient)!r}, ['sender'])"], intercepted)
        assert obeys or "PermissionError" in done.stderr
        assert host.frames() == []
