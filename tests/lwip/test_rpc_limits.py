"""A service that has no descriptor left, or too many of them in flight: what it holds lives on, and what it cannot do waits or is
refused with ENFILE."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lwip.rpc_client import Program, ProgramSocket
from tests.lwip.service import HERE, THERE, eventually

SOMEBODY = 54321
LIMIT = 640


class ServiceProcess:
    def __init__(self, folder: Path, *, limit: int, uid: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lwip.service_process", str(limit), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        self.path = self.read().split()[0]

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the service ended"
        return line

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read().strip()

    def count(self, name: str) -> int:
        return int(self.ask(f"count {name}"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path, limit=LIMIT)
    yield service
    service.close()


@pytest.fixture
def somebody(tmp_path: Path) -> Iterator[ServiceProcess]:
    """Not root's: root's descriptors in flight are not limited."""
    service = ServiceProcess(tmp_path, limit=LIMIT, uid=SOMEBODY)
    yield service
    service.close()


def take_all(program: Program, sockets: list[ProgramSocket]) -> int:
    """Make sockets until the service refuses one; its errno."""
    while len(sockets) < LIMIT:
        try:
            sockets.append(program.socket(posted=False))
        except OSError as error:
            return error.errno or 0
    return 0


def assert_served(service: ServiceProcess, old: ProgramSocket) -> None:
    """Programs that come are heard, and sockets that exist work."""
    assert old.getsockname()[0] == HERE
    program = Program(service.path)
    with contextlib.suppress(OSError):
        program.socket(posted=False).close()
    program.close()


def test_a_full_table_refuses_new_sockets_and_keeps_the_old(full: ServiceProcess) -> None:
    program = Program(full.path)
    sockets: list[ProgramSocket] = []
    with program.listener(HERE) as listener:
        assert take_all(program, sockets) == errno.ENFILE
        assert_served(full, listener)
        with pytest.raises(OSError) as refused:  # a connection needs two more, and P while it connects
            sockets[-1].connect(HERE, listener.getsockname()[1])
        assert refused.value.errno == errno.ENFILE
        for sock in sockets:
            sock.close()
        eventually(lambda: full.count("sockets") == 1, "all but the listener gone")
        with program.connected(HERE, listener.getsockname()[1]) as client:
            accepted, _ = listener.accept()
            accepted.p.sendall(b"room again")
            assert client.p.recv(100) == b"room again"
            accepted.close()
    program.close()


def test_sockets_that_connect_do_not_fill_the_table_either(full: ServiceProcess) -> None:
    """Each holds two descriptors of the service."""
    program = Program(full.path)
    sockets: list[ProgramSocket] = []
    errors = set()
    with program.listener(HERE) as listener:
        for _ in range(LIMIT):
            try:
                sockets.append(program.socket(posted=False))
                sockets[-1].start_connect(THERE, 80)
            except OSError as error:
                errors.add(error.errno)
        assert errno.ENFILE in errors
        assert errors <= {errno.EINPROGRESS, errno.ENFILE}
        assert_served(full, listener)
    for sock in sockets:
        sock.close()
    program.close()


def test_connections_wait_while_a_full_table_has_no_room_for_them(full: ServiceProcess) -> None:
    program = Program(full.path)
    sockets: list[ProgramSocket] = []
    with program.listener(HERE) as listener:
        port = listener.getsockname()[1]
        clients = [program.socket(posted=False)]
        take_all(program, sockets)
        sockets.pop().close()  # room for P while it connects, but not for another pair
        eventually(lambda: full.count("closing_descriptors") == 0, "closed")
        clients[0].connect(HERE, port)
        eventually(lambda: full.count("record_retries") > 0, "the pair is tried for again")
        for sock in sockets:
            sock.close()
        accepted, _ = listener.accept()
        clients[0].p.sendall(b"waited")
        assert accepted.p.recv(100) == b"waited"
        accepted.close()
        clients[0].close()
    program.close()


def test_connections_wait_while_too_many_descriptors_are_in_flight(somebody: ServiceProcess) -> None:
    program = Program(somebody.path)
    with program.listener(HERE) as listener:
        port = listener.getsockname()[1]
        assert somebody.ask("fill") == "full"
        with program.connected(HERE, port) as client:
            eventually(lambda: somebody.count("record_retries") > 0, "the record is tried again")
            assert somebody.ask("empty") == "empty"
            accepted, _ = listener.accept()
            client.p.sendall(b"waited")
            assert accepted.p.recv(100) == b"waited"
            accepted.close()
    program.close()


def test_a_call_whose_answer_needs_a_descriptor_says_enfile_while_too_many_are_in_flight(somebody: ServiceProcess) -> None:
    program = Program(somebody.path)
    with program.socket() as sock:
        with pytest.raises(ConnectionRefusedError):
            sock.connect(HERE, 9)
        assert somebody.ask("fill") == "full"
        with pytest.raises(OSError) as refused:  # the second connect needs a new pair
            sock.start_connect(HERE, 9)
        assert refused.value.errno == errno.ENFILE
        assert somebody.ask("empty") == "empty"
    program.close()
