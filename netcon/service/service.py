"""The service: joins the engine (sans-I/O, Python) to the reactor, the stacks, the home folder and the API, on one trio thread.

The loop in `_engine` is where all datagrams and frames pass between the planes: it takes a batch from the rings, feeds the engine,
and gives the engine's answers back in batches. When a ring towards the reactor is full, what is left waits in order, and nothing
more is read until it fits: the ring behind us fills in turn and stops its port. Slow work goes elsewhere: memory-hard identity
checks to one worker thread, files and the controller's database to another, in order.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import trio

import lwip
from netcon.controller import Controller
from netcon.controller.sqlite_store import SqliteStore
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
from netcon.core.address import format_network
from netcon.core.errors import NetconError
from netcon.core.identity import Identity
from netcon.core.netconf import check_token
from netcon.core.node import Node
from netcon.core.settings import NodeSettings
from netcon.dataplane.reactor import Reactor
from netcon.policy import Policy
from netcon.service.api import serve_api
from netcon.service.captures import Captures
from netcon.service.clock import Clock
from netcon.service.errors import PortError, ServiceError
from netcon.service.events import EventLog
from netcon.service.home import Home
from netcon.service.interfaces import address_changes, discard_changes
from netcon.service.names import Names
from netcon.service.paths import api_socket, rpc_socket
from netcon.service.planet import choose_planet
from netcon.service.port_mapping import PortMapping
from netcon.service.ports import Port, make_port
from netcon.service.randomness import Randomness
from netcon.service.settings import LocalConf, NetworkSettings, parse_local_conf
from netcon.service.storage import Storage
from netcon.service.tap_port import TapPort
from netcon.service.wire import Wire, open_control_port

log = logging.getLogger("netcon.service")

#: What we say we are: a ZeroTier One release whose protocol this is (vl1 §1.4).
ANNOUNCED_VERSION = (1, 14, 1)

_BATCH = 256
_TURNS_AT_CLOSE = 64
_SLICE_NS = 5_000_000  # how long the loop may go on before other tasks have their turn
_LONGEST_SLEEP_MS = 30_000
_HOUSEKEEPING_S = 5.0
_STACK_CHECK_MS = 250  # under traffic, failed stacks are looked for this often; otherwise with the housekeeping
_INTERFACES_S = 30.0  # vl1 §5.13
_SETTLE_S = 0.2  # a change of addresses comes in several parts: the old one goes, the new one comes, a route
_LOCAL_CONF_S = 10.0  # service-api §6
_TRACE_S = 90.0  # dropped frames are traced for this long after the last question about them
_PEERS_S = 3600.0  # vl1 §7
_SLEPT_MS = 10_000  # an overrun of this much means that the machine slept (vl1 §5.13)
_DEFECT_PAUSE_MS = 1_000  # after the engine's timers failed
_DEFECT_REPORT_S = 10.0  # between two reports of defects in the log


NO_CHANGES: Mapping[str, object] = MappingProxyType({})


class Service:
    """One running node with its home folder. `run` does everything; the API calls the methods below it."""

    def __init__(self, home: Home, *, port: int | None = None) -> None:
        """`port`: the primary port of the command line, which goes before `local.conf`'s; 0 is any."""
        self.home = home
        self._port_wanted = port
        self.conf = LocalConf()
        #: Milliseconds since the Unix epoch, never back.
        self.clock = Clock()
        #: Exceptions that nobody foresaw; each cost one packet or one call.
        self.defects = 0
        #: What happened lately, for the API.
        self.events = EventLog()
        self._trace_until = 0.0
        self.network_settings: dict[int, NetworkSettings] = {}
        self.ports: dict[int, Port] = {}
        self._to_interfaces = False  # every socket of the wire is bound to its interface
        self._port_errors: dict[int, str] = {}  # what the log has heard
        self._network_of: dict[int, int] = {}  # Ethernet end number -> network
        self._last_number = 0
        self._datagrams: list[tuple[int, tuple[bytes, int], bytes, int]] = []
        self._frames: list[tuple[int, bytes, bytes, int, bytes]] = []
        self._sleeping: trio.CancelScope | None = None
        self._stop = trio.Event()
        self._next_stack_check = 0
        self._group_changes = 0
        self._background_from = 0
        self._next_report = 0.0
        self._changing = trio.Lock()  # of the networks and settings files, one change at a time
        self._identities_in, self._identities_out = trio.open_memory_channel[Identity](math.inf)
        self._storage = Storage(home)

    @property
    def rpc_path(self) -> Path:
        """The socket RPC path of no network in particular."""
        return rpc_socket(self.home.path)

    # -- life --

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called or SIGTERM or SIGINT arrives. NetconError when the service cannot start.

        `ready` is called once the RPC paths of all networks and the API answer.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            self.home.lock()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_signals, signals)
                    await self._start(nursery, ready)
                    nursery.cancel_scope.cancel()
            finally:
                self.home.unlock()

    def stop(self) -> None:
        self._stop.set()

    async def _watch_signals(self, signals: object) -> None:
        async for number in signals:  # type: ignore[attr-defined]
            log.info("%s: stopping", signal.Signals(number).name)
            self.stop()

    async def _start(self, nursery: trio.Nursery, ready: Callable[[], None]) -> None:
        home = self.home
        self.conf = home.local_conf()
        self._report_without_effect()
        identity = await trio.to_thread.run_sync(home.identity)
        self.token = home.token()
        planet = choose_planet(home.read("planet"), home.path / "planet")
        self.store = SqliteStore(home.path / "controller.d")
        control = open_control_port(self.conf, self._port_wanted, home.last_port())
        self.reactor = Reactor()
        self.reactor.start()
        try:
            self.wire = Wire(self.reactor, control.getsockname()[1], self.conf)
            self.wire.refresh(self.conf)
            self.mapping = PortMapping(self.wire.tertiary_port, self._announce_endpoints)
            self.server = lwip.SocketServer(self.reactor.capsule(), service=home.service_id(), epoch=secrets.randbits(63) | 1)
            self.server.set_policy(self.conf.policy().compiled())
            try:
                self.server.listen(os.fspath(self.rpc_path), mode=0o600)
            except OSError as error:
                raise ServiceError(
                    f"{self.rpc_path}: {error.strerror}; the home folder must be on a file system that holds sockets"
                ) from None
            self._raise_descriptor_limit()
            self.names = Names(self)
            self.controller = Controller(identity, secrets.token_bytes, self.store.load())
            now = self.clock()
            self.node = Node(
                identity,
                planet,
                random=Randomness(),
                now=now,
                settings=NodeSettings(allow_loopback_paths=self.conf.settings.allowLoopbackPaths, version=ANNOUNCED_VERSION),
                controller=self.controller,
            )
            self.node.set_local_endpoints(self.wire.local_endpoints)
            self._set_physical()
            self._orbit_moons(now)
            self._load_peers(now)
            for network, cached in home.networks().items():
                self._join(network, cached, home.network_settings(network), self._stored_token(network))
            self.captures = Captures(home.path, nursery)
            await serve_api(nursery, self, control)
            home.announce(self.wire.primary_port)
            log.info("node %010x is up on port %d, home %s", identity.address, self.wire.primary_port, home.path)
            async with trio.open_nursery() as work:
                work.start_soon(self._engine)
                work.start_soon(self._validate_identities)
                work.start_soon(self._storage.run, self.store, self._records_committed)
                work.start_soon(self._housekeeping)
                work.start_soon(self.names.run)
                work.start_soon(self._watch_addresses)
                work.start_soon(self._map_port)
                ready()
                await self._stop.wait()
                work.cancel_scope.cancel()
        finally:
            self._shut_down()
            control.close()

    def _shut_down(self) -> None:
        """Orderly: programs' connections are reset, state is kept, nothing of ours is left behind."""
        if hasattr(self, "node"):
            while self.ports:
                self._close(self.ports.popitem()[1])
            for action in self._storage.left(self.node.take_actions()):
                self._storage.write(action)
            for address, data in self.node.peer_states():
                self._storage.write(StoreState(StateKind.PEER, address, data))
        if hasattr(self, "server"):
            self.server.close()
        self.reactor.stop()
        self.store.close()
        self.home.withdraw()
        api_socket(self.home.path).unlink(missing_ok=True)

    @staticmethod
    def _raise_descriptor_limit() -> None:
        """One descriptor per program's socket: take what we may have."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _report_without_effect(self) -> None:
        for key in self.conf.without_effect():
            log.warning("%s: %s has no effect in this version", self.home.path / "local.conf", key)

    def _set_physical(self) -> None:
        networks = [*self.conf.physical_networks(), *self.home.trusted_paths()]
        self.node.set_physical(networks, self.conf.peer_hints(), self.clock())

    def _orbit_moons(self, now: int) -> None:
        for moon, data in self.home.moons():
            path = self.home.path / f"moons.d/{moon:016x}.moon"
            try:
                if not self.node.orbit(moon, now, stored=data):
                    log.warning("%s: not orbited: too many moons", path)
            except NetconError as error:
                log.warning("%s: not orbited: %s", path, error)

        for moon, seed in self.home.moon_seeds():
            self.node.orbit(moon, now, seed=seed)

    def _load_peers(self, now: int) -> None:
        for path, data in self.home.peers():
            try:
                self.node.load_peer(data, now)
            except NetconError as error:
                log.warning("%s: corrupt (%s), ignored: this cache is written again at the next stop", path, error)

    # -- the loop between the planes --

    async def _engine(self) -> None:
        fileno = self.reactor.fileno()
        slice_end = time.monotonic_ns() + _SLICE_NS
        while True:
            if self._turn():
                if time.monotonic_ns() < slice_end:
                    continue
                await trio.lowlevel.checkpoint()
            else:
                wait_ms = min(self._deadline() - self.clock(), _LONGEST_SLEEP_MS)
                with trio.move_on_after(max(wait_ms, 0) / 1000) as self._sleeping:
                    await trio.lowlevel.wait_readable(fileno)
                self._sleeping = None
            slice_end = time.monotonic_ns() + _SLICE_NS

    def _deadline(self) -> int:
        return max(self.node.next_deadline(), self._background_from)

    def _turn(self) -> bool:
        """One batch through the engine; True if there may be more at once."""
        node = self.node
        now = self.clock()
        moved = False
        if self._flush():
            datagrams, frames = self.reactor.receive(_BATCH)
            for socket, remote, data in datagrams:
                try:
                    node.receive_datagram(socket, remote, data, now)
                except Exception:
                    self.defect("a datagram")
            if frames:
                networks = self._network_of
                for number, destination, source, ethertype, payload in frames:
                    if (network := networks.get(number)) is not None:
                        try:
                            node.receive_frame(network, destination, source, ethertype, payload, now)
                        except Exception:
                            self.defect("a frame")
            moved = bool(datagrams or frames)
            if moved and now >= self._next_stack_check:
                self._restart_failed_stacks()
                self._announce_joined_groups()
        if now >= self._deadline():
            try:
                node.background(now)
            except Exception:
                self.defect("the engine's timers")
                self._background_from = now + _DEFECT_PAUSE_MS
        self.perform()
        return moved

    def defect(self, what: str) -> None:
        """For an `except` clause: an exception that nobody foresaw is counted and logged, and costs what it was about alone.

        Whoever found a packet that raises can send many: the log gets one of them now and then.
        """
        self.defects += 1
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _DEFECT_REPORT_S
            log.exception("a defect in netcon, please report it: %s was dropped (%d so far)", what, self.defects)

    def perform(self) -> None:
        """Do what the engine asks, also for what that makes it ask; called after anything that may have made it ask."""
        while actions := self.node.take_actions():
            others: list[Action] = []
            for action in actions:
                if type(action) is SendDatagram:
                    self._datagrams.append(action)
                elif type(action) is DeliverFrame:
                    network, destination, source, ethertype, payload = action
                    if (port := self.ports.get(network)) is not None:
                        self._frames.append((port.number, destination, source, ethertype, payload))
                else:
                    others.append(action)
            self._flush()
            for other in others:
                try:
                    self._perform_other(other)
                except Exception:
                    self.defect(f"an action ({type(other).__name__})")

    def _perform_other(self, action: Action) -> None:
        match action:
            case ValidateIdentity(identity):
                self._identities_in.send_nowait(identity)
            case StoreState():
                self._storage.put(action)
            case PersistRecords():
                self.names.changed()
                self._storage.put(action)
            case ConfigureNetwork(network):
                self._configure(network)
            case NodeEvent("identity_collision", peer):
                self.events.add(action, self.clock())
                log.error(
                    "root %010x knows another node with this address: move identity.secret and identity.public out of %s and start "
                    "again, as a new node",
                    peer,
                    self.home.path,
                )
            case NodeEvent("online" | "offline" | "path_learned" as name, peer):
                self.events.add(action, self.clock())
                log.info("%s%s", name.replace("_", " "), f" {peer:010x}" if peer else "")
                if name != "path_learned":
                    self._online_changed()
            case NodeEvent():
                self.events.add(action, self.clock())  # messages that any peer may send as fast as it likes: not for the log

    def _flush(self) -> bool:
        """Give waiting datagrams and frames to the reactor, in order; False if some did not fit."""
        try:
            if self._datagrams:
                taken = self.reactor.send_datagrams(self._datagrams)
                del self._datagrams[:taken]
            if self._frames:
                taken = self.reactor.send_frames(self._frames)
                del self._frames[:taken]
        except (TypeError, ValueError, OverflowError):  # one entry is wrong, and would stop all behind it
            self.defect("a batch")
            self._datagrams.clear()
            self._frames.clear()
        return not (self._datagrams or self._frames)

    def _wake(self) -> None:
        """The engine's next deadline may have come nearer: end the loop's sleep."""
        if self._sleeping is not None:
            self._sleeping.cancel()

    # -- slow work --

    async def _validate_identities(self) -> None:
        async for identity in self._identities_out:
            try:
                valid = await trio.to_thread.run_sync(identity.validate)
                self.node.identity_validated(identity, valid, self.clock())
            except Exception:
                self.defect("an identity")
                self.node.identity_validated(identity, False, self.clock())
            self.perform()
            self._wake()

    def _records_committed(self, ticket: int) -> None:
        try:
            self.node.records_persisted(ticket, self.clock())
        except Exception:
            self.defect("an answer of the controller")
        self.perform()
        self._wake()

    async def _housekeeping(self) -> None:
        last_conf = last_interfaces = last_peers = trio.current_time()
        conf_stamp = self._conf_stamp()
        while True:
            before = self.clock()
            await trio.sleep(_HOUSEKEEPING_S)
            slept = self.clock() - before > _HOUSEKEEPING_S * 1000 + _SLEPT_MS
            now = trio.current_time()
            self._restart_failed_stacks()
            self._announce_joined_groups()
            self._look_after_devices()
            if self.node.tracing and now >= self._trace_until:
                self.node.tracing = False
            if slept:
                self._wake()  # trio's clock stood still meanwhile, the engine's did not
            changed = False
            if now - last_conf >= _LOCAL_CONF_S:
                last_conf = now
                if (stamp := self._conf_stamp()) != conf_stamp:
                    conf_stamp = stamp
                    changed = self._reload_conf()
            if now - last_peers >= _PEERS_S:
                last_peers = now
                await self._forget_old_peers()
            redrawn = self.wire.redraw_if_lost(self.node.online, slept, now)
            if changed or slept or redrawn or now - last_interfaces >= _INTERFACES_S:
                last_interfaces = now
                self._refresh_wire()
                self.names.look_at_host()

    async def _forget_old_peers(self) -> None:
        try:
            await trio.to_thread.run_sync(self.home.forget_old_peers)
        except (OSError, NetconError) as error:
            log.error("%s", error)

    def _restart_failed_stacks(self) -> None:
        self._next_stack_check = self.clock() + _STACK_CHECK_MS
        for network, port in self.ports.items():
            try:
                restarted = port.restart_if_failed()
            except PortError as error:
                self._port_failed(network, error)
                continue
            except (OSError, lwip.StackError) as error:
                log.error("network %016x: its stack cannot be started again now: %s", network, error)
                self.node.set_port_error(network, True)
                continue
            if restarted:
                self._configure(network)
                self.perform()

    def _announce_joined_groups(self) -> None:
        """Programs' sockets join and leave groups in the stacks; the engine is told of what came of it."""
        if not self.ports:
            return
        changes = self.server.stats()["group_changes"]
        if changes == self._group_changes:
            return
        self._group_changes = changes
        for network, port in self.ports.items():
            self.node.set_multicast_groups(network, port.groups(), self.clock())
        self.perform()

    def _port_failed(self, network: int, error: PortError) -> None:
        """Its status says so from now on, and the log once."""
        self.node.set_port_error(network, True)
        if self._port_errors.get(network) != str(error):
            self._port_errors[network] = str(error)
            log.error("%s", error)

    def _look_after_devices(self) -> None:
        """TAP devices: the kernel's programs join groups, and people take addresses and routes away."""
        for network, port in self.ports.items():
            if isinstance(port, TapPort):
                port.refresh()
                self.node.set_multicast_groups(network, port.groups(), self.clock())
        self.perform()

    def _online_changed(self) -> None:
        for network, port in self.ports.items():
            if isinstance(port, TapPort):
                self._configure(network)

    def _conf_stamp(self) -> tuple[int, int] | None:
        try:
            status = (self.home.path / "local.conf").stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _reload_conf(self) -> bool:
        try:
            self.conf = self.home.local_conf()
        except ServiceError as error:
            log.error("%s; the previous settings stay", error)
            return False
        self._set_physical()
        self.names.changed()
        self.server.set_policy(self.conf.policy().compiled())
        self.perform()
        log.info("local.conf was read again; ports and paths over loopback change at the next start only")
        self._report_without_effect()
        return True

    def _refresh_wire(self) -> None:
        own = [ip for port in self.ports.values() for ip in port.addresses]
        self._to_interfaces = self._has_default_route()
        try:
            changed = self.wire.refresh(self.conf, own, to_interfaces=self._to_interfaces)
        except (OSError, ServiceError) as error:
            log.error("%s", error)
            return
        if changed:
            self._announce_endpoints()
        self._look_for_gateways()

    def _announce_endpoints(self) -> None:
        """Where others may reach us: our sockets, and what gateways map to them."""
        self.node.set_local_endpoints([*self.wire.local_endpoints, *self.mapping.endpoints], self.clock())
        self.perform()
        self._wake()

    def _look_for_gateways(self) -> None:
        try:
            self.mapping.set_gateways(self.wire.gateways())
        except OSError as error:
            log.debug("no gateways to map a port at: %s", error)

    async def _map_port(self) -> None:
        if self.wire.tertiary_port:
            self._look_for_gateways()
            await self.mapping.run()

    async def _watch_addresses(self) -> None:
        """Bind anew as soon as the machine's addresses change. Where the kernel does not tell, housekeeping looks."""
        try:
            netlink = address_changes()
        except OSError as error:
            reason = error.strerror or error
            log.warning("the kernel does not tell of new addresses (%s): they are looked for every %g s", reason, _INTERFACES_S)
            return
        with netlink:
            self._refresh_wire()  # for what changed since the start, before we listened
            while True:
                await trio.lowlevel.wait_readable(netlink)
                await trio.sleep(_SETTLE_S)
                discard_changes(netlink)
                self._refresh_wire()

    # -- networks --

    def _stored_token(self, network: int) -> str:
        """The token that we have not been let in by yet; one that is none any more is named in the log and done without."""
        token = self.home.join_token(network)
        try:
            check_token(token or "-")
        except NetconError as error:
            log.warning("%s: %s; ignored", self.home.path / f"networks.d/{network:016x}.token", error)
            return ""
        return token

    def _join(self, network: int, cached: bytes | None, settings: NetworkSettings, token: str = "") -> None:
        self.network_settings[network] = settings
        self.node.join(network, self.clock(), cached, token)
        status = self.node.network(network)
        assert status is not None
        if cached is not None and status.config is None:
            log.warning(
                "%s: corrupt, ignored: a new one comes from the controller", self.home.path / f"networks.d/{network:016x}.conf"
            )
        try:
            self._add_port(network, status.mac)
        except ServiceError:
            self.node.leave(network, self.clock())
            raise
        self._configure(network)
        self.perform()
        self._wake()

    def _add_port(self, network: int, mac: bytes) -> None:
        """The port that the network's settings name. ServiceError; a TAP device that cannot be made is the port's `failure`."""
        self._last_number = number = self._last_number + 1  # none is used twice: a port that was closed may still be referred to
        try:
            port = make_port(self._port_kind(network), self.reactor, self.server, self.home, network, mac, number)
        except (OSError, lwip.StackError) as error:
            raise ServiceError(f"{format_network(network)}: its stack cannot be started: {error}") from error
        self.ports[network] = port
        self._network_of[number] = network

    def _port_kind(self, network: int) -> str:
        return self.network_settings[network].port or self.conf.settings.networkPort

    def _change_port(self, network: int) -> None:
        """To the kind that the settings name. ServiceError: then the former port stays."""
        former = self.ports[network]
        self._add_port(network, former.mac)
        port = self.ports[network]
        if port.failure is not None:
            self.ports[network] = former
            del self._network_of[port.number]
            port.close()
            raise port.failure
        self._close(former)
        del self._network_of[former.number]
        self._port_errors.pop(network, None)

    async def join(self, network: int, changes: Mapping[str, object] = NO_CHANGES, token: str = "") -> None:
        """Join a network, if we have not, and change what its controller may do to us (service-api §3.4). `token`: shown to the
        controller, which lets us in at once if it is one of its own. ServiceError."""
        async with self._changing:
            joined = network in self.ports
            former = self.network_settings[network] if joined else self.home.network_settings(network)
            settings = former.changed(changes)
            if not joined:
                await trio.to_thread.run_sync(self.home.store, StateKind.NETWORK, network, b"\n")
                self._join(network, None, settings, token)
                failure = self.ports[network].failure
                if failure is not None:
                    self._leave(network)
                    raise failure
            elif token:
                self.node.join(network, self.clock(), token=token)
                self.perform()
            self.network_settings[network] = settings
            if self.ports[network].kind != self._port_kind(network):
                try:
                    self._change_port(network)
                except ServiceError:
                    self.network_settings[network] = former
                    raise
            await trio.to_thread.run_sync(self.home.store_network_settings, network, settings)
            self._configure(network)
            self.perform()
            if token:
                await self._storage.stored()

    async def leave(self, network: int) -> bool:
        """Leave a network and forget it; False if it was not joined."""
        async with self._changing:
            if network not in self.ports:
                return False
            self._leave(network)
            return True

    def _leave(self, network: int) -> None:
        port = self.ports.pop(network)
        self._close(port)
        self.node.leave(network, self.clock())
        del self._network_of[port.number]
        self.network_settings.pop(network, None)
        self._port_errors.pop(network, None)
        self.names.changed()
        self.perform()
        self.home.remove(f"networks.d/{network:016x}.local.conf")
        self._wake()

    def _close(self, port: Port) -> None:
        """End a network's stack. The resets that it sends are in the ring when its end is disconnected: they still go out."""
        if hasattr(self, "captures"):
            self.captures.port_closes(port.network)
        port.close()
        for _ in range(_TURNS_AT_CLOSE):
            if not self._turn():
                break

    async def orbit(self, moon: int, seed: int) -> bool:
        """Orbit a moon by its file in moons.d or by `seed` (0: none); False if neither is there. ServiceError."""
        stored = await trio.to_thread.run_sync(self.home.moon, moon)
        try:
            taken = self.node.orbit(moon, self.clock(), seed=seed, stored=stored)
        except NetconError as error:
            raise ServiceError(f"{self.home.path / f'moons.d/{moon:016x}.moon'}: {error}; replace or remove it") from error
        self.perform()
        await self._storage.stored()
        self._wake()
        return taken

    async def deorbit(self, moon: int) -> bool:
        """Orbit a moon no more, and delete its file; False if we did not."""
        left = self.node.deorbit(moon, self.clock())
        self.perform()
        await self._storage.stored()
        self._wake()
        return left

    def _configure(self, network: int) -> None:
        self.names.changed()
        port, status = self.ports.get(network), self.node.network(network)
        if port is None or status is None:
            return
        try:
            if isinstance(port, TapPort):
                port.online = self.node.online
            port.configure(status, self.network_settings[network])
        except lwip.StackError as error:
            log.error("network %016x: %s", network, error)  # housekeeping starts it again if it has failed
            self.node.set_port_error(network, True)
            return
        if port.failure is not None:
            self._port_failed(network, port.failure)
            return
        self._port_errors.pop(network, None)
        self.node.set_port_error(network, False)
        self.node.set_added_addresses(network, self.network_settings[network].addresses)
        self.node.set_multicast_groups(network, port.groups(), self.clock())
        own = [ip for each in self.ports.values() for ip in each.addresses]
        if set(own) & {endpoint.ip for endpoint in self.wire.local_endpoints} or self._to_interfaces != self._has_default_route():
            self._refresh_wire()

    def _has_default_route(self) -> bool:
        """Whether this machine's packets may go into one of our networks unless they are told otherwise."""
        return any(isinstance(port, TapPort) and port.has_default_route for port in self.ports.values())

    # -- for the API --

    async def controller_changed(self) -> None:
        """After a management call on the controller: act on it, and return when its records are committed."""
        self.node.controller_changed(self.clock())
        self.perform()
        self._wake()
        await self._storage.committed()

    def trace_for_a_while(self) -> None:
        """Somebody wants to know why frames are dropped."""
        self._trace_until = trio.current_time() + _TRACE_S
        self.node.tracing = True

    def send_message(self, destination: int, type_id: int, data: bytes) -> None:
        """A USER_MESSAGE to another node (vl1 §4.15)."""
        self.node.send_user_message(destination, type_id, data, self.clock())
        self.perform()
        self._wake()

    @property
    def version(self) -> tuple[int, int, int]:
        return ANNOUNCED_VERSION

    async def store_settings(self, changes: dict[str, object]) -> None:
        """POST /config/settings: keep `changes` in local.conf; they count from its next reading on. SettingsError."""
        async with self._changing:
            raw = dict(self.home.local_conf().raw)
            raw["settings"] = {**raw.get("settings", {}), **changes}
            text = msgspec.json.format(msgspec.json.encode(raw), indent=4)
            parse_local_conf(text, self.home.path / "local.conf")
            await trio.to_thread.run_sync(self.home.write, "local.conf", text)

    async def set_policy(self, text: str) -> None:
        """Keep a policy in local.conf, and apply it at once. PolicyError, SettingsError."""
        policy = Policy.parse(text)
        await self.store_settings({"policy": text.splitlines()})
        self.conf.settings.policy = self.conf.raw.setdefault("settings", {})["policy"] = text.splitlines()
        self.server.set_policy(policy.compiled())
        self.names.changed()


def main(home: Path, *, port: int | None = None, ready: Callable[[], None] = lambda: None) -> None:
    """Run a service on `home` in the foreground until it is told to stop. NetconError when it cannot."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("hypercorn").setLevel(logging.WARNING)
    os.umask(0o022)
    try:
        trio.run(Service(Home(home), port=port).run, ready)
    except BaseExceptionGroup as group:
        ours, others = group.split(NetconError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
