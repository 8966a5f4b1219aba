"""The host's name servers are the service's for programs: queries to them become questions, whoever has port 53."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from netcon.policy import Policy
from netcon.service import socket_rpc as rpc
from netcon.service.resolve_rpc import RESOLVE_MESSAGE
from tests.lwip.datagram_client import bound, datagram_socket
from tests.lwip.rpc_client import Program
from tests.lwip.service import DEADLINE, HERE, NETWORK_A, THERE, Service

TO_HOST = 4096
NAMES_HOST, NAMES_REFUSE = 4, 8
STREAM = 0
SERVER, SERVER6 = "192.0.2.53", "2001:db8::53"
EVERY = pytest.mark.parametrize("server", ["127.0.0.53", "127.0.0.11", SERVER, SERVER6])
Question = tuple[int, int, int, int, int, int, int, bytes, int]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    service.server.questions_fileno()
    service.server.set_name_servers([socket.inet_pton(socket.AF_INET, SERVER), socket.inet_pton(socket.AF_INET6, SERVER6)])
    yield service
    service.assert_idle()
    service.close()


@pytest.fixture
def program(service: Service) -> Program:
    return service.program()


def family(ip: str) -> int:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def policy(service: Service, text: str) -> None:
    service.server.set_policy(Policy.parse(text).compiled())


def question(service: Service) -> Question:
    assert select.select([service.server.questions_fileno()], [], [], DEADLINE)[0]
    (taken,) = service.server.take_questions()
    return taken


def error_of(call: object, *arguments: object) -> int:
    with pytest.raises(OSError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.errno is not None
    return caught.value.errno


@EVERY
def test_a_datagram_is_answered_from_the_address_that_was_asked(service: Service, program: Program, server: str) -> None:
    with datagram_socket(program, family(server)) as client:
        client.sendto(b"query", server, 53)
        number, uid, network, kind, _, _, room, data, stream = question(service)
        assert (uid, network, kind, room, data, stream) == (os.getuid(), 0, RESOLVE_MESSAGE, 0, b"query", -1)
        assert service.server.answer_question(number, data=b"r" * 1232)
        assert client.recvfrom() == (b"r" * 1232, (server, 53))


@EVERY
def test_a_connected_socket(service: Service, program: Program, server: str) -> None:
    with datagram_socket(program, family(server)) as client:
        client.connect(server, 53)
        assert client.getpeername() == (server, 53)
        for query in (b"one", b"two"):
            client.send(query)
            got = question(service)
            assert got[7] == query
            assert service.server.answer_question(got[0], data=b"reply")
            assert client.receive().data == b"reply"
        client.send(b"late")
        late = question(service)[0]
    assert service.server.answer_question(late, data=b"nobody is there")


@EVERY
def test_a_connection_is_handed_over(service: Service, program: Program, server: str) -> None:
    with program.connected(server, 53) as client:
        name = client.name
        assert name is not None
        assert (name.kind, name.remote) == ("C", (server, 53))
        assert name.local[1] != 0
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, uid, _, kind, _, _, _, data, stream = question(service)
        assert (uid, kind, data) == (os.getuid(), STREAM, b"")
        with socket.socket(fileno=stream) as end:
            client.p.sendall(b"query")
            assert end.recv(100) == b"query"
            end.sendall(b"response")
            assert client.p.recv(100) == b"response"
            client.p.shutdown(socket.SHUT_WR)
            assert end.recv(100) == b""
        assert client.p.recv(100) == b""


def test_connections_that_nobody_took_end_with_the_server() -> None:
    service = Service()
    service.server.questions_fileno()
    with service.program().connected("127.0.0.53", 53) as client:
        service.close()
        assert client.p.recv(1) == b""


@pytest.mark.parametrize("ip", ["0.0.0.0", HERE, "::"])
def test_a_programs_own_server_has_port_53(service: Service, program: Program, ip: str) -> None:
    with (
        bound(program, ip, 53) as udp,
        program.listener(ip, 53) as tcp,
        datagram_socket(program) as client,
        datagram_socket(program) as other,
    ):
        client.sendto(b"to the program", HERE, 53)
        assert udp.receive().data == b"to the program"
        other.sendto(b"to us", "127.0.0.53", 53)
        assert question(service)[7] == b"to us"
        with program.connected(HERE, 53), tcp.accept()[0], program.connected(SERVER, 53):
            os.close(question(service)[8])


def test_the_programs_network_is_told(service: Service) -> None:
    program = service.program(NETWORK_A)
    with datagram_socket(program) as client:
        client.sendto(b"query", SERVER, 53)
        assert question(service)[2] == NETWORK_A
    with program.connected(SERVER, 53):
        got = question(service)
        os.close(got[8])
        assert got[2] == NETWORK_A


def test_what_is_no_name_server_is_as_ever(service: Service, program: Program) -> None:
    with datagram_socket(program) as client, program.socket() as stream:
        assert error_of(client.call_sendto, b"query", "192.0.2.54", 53) == errno.ENETUNREACH
        assert error_of(client.call_sendto, b"query", SERVER, 5353) == errno.ENETUNREACH
        assert error_of(client.call_sendto, b"query", "127.0.0.1", 53) == TO_HOST
        assert error_of(stream.connect, SERVER, 853) == errno.ENETUNREACH
        service.server.set_name_servers([socket.inet_aton(THERE)])  # a network has that one
        assert error_of(stream.connect, THERE, 53) == errno.ECONNREFUSED
    assert service.server.take_questions() == []


@pytest.mark.parametrize(
    ("text", "server", "expected"),
    [
        ("names host", SERVER, TO_HOST),
        ("names host", "127.0.0.53", TO_HOST),
        ("names host; loopback virtual", "127.0.0.53", 0),
        ("names host; 127.0.0.53 udp,tcp 53 virtual", "127.0.0.53", 0),
        ("names refuse; default host", SERVER, 0),
        ("loopback virtual", "127.0.0.53", 0),
        ("127.0.0.53 udp,tcp 53 host", "127.0.0.53", TO_HOST),
        ("192.0.2.0/24 host", SERVER, TO_HOST),
        ("any udp,tcp 53 refuse", SERVER, errno.EACCES),
        ("any udp,tcp 53 network", SERVER, errno.ENETUNREACH),
    ],
)
def test_policy_decides(service: Service, program: Program, text: str, server: str, expected: int) -> None:
    policy(service, text)
    with datagram_socket(program) as client, program.socket() as stream:
        if expected:
            assert error_of(client.call_sendto, b"query", server, 53) == expected
            assert error_of(stream.connect, server, 53) == expected
            assert service.server.take_questions() == []
        else:
            assert client.call_sendto(b"query", server, 53) == 5
            assert question(service)[7] == b"query"
            stream.connect(server, 53)
            os.close(question(service)[8])


def test_the_runs_policy_decides_before(service: Service, program: Program) -> None:
    def asked(flags: int) -> int:
        with datagram_socket(program) as client:
            message = program.request(
                rpc.CONNECT,
                flags=flags,
                socket_id=client.id,
                family=client.family,
                kind=socket.SOCK_DGRAM,
                protocol=socket.IPPROTO_UDP,
                data=rpc.pack_address(SERVER, 53),
            )
            error = program.exchange(message, [client.p.fileno()])[0]
            if not error:
                client.send(b"query")  # the connection remembers whose it is
                assert question(service)[7] == b"query"
            return error

    assert asked(NAMES_HOST) == TO_HOST
    assert asked(0) == 0
    policy(service, "names host")
    assert asked(0) == TO_HOST
    assert asked(NAMES_REFUSE) == 0


def test_on_the_virtual_loopback_a_programs_server_goes_first(service: Service, program: Program) -> None:
    policy(service, "loopback virtual")
    service.server.set_name_servers([socket.inet_aton("127.0.0.1")])
    with datagram_socket(program) as client:
        client.sendto(b"nobody else", "127.0.0.1", 53)
        assert question(service)[7] == b"nobody else"
        with bound(program, "0.0.0.0", 53) as udp, program.listener("0.0.0.0", 53) as tcp:
            client.sendto(b"query", "127.0.0.1", 53)
            assert udp.receive().data == b"query"
            with program.connected("127.0.0.1", 53), tcp.accept()[0]:
                client.sendto(b"the stub's", "127.0.0.53", 53)
                assert question(service)[7] == b"the stub's"
        assert service.server.take_questions() == []


def test_questions_beyond_the_limit_are_lost(service: Service, program: Program) -> None:
    open_in_all = 192
    with datagram_socket(program) as client:
        for _ in range(open_in_all + 8):
            client.call_sendto(b"query", SERVER, 53)
        taken = service.server.take_questions()
        assert len(taken) == open_in_all
        for got in taken:
            service.server.answer_question(got[0])
        client.call_sendto(b"query", SERVER, 53)
        service.server.answer_question(question(service)[0], error=errno.EIO)
        assert not client.readable()


def test_without_a_stack_there_is_no_way(service: Service, program: Program) -> None:
    for network in list(service.stacks):
        service.server.remove_network(network)
    with datagram_socket(program) as client, contextlib.suppress(OSError):
        assert error_of(client.call_sendto, b"query", SERVER, 53) == errno.ENETUNREACH
    assert service.server.take_questions() == []
