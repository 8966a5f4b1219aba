"""`netcon addresses`: addresses of a network that are added by hand, beside those that its controller gives."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from netcon.cli.common import NETWORK, Failure, client, home_option, print_table
from netcon.service.client import Client, RequestFailed


class Address(click.ParamType):  # type: ignore[type-arg]
    """An address with the length of its network's prefix, as 10.1.2.3/24."""

    name = "ip/bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            interface = ipaddress.ip_interface(value)
        except ValueError:
            self.fail(f"{value!r} is no address; write it as 10.1.2.3/24.", param, ctx)
        if "/" not in value:
            self.fail(f"{value!r} has no prefix length; write it as {value}/24, say.", param, ctx)
        return str(interface)


ADDRESS_AND_BITS = Address()


@click.group(short_help="Add addresses to a network by hand.")
def addresses() -> None:
    """Addresses of a joined network that this node takes by itself. Nobody checks that they are free, and rules of the network
    that look at who owns an address (ipauth) do not count them. Others reach them if they lie in a network that is directly on
    theirs, or by a route."""


@addresses.command("list")
@click.argument("network", type=NETWORK)
@home_option
def list_addresses(network: str) -> None:
    """List our addresses on NETWORK, and where they are from."""
    with client() as api:
        state = _state(api, network)
    rows = [(address, "controller") for address in state["assignedAddresses"]]
    rows += [(address, "by hand") for address in state["localAddresses"]]
    print_table(("ADDRESS", "FROM"), rows)


@addresses.command("add")
@click.argument("network", type=NETWORK)
@click.argument("wanted", metavar="IP/BITS...", type=ADDRESS_AND_BITS, nargs=-1, required=True)
@home_option
def add_addresses(network: str, wanted: list[str]) -> None:
    """Take addresses on NETWORK, now and at each start."""
    with client() as api:
        state = _state(api, network)
        api.post(f"/network/{network}", {"localAddresses": [*state["localAddresses"], *wanted]})


@addresses.command("remove")
@click.argument("network", type=NETWORK)
@click.argument("unwanted", metavar="IP/BITS...", type=ADDRESS_AND_BITS, nargs=-1, required=True)
@home_option
def remove_addresses(network: str, unwanted: list[str]) -> None:
    """Give up addresses that were added by hand. Connections of programs on them are reset."""
    with client() as api:
        own = _state(api, network)["localAddresses"]
        for address in unwanted:
            if address not in own:
                raise Failure(f"{address} was not added by hand; see `netcon addresses list {network}`")
        api.post(f"/network/{network}", {"localAddresses": [address for address in own if address not in unwanted]})


def _state(api: Client, network: str) -> Any:
    try:
        return api.get(f"/network/{network}")
    except RequestFailed as error:
        if error.status == 404:
            raise Failure(f"network {network} is not joined; see `netcon networks`") from None
        raise
