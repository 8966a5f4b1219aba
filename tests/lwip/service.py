"""A socket server in this process, for tests: one or two stacks on a threaded reactor; of which nothing may be left."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lwip
from netcon.dataplane.reactor import Reactor, connect
from tests.lwip.rpc_client import Program, ProgramSocket

SERVICE_ID = 0x1122334455667788
NETWORK_A, NETWORK_B = 0xA0, 0xB0
HERE, HERE6 = "10.77.0.1", "fd77::1"
THERE, THERE6 = "10.77.0.2", "fd77::2"
DEADLINE = 30.0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for an event of which nobody tells; fails after a generous deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.005)


class Service:
    """`two`: a second stack (network B) on the same Ethernet link."""

    def __init__(self, *, two: bool = False) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="netcon-test-")
        self.path = str(Path(self.folder.name) / "rpc")
        self.reactor = Reactor()
        self.reactor.start()
        self.server = lwip.SocketServer(self.reactor.capsule(), service=SERVICE_ID, epoch=0x99)
        self.stacks: dict[int, lwip.Stack] = {}
        self.programs: list[Program] = []
        self.add(NETWORK_A, HERE, HERE6)
        if two:
            self.add(NETWORK_B, THERE, THERE6)
            connect(self.reactor, self.stacks[NETWORK_A].ethernet_end(), self.stacks[NETWORK_B].ethernet_end())
        self.server.listen(self.path)

    def add(self, network: int, *addresses: str) -> lwip.Stack:
        stack = lwip.Stack(self.reactor.capsule(), mac=bytes([0x32, 0x77, 0, 0, 0, network & 0xFF]), name=f"{network:x}")
        for ip in addresses:
            stack.add_address(ip, 64 if ":" in ip else 24)
        self.stacks[network] = stack
        self.server.add_network(network, stack)
        return stack

    def program(self, network: int = 0) -> Program:
        program = Program(self.path, network)
        self.programs.append(program)
        return program

    def count(self, name: str) -> int:
        return self.server.stats()[name]

    def pair(self, program: Program, ip: str = HERE, **options: bool) -> tuple[ProgramSocket, ProgramSocket]:
        """A connection: (the client's end, the accepted one)."""
        with program.listener(ip, **options) as listener:
            client = program.connected(ip, listener.getsockname()[1])
            accepted, _ = listener.accept()
        return client, accepted

    def assert_idle(self) -> None:
        """No socket, no buffer, no descriptor of a program is left."""
        left = ("sockets", "descriptors", "chunks", "closing_descriptors")
        eventually(lambda: not any(self.count(name) for name in left), f"all sockets gone: {self.server.stats()}")

    def close(self) -> None:
        for program in self.programs:
            program.close()
        self.server.close()
        for stack in self.stacks.values():
            stack.close()
        self.reactor.stop()
        self.folder.cleanup()
