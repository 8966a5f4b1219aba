"""`netcon info | status | join | leave | networks | peers | moons | orbit | deorbit`: the node of a running service."""

from __future__ import annotations

import time
from typing import Any

import click

from netcon.cli.common import ADDRESS, MOON, NETWORK, Failure, client, home_option, print_json, print_table

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
_POLL_SECONDS = 0.1


@click.command(short_help="Say who this node is.")
@_json_option
@home_option
def info(as_json: bool) -> None:
    """Show the node's address, version and whether it is online."""
    with client() as api:
        state = api.get("/status")
    if as_json:
        print_json(state)
        return
    click.echo(f"{state['address']} {state['version']} {'ONLINE' if state['online'] else 'OFFLINE'}")


@click.command(short_help="Show everything about this node.")
@_json_option
@home_option
def status(as_json: bool) -> None:
    """Show the node, its networks and its peers."""
    with client() as api:
        state = {"status": api.get("/status"), "networks": api.get("/network"), "peers": api.get("/peer")}
    if as_json:
        print_json(state)
        return
    node = state["status"]
    click.echo(f"node {node['address']} {'ONLINE' if node['online'] else 'OFFLINE'}, version {node['version']}")
    click.echo(f"home {node['config']['settings']['homeDir']}")
    click.echo(f"listening on {', '.join(node['config']['settings']['listeningOn'])}\n")
    _print_networks(state["networks"])
    click.echo()
    _print_peers(state["peers"])


@click.command(short_help="Join a network.")
@click.argument("network", type=NETWORK)
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait until the network gave an address.")
@click.option("--allow-global/--no-allow-global", default=None, help="Accept public addresses and routes from the controller.")
@click.option("--allow-default/--no-allow-default", default=None, help="Accept a default route from the controller.")
@click.option(
    "--port",
    type=click.Choice(["lwip", "tap"]),
    help="Where its frames go: the built-in stack (lwip), or a network device of this machine (tap: needs CAP_NET_ADMIN).",
)
@click.option(
    "--token",
    envvar="NETCON_JOIN_TOKEN",
    help="A secret from the network's owner that makes this node a member at once. Better in $NETCON_JOIN_TOKEN: others on this "
    "machine see command lines.",
)
@home_option
def join(
    network: str, wait: float | None, allow_global: bool | None, allow_default: bool | None, port: str | None, token: str | None
) -> None:
    """Join NETWORK, a network id of 16 hexadecimal digits. The service joins it again at each start."""
    wanted = {"allowGlobal": allow_global, "allowDefault": allow_default, "port": port, "token": token or None}
    body = {key: value for key, value in wanted.items() if value is not None}
    with client() as api:
        state = api.post(f"/network/{network}", body)
        deadline = time.monotonic() + (wait or 0)
        while wait is not None and not state["assignedAddresses"]:
            if time.monotonic() >= deadline:
                address = api.get("/status")["address"]
                raise Failure(
                    f"network {network} gave no address within {wait:g} s (status {state['status']}); "
                    f"the network's owner must authorise member {address}"
                )
            time.sleep(_POLL_SECONDS)
            state = api.get(f"/network/{network}")
        if state["status"] == "ACCESS_DENIED":
            address = api.get("/status")["address"]
            click.echo(f"the network's owner must authorise member {address}; see `netcon networks` later", err=True)
    click.echo(f"{network} {state['status']} {', '.join(state['assignedAddresses']) or '-'}")


@click.command(short_help="Leave a network.")
@click.argument("network", type=NETWORK)
@home_option
def leave(network: str) -> None:
    """Leave NETWORK and forget it. Connections of programs on it are reset."""
    with client() as api:
        if not api.delete(f"/network/{network}").get("result"):
            raise Failure(f"network {network} was not joined; see `netcon networks`")


@click.command(short_help="List the joined networks.")
@_json_option
@home_option
def networks(as_json: bool) -> None:
    """List the joined networks, their status and our addresses on them."""
    with client() as api:
        found = api.get("/network")
    if as_json:
        print_json(found)
    else:
        _print_networks(found)


@click.command(short_help="List the known nodes.")
@_json_option
@home_option
def peers(as_json: bool) -> None:
    """List the nodes that this one knows, and how it reaches them."""
    with client() as api:
        found = api.get("/peer")
    if as_json:
        print_json(found)
    else:
        _print_peers(found)


@click.command(short_help="Use the roots of a moon, too.")
@click.argument("moon", type=MOON)
@click.argument("seed", type=ADDRESS, required=False)
@home_option
def orbit(moon: str, seed: str | None) -> None:
    """Orbit MOON, an additional set of roots, by its file in moons.d of the home folder, or ask SEED for it: the address of one
    of its roots. The service orbits it again at each start."""
    with client() as api:
        state = api.post(f"/moon/{moon}", {"seed": seed} if seed else {})
    click.echo(f"{state['id']} {'WAITING' if state['waiting'] else 'OK'}")


@click.command(short_help="Use a moon's roots no more.")
@click.argument("moon", type=MOON)
@home_option
def deorbit(moon: str) -> None:
    """Forget MOON, and delete its file."""
    with client() as api:
        api.delete(f"/moon/{moon}")


@click.command(short_help="List the moons.")
@_json_option
@home_option
def moons(as_json: bool) -> None:
    """List the moons that this node orbits or waits for."""
    with client() as api:
        found = api.get("/moon")
    if as_json:
        print_json(found)
        return
    rows = []
    for moon in found:
        roots = ", ".join(root["identity"][:10] for root in moon["roots"])
        rows.append((moon["id"], "WAITING" if moon["waiting"] else "OK", moon["timestamp"] or None, roots))
    print_table(("MOON", "STATUS", "TIMESTAMP", "ROOTS"), rows)


def _print_networks(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            net["id"],
            net["name"],
            net["status"],
            net["type"],
            net["mac"],
            net["portDeviceName"] if net["port"] == "tap" else net["port"],
            ", ".join(net["assignedAddresses"]),
            net["dns"]["domain"] or None,
        )
        for net in found
    ]
    print_table(("NETWORK", "NAME", "STATUS", "TYPE", "MAC", "PORT", "ADDRESSES", "DOMAIN"), rows)


def _print_peers(found: list[dict[str, Any]]) -> None:
    rows = []
    for peer in found:
        preferred = next((path["address"] for path in peer["paths"] if path["preferred"]), None)
        version = peer["version"] if peer["versionMajor"] >= 0 else None
        latency = f"{peer['latency']} ms" if peer["latency"] >= 0 else None
        rows.append((peer["address"], peer["role"], version, latency, preferred or "RELAY"))
    print_table(("ADDRESS", "ROLE", "VERSION", "LATENCY", "PATH"), rows)
