"""Good inputs to begin from, taken from the golden vectors (tests/vectors) and from what our own encoders write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"
BODY = 28  # of a packet (vl1 §3.1)


@cache
def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def strings(source: object, *keys: str) -> Iterator[str]:
    """Every string under one of these keys, at any depth."""
    if isinstance(source, dict):
        for key, value in source.items():
            if key in keys and isinstance(value, str):
                yield value
            else:
                yield from strings(value, *keys)
    elif isinstance(source, list):
        for value in source:
            yield from strings(value, *keys)


def hexes(source: object, *keys: str) -> list[bytes]:
    """The same, of hexadecimal text; each once."""
    found = dict.fromkeys(strings(source, *keys))
    return [bytes.fromhex(text) for text in found if len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)]


@cache
def packets() -> tuple[bytes, ...]:
    """Whole packets in clear: header, verb, body."""
    return tuple(hexes([vectors("verbs"), vectors("session_join")], "plaintext"))


@cache
def datagrams() -> tuple[bytes, ...]:
    """As they were on the wire."""
    found = hexes([vectors("session_join"), vectors("packet_armor")], "raw", "armored")
    for source in (vectors("verbs")["captured"], vectors("verbs")["malformed"], vectors("packet_armor")["fragmentation"]):
        found += [bytes.fromhex(text) for case in source for text in case["datagrams"]]
    return tuple(found)


@cache
def frames() -> tuple[bytes, ...]:
    """Ethernet payloads, headed by their EtherType."""
    return tuple(case["ethertype"].to_bytes(2) + bytes.fromhex(case["frame"]) for case in vectors("rules_eval")["cases"])


@cache
def credentials() -> tuple[bytes, ...]:
    source = vectors("netconf")["credentials"]
    found = hexes(source, "bytes")
    found += [body[BODY + 1 :] for body in packets() if len(body) > BODY and body[27] & 31 == 10]
    return tuple(found)


@cache
def secret() -> str:
    """An identity with its secret, as in identity.secret."""
    text: str = vectors("session_join")["nodes"][0]["secret"]
    return text
