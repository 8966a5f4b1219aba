"""Broken requests to the HTTP API of a running service: refused with a text, or taken; never a 500, never a defect in the log."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from netcon.service.paths import api_socket
from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import NETWORK_RECORDS
from tests.service.running import RunningService, World
from tests.service.support import IDENTITIES

NETWORK = f"{IDENTITIES[0].address:010x}cafe01"
MEMBER = f"{IDENTITIES[1].address:010x}"
#: Where a POST goes, and bodies to begin from. None of them may open the service to other machines, whatever is changed.
BODIES: dict[str, list[object]] = {
    "/controller/network": list(NETWORK_RECORDS),
    f"/controller/network/{NETWORK}": list(NETWORK_RECORDS),
    f"/controller/network/{NETWORK}/member/{MEMBER}": list(NETWORK_RECORDS),
    f"/controller/network/{NETWORK}/token": [{"maximumUses": 1, "expires": 1700000000000, "description": "of a test"}],
    f"/network/{NETWORK}": [{"allowManaged": True, "allowGlobal": False, "addresses": ["10.1.2.3/24"], "token": "x" * 24}],
    f"/network/{NETWORK}/capture": [
        {"snaplen": 100, "frames": 1, "limit": 9999, "ethertype": 2048, "host": "10.1.2.3", "port": 80}
    ],
    "/moon/0082915f5e": [{"seed": "0082915f5e"}],
    "/policy": [{"policy": "loopback virtual\n10.0.0.0/8 tcp 80 refuse\ndefault network\n"}],
    "/config/settings": [{"policy": "default network"}, {"primaryPort": "x"}],
    f"/netcon/message/{MEMBER}": [{"type": 65536, "data": "0badcafe"}],
}
#: Read, deleted, and with a query. Names are not among them: whoever asks for a changed one asks the host's name server.
PATHS = (
    "/status",
    f"/network/{NETWORK}?jsonp=name",
    f"/peer/{MEMBER}",
    "/moon/0082915f5e",
    "/capture/1",
    "/names/10.1.2.3?network=" + NETWORK,
    "/netcon/events?since=1&wait=0",
    f"/controller/network/{NETWORK}/member/{MEMBER}",
    f"/controller/network/{NETWORK}/token/abc",
    f"/unstable/controller/network/{NETWORK}/member",
    f"/controller/network/{IDENTITIES[0].address:010x}______",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    world = World(tmp_path_factory.mktemp("fuzzed"), 0)
    with RunningService(world.root_home) as running:
        running.client.post(f"/controller/network/{NETWORK}", {})
        running.client.post(f"/network/{NETWORK}", {})
        yield running


@pytest.fixture
def http(service: RunningService) -> Iterator[httpx.Client]:
    """Afterwards the service answers as before, and knows of no defect."""
    transport = httpx.HTTPTransport(uds=str(api_socket(service.home)))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60, trust_env=False) as client:
        yield client
        status = client.get("/status").json()
        assert status["address"] == f"{IDENTITIES[0].address:010x}"
        assert "failed" not in service.log.read_text()
        assert "defect" not in service.log.read_text()


def check(answer: httpx.Response, shown: object) -> None:
    assert answer.status_code < 500, f"{shown}: {answer.status_code} {answer.text}"
    if answer.status_code == 400:
        assert answer.json()["description"], shown


@pytest.mark.parametrize("path", BODIES)
def test_changed_bodies(http: httpx.Client, path: str) -> None:
    generator = random.Random(f"body of {path}")
    corpus = [json.dumps(body).encode() for body in BODIES[path]]
    mutator = Mutator(corpus, generator)
    statuses = set()
    for data in [*corpus, b"", b"[]", b"1e999", b"\xff", b"[" * 5000, b'{"\\ud800": 1}', *(mutator.next() for _ in range(150))]:
        answer = http.post(path, content=data)
        check(answer, (path, data))
        statuses.add(answer.status_code)
    assert statuses - {404}, "the path is none of the API's"


def test_changed_paths_and_queries(http: httpx.Client) -> None:
    generator = random.Random("paths")
    mutator = Mutator([path.encode() for path in PATHS], generator)
    given = [*PATHS, "/names/10.1.2.3?network=none", "/capture/" + "9" * 5000, "/netcon/events?since=" + "9" * 5000]
    for path in [*given, *(mutator.next().decode("latin-1") for _ in range(600))]:
        if path.startswith("/names/") and path not in given:
            continue
        for method in ("GET", "DELETE", "POST"):
            if (answer := ask(http, method, path)) is not None:
                check(answer, (method, path))


def ask(http: httpx.Client, method: str, path: str) -> httpx.Response | None:
    """None: the client refuses to send such an address."""
    sent = quote("/" + path.lstrip("/"), safe="/?&=%", encoding="latin-1")[:8_000]
    if "wait=" in sent and not sent.endswith("wait=0"):
        return None  # it may well wait
    return http.request(method, sent)
