"""Home folders for tests: ready identities, a private planet with its root on 127.0.0.1, settings that keep everything there."""

from __future__ import annotations

import json
import random
import socket
import time
from pathlib import Path
from typing import Any

from netcon.core.actions import Endpoint
from netcon.core.identity import Identity
from netcon.core.world import Root, World, make_planet

_FILE = Path(__file__).parents[1] / "data" / "identities.json"
IDENTITIES = [Identity.parse(text) for text in json.loads(_FILE.read_text())]
LOOPBACK = bytes((127, 0, 0, 1))
WORLD_KEY = bytes(range(64))


def free_port() -> int:
    """A port that is free for UDP and TCP on 127.0.0.1 right now."""
    while True:
        port = random.randrange(20000, 60000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def private_planet(root: Identity, port: int, ip: bytes = LOOPBACK) -> World:
    return make_planet(0x7E57, time.time_ns() // 1_000_000, [Root(root, (Endpoint(ip, port),))], WORLD_KEY)


def make_home(path: Path, identity: Identity, planet: World, *, port: int = 0, settings: dict[str, Any] | None = None) -> Path:
    """A home folder as its owner would prepare it."""
    path.mkdir(parents=True, mode=0o700)
    (path / "identity.secret").write_text(identity.to_text(secret=True))
    (path / "identity.secret").chmod(0o600)
    (path / "planet").write_bytes(planet.encode())
    local = {
        "primaryPort": port,
        "allowSecondaryPort": False,
        "allowLoopbackPaths": True,
        "bind": ["127.0.0.1"],
        **(settings or {}),
    }
    (path / "local.conf").write_text(json.dumps({"settings": local}))
    return path
