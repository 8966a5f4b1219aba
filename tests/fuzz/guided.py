"""One target under atheris (libFuzzer for Python), in a process of its own: `python -m tests.fuzz.guided TARGET FOLDER [OPTION…]`.
The options are libFuzzer's. Only netcon's own modules are instrumented, which must happen while they are imported."""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["netcon"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    (target,) = [target for target in TARGETS if target.name == sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: (target(data), None)[1])
    atheris.Fuzz()
