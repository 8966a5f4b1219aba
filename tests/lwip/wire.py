"""A virtual-time laboratory for stacks: a manual reactor with its clock, links, and an Ethernet end that is the test itself.

`Wire` implements `struct netcon_ethernet_end` (include/netcon/ethernet_port.h) in ctypes, from the header alone: what passes
through it is what any other part of netcon would see. Everything runs on the test's thread.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import lwip
from netcon.dataplane.reactor import Reactor

END_CAPSULE = b"netcon.ethernet_end"
BROADCAST = b"\xff" * 6
SECOND = 1_000_000


class Frame(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_uint32))


Deliver = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.POINTER(Frame), ctypes.c_size_t)
Resume = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Attach = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class End(ctypes.Structure):
    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("self", ctypes.c_void_p),
        ("deliver", Deliver),
        ("resume", Resume),
        ("attach", Attach),
    )


get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
get_pointer.restype = ctypes.c_void_p
get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def end_of(capsule: object) -> End:
    return End.from_address(get_pointer(capsule, END_CAPSULE))


def join(a: lwip.Stack, b: lwip.Stack) -> None:
    """A perfect cable between two stacks."""
    one, other = end_of(a.ethernet_end()), end_of(b.ethernet_end())
    one.attach(one.self, ctypes.addressof(other))
    other.attach(other.self, ctypes.addressof(one))


class Wire:
    """An end whose frames are kept for the test, `room` at a time, and whose own frames the test gives."""

    def __init__(self, stack: lwip.Stack, room: int = 1 << 30) -> None:
        self.frames: list[bytes] = []
        self.room = room
        self.resumed = 0
        self._stack = stack  # keeps the end's memory
        self._end = End(
            1, ctypes.sizeof(End), None, Deliver(self._deliver), Resume(self._resume), Attach(lambda _self, _peer: None)
        )
        self._peer = end_of(stack.ethernet_end())
        self._peer.attach(self._peer.self, ctypes.addressof(self._end))

    def _deliver(self, _self: int, frames: ctypes._Pointer[Frame], count: int) -> int:
        taken = min(count, self.room - len(self.frames))
        self.frames += [ctypes.string_at(frames[i].data, frames[i].length) for i in range(taken)]
        return taken

    def _resume(self, _self: int) -> None:
        self.resumed += 1

    def give(self, *frames: bytes) -> int:
        buffers = [ctypes.create_string_buffer(frame, len(frame)) for frame in frames]
        array = (Frame * len(frames))(
            *(Frame(ctypes.addressof(buffer), len(frame)) for buffer, frame in zip(buffers, frames, strict=True))
        )
        return int(self._peer.deliver(self._peer.self, array, len(frames)))

    def take(self) -> list[bytes]:
        """What has arrived; there is room again."""
        was_full = len(self.frames) >= self.room
        taken, self.frames = self.frames, []
        if was_full:
            self._peer.resume(self._peer.self)
        return taken


class Lab:
    """A manual reactor and virtual time."""

    def __init__(self) -> None:
        self.reactor = Reactor(manual=True)
        self.now = 0
        self.turns = 0
        self.stacks: list[lwip.Stack] = []

    def stack(self, number: int, *addresses: str, seed: int | None = None, mtu: int = 2800) -> lwip.Stack:
        stack = lwip.Stack(
            self.reactor.capsule(), mac=mac(number), mtu=mtu, name=f"stack {number}", seed=number if seed is None else seed
        )
        self.stacks.append(stack)
        for address in addresses:
            ip, prefix = address.split("/")
            stack.add_address(ip, int(prefix))
        return stack

    def pair(self, **options: int) -> tuple[lwip.Stack, lwip.Stack]:
        """Two stacks on a perfect cable."""
        a = self.stack(1, "10.1.0.1/24", "fd00::1/64", **options)
        b = self.stack(2, "10.1.0.2/24", "fd00::2/64", **options)
        join(a, b)
        return a, b

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Turn the reactor from timer to timer until `until()` or for `seconds` of virtual time. Whether `until()` came true."""
        end = self.now + int(seconds * SECOND)
        while True:
            deadline = self.reactor.turn(self.now)
            self.turns += 1
            if until():
                return True
            if deadline is None or deadline >= end:
                break
            self.now = max(deadline, self.now)
        self.now = end
        self.reactor.turn(end)
        return bool(until())

    def close(self) -> None:
        for stack in self.stacks:
            stack.close()
        self.reactor.turn(self.now)
        self.reactor.stop()


