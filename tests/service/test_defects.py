"""An exception that nobody foresaw costs one packet or one call, never the service; and one round of actions may make the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from netcon.core.actions import ConfigureNetwork, Endpoint, NodeEvent, SendDatagram, ValidateIdentity
from netcon.service.home import Home
from netcon.service.service import Service
from tests.service.support import IDENTITIES

REMOTE = (bytes((127, 0, 0, 1)), 9993)
FAR = 1 << 60


class Node:
    """An engine with a defect: what `fails` names raises."""

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.calls: list[Any] = []
        self.actions: list[list[Any]] = []
        self.deadline = FAR
        self.judged = trio.Event()

    def _call(self, name: str, detail: Any) -> None:
        self.calls.append(detail)
        if name in self.fails or detail in self.fails:
            raise KeyError(name)

    def receive_datagram(self, socket: int, remote: tuple[bytes, int], data: bytes, now: int) -> None:
        self._call("datagram", data.decode())

    def receive_frame(self, network: int, destination: bytes, source: bytes, ethertype: int, payload: bytes, now: int) -> None:
        self._call("frame", payload.decode())

    def background(self, now: int) -> None:
        self._call("background", now)

    def identity_validated(self, identity: object, valid: bool, now: int) -> None:
        self._call("identity", valid)
        self.judged.set()

    def network(self, network: int) -> None:
        self._call("network", network)

    def next_deadline(self) -> int:
        return self.deadline

    def take_actions(self) -> list[Any]:
        return self.actions.pop(0) if self.actions else []


class Reactor:
    """The rings: gives what is put in, and refuses a wrong datagram as the real one does."""

    def __init__(self) -> None:
        self.datagrams: list[Any] = []
        self.frames: list[Any] = []
        self.sent: list[bytes] = []

    def receive(self, limit: int) -> tuple[list[Any], list[Any]]:
        taken = self.datagrams, self.frames
        self.datagrams, self.frames = [], []
        return taken

    def send_datagrams(self, batch: list[Any]) -> int:
        if any(len(entry[2]) > 10_100 for entry in batch):
            raise ValueError("too long")
        self.sent.extend(entry[2] for entry in batch)
        return len(batch)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Any, Node, Reactor]]:
    def made(*fails: str) -> tuple[Any, Node, Reactor]:
        service: Any = Service(Home(tmp_path))
        service.node, service.reactor = Node(*fails), Reactor()
        service._network_of[1] = 0x1234
        return service, service.node, service.reactor

    return made


def test_a_datagram_that_raises_costs_itself_alone(make: Callable[..., Any]) -> None:
    service, node, reactor = make("bad")
    reactor.datagrams = [(1, REMOTE, data) for data in (b"good", b"bad", b"later")]
    assert service._turn()
    assert node.calls == ["good", "bad", "later"]
    assert service.defects == 1


def test_a_frame_that_raises_costs_itself_alone(make: Callable[..., Any]) -> None:
    service, node, reactor = make("bad")
    reactor.frames = [(1, b"", b"", 0x0800, payload) for payload in (b"bad", b"good")]
    assert service._turn()
    assert node.calls == ["bad", "good"]
    assert service.defects == 1


def test_timers_that_raise_do_not_spin(make: Callable[..., Any]) -> None:
    service, node, _ = make("background")
    now = 1_000
    service.clock = lambda: now
    node.deadline = 0
    for _ in range(5):
        service._turn()
    assert node.calls == [1_000]
    now = service._deadline()
    assert now > 1_000
    service._turn()
    assert node.calls == [1_000, now]


def test_an_action_that_raises_does_not_take_the_others_along(make: Callable[..., Any]) -> None:
    service, node, reactor = make("network")
    service.ports[7] = object()
    node.actions = [[ConfigureNetwork(7), SendDatagram(1, Endpoint(*REMOTE), b"answer")]]
    service.perform()
    assert reactor.sent == [b"answer"]
    assert service.defects == 1


def test_a_datagram_that_the_rings_refuse_does_not_stop_those_after_it(make: Callable[..., Any]) -> None:
    service, node, reactor = make()
    node.actions = [[SendDatagram(1, Endpoint(*REMOTE), bytes(20_000))], [SendDatagram(1, Endpoint(*REMOTE), b"next")]]
    service.perform()
    assert reactor.sent == [b"next"]
    assert service.defects == 1


def test_actions_that_come_of_actions_are_done_too(make: Callable[..., Any]) -> None:
    service, node, reactor = make()
    node.actions = [[ConfigureNetwork(7)], [SendDatagram(1, Endpoint(*REMOTE), b"announcement")]]
    service.perform()
    assert reactor.sent == [b"announcement"]


def test_the_log_gets_one_report_of_many(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    service, _, reactor = make("datagram")
    reactor.datagrams = [(1, REMOTE, b"x")] * 100
    service._turn()
    assert service.defects == 100
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def test_messages_of_strangers_are_not_logged(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    service, node, _ = make()
    node.actions = [[NodeEvent("user_message", 1, b"hello"), NodeEvent("remote_trace", 1, b""), NodeEvent("online")]]
    with caplog.at_level(logging.INFO):
        service.perform()
    assert [record.getMessage() for record in caplog.records] == ["online"]


def test_an_identity_that_a_root_refuses_is_told_with_what_to_do(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    service, node, _ = make()
    node.actions = [[NodeEvent("identity_collision", 0x62F865AE71)]]
    service.perform()
    (record,) = caplog.records
    assert "62f865ae71" in record.getMessage()
    assert f"identity.public out of {service.home.path}" in record.getMessage()


async def test_an_identity_check_that_raises_is_a_refusal(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(identity: object) -> bool:
        raise MemoryError

    monkeypatch.setattr("netcon.core.identity.Identity.validate", fail)
    service, node, _ = make()
    node.actions = [[ValidateIdentity(IDENTITIES[0])]]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service._validate_identities)
        service.perform()
        with trio.fail_after(10):
            await node.judged.wait()
        nursery.cancel_scope.cancel()
    assert node.calls == [False]
    assert service.defects == 1
