"""No Python between lwIP and the program's descriptor: streams flow while the process in which the stacks run holds the GIL."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lwip
from netcon.dataplane.reactor import Reactor, connect
from netcon.intercept import run_environment
from tests.integration import streams
from tests.integration.programs import find
from tests.service.running import wait_until

NETWORK = 0x8056C2E21C000001
FAR_NETWORK = 0x8056C2E21C000002
SIZE = 64 << 20
PATIENCE_MS = 60_000

#: Calls through this keep the GIL, as CDLL's do not.
HOLDING = ctypes.PyDLL(None)

#: What the client does before the transfer, so that this process can get hold of the GIL first.
STARTER = "import runpy, sys; sys.stdin.read(1); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


class TwoStacks:
    """Two stacks joined by a cable, as two networks of one socket server, in this process: nothing of netcon is elsewhere."""

    near, far = "10.77.0.1", "10.77.0.2"

    def __init__(self, folder: Path) -> None:
        self.reactor = Reactor()
        self.reactor.start()
        self.server = lwip.SocketServer(self.reactor.capsule(), service=1, epoch=1)
        self.stacks = []
        for number, (network, address) in enumerate([(NETWORK, self.near), (FAR_NETWORK, self.far)], 1):
            stack = lwip.Stack(self.reactor.capsule(), mac=bytes([2, 0, 0, 0, 0, number]))
            stack.add_address(address, 24)
            self.server.add_network(network, stack)
            self.stacks.append(stack)
        connect(self.reactor, self.stacks[0].ethernet_end(), self.stacks[1].ethernet_end())
        self.path = folder / "rpc.sock"
        self.server.listen(os.fspath(self.path))

    def close(self) -> None:
        self.server.close()
        for stack in self.stacks:
            stack.close()
        self.reactor.stop()

    def start(self, network: int, *words: str, **options: object) -> subprocess.Popen[bytes]:
        environment = run_environment(network=network, socket_path=self.path)
        return subprocess.Popen([find("python3"), *words], env=environment, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[TwoStacks]:
    stacks = TwoStacks(tmp_path)
    yield stacks
    stacks.close()


def hold_the_gil_until_it_ends(process: subprocess.Popen[bytes]) -> bool:
    """Starts the client's work, by the end of the file on its standard input, and waits for its end, without ever letting go."""
    assert process.stdin is not None
    pid_descriptor = os.pidfd_open(process.pid)
    wanted = struct.pack("ihh", pid_descriptor, select.POLLIN, 0)
    waiting = ctypes.create_string_buffer(wanted, len(wanted))
    go = process.stdin.fileno()
    try:
        HOLDING.write(go, b"x", 1)
        return bool(HOLDING.poll(waiting, 1, PATIENCE_MS) == 1)
    finally:
        os.close(pid_descriptor)


@pytest.mark.parametrize("what", ["download", "upload", "both"])
def test_streams_flow_while_the_gil_is_held(stacks: TwoStacks, tmp_path: Path, what: str) -> None:
    """TCP connects, is accepted, moves 64 MiB each way and ends: all of it on the reactor's thread, which Python does not know."""
    program = streams.__file__
    with (tmp_path / "server.log").open("wb") as log:
        server = stacks.start(FAR_NETWORK, program, "serve", stacks.far, "7000", stdout=log, stderr=log)
    client = stacks.start(
        NETWORK,
        "-c",
        STARTER,
        program,
        what,
        stacks.far,
        "7000",
        str(SIZE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: stacks.server.stats()["listeners"] == 1, "the server to listen")
        assert hold_the_gil_until_it_ends(client)
        said = client.communicate(timeout=PATIENCE_MS / 1000)[0]
        assert client.returncode == 0, said.decode()
        print(what, said.decode())
        moved = stacks.server.stats()
        assert min(moved["bytes_in"], moved["bytes_out"]) >= SIZE
    finally:
        for process in (client, server):
            process.kill()
            process.communicate()
