"""The DNS server for members: nobody can keep it from the others with connections that do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from netcon.service import name_server
from netcon.service.resolver import receive_exactly
from netcon.sockets import TcpStream, open_tcp
from tests.lwip.service import HERE, NETWORK_A, NETWORK_B, THERE, Service

DEADLINE_S = 30.0


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    yield service
    service.assert_idle()
    service.close()


async def echo(wire: bytes, network: int, room: int | None) -> bytes | None:
    return wire


@contextlib.asynccontextmanager
async def serving(service: Service) -> AsyncIterator[None]:
    """On THERE; until it has answered."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(name_server.serve, service.path, echo, NETWORK_B, THERE)
        with trio.fail_after(DEADLINE_S):
            await (await served(service)).aclose()
            yield
        nursery.cancel_scope.cancel()


async def ask(stream: TcpStream) -> None:
    await stream.send_all(b"\0\5query")
    assert await receive_exactly(stream, 7) == b"\0\5query"


async def served(service: Service, network: int = NETWORK_A) -> TcpStream:
    """A connection that is answered, as soon as there can be one."""
    while True:
        with contextlib.suppress(OSError, EOFError, trio.BrokenResourceError):
            stream = await open_tcp(service.path, THERE, name_server.PORT, network)
            try:
                await ask(stream)
            except BaseException:
                await stream.aclose()
                raise
            return stream
        await trio.sleep(0.01)


async def is_refused(service: Service, network: int) -> bool:
    """Is a connection closed without a question?"""
    async with await open_tcp(service.path, THERE, name_server.PORT, network) as stream:
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def test_one_member_has_a_few_connections_and_leaves_the_others_theirs(service: Service) -> None:
    async with serving(service), contextlib.AsyncExitStack() as stack:
        held = [await served(service) for _ in range(name_server._CONNECTIONS_OF_PEER)]
        for each in held:
            stack.push_async_callback(each.aclose)
        assert held[0].local[0] == HERE
        assert await is_refused(service, NETWORK_A)
        async with await served(service, NETWORK_B) as other:
            assert other.local[0] == THERE
            await ask(other)
        await held[0].aclose()
        async with await served(service):
            for each in held[1:]:
                await ask(each)


async def test_what_is_too_much_in_all_is_closed_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_server, "_CONNECTIONS", 2)
    async with serving(service), await served(service), await served(service) as second:
        assert await is_refused(service, NETWORK_B)
        await second.aclose()
        await (await served(service, NETWORK_B)).aclose()
