"""`netcon names`: the names that programs on the networks can use, and what becomes of one of them."""

from __future__ import annotations

from urllib.parse import quote

import click

from netcon.cli.common import NETWORK, Failure, client, home_option, print_json, print_table

_WHY = {
    "NOT_FOUND": "there is no such name",
    "NO_DATA": "it has no address",
    "AGAIN": "the network's DNS servers do not answer",
    "FAILED": "the network's DNS servers refuse",
    "REFUSED": "the line `names host` of a policy lets programs ask the host's resolver ('netcon policy set', or 'run --policy')",
}


@click.command(short_help="List the members' names, or look one up.")
@click.argument("name", required=False)
@click.option("--network", type=NETWORK, help="Look it up as a program on this network alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@home_option
def names(name: str | None, network: str | None, as_json: bool) -> None:
    """List the names that this node knows by itself; or show what a program gets for NAME, a name or an address, and why."""
    if name is None:
        _list(as_json)
        return
    with client() as api:
        found = api.get(f"/names/{quote(name, safe='')}" + (f"?network={network}" if network else ""))
    if as_json:
        print_json(found)
    elif found["status"] == "FOUND":
        for text in found["addresses"] or [found["name"]]:
            click.echo(f"{text}  ({found['name']}, {found['source']})")
    elif found["status"] == "HOST":
        click.echo(f"{name}: {found['source']}")
    if found["status"] not in ("FOUND", "HOST"):
        raise Failure(f"{name}: {_WHY[found['status']]} ({found['source']})")


def _list(as_json: bool) -> None:
    with client() as api:
        found = api.get("/names")
    if as_json:
        print_json(found)
        return
    rows = [(net["id"], ", ".join(net["domains"]), ", ".join(net["servers"]) or None) for net in found["networks"]]
    print_table(("NETWORK", "DOMAINS", "DNS SERVERS"), rows)
    click.echo()
    known = [(row["name"], ", ".join(row["addresses"]), row["source"]) for row in found["names"]]
    print_table(("NAME", "ADDRESSES", "SOURCE"), known)
    click.echo(f"\nother names: {'the host resolves them' if found['others'] == 'host' else 'refused'} by policy")
