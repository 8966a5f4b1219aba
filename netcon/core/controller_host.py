"""The engine around a network controller: requests in, signed configurations and revocations out (vl2 §2.3, §7).

The controller itself (`ControllerRole`) decides; what it wants sent is armoured, signed and cut into chunks here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.actions import Action, PersistRecords
from netcon.core.buffer import Reader
from netcon.core.controller_role import (
    ConfigRequest,
    ControllerRole,
    Persist,
    SendConfig,
    SendError,
    SendRevocations,
)
from netcon.core.credentials import Revocation
from netcon.core.dictionary import Dictionary
from netcon.core.identity import Identity
from netcon.core.inbound import Inbound
from netcon.core.messages import Error, NetworkConfigRequest, NetworkCredentials, Ok
from netcon.core.netconf import cut_config
from netcon.core.packet import ErrorCode, Verb
from netcon.core.path import NEVER
from netcon.core.sender import Sender

#: Having been sent a config allows LIKE and GATHER for this long (vl2 §5.2), ms.
AUTHORISED_MS = 180_000


class ControllerHost:
    """Connects one node with its controller, if it has one."""

    def __init__(
        self,
        identity: Identity,
        sender: Sender,
        random: Callable[[int], bytes],
        actions: list[Action],
        counters: Counter[str],
        controller: ControllerRole | None,
    ) -> None:
        self.controller = controller
        #: Set by the node: a config, an error or revocations for ourselves.
        self.own_config: Callable[[int, bytes, int], None] = lambda network, dictionary, now: None
        self.own_error: Callable[[int, int, int], None] = lambda network, code, now: None
        self.own_revocations: Callable[[NetworkCredentials, int], None] = lambda message, now: None
        self.next_deadline: int | None = None if controller is None else NEVER
        self._identity = identity
        self._sender = sender
        self._random = random
        self._actions = actions
        self._counters = counters
        self._authorised: dict[tuple[int, int], int] = {}

    def authorised(self, network: int, member: int, now: int) -> bool:
        return now - self._authorised.get((network, member), NEVER) < AUTHORISED_MS

    def attach(self, controller: ControllerRole | None) -> None:
        """Give the node a controller, or take it away."""
        self.controller = controller
        self.next_deadline = None if controller is None else NEVER

    # -- in --

    def receive_request(self, inbound: Inbound, now: int) -> bool:
        message = NetworkConfigRequest.decode(inbound.body)
        controller = self.controller
        if controller is None:
            self._send_error(message.network, inbound.peer.address, ErrorCode.UNSUPPORTED_OPERATION, inbound.packet_id, now)
            return True
        if message.network >> 24 != self._identity.address:
            self._counters["request_foreign"] += 1
            return True
        request = ConfigRequest(message.network, inbound.peer.identity, _metadata(message.metadata), inbound.packet_id)
        controller.request(request, now)
        self.take(now)
        return True

    def request_own(self, network: int, metadata: bytes, now: int) -> bool:
        """We are a member of a network of our own. False if there is no controller here."""
        if self.controller is None:
            return False
        self.controller.request(ConfigRequest(network, self._identity, _metadata(metadata), 0), now)
        self.take(now)
        return True

    def persisted(self, ticket: int, now: int) -> None:
        if self.controller is not None:
            self.controller.persisted(ticket, now)
            self.take(now)

    def background(self, now: int) -> None:
        if self.next_deadline is not None and now >= self.next_deadline:
            self.take(now)

    def housekeeping(self, now: int) -> None:
        self._authorised = {key: at for key, at in self._authorised.items() if now - at < AUTHORISED_MS}

    # -- out --

    def take(self, now: int) -> None:
        """Carry out what the controller wants. Whatever made it want something may have brought its deadline nearer: ask again."""
        controller = self.controller
        if controller is None:
            return
        self.next_deadline = controller.background(now)
        for action in controller.take_actions():
            match action:
                case SendConfig():
                    self._send_config(action, now)
                case SendError():
                    self._send_error(action.network, action.member, action.code, action.packet_id, now)
                case SendRevocations():
                    self._send_revocations(action, now)
                case Persist():
                    self._actions.append(PersistRecords(action.ticket, action.changes))

    def _send_config(self, action: SendConfig, now: int) -> None:
        self._authorised[(action.network, action.member)] = now
        if action.member == self._identity.address:
            self.own_config(action.network, action.dictionary, now)
            return
        update = int.from_bytes(self._random(8)) or 1
        prefix = b""
        verb = Verb.NETWORK_CONFIG
        if action.packet_id is not None:
            verb = Verb.OK
            prefix = Ok(Verb.NETWORK_CONFIG_REQUEST, action.packet_id).encode()
        for chunk in cut_config(action.network, action.dictionary, update, self._identity):
            self._counters["config_sent"] += 1
            self._sender.send(action.member, verb, prefix + chunk.encode(), now, compress=True, expect=verb != Verb.OK)

    def _send_error(self, network: int, member: int, code: int, packet_id: int, now: int) -> None:
        if member == self._identity.address:
            self.own_error(network, code, now)
            return
        error = Error.about_network(Verb.NETWORK_CONFIG_REQUEST, packet_id, code, network)
        self._sender.send(member, Verb.ERROR, error.encode(), now)

    def _send_revocations(self, action: SendRevocations, now: int) -> None:
        revocations = tuple(Revocation.decode(Reader(data)) for data in action.revocations)
        message = NetworkCredentials(revocations=revocations)
        if action.member == self._identity.address:
            self.own_revocations(message, now)
        else:
            self._sender.send(action.member, Verb.NETWORK_CREDENTIALS, message.encode(), now, compress=True)


def _metadata(data: bytes) -> dict[str, bytes]:
    """Request metadata (vl2 §2.2) as the controller sees it."""
    return dict(Dictionary.decode(data))
