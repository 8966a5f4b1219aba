"""Expected replies, packets that wait, identities asked for (vl1 §4.6, §5.7)."""

from __future__ import annotations

from netcon.core.queues import (
    MAX_EXPECTED,
    MAX_QUEUED,
    MAX_QUEUED_PER_KEY,
    MAX_WHOIS,
    MAX_WHOIS_FOR_OTHERS,
    QUEUE_LIFETIME_MS,
    ExpectedReplies,
    WaitingRoom,
    WhoisRequests,
)

NOW = 1_000_000


def test_a_reply_matches_by_the_top_half_of_the_id_and_by_its_sender() -> None:
    expected = ExpectedReplies()
    expected.remember(0x1122334455667788, 5)
    assert expected.matches(0x11223344FFFFFFFF, 5)
    assert expected.matches(0x1122334455667788, 5)
    assert not expected.matches(0x1122334455667788, 6)
    assert not expected.matches(0x1122334555667788, 5)


def test_the_oldest_expectation_goes_first() -> None:
    expected = ExpectedReplies()
    for number in range(MAX_EXPECTED + 1):
        expected.remember(number << 32, 1)
    assert not expected.matches(0, 1)
    assert expected.matches(1 << 32, 1)
    assert expected.matches(MAX_EXPECTED << 32, 1)


def test_what_waits_comes_out_in_order_and_only_for_its_key() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    for key, item in ((1, "a"), (2, "x"), (1, "b")):
        room.hold(key, item, NOW)
    assert room.release(1, NOW) == ["a", "b"]
    assert room.release(1, NOW) == []
    assert room.waited_for() == [2]
    assert len(room) == 1


def test_nothing_waits_longer_than_five_seconds() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    room.hold(1, "old", NOW)
    room.hold(1, "new", NOW + 3_000)
    assert room.expire(NOW + QUEUE_LIFETIME_MS) == 1
    assert room.release(1, NOW + QUEUE_LIFETIME_MS) == ["new"]
    room.hold(2, "late", NOW)
    assert room.release(2, NOW + QUEUE_LIFETIME_MS) == []


def test_the_room_is_bounded_per_key_and_in_total() -> None:
    room: WaitingRoom[int] = WaitingRoom()
    for number in range(MAX_QUEUED_PER_KEY + 10):
        room.hold("key", number, NOW)
    assert room.release("key", NOW) == list(range(10, MAX_QUEUED_PER_KEY + 10))
    for number in range(MAX_QUEUED + 100):
        room.hold(number, number, NOW + number)
    assert len(room) == MAX_QUEUED
    assert room.release(99, NOW + 200) == []
    assert room.release(100, NOW + 200) == [100]


def test_an_address_is_asked_for_every_half_second_for_five() -> None:
    whois = WhoisRequests()
    assert whois.want(7, NOW)
    assert not whois.want(7, NOW + 100)
    assert whois.due(NOW + 400) == []
    asked = [at for at in range(500, 8_000, 100) if whois.due(NOW + at)]
    assert asked == list(range(500, 5_100, 500))
    assert not whois.wanted(7)


def test_an_answer_ends_the_asking() -> None:
    whois = WhoisRequests()
    whois.want(7, NOW)
    whois.answered(7)
    assert not whois.wanted(7)
    assert whois.due(NOW + 1_000) == []


def test_too_many_unknown_addresses_are_not_asked_for() -> None:
    whois = WhoisRequests()
    assert all(whois.want(number, NOW) for number in range(MAX_WHOIS))
    assert not whois.want(MAX_WHOIS, NOW)
    assert len(whois) == MAX_WHOIS


def test_others_cannot_use_up_the_questions_that_our_own_packets_need() -> None:
    whois = WhoisRequests()
    asked = [whois.want(number, NOW, for_others=True) for number in range(MAX_WHOIS)]
    assert asked == [True] * MAX_WHOIS_FOR_OTHERS + [False] * (MAX_WHOIS - MAX_WHOIS_FOR_OTHERS)
    assert whois.want(1 << 39, NOW)
    assert whois.due(NOW + 500)[-1] == 1 << 39
