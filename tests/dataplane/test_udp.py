"""UDP sockets of the reactor and the rings behind them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

IP_RECVTTL, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_DONT = 12, 10, 23, 0  # linux/in.h, linux/in6.h

V4, V6 = socket.inet_aton("127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")


def receive_all(host, reactor, count, limit=256):
    """`count` datagrams, turning the reactor as long as it takes."""
    got = []

    def enough() -> bool:
        got.extend(reactor.receive(limit)[0])
        return len(got) >= count

    host.turn_until(reactor, enough)
    return got


@pytest.mark.parametrize(("ip", "packed"), [("127.0.0.1", V4), ("::1", V6)])
def test_datagrams_of_every_size_arrive_in_order_with_their_sender(host, ip, packed):
    reactor = host.reactor()
    (a, a_port), (b, b_port) = reactor.bind_udp(ip, 0), reactor.bind_udp(ip, 0)
    assert (a, b) == (1, 2)
    sizes = [0, 1, 27, 31, 32, 33, 1432, 1500, 2800, 4096, 10_000, 10_024]
    sent = [os.urandom(size) for size in sizes]
    assert reactor.send_datagrams([(a, (packed, b_port), data, 0) for data in sent]) == len(sent)
    assert receive_all(host, reactor, len(sent)) == [(b, (packed, a_port), data) for data in sent]
    assert reactor.stats()["datagrams_in"] == reactor.stats()["datagrams_out"] == len(sent)


def test_ten_thousand_datagrams_with_push_back_on_a_small_ring(host):
    """The receiver takes little at a time: the up ring fills, the socket is not read, the kernel keeps the rest."""
    reactor = host.reactor(ring=16)
    (a, _), (b, port) = reactor.bind_udp("127.0.0.1", 0), reactor.bind_udp("127.0.0.1", 0)
    total, got, sent = 10_000, [], 0
    while len(got) < total:
        if sent < total and sent - len(got) < 100:  # what the kernel's buffer surely holds
            batch = [(a, (V4, port), i.to_bytes(4, "big"), 0) for i in range(sent, min(sent + 50, total))]
            taken = reactor.send_datagrams(batch)
            assert taken <= 16
            sent += taken
        reactor.turn(0)
        got.extend(reactor.receive(5)[0])
    assert [int.from_bytes(data, "big") for _, _, data in got] == list(range(total))
    assert {number for number, _, _ in got} == {b}
    assert reactor.stats()["ring_full"] > 0


def test_ten_thousand_datagrams_through_a_thread(host):
    """Both planes at work: the engine's side sleeps on the descriptor alone."""
    reactor = host.reactor(manual=False, ring=64)
    (a, _), (_, port) = reactor.bind_udp("127.0.0.1", 0), reactor.bind_udp("127.0.0.1", 0)
    total, got, sent = 10_000, [], 0
    while len(got) < total:
        window = min(total, len(got) + 200)
        if sent < window:
            sent += reactor.send_datagrams([(a, (V4, port), i.to_bytes(4, "big"), 0) for i in range(sent, window)])
        if sent > len(got):
            host.wait_readable(reactor)
        got.extend(int.from_bytes(data, "big") for _, _, data in reactor.receive()[0])
    assert got == list(range(total))


def test_a_full_down_ring_takes_fewer_and_the_descriptor_fires_when_there_is_room(host):
    reactor = host.reactor(ring=8)
    (a, _), (_, port) = reactor.bind_udp("127.0.0.1", 0), reactor.bind_udp("127.0.0.1", 0)
    batch = [(a, (V4, port), bytes([i]), 0) for i in range(12)]
    assert reactor.send_datagrams(batch) == 8
    assert reactor.send_datagrams(batch[8:]) == 0
    assert not host.is_readable(reactor)
    host.turn_until(reactor, lambda: reactor.stats()["datagrams_out"] == 8)
    assert host.is_readable(reactor)
    got = receive_all(host, reactor, 8)
    assert reactor.send_datagrams(batch[8:]) == 4
    got += receive_all(host, reactor, 4)
    assert [data[0] for _, _, data in got] == list(range(12))


def test_the_descriptor_stays_readable_until_the_ring_is_empty(host):
    reactor = host.reactor()
    a, port = reactor.bind_udp("127.0.0.1", 0)
    assert not host.is_readable(reactor)
    reactor.send_datagrams([(a, (V4, port), b"x", 0)] * 3)
    host.turn_until(reactor, lambda: reactor.stats()["datagrams_in"] == 3)
    for left in (2, 1, 0):
        assert host.is_readable(reactor)
        assert len(reactor.receive(1)[0]) == 1
        assert host.is_readable(reactor) == (left > 0)
    assert reactor.receive() == ([], [])


