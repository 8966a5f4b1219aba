"""Network namespaces for tests: made, entered by threads and programs, and gone when the test ends.

Sockets and TAP devices belong to the namespace in which they were made, whoever uses them later: so a test makes them on a thread
that has entered it, and uses them from where it likes.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)

#: For tests that need privileges which CI has.
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun: network namespaces and TAP devices"
)


def ip(*words: str, namespace: str | None = None) -> str:
    """Run ip(8); AssertionError with what it says when it fails."""
    command = ["ip", *(["-n", namespace] if namespace else []), *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


class Namespace:
    """A named network namespace with its loopback up."""

    def __init__(self) -> None:
        self.name = f"nct{os.getpid()}n{next(_numbers)}"
        ip("netns", "add", self.name)
        ip("link", "set", "lo", "up", namespace=self.name)

    def ip(self, *words: str) -> str:
        return ip(*words, namespace=self.name)

    def command(self, *words: str) -> list[str]:
        """What runs a program inside."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, check=False)

    def inside(self, function: Callable[[], T]) -> T:
        """What `function` returns, called on a thread in the namespace."""
        results: list[Any] = []

        def enter() -> None:
            try:
                with open(f"/run/netns/{self.name}") as file:
                    if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                results.append((function(), None))
            except BaseException as error:
                results.append((None, error))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        value, error = results[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        ip("netns", "del", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def cable(a: Namespace, b: Namespace, name_a: str, name_b: str) -> Iterator[None]:
    """A veth pair between two namespaces, up, without addresses. It goes with either of them."""
    ip("link", "add", name_a, "netns", a.name, "type", "veth", "peer", "name", name_b, "netns", b.name)
    a.ip("link", "set", name_a, "up")
    b.ip("link", "set", name_b, "up")
    yield
