"""Two members of a network, each a service of its own, and where they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.service.running import RunningService, World, running_world


class Lab(NamedTuple):
    world: World
    root: RunningService
    a: RunningService
    b: RunningService
    network: str
    address: str  # of a, IPv4
    address6: str
    address_b: str


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """A root with a controller, and the members a and b of its network."""
    with running_world(folder, 2) as (world, root, (a, b)):
        network = world.make_network(root)
        address, address6 = world.join(root, a, network)
        address_b, _ = world.join(root, b, network)
        yield Lab(world, root, a, b, network, address, address6, address_b)
