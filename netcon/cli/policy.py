"""`netcon policy`: where programs' traffic goes, and which line says so."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any, TextIO

import click

from netcon.cli.common import Failure, client, home_option, print_json
from netcon.policy import LOOPBACK, Direction, Policy, PolicyError, Protocol, Target, Verdict
from netcon.service.resolv_conf import STUBS, host_name_servers


@click.group(short_help="Show or set where programs' traffic goes.", invoke_without_command=True)
@home_option
@click.pass_context
def policy(ctx: click.Context) -> None:
    """The service's policy: which destinations networks carry, the host carries, or are refused (docs/policy.md)."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(show)


@policy.command(short_help="Show the policy in force.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@home_option
def show(as_json: bool = False) -> None:
    """Show the lines in the order in which they are asked, and what counts where no line fits."""
    with client() as api:
        answer = api.get("/policy")
        networks = api.get("/network")
    if as_json:
        print_json(answer)
        return
    current = Policy.parse(answer["policy"])
    rows = [(str(rule), f"line {rule.line}") for rule in current.rules]
    if not any(rule.where == LOOPBACK and not rule.protocols and not rule.ports for rule in current.rules):
        rows.append(("loopback host", "built in"))
    for network in networks:
        for where in [*network["assignedAddresses"], *(route["target"] for route in network["routes"])]:
            prefix = ipaddress.ip_network(where, strict=False)
            rows.append((f"{prefix} network {network['id']}", "joined"))
    rows.append((f"names {(current.names or Target.REFUSE).name.lower()}", "built in" if not current.names else "said"))
    rows.append((f"default {(current.fallback or Target.REFUSE).name.lower()}", "built in" if not current.fallback else "said"))
    rows.append((f"raw {'allow' if current.raw else 'refuse'}", "built in" if current.raw is None else "said"))
    width = max(len(text) for text, _ in rows)
    for text, why in rows:
        click.echo(f"{text.ljust(width)}  # {why}")


@policy.command("set", short_help="Replace the policy.")
@click.argument("file", type=click.File())
@home_option
def set_policy(file: TextIO) -> None:
    """Read the policy from FILE, or from standard input (-); it counts at once and is kept in local.conf."""
    text = file.read()
    try:
        Policy.parse(text)
    except PolicyError as error:
        raise Failure(f"{'-' if file is sys.stdin else file.name}: {error}") from None
    with client() as api:
        api.post("/policy", {"policy": text})


@policy.command(short_help="Say which line decides about a destination.")
@click.argument("destination")
@click.option("--udp", "protocol", flag_value="udp")
@click.option("--icmp", "protocol", flag_value="icmp")
@click.option("--tcp", "protocol", flag_value="tcp", default="tcp")
@click.option("--port", type=click.IntRange(0, 65535), default=0)
@click.option("--bind", is_flag=True, help="As a local address.")
@click.option("--run", "run_text", metavar="TEXT", help="The policy of a run, which is asked before.")
@home_option
def explain(destination: str, protocol: str, port: int, bind: bool, run_text: str | None) -> None:
    """Say what happens to traffic for DESTINATION, a numeric address."""
    try:
        ip = ipaddress.ip_address(destination)
    except ValueError:
        raise Failure(f"{destination}: not an address as 192.0.2.1 or 2001:db8::1 (names are resolved by the program)") from None
    with client() as api:
        current = Policy.parse(api.get("/policy")["policy"])
        networks: list[dict[str, Any]] = api.get("/network")
    direction = Direction.BIND if bind else Direction.CONNECT
    asked = (ip, port, Protocol[protocol.upper()], direction)
    if run_text is not None:
        try:
            first = Policy.parse(run_text).decide(*asked)
        except PolicyError as error:
            raise Failure(f"--run: {error}") from None
        if first.rule is not None:
            click.echo(f"{first.target.name.lower()} (the run's {first})")
            return
    verdict = current.decide(*asked)
    if verdict.rule is None and port == 53 and protocol != "icmp" and not bind and ip in (*STUBS, *host_name_servers()):
        if current.names == Target.HOST:
            click.echo("host (no line: a name server of the host, and `names host`)")
        else:
            click.echo("answered by the service (no line: a name server of the host, and `names refuse`)")
        return
    click.echo(_told(verdict, ip, networks))


def _told(verdict: Verdict, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: list[dict[str, Any]]) -> str:
    if verdict.target != Target.UNDECIDED:
        return f"{verdict.target.name.lower()} ({verdict})"
    for network in networks:
        for where in [*network["assignedAddresses"], *(route["target"] for route in network["routes"])]:
            if ip in ipaddress.ip_network(where, strict=False):
                return f"network {network['id']} (no line; the network has {where})"
    return f"{verdict.fallback.name.lower()} (no line, and no network has a way to it)"
