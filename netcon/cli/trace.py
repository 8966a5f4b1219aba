"""`netcon trace`: runs a program on the network and prints each of its calls that the library sees, as strace does."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

import click

from netcon.cli.common import NETWORKS, Failure, home, home_option
from netcon.cli.run import CannotRun, NotFound, find_socket
from netcon.core.errors import NetconError
from netcon.intercept import InterceptError, NotInterceptable, ProgramNotFound, check_program, find_program, run_environment
from netcon.service.client import Client
from netcon.trace import RECORD_MAX, BadRecord, Printer, decode

_BACKLOG = 128
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@click.command(
    short_help="Print a program's calls, like strace.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--network",
    type=NETWORKS,
    envvar="ZT_NC_NWID",
    help="Network that its sockets are on; or several, and the destination chooses. Default: all that the service has joined.",
)
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), envvar="NETCON_SOCK", help="RPC socket of the service to use."
)
@click.option("-o", "--output", type=click.File("w", lazy=False), help="Where the lines go. Default: standard error.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also calls on what is no internet socket.")
@click.option("-t", "--time", "clock", is_flag=True, help="Begin each line with the time of day.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@home_option
def trace(
    network: str | None,
    socket_path: Path | None,
    output: TextIO | None,
    everything: bool,
    clock: bool,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run PROGRAM as `netcon run` does and print each call that the library sees, with what was decided and its result.

    Each line begins with the process, and the thread if it is not the first. Children are traced too, to their end; the exit code
    is PROGRAM's. A call that never ends is printed at the end.
    """
    try:
        path = find_program(program)
        check_program(path)
        environment = run_environment(network=network, socket_path=socket_path or find_socket(network))
    except ProgramNotFound as error:
        raise NotFound(str(error)) from None
    except NotInterceptable as error:
        raise CannotRun(str(error)) from None
    except InterceptError as error:
        raise Failure(str(error)) from None
    printer = Printer(network_finder(home()), everything=everything, clock=clock)
    into = output or sys.stderr

    def show(message: bytes) -> None:
        try:
            for line in printer.lines(decode(message)):
                print(line, file=into, flush=True)
        except BadRecord as error:
            print(f"netcon: {error}", file=into, flush=True)

    # Orphans that the program leaves behind become our children: so it is known when the last one has ended.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with listening() as (listener, name), woken_by_children() as bell:
        try:
            process = subprocess.Popen([program, *arguments], executable=path, env=environment | {"NETCON_TRACE": name})
        except OSError as error:
            raise CannotRun(f"{path}: {error.strerror}") from None
        with deaf_to_interrupts(process):
            try:
                follow(listener, bell, process, show)
            except KeyboardInterrupt:
                pass  # enough seen of those that PROGRAM left behind
            finally:
                for line in printer.unfinished():
                    print(line, file=into, flush=True)
    code = process.returncode
    click.get_current_context().exit(code if code >= 0 else 128 - code)


def network_finder(folder: Path) -> Callable[[str], int]:
    """Tells the network of one of our addresses; 0 if the service does not. Asks again for an address that is new."""
    known: dict[str, int] = {}

    def find(address: str) -> int:
        if address not in known:
            known[address] = 0
            try:
                with Client(folder) as client:
                    for joined in client.get("/network"):
                        known.update((entry.partition("/")[0], int(joined["id"], 16)) for entry in joined["assignedAddresses"])
            except NetconError:
                pass
        return known[address]

    return find


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A socket that only this user can reach, and its path."""
    with (
        tempfile.TemporaryDirectory(prefix="netcon-trace-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener,
    ):
        name = os.path.join(folder, "s")
        listener.bind(name)
        listener.listen(_BACKLOG)
        yield listener, name


@contextmanager
def deaf_to_interrupts(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C is for the program, which gets it from the terminal too; once it has ended, it is for us."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        if process.returncode is not None:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def woken_by_children() -> Iterator[socket.socket]:
    """A socket that is readable once a child has ended."""
    bell, ringer = socket.socketpair()
    with bell, ringer:
        bell.setblocking(False)
        ringer.setblocking(False)
        before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        wakeup = signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        try:
            yield bell
        finally:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGCHLD, before)


def has_children(process: subprocess.Popen[bytes]) -> bool:
    """Is the program, or an orphan of it, still there? Takes the exit codes of orphans."""
    if process.poll() is None:
        return True
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def follow(listener: socket.socket, bell: socket.socket, process: subprocess.Popen[bytes], show: Callable[[bytes], None]) -> None:
    """Until the program and all processes that it left behind have ended, and all that they sent is shown."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(bell, selectors.EVENT_READ)
        connections = 0
        try:
            while has_children(process) or (connections := connections + accept_all(listener, selector)):
                for key, _ in selector.select():
                    connection = cast(socket.socket, key.fileobj)
                    if connection is listener:
                        connections += accept_all(listener, selector)
                    elif connection is bell:
                        connection.recv(4096)
                    elif not drain(connection, show):
                        selector.unregister(connection)
                        connection.close()
                        connections -= 1
        finally:
            for key in list(selector.get_map().values()):
                if key.fileobj not in (listener, bell):
                    cast(socket.socket, key.fileobj).close()
            if process.poll() is None:
                process.terminate()
                process.wait()


def accept_all(listener: socket.socket, selector: selectors.BaseSelector) -> int:
    accepted = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return accepted
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        accepted += 1


def drain(connection: socket.socket, show: Callable[[bytes], None]) -> bool:
    """False at its end."""
    while True:
        try:
            message = connection.recv(RECORD_MAX)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not message:
            return False
        show(message)
