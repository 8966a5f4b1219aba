"""The kinds of port that a network may have (settings.PORT_KINDS), and the making of one."""

from __future__ import annotations

import lwip
from netcon.dataplane.reactor import Reactor
from netcon.service.home import Home
from netcon.service.port import NetworkPort
from netcon.service.tap_port import TapPort

Port = NetworkPort | TapPort


def make_port(kind: str, reactor: Reactor, server: lwip.SocketServer, home: Home, network: int, mac: bytes, number: int) -> Port:
    """OSError, lwip.StackError: a stack cannot be started. A TAP device that cannot be made is the port's `failure`."""
    if kind == "tap":
        return TapPort(reactor, network, mac, number, name=home.device_name(network))
    return NetworkPort(reactor, server, home.path, network, mac, number)
