"""The `netcon` command, and the names of the original work: `zerotier-netcon-service`, `zerotier-intercept`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from netcon import __version__
from netcon.cli.common import NetconGroup, home_option

#: Command -> (module, attribute): imported when used.
COMMANDS = {
    "service": ("netcon.cli.service", "service"),
    "stop": ("netcon.cli.service", "stop"),
    "policy": ("netcon.cli.policy", "policy"),
    "run": ("netcon.cli.run", "run"),
    "doctor": ("netcon.cli.doctor", "doctor"),
    "trace": ("netcon.cli.trace", "trace"),
    "ping": ("netcon.cli.ping", "ping"),
    "capture": ("netcon.cli.capture", "capture"),
    "info": ("netcon.cli.node", "info"),
    "status": ("netcon.cli.node", "status"),
    "join": ("netcon.cli.node", "join"),
    "leave": ("netcon.cli.node", "leave"),
    "networks": ("netcon.cli.node", "networks"),
    "names": ("netcon.cli.names", "names"),
    "peers": ("netcon.cli.node", "peers"),
    "moons": ("netcon.cli.node", "moons"),
    "orbit": ("netcon.cli.node", "orbit"),
    "deorbit": ("netcon.cli.node", "deorbit"),
    "addresses": ("netcon.cli.addresses", "addresses"),
    "events": ("netcon.cli.events", "events"),
    "controller": ("netcon.cli.controller", "controller"),
    "forward": ("netcon.cli.forward", "forward"),
    "proxy": ("netcon.cli.forward", "proxy"),
    "identity": ("netcon.cli.identity", "identity"),
    "world": ("netcon.cli.world", "world"),
    "rules": ("netcon.cli.rules", "rules"),
    "demo": ("netcon.cli.demo", "demo"),
}


class LazyGroup(NetconGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="netcon")
@home_option
def main() -> None:
    """Programs join encrypted virtual networks, unmodified and without privilege.

    \b
    netcon service -d              start the service in the background
    netcon join NETWORK            join a network
    netcon run nginx               run a program whose sockets are on the network
    """


def service_main() -> None:
    """`zerotier-netcon-service [-d] [-p PORT] [HOME]`."""
    main(["service", *sys.argv[1:]], prog_name="zerotier-netcon-service")


def intercept_main() -> None:
    """`zerotier-intercept PROGRAM ARGUMENTS`, with the network in ZT_NC_NWID."""
    network = os.environ.get("ZT_NC_NWID")
    options = ["--network", network] if network else []
    main(["run", *options, *sys.argv[1:]], prog_name="zerotier-intercept")


if __name__ == "__main__":
    main(prog_name="netcon")
