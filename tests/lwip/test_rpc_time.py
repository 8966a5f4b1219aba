"""What takes a socket seconds or minutes, in virtual time, with the test itself as the other host: connects that nobody answers,
connections that no program has any more, packets that wait for their neighbour."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

import lwip
from tests.lwip.rpc_client import Program, ProgramSocket
from tests.lwip.service import HERE, SERVICE_ID
from tests.lwip.wire import ACK, RST, SYN, Lab, Wire, arp_reply, arp_request, arp_targets, ethertype, ip4, mac, tcp4

PEER, PEER_MAC, PORT = "10.77.0.2", mac(2), 40000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Segment:
    ports: tuple[int, int]
    sequence: int
    acknowledged: int
    flags: int
    data: bytes
    window: int
    options: bytes
    tos: int
    ttl: int


def segment_of(frame: bytes) -> Segment | None:
    if ethertype(frame) != 0x0800 or frame[23] != 6:
        return None
    tcp = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
    numbers = [int.from_bytes(tcp[at : at + size], "big") for at, size in ((0, 2), (2, 2), (4, 4), (8, 4))]
    head = (tcp[12] >> 4) * 4
    window = int.from_bytes(tcp[14:16], "big")
    ports = (numbers[0], numbers[1])
    return Segment(ports, numbers[2], numbers[3], tcp[13], tcp[head:], window, tcp[20:head], frame[15], frame[22])


class Host(Lab):
    """A socket server with one stack; whatever else is on its network, the test plays."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="netcon-test-")
        self.server = lwip.SocketServer(self.reactor.capsule(), service=SERVICE_ID, epoch=1)
        stack = self.stack(1, f"{HERE}/24")
        self.wire = Wire(stack)
        self.server.add_network(1, stack)
        path = str(Path(self.folder.name) / "rpc")
        self.server.listen(path)
        self.program = self.during(lambda: Program(path))

    def during(self, call: Callable[[], T]) -> T:
        """What a program does: on a thread, while the reactor is turned; no virtual time passes."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(call)
            while not future.done():
                self.reactor.turn(self.now)
                wait([future], timeout=0.001)
            self.reactor.turn(self.now)
            return future.result()

    def count(self, name: str) -> int:
        return self.server.stats()[name]

    def segments(self) -> list[Segment]:
        return [segment for frame in self.wire.take() if (segment := segment_of(frame)) is not None]

    def frame(
        self, *ports: int, sequence: int, acknowledged: int = 0, flags: int = ACK, data: bytes = b"", options: bytes = b""
    ) -> bytes:
        segment = tcp4(PEER, HERE, (ports[0], ports[1]), sequence, acknowledged, flags, data, options)
        return ip4(PEER_MAC, mac(1), PEER, HERE, 6, segment)

    def give(
        self, *ports: int, sequence: int, acknowledged: int = 0, flags: int = ACK, data: bytes = b"", options: bytes = b""
    ) -> None:
        self.wire.give(self.frame(*ports, sequence=sequence, acknowledged=acknowledged, flags=flags, data=data, options=options))
        self.reactor.turn(self.now)

    def accepted(
        self, options: bytes = b"", prepare: Callable[[ProgramSocket], None] = lambda _: None
    ) -> tuple[ProgramSocket, int, int]:
        """A connection from the peer: the program's end, its port, and the stack's first sequence number. `options`: of the peer's
        SYN; `prepare` is done to the listener."""
        listener = self.during(lambda: self.program.listener(HERE))
        self.during(lambda: prepare(listener))
        port = self.during(listener.getsockname)[1]
        self.wire.give(arp_request(PEER_MAC, PEER, HERE))
        self.wire.take()
        self.give(PORT, port, sequence=1000, flags=SYN, options=options)
        (answer,) = self.segments()
        assert answer.flags & (SYN | ACK) == SYN | ACK
        self.give(PORT, port, sequence=1001, acknowledged=answer.sequence + 1)
        sock, _ = self.during(listener.accept)
        self.during(listener.close)
        return sock, port, answer.sequence + 1

    def close(self) -> None:
        self.during(self.program.close)
        self.server.close()
        super().close()
        self.folder.cleanup()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def start_connect(host: Host) -> ProgramSocket:
    sock = host.during(host.program.socket)
    with pytest.raises(BlockingIOError):
        host.during(lambda: sock.start_connect(PEER, 80))
    return sock


def errno_of_failure(host: Host, sock: ProgramSocket) -> int:
    with pytest.raises(OSError) as caught:
        host.during(sock.finish_connect)
    sock.close()
    return caught.value.errno


def test_a_host_that_is_not_there_is_unreachable_after_seconds(host: Host) -> None:
    sock = start_connect(host)
    assert not host.run(2, until=lambda: host.count("connecting") == 0)
    assert host.run(4, until=lambda: host.count("connecting") == 0)
    assert errno_of_failure(host, sock) == errno.EHOSTUNREACH


def test_a_host_that_is_there_but_does_not_answer_times_out_after_two_minutes(host: Host) -> None:
    sock = start_connect(host)
    assert arp_targets(host.wire.take()) == [PEER]
    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    assert not host.run(120, until=lambda: host.count("connecting") == 0)
    assert host.run(20, until=lambda: host.count("connecting") == 0)
    assert errno_of_failure(host, sock) == errno.ETIMEDOUT


def test_what_no_program_has_is_given_up_when_its_peer_acknowledges_nothing(host: Host) -> None:
    sock, _, _ = host.accepted()
    host.during(lambda: sock.p.sendall(b"never acknowledged"))
    host.during(sock.close)
    assert host.count("orphans") == 1
    assert host.run(61, until=lambda: host.count("sockets") == 0)
    assert host.count("chunks") == host.count("descriptors") == 0
    assert any(segment.flags & RST for segment in host.segments()), "the peer is told"


def test_what_no_program_has_is_kept_while_its_peer_acknowledges_something(host: Host) -> None:
    sock, port, first = host.accepted()
    host.during(lambda: sock.p.sendall(bytes(4 * 536)))  # four segments
    host.during(sock.close)
    for arrived in range(1, 5):
        assert not host.run(20, until=lambda: host.count("sockets") == 0)
        host.give(PORT, port, sequence=1001, acknowledged=first + arrived * 536)
    assert host.run(1, until=lambda: host.count("sockets") == 0)
    assert not any(segment.flags & RST for segment in host.segments()), "it ended in order"


def test_a_packet_that_waits_for_its_neighbour_keeps_its_own_bytes(host: Host) -> None:
    """A peer may acknowledge what has not been sent for want of its MAC; the bytes' memory is then another connection's."""
    sock, port, first = host.accepted()
    host.run(2)
    for other in range(3, 200):  # push the peer out of the table of neighbours
        host.wire.give(arp_request(mac(other), f"10.77.0.{other}", HERE))
    host.wire.take()
    host.during(lambda: sock.p.sendall(b"for the peer" * 40))
    assert PEER in arp_targets(host.wire.take())
    host.give(PORT, port, sequence=1001, acknowledged=first + 480)
    assert host.count("chunks") == 0, "it counts as sent"

    listener = host.during(lambda: host.program.listener(HERE))
    client = host.during(lambda: host.program.connected(HERE, listener.getsockname()[1]))
    host.during(lambda: client.p.sendall(b"for nobody else" * 50))

    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    host.run(0.1)
    sent = b"".join(segment.data for segment in host.segments())
    assert b"nobody else" not in sent
    assert sent == b"for the peer" * 40
    for open_socket in (client, listener, sock):
        open_socket.close()
    host.run(61)
