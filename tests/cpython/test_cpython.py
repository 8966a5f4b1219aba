"""CPython's tests end on our sockets as they do on the kernel's, but for what differences.toml explains."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cpython import table
from tests.cpython.runner import HERE, PYTHON, Result, Runs
from tests.cpython.table import Difference

EXPLAINED = [Difference(("m.C.known*",), "passed", "failed", "a reason", says="EPERM")]


@pytest.fixture(scope="module")
def confinement() -> None:
    """Skips where confine.py cannot do its work."""
    command = [PYTHON, str(HERE / "confine.py"), "--", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"no network namespace can be made here: {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("confinement")
def test_results_are_the_kernels() -> None:
    runs, faults = table.run_all()
    assert not faults, "\n".join(f"{test}: {fault}" for test, fault in faults.items())
    stored = json.loads(table.COUNTS.read_text())
    # Another release of CPython has other tests: then the differences count, not the numbers.
    if stored["version"] == table.version():
        assert table.counts(runs) == stored["counts"], "run python3 -m tests.cpython.table"


def test_the_page_is_up_to_date() -> None:
    assert table.PAGE.read_text() == table.page(), "run python3 -m tests.cpython.table"


@pytest.mark.parametrize(
    ("test", "kernel", "ours", "fault"),
    [
        ("m.C.new", Result("passed", ""), Result("failed", "EPERM"), "without an explanation"),
        ("m.C.new", Result("passed", ""), Result("skipped", ""), "without an explanation"),
        ("m.C.new", Result("passed", ""), Result("passed", ""), None),
        ("m.C.known1", Result("passed", ""), Result("failed", "OSError: EPERM"), None),
        ("m.C.known1", Result("passed", ""), Result("failed", "OSError: EIO"), "without an explanation"),
        ("m.C.known1", Result("passed", ""), Result("hung", "EPERM"), "without an explanation"),
        ("m.C.known2", Result("passed", ""), Result("passed", ""), "take it out"),
        ("m.C.known2", Result("skipped", "not here"), Result("skipped", "not here"), None),
    ],
)
def test_what_is_a_fault(test: str, kernel: Result, ours: Result, fault: str | None) -> None:
    found = table.faults(Runs({test: kernel}, {test: ours}), EXPLAINED)
    assert (fault in found[test]) if fault else not found
