"""The relay of two streams, where it ends in an unusual moment."""

from __future__ import annotations

import socket

import pytest
import trio

from netcon.forward.relay import relay


async def test_cancelled_when_all_is_sent_it_closes_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing is no point at which one of them could be forgotten."""
    send_eof = trio.SocketStream.send_eof
    ended: list[trio.SocketStream] = []

    async def counted(stream: trio.SocketStream) -> None:
        await send_eof(stream)
        ended.append(stream)
        if len(ended) == 2:
            scope.cancel()

    monkeypatch.setattr(trio.SocketStream, "send_eof", counted)
    near, one = socket.socketpair()
    far, other = socket.socketpair()
    with near, far, trio.CancelScope() as scope:
        near.shutdown(socket.SHUT_WR)
        far.shutdown(socket.SHUT_WR)
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (one, other)]
        await relay(*streams)
    assert scope.cancel_called
    assert [stream.socket.fileno() for stream in streams] == [-1, -1]
