"""ZeroTier nodes inside a Python program: their networks' Ethernet frames are sent and received by the program itself (trio).

    async with open_node(root=True, controller=True, address="127.0.0.1") as root:
        network = root.create_network()
        async with open_node(planet=root.planet, address="127.0.0.1") as node:
            node.join(network)
            root.authorize(network, node.address)
            await node.wait_until_ready(network)
            node.broadcast_frame(network, 0, b"hello")

A node is the engine (`netcon.core`) with a reactor for its UDP sockets. There is no TCP/IP stack here: what a network's port would
give to one comes out of `Node.frames`, and everything that the engine has to tell, out of `Node.events`. Nodes of one program are
independent of each other. With a home folder a node keeps its identity, networks and peers; without, it is gone when it is closed.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

import trio

from netcon.controller import Controller
from netcon.core import node as engine
from netcon.core.actions import (
    Action,
    ConfigureNetwork,
    DeliverFrame,
    NodeEvent,
    PersistRecords,
    SendDatagram,
    StateKind,
    StoreState,
    ValidateIdentity,
)
from netcon.core.address import BROADCAST, Endpoint, MulticastGroup, format_network, groups_for_addresses
from netcon.core.dictionary import Dictionary
from netcon.core.errors import NetconError
from netcon.core.identity import Identity
from netcon.core.messages import UserMessage
from netcon.core.network import NetworkStatus, State
from netcon.core.settings import NodeSettings
from netcon.core.world import Root, World, make_planet
from netcon.dataplane.reactor import Reactor
from netcon.service.clock import Clock
from netcon.service.home import Home
from netcon.service.interfaces import InterfaceAddress, interface_addresses, usable_addresses
from netcon.service.planet import choose_planet, public_planet

__all__ = ["EmbedError", "Event", "Frame", "Node", "Subscription", "open_node"]

log = logging.getLogger("netcon.embed")

T = TypeVar("T")
_BATCH = 256
_LONGEST_SLEEP_MS = 30_000
_NO_SETTINGS: Mapping[str, object] = MappingProxyType({})


class EmbedError(NetconError):
    """A call that this node cannot carry out. The text says what to do."""


@dataclass(slots=True, frozen=True)
class Frame:
    """An Ethernet frame that a network delivered to this node. MACs have 6 bytes; `payload` follows the EtherType."""

    network: int
    source: bytes
    destination: bytes
    ethertype: int
    payload: bytes

    @property
    def ethernet(self) -> bytes:
        """The whole frame, as Scapy's `Ether` parses it."""
        return self.destination + self.source + self.ethertype.to_bytes(2) + self.payload


@dataclass(slots=True, frozen=True)
class Event:
    """Something that the node says. `name`:

    online, offline          a root is heard, or none any more
    configured               `network` has a new configuration or status (see `Node.network`)
    path_learned             the first direct path to `peer`
    trace                    a frame of ours, or to us, was dropped: `details` has event (the reason), networkId, sourceZtAddr,
                             destZtAddr, sourceMac, destMac, etherType, frameLength (vl2 §6.8); and ruleSetReport and others
    remote_trace             the same from `peer`, which was told by a network's controller to send it here
    user_message             `peer` sent `data` with the number `message_type`
    identity_collision       a root knows another node with our address
    """

    name: str
    peer: int = 0
    network: int = 0
    message_type: int = 0
    data: bytes = b""
    details: Mapping[str, str] = field(default_factory=dict)


class Subscription(Generic[T]):
    """What comes from now on, oldest first: `async for`, or `receive`. A context manager; leaving it ends the subscription.

    One that is not read fast enough loses what it has no room for, as a packet socket does: `lost` counts.
    """

    def __init__(self, subscribers: set[Subscription[T]], room: int, network: int | None = None) -> None:
        self.lost = 0
        self._network = network
        self._subscribers = subscribers
        self._in, self._out = trio.open_memory_channel[T](room)
        subscribers.add(self)

    def put(self, item: T, network: int) -> None:
        if self._network is not None and network != self._network:
            return
        try:
            self._in.send_nowait(item)
        except trio.WouldBlock:
            self.lost += 1

    async def receive(self) -> T:
        """The next one. trio.EndOfChannel once the node is closed and all was read; trio.ClosedResourceError after `close`."""
        return await self._out.receive()

    def end(self) -> None:
        self._in.close()

    def close(self) -> None:
        self._subscribers.discard(self)
        self._out.close()

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in self._out:
            yield item


