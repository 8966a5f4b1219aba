"""An lwIP assertion in a running service ends one network's stack, whose programs are told, and which is there again at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from netcon.service.client import Client
from netcon.service.home import Home
from netcon.service.service import Service
from tests.integration.waiter import Waiter, outcomes
from tests.service.running import World, wait_until


class InProcess:
    """A service in the test's own process, with the face of a `RunningService`. Programs and clients run beside it, in threads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.prefix: list[str] = []
        self.client = Client(home)
        self.service = Service(Home(home))

    @property
    def address(self) -> str:
        return f"{self.service.node.address:010x}"


@asynccontextmanager
async def in_process(home: Path) -> AsyncIterator[InProcess]:
    running = InProcess(home)
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.service.run, ready.set)
        await ready.wait()
        with running.client:
            yield running
        running.service.stop()


def make_network(world: World, controller: InProcess, number: int) -> str:
    return world.make_network(
        controller,
        routes=[{"target": f"10.147.{number}.0/24", "via": None}],
        ipAssignmentPools=[{"ipRangeStart": f"10.147.{number}.1", "ipRangeEnd": f"10.147.{number}.254"}],
    )


in_thread = trio.to_thread.run_sync


async def test_an_assertion_ends_one_stack_which_is_started_again(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    async with in_process(world.root_home) as running:
        networks = [await in_thread(make_network, world, running, number) for number in range(2)]
        addresses = [(await in_thread(world.join, running, running, network))[0] for network in networks]

        waiters: list[Waiter] = []

        async def start(network: str, call: str, address: str, port: int) -> Waiter:
            waiter = await in_thread(Waiter, running, network, call, address, port)
            waiters.append(waiter)
            await in_thread(waiter.wait_until_it_waits)
            return waiter

        try:
            by_network = [
                [await start(network, call, address, port) for call, port in (("serve", 7000), ("read", 7000), ("accept", 7001))]
                for network, address in zip(networks, addresses, strict=True)
            ]
            port = running.service.ports[int(networks[0], 16)]
            failing = port.stack
            failing.inject_failure("injected by a test")
            assert failing.failed == "injected by a test"
            assert await in_thread(outcomes, by_network[0][:2]) == {"serve": "ECONNRESET", "read": "ECONNRESET"}
            await in_thread(wait_until, lambda: port.restarts, "the service to start it again")
            assert port.stack is not failing
            assert port.stack.failed is None
            assert all(waiter.process.poll() is None for waiter in by_network[1])

            # The listener meets the new stack, which has the same address.
            for network, address, (_, _, listening) in zip(networks, addresses, by_network, strict=True):
                client = await in_thread(Waiter, running, network, "read", address, 7001)
                waiters.append(client)
                assert await in_thread(listening.outcome) == "a connection"
                assert await in_thread(client.outcome) == "READY\nend of file"
            assert all(waiter.process.poll() is None for waiter in by_network[1][:2])
        finally:
            for waiter in waiters:
                waiter.end()
