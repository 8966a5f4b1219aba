"""`netcon controller`: the networks of this node's own controller, and their members."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from typing import Any, ClassVar

import click

from netcon.cli.common import ADDRESS, NETWORK, Failure, client, home_option, print_json, print_table
from netcon.service.client import Client, RequestFailed

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")


class Assignment(click.ParamType):  # type: ignore[type-arg]
    """KEY=VALUE: the value is JSON, or a plain word."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        key, separator, text = value.partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not KEY=VALUE, as mtu=2800.", param, ctx)
        try:
            return key, json.loads(text)
        except json.JSONDecodeError:
            return key, text


class Subnet(click.ParamType):  # type: ignore[type-arg]
    """A network as 10.9.0.0/24."""

    name = "ip/bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write it as 10.9.0.0/24.", param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A number with s, m, h, d or w, as 90m; "never" is 0. Given on in milliseconds."""

    name = "duration"
    _UNITS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "never":
            return 0
        match = re.fullmatch(r"([0-9]{1,9})([smhdw])", value)
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a duration: write it as 30s, 90m, 8h, 7d or 2w, or never.", param, ctx)
        return int(match[1]) * self._UNITS[match[2]] * 1000


ASSIGNMENT = Assignment()
SUBNET = Subnet()
DURATION = Duration()


@click.group(short_help="Run your own networks.")
def controller() -> None:
    """Make networks on this node, and decide who is a member. A network's id begins with its controller's address."""


@controller.group()
def network() -> None:
    """Networks of this controller."""


@controller.group()
def member() -> None:
    """Members of a network of this controller."""


@controller.group()
def token() -> None:
    """Join tokens: secrets that make whoever shows one a member at once, by `netcon join NETWORK --token TOKEN`."""


# -- networks --


@network.command("create")
@click.option("--name", default="", help="A name for people.")
@click.option("--public", is_flag=True, help="Anyone who knows the id may join. Default: members must be authorised.")
@click.option(
    "--subnet", "subnets", type=SUBNET, multiple=True, help="Route, and pool of addresses for members, as 10.9.0.0/24; repeatable."
)
@click.option("--rfc4193", is_flag=True, help="Give each member an IPv6 address made from its own (fd00::/8).")
@click.option("--6plane", "sixplane", is_flag=True, help="Give each member an IPv6 /80 made from its own (fc00::/8).")
@home_option
def create_network(name: str, public: bool, subnets: list[Any], rfc4193: bool, sixplane: bool) -> None:
    """Make a network; prints its id."""
    body: dict[str, Any] = {"name": name, "private": not public}
    if subnets:
        body["routes"] = [{"target": str(subnet), "via": None} for subnet in subnets]
        body["ipAssignmentPools"] = [_pool(subnet) for subnet in subnets]
        body["v4AssignMode"] = {"zt": any(subnet.version == 4 for subnet in subnets)}
    ipv6_pool = any(subnet.version == 6 for subnet in subnets)
    body["v6AssignMode"] = {"rfc4193": rfc4193, "6plane": sixplane, "zt": ipv6_pool}
    with client() as api:
        click.echo(api.post("/controller/network", body)["id"])


def _pool(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> dict[str, str]:
    if subnet.num_addresses < 4:
        raise click.BadParameter(f"{subnet} has no room for members.", param_hint="--subnet")
    last = subnet[-2] if subnet.version == 4 else subnet[-1]
    return {"ipRangeStart": str(subnet[1]), "ipRangeEnd": str(last)}


@network.command("list")
@_json_option
@home_option
def list_networks(as_json: bool) -> None:
    """List this controller's networks."""
    with client() as api:
        records = [api.get(f"/controller/network/{network_id}") for network_id in api.get("/controller/network")]
        if as_json:
            print_json(records)
            return
        rows = []
        for record in records:
            members = api.get(f"/controller/network/{record['id']}/member")
            targets = ", ".join(route["target"] for route in record["routes"])
            rows.append((record["id"], record["name"], "PRIVATE" if record["private"] else "PUBLIC", len(members), targets))
    print_table(("NETWORK", "NAME", "TYPE", "MEMBERS", "ROUTES"), rows)


@network.command("show")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@home_option
def show_network(network_id: str) -> None:
    """Show a network's record."""
    with client() as api:
        print_json(_record(api, "GET", f"/controller/network/{network_id}"))


@network.command("set")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("changes", metavar="KEY=VALUE...", type=ASSIGNMENT, nargs=-1, required=True)
@home_option
def set_network(network_id: str, changes: list[tuple[str, Any]]) -> None:
    """Change a network. Values are JSON; keys are those that `show` prints, for example: mtu=1500 private=false."""
    with client() as api:
        _change(api, f"/controller/network/{network_id}", dict(changes))


@network.command("delete")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@home_option
def delete_network(network_id: str) -> None:
    """Delete a network and its members."""
    with client() as api:
        _record(api, "DELETE", f"/controller/network/{network_id}")


# -- members --


@member.command("list")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@_json_option
@home_option
def list_members(network_id: str, as_json: bool) -> None:
    """List a network's members, and who asked to become one."""
    path = f"/controller/network/{network_id}/member"
    with client() as api:
        records = [api.get(f"{path}/{address}") for address in _record(api, "GET", path)]
    if as_json:
        print_json(records)
        return
    rows = [
        (
            record["id"],
            "yes" if record["authorized"] else "no",
            _when(record.get("authorizedUntil", 0)),
            ", ".join(record["ipAssignments"]),
        )
        for record in records
    ]
    print_table(("MEMBER", "AUTHORIZED", "UNTIL", "ADDRESSES"), rows)


