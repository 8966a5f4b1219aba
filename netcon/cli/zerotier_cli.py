"""`zerotier-cli`: the command of ZeroTier One, word for word (service-api §5), on our services and on its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import httpx

from netcon.core.address import parse_network
from netcon.core.errors import DecodeError
from netcon.core.settings import NodeSettings
from netcon.service.paths import default_home

_HELP = """\
zerotier-cli [switches] <command> [arguments]

Switches (value attached):
  -h          this help
  -v          version
  -j          JSON output
  -D<path>    home folder of the service
  -p<port>    its API's port (default: zerotier-one.port in the home folder)
  -H<ip>      its API's address (default: 127.0.0.1)

Commands:
  info                       this node's address, version and state
  listpeers                  all peers
  peers                      all peers, in columns
  listnetworks               all joined networks
  join <network id>          join a network
  leave <network id>         leave a network
  set <network id> <setting> allowManaged, allowGlobal, allowDefault, allowDNS =0 or =1
  get <network id> <value>   a field of a network, or ip, ip4, ip6, ip6plane, ip6prefix
  listmoons                  moons
  /path                      GET a path of the API
"""
_NAMES_OF_SETTINGS = ("allowManaged", "allowGlobal", "allowDefault", "allowDNS")
_TIMEOUT_S = 30


class Usage(Exception):
    """Exit code 2."""


class Answer(Exception):
    """What a switch alone asks for; exit code 0."""


class Options:
    """The switches, and the command's words."""

    def __init__(self, arguments: list[str]) -> None:
        self.json = False
        self.home = Path(os.environ.get("ZEROTIER_HOME") or default_home())
        self.port: int | None = None
        self.token: str | None = None
        self.host = "127.0.0.1"
        self.words: list[str] = []
        waiting: str | None = None  # ours also takes "-D HOME" with a blank between
        for argument in arguments:
            if waiting:
                self._switch(waiting, argument)
                waiting = None
            elif argument.startswith("-") and len(argument) > 1 and not self.words:
                letter, value = argument[1], argument[2:]
                if letter in "Dp" and not value:
                    waiting = letter
                else:
                    self._switch(letter, value)
            else:
                self.words.append(argument)
        if waiting:
            raise Usage(f"-{waiting} needs a value")

    def _switch(self, letter: str, value: str) -> None:
        match letter:
            case "j":
                self.json = True
            case "D":
                self.home = Path(value)
            case "p":
                if not value.isdecimal() or not 0 < int(value) < 65536:
                    raise Usage(f"invalid port: {value}")
                self.port = int(value)
            case "H":
                self.host = value
            case "T":
                raise Usage(
                    "a token on the command line is seen by all users: put it into authtoken.secret of the home folder instead"
                )
            case "q":
                pass  # "act as the client": we are nothing else
            case "h":
                raise Answer(_HELP)
            case "v":
                raise Answer(".".join(map(str, NodeSettings().version)))
            case _:
                raise Usage(_HELP)


