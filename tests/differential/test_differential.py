"""Every case on kernel sockets and on ours, IPv4 and IPv6: what the program observes must be the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from netcon import intercept
from netcon.policy import Policy
from tests.differential import document, zygote
from tests.differential.harness import CASES
from tests.standalone import StandaloneService

ROOT = Path(__file__).parents[2]
zygote.load()

#: Per family, for the kernel and for ours: the address, one that nobody has ("": made on the spot), one of the other family.
FAMILIES = {
    "IPv4": (("127.0.0.1", "", "::1"), ("10.77.0.1", "10.77.0.99", "fd77::1")),
    "IPv6": (("::1", "", "127.0.0.1"), ("fd77::1", "fd77::99", "10.77.0.1")),
}


#: The same with loopback addresses on both sides, where ours are the virtual loopback's.
VIRTUAL = {
    "virtual IPv4": (("127.0.0.1", "", "::1"), ("127.0.0.1", "10.77.0.99", "::1")),
    "virtual IPv6": (("::1", "", "127.0.0.1"), ("::1", "fd77::99", "127.0.0.1")),
}
#: The virtual loopback carries no groups and has no broadcast address (docs/policy.md).
NOT_VIRTUAL = ("multicast_", "broadcast_")


class Side:
    """A zygote: `start` a case, then `result` gives what it observed."""

    def __init__(self, environment: dict[str, str] | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.differential.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, case: str, *place: str) -> None:
        assert self.process.stdin is not None
        print(json.dumps([case, *place]), file=self.process.stdin, flush=True)

    def result(self) -> object:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        return answer.get("observed", answer)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneService]:
    with StandaloneService(tmp_path_factory.mktemp("differential"), ["10.77.0.1/24", "fd77::1/64"]) as running:
        yield running


@pytest.fixture(scope="module")
def sides(service: StandaloneService) -> Iterator[tuple[Side, Side]]:
    with Side(None) as kernel, Side(intercept.run_environment(socket_path=service.path)) as ours:
        yield kernel, ours


@pytest.fixture(scope="module")
def virtual_sides(service: StandaloneService) -> Iterator[tuple[Side, Side]]:
    policy = Policy.parse("loopback virtual").environment()
    with Side(None) as kernel, Side(intercept.run_environment(socket_path=service.path, policy=policy)) as ours:
        yield kernel, ours


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, family: str, sides: tuple[Side, Side]) -> None:
    compare(name, sides, *FAMILIES[family])


@pytest.mark.parametrize("family", VIRTUAL)
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(NOT_VIRTUAL)])
def test_case_on_the_virtual_loopback(name: str, family: str, virtual_sides: tuple[Side, Side]) -> None:
    compare(name, virtual_sides, *VIRTUAL[family])


def compare(name: str, sides: tuple[Side, Side], kernel_place: tuple[str, str, str], our_place: tuple[str, str, str]) -> None:
    kernel, ours = sides
    kernel.start(name, *kernel_place)
    ours.start(name, *our_place)
    by_kernel, by_us = kernel.result(), ours.result()
    # Where a case shows its own address, each side shows the one it was given.
    expected = json.loads(json.dumps(by_kernel).replace(f'"{kernel_place[0]}"', f'"{our_place[0]}"'))
    case = CASES[name]
    if case.differs is None:
        assert by_us == expected
    else:
        assert by_us == case.ours
        assert by_us != expected, f"{name} agrees with the kernel now: remove its exception ({case.differs})"


def test_each_difference_has_a_reason() -> None:
    assert all(case.differs for case in CASES.values() if case.ours is not None)


def test_the_page_about_compatibility_is_up_to_date() -> None:
    assert document.PAGE.read_text() == document.page(), "run python3 -m tests.differential.document"
