"""Start `tests.standalone_service` (one stack, one socket server, no ZeroTier) for tests that need only sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]


class StandaloneService:
    """A running standalone service with its own addresses; `path` is its RPC socket."""

    def __init__(self, folder: Path, addresses: list[str], *, policy: str = "", peer: str = "") -> None:
        self.path = str(folder / "rpc.sock")
        arguments = [argument for address in addresses for argument in ("--address", address)]
        arguments += ["--policy", policy] if policy else []
        arguments += ["--peer", peer] if peer else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.standalone_service", "--path", self.path, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.strip() != "READY":
            self.stop()
            raise RuntimeError(f"the standalone service did not start: {line!r}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> StandaloneService:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