def test_ttl_is_of_one_datagram_alone(host):
    reactor = host.reactor()
    a, _ = reactor.bind_udp("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        kernel.bind(("127.0.0.1", 0))
        kernel.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        kernel.settimeout(30)
        to = (V4, kernel.getsockname()[1])
        assert reactor.send_datagrams([(a, to, b"normal", 0), (a, to, b"near", 2), (a, to, b"normal", 0)]) == 3
        reactor.turn(0)
        ttls = []
        for _ in range(3):
            _, control, _, _ = kernel.recvmsg(100, 100)
            ttls.append(int.from_bytes(control[0][2][:4], "little"))
    assert ttls[1] == 2
    assert ttls[0] == ttls[2] > 2


@pytest.mark.parametrize(("ip", "packed"), [("127.0.0.1", V4), ("::1", V6)])
def test_a_closed_port_does_not_hurt_the_socket(host, ip, packed):
    reactor = host.reactor()
    (a, port), (b, closed) = reactor.bind_udp(ip, 0), reactor.bind_udp(ip, 0)
    reactor.close_udp(b)
    for _ in range(3):  # each answered by an ICMP error
        reactor.send_datagrams([(a, (packed, closed), b"nobody", 0)])
        reactor.turn(0)
    reactor.send_datagrams([(a, (packed, port), b"still here", 0)])
    assert receive_all(host, reactor, 1) == [(a, (packed, port), b"still here")]


def test_a_datagram_that_the_kernel_refuses_is_counted_and_the_next_one_leaves(host):
    reactor = host.reactor()
    a, port = reactor.bind_udp("127.0.0.1", 0)
    batch = [
        (a, (V4, port), b"before", 0),
        (a, (V6, port), b"wrong family", 0),
        (a, (V4, 0), b"no port", 0),
        (a, (V4, port), b"after", 0),
    ]
    assert reactor.send_datagrams(batch) == 4
    assert [data for _, _, data in receive_all(host, reactor, 2)] == [b"before", b"after"]
    assert reactor.stats()["send_errors"] == 2


@pytest.mark.parametrize("closed_socket", [False, True])
def test_all_sockets_send_a_copy_each_of_their_family(host, closed_socket):
    reactor = host.reactor()
    number = -1
    if closed_socket:
        number, _ = reactor.bind_udp("127.0.0.1", 0)
        reactor.close_udp(number)
    ports = {reactor.bind_udp("127.0.0.1", 0)[1] for _ in range(3)}
    reactor.bind_udp("::1", 0)
    target, port = reactor.bind_udp("127.0.0.1", 0)
    assert reactor.send_datagrams([(number, (V4, port), b"hello", 0)]) == 1
    got = receive_all(host, reactor, 4)
    assert {(to, data) for to, _, data in got} == {(target, b"hello")}
    assert {sender for _, (_, sender), _ in got} == ports | {port}
    assert reactor.stats()["send_errors"] == 0


def test_too_long_a_datagram_is_counted_and_dropped(host):
    reactor = host.reactor()
    a, port = reactor.bind_udp("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        kernel.sendto(bytes(10_101), ("127.0.0.1", port))
        kernel.sendto(bytes(10_100), ("127.0.0.1", port))
    (entry,) = receive_all(host, reactor, 1)
    assert (entry[0], len(entry[2])) == (a, 10_100)
    assert reactor.stats()["oversize"] == 1


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ((1, (V4, 1), bytes(10_101), 0), ValueError),
        ((1, (b"\1\2\3", 1), b"", 0), ValueError),
        ((1, (V4, 65_536), b"", 0), OverflowError),
        ((1, (V4, 1), b"", 256), OverflowError),
        ((1, (V4, 1), "text", 0), TypeError),
        ((1, (V4, 1), None, 0), TypeError),
        ((1, (None, 1), b"", 0), TypeError),
        ((1, (V4, 1), b""), ValueError),
    ],
)
def test_a_wrong_entry_is_an_error_and_nothing_of_its_batch_is_sent(host, entry, error):
    reactor = host.reactor()
    a, port = reactor.bind_udp("127.0.0.1", 0)
    with pytest.raises(error):
        reactor.send_datagrams([(a, (V4, port), b"good", 0), entry])
    reactor.turn(0)
    assert reactor.stats()["datagrams_out"] == 0
    reactor.send_datagrams([(a, (V4, port), b"next", 0)])
    assert [data for _, _, data in receive_all(host, reactor, 1)] == [b"next"]