def mac(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, number))


# ---- frames by hand ----


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_request(sender_mac: bytes, sender: str, target: str) -> bytes:
    body = (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + sender_mac + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    )
    return BROADCAST + sender_mac + b"\x08\x06" + body


def arp_reply(sender_mac: bytes, sender: str, target_mac: bytes, target: str) -> bytes:
    body = (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
        + sender_mac
        + IPv4Address(sender).packed
        + target_mac
        + IPv4Address(target).packed
    )
    return target_mac + sender_mac + b"\x08\x06" + body


def ip4(source_mac: bytes, target_mac: bytes, source: str, target: str, protocol: int, payload: bytes) -> bytes:
    header = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
        + IPv4Address(source).packed
        + IPv4Address(target).packed
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return target_mac + source_mac + b"\x08\x00" + header + payload


SYN, RST, ACK = 2, 4, 16


def tcp4(
    source: str,
    target: str,
    ports: tuple[int, int],
    sequence: int,
    acknowledged: int,
    flags: int,
    data: bytes = b"",
    options: bytes = b"",
) -> bytes:
    """A segment for `ip4`; `options` in whole words."""
    offset = (5 + len(options) // 4) << 4
    segment = struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, offset, flags, 65535, 0, 0)
    segment += options + data
    pseudo = IPv4Address(source).packed + IPv4Address(target).packed + struct.pack("!HH", 6, len(segment))
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def ip6(source_mac: bytes, target_mac: bytes, source: str, target: str, protocol: int, payload: bytes, hops: int = 255) -> bytes:
    """With an ICMPv6 checksum filled in at offset 2 of the payload."""
    addresses = IPv6Address(source).packed + IPv6Address(target).packed
    if protocol == 58:
        pseudo = addresses + struct.pack("!II", len(payload), protocol)
        payload = payload[:2] + struct.pack("!H", checksum(pseudo + payload)) + payload[4:]
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + addresses
    return target_mac + source_mac + b"\x86\xdd" + header + payload


def echo4(sequence: int, data: bytes) -> bytes:
    message = struct.pack("!BBHHH", 8, 0, 0, 7, sequence) + data
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def neighbour_solicitation(source_mac: bytes, source: str, target: str) -> bytes:
    wanted = IPv6Address(target).packed
    group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + wanted[13:])
    body = struct.pack("!BBHI", 135, 0, 0, 0) + wanted + b"\x01\x01" + source_mac
    return ip6(source_mac, b"\x33\x33" + group.packed[12:], source, str(group), 58, body)


def ethertype(frame: bytes) -> int:
    return int.from_bytes(frame[12:14], "big")


def arp_targets(frames: list[bytes]) -> list[str]:
    """The addresses that ARP requests ask for (gratuitous ones left out)."""
    asked = [frame for frame in frames if ethertype(frame) == 0x0806 and frame[20:22] == b"\0\1" and frame[28:32] != frame[38:42]]
    return [str(IPv4Address(frame[38:42])) for frame in asked]


def solicited(frames: list[bytes]) -> list[str]:
    """The addresses that neighbour solicitations ask for."""
    return [
        str(IPv6Address(frame[62:78]))
        for frame in frames
        if ethertype(frame) == 0x86DD and len(frame) >= 78 and frame[20] == 58 and frame[54] == 135
    ]
