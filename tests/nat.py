"""NAT boxes for the simulator, and how often two members behind them find a direct path.

    python -m tests.nat 20        # the table of the shares of direct paths per pair of kinds, for 20 seeds

The kinds are those of RFC 3489: they differ in whether a public port belongs to one inside socket (cone) or to one pair of inside
socket and remote (symmetric), and in who may send to it.
"""

from __future__ import annotations

import random
import sys
from enum import Enum
from itertools import combinations_with_replacement

from netcon.core.actions import Endpoint
from tests.simulator import IDENTITIES, Fabric, SimNode, SimpleController, planet_of

#: A public port is given up when nothing went out through it for this long, ms: RFC 4787 wants two minutes at least, many boxes
#: have less.
MAPPING_MS = 60_000
#: How long two members exchange frames before the table looks at their paths, ms.
PATIENCE_MS = 75_000


class Kind(Enum):
    OPEN = "no NAT"
    FULL_CONE = "full cone"
    ADDRESS_RESTRICTED = "address restricted"
    PORT_RESTRICTED = "port restricted"
    SYMMETRIC = "symmetric"


class _Mapping:
    """One public port: whom it belongs to, when it was last used outbound, and whom a datagram was sent to."""

    def __init__(self, inside: Endpoint, key: object) -> None:
        self.inside = inside
        self.key = key
        self.last_out = 0
        self.contacted: set[Endpoint] = set()


class Nat:
    """A NAT box with one public address. Ports are drawn from `generator`, so that nobody can guess them."""

    def __init__(self, kind: Kind, public: bytes, generator: random.Random) -> None:
        self.kind = kind
        self.public = public
        self.refused = 0
        self._random = generator
        self._ports: dict[object, int] = {}
        self._mappings: dict[int, _Mapping] = {}

    def outbound(self, inside: Endpoint, remote: Endpoint, now: int) -> Endpoint:
        key = (inside, remote) if self.kind is Kind.SYMMETRIC else inside
        port = self._ports.get(key)
        if port is None or now - self._mappings[port].last_out >= MAPPING_MS:
            if port is not None:
                del self._mappings[port]
            port = self._free_port()
            self._ports[key] = port
            self._mappings[port] = _Mapping(inside, key)
        mapping = self._mappings[port]
        mapping.last_out = now
        mapping.contacted.add(remote)
        return Endpoint(self.public, port)

    def _free_port(self) -> int:
        while (port := self._random.randrange(1024, 65536)) in self._mappings:
            pass
        return port

    def inbound(self, public: Endpoint, source: Endpoint, now: int) -> Endpoint | None:
        mapping = self._mappings.get(public.port)
        if mapping is None or now - mapping.last_out >= MAPPING_MS or not self._admits(mapping, source):
            self.refused += 1
            return None
        return mapping.inside

    def _admits(self, mapping: _Mapping, source: Endpoint) -> bool:
        match self.kind:
            case Kind.FULL_CONE:
                return True
            case Kind.ADDRESS_RESTRICTED:
                return any(remote.ip == source.ip for remote in mapping.contacted)
            case _:
                return source in mapping.contacted

    def restart(self) -> None:
        """All mappings are lost, as when the box is switched off and on."""
        self._ports.clear()
        self._mappings.clear()


class NatLab:
    """A root that is the controller as well, at a public address, and members behind NAT boxes of these kinds."""

    def __init__(self, *kinds: Kind, seed: int = 1, together: bool = False, **fabric: object) -> None:
        """`together`: all members are behind one box, of the first kind."""
        self.fabric = Fabric(seed, **fabric)  # type: ignore[arg-type]
        generator = random.Random(f"nat {seed}")
        endpoint = Endpoint(bytes((44, 0, 0, 1)), 9993)
        self.planet = planet_of([(IDENTITIES[0], endpoint)])
        self.control = SimpleController(IDENTITIES[0])
        self.control.everybody = True
        self.network = self.control.network
        self.root = SimNode(self.fabric, IDENTITIES[0], endpoint, self.planet, self.control)
        self.nats: list[Nat | None] = []
        self.members: list[SimNode] = []
        for number, kind in enumerate(kinds, 1):
            nat = self.nats[0] if together and self.nats else self._box(kind, number, generator)
            self.nats.append(nat)
            inside = bytes((44, number, 0, 1)) if nat is None else bytes((192, 168, 1 if together else number, 1 + number))
            self.members.append(SimNode(self.fabric, IDENTITIES[number], Endpoint(inside, 9993), self.planet, nat=nat))

    def _box(self, kind: Kind, number: int, generator: random.Random) -> Nat | None:
        if kind is Kind.OPEN:
            return None
        public = bytes((44, 100, number, 1))
        nat = self.fabric.nats[public] = Nat(kind, public, generator)
        return nat

    def join_all(self) -> None:
        for member in self.members:
            member.join(self.network)
        self.fabric.run_until(lambda: all(member.status(self.network) == "OK" for member in self.members))
        self.fabric.run(1_000)

    def talk(self, duration: int, period: int = 500) -> int:
        """The first two members exchange frames for so many ms; returns how many arrived of those sent."""
        a, b = self.members[:2]
        arrived = 0
        for _ in range(duration // period):
            a.send_frame(self.network, b.mac(self.network), 0x0800, b"ping" * 16)
            b.send_frame(self.network, a.mac(self.network), 0x0800, b"pong" * 16)
            self.fabric.run(period)
            arrived += len(a.take_frames()) + len(b.take_frames())
        return arrived

    def direct(self) -> bool:
        a, b = self.members[:2]
        return a.direct(b) and b.direct(a)


def share(one: Kind, other: Kind, seeds: range, **fabric: object) -> float:
    """The share of seeds with which two members behind such boxes have a direct path both ways after a while."""
    found = 0
    for seed in seeds:
        lab = NatLab(one, other, seed=seed, **fabric)
        lab.join_all()
        lab.talk(PATIENCE_MS)
        found += lab.direct()
    return found / len(seeds)


def table(seeds: range, **fabric: object) -> dict[tuple[Kind, Kind], float]:
    return {(one, other): share(one, other, seeds, **fabric) for one, other in combinations_with_replacement(Kind, 2)}


def main(count: int) -> None:
    shares = table(range(1, count + 1), loss=0.02)
    width = max(len(kind.value) for kind in Kind) + 2
    print(" " * width + "".join(kind.value.rjust(width) for kind in Kind))
    for one in Kind:
        cells = (shares.get((one, other), shares.get((other, one), 0.0)) for other in Kind)
        print(one.value.ljust(width) + "".join(f"{cell:.0%}".rjust(width) for cell in cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
