"""`netcon forward` and `netcon proxy`: ways into a network for programs that cannot be intercepted."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from netcon.cli.common import NETWORKS, Failure, home_option, network_ids

Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    for option in (
        click.option("--network", type=NETWORKS, envvar="ZT_NC_NWID", help="Network to use, or several. Default: whichever fits."),
        click.option("--socket", "socket_path", type=click.Path(path_type=Path), envvar="NETCON_SOCK", help="RPC socket to use."),
        click.option(
            "--max-connections", type=click.IntRange(1), default=1000, show_default=True, help="Per listener; more have to wait."
        ),
        click.option("-v", "--verbose", is_flag=True, help="Log each flow's errors, too."),
    ):
        command = option(command)
    return command


@click.command(short_help="Forward ports into a network, and out of it.")
@click.option("-L", "local", multiple=True, metavar="[BIND:]PORT:HOST:PORT", help="Listen on this host, connect into the network.")
@click.option("-R", "remote", multiple=True, metavar="[BIND:]PORT:HOST:PORT", help="Listen on the network, connect to the host.")
@click.option("-u", "--udp", is_flag=True, help="All of them are UDP. For one of them write udp: in front of it.")
@click.option("--udp-timeout", type=click.FloatRange(min=0.01), default=60, show_default=True, help="Seconds until a flow is idle.")
@click.option("--max-flows", type=click.IntRange(1), default=1000, show_default=True, help="UDP flows of each forward.")
@_common
@home_option
def forward(
    local: tuple[str, ...],
    remote: tuple[str, ...],
    udp: bool,
    udp_timeout: float,
    max_flows: int,
    network: str | None,
    socket_path: Path | None,
    max_connections: int,
    verbose: bool,
) -> None:
    """Forward TCP and UDP ports, as ssh's -L and -R. Runs until Ctrl-C or SIGTERM.

    \b
    netcon forward -L 8080:10.147.0.7:80        http://localhost:8080/ is a member's server
    netcon forward -R 8080:localhost:80         this host's server, for the network's members
    netcon forward -L /run/x.sock:10.147.0.7:80 a Unix socket, for its owner alone
    netcon forward -L udp:5300:10.147.0.7:53    UDP

    IPv6 addresses stand in brackets. -L listens on 127.0.0.1 if no address is given, -R on all of this node's virtual addresses.
    """
    from netcon.forward.command import run_forwards
    from netcon.forward.sides import NetworkSide
    from netcon.forward.specification import Direction, parse_forward

    forwards = [parse_forward(Direction.LOCAL, text, udp=udp) for text in local]
    forwards += [parse_forward(Direction.REMOTE, text, udp=udp) for text in remote]
    if not forwards:
        raise click.UsageError("nothing to forward: give -L or -R.")
    side = NetworkSide(*_service(network, socket_path))
    _run(
        lambda started: run_forwards(
            forwards, side, started, connections_max=max_connections, flows_max=max_flows, idle_s=udp_timeout
        ),
        verbose,
    )


@click.command(short_help="Serve a SOCKS5 or HTTP proxy into a network.")
@click.option("--socks", multiple=True, metavar="[BIND:]PORT|PATH", help="Serve SOCKS5 there.")
@click.option("--http", multiple=True, metavar="[BIND:]PORT|PATH", help="Serve an HTTP proxy there (CONNECT, and http:// URLs).")
@click.option(
    "--auth",
    envvar="NETCON_PROXY_AUTH",
    metavar="NAME:PASSWORD",
    help="What clients must give. Better in $NETCON_PROXY_AUTH: others on this machine see command lines.",
)
@_common
@home_option
def proxy(
    socks: tuple[str, ...],
    http: tuple[str, ...],
    auth: str | None,
    network: str | None,
    socket_path: Path | None,
    max_connections: int,
    verbose: bool,
) -> None:
    """Serve programs that know proxies. Runs until Ctrl-C or SIGTERM.

    \b
    netcon proxy --socks 1080 --http 3128
    curl --socks5-hostname localhost:1080 http://10.147.0.7/
    curl -x http://localhost:3128 https://10.147.0.7/

    Listens on 127.0.0.1 if no address is given; any user of this machine may use it then, but not a Unix socket (a path).
    """
    from netcon.forward.proxy import ProxySettings, check_credentials, run_proxies
    from netcon.forward.sides import NetworkSide
    from netcon.forward.specification import parse_place

    wanted = [("socks", parse_place(text)) for text in socks] + [("http", parse_place(text)) for text in http]
    if not wanted:
        raise click.UsageError("nothing to serve: give --socks or --http.")
    settings = ProxySettings(check_credentials(auth) if auth else None)
    side = NetworkSide(*_service(network, socket_path))
    _run(lambda started: run_proxies(wanted, side, started, settings=settings, connections_max=max_connections), verbose)


def _service(network: str | None, socket_path: Path | None) -> tuple[Path, tuple[int, ...]]:
    from netcon.cli.run import find_socket

    return socket_path or find_socket(network), network_ids(network)


def _run(work: Callable[[Callable[[object], None]], Awaitable[None]], verbose: bool) -> None:
    """`work` until a signal. It is given what to call with each thing that has started."""
    import trio

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection takes two, and the usual soft limit is 1,024
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="netcon: %(message)s")

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def until_signal() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(until_signal)
                await work(click.echo)

    failures: list[str] = []
    try:
        trio.run(main)
    except* trio.BrokenResourceError as group:
        failures += ["the service is gone; start it again, then this command" for _ in group.exceptions[:1]]
    except* Exception as group:
        failures += [str(error) for error in _leaves(group)]
    if failures:
        raise Failure(failures[0])


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """What netcon or the system raised on purpose; anything else goes on as it is."""
    from netcon.core.errors import NetconError

    _, unexpected = group.split((NetconError, OSError))
    if unexpected is not None:
        raise unexpected
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