class Node:
    """A running node; made by `open_node`. Its calls are for the trio thread."""

    def __init__(self, reactor: Reactor, core: engine.Node, endpoints: list[Endpoint], clock: Clock, home: Home | None) -> None:
        self._reactor = reactor
        self._core = core
        self._clock = clock
        self._home = home
        self._frames: set[Subscription[Frame]] = set()
        self._events: set[Subscription[Event]] = set()
        self._datagrams: list[SendDatagram] = []
        self._identities_in, self._identities_out = trio.open_memory_channel[Identity](1024)
        self._sleeping: trio.CancelScope | None = None
        self._groups: dict[int, set[MulticastGroup]] = {}
        self._changed = trio.Event()
        self._closed = False
        self.endpoints = endpoints

    # -- who we are --

    @property
    def identity(self) -> Identity:
        """With its secret; `identity.to_text()` shows the public part."""
        return self._core.identity

    @property
    def address(self) -> int:
        """The 40-bit node address."""
        return self._core.address

    @property
    def planet(self) -> World:
        return self._core.planet

    @property
    def online(self) -> bool:
        """Whether a root was heard lately."""
        return self._core.online

    @property
    def counters(self) -> Counter[str]:
        """What the engine dropped, refused or did, by reason; kept up to date."""
        return self._core.counters

    # -- networks --

    def join(self, network: int, *, token: str = "") -> None:
        """Join a network, if we have not. `token`: a secret of the controller's that makes us a member at once."""
        cached = None
        if self._home is not None and self._core.network(network) is None:
            cached = self._home.networks().get(network)
        self._core.join(network, self._clock(), cached, token)
        self._perform()
        self._wake()

    def leave(self, network: int) -> None:
        """Leave a network and forget it. EmbedError if it is not joined."""
        self.network(network)
        self._core.leave(network, self._clock())
        self._groups.pop(network, None)
        self._perform()

    def networks(self) -> list[NetworkStatus]:
        """The joined networks."""
        return self._core.networks()

    def network(self, network: int) -> NetworkStatus:
        """EmbedError if it is not joined."""
        status = self._core.network(network)
        if status is None:
            raise EmbedError(f"network {format_network(network)} is not joined; call join first")
        return status

    def mac(self, network: int) -> bytes:
        """Our Ethernet address on a joined network."""
        return self.network(network).mac

    def addresses(self, network: int) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        """Our IP addresses there, as the controller assigned them, IPv4 first."""
        config = self.network(network).config
        found = [ipaddress.ip_interface((ip, prefix)) for ip, prefix in config.addresses] if config else []
        return sorted(found, key=lambda address: address.version)

    async def wait_until_ready(self, network: int) -> NetworkStatus:
        """Until the network's controller gave us a configuration. EmbedError if it is not joined (any more)."""
        while (status := self.network(network)).status is not State.OK:
            await self._changed.wait()
        return status

    async def wait_until_online(self) -> None:
        """Until a root was heard."""
        while not self.online:
            await self._changed.wait()

    def subscribe(self, network: int, groups: Iterable[MulticastGroup]) -> None:
        """Which multicast groups to receive, besides those of our addresses and the broadcast group; replaces the former ones."""
        self.network(network)
        self._groups[network] = set(groups)
        self._announce(network)
        self._perform()

    def _announce(self, network: int) -> None:
        status = self._core.network(network)
        if status is not None and status.config is not None:
            own = groups_for_addresses(ip for ip, _ in status.config.addresses)
            self._core.set_multicast_groups(network, own | self._groups.get(network, set()), self._clock())

    # -- frames --

    def send_frame(self, network: int, destination: bytes, ethertype: int, payload: bytes, *, source: bytes | None = None) -> None:
        """Send an Ethernet frame, at most the network's MTU of payload. `destination`, a MAC, may be a multicast one. `source`: not
        ours if we are an active bridge. EmbedError if the network is not joined; a frame that goes no further is a trace event."""
        own = self.mac(network)
        for mac in (destination, source or own):
            if len(mac) != 6:
                raise EmbedError(f"a MAC address has 6 bytes, not {len(mac)}")
        if not 0 <= ethertype <= 0xFFFF:
            raise EmbedError(f"an EtherType has 16 bits; {ethertype:#x} has more")
        self._core.receive_frame(network, destination, source or own, ethertype, payload, self._clock())
        self._perform()
        self._wake()

    def broadcast_frame(self, network: int, ethertype: int, payload: bytes) -> None:
        """Send an Ethernet frame to all members that are known to listen, at most the network's multicast limit."""
        self.send_frame(network, BROADCAST.mac, ethertype, payload)

    def frames(self, network: int | None = None, *, room: int = 1024) -> Subscription[Frame]:
        """The frames that arrive from now on, of one network or of all. `room`: how many may wait to be read."""
        return self._subscribe(self._frames, room, network)

    def events(self, *, room: int = 1024) -> Subscription[Event]:
        """What the node says from now on; while anybody listens, that includes why each frame was dropped."""
        subscription = self._subscribe(self._events, room, None)
        self._core.tracing = True
        return subscription

    def _subscribe(self, subscribers: set[Subscription[T]], room: int, network: int | None) -> Subscription[T]:
        subscription = Subscription(subscribers, room, network)
        if self._closed:
            subscription.end()
        return subscription

    def send_user_message(self, peer: int, message_type: int, data: bytes) -> None:
        """Send a USER_MESSAGE (vl1 §4.16) to another node; it arrives there as an event, or not at all."""
        self._core.send_user_message(peer, message_type, data, self._clock())
        self._perform()
        self._wake()

    # -- controller --

    @property
    def controller(self) -> Controller:
        """For calls that are not among those below; after them call `controller_changed`. EmbedError: this node is none."""
        if not isinstance(self._core.controller, Controller):
            raise EmbedError("this node is no controller; open it with controller=True")
        return self._core.controller

    def create_network(self, settings: Mapping[str, object] = _NO_SETTINGS) -> int:
        """Create a network of ours with the settings of service-api §4.1; returns its id. ControllerError."""
        record = self.controller.create_network(self._clock(), settings)
        self.controller_changed()
        return int(str(record["id"]), 16)

    def update_network(self, network: int, settings: Mapping[str, object]) -> None:
        """Change settings of a network of ours; its members are told. ControllerError."""
        self.controller.update_network(self._clock(), network, settings)
        self.controller_changed()

    def authorize(self, network: int, member: int, settings: Mapping[str, object] = _NO_SETTINGS) -> None:
        """Let a node into a network of ours, with more settings of service-api §4.2 (`{"authorized": False}`: no more).
        ControllerError."""
        self.controller.update_member(self._clock(), network, member, {"authorized": True, **settings})
        self.controller_changed()

    def controller_changed(self) -> None:
        self._core.controller_changed(self._clock())
        self._perform()
        self._wake()

    # -- the loop --

    async def _run(self) -> None:
        while True:
            if self._turn():
                await trio.lowlevel.checkpoint()
                continue
            wait_ms = min(self._core.next_deadline() - self._clock(), _LONGEST_SLEEP_MS)
            with trio.move_on_after(max(wait_ms, 0) / 1000) as self._sleeping:
                await trio.lowlevel.wait_readable(self._reactor.fileno())
            self._sleeping = None

    def _turn(self) -> bool:
        """One batch through the engine; True if there may be more at once."""
        now = self._clock()
        moved = False
        if not self._datagrams or self._flush():  # otherwise nothing more is read until it fits
            datagrams, _ = self._reactor.receive(_BATCH)
            for socket, remote, data in datagrams:
                try:
                    self._core.receive_datagram(socket, remote, data, now)
                except Exception:
                    log.exception("a defect in netcon, please report it: a datagram was dropped")
            moved = bool(datagrams)
        if now >= self._core.next_deadline():
            self._core.background(now)
        self._perform()
        return moved

    def _flush(self) -> bool:
        """Give waiting datagrams to the reactor; False if some did not fit."""
        del self._datagrams[: self._reactor.send_datagrams(self._datagrams)]
        return not self._datagrams

    def _wake(self) -> None:
        if self._sleeping is not None:
            self._sleeping.cancel()

    def _perform(self) -> None:
        while actions := self._core.take_actions():
            for action in actions:
                match action:
                    case SendDatagram():
                        self._datagrams.append(action)
                    case DeliverFrame(network, destination, source, ethertype, payload):
                        frame = Frame(network, source, destination, ethertype, payload)
                        for subscription in self._frames:
                            subscription.put(frame, network)
                    case _:
                        self._perform_other(action)
        if self._datagrams:
            self._flush()

    def _perform_other(self, action: Action) -> None:
        match action:
            case ValidateIdentity(identity):
                try:
                    self._identities_in.send_nowait(identity)
                except trio.WouldBlock:
                    self._core.identity_validated(identity, False, self._clock())
            case PersistRecords(ticket):  # records of an embedded controller live as long as the node
                self._core.records_persisted(ticket, self._clock())
            case StoreState(kind, key, data):
                self._store(kind, key, data)
            case ConfigureNetwork(network):
                self._announce(network)
                self._tell(Event("configured", network=network))
                self._news()
            case NodeEvent(name, peer, data):
                self._tell(_event(name, peer, data))
                if name in ("online", "offline"):
                    self._news()

    def _news(self) -> None:
        """Wake whoever waits for a state."""
        self._changed.set()
        self._changed = trio.Event()

    def _tell(self, event: Event) -> None:
        self._core.tracing = bool(self._events)
        for subscription in self._events:
            subscription.put(event, event.network)

    def _store(self, kind: StateKind, key: int, data: bytes | None) -> None:
        if self._home is not None:
            try:
                self._home.store(kind, key, data)
            except (OSError, NetconError) as error:
                log.error("%s", error)

    async def _validate_identities(self) -> None:
        async for identity in self._identities_out:
            valid = await trio.to_thread.run_sync(identity.validate)
            self._core.identity_validated(identity, valid, self._clock())
            self._perform()
            self._wake()

    def _close(self) -> None:
        self._closed = True
        for frames in self._frames:
            frames.end()
        for events in self._events:
            events.end()
        if self._home is not None:
            for address, data in self._core.peer_states():
                self._store(StateKind.PEER, address, data)


