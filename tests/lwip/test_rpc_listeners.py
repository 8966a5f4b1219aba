"""Listeners: backlog, ports and their sharing, dual stack, shutdown, networks that come and go, and the end of the service."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest

import lwip
from tests.lwip.rpc_client import Program
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, THERE, THERE6, Service, descriptors, eventually


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    yield service
    service.assert_idle()
    service.close()


def refused(call, *args) -> int:
    with pytest.raises(OSError) as caught:
        call(*args)
    return caught.value.errno


def test_1500_connections_wait_to_be_accepted(service: Service) -> None:
    program = service.program()
    with program.listener(HERE, backlog=2000) as listener:
        port = listener.getsockname()[1]
        clients = [program.connected(HERE, port) for _ in range(1500)]
        peers = set()
        for _ in clients:
            accepted, peer = listener.accept()
            peers.add(peer)
            accepted.close()
        assert len(peers) == 1500
        for client in clients:
            client.close()


def test_the_kernel_shows_a_listener_readable_and_never_writable(service: Service) -> None:
    program = service.program()
    with program.listener(HERE) as listener:
        assert select.select([listener.p], [listener.p], [], 0) == ([], [], [])
        with program.connected(HERE, listener.getsockname()[1]):
            assert select.select([listener.p], [], [], 30)[0]
            assert not select.select([], [listener.p], [], 0)[1]
            listener.accept()[0].close()


def test_who_may_have_a_port(service: Service) -> None:
    program = service.program()
    with program.listener(HERE, 80) as holder, program.socket() as other, program.socket(socket.AF_INET6) as six:
        assert refused(other.bind, HERE, 80) == errno.EADDRINUSE
        assert refused(other.bind, "0.0.0.0", 80) == errno.EADDRINUSE
        assert refused(six.bind, "::", 80) == errno.EADDRINUSE
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind("::", 80)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert refused(other.bind, HERE, 80) == errno.EADDRINUSE, "a listener does not share by SO_REUSEADDR"
        other.bind(HERE, 81)
        assert refused(other.bind, HERE, 82) == errno.EINVAL
        assert holder.getsockname() == (HERE, 80)


def test_a_server_starts_again_while_old_connections_live(service: Service) -> None:
    program = service.program()
    client, accepted = service.pair(program, SO_REUSEADDR=True)
    port = client.getpeername()[1]
    with program.socket() as plain:
        assert refused(plain.bind, HERE, port) == errno.EADDRINUSE
    with program.listener(HERE, port, SO_REUSEADDR=True):
        pass
    client.close()
    accepted.close()


def test_reuseport_shares_the_connections(service: Service) -> None:
    program = service.program()
    with program.listener(HERE, 80, SO_REUSEPORT=True) as one, program.listener(HERE, 80, SO_REUSEPORT=True) as two:
        clients = [program.connected(HERE, 80) for _ in range(10)]
        for listener in (one, two):
            for _ in range(5):
                listener.accept()[0].close()
        for client in clients:
            client.close()


def test_a_dual_stack_listener_serves_both_families(service: Service) -> None:
    program = service.program()
    with program.listener("::", 80) as listener:
        for ip, seen in ((HERE, f"::ffff:{HERE}"), (HERE6, HERE6)):
            with program.connected(ip, 80):
                accepted, peer = listener.accept()
                assert peer[0] == seen
                accepted.close()
        with program.socket(socket.AF_INET6) as mapped:
            mapped.connect(f"::ffff:{HERE}", 80)
            listener.accept()[0].close()


def test_a_wildcard_listener_is_on_every_network_and_on_later_ones(service: Service) -> None:
    program = service.program()
    with program.listener("0.0.0.0", 80) as listener:
        service.add(0xC0, "10.99.0.1")
        for ip in (HERE, THERE, "10.99.0.1"):
            with program.connected(ip, 80):
                accepted, _ = listener.accept()
                assert accepted.name is not None
                assert accepted.name.local == (ip, 80)
                accepted.close()


def test_a_listener_of_one_network_is_not_on_another(service: Service) -> None:
    with service.program(NETWORK_A).listener("0.0.0.0", 80) as listener:
        assert listener.getsockname() == ("0.0.0.0", 80)
        with service.program(NETWORK_B).socket() as sock:
            assert refused(sock.connect, THERE, 80) == errno.ECONNREFUSED
        with service.program(NETWORK_B).socket() as sock:
            sock.connect(HERE, 80)
            listener.accept()[0].close()


def test_shutdown_of_a_listener_wakes_accept_and_it_may_listen_again(service: Service) -> None:
    program = service.program()
    with program.listener(HERE) as listener:
        port = listener.getsockname()[1]
        waiting = program.connected(HERE, port)
        listener.accept()[0].close()
        listener.shutdown_listener()
        assert refused(listener.accept) == errno.EINVAL
        with program.socket() as late:
            assert refused(late.connect, HERE, port) == errno.ECONNREFUSED
        listener.listen()
        assert listener.getsockname()[1] == port
        with program.connected(HERE, port):
            listener.accept()[0].close()
        waiting.close()


def test_connections_that_wait_are_reset_with_their_listener(service: Service) -> None:
    program = service.program()
    listener = program.listener(HERE)
    client = program.connected(HERE, listener.getsockname()[1])
    listener.close()
    assert refused(client.p.recv, 1) == errno.ECONNRESET
    client.close()


def test_a_removed_network_resets_its_sockets_alone(service: Service) -> None:
    program = service.program()
    here, there = service.pair(program, HERE), service.pair(program, THERE)
    listener = program.listener(THERE)
    service.server.remove_network(NETWORK_B)
    for sock in there:
        assert refused(sock.p.recv, 1) == errno.ECONNRESET
    here[0].p.sendall(b"x")
    assert here[1].p.recv(1) == b"x"
    with program.socket() as sock:
        assert refused(sock.bind, THERE, 80) == errno.EADDRNOTAVAIL
    for sock in (*here, *there, listener):
        sock.close()


def test_a_failed_stack_resets_its_sockets_and_its_listeners_meet_the_next_one(service: Service) -> None:
    program = service.program()
    here, there = service.pair(program, HERE), service.pair(service.program(NETWORK_B), THERE)
    listener = program.listener(THERE6, 80)
    failed = service.stacks[NETWORK_B]
    failed.inject_failure("a test asked for it")
    for sock in there:
        assert refused(sock.p.recv, 1) == errno.ECONNRESET
    assert failed.failed == "a test asked for it"
    here[0].p.sendall(b"x")
    assert here[1].p.recv(1) == b"x"
    service.add(NETWORK_B, THERE, THERE6)
    with program.connected(THERE6, 80):
        listener.accept()[0].close()
    failed.close()
    for sock in (*here, *there, listener):
        sock.close()


def test_an_orderly_stop_resets_everything() -> None:
    before = descriptors()
    service = Service()
    program = service.program()
    client, accepted = service.pair(program)
    listener = program.listener(HERE)
    service.close()
    assert refused(client.p.recv, 1) == errno.ECONNRESET
    assert refused(accepted.p.recv, 1) == errno.ECONNRESET
    poller = select.poll()
    poller.register(listener.p, select.POLLIN)
    assert poller.poll(30_000)[0][1] & select.POLLHUP
    for sock in (client, accepted, listener):
        sock.close()
    del service
    eventually(lambda: descriptors() <= before, "all descriptors closed")


def test_paths_live_and_dead(service: Service) -> None:
    second = lwip.SocketServer(service.reactor.capsule(), service=2, epoch=2)
    with pytest.raises(OSError) as caught:
        second.listen(service.path)
    assert caught.value.errno == errno.EADDRINUSE
    dead = service.path + ".dead"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over:
        left_over.bind(dead)
    second.listen(dead, network=7, mode=0o600)
    program = Program(dead)
    assert (program.service, program.default_network) == (2, 7)
    program.close()
    second.unlisten(dead)
    with pytest.raises(FileNotFoundError):
        Program(dead)
    second.close()
