"""What programs see when their service, or the one at the other end, is killed or stops in order; and that all works after."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.integration.lab import Lab
from tests.integration.programs import find, server, wait_for_port
from tests.integration.waiter import WAITING, Waiter, outcomes
from tests.service.running import RunningService, wait_for_addresses

HOLD, SERVE, LISTEN = 7000, 7001, 7100  # ports
CONNECTED = ["read", "poll", "epoll", "select", "write"]
LISTENING = ["accept", "accept-poll", "accept-epoll", "accept-select"]
CONNECTING = ["connect", "connect-poll", "connect-epoll", "connect-select"]


@contextlib.contextmanager
def hold(member: RunningService, network: str, client: RunningService, address: str, log: Path) -> Iterator[None]:
    with server(member, network, find("python3"), WAITING, "hold", address, str(HOLD), log=log):
        wait_for_port(client, network, address, HOLD)
        yield


@contextlib.contextmanager
def waiters(lab: Lab, member: RunningService, log: Path) -> Iterator[tuple[list[Waiter], list[Waiter]]]:
    """Programs of `member` (which runs on a's home), and of b, in all the calls that wait."""
    ours: list[Waiter] = []
    theirs: list[Waiter] = []
    with contextlib.ExitStack() as stack:

        def start(waiters: list[Waiter], by: RunningService, call: str, address: str, port: int) -> Waiter:
            waiter = Waiter(by, lab.network, call, address, port)
            stack.callback(waiter.end)
            waiters.append(waiter)
            return waiter

        stack.enter_context(hold(lab.b, lab.network, member, lab.address_b, log))
        stack.enter_context(hold(member, lab.network, lab.b, lab.address, log))
        start(ours, member, "serve", lab.address, SERVE).wait_until_it_waits()
        for number, call in enumerate(LISTENING):
            start(ours, member, call, lab.address, LISTEN + number)
        for call in CONNECTED:
            start(ours, member, call, lab.address_b, HOLD)
        start(theirs, lab.b, "read", lab.address, SERVE)
        for call in ("keepalive", "write"):
            start(theirs, lab.b, call, lab.address, HOLD)
        for waiter in ours[1:] + theirs:
            waiter.wait_until_it_waits()
        # b's service says nothing for a while: a connection to it stays in the making.
        lab.b.process.send_signal(signal.SIGSTOP)
        stack.callback(lab.b.process.send_signal, signal.SIGCONT)
        for call in CONNECTING:
            start(ours, member, call, lab.address_b, HOLD)
        for waiter in ours[-len(CONNECTING) :]:
            waiter.wait_until_it_waits()
        yield ours, theirs


def assert_works(lab: Lab, member: RunningService, tmp_path: Path) -> None:
    """After a start on the same home: the same address, and connections both ways."""
    assert wait_for_addresses(member, lab.network)[0] == lab.address
    with (
        hold(lab.b, lab.network, member, lab.address_b, tmp_path / "b"),
        hold(member, lab.network, lab.b, lab.address, tmp_path / "a"),
    ):
        pass


#: What the calls of a program say whose service is gone.
GONE = {
    "serve": "ECONNRESET",
    "read": "ECONNRESET",
    "poll": "ECONNRESET",
    "epoll": "ECONNRESET",
    "select": "ECONNRESET",
    "write": "reset or broken pipe",
    "accept": "EINVAL",
    "accept-poll": "EINVAL",
    "accept-epoll": "EINVAL",
    "accept-select": "EINVAL",
    "connect": "ENETDOWN",
    "connect-poll": "ECONNRESET",
    "connect-epoll": "ECONNRESET",
    "connect-select": "ECONNRESET",
}


def test_kill_9_ends_every_call_and_the_service_starts_again(lab: Lab, tmp_path: Path) -> None:
    with waiters(lab, lab.a, tmp_path / "log") as (ours, theirs):
        lab.a.kill()
        assert outcomes(ours) == GONE
        lab.b.process.send_signal(signal.SIGCONT)
        by_call = {waiter.call: waiter for waiter in theirs}
        # As with any machine that dies, the other end learns it from silence, if it asks ...
        assert by_call["keepalive"].outcome() == "ETIMEDOUT"
        with RunningService(lab.world.homes[0]) as again:
            # ... or when it sends to the one that came back.
            assert by_call["write"].outcome() == "reset or broken pipe"
            assert_works(lab, again, tmp_path)


def test_an_orderly_stop_resets_the_connections_of_both_ends(lab: Lab, tmp_path: Path) -> None:
    with RunningService(lab.world.homes[0]) as a:
        wait_for_addresses(a, lab.network)
        with waiters(lab, a, tmp_path / "log") as (ours, theirs):
            assert a.stop() == 0
            assert outcomes(ours) == GONE | dict.fromkeys(CONNECTING, "ENETDOWN")
            lab.b.process.send_signal(signal.SIGCONT)
            assert outcomes(theirs) == {"read": "ECONNRESET", "keepalive": "ECONNRESET", "write": "reset or broken pipe"}
    with RunningService(lab.world.homes[0]) as again:
        assert_works(lab, again, tmp_path)
