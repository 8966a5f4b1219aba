"""docs/conformance.md names files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "conformance.md").read_text()


def test_every_file_that_it_names_is_there() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`([\w/]+\.(?:py|cpp))`", TEXT))
    assert len(named) > 60
    for name in sorted(named):
        file = Path(name).name
        if file.startswith("test_"):
            assert file in tests, name
            if name.startswith("t/"):
                assert (ROOT / "tests" / name.removeprefix("t/")).is_file(), name
        else:
            # After the first of a cell, files are named without their folder.
            folder = ROOT / "netcon" / Path(name).parent
            assert any(path.name == file for path in folder.rglob("*")), name
