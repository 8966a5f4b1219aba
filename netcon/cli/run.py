"""`netcon run`: replaces itself by a program under the intercept library. Imports nothing slow."""

from __future__ import annotations

import os
from pathlib import Path

import click

from netcon.cli.common import NETWORKS, Failure, home, home_option
from netcon.intercept import InterceptError, NotInterceptable, ProgramNotFound, check_program, find_program, run_environment
from netcon.service.paths import rpc_socket, well_known_sockets
from netcon.service.socket_rpc import hello


class CannotRun(Failure):
    """Exit code as a shell's."""

    exit_code = 126


class NotFound(Failure):
    """Exit code as a shell's."""

    exit_code = 127


@click.command(
    short_help="Run a program on the network.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--network",
    type=NETWORKS,
    envvar="ZT_NC_NWID",
    help="Network that its sockets are on; or several, and the destination chooses. Default: all that the service has joined.",
)
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), envvar="NETCON_SOCK", help="RPC socket of the service to use."
)
@click.option(
    "--policy",
    "policy_text",
    metavar="FILE|TEXT",
    help="Where its traffic goes (docs/policy.md), asked before the service's policy; as 'loopback virtual; 192.0.2.0/24 host'.",
)
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@home_option
def run(network: str | None, socket_path: Path | None, policy_text: str | None, program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM, unmodified: its TCP sockets are on the networks of the service, all else is as ever.

    Put options of `run` before PROGRAM; what follows is PROGRAM's.
    """
    try:
        path = find_program(program)
        check_program(path)
        environment = run_environment(
            network=network,
            socket_path=socket_path or find_socket(network),
            policy=None if policy_text is None else read_policy(policy_text),
        )
    except ProgramNotFound as error:
        raise NotFound(str(error)) from None
    except NotInterceptable as error:
        raise CannotRun(str(error)) from None
    except InterceptError as error:
        raise Failure(str(error)) from None
    try:
        os.execve(path, [program, *arguments], environment)
    except OSError as error:
        raise CannotRun(f"{path}: {error.strerror}") from None


def read_policy(given: str) -> str:
    """The value of NETCON_POLICY for a file's name, or for the text itself."""
    from netcon.policy import Policy, PolicyError

    where = ""
    try:
        if os.path.isfile(given):
            where, given = f"{given}: ", Path(given).read_text()
        policy = Policy.parse(given)
        if policy.raw is not None:
            raise Failure(f"{where}`raw` is the service's to allow: see `netcon policy set`")
        return policy.environment()
    except (PolicyError, OSError, UnicodeDecodeError) as error:
        raise Failure(f"--policy: {where}{error}") from None


def find_socket(network: str | None) -> Path:
    """The RPC socket of the home folder's service; or, for a named network (the first of a list), of whichever service of ours has
    joined it."""
    folder: Path = home()
    network = network.split(",")[0] if network else None
    number = int(network, 16) if network else None
    wanted = rpc_socket(folder, number)
    problem = ""
    for path in (wanted, *(well_known_sockets(number) if number else ())):
        try:
            hello(path)
        except OSError as error:
            problem = problem or (error.strerror or str(error))
        else:
            return Path(path)
    if network and _answers(rpc_socket(folder)):
        raise Failure(
            f"network {network} is not joined with a stack of ours; `netcon -D {folder} join {network} --port lwip` does it "
            "(if its port is a device of the kernel, programs use it as they are, without `netcon run`)"
        )
    raise Failure(
        f"no service answers in {folder} ({problem}); start one with `netcon -D {folder} service -d`, or name its home with -D"
    )


def _answers(path: Path) -> bool:
    try:
        hello(path)
    except OSError:
        return False
    return True
