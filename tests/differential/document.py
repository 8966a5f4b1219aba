"""Write docs/compatibility.md from the suite: `python3 -m tests.differential.document`."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

from tests.differential import cases
from tests.differential.harness import CASES, Case

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

HEAD = """\
# Compatibility with the kernel's TCP and UDP

Generated from `tests/differential` by `python3 -m tests.differential.document`; a test compares the two.

Each case is a small program that runs, unchanged, on kernel sockets and on netcon's, for IPv4 and IPv6, and must observe the same
results, errno names and event bits. {total} cases; {same} agree, {different} differ, each for the reason given here and in the way
given here: a difference that grows, shrinks or goes away fails the suite.

| subject | cases | differ |
|---|---|---|
{subjects}

## Differences

| case | netcon | why |
|---|---|---|
{differences}

## Not covered

* ICMP and raw sockets (`tests/lwip/test_rpc_icmp.py`); what is left of UDP is in `docs/intercept.md`.
* `SO_LINGER` with a time: `close` is the kernel's own on the pair and returns at once, and the service sends what was written
  (with 0 seconds it resets the connection, and so does a `shutdown` of the direction that is left: from the service's side both
  look the same).
* `SO_SNDBUF` bounds what the service holds of a connection; the pair takes up to 212,992 bytes more. `TCP_NOTSENT_LOWAT` is shown,
  and `poll` does not know it. `TCP_CORK` and `TCP_QUICKACK` are hints, and shown as never set.
* `TCP_FASTOPEN`, `TCP_ULP`, `SO_ZEROCOPY` are refused with `ENOPROTOOPT`, `MSG_FASTOPEN` with `EOPNOTSUPP`, as by older kernels.
* A connection that a timer ended (keep-alive, `TCP_USER_TIMEOUT`, retransmission): `recv` and `SO_ERROR` say `ETIMEDOUT`, a plain
  `read` says `ECONNRESET`.
* Windows: 64 KiB at first; what a program has not read beyond that stays with the peer until it keeps pace (up to 2 MiB).
* `read` on a listening socket takes a waiting connection away and loses it; on a stream that is not connected it waits, and `write`
  is accepted and discarded. (`recv` and `send` answer as the kernel's.)
* `/proc/net/tcp`, `ss`, `lsof -i`, and whoever asks by raw system call, see AF_UNIX sockets.
* `pthread_cancel` in `accept`, `recv`, `connect`: they are no cancellation points.
* The true errno of a failed connect when the first to ask is `read` or `write`; `recv`, `send` and `SO_ERROR` tell it.
* Data that arrives after `shutdown(SHUT_RD)`: TCP still delivers it, here it is discarded.
* Timing: how soon, how fast, how many bytes a buffer takes. Loss, reordering and time-outs on the wire.
* What real programs do with all this: `tests/intercept` and `tests/integration` run them.
"""


def subjects() -> dict[str, tuple[str, list[Case]]]:
    """By module of `cases`: what its docstring says it is about, and its cases."""
    found: dict[str, tuple[str, list[Case]]] = {}
    for module in sorted(pkgutil.iter_modules(cases.__path__), key=lambda module: module.name):
        loaded = importlib.import_module(f"{cases.__name__}.{module.name}")
        own = [case for case in CASES.values() if case.run.__module__ == loaded.__name__]
        found[module.name] = ((loaded.__doc__ or "").strip().rstrip(".").replace("\n", " "), own)
    return found


def page() -> str:
    """The whole page."""
    rows = [
        f"| {about} | {len(own)} | {sum(case.differs is not None for case in own) or ''} |" for about, own in subjects().values()
    ]
    different = [case for _, own in subjects().values() for case in own if case.differs is not None]
    shown = [f"| {case.name.replace('_', ' ')} | `{json.dumps(case.ours)}` | {case.differs} |" for case in different]
    return HEAD.format(
        total=len(CASES),
        same=len(CASES) - len(different),
        different=len(different),
        subjects="\n".join(rows),
        differences="\n".join(shown),
    )


if __name__ == "__main__":
    PAGE.write_text(page())
