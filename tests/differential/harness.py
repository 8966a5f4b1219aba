"""What cases are made of: the registry, the two ends of a connection, and ways to observe without depending on time."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Given up, and the case fails, after this many seconds without the event that it waits for.
PATIENCE = 10.0

LIBC = ctypes.CDLL(None, use_errno=True)

POLL_BITS = {
    select.POLLIN: "IN",
    select.POLLOUT: "OUT",
    select.POLLERR: "ERR",
    select.POLLHUP: "HUP",
    select.POLLRDHUP: "RDHUP",
    select.POLLPRI: "PRI",
    select.POLLNVAL: "NVAL",
}
POLL_ALL = select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLPRI


@dataclass(frozen=True)
class Case:
    """A registered case. `differs`: why ours gives `ours` where the kernel gives something else."""

    name: str
    run: Callable[[World], Any]
    differs: str | None = None
    ours: Any = None


CASES: dict[str, Case] = {}


def case(function: Callable[[World], Any]) -> Callable[[World], Any]:
    """Register a case under its function's name."""
    name = function.__name__
    assert name not in CASES, f"two cases are named {name}"
    CASES[name] = Case(name, function)
    return function


def differs(reason: str, ours: Any) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Register a case whose result on our sockets is known to be `ours`, for `reason`, and not the kernel's."""

    def register(function: Callable[[World], Any]) -> Callable[[World], Any]:
        name = function.__name__
        assert name not in CASES, f"two cases are named {name}"
        CASES[name] = Case(name, function, reason, ours)
        return function

    return register


@dataclass
class World:
    """The network side of one run: an address that is local to the sockets under test, and what was opened."""

    address: str
    #: An address that answers nothing, or "" to make such a place on this machine: a listener whose queue is full.
    silent: str
    #: An address of the other family, also local.
    other: str
    opened: list[socket.socket] = field(default_factory=list)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def any(self) -> str:
        return "::" if ":" in self.address else "0.0.0.0"

    def keep(self, sock: socket.socket) -> socket.socket:
        self.opened.append(sock)
        return sock

    def stream(self) -> socket.socket:
        return self.keep(socket.socket(self.family, socket.SOCK_STREAM))

    def nonblocking(self) -> socket.socket:
        sock = self.stream()
        sock.setblocking(False)
        return sock

    def bound(self, port: int = 0, address: str | None = None) -> socket.socket:
        sock = self.stream()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.address if address is None else address, port))
        return sock

    def listener(self, backlog: int = 16, address: str | None = None) -> socket.socket:
        sock = self.bound(address=address)
        sock.listen(backlog)
        return sock

    def to(self, listener: socket.socket) -> tuple[str, int]:
        """Where to connect to reach `listener`."""
        return (self.address, listener.getsockname()[1])

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """(client, server), connected and blocking."""
        listener = self.listener()
        client = self.stream()
        client.connect(self.to(listener))
        server, _ = listener.accept()
        self.keep(server)
        listener.close()
        return client, server

    def silence(self) -> tuple[str, int]:
        """Where a connection attempt gets no answer, so that it stays in progress. Nothing leaves this machine for it."""
        if self.silent:
            return (self.silent, 9)
        listener = self.listener(0)
        while True:
            filler = self.nonblocking()
            filler.connect_ex(self.to(listener))
            poller = select.poll()
            poller.register(filler, select.POLLOUT)
            if not poller.poll(50):
                return self.to(listener)

    def closed_port(self) -> int:
        """A port on which nobody listens: bound, and kept, so that nobody else can begin to."""
        return int(self.bound().getsockname()[1])

    def bound_by_choice(self) -> socket.socket:
        """Bound to a port that the program names, not one that bind chooses."""
        for port in range(20000, 30000):
            sock = self.stream()
            try:
                sock.bind((self.address, port))
            except OSError:
                sock.close()
            else:
                return sock
        raise OSError("no port is free")


def errno_name(code: int) -> str:
    return "OK" if code == 0 else errno.errorcode.get(code, str(code))


def outcome(function: Callable[..., Any], *args: Any) -> str:
    """`OK`, or the name of the errno with which the call failed."""
    try:
        function(*args)
    except OSError as error:
        return errno_name(error.errno or 0)
    return "OK"


def value(function: Callable[..., Any], *args: Any) -> Any:
    """What the call returned, or the name of its errno."""
    try:
        return function(*args)
    except OSError as error:
        return errno_name(error.errno or 0)


def bits(mask: int) -> list[str]:
    return [name for bit, name in POLL_BITS.items() if mask & bit]


def polled(sock: socket.socket, mask: int = POLL_ALL) -> list[str]:
    """The event bits of `sock` now."""
    poller = select.poll()
    poller.register(sock, mask)
    ready = poller.poll(0)
    return bits(ready[0][1]) if ready else []


def wait(sock: socket.socket, mask: int) -> list[str]:
    """Wait until any bit of `mask` (or an error) shows; returns all bits at that moment. Fails after PATIENCE."""
    poller = select.poll()
    poller.register(sock, mask)
    ready = poller.poll(PATIENCE * 1000)
    if not ready:
        raise TimeoutError(f"none of {bits(mask)} came")
    return bits(ready[0][1])


def wait_all(sock: socket.socket, names: set[str]) -> list[str]:
    """Wait until all named bits show together (they may come one after the other)."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        now = polled(sock)
        if names <= set(now):
            return now
        time.sleep(0.001)
    raise TimeoutError(f"{names} did not come together, only {polled(sock)}")


#: The calls in which threads of these cases wait: recvfrom, recvmsg, accept, accept4, poll, ppoll, epoll_wait, epoll_pwait.
WAITING_CALLS = {"x86_64": {45, 47, 43, 288, 7, 271, 232, 281}, "aarch64": {207, 212, 202, 242, 73, 22}}[os.uname().machine]


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `function` in a thread, and return when it waits in the kernel; its result is appended to the list."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            number = file.read().split()[0]
        if number.isdigit() and int(number) in WAITING_CALLS:
            return thread, results
        time.sleep(0.001)
    raise TimeoutError("the thread does not wait")


def raw_call(function: Callable[..., int], *args: Any) -> str:
    """`OK` or the name of the errno, of a function of the C library: no wrapper that repeats or checks."""
    ctypes.set_errno(0)
    return "OK" if function(*args) >= 0 else errno_name(ctypes.get_errno())


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """A signal comes again and again, so that one comes while the call waits."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def until_queued(sock: socket.socket, count: int) -> None:
    """Wait until exactly so many bytes can be read."""
    deadline = time.monotonic() + PATIENCE
    queued = array.array("i", [-1])
    while queued[0] != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{queued[0]} of {count} bytes came")
        fcntl.ioctl(sock, termios.FIONREAD, queued)


def socket_error(sock: socket.socket) -> str:
    return errno_name(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the end of the stream."""
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close so that the peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def no_sigpipe() -> Iterator[None]:
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def in_child(function: Callable[[], Any]) -> Any:
    """Run `function` in a forked child and return its (string) result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = str(function())
        except BaseException as error:
            result = f"raised {type(error).__name__}"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(pid, 0)
    return text
