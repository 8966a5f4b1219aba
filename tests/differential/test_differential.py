"""Every case on kernel sockets and on ours, IPv4 and IPv6: what the program observes must be the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon import intercept
from tests.differential import runner
from tests.differential.harness import CASES
from tests.standalone import StandaloneService

ROOT = Path(__file__).parents[2]
runner.load()

#: Per family: where the case runs on the kernel, where on ours, and an address in our subnet that nobody has.
FAMILIES = {
    "IPv4": ("127.0.0.1", "10.77.0.1", "10.77.0.99"),
    "IPv6": ("::1", "fd77::1", "fd77::99"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneService]:
    with StandaloneService(tmp_path_factory.mktemp("differential"), ["10.77.0.1/24", "fd77::1/64"]) as running:
        yield running


def start(case: str, address: str, silent: str, environment: dict[str, str] | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.differential.runner", case, address, silent],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def observed(process: subprocess.Popen[str]) -> object:
    output, errors = process.communicate(timeout=60)
    if process.returncode != 0:
        return {"ended": process.returncode, "error": errors.strip().splitlines()[-1:]}
    return json.loads(output)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, family: str, service: StandaloneService) -> None:
    kernel_address, our_address, silent = FAMILIES[family]
    kernel = start(name, kernel_address, "", None)
    ours = start(name, our_address, silent, intercept.run_environment(socket_path=service.path))
    by_kernel, by_us = observed(kernel), observed(ours)
    # Where a case shows its own address, each side shows the one it was given.
    expected = json.loads(json.dumps(by_kernel).replace(f'"{kernel_address}"', f'"{our_address}"'))
    case = CASES[name]
    if case.differs is None:
        assert by_us == expected
    else:
        assert by_us == case.ours
        assert by_us != expected, f"{name} agrees with the kernel now: remove its exception ({case.differs})"


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100
    assert all(case.differs for case in CASES.values() if case.ours is not None)
