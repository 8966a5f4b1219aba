"""One opened packet on its way through the handlers."""

from __future__ import annotations

from netcon.core.path import Path
from netcon.core.peer import Peer


class Inbound:
    """An authentic packet from `peer`. `packet_id` is the id on the wire; `path` leads to the relay if `hops` is not 0.

    Handlers set `trusted` when they establish common network membership (vl1 §5.1) and `accepted_ok` when it is an expected
    reply, which is what teaches paths (vl1 §5.4). `complained`: an error about it was sent already. `admitted`: it
    passed its rate gate, which a later retry must not pay again. `since`: first arrival.
    """

    __slots__ = ("accepted_ok", "admitted", "body", "complained", "hops", "packet_id", "path", "peer", "since", "trusted", "verb")

    def __init__(self, peer: Peer, path: Path, hops: int, packet_id: int, verb: int, body: bytes, since: int) -> None:
        self.peer = peer
        self.path = path
        self.hops = hops
        self.packet_id = packet_id
        self.verb = verb
        self.body = body
        self.since = since
        self.trusted = False
        self.accepted_ok = False
        self.complained = False
        self.admitted = False
