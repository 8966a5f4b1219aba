"""SOCKS5's messages: golden bytes from RFC 1928 and 1929's layouts, and that no bytes do harm."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.forward import socks
from netcon.forward.socks import LONGEST, ReplyCode, Request, SocksError

PARSERS = (socks.parse_greeting, socks.parse_password, socks.parse_request)


def test_messages() -> None:
    assert socks.parse_greeting(b"\5\2\0\2rest") == (b"\0\2", 4)
    assert socks.parse_greeting(b"\5\0") == (b"", 2)
    assert socks.parse_password(b"\1\3bob\2pwrest") == ((b"bob", b"pw"), 8)
    assert socks.parse_password(b"\1\0\0") == ((b"", b""), 3)
    assert socks.parse_request(b"\5\1\0\1\x0a\1\2\3\0\x50rest") == (Request(1, "10.1.2.3", 80), 10)
    assert socks.parse_request(b"\5\3\0\3\6a.name\x1f\x90") == (Request(3, "a.name", 8080), 13)
    assert socks.parse_request(b"\5\1\0\4\xfd" + bytes(14) + b"\1\0\x50") == (Request(1, "fd00::1", 80), 22)
    assert socks.pack_reply(ReplyCode.SUCCEEDED, "10.1.2.3", 80) == b"\5\0\0\1\x0a\1\2\3\0\x50"
    assert socks.pack_reply(ReplyCode.REFUSED) == b"\5\5\0\1\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ECONNREFUSED, 5), (errno.EHOSTUNREACH, 4), (errno.ETIMEDOUT, 4), (errno.ENETUNREACH, 3), (errno.EPIPE, 1), (None, 1)],
)
def test_errors_as_replies(number: int | None, code: int) -> None:
    assert socks.code_of(OSError(number, "x")) == code


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"\4\1\0\x50", "SOCKS4"), (b"GET / HTTP/1.1", "HTTP"), (b"\x16\3\1", "something else")],
)
def test_other_protocols_are_named(data: bytes, why: str) -> None:
    with pytest.raises(SocksError, match=why):
        socks.parse_greeting(data)


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"\5\1\0\2\x0a\1\2\3\0\x50", ReplyCode.ADDRESS_NOT_SUPPORTED),
        (b"\5\1\0\3\0\0\x50", ReplyCode.ADDRESS_NOT_SUPPORTED),
        (b"\5\1\0\3\2a\n\0\x50", ReplyCode.ADDRESS_NOT_SUPPORTED),
        (b"\5\1\0\3\2\xc3\xbc\0\x50", ReplyCode.ADDRESS_NOT_SUPPORTED),
        (b"\4\1\0\1\x0a\1\2\3\0\x50", None),
    ],
)
def test_requests_that_are_refused(data: bytes, reply: ReplyCode | None) -> None:
    with pytest.raises(SocksError) as caught:
        socks.parse_request(data)
    assert caught.value.reply is reply


@given(st.sampled_from(["10.1.2.3", "fd00::1"]), st.integers(0, 65535), st.binary(max_size=50))
def test_datagrams_there_and_back(ip: str, port: int, payload: bytes) -> None:
    assert socks.parse_datagram(socks.pack_datagram(ip, port, payload)) == (ip, port, payload)


def test_a_fragment_is_refused() -> None:
    with pytest.raises(SocksError):
        socks.parse_datagram(b"\0\0\1" + socks.pack_datagram("10.1.2.3", 1, b"x")[3:])


@given(st.sampled_from(PARSERS), st.binary(max_size=2 * LONGEST))
def test_any_bytes_are_a_message_wait_or_are_refused(parse, data: bytes) -> None:
    """And byte by byte the result is the same; who waits for more waits for a bounded number of bytes."""
    try:
        found = parse(data)
    except SocksError:
        return
    if found is None:
        assert len(data) < LONGEST
    else:
        assert parse(data[: found[1]]) == found
        for length in range(found[1]):
            assert parse(data[:length]) is None


@given(st.binary(max_size=300))
def test_any_datagram_is_taken_or_refused(data: bytes) -> None:
    try:
        host, port, payload = socks.parse_datagram(data)
    except SocksError:
        return
    assert host
    assert 0 <= port < 65536
    assert data.endswith(payload)
