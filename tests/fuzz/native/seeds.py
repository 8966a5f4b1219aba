"""Inputs that the native targets begin with, in the forms that they read."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz import corpus
from tests.fuzz.corpus import hexes, vectors


def _frames() -> Iterable[bytes]:
    """Records: how (1 repairs checksums, 2 addresses, 4 and 8 answer what was sent), length, frame."""
    head = bytes(12)
    for frame in corpus.frames()[:60]:
        data = head + frame
        yield b"\x13" + len(data).to_bytes(2) + data
    ip = bytes.fromhex("4500002800010000400600000a0100020a010001")
    ports, numbers = (4000).to_bytes(2) + (80).to_bytes(2), (7).to_bytes(4) + bytes(4)
    steps = b""
    for flags, payload in ((0x02, b""), (0x10, b""), (0x18, b"request of the peer"), (0x11, b"")):
        numbers = (7 if flags == 2 else 8).to_bytes(4) + bytes(4)
        data = head + b"\x08\x00" + ip + ports + numbers + bytes((0x50, flags)) + b"\xff\xff\0\0\0\0" + payload
        steps += b"\x17" + len(data).to_bytes(2) + data
        yield steps
    arp = bytes.fromhex("080600010800060400010200000000020a0100020000000000000a010001")
    data = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + arp
    yield b"\x10" + len(data).to_bytes(2) + data


def _requests() -> Iterable[bytes]:
    """Sockets are made (0), then asked about (5, form, which, four args, length, data)."""
    address = bytes.fromhex("0200500000000000000000000a010001") + bytes(12)
    for operation in range(1, 17):
        for made in (b"\x00", b"\x08", b"\x20", b"\x28"):
            yield made + bytes((5, operation, 0x80)) + bytes(8) + len(address).to_bytes(2) + address
    listen = bytes((5, 3, 0x80)) + bytes(8) + b"\0\x1c" + address + bytes((5, 4, 0x80, 0, 5)) + bytes(8)
    yield b"\x00" + listen + b"\x03\x02"


def of(name: str) -> list[bytes]:
    match name:
        case "armour":
            return hexes(vectors("packet_armor"), "armored")
        case "intercept":
            return [bytes((kind, how)) + bytes(size) for kind in range(4) for how in (0, 3, 130) for size in (0, 24, 28, 64)]
        case "rpc":
            return list(_requests())
        case _:
            return list(_frames())
