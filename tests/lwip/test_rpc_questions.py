"""RESOLVE: questions that the socket server hands to Python, and the answers, which come when they come."""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from netcon.policy import Policy
from netcon.service import socket_rpc as rpc
from netcon.service.resolve_rpc import RESOLVE, RESOLVE_NAME
from tests.lwip.rpc_client import Program
from tests.lwip.service import DEADLINE, NETWORK_A, Service, eventually

OPEN_IN_ALL = 192


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def ask(program: Program, data: bytes = b"web", *, flags: int = 0) -> socket.socket:
    """Send a question; returns the end on which the answer comes."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.settimeout(DEADLINE)
    request = rpc.pack_request(RESOLVE, network=program.network, family=2, args=(RESOLVE_NAME, 1), data=data, flags=flags)
    with theirs:
        program.channel.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
    return mine


def answer_on(end: socket.socket) -> tuple[int, int, bytes]:
    with end:
        reply = rpc.unpack_reply(end.recv(4096))
    assert reply.operation == RESOLVE
    return reply.error, reply.value, reply.data


def taken(service: Service) -> list[tuple[int, int, int, int, int, int, int, bytes, int]]:
    assert select.select([service.server.questions_fileno()], [], [], DEADLINE)[0]
    return service.server.take_questions()


def test_a_question_is_answered_later_and_others_overtake_it(service: Service) -> None:
    service.server.questions_fileno()
    program = service.program(NETWORK_A)
    first, second = ask(program, b"first"), ask(program, b"second")
    eventually(lambda: service.count("questions") == 2, "both questions are open")
    assert program.call(rpc.HELLO)[0] == 0
    questions = {question[7]: question for question in taken(service)}
    number, uid, network, kind, flags, family, room, _, stream = questions[b"second"]
    assert (uid, network, kind, flags, family, room, stream) == (os.getuid(), NETWORK_A, RESOLVE_NAME, 1, 2, 512, -1)
    assert service.server.answer_question(number, value=3, data=b"later")
    assert answer_on(second) == (0, 3, b"later")
    assert service.server.answer_question(questions[b"first"][0], error=errno.EIO)
    assert answer_on(first) == (errno.EIO, 0, b"")
    assert service.count("questions") == 0
    assert not service.server.answer_question(number)


def test_an_answer_that_comes_later_tells_the_policy_as_all_do(service: Service) -> None:
    """Otherwise the library forgets that destinations may be the host's, whose datagrams are then lost."""
    service.server.questions_fileno()
    service.server.set_policy(Policy.parse("loopback virtual; default host").compiled())
    with ask(service.program()) as end:
        ((number, *_),) = taken(service)
        assert service.server.answer_question(number)
        assert struct.unpack_from("=4H", end.recv(4096))[3] == 3


def test_where_nobody_answers_it_is_said_at_once(service: Service) -> None:
    assert answer_on(ask(service.program()))[0] == errno.EOPNOTSUPP


def test_what_makes_no_sense_is_refused(service: Service) -> None:
    service.server.questions_fileno()
    program = service.program()
    assert answer_on(ask(program, b""))[0] == errno.EINVAL
    posted = rpc.pack_request(RESOLVE, flags=rpc.POSTED, args=(RESOLVE_NAME,), data=b"web")
    program.channel.send(posted)
    assert program.call(rpc.HELLO)[0] == 0
    assert service.count("questions") == 0
    with pytest.raises(ValueError):
        service.server.answer_question(1, data=bytes(65536))


def test_so_many_may_be_open(service: Service) -> None:
    service.server.questions_fileno()
    program = service.program()
    ends = [ask(program) for _ in range(OPEN_IN_ALL)]
    assert answer_on(ask(program))[0] == errno.EAGAIN
    questions = taken(service)
    assert len(questions) == OPEN_IN_ALL
    for question in questions:
        assert service.server.answer_question(question[0])
    assert {answer_on(end)[0] for end in ends} == {0}
    with ask(program):
        assert len(taken(service)) == 1


def test_a_program_that_has_gone_does_not_matter(service: Service) -> None:
    service.server.questions_fileno()
    program = service.program()
    ask(program).close()
    program.close()
    (question,) = taken(service)
    lost = service.count("lost_replies")
    assert service.server.answer_question(question[0], data=b"x")
    assert service.count("lost_replies") == lost + 1
    assert service.count("questions") == 0


def test_open_questions_end_with_the_server(service: Service) -> None:
    service.server.questions_fileno()
    end = ask(service.program())
    eventually(lambda: service.count("questions") == 1, "the question is open")
    service.server.close()
    assert answer_on(end)[0] == errno.ENETDOWN
