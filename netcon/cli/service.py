"""`netcon service` and `netcon stop`."""

from __future__ import annotations

from pathlib import Path

import click

from netcon.cli.common import Failure, home, home_option


@click.command(short_help="Run the service.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when programs can use it.")
@click.option("--wait-address", is_flag=True, help="With -d: return only when each network has an address.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=30, show_default=True, metavar="SECONDS", help="How long -d may wait."
)
@click.option("-p", "--port", type=click.IntRange(0, 65535), help="Primary port, UDP and TCP (0: any). Goes before local.conf's.")
@click.argument("folder", metavar="[HOME]", required=False, type=click.Path(path_type=Path))
@home_option
def service(detach: bool, wait_address: bool, timeout: float, port: int | None, folder: Path | None) -> None:
    """Run the node of home folder HOME, and join the networks that it lists.

    Needs no privilege. In the foreground it ends with SIGTERM or Ctrl-C; with -d, `netcon stop` ends it.
    """
    path = folder.absolute() if folder else home()
    if detach:
        from netcon.service.detach import start_detached

        process = start_detached(path, port=port, wait_address=wait_address, timeout=timeout)
        click.echo(f"netcon service {process} runs on {path}")
        return
    if wait_address:
        raise click.UsageError("--wait-address needs -d: in the foreground there is nobody to tell.")
    from netcon.service.service import main

    main(path, port=port)


@click.command(short_help="Stop the service.")
@click.argument("folder", metavar="[HOME]", required=False, type=click.Path(path_type=Path))
@home_option
def stop(folder: Path | None) -> None:
    """Stop the service of home folder HOME, and wait until it is gone."""
    from netcon.service.detach import stop_service

    path = folder.absolute() if folder else home()
    if not stop_service(path):
        raise Failure(f"no service runs on {path}; name its home folder with -D")