def test_binding_what_cannot_be_bound_is_an_os_error(host):
    reactor = host.reactor()
    _, port = reactor.bind_udp("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        reactor.bind_udp("127.0.0.1", port)
    with pytest.raises(OSError):
        reactor.bind_udp("192.0.2.1", 0)
    with pytest.raises(OSError):
        reactor.bind_udp("not an address", 0)


def test_ipv4_and_ipv6_wildcards_share_a_port(host):
    reactor = host.reactor()
    _, port = reactor.bind_udp("0.0.0.0", 0)
    assert reactor.bind_udp("::", port)[1] == port


def test_sockets_clear_dont_fragment(host):
    """A 10 024-byte datagram leaves through an interface of 1500 only in fragments; the option is what lets it."""
    before = set(os.listdir("/proc/self/fd"))
    reactor = host.reactor()
    reactor.bind_udp("127.0.0.1", 0)
    reactor.bind_udp("::1", 0)
    found = []
    for fd in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            with socket.socket(fileno=os.dup(int(fd))) as copy:
                v4 = copy.family == socket.AF_INET
                level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if v4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
                found.append(copy.getsockopt(level, option))
    assert found == [IP_PMTUDISC_DONT, IP_PMTUDISC_DONT]


def test_datagrams_queued_before_stop_leave(host):
    reactor = host.reactor(manual=False)
    a, _ = reactor.bind_udp("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        kernel.bind(("127.0.0.1", 0))
        kernel.settimeout(30)
        reactor.send_datagrams([(a, (V4, kernel.getsockname()[1]), bytes([i]), 0) for i in range(50)])
        reactor.stop()
        assert [kernel.recv(10)[0] for _ in range(50)] == list(range(50))


def test_a_datagram_without_any_socket_of_its_family_is_counted(host):
    reactor = host.reactor()
    reactor.bind_udp("127.0.0.1", 0)
    reactor.send_datagrams([(-1, (V6, 9), b"", 0)])
    reactor.turn(0)
    assert reactor.stats()["send_errors"] == 1


#: In a network namespace of its own: the neighbour is unknown, so what is sent to it fills the kernel's send buffer.
BLOCKED = """
import os, socket, subprocess, time
from netcon.dataplane.reactor import Reactor

def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)

ip("link", "add", "near", "type", "veth", "peer", "name", "far")
for link in ("lo", "near", "far"):
    ip("link", "set", link, "up")
ip("address", "add", "10.9.8.1/24", "dev", "near")

before = set(os.listdir("/proc/self/fd"))
reactor = Reactor(manual=True)
number, _ = reactor.bind_udp("10.9.8.1", 0)
for fd in set(os.listdir("/proc/self/fd")) - before:
    if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
        with socket.socket(fileno=os.dup(int(fd))) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)

to = (socket.inet_aton("10.9.8.2"), 9)
"""
BLOCKED_SENDER = """
assert reactor.send_datagrams([(number, to, bytes(1000), 0)] * 100) == 100
reactor.turn(0)
held = reactor.stats()["datagrams_out"]
assert 0 < held < 100, held
batches = reactor.stats()["batches"]
assert reactor.turn(0) == 100_000
assert reactor.stats()["batches"] == batches + 1, "a blocked socket must not be polled"
ip("neighbour", "replace", "10.9.8.2", "lladdr", "02:00:00:00:00:02", "dev", "near", "nud", "permanent")
deadline = time.monotonic() + 30
while reactor.stats()["datagrams_out"] < 100:
    reactor.turn(0)
    assert time.monotonic() < deadline
assert reactor.stats()["send_errors"] == 0
reactor.stop()
"""


#: A second socket, which is not blocked; one copy of each socket; then the first takes again.
STUCK_SENDER = """
good, port = reactor.bind_udp("127.0.0.1", 0)
here = (socket.inet_aton("127.0.0.1"), port)
assert reactor.send_datagrams([(number, to, bytes(1000), 0)] * 50 + [(good, here, b"x", 0), (-1, here, b"y", 0)]) == 52
reactor.turn(0)
reactor.turn(99_999)
assert reactor.receive() == ([], []), "draining waits for a socket that is only busy"
assert reactor.stats()["send_stuck"] == 0
reactor.turn(100_000)
got = []
deadline = time.monotonic() + 30
while len(got) < 2:
    reactor.turn(100_000)
    got += [data for _, _, data in reactor.receive()[0]]
    assert time.monotonic() < deadline
assert got == [b"x", b"y"], got
stats = reactor.stats()
assert stats["send_stuck"] + stats["datagrams_out"] == 53, stats
assert stats["send_stuck"] > 1
ip("neighbour", "replace", "10.9.8.2", "lladdr", "02:00:00:00:00:02", "dev", "near", "nud", "permanent")
out = stats["datagrams_out"]
while reactor.stats()["datagrams_out"] == out:
    reactor.turn(100_000)
    assert reactor.send_datagrams([(number, to, b"again", 0)]) == 1
    assert time.monotonic() < deadline
assert reactor.stats()["send_errors"] == 0
reactor.stop()
"""


@pytest.mark.parametrize("sender", [BLOCKED_SENDER, STUCK_SENDER])
def test_a_kernel_that_takes_no_more_blocks_the_ring_but_not_for_long(host, sender):
    # Root needs no user namespace for one of the network.
    namespace = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace of its own, and this machine refuses one to this user")
    subprocess.run([*namespace, sys.executable, "-c", BLOCKED + sender], check=True, timeout=60)
