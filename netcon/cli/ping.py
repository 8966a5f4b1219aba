"""`netcon ping`: ICMP echo over the virtual networks, with the output and exit codes of iputils' ping."""

from __future__ import annotations

import ipaddress
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import trio

from netcon.cli.common import NETWORKS, Failure, home_option, network_ids
from netcon.cli.run import find_socket
from netcon.core.errors import NetconError
from netcon.intercept import run_environment
from netcon.sockets import Echo, PingSocket, open_ping

_STAMP = struct.Struct("=Q")  # when a request went out, in its payload, ns
_HEADERS = {4: 20 + 8, 6: 8}  # iputils counts the IPv4 header, and of IPv6 only that of ICMP
_PAYLOAD_MAX = 65507 - 8
_INTERVAL_MIN_S = 0.002


class CannotPing(Failure):
    """Exit code 2, as ping's for all but a missing answer."""

    exit_code = 2


@dataclass
class Statistics:
    """What was sent and came back. Times in ms."""

    sent: int = 0
    received: int = 0
    duplicates: int = 0
    errors: int = 0
    timed: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    most: float = 0.0
    seen: set[int] = field(default_factory=set)

    def answered(self, sequence: int, milliseconds: float | None) -> bool:
        """Counts a reply; False if it is a duplicate."""
        if sequence in self.seen:
            self.duplicates += 1
            return False
        self.seen.add(sequence)
        self.received += 1
        if milliseconds is not None:
            self.timed += 1
            self.total += milliseconds
            self.squares += milliseconds**2
            self.least, self.most = min(self.least, milliseconds), max(self.most, milliseconds)
        return True

    def summary(self, name: str, elapsed_ms: float) -> list[str]:
        lost = 100 * (self.sent - self.received) / self.sent if self.sent else 0.0
        more = f", +{self.duplicates} duplicates" if self.duplicates else ""
        more += f", +{self.errors} errors" if self.errors else ""
        counts = f"{self.sent} packets transmitted, {self.received} received{more}, {lost:.6g}% packet loss"
        lines = ["", f"--- {name} ping statistics ---", f"{counts}, time {elapsed_ms:.0f}ms"]
        if self.timed:
            mean = self.total / self.timed
            deviation = max(self.squares / self.timed - mean**2, 0.0) ** 0.5
            lines.append(f"rtt min/avg/max/mdev = {self.least:.3f}/{mean:.3f}/{self.most:.3f}/{deviation:.3f} ms")
        return lines


@click.command(short_help="ICMP echo over the network.")
@click.argument("destination", metavar="ADDRESS|NAME")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after this many requests.")
@click.option("-i", "--interval", type=click.FloatRange(min=_INTERVAL_MIN_S), default=1.0, show_default=True, metavar="SECONDS")
@click.option(
    "-W", "--timeout", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="SECONDS", help="For the last reply."
)
@click.option("-w", "--deadline", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after this time.")
@click.option("-s", "--size", type=click.IntRange(0, _PAYLOAD_MAX), default=56, show_default=True, metavar="BYTES")
@click.option("-t", "--ttl", type=click.IntRange(1, 255), help="TTL or hop limit of the requests.")
@click.option("-q", "--quiet", is_flag=True, help="Only the summary.")
@click.option("-4", "family", flag_value=socket.AF_INET, type=int, help="IPv4 only.")
@click.option("-6", "family", flag_value=socket.AF_INET6, type=int, help="IPv6 only.")
@click.option("--network", type=NETWORKS, envvar="ZT_NC_NWID", help="One, or several. Default: all; the destination chooses.")
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), envvar="NETCON_SOCK", help="RPC socket of the service.")
@home_option
def ping(
    destination: str,
    count: int | None,
    interval: float,
    timeout: float,
    deadline: float | None,
    size: int,
    ttl: int | None,
    quiet: bool,
    family: int | None,
    network: str | None,
    socket_path: Path | None,
) -> None:
    """Send ICMP echo requests to ADDRESS or NAME over the networks of the service.

    The exit code is 0 if there was an answer, 1 if there was none, 2 if it could not be tried. Ctrl-C ends it with the summary.
    """
    path = socket_path or find_socket(network)
    address = resolve(destination, family, path, network)
    pinger = Pinger(destination, address, count, interval, timeout, size, ttl, quiet, click.echo)
    opener = partial(open_ping, path, address, network_ids(network))
    try:
        trio.run(pinger.run, opener, deadline)
    except (OSError, NetconError, trio.BrokenResourceError) as error:
        raise CannotPing(str(error.strerror if isinstance(error, OSError) and error.strerror else error)) from None
    enough = count is None or pinger.statistics.received >= count or deadline is None
    click.get_current_context().exit(0 if pinger.statistics.received and enough else 1)


