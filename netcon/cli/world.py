"""`netcon world`: private planets, so that a virtual network needs nobody else's roots."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import click

from netcon.cli.common import Failure
from netcon.cli.identity import read_identity, write_new
from netcon.core.address import Endpoint, format_endpoint, parse_endpoint
from netcon.core.errors import NetconError
from netcon.core.world import Root, World, WorldType, make_planet

_file = click.Path(path_type=Path, dir_okay=False)


class RootOption(click.ParamType):  # type: ignore[type-arg]
    """IDENTITY_FILE=IP/PORT[,IP/PORT...]"""

    name = "identity_file=ip/port[,ip/port...]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path, list[str]]:
        path, separator, endpoints = value.rpartition("=")
        if not separator or not path:
            self.fail(f"{value!r} is not {self.name}, as root/identity.public=192.0.2.1/9993.", param, ctx)
        return Path(path), endpoints.split(",")


@click.group(short_help="Make private planets.")
def world() -> None:
    """Make and show worlds: signed lists of roots. A node whose home folder has its own `planet` uses no public root."""


@world.command()
@click.option(
    "--root",
    "roots",
    type=RootOption(),
    multiple=True,
    required=True,
    help="A root's identity.public and its endpoints; repeatable.",
)
@click.option(
    "--key", type=_file, default="world.key", show_default=True, help="Key that signs this and later versions; made if missing."
)
@click.option("-o", "--output", type=_file, default="planet", show_default=True, help="The planet's file.")
@click.option("--id", "world_id", help="World id, up to 16 hexadecimal digits. Default: that of the file replaced, or random.")
def make(roots: list[tuple[Path, list[str]]], key: Path, output: Path, world_id: str | None) -> None:
    """Make a planet, or a new version of it, and sign it. Copy it into the home folder of each node, as `planet`.

    Keep the key file: only with it can the list of roots be changed later, and nodes learn of the change by themselves.
    """
    found = [Root(read_identity(path), tuple(_endpoint(path, text) for text in endpoints)) for path, endpoints in roots]
    previous = _load(output) if output.exists() else None
    number = _parse_id(world_id) if world_id else previous.id if previous else secrets.randbits(63) | 1
    secret = _load_key(key)
    # Its timestamp is its version: later than what it replaces, whatever the clock says.
    timestamp = max(time.time_ns() // 1_000_000, previous.timestamp + 1 if previous else 0)
    planet = make_planet(number, timestamp, found, secret)
    if previous is not None and previous.id == number and not previous.accepts_update(planet):
        raise Failure(
            f"{output}: was not signed with {key}: nodes that have it would refuse the new one; give its key, or another --output"
        )
    temporary = output.with_name(f".{output.name}.new")
    temporary.write_bytes(planet.encode())
    temporary.replace(output)
    click.echo(f"{output}: world {number:016x} with {len(found)} root{'s' if len(found) > 1 else ''}")


@world.command()
@click.argument("file", type=_file)
def show(file: Path) -> None:
    """Show the planet or moon in FILE."""
    found = _load(file)
    click.echo(f"{'moon' if found.type is WorldType.MOON else 'planet'} {found.id:016x}")
    click.echo(f"made {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(found.timestamp / 1000))} UTC ({found.timestamp})")
    click.echo(f"signed by its own update key: {'yes' if found.verify() else 'no'}")
    for root in found.roots:
        click.echo(f"root {root.identity.address:010x} at {', '.join(map(format_endpoint, root.endpoints)) or 'no endpoint'}")


def _endpoint(path: Path, text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except NetconError as error:
        raise click.BadParameter(f"root {path}: {error}; write it as 192.0.2.1/9993.", param_hint="--root") from None


def _parse_id(text: str) -> int:
    try:
        number = int(text, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 64:
        raise click.BadParameter(f"{text!r} is not a world id: 1 to 16 hexadecimal digits, not zero.", param_hint="--id")
    return number


def _load(path: Path) -> World:
    try:
        return World.parse(path.read_bytes())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except NetconError as error:
        raise Failure(f"{path}: not a planet or moon ({error})") from None


def _load_key(path: Path) -> bytes:
    """The 64-byte secret block in `path`, in hexadecimal digits; a new one if there is no such file."""
    if not os.path.lexists(path):
        secret = secrets.token_bytes(64)
        write_new(path, secret.hex() + "\n", 0o600)
        click.echo(f"{path}: new key; keep it safe", err=True)
        return secret
    try:
        secret = bytes.fromhex(path.read_text())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except ValueError:
        secret = b""
    if len(secret) != 64:
        raise Failure(f"{path}: not a world key (128 hexadecimal digits); restore it, or name another with --key")
    return secret
