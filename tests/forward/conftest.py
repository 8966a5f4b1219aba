"""A service with two stacks; forwards and proxies run in the test's own nursery, as members of network A."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import trio

from netcon.forward.sides import NetworkSide
from netcon.service import resolve_rpc
from tests.lwip.service import NETWORK_A, Service, descriptors, eventually


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    service.server.questions_fileno()  # made once, then kept
    before = descriptors()
    yield service
    service.assert_idle()
    eventually(lambda: descriptors() <= before, "descriptors closed")
    service.close()


@pytest.fixture
def side(service: Service) -> NetworkSide:
    return NetworkSide(service.path, NETWORK_A)


@contextlib.asynccontextmanager
async def naming(service: Service, names: Mapping[str, list[str]]) -> AsyncIterator[None]:
    """In the block the service resolves these names, and says of all others that there are none. Elsewhere questions wait."""

    async def answer() -> None:
        while True:
            await trio.lowlevel.wait_readable(service.server.questions_fileno())
            for question, *_, name, _ in service.server.take_questions():
                found = [ipaddress.ip_address(ip) for ip in names.get(name.decode(), [])]
                status = resolve_rpc.FOUND if found else resolve_rpc.NOT_FOUND
                service.server.answer_question(question, value=status, data=resolve_rpc.pack_resolved(60, found, b""))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        yield
        nursery.cancel_scope.cancel()
