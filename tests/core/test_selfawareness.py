"""What others say our address is (vl1 §5.10)."""

from __future__ import annotations

from netcon.core.address import Endpoint, Scope
from netcon.core.selfawareness import REPORT_LIFETIME_MS, SelfAwareness

NOW = 1_000_000
ROOT = Endpoint(bytes((8, 8, 8, 8)), 9993)
MINE = Endpoint(bytes((9, 9, 9, 9)), 1_000)
MOVED = Endpoint(bytes((9, 9, 9, 10)), 1_000)


def test_the_first_report_is_no_change() -> None:
    awareness = SelfAwareness()
    assert awareness.report(1, 1, ROOT, MINE, True, NOW) is None
    assert awareness.endpoints(NOW) == [MINE]


def test_another_ip_reported_by_an_upstream_is_a_change_another_port_is_not() -> None:
    awareness = SelfAwareness()
    awareness.report(1, 1, ROOT, MINE, True, NOW)
    assert awareness.report(1, 1, ROOT, Endpoint(MINE.ip, 2_000), True, NOW + 1) is None
    assert awareness.report(1, 1, ROOT, MOVED, True, NOW + 2) is Scope.GLOBAL
    assert awareness.endpoints(NOW + 2) == [MOVED]


def test_leaves_cannot_reset_anything() -> None:
    awareness = SelfAwareness()
    awareness.report(1, 1, ROOT, MINE, False, NOW)
    assert awareness.report(1, 1, ROOT, MOVED, False, NOW + 1) is None


def test_reports_across_scopes_and_of_useless_scopes_are_ignored() -> None:
    awareness = SelfAwareness()
    private, loopback = Endpoint(bytes((10, 0, 0, 1)), 1), Endpoint(bytes((127, 0, 0, 1)), 1)
    assert awareness.report(1, 1, ROOT, private, True, NOW) is None
    assert awareness.report(1, 1, loopback, loopback, True, NOW) is None
    assert awareness.endpoints(NOW) == []


def test_old_reports_count_no_more() -> None:
    awareness = SelfAwareness()
    awareness.report(1, 1, ROOT, MINE, True, NOW)
    assert awareness.report(1, 1, ROOT, MOVED, True, NOW + REPORT_LIFETIME_MS) is None
    awareness.expire(NOW + 3 * REPORT_LIFETIME_MS)
    assert awareness.endpoints(NOW) == []


def test_a_change_drops_what_others_said_of_the_old_address() -> None:
    awareness = SelfAwareness()
    other = Endpoint(bytes((8, 8, 4, 4)), 9993)
    awareness.report(1, 1, ROOT, MINE, True, NOW)
    awareness.report(2, 1, other, MINE, True, NOW)
    assert awareness.report(1, 1, ROOT, MOVED, True, NOW + 1) is Scope.GLOBAL
    assert awareness.report(2, 1, other, MOVED, True, NOW + 2) is None
    assert awareness.endpoints(NOW + 2) == [MOVED]
