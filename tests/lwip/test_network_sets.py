"""Lists of networks (HELLO with ids): each is kept for the server's life, so a user may add a limited number of them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from netcon.service.socket_rpc import HELLO, REPLY_MAX, unpack_reply
from tests.lwip.rpc_client import TIMEOUT, Program
from tests.lwip.service import Service

OF_USER, OF_OTHERS, IN_ALL = 64, 512, 1024
SOMEBODY = 54321
SCM_CREDENTIALS = 2


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.assert_idle()
    service.close()


def hello(program: Program, number: int, uid: int) -> int:
    """HELLO with the list that has this number, as a user; the errno. Root may say that it is another (unix(7))."""
    ids = struct.pack("=QQ", 0x8056C2E21C000001, 0x9000000000000000 + number)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        mine.settimeout(TIMEOUT)
        with theirs:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", theirs.fileno()))
            credentials = (socket.SOL_SOCKET, SCM_CREDENTIALS, struct.pack("=iII", os.getpid(), uid, os.getgid()))
            program.channel.sendmsg([program.request(HELLO, data=ids)], [rights, credentials])
        return unpack_reply(mine.recv(REPLY_MAX)).error


def test_nobody_takes_all_lists(service: Service) -> None:
    owner = os.getuid()
    program = service.program()
    assert {hello(program, number, SOMEBODY) for number in range(OF_USER)} == {0}
    assert hello(program, OF_USER, SOMEBODY) == errno.ENOBUFS
    assert hello(program, 0, SOMEBODY) == 0, "those that are there may be used"
    others = range(OF_USER, OF_OTHERS)
    assert {hello(program, number, SOMEBODY + number // OF_USER) for number in others} == {0}
    assert hello(program, OF_OTHERS, SOMEBODY + 99) == errno.ENOBUFS
    assert {hello(program, number, owner) for number in range(OF_OTHERS, IN_ALL)} == {0}
    assert hello(program, IN_ALL, owner) == errno.ENOBUFS
    assert hello(program, IN_ALL - 1, SOMEBODY) == 0
