"""`netcon identity`: make and check identities, sign with them. Secrets are read from files, never from the command line."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from netcon.cli.common import Failure
from netcon.core.errors import NetconError
from netcon.core.identity import Identity

_SIGNATURE_LENGTH = 96

_file = click.Path(path_type=Path, dir_okay=False)


@click.group(short_help="Make and check identities.")
def identity() -> None:
    """Make and check identities: the key of a node and the address that belongs to it."""


@identity.command()
@click.argument("secret_file", type=_file, required=False)
@click.argument("public_file", type=_file, required=False)
def generate(secret_file: Path | None, public_file: Path | None) -> None:
    """Make a new identity: with its secret into SECRET_FILE (mode 0600) or to standard output, without it into PUBLIC_FILE."""
    new = Identity.generate(secrets.token_bytes)
    if secret_file is None:
        click.echo(new.to_text(secret=True))
        return
    write_new(secret_file, new.to_text(secret=True), 0o600)
    if public_file is not None:
        write_new(public_file, new.to_text(), 0o644)
    click.echo(new.to_text())


@identity.command()
@click.argument("identity_file", type=_file)
def getpublic(identity_file: Path) -> None:
    """Print the public part of the identity in IDENTITY_FILE."""
    click.echo(read_identity(identity_file).to_text())


@identity.command()
@click.argument("identity_file", type=_file)
def validate(identity_file: Path) -> None:
    """Check that the address in IDENTITY_FILE belongs to its key. Exit code 1 if not."""
    found = read_identity(identity_file)
    if not found.validate():
        raise Failure(f"{identity_file}: the address {found.address:010x} does not belong to this key; do not use it")
    click.echo(f"{found.address:010x} is valid")


@identity.command()
@click.argument("secret_file", type=_file)
@click.argument("file", type=_file)
def sign(secret_file: Path, file: Path) -> None:
    """Sign FILE with the identity in SECRET_FILE; prints the signature in hexadecimal digits."""
    signer = read_identity(secret_file)
    if signer.secret is None:
        raise Failure(f"{secret_file}: has no secret part to sign with; give an identity.secret")
    click.echo(signer.sign(_read(file)).hex())


@identity.command()
@click.argument("identity_file", type=_file)
@click.argument("file", type=_file)
@click.argument("signature")
def verify(identity_file: Path, file: Path, signature: str) -> None:
    """Check that SIGNATURE (hexadecimal digits) over FILE was made by the identity in IDENTITY_FILE. Exit code 1 if not."""
    try:
        data = bytes.fromhex(signature)
    except ValueError:
        data = b""
    if len(data) != _SIGNATURE_LENGTH:
        raise click.BadParameter(f"a signature is {2 * _SIGNATURE_LENGTH} hexadecimal digits.", param_hint="SIGNATURE")
    signer = read_identity(identity_file)
    if not signer.verify(_read(file), data):
        raise Failure(f"{file}: not signed by {signer.address:010x}, or changed since")
    click.echo(f"{file} is signed by {signer.address:010x}")


def read_identity(path: Path) -> Identity:
    """The identity in a file. Failure names the file."""
    try:
        return Identity.parse(_read(path).decode("ascii", "replace"))
    except NetconError as error:
        raise Failure(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Failure(f"{path}: there is no such file; `netcon identity generate` makes identities") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that must not exist yet: a key is never overwritten. Its folder is made if there is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
    except FileExistsError:
        raise Failure(f"{path}: exists already and is not overwritten; name another file, or move it away") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