_RESOLVE = """
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], None, int(sys.argv[2]), socket.SOCK_DGRAM)
except OSError as error:
    sys.exit(error.strerror)
print(found[0][4][0].partition("%")[0])
"""


def resolve(name: str, family: int | None, path: Path, network: str | None) -> str:
    """The first address of a name, of the family if one is given; as programs under the library see it."""
    try:
        numeric = ipaddress.ip_address(name)
    except ValueError:
        environment = run_environment(network=network, socket_path=path)
        command = [sys.executable, "-I", "-S", "-c", _RESOLVE, name, str(family or int(socket.AF_UNSPEC))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotPing(f"{name}: {done.stderr.strip()}; give the address, see `netcon networks`") from None
        return done.stdout.strip()
    if family not in (None, socket.AF_INET if numeric.version == 4 else socket.AF_INET6):
        raise CannotPing(f"{name} is an IPv{numeric.version} address")
    return str(numeric)


class Pinger:
    """One run. `say` prints a line."""

    def __init__(
        self,
        name: str,
        address: str,
        count: int | None,
        interval: float,
        timeout: float,
        size: int,
        ttl: int | None,
        quiet: bool,
        say: Callable[[str], None],
    ) -> None:
        self.statistics = Statistics()
        self._name = name
        self._address = address
        self._count = count
        self._interval = interval
        self._timeout = timeout
        self._size = size
        self._ttl = ttl
        self._say: Callable[[str], None] = (lambda line: None) if quiet else say
        self._always = say
        self._change = trio.Event()
        self._failure: trio.BrokenResourceError | None = None

    async def run(self, opener: Callable[[], Awaitable[PingSocket]], deadline: float | None) -> None:
        """OSError, NetconError: it could not be tried. BrokenResourceError: the service has gone."""
        async with await opener() as sock:
            started = time.monotonic()
            headers = _HEADERS[ipaddress.ip_address(self._address).version]
            self._always(f"PING {self._name} ({self._address}) {self._size}({self._size + headers}) bytes of data.")
            with trio.open_signal_receiver(signal.SIGINT) as signals, trio.move_on_after(deadline or math.inf) as limit:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._interrupted, signals, limit)
                    nursery.start_soon(self._receive, sock, nursery.cancel_scope)
                    await self._send(sock)
                    with trio.move_on_after(self._timeout):
                        while self.statistics.received + self.statistics.errors < self.statistics.sent:
                            await self._change.wait()
                    nursery.cancel_scope.cancel()
        for line in self.statistics.summary(self._name, (time.monotonic() - started) * 1000):
            self._always(line)
        if self._failure is not None:
            raise self._failure

    async def _interrupted(self, signals: AsyncIterator[int], limit: trio.CancelScope) -> None:
        async for _ in signals:
            limit.cancel()

    async def _send(self, sock: PingSocket) -> None:
        start = trio.current_time()
        sequence = 0
        while self._count is None or sequence < self._count:
            sequence += 1
            self.statistics.sent += 1
            stamp = _STAMP.pack(time.monotonic_ns()) if self._size >= _STAMP.size else b""
            filler = bytes(number & 0xFF for number in range(len(stamp), self._size))
            self.statistics.seen.discard(sequence & 0xFFFF)  # the number comes round after 65,536
            try:
                await sock.send_echo(self._address, sequence, stamp + filler, ttl=self._ttl)
            except OSError as error:
                self._failed(sequence, error)
            except NetconError:
                break  # the service has gone: the receiver tells
            if self._count is None or sequence < self._count:
                await trio.sleep_until(start + sequence * self._interval)

    async def _receive(self, sock: PingSocket, work: trio.CancelScope) -> None:
        while True:
            try:
                self._answered(await sock.receive_echo())
            except trio.BrokenResourceError as error:  # the service has gone
                self._failure = error
                work.cancel()
                return
            except OSError as error:
                self._failed(self.statistics.sent, error)

    def _answered(self, echo: Echo) -> None:
        milliseconds = None
        if len(echo.payload) >= _STAMP.size and self._size >= _STAMP.size:
            milliseconds = (time.monotonic_ns() - _STAMP.unpack_from(echo.payload)[0]) / 1e6
        new = self.statistics.answered(echo.sequence, milliseconds)
        line = f"{len(echo.payload) + 8} bytes from {echo.peer}: icmp_seq={echo.sequence}"
        line += f" ttl={echo.ttl}" if echo.ttl is not None else ""
        line += f" time={milliseconds:.3g} ms" if milliseconds is not None else ""
        self._say(line + ("" if new else " (DUP!)"))
        self._changed()

    def _failed(self, sequence: int, error: OSError) -> None:
        self.statistics.errors += 1
        self._say(f"From {self._name} icmp_seq={sequence} {os.strerror(error.errno) if error.errno else error}")
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
