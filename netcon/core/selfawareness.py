"""What others say our physical address is (vl1 §5.10)."""

from __future__ import annotations

from netcon.core.address import Endpoint, Scope, scope_of

#: Life of a report, ms (vl1 §1.3).
REPORT_LIFETIME_MS = 600_000
#: Reports kept.
MAX_REPORTS = 1_024


class SelfAwareness:
    """Address reports, keyed by who told us, where we asked from, and the scope of the reporter's address."""

    def __init__(self) -> None:
        self._reports: dict[tuple[int, int, Endpoint, Scope], tuple[Endpoint, int]] = {}

    def report(self, reporter: int, socket: int, remote: Endpoint, mine: Endpoint, trusted: bool, now: int) -> Scope | None:
        """Take a report that arrived on a direct path. Returns the scope whose paths must be confirmed again because our address
        in it changed, or None."""
        scope = scope_of(mine.ip)
        if scope != scope_of(remote.ip) or scope in (Scope.NONE, Scope.LOOPBACK, Scope.MULTICAST):
            return None
        key = (reporter, socket, remote, scope)
        known = self._reports.get(key)
        changed = trusted and known is not None and now - known[1] < REPORT_LIFETIME_MS and known[0].ip != mine.ip
        if changed:
            # Reports from elsewhere are about the old address: drop them, or they would undo this one.
            for other in [k for k in self._reports if k[3] is scope and k[2] != remote]:
                del self._reports[other]
        elif known is None and len(self._reports) >= MAX_REPORTS:
            del self._reports[next(iter(self._reports))]
        self._reports[key] = (mine, now)
        return scope if changed else None

    def endpoints(self, now: int) -> list[Endpoint]:
        """Our external addresses as anybody reported them, without repetition."""
        return list(dict.fromkeys(mine for mine, since in self._reports.values() if now - since < REPORT_LIFETIME_MS))

    def expire(self, now: int) -> None:
        old = [key for key, (_, since) in self._reports.items() if now - since >= REPORT_LIFETIME_MS]
        for key in old:
            del self._reports[key]
