"""What a host may choose about a node when it makes one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class NodeSettings:
    """Fixed for the life of a `Node`.

    `allow_loopback_paths`: learn 127.0.0.0/8 and ::1 as paths, which the protocol itself never does (vl1 §1.5); for the
    embedded demo and tests. `version`: software version announced in HELLO; 1.x.y with x of 4 or more is the safe choice
    (vl1 §1.4). `identity_gate_ms`: one memory-hard identity check per source prefix in this time (vl1 §4.3). `mtu`: largest UDP
    payload sent in one piece (vl1 §1.2). `compress`: try LZ4 on the verbs of vl1 §3.5.
    """

    allow_loopback_paths: bool = False
    version: tuple[int, int, int] = (1, 14, 1)
    identity_gate_ms: int = 2_000
    mtu: int = 1_432
    compress: bool = True
