"""`netcon capture`: the Ethernet frames of a network as pcapng, for Wireshark and tcpdump."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, BinaryIO

import click

from netcon.cli.common import NETWORK, Failure, client, home_option
from netcon.core.errors import NetconError
from netcon.service.client import Client, RequestFailed

_ETHERTYPES = {"arp": 0x0806, "ip": 0x0800, "ip6": 0x86DD}
_CHUNK = 1 << 18
_MEGABYTE = 1_000_000


class EtherType(click.ParamType):  # type: ignore[type-arg]
    """arp, ip, ip6, or a number."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value in _ETHERTYPES:
            return _ETHERTYPES[value]
        try:
            number = int(value, 0)
        except ValueError:
            number = 0
        if not 0 < number <= 0xFFFF:
            self.fail(f"{value!r} is no EtherType: arp, ip, ip6, or a number as 0x88cc.", param, ctx)
        return number


@click.command(short_help="A network's frames as pcapng.")
@click.argument("network", type=NETWORK)
@click.option("-o", "--output", default="-", metavar="FILE|-", help="A new file. Default: standard output.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after this many frames.")
@click.option("-s", "--snaplen", type=click.IntRange(1, 262144), default=262144, help="Bytes kept of each frame. Default: all.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, metavar="MB", help="End before it is longer.")
@click.option("--host", metavar="ADDRESS", default="", help="Only frames from or to this IP address.")
@click.option("--port", type=click.IntRange(1, 65535), help="Only frames from or to this TCP or UDP port.")
@click.option("--ethertype", type=EtherType(), help="Only frames of this type: arp, ip, ip6, or a number.")
@home_option
def capture(
    network: str,
    output: str,
    count: int | None,
    snaplen: int,
    limit: int,
    host: str,
    port: int | None,
    ethertype: int | None,
) -> None:
    """Write the Ethernet frames of NETWORK, of both directions, until Ctrl-C or a limit.

    \b
    netcon capture 8056c2e21c000001 -o frames.pcapng
    netcon capture 8056c2e21c000001 --port 80 | tcpdump -n -r -
    netcon capture 8056c2e21c000001 | wireshark -k -i -
    """
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal: name a file with -o, or a reader: … | tcpdump -n -r -")
    request = {"snaplen": snaplen, "frames": count or 0, "limit": limit * _MEGABYTE, "host": host, "port": port or 0}
    with client() as service, new_file(output) as into:
        try:
            made = service.post(f"/network/{network}/capture", request | {"ethertype": ethertype or 0})
        except RequestFailed as error:
            if error.status != 404:
                raise
            raise Failure(f"network {network} is not joined; see `netcon networks`") from None
        path = f"/capture/{made['id']}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as source:
            source.connect(made["socket"])
            with finished_by_interrupt(service, path):
                copy(source, into)
            try:
                counted = service.get(path)
            except NetconError:
                raise Failure("the service has ended, and the capture with it") from None
    dropped = f", {counted['dropped']} dropped because nobody read them in time" if counted["dropped"] else ""
    click.echo(f"{counted['written']} frames captured of {counted['seen']} seen{dropped}", err=True)


@contextmanager
def new_file(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Failure(f"{name} exists already, and a capture goes to a new file: name another") from None
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            yield file
    except BaseException:
        if os.stat(name).st_size == 0:  # it never began
            os.unlink(name)
        raise


@contextmanager
def finished_by_interrupt(service: Client, path: str) -> Iterator[None]:
    """SIGINT and SIGTERM ask the service for the end of the file, which then comes over the socket."""
    asked = False

    def finish(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            service.delete(path)

    before = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def copy(source: socket.socket, into: BinaryIO) -> None:
    """Until the end of the file, or until nobody reads it any more."""
    try:
        while data := source.recv(_CHUNK):
            into.write(data)
            into.flush()
    except BrokenPipeError:  # tcpdump -c has seen enough
        # So that Python's own flush at exit finds nobody gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), into.fileno())
    except OSError as error:
        raise Failure(f"the capture could not be written: {error.strerror}") from None
