"""What all commands share: the home folder option, errors, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netcon.core.errors import NetconError
from netcon.service.paths import default_home

if TYPE_CHECKING:
    from netcon.service.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends the command with exit code 1 and a line that says what to do."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"netcon: {self.message}", err=True)


def _remember_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.find_root().meta["home"] = value


def home_option(command: Command) -> Command:
    """`-D HOME`, accepted before and after a command's name; `home()` gives the result."""
    return click.option(
        "-D",
        "--home",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_remember_home,
        help="Home folder of the service (default: $NETCON_HOME, ~/.local/share/netcon, /var/lib/netcon for root).",
    )(command)


def home() -> Path:
    """The home folder that this command is about."""
    given: Path | None = click.get_current_context().find_root().meta.get("home")
    return (given or default_home()).absolute()


def client() -> Client:
    from netcon.service.client import Client

    return Client(home())


class HexadecimalId(click.ParamType):  # type: ignore[type-arg]
    """An id of a fixed number of hexadecimal digits; given on in lower case."""

    def __init__(self, name: str, what: str, *digits: int) -> None:
        self.name = name
        self._what = what
        self._digits = digits

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) not in self._digits or not all(character in hexdigits for character in value):
            self.fail(f"{value!r} is not {self._what}: {' or '.join(map(str, self._digits))} hexadecimal digits are.", param, ctx)
        return str(value).lower()


class NetworkList(click.ParamType):  # type: ignore[type-arg]
    """One network id, or several with commas between, as ZT_NC_NWID has them; given on in lower case."""

    name = "network[,…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return ",".join(dict.fromkeys(NETWORK.convert(part, param, ctx) for part in value.split(",")))


NETWORK = HexadecimalId("network", "a network id", 16)
NETWORKS = NetworkList()
ADDRESS = HexadecimalId("address", "a node address", 10)
MOON = HexadecimalId("moon", "a moon's id", 10, 16)


def network_ids(networks: str | None) -> tuple[int, ...]:
    """What NETWORKS gives, as numbers; none: all networks."""
    return tuple(int(each, 16) for each in networks.split(",")) if networks else ()


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people on a terminal; aligned columns otherwise."""
    cells = [[str(cell) if cell not in ("", None) else "-" for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, box=None, header_style="bold", pad_edge=False)
        for row in cells:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in (list(header), *cells)) for column in range(len(header))]
    for row in (list(header), *cells):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class NetconGroup(click.Group):
    """Turns what netcon raises on purpose into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NetconError as error:
            raise Failure(str(error)) from None
