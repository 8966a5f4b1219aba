"""`netcon doctor`: whether and how a program will work, and why not."""

from __future__ import annotations

from pathlib import Path

import click

from netcon.cli.common import NETWORKS, Failure, home, home_option, print_json
from netcon.cli.run import find_socket


@click.command(
    short_help="Say whether and how a program will work.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--network", type=NETWORKS, envvar="ZT_NC_NWID", help="The network that it would be on, or several.")
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), envvar="NETCON_SOCK", help="RPC socket of the service to use."
)
@click.option("-v", "--verbose", is_flag=True, help="Also tell which functions are left to the C library, and why that is right.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("program", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@home_option
def doctor(
    network: str | None, socket_path: Path | None, verbose: bool, as_json: bool, program: str | None, arguments: tuple[str, ...]
) -> None:
    """Say whether PROGRAM will work under `netcon run`, and if not, why and what to do. Without PROGRAM: whether netcon works here.

    PROGRAM is not started. Its ARGUMENTS are not looked at; they may be there so that a whole command line can be given.
    The exit code is 0 if it will work, 1 if not.
    """
    from netcon.doctor import Doctor, Level

    no_service = ""
    if socket_path is None:
        try:
            socket_path = find_socket(network)
        except Failure as error:
            no_service = error.message
    found = Doctor(home(), network, socket_path, no_service)
    found.examine(program)
    shown = [finding for finding in found.findings if verbose or finding.about != "left"]
    subject = program or "netcon"
    if as_json:
        print_json({"works": found.works, "program": program, "findings": [finding._asdict() for finding in shown]})
    else:
        for finding in shown:
            click.echo(f"{finding.level:<8} {finding.about:<8} {finding.text}")
            if finding.advice:
                click.echo(f"{'':<17} → {finding.advice}")
        trouble = any(finding.level is Level.WARNING for finding in shown)
        click.echo(f"{subject}: {'works' + (', with the warnings above' if trouble else '') if found.works else 'will not work'}")
    click.get_current_context().exit(0 if found.works else 1)
