"""Getting packets out: armour, route, fragments, queues (vl1 §3.3, §5.6, §5.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.actions import ALL_SOCKETS, Action, SendDatagram
from netcon.core.address import Endpoint
from netcon.core.errors import EncodeError
from netcon.core.identity import Identity
from netcon.core.packet import BODY, Verb, compress_body, split
from netcon.core.path import Path
from netcon.core.peer import Peer
from netcon.core.physical import Physical
from netcon.core.queues import ExpectedReplies, OutboundPacket, WaitingRoom, WhoisRequests
from netcon.core.settings import NodeSettings
from netcon.core.topology import Topology

#: Flags, before the suite is put in: one piece, several pieces; then the MAC field, empty.
_WHOLE, _FRAGMENTED = bytes(9), b"\x40" + bytes(8)
_VERBS = [bytes([value]) for value in range(256)]


class Sender:
    """Sends for one node. Nothing that comes from a peer is parsed here."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        settings: NodeSettings,
        random: Callable[[int], bytes],
        actions: list[Action],
        counters: Counter[str],
        physical: Physical,
    ) -> None:
        self.expected = ExpectedReplies()
        self.waiting: WaitingRoom[OutboundPacket] = WaitingRoom()
        self.whois = WhoisRequests()
        #: Called with a peer and its silent path when that path should be probed.
        self.probe_silent: Callable[[Peer, Path, int], None] = lambda peer, path, now: None
        self._identity = identity
        self._topology = topology
        #: Called with a peer without a direct path for which the user gave endpoints.
        self.try_hints: Callable[[Peer, int], None] = lambda peer, now: None
        self._physical = physical
        self._mtu = settings.mtu
        self._compress = settings.compress
        self._random = random
        self._actions = actions
        self._counters = counters

    # -- armour --

    def seal(self, peer: Peer, verb: int, body: bytes, suite: int, fragmented: bool = False) -> bytes:
        """A whole armoured packet with a fresh random id."""
        flags = _FRAGMENTED if fragmented else _WHOLE
        return peer.keys.seal(b"".join((self._random(8), peer.header_out, flags, _VERBS[verb], body)), suite)

    def _in_clear(self, peer: Peer, verb: int, body: bytes, trusted_path: int, fragmented: bool) -> bytes:
        """Suite 2: the trusted path id in the place of the MAC, nothing encrypted (vl1 §2.5.3)."""
        flags = b"\x50" if fragmented else b"\x10"
        return b"".join((self._random(8), peer.header_out, flags, trusted_path.to_bytes(8), _VERBS[verb], body))

    # -- routes --

    def send(self, destination: int, verb: int, body: bytes, now: int, *, compress: bool = False, expect: bool = False) -> None:
        """Send the normal way (vl1 §5.6): best path, else through a root, else queued. Fragmented as needed.

        `expect`: remember the id, since a reply may come.
        """
        peer = self._topology.peers.get(destination)
        if peer is not None:
            path, silent = self._topology.route(peer, now)
            if silent is not None:
                self.probe_silent(peer, silent, now)
            if destination in self._physical.peers and peer.best_entry(now) is None:
                self.try_hints(peer, now)
            if path is not None:
                self.send_over(peer, path, verb, body, now, compress=compress, expect=expect)
                return
        elif destination == self._identity.address:
            return
        self.waiting.hold(destination, OutboundPacket(verb, body, compress, expect), now)
        self._counters["queued_out"] += 1
        if peer is None:
            self.request_identity(destination, now)

    def send_over(
        self, peer: Peer, path: Path, verb: int, body: bytes, now: int, *, compress: bool = False, expect: bool = False
    ) -> None:
        """Armour and send over `path`, which may lead to a relay; in pieces if it is larger than the MTU."""
        if compress and self._compress:
            verb, body = compress_body(verb, body)
        mtu = self._mtu
        trusted = 0
        if self._physical.matters:
            network = self._physical.of(path.remote.ip)
            mtu = network.mtu or mtu
            # In clear to the peer itself only: what a relay passes on may leave the trusted network.
            trusted = network.trusted_path if network.trusted_path and peer.entry(path) is not None else 0
        fragmented = BODY + len(body) > mtu
        if trusted:
            packet = self._in_clear(peer, verb, body, trusted, fragmented)
        else:
            packet = self.seal(peer, verb, body, peer.suite, fragmented)
        if expect:
            self.expected.remember(int.from_bytes(packet[:8]), peer.address)
        path.last_out = now
        if not fragmented:
            self._actions.append(SendDatagram(path.socket, path.remote, packet))
            return
        try:
            pieces = split(packet, mtu)
        except EncodeError:
            self._counters["too_large_to_send"] += 1  # more than seven pieces: every receiver would drop it (vl1 §3.3)
            return
        socket, remote = path.socket, path.remote
        self._actions.extend([SendDatagram(socket, remote, piece) for piece in pieces])

    def reply(
        self,
        peer: Peer,
        path: Path,
        verb: int,
        body: bytes,
        now: int,
        *,
        suite: int | None = None,
        compress: bool = False,
        expect: bool = False,
    ) -> None:
        """Send one datagram of any size onto the path a packet came in on (vl1 §3.3)."""
        if compress and self._compress:
            verb, body = compress_body(verb, body)
        packet = self.seal(peer, verb, body, peer.suite if suite is None else suite)
        if expect:
            self.expected.remember(int.from_bytes(packet[:8]), peer.address)
        self.datagram(path, packet, now)

    def datagram(self, path: Path, data: bytes, now: int, ttl: int = 0) -> None:
        path.last_out = now
        self._actions.append(SendDatagram(path.socket, path.remote, data, ttl))

    def datagram_from_all(self, remote: Endpoint, data: bytes) -> None:
        """A copy from every bound socket (vl1 §5.3)."""
        self._actions.append(SendDatagram(ALL_SOCKETS, remote, data))

    # -- queues --

    def request_identity(self, address: int, now: int, *, for_others: bool = False) -> None:
        """Ask an upstream who `address` is, at most every 500 ms (vl1 §5.7). `for_others`: because of what somebody sent us."""
        if self.whois.want(address, now, for_others=for_others):
            self._ask(address, now)

    def _ask(self, address: int, now: int) -> None:
        upstream = self._topology.best_upstream(now, address)
        path = None if upstream is None else upstream.best_path(now)
        if upstream is None or path is None:
            self.whois.ask_again(address)
            return
        self.send_over(upstream, path, Verb.WHOIS, address.to_bytes(5), now, expect=True)

    def flush(self, address: int, now: int) -> None:
        """Something changed about `address`: try again what waits for it."""
        for packet in self.waiting.release(address, now):
            self.send(address, packet.verb, packet.body, now, compress=packet.compress, expect=packet.expect)

    def flush_all(self, now: int) -> None:
        """An upstream became reachable: everything may have a route now."""
        for key in self.waiting.waited_for():
            if isinstance(key, int):
                self.flush(key, now)
        self.repeat_whois(now)

    def repeat_whois(self, now: int) -> None:
        for address in self.whois.due(now):
            self._ask(address, now)