class Service:
    """The API of the service that the options name."""

    def __init__(self, options: Options) -> None:
        port = options.port or _read_port(options.home)
        token = _read_token(options.home)
        self._http = httpx.Client(
            base_url=f"http://{options.host}:{port}", headers={"X-ZT1-Auth": token}, timeout=_TIMEOUT_S, trust_env=False
        )

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body) if body is not None else self._http.request(method, path)
        except httpx.TransportError as error:
            sys.exit(
                f"Error connecting to the ZeroTier service: {error}\n\n"
                "Please check that the service is running and that its port is right."
            )

    def get(self, command: str, path: str) -> Any:
        return self.checked(command, self.request("GET", path)).json()

    @staticmethod
    def checked(command: str, response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            print(f"{response.status_code} {command} {response.text}")
            sys.exit(1)
        return response


def _read_port(home: Path) -> int:
    try:
        return int((home / "zerotier-one.port").read_text())
    except (OSError, ValueError):
        raise Usage(
            f"missing port and zerotier-one.port not found in {home}; is the service running? Name its home folder with -D"
        ) from None


def _read_token(home: Path) -> str:
    for path in (home / "authtoken.secret", Path.home() / ".zeroTierOneAuthToken"):
        try:
            return path.read_text().strip()
        except OSError:
            continue
    raise Usage(f"missing authentication token: authtoken.secret in {home} cannot be read; try as the service's user")


def main() -> NoReturn:
    try:
        options = Options(sys.argv[1:])
        _run(options)
    except Answer as answer:
        print(answer)
    except Usage as error:
        print(str(error), file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _run(options: Options) -> None:
    if not options.words:
        raise Usage(_HELP)
    command, *arguments = options.words
    if command.startswith("/"):
        print(Service.checked(command, Service(options).request("GET", command)).text)
        return
    match command, arguments:
        case (("info" | "status"), []):
            _info(options)
        case "listnetworks", []:
            _list_networks(options)
        case "listpeers", []:
            _list_peers(options)
        case "peers", []:
            _peers(options)
        case "listmoons", []:
            _print_json(Service(options).get(command, "/moon"))
        case "join", [network]:
            _change(options, "join", "POST", network, {})
        case "leave", [network]:
            _change(options, "leave", "DELETE", network, None)
        case "set", [network, assignment]:
            _set(options, network, assignment)
        case "get", [network, name]:
            _get(options, network, name)
        case _:
            raise Usage(_HELP)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


def _info(options: Options) -> None:
    state = Service(options).get("info", "/status")
    if options.json:
        _print_json(state)
        return
    online = "TUNNELED" if state["tcpFallbackActive"] else "ONLINE" if state["online"] else "OFFLINE"
    print(f"200 info {state['address']} {state['version']} {online}")


def _list_networks(options: Options) -> None:
    networks = Service(options).get("listnetworks", "/network")
    if options.json:
        _print_json(networks)
        return
    print("200 listnetworks <nwid> <name> <mac> <status> <type> <dev> <ZT assigned ips>")
    for net in networks:
        addresses = ",".join(net["assignedAddresses"]) or "-"
        fields = (net["nwid"], net["name"], net["mac"], net["status"], net["type"], net["portDeviceName"] or "-", addresses)
        print("200 listnetworks", *fields)


def _preferred(peer: dict[str, Any]) -> dict[str, Any] | None:
    return next((path for path in peer["paths"] if path["preferred"]), None)


def _version(peer: dict[str, Any]) -> str:
    return peer["version"] if peer["versionMajor"] >= 0 else "-"


def _peers_and_clock(options: Options, command: str) -> tuple[list[dict[str, Any]], int]:
    """Times of peers are by the service's clock, which does not follow a wall clock that is set."""
    service = Service(options)
    return service.get(command, "/peer"), service.get(command, "/status")["clock"]


def _ago(now: int, then: int) -> int:
    return now - then if then else -1


def _list_peers(options: Options) -> None:
    peers, now = _peers_and_clock(options, "listpeers")
    if options.json:
        _print_json(peers)
        return
    print("200 listpeers <ztaddr> <path> <latency> <version> <role>")
    for peer in peers:
        path = _preferred(peer)
        where = f"{path['address']};{_ago(now, path['lastSend'])};{_ago(now, path['lastReceive'])}" if path else "-"
        print("200 listpeers", peer["address"], where, peer["latency"], _version(peer), peer["role"])


def _peers(options: Options) -> None:
    peers, now = _peers_and_clock(options, "peers")
    if options.json:
        _print_json(peers)
        return
    print("200 peers")
    print("<ztaddr>   <ver>  <role> <lat> <link>   <lastTX> <lastRX> <path>")
    for peer in peers:
        start = f"{peer['address']} {_version(peer):<6} {peer['role']:<6} {peer['latency']:>5}"
        path = _preferred(peer)
        if path is None:
            print(start, "RELAY")
        else:
            print(f"{start} DIRECT   {_ago(now, path['lastSend']):<8} {_ago(now, path['lastReceive']):<8} {path['address']}")


def _network_id(text: str) -> str:
    try:
        return f"{parse_network(text):016x}"
    except DecodeError:
        raise Usage("invalid network id") from None


def _change(options: Options, command: str, method: str, network: str, body: object) -> None:
    path = f"/network/{_network_id(network)}"
    response = Service.checked(command, Service(options).request(method, path, body))
    print(response.text if options.json else f"200 {command} OK")


def _set(options: Options, network: str, assignment: str) -> None:
    path = f"/network/{_network_id(network)}"
    name, separator, value = assignment.partition("=")
    if not separator or name not in _NAMES_OF_SETTINGS:
        raise Usage(f"set: want one of {', '.join(_NAMES_OF_SETTINGS)} with =0 or =1")
    print(Service.checked("set", Service(options).request("POST", path, {name: value[:1] in ("t", "1")})).text)


def _get(options: Options, network: str, name: str) -> None:
    state = Service(options).get("get", f"/network/{_network_id(network)}")
    addresses = [address.partition("/")[0] for address in state["assignedAddresses"]]
    plane = [
        address.partition("/")[0] for address in state["assignedAddresses"] if address.endswith("/40") and address.startswith("fc")
    ]
    match name:
        case "ip":
            found: list[Any] = addresses
        case "ip4":
            found = [address for address in addresses if ":" not in address]
        case "ip6":
            found = [address for address in addresses if ":" in address]
        case "ip6plane":
            found = plane
        case "ip6prefix":
            found = [address[:24] for address in plane]
        case _ if name in state:
            value = state[name]
            found = [value if isinstance(value, str) else json.dumps(value)]
        case _:
            raise Usage(f"get: a network has no {name}; see `zerotier-cli -j listnetworks`")
    for line in found:
        print(line)


if __name__ == "__main__":
    main()
