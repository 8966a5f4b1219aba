"""Options whose effect is on the wire or in time, with the test itself as the peer: keep-alive, TCP_USER_TIMEOUT, TCP_SYNCNT, the
fields of packets, segment sizes, SO_LINGER, and what TCP_INFO says of it all."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lwip.rpc_client import ProgramSocket
from tests.lwip.service import HERE
from tests.lwip.test_rpc_time import PEER, PEER_MAC, PORT, Host, errno_of_failure
from tests.lwip.wire import ACK, RST, SYN, arp_reply, mac

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP
ESTABLISHED = 1
SIOCOUTQ, SIOCOUTQNSD = 0x5411, 0x894B


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def connection(host: Host, *options: tuple[int, int, int | bytes]) -> tuple[ProgramSocket, int, int]:
    """Accepted by a listener with these options."""

    def prepare(listener: ProgramSocket) -> None:
        for level, name, value in options:
            listener.setsockopt(level, name, value)

    return host.accepted(prepare=prepare)


def error_of(host: Host, sock: ProgramSocket) -> int:
    """What getsockopt(SO_ERROR) asks the service when the kernel says ECONNRESET."""
    assert sock.p.getsockopt(SOL, socket.SO_ERROR) == errno.ECONNRESET
    return host.during(lambda: sock.getsockopt_int(SOL, socket.SO_ERROR))


def ended(host: Host) -> bool:
    return host.count("connections") == 0


KEEPALIVE = (
    (SOL, socket.SO_KEEPALIVE, 1),
    (TCP, socket.TCP_KEEPIDLE, 10),
    (TCP, socket.TCP_KEEPINTVL, 5),
    (TCP, socket.TCP_KEEPCNT, 3),
)


def test_keep_alive_ends_a_silent_connection_with_etimedout(host: Host) -> None:
    sock, _, first = connection(host, *KEEPALIVE)
    host.wire.take()
    assert not host.run(24.5, until=lambda: ended(host))
    probes = host.segments()
    assert [(probe.sequence, probe.data) for probe in probes] == [(first - 1, b"")] * 3
    assert host.run(1, until=lambda: ended(host))
    assert [segment.flags & RST for segment in host.segments()] == [RST]
    assert error_of(host, sock) == errno.ETIMEDOUT
    with pytest.raises(OSError) as caught:  # it is told once
        host.during(lambda: sock.getsockopt_int(SOL, socket.SO_ERROR))
    assert caught.value.errno == errno.EBADF
    sock.close()


def test_keep_alive_is_satisfied_by_an_answer(host: Host) -> None:
    sock, port, first = connection(host, *KEEPALIVE)
    for _ in range(5):
        assert not host.run(12, until=lambda: ended(host))
        assert len(host.segments()) == 1
        host.give(PORT, port, sequence=1001, acknowledged=first)
    sock.close()
    host.run(61)


def test_keep_alive_waits_while_data_is_in_flight(host: Host) -> None:
    sock, _, _ = connection(host, *KEEPALIVE)
    host.during(lambda: sock.p.sendall(b"not acknowledged"))
    assert not host.run(60, until=lambda: ended(host))
    assert all(segment.data for segment in host.segments()), "retransmissions, no probes"
    sock.close()
    host.run(61)


@pytest.mark.parametrize("timeout_ms", [300, 5000, 60_000])
def test_user_timeout_ends_a_connection_that_does_not_answer(host: Host, timeout_ms: int) -> None:
    sock, _, _ = connection(host, (TCP, socket.TCP_USER_TIMEOUT, timeout_ms))
    assert not host.run(100, until=lambda: ended(host)), "silence alone is no matter"
    host.during(lambda: sock.p.sendall(b"not acknowledged"))
    assert not host.run(timeout_ms / 1000 - 0.1, until=lambda: ended(host))
    assert host.run(1.2, until=lambda: ended(host))
    assert error_of(host, sock) == errno.ETIMEDOUT
    sock.close()


def test_user_timeout_takes_the_place_of_the_number_of_probes(host: Host) -> None:
    sock, _, _ = connection(host, *KEEPALIVE, (TCP, socket.TCP_USER_TIMEOUT, 13_000))
    assert not host.run(14.5, until=lambda: ended(host))
    assert host.run(1, until=lambda: ended(host))
    assert error_of(host, sock) == errno.ETIMEDOUT
    sock.close()


def test_retransmission_gives_up_as_late_as_linux_with_etimedout(host: Host) -> None:
    sock, _, _ = connection(host)
    host.during(lambda: sock.p.sendall(b"not acknowledged"))
    assert not host.run(900, until=lambda: ended(host))
    assert host.run(300, until=lambda: ended(host))
    assert error_of(host, sock) == errno.ETIMEDOUT
    sock.close()


def connecting(host: Host, *options: tuple[int, int, int]) -> ProgramSocket:
    """To the peer, whose MAC is known; its SYN has left."""
    sock = host.during(host.program.socket)
    for option in options:
        host.during(partial(sock.setsockopt, *option))
    with pytest.raises(BlockingIOError):
        host.during(lambda: sock.start_connect(PEER, 80))
    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    host.reactor.turn(host.now)
    return sock


@pytest.mark.parametrize(("count", "seconds"), [(1, 3), (2, 7), (4, 31), (7, 127 + 120)])
def test_syncnt_is_how_often_a_syn_is_repeated(host: Host, count: int, seconds: int) -> None:
    sock = connecting(host, (TCP, socket.TCP_SYNCNT, count))
    assert not host.run(seconds - 0.5, until=lambda: host.count("connecting") == 0)
    assert len(host.segments()) == 1 + count
    assert host.run(2, until=lambda: host.count("connecting") == 0)
    assert errno_of_failure(host, sock) == errno.ETIMEDOUT


def test_user_timeout_ends_a_connect(host: Host) -> None:
    sock = connecting(host, (TCP, socket.TCP_USER_TIMEOUT, 5000))
    assert not host.run(4.8, until=lambda: host.count("connecting") == 0)
    assert host.run(1, until=lambda: host.count("connecting") == 0)
    assert errno_of_failure(host, sock) == errno.ETIMEDOUT


def test_tos_and_ttl_are_in_the_packets(host: Host) -> None:
    sock = connecting(host, (IP, socket.IP_TOS, 0x28), (IP, socket.IP_TTL, 7))
    assert [(segment.flags, segment.tos, segment.ttl) for segment in host.segments()] == [(SYN, 0x28, 7)]
    sock.close()
    sock, _, _ = connection(host)
    host.wire.take()
    host.during(lambda: sock.setsockopt(IP, socket.IP_TOS, 0x10))
    host.during(lambda: sock.setsockopt(IP, socket.IP_TTL, 33))
    host.during(lambda: sock.p.sendall(b"x"))
    assert [(segment.data, segment.tos, segment.ttl) for segment in host.segments()] == [(b"x", 0x10, 33)]
    sock.close()
    host.run(61)


def test_maxseg_bounds_what_is_announced_and_what_is_sent(host: Host) -> None:
    sock = connecting(host, (TCP, socket.TCP_MAXSEG, 700))
    (syn,) = host.segments()
    assert syn.options[:4] == struct.pack("!BBH", 2, 4, 700)
    options = struct.pack("!BBH", 2, 4, 1400)
    host.give(80, syn.ports[0], sequence=5000, acknowledged=syn.sequence + 1, flags=SYN | ACK, options=options)
    host.during(sock.finish_connect)
    host.wire.take()
    host.during(lambda: sock.p.sendall(bytes(3000)))
    assert {len(segment.data) for segment in host.segments()} <= {700}
    assert host.during(lambda: sock.getsockopt_int(TCP, socket.TCP_MAXSEG)) == 700
    sock.close()
    host.run(61)


def test_a_listener_announces_its_maxseg(host: Host) -> None:
    listener = host.during(lambda: host.program.socket())
    host.during(lambda: listener.setsockopt(TCP, socket.TCP_MAXSEG, 600))
    host.during(lambda: listener.bind(HERE, 8080))
    host.during(listener.listen)
    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    host.give(PORT, 8080, sequence=1, flags=SYN)
    (answer,) = [segment for segment in host.segments() if segment.flags & SYN]
    assert answer.options[:4] == struct.pack("!BBH", 2, 4, 600)
    listener.close()
    host.run(61)


def test_linger_of_no_seconds_makes_close_a_reset(host: Host) -> None:
    sock, _, _ = connection(host, (SOL, socket.SO_LINGER, struct.pack("=ii", 1, 0)))
    host.during(lambda: sock.p.sendall(b"x"))
    host.wire.take()
    host.during(sock.close)
    assert [bool(segment.flags & RST) for segment in host.segments()] == [True]
    assert host.count("sockets") == 0


def figures(host: Host, sock: ProgramSocket, length: int = 248) -> dict[str, int]:
    """struct tcp_info, as far as linux/tcp.h of today has it."""
    data = host.during(lambda: sock.getsockopt(TCP, socket.TCP_INFO, length))
    words = [
        *("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets"),
        *("last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt", "rttvar"),
        *("snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space", "total_retrans"),
    ]
    longs = ["pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received"]
    more = ["segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out"]
    found = dict(zip(("state", "ca_state", "retransmits", "probes", "backoff", "options"), data[:6], strict=True))
    found |= dict(zip(words, struct.unpack_from("=24I", data, 8), strict=True))
    found |= dict(zip(longs, struct.unpack_from("=4Q", data, 104), strict=True))
    found |= dict(zip(more, struct.unpack_from("=6I", data, 136), strict=True))
    found |= dict(zip(("bytes_sent", "bytes_retrans"), struct.unpack_from("=2Q", data, 200), strict=True))
    return found


def test_tcp_info_says_what_happened(host: Host) -> None:
    host.run(1)
    sock, port, first = connection(host, (TCP, socket.TCP_NODELAY, 1))
    host.wire.take()
    before = figures(host, sock)
    assert before["state"] == ESTABLISHED
    assert (before["segs_in"], before["bytes_received"], before["bytes_acked"], before["data_segs_out"]) == (0, 0, 0, 0)

    host.give(PORT, port, sequence=1001, acknowledged=first, data=bytes(100))
    host.during(lambda: sock.p.sendall(bytes(1000)))
    sent = host.segments()
    seen = figures(host, sock)
    assert (seen["segs_in"], seen["data_segs_in"], seen["bytes_received"]) == (1, 1, 100)
    assert (seen["data_segs_out"], seen["bytes_sent"], seen["unacked"]) == (2, 1000, 2)
    assert seen["segs_out"] == len(sent)
    assert seen["snd_mss"] == 536

    host.run(8)  # retransmissions
    again = [segment for segment in host.segments() if segment.data]
    seen = figures(host, sock)
    assert seen["total_retrans"] == len(again) > 0
    assert seen["bytes_retrans"] == sum(len(segment.data) for segment in again)
    assert seen["retransmits"] > 0
    assert seen["last_data_recv"] == 8000

    host.give(PORT, port, sequence=1101, acknowledged=first + 1000)
    seen = figures(host, sock)
    assert (seen["unacked"], seen["bytes_acked"], seen["retransmits"]) == (0, 1000, 0)
    assert seen["last_ack_recv"] == 0
    sock.close()
    host.run(61)


def test_tcp_info_is_cut_to_the_length_that_was_asked(host: Host) -> None:
    sock, _, _ = connection(host)
    whole = host.during(lambda: sock.getsockopt(TCP, socket.TCP_INFO, 500))
    assert len(whole) >= 232
    assert host.during(lambda: sock.getsockopt(TCP, socket.TCP_INFO, 104)) == whole[:104]
    sock.close()
    host.run(61)


def test_defer_accept_gives_a_silent_connection_after_its_time(host: Host) -> None:
    listener = host.during(host.program.socket)
    host.during(lambda: listener.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 3))
    host.during(lambda: listener.bind(HERE, 8080))
    host.during(listener.listen)
    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    for port in (PORT, PORT + 1, PORT + 2):
        host.give(port, 8080, sequence=1000, flags=SYN)
        (answer,) = [segment for segment in host.segments() if segment.flags & SYN]
        host.give(port, 8080, sequence=1001, acknowledged=answer.sequence + 1)
    listener.p.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    host.give(PORT + 2, 8080, sequence=1001, acknowledged=answer.sequence + 1, flags=RST)
    assert host.count("pending") == 2, "one was reset before anybody saw it"
    assert not host.run(2.9, until=lambda: host.count("pending") == 0)
    assert host.run(1, until=lambda: host.count("pending") == 0)
    accepted = [listener.accept() for _ in range(2)]
    assert [peer[1] for _, peer in accepted] == [PORT, PORT + 1]
    for sock, _ in accepted:
        sock.close()
    listener.close()
    host.run(61)


def test_what_is_deferred_goes_with_its_listener(host: Host) -> None:
    listener = host.during(host.program.socket)
    host.during(lambda: listener.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 3))
    host.during(lambda: listener.bind(HERE, 8080))
    host.during(listener.listen)
    host.wire.give(arp_reply(PEER_MAC, PEER, mac(1), HERE))
    host.give(PORT, 8080, sequence=1000, flags=SYN)
    (answer,) = [segment for segment in host.segments() if segment.flags & SYN]
    host.give(PORT, 8080, sequence=1001, acknowledged=answer.sequence + 1)
    assert host.count("pending") == 1
    host.during(listener.close)
    assert host.count("sockets") == 0
    assert any(segment.flags & RST for segment in host.segments())
    host.run(5)


def test_siocoutq_is_what_the_peer_has_not_acknowledged(host: Host) -> None:
    sock, port, first = connection(host, (TCP, socket.TCP_NODELAY, 1))
    host.during(lambda: sock.p.sendall(bytes(1000)))
    seen = [host.during(partial(sock.ioctl, request)) for request in (SIOCOUTQ, SIOCOUTQNSD)]
    host.give(PORT, port, sequence=1001, acknowledged=first + 536)
    seen.append(host.during(lambda: sock.ioctl(SIOCOUTQ)))
    host.give(PORT, port, sequence=1001, acknowledged=first + 1000)
    seen.append(host.during(lambda: sock.ioctl(SIOCOUTQ)))
    assert seen == [1000, 0, 464, 0]
    sock.close()
    host.run(61)