def _event(name: str, peer: int, data: bytes) -> Event:
    if name == "user_message":
        message = UserMessage.decode(data)
        return Event(name, peer, message_type=message.type, data=message.payload)
    if name in ("trace", "remote_trace"):
        dictionary = Dictionary.decode(data)
        details = {key: dictionary.text(key) for key in dictionary}
        return Event(name, peer, network=dictionary.integer("networkId"), data=data, details=details)
    return Event(name, peer, data=data)


@asynccontextmanager
async def open_node(
    *,
    home: Path | None = None,
    identity: Identity | None = None,
    planet: World | None = None,
    root: bool = False,
    controller: bool = False,
    address: str | None = None,
    port: int = 0,
) -> AsyncGenerator[Node, None]:
    """Run a node while the context lasts.

    `home`: a folder that keeps identity, planet, networks and peers; made if missing, and ours alone meanwhile. `identity`: with
    its secret; by default the home's, or a new one (up to a second of work). `planet`: by default the home's, or the public one.
    `root`: not for a home; the node makes a planet of which it is the only root, see `Node.planet`. `controller`: it makes networks
    and lets members in; their records live as long as the node. `address`: the local IP address to use, 127.0.0.1 for nodes that
    meet on this machine; by default all that are usable. `port`: for UDP; 0 is any.

    NetconError: the home or the planet cannot be used. OSError: the address or port cannot.
    """
    if root and (home is not None or planet is not None):
        raise EmbedError("a root makes a planet of its own for as long as it runs: give it no home and no planet")
    folder = Home(home) if home is not None else None
    if folder is not None:
        folder.lock()
    reactor = Reactor()
    try:
        if identity is None:
            make = folder.identity if folder is not None else lambda: Identity.generate(secrets.token_bytes)
            identity = await trio.to_thread.run_sync(make)
        reactor.start()
        loopback = address is not None and ipaddress.ip_address(address).is_loopback
        endpoints = _bind(reactor, address, port)
        if root:
            planet = make_planet(secrets.randbits(63), Clock()(), [Root(identity, tuple(endpoints))], secrets.token_bytes(64))
        elif planet is None:
            planet = choose_planet(folder.read("planet"), folder.path / "planet") if folder is not None else public_planet()
        clock = Clock()
        core = engine.Node(
            identity,
            planet,
            random=os.urandom,
            now=clock(),
            settings=NodeSettings(allow_loopback_paths=loopback),
            controller=Controller(identity, secrets.token_bytes) if controller else None,
        )
        core.set_local_endpoints(endpoints)
        node = Node(reactor, core, endpoints, clock, folder)
        if folder is not None:
            for _, data in folder.peers():
                core.load_peer(data, clock())
            for network in folder.networks():
                node.join(network)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node._run)
            nursery.start_soon(node._validate_identities)
            try:
                yield node
            finally:
                nursery.cancel_scope.cancel()
                node._close()
    finally:
        reactor.stop()
        if folder is not None:
            folder.unlock()


def _bind(reactor: Reactor, address: str | None, port: int) -> list[Endpoint]:
    """A UDP socket on `address`, or on each usable one, all on one port."""
    if address is not None:
        wanted = [InterfaceAddress("", ipaddress.ip_address(address).packed)]
    else:
        wanted = usable_addresses(interface_addresses())
    if not wanted:
        raise EmbedError("this machine has no address that a node could use; name one, as 127.0.0.1")
    endpoints = []
    for _, ip in wanted:
        _, port = reactor.bind_udp(str(ipaddress.ip_address(ip)), port)
        endpoints.append(Endpoint(ip, port))
    return endpoints
