"""What the engine asks its host to do. `Node.take_actions()` returns them in the order in which they must happen.

The two of which there is one for every packet are tuples, which cost a third of a frozen dataclass to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from netcon.core.address import Endpoint as Endpoint
from netcon.core.identity import Identity

#: Socket number that means "a copy from every bound socket" (vl1 §5.13).
ALL_SOCKETS = -1


class SendDatagram(NamedTuple):
    """Send one UDP datagram from local socket `socket` (a number of the host's, or `ALL_SOCKETS`). `ttl` 0 is the default."""

    socket: int
    remote: Endpoint
    data: bytes
    ttl: int = 0


class DeliverFrame(NamedTuple):
    """Hand an Ethernet frame to the ports of a joined network. MACs are 6 bytes; `payload` follows the EtherType."""

    network: int
    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes


@dataclass(slots=True, frozen=True)
class ValidateIdentity:
    """Run the memory-hard check (vl1 §2.2) of `identity` off-thread, then call `Node.identity_validated`."""

    identity: Identity


class StateKind(Enum):
    """Objects of the home folder that the engine owns (vl1 §7, §8.1)."""

    PLANET = "planet"
    MOON = "moon"
    PEER = "peer"
    NETWORK = "network"
    #: The address of the node that is to be asked for a moon (10 digits), until the moon has come.
    MOON_SEED = "moon_seed"
    #: The secret that a network is joined by, until its controller let us in: for the owner's eyes only.
    JOIN_TOKEN = "join_token"


@dataclass(slots=True, frozen=True)
class StoreState:
    """Write `data` as the object (`kind`, `key`) of the home folder; `None` deletes it. `key`: world id, address or network id."""

    kind: StateKind
    key: int
    data: bytes | None


@dataclass(slots=True, frozen=True)
class ConfigureNetwork:
    """A network's configuration or status changed: read `Node.network(network)` and set up its port and stack again."""

    network: int


@dataclass(slots=True, frozen=True)
class NodeEvent:
    """Something a person or another part may want to know. `name` is one of: online, offline, identity_collision, user_message,
    remote_trace and trace (`data` is a dictionary, vl2 §6.8), path_learned (the first direct path). `peer` is the address
    concerned or 0."""

    name: str
    peer: int = 0
    data: bytes = b""


@dataclass(slots=True, frozen=True)
class PersistRecords:
    """Commit controller records in one transaction, then call `Node.records_persisted(ticket)`. Replies that depend on them leave
    only afterwards. `changes`: (table, key, JSON text or None to delete)."""

    ticket: int
    changes: tuple[tuple[str, str, str | None], ...]


Action = SendDatagram | DeliverFrame | ValidateIdentity | StoreState | ConfigureNetwork | NodeEvent | PersistRecords