@member.command("authorize")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("addresses", metavar="ADDRESS...", type=ADDRESS, nargs=-1, required=True)
@click.option("--expires", type=DURATION, help="End the membership after this time, as 8h or 7d; never takes an end away.")
@home_option
def authorize_members(network_id: str, addresses: list[str], expires: int | None) -> None:
    """Let nodes become members, also before they asked."""
    change: dict[str, Any] = {"authorized": True}
    if expires is not None:
        change["authorizedUntil"] = _from_now(expires)
    _set_each(network_id, addresses, change)


@member.command("deauthorize")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("addresses", metavar="ADDRESS...", type=ADDRESS, nargs=-1, required=True)
@home_option
def deauthorize_members(network_id: str, addresses: list[str]) -> None:
    """Revoke the membership of nodes."""
    _set_each(network_id, addresses, {"authorized": False})


@member.command("show")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("address", type=ADDRESS)
@home_option
def show_member(network_id: str, address: str) -> None:
    """Show a member's record."""
    with client() as api:
        print_json(_record(api, "GET", f"/controller/network/{network_id}/member/{address}"))


@member.command("set")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("address", type=ADDRESS)
@click.argument("changes", metavar="KEY=VALUE...", type=ASSIGNMENT, nargs=-1, required=True)
@home_option
def set_member(network_id: str, address: str, changes: list[tuple[str, Any]]) -> None:
    """Change a member. Values are JSON, for example: 'ipAssignments=["10.9.0.7"]' activeBridge=true."""
    with client() as api:
        _change(api, f"/controller/network/{network_id}/member/{address}", dict(changes))


@member.command("delete")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("address", type=ADDRESS)
@home_option
def delete_member(network_id: str, address: str) -> None:
    """Forget a member. It reappears, not authorised, when it asks again."""
    with client() as api:
        _record(api, "DELETE", f"/controller/network/{network_id}/member/{address}")


# -- join tokens --


@token.command("create")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.option("--expires", type=DURATION, default="never", show_default=True, help="Worthless after this time, as 30m or 7d.")
@click.option("--uses", type=click.IntRange(min=1), help="How many nodes may join by it. Default: any number.")
@click.option(
    "--member-lifetime", type=DURATION, default="never", show_default=True, help="Its members' memberships end after this time."
)
@click.option("--name", default="", help="What it is for, for people.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@home_option
def create_token(network_id: str, expires: int, uses: int | None, member_lifetime: int, name: str, as_json: bool) -> None:
    """Make a join token; prints it. It is not kept and cannot be shown again."""
    body = {"name": name, "expires": _from_now(expires), "maximumUses": uses or 0, "memberLifetime": member_lifetime}
    with client() as api:
        record = _record(api, "POST", f"/controller/network/{network_id}/token", body)
    if as_json:
        print_json(record)
    else:
        click.echo(record["token"])


@token.command("list")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@_json_option
@home_option
def list_tokens(network_id: str, as_json: bool) -> None:
    """List a network's join tokens, by their ids: the secrets are not kept."""
    with client() as api:
        records = _record(api, "GET", f"/controller/network/{network_id}/token")
    if as_json:
        print_json(records)
        return
    rows = [
        (
            record["id"],
            record["name"],
            record["state"].upper(),
            f"{record['uses']}/{record['maximumUses']}" if record["maximumUses"] else record["uses"],
            _when(record["expires"]),
        )
        for record in records
    ]
    print_table(("TOKEN", "NAME", "STATE", "USES", "EXPIRES"), rows)


@token.command("revoke")
@click.argument("network_id", metavar="NETWORK", type=NETWORK)
@click.argument("token_id", metavar="ID")
@home_option
def revoke_token(network_id: str, token_id: str) -> None:
    """Make a join token worthless: ID is that of `list`. Who joined by it stays a member."""
    with client() as api:
        known = {record["id"] for record in _record(api, "GET", f"/controller/network/{network_id}/token")}
        if token_id not in known:
            raise Failure(f"network {network_id} has no token {token_id}; see `netcon controller token list {network_id}`")
        _record(api, "DELETE", f"/controller/network/{network_id}/token/{token_id}")


def _from_now(duration: int) -> int:
    """ms since 1970; 0 stays 0."""
    return time.time_ns() // 1_000_000 + duration if duration else 0


def _when(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment / 1000)) if moment else ""


def _set_each(network_id: str, addresses: list[str], change: dict[str, Any]) -> None:
    with client() as api:
        for address in addresses:
            _record(api, "POST", f"/controller/network/{network_id}/member/{address}", change)


#: Keys of member records that are there only once they were set.
_ABSENT_AT_FIRST = ("name", "authorizedUntil")


def _change(api: Client, path: str, changes: dict[str, Any]) -> None:
    """POST `changes`; a key that the record does not have is an error, for the API would ignore it."""
    known = {*_record(api, "GET", path), *(_ABSENT_AT_FIRST if "/member/" in path else ())}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise Failure(f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    print_json(_record(api, "POST", path, changes))


def _record(api: Client, method: str, path: str, body: object = None) -> Any:
    try:
        return api.request(method, path, body)
    except RequestFailed as error:
        if error.status != 404:
            raise
        network_id, _, address = path.removeprefix("/controller/network/").partition("/member/")
        what = (
            f"network {network_id.partition('/')[0]} has no member {address}"
            if address
            else f"no network {network_id.partition('/')[0]} here"
        )
        raise Failure(f"{what}; see `netcon controller network list` and `netcon controller member list`") from None
