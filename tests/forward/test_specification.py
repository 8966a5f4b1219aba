"""ssh's syntax of forwards: what is understood, and that whatever else is written gets an answer that says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.forward.specification import Direction, ForwardError, Inet, Place, Unix, parse_forward, parse_place

L, R = Direction.LOCAL, Direction.REMOTE


@pytest.mark.parametrize(
    ("direction", "text", "listen", "target"),
    [
        (L, "8080:10.1.2.3:80", Inet("127.0.0.1", 8080), Inet("10.1.2.3", 80)),
        (L, "0:name.net:80", Inet("127.0.0.1", 0), Inet("name.net", 80)),
        (L, "0.0.0.0:8080:10.1.2.3:80", Inet("0.0.0.0", 8080), Inet("10.1.2.3", 80)),
        (L, "[::1]:8080:[fd00::1]:80", Inet("::1", 8080), Inet("fd00::1", 80)),
        (L, "*:8080:10.1.2.3:80", Inet("::", 8080), Inet("10.1.2.3", 80)),
        (L, ":8080:10.1.2.3:80", Inet("::", 8080), Inet("10.1.2.3", 80)),
        (L, "/run/x.sock:10.1.2.3:80", Unix("/run/x.sock"), Inet("10.1.2.3", 80)),
        (R, "8080:localhost:80", Inet("::", 8080), Inet("localhost", 80)),
        (R, "10.1.2.3:8080:[::1]:80", Inet("10.1.2.3", 8080), Inet("::1", 80)),
        (R, "8080:/run/x.sock", Inet("::", 8080), Unix("/run/x.sock")),
        (R, "10.1.2.3:8080:./x.sock", Inet("10.1.2.3", 8080), Unix("./x.sock")),
    ],
)
def test_what_is_understood(direction: Direction, text: str, listen: Place, target: Place) -> None:
    found = parse_forward(direction, text)
    assert (found.direction, found.udp, found.listen, found.target) == (direction, False, listen, target)


def test_udp_by_prefix_or_option() -> None:
    assert parse_forward(L, "udp:53:10.1.2.3:53") == parse_forward(L, "53:10.1.2.3:53", udp=True)
    assert parse_forward(L, "udp:53:10.1.2.3:53").udp


@pytest.mark.parametrize(
    ("direction", "text", "why"),
    [
        (L, "8080", "missing"),
        (L, "10.1.2.3:80", "missing"),
        (L, "1:2:3:4:5", "too many"),
        (L, "8080:fd00::1:80", "too many"),
        (L, "8080:10.1.2.3:0", "no port number"),
        (L, "65536:10.1.2.3:80", "no port number"),
        (L, "8080:10.1.2.3:http", "no port number"),
        (L, "8080::80", "empty"),
        (L, "8080:[fd00::1:80", "brackets"),
        (L, "8080:[fd00::1]x:80", "brackets"),
        (L, "8080:/run/x.sock", "none on a network"),
        (R, "/run/x.sock:10.1.2.3:80", "none on a network"),
        (R, "udp:8080:/run/x.sock", "UDP is not"),
        (L, "udp:/run/x.sock:10.1.2.3:80", "UDP is not"),
        (L, "", "missing"),
    ],
)
def test_what_is_not(direction: Direction, text: str, why: str) -> None:
    with pytest.raises(ForwardError, match=why) as caught:
        parse_forward(direction, text)
    assert "[udp:][bind:]port:host:hostport" in str(caught.value)


def test_a_place_to_listen() -> None:
    assert parse_place("1080") == Inet("127.0.0.1", 1080)
    assert parse_place("[::1]:1080") == Inet("::1", 1080)
    assert parse_place("/run/x") == Unix("/run/x")
    for wrong in ("", "a:b:1", "host", "1080x"):
        with pytest.raises(ForwardError):
            parse_place(wrong)


@given(st.text("0123456789:[]./au*pd", max_size=30), st.sampled_from(Direction))
def test_anything_is_understood_or_refused(text: str, direction: Direction) -> None:
    try:
        found = parse_forward(direction, text)
    except ForwardError:
        return
    assert str(found)
