"""Events of the engine at the local API: numbered, waited for, bounded; messages between nodes; traces of dropped frames."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from netcon.cli.main import main
from netcon.core.actions import NodeEvent
from netcon.core.dictionary import Dictionary
from netcon.service.client import RequestFailed
from netcon.service.events import MOST, EventLog
from tests.service.running import RunningService, running_world, wait_until


async def test_events_are_numbered_and_the_newest_are_kept() -> None:
    log = EventLog()
    assert await log.since(1, 0) == {"events": [], "next": 1, "lost": 0}
    for number in range(MOST + 10):
        log.add(NodeEvent("path_learned", number), 1_000 + number)
    found = await log.since(5, 0)
    assert [event["number"] for event in found["events"]] == list(range(11, MOST + 11))
    assert (found["next"], found["lost"]) == (MOST + 11, 6)
    assert found["events"][0] == {"number": 11, "time": 1_010, "event": "path_learned", "peer": "000000000a"}
    assert await log.since(MOST + 11, 0) == {"events": [], "next": MOST + 11, "lost": 0}


async def test_several_wait_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    log = EventLog()
    found: list[Any] = []

    async def ask(seconds: float) -> None:
        found.append((await log.since(1, seconds))["events"])

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, 50)
        nursery.start_soon(ask, 1)
        await trio.sleep(5)
        assert found == [[]]
        log.add(NodeEvent("online"), 1)
    assert [len(events) for events in found] == [0, 1, 1, 1]
    start = trio.current_time()
    await log.since(2, 1e9)
    assert trio.current_time() - start == 60


async def test_what_came_with_an_event() -> None:
    log = EventLog()
    fields = Dictionary()
    fields.set_text("event", "filtered_in")
    for name, data in (
        ("user_message", (70_000).to_bytes(8) + b"\x01\x02"),
        ("user_message", b"short"),
        ("remote_trace", fields.encode()),
    ):
        log.add(NodeEvent(name, 5, data), 1)
    contents = [
        {key: value for key, value in event.items() if key not in ("number", "time", "event", "peer")}
        for event in (await log.since(1, 0))["events"]
    ]
    assert contents == [{"type": 70_000, "data": "0102"}, {"data": b"short".hex()}, {"fields": {"event": "filtered_in"}}]


def netcon(service: RunningService, *words: str) -> list[str]:
    result = CliRunner().invoke(main, ["-D", str(service.home), *words])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_messages_and_dropped_frames_with_services(tmp_path: Path) -> None:
    with running_world(tmp_path, 1) as (world, root, (member,)):
        wait_until(lambda: member.client.get("/status")["online"], "the root")
        answer: list[Any] = []
        start = root.client.get("/netcon/events")["next"]
        waiter = threading.Thread(target=lambda: answer.append(root.client.get(f"/netcon/events?since={start}&wait=30")))
        waiter.start()
        member.client.post(f"/netcon/message/{root.address}", {"type": 70_000, "data": "68656c6c6f"})
        waiter.join(60)
        (event,) = [event for event in answer[0]["events"] if event["event"] == "user_message"]
        assert (event["peer"], event["type"], event["data"]) == (member.address, 70_000, "68656c6c6f")
        assert netcon(root, "events")[-1].endswith(f"user_message {member.address} type 70000 68656c6c6f")
        assert json.loads(netcon(root, "events", "--json")[-1])["data"] == "68656c6c6f"

        # The observer that the controller names, and the member's own view, of a frame that the rules drop.
        network = world.make_network(root, rules=[{"type": "ACTION_DROP"}], remoteTraceTarget=root.address, remoteTraceLevel=15)
        world.join(root, member, network)

        def names(service: RunningService, name: str) -> set[str]:
            found = service.client.get("/netcon/events?trace=1")["events"]
            return {event["fields"]["event"] for event in found if event["event"] == name}

        assert names(member, "trace") <= {"filtered_out"}
        # Its stack says something about each address that it takes.
        member.client.post(f"/network/{network}", {"localAddresses": ["10.147.0.200/24"]})
        wait_until(lambda: "filtered_out" in names(member, "trace"), "a trace of its own")
        wait_until(lambda: "filtered_out" in names(root, "remote_trace"), "the member's trace at the observer")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/netcon/events?since=x", None),
        ("GET", "/netcon/events?wait=nan", None),
        ("POST", "/netcon/message/0123456789", {"type": 100, "data": ""}),
        ("POST", "/netcon/message/0123456789", {"type": True, "data": ""}),
        ("POST", "/netcon/message/0123456789", {"type": 70_000, "data": "xyz"}),
        ("POST", "/netcon/message/0123456789", {"type": 70_000, "data": 5}),
        ("POST", "/netcon/message/0123456789", {"type": 70_000, "data": "00" * 9_801}),
    ],
)
def test_requests_that_make_no_sense(service: RunningService, method: str, path: str, body: object) -> None:
    with pytest.raises(RequestFailed) as failure:
        service.client.request(method, path, body)
    assert failure.value.status == 400


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_world(tmp_path_factory.mktemp("events"), 0) as (_, root, _):
        yield root
