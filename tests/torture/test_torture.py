"""Random programs on kernel sockets and on ours must observe the same: fixed seeds, and some that are new every time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon import intercept
from tests.standalone import StandaloneService
from tests.torture.model import build
from tests.torture.runner import Side, Torture, compile_interpreter
from tests.torture.script import generate

FAMILIES = {"IPv4": ("127.0.0.1", "10.77.0.1"), "IPv6": ("::1", "fd77::1")}
OPS = 60
SCRIPTS = 20  # of a test
FIXED = range(100, 100 + SCRIPTS)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneService]:
    with StandaloneService(tmp_path_factory.mktemp("torture"), ["10.77.0.1/24", "fd77::1/64"]) as running:
        yield running


@pytest.fixture(scope="module", params=["gcc", "musl-gcc"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_interpreter(tmp_path_factory.mktemp("interpreter"), request.param)


@pytest.fixture(params=FAMILIES)
def torture(request: pytest.FixtureRequest, program: Path, service: StandaloneService) -> Torture:
    kernel, ours = FAMILIES[request.param]
    return Torture(Side(program, kernel), Side(program, ours, intercept.run_environment(socket_path=service.path)))


def assert_agree(torture: Torture, seed: int) -> None:
    ops = generate(seed, OPS)
    difference = torture.compare(ops)
    if difference is not None:
        small = torture.shrink(ops, 60.0, time.monotonic)
        pytest.fail(f"seed {seed}: {difference.first()}\nsmallest: {small}\n{torture.compare(small) or difference}")


def test_fixed_seeds(torture: Torture) -> None:
    for seed in FIXED:
        assert_agree(torture, seed)
    assert torture.unstable <= SCRIPTS // 4, "the kernel itself is not steady under these scripts"


def test_new_seeds(torture: Torture) -> None:
    first = random.SystemRandom().randrange(1 << 30)
    print(f"seeds from {first} on: python3 -m tests.torture --seed {first}")
    for seed in range(first, first + SCRIPTS // 4):
        assert_agree(torture, seed)


def test_a_difference_is_found_and_made_small(torture: Torture) -> None:
    """The oracle and the shrinker themselves: one side's own address is unknown to it, which only names show."""
    ops = generate(100, OPS)
    lines = build(ops).lines
    kernel = torture.kernel.run(lines)
    assert kernel[-1] == "exit 0"
    assert len(kernel) == len(lines) + 1
    astray = Torture(torture.kernel, Side(torture.kernel.program, "no address"))
    assert astray.compare(ops) is not None
    small = astray.shrink(ops, 20.0, time.monotonic)
    assert astray.compare(small) is not None
    # A connection, and one call that says an address of it; perhaps a process in which one end is.
    assert len(small) <= 8, small
