"""A strict reader of the pcapng files that netcon writes (draft-ietf-opsawg-pcapng), for tests: is it well-formed?"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

INBOUND, OUTBOUND = 1, 2


@dataclass
class Packet:
    time_ns: int
    data: bytes
    length: int
    direction: int
    dropped: int


@dataclass
class Capture:
    application: str = ""
    interface: str = ""
    snaplen: int = 0
    packets: list[Packet] = field(default_factory=list)
    statistics: dict[int, int] | None = None

    @property
    def frames(self) -> list[bytes]:
        return [packet.data for packet in self.packets]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while True:
        code, length = struct.unpack_from("=HH", data)
        if code == 0:
            assert (length, data[4:]) == (0, b""), "the end of the options is the end of the block"
            return found
        assert code not in found
        found[code] = data[4 : 4 + length]
        assert not any(data[4 + length : 4 + (length + 3 & ~3)]), "padding is zero"
        data = data[4 + (length + 3 & ~3) :]


def parse(data: bytes) -> Capture:
    """AssertionError, struct.error: not well-formed."""
    capture = Capture()
    first = True
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert 12 <= length <= len(data), "a block that is cut off"
        assert struct.unpack_from("=I", data, length - 4)[0] == length
        body, data = data[8 : length - 4], data[length:]
        assert (kind == 0x0A0D0D0A) == first
        assert capture.statistics is None, "a block behind the statistics"
        if first:
            assert struct.unpack_from("=IHHQ", body) == (0x1A2B3C4D, 1, 0, (1 << 64) - 1)
            capture.application = options(body[16:])[4].decode()
        elif kind == 1:
            link, reserved, capture.snaplen = struct.unpack_from("=HHI", body)
            assert (link, reserved, capture.interface) == (1, 0, "")
            found = options(body[8:])
            assert found[9] == b"\x09"
            capture.interface = found[2].decode()
        elif kind == 6:
            interface, high, low, kept, whole = struct.unpack_from("=IIIII", body)
            assert interface == 0
            assert kept == min(whole, capture.snaplen)
            found = options(body[20 + (kept + 3 & ~3) :])
            dropped = struct.unpack("=Q", found[4])[0] if 4 in found else 0
            time = high << 32 | low
            capture.packets.append(Packet(time, body[20 : 20 + kept], whole, struct.unpack("=I", found[2])[0], dropped))
        else:
            assert kind == 5
            found = options(body[12:])
            capture.statistics = {code: struct.unpack("=Q", found[code])[0] for code in (4, 6, 7, 8)}
            assert struct.unpack("=II", found[2]) <= struct.unpack("=II", found[3])
        first = False
    return capture
