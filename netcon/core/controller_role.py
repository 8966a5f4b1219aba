"""What the engine asks of a network controller, and what a controller asks of the engine (vl2 §7).

`netcon.controller.Controller` implements `ControllerRole`; the engine knows only this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from netcon.core.identity import Identity


@dataclass(slots=True, frozen=True)
class ConfigRequest:
    """A NETWORK_CONFIG_REQUEST: who asks for which network, with the metadata dictionary (vl2 §2.2) decoded."""

    network: int
    member: Identity
    metadata: dict[str, bytes]
    packet_id: int  # of the request, on the wire; 0 when the node asks itself


@dataclass(slots=True, frozen=True)
class SendConfig:
    """Send a configuration dictionary to `member`: as OK to `packet_id`, or as a push (NETWORK_CONFIG) if that is None.
    The engine cuts it into signed chunks and remembers the member as authorised for LIKE and GATHER (vl2 §5.2)."""

    network: int
    member: int
    dictionary: bytes
    packet_id: int | None


@dataclass(slots=True, frozen=True)
class SendError:
    """Answer a request with ERROR `code` (vl2 §2.4)."""

    network: int
    member: int
    code: int
    packet_id: int


@dataclass(slots=True, frozen=True)
class SendRevocations:
    """Send revocations (serialized, vl2 §3.6) to `member` in one NETWORK_CREDENTIALS packet."""

    member: int
    revocations: tuple[bytes, ...]


@dataclass(slots=True, frozen=True)
class Persist:
    """Commit these records; what follows from them is held until `ControllerRole.persisted(ticket)`."""

    ticket: int
    changes: tuple[tuple[str, str, str | None], ...]


ControllerAction = SendConfig | SendError | SendRevocations | Persist


class ControllerRole(Protocol):
    """A controller attached to a node. Sans-I/O; every call may leave actions, which the engine takes right afterwards."""

    def request(self, request: ConfigRequest, now: int) -> None:
        """Handle a request for a network whose id begins with this node's address."""
        ...

    def persisted(self, ticket: int, now: int) -> None:
        """The host committed the changes of `ticket`: replies that waited for it may leave."""
        ...

    def background(self, now: int) -> int:
        """Do what is due; returns the next time (ms) at which something will be due."""
        ...

    def take_actions(self) -> list[ControllerAction]: ...
