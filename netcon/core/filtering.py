"""The network's rules applied to frames, and the copies that rules make (vl2 §4.5, §4.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from netcon.core.messages import ExtFrame
from netcon.core.network import Network
from netcon.core.packet import Verb
from netcon.core.rule_engine import Decision, FilteredFrame, Verdict, filter_inbound, filter_outbound
from netcon.core.sender import Sender


class Filter:
    """Evaluates the rules of a network; sends what they tee, watch or redirect."""

    def __init__(self, sender: Sender, random: Callable[[int], bytes], counters: Counter[str]) -> None:
        self._sender = sender
        self._random = random
        self._counters = counters

    def outbound(
        self,
        network: Network,
        address: int,
        source: bytes,
        destination: bytes,
        ethertype: int,
        payload: bytes,
        now: int,
        *,
        copies: bool,
    ) -> bool:
        """Whether a frame may go to member `address`, or in general if that is 0. `copies`: tee and watch in this pass."""
        if network.accepts_all:
            return True
        frame = FilteredFrame(
            False,
            network.address,
            network.address,
            address,
            source,
            destination,
            ethertype,
            payload,
            self._random,
            network.own.tags,
            network.credentials_of(address).tags,
            network.own.ips,
            network.own.macs,
            network.own_prefixes,
        )
        decision = filter_outbound(network.rules, network.own.capabilities, frame, tee=copies)
        self._send_copies(network, decision, source, destination, ethertype, payload, now)
        if not decision.accepted:
            self._counters["filtered_out"] += 1
        return decision.accepted

    def inbound(
        self, network: Network, address: int, source: bytes, destination: bytes, ethertype: int, payload: bytes, now: int
    ) -> Verdict:
        """What to do with a frame that member `address` sent. A redirected one is on its way and counts as dropped."""
        if network.accepts_all:
            return Verdict.ACCEPT
        remote = network.credentials_of(address)
        frame = FilteredFrame(
            True,
            network.address,
            address,
            network.address,
            source,
            destination,
            ethertype,
            payload,
            self._random,
            network.own.tags,
            remote.tags,
            remote.ips,
            remote.macs,
            network.own_prefixes,
        )
        decision = filter_inbound(network.rules, remote.capabilities, frame)
        self._send_copies(network, decision, source, destination, ethertype, payload, now)
        if decision.accepted:
            return decision.verdict
        self._counters["filtered_in"] += 1
        return Verdict.DROP

    def _send_copies(
        self, network: Network, decision: Decision, source: bytes, destination: bytes, ethertype: int, payload: bytes, now: int
    ) -> None:
        for copy in decision.copies:
            network.members.record(copy.target)  # it may ask for our credentials
            body = ExtFrame(network.id, copy.flags, destination, source, ethertype, payload[: copy.length]).encode()
            wants_ok = bool(copy.flags & ExtFrame.WANT_OK)
            self._sender.send(copy.target, Verb.EXT_FRAME, body, now, compress=True, expect=wants_ok)
