"""The proxies between host sockets and two stacks: what is answered, with and without credentials, and to hostile clients."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netcon.forward import socks
from netcon.forward.proxy import ProxySettings, check_credentials, run_proxies, serve_http, serve_socks
from netcon.forward.sides import NetworkSide
from netcon.forward.specification import ForwardError, parse_place
from netcon.sockets import ServiceUnavailable, open_udp
from tests.forward.conftest import naming
from tests.forward.test_forwards import DATA, exchange, network_echo
from tests.lwip.service import NETWORK_B, THERE, THERE6, Service, eventually

CREDENTIALS = (b"bob", b"secret")


@contextlib.asynccontextmanager
async def proxies(side: NetworkSide, *wanted: tuple[str, str], **more: object) -> AsyncIterator[list[int]]:
    """Run proxies, ("socks" or "http", place); yields their ports."""
    lines: list[str] = []
    started = trio.Event()

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == len(wanted):
            started.set()

    places = [(kind, parse_place(text)) for kind, text in wanted]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await run_proxies(places, side, say, settings=ProxySettings(**more), connections_max=10)  # type: ignore[arg-type]

            nursery.start_soon(run)
            await started.wait()
            yield [int(found[1]) if (found := re.search(r":(\d+)$", line)) else 0 for line in lines]
            nursery.cancel_scope.cancel()


def request(host: str, port: int, command: int = 1) -> bytes:
    return bytes([5, command, 0, 3, len(host)]) + host.encode() + struct.pack(">H", port)


async def read_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more, data
        data += more
    return data


async def socks_client(port: int, message: bytes) -> tuple[trio.SocketStream, bytes]:
    """All that the client has to say at once; the stream, and the reply's first two bytes after the greeting's."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(b"\5\1\0" + message)
    assert await read_exactly(stream, 2) == b"\5\0"
    return stream, (await read_exactly(stream, 10))[:2]


@pytest.mark.parametrize("there", [THERE, THERE6, "a.name"])
async def test_socks_connects_by_address_or_name(service: Service, side: NetworkSide, there: str) -> None:
    async with (
        naming(service, {"a.name": [THERE]}),
        network_echo(service, THERE6 if ":" in there else THERE) as port,
        proxies(side, ("socks", "0")) as (local,),
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", local)
        await stream.send_all(b"\5\2\0\2" + request(there, port) + b"early ")  # without waiting for anything
        assert await read_exactly(stream, 2) == b"\5\0"
        head = await read_exactly(stream, 4)
        assert head[:3] == b"\5\0\0"
        await read_exactly(stream, 18 if head[3] == 4 else 6)
        assert await exchange(stream, DATA) == b"early " + DATA


async def test_socks_replies(service: Service, side: NetworkSide) -> None:
    async with naming(service, {}), proxies(side, ("socks", "0")) as (local,):
        for message, code in (
            (request(THERE, 1), 5),
            (request("192.0.2.1", 1), 3),
            (request("a.name", 1), 4),
            (request(THERE, 1, command=2), 7),
            (b"\5\1\0\7" + bytes(8), 8),
        ):
            stream, reply = await socks_client(local, message)
            async with stream:
                assert reply == bytes([5, code])
        async with await trio.open_tcp_stream("127.0.0.1", local) as stream:
            await stream.send_all(b"\5\1\2")
            assert await stream.receive_some() == b"\5\xff"


async def test_socks_with_credentials(service: Service, side: NetworkSide) -> None:
    async with network_echo(service) as port, proxies(side, ("socks", "0"), credentials=CREDENTIALS) as (local,):
        async with await trio.open_tcp_stream("127.0.0.1", local) as stream:
            await stream.send_all(b"\5\1\0")
            assert await stream.receive_some() == b"\5\xff"
        for password, good in ((b"secret", True), (b"wrong!", False)):
            stream = await trio.open_tcp_stream("127.0.0.1", local)
            await stream.send_all(b"\5\1\2\1\3bob\6" + password)
            assert await read_exactly(stream, 4) == b"\5\2\1" + bytes([not good])
            if good:
                await stream.send_all(request(THERE, port))
                assert (await read_exactly(stream, 10))[:2] == b"\5\0"
                assert await exchange(stream, b"x") == b"x"
            await stream.aclose()


async def test_socks_udp_associate(service: Service, side: NetworkSide) -> None:
    async with proxies(side, ("socks", "0")) as (local,), contextlib.AsyncExitStack() as stack:
        stream = await trio.open_tcp_stream("127.0.0.1", local)
        await stream.send_all(b"\5\1\0\5\3\0\1" + bytes(6))
        assert await read_exactly(stream, 2) == b"\5\0"
        reply = await read_exactly(stream, 10)
        assert reply[:2] == b"\5\0"
        relay = ("127.0.0.1", struct.unpack(">H", reply[8:])[0])
        client = stack.enter_context(trio.socket.socket(type=socket.SOCK_DGRAM))
        other = stack.enter_context(trio.socket.socket(type=socket.SOCK_DGRAM))
        for ip in (THERE, THERE6):
            server = await stack.enter_async_context(await open_udp(service.path, ip, 0, NETWORK_B))
            port = (await server.getsockname())[1]
            await client.sendto(b"no datagram", relay)
            await client.sendto(socks.pack_datagram("192.0.2.1", 9, b"lost"), relay)
            await client.sendto(socks.pack_datagram(ip, port, b"question"), relay)
            got = await server.receive_from()
            assert got.data == b"question"
            await other.sendto(socks.pack_datagram(ip, port, b"not the client"), relay)
            await server.send_to(b"answer", got.peer)
            assert socks.parse_datagram(await client.recv(100)) == (ip, port, b"answer")
            await client.sendto(socks.pack_datagram(ip, port, b"last"), relay)
            assert (await server.receive_from()).data == b"last"
        await stream.aclose()


async def test_an_association_that_its_client_resets_ends_nothing_else(service: Service, side: NetworkSide) -> None:
    async with network_echo(service) as port, proxies(side, ("socks", "0")) as (local,):
        stream, reply = await socks_client(local, b"\5\3\0\1" + bytes(6))
        assert reply == b"\5\0"
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        await stream.aclose()
        await trio.to_thread.run_sync(eventually, lambda: not service.count("datagram_sockets"), "the association ended")
        stream, reply = await socks_client(local, request(THERE, port))
        assert reply == b"\5\0"
        assert await exchange(stream, b"x") == b"x"


async def test_udp_associate_needs_tcp(side: NetworkSide, tmp_path: Path) -> None:
    async with proxies(side, ("socks", str(tmp_path / "s"))), await trio.open_unix_socket(tmp_path / "s") as stream:
        await stream.send_all(b"\5\1\0\5\3\0\1" + bytes(6))
        assert (await read_exactly(stream, 12))[2:4] == b"\5\7"


async def http(port: int, head: str) -> tuple[int, bytes]:
    """Status and all that follows the head."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head.replace("\n", "\r\n").encode())
        answer = b"".join([piece async for piece in stream])
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), body


@pytest.mark.parametrize("there", [THERE, f"[{THERE6}]"])
async def test_http_connect(service: Service, side: NetworkSide, there: str) -> None:
    async with network_echo(service, there.strip("[]")) as port, proxies(side, ("http", "0")) as (local,):
        stream = await trio.open_tcp_stream("127.0.0.1", local)
        await stream.send_all(f"CONNECT {there}:{port} HTTP/1.1\r\nHost: {there}:{port}\r\n\r\nearly ".encode())
        established = b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert await read_exactly(stream, len(established)) == established
        assert await exchange(stream, DATA) == b"early " + DATA


async def test_a_plain_request_is_sent_on_as_the_server_wants_it(service: Service, side: NetworkSide) -> None:
    """The echo server answers with what it was sent."""
    async with network_echo(service) as port, proxies(side, ("http", "0")) as (local,):
        async with await trio.open_tcp_stream("127.0.0.1", local) as stream:
            url = f"http://{THERE}:{port}/a/b?c=d"
            head = f"POST {url} HTTP/1.1\nHost: {THERE}:{port}\nX-Kept: 1\nProxy-Connection: keep-alive\n"
            await stream.send_all(
                (head + "Connection: x-gone\nX-Gone: 1\nContent-Length: 4\n\nbody").replace("\n", "\r\n").encode()
            )
            await stream.send_eof()
            sent = b"".join([piece async for piece in stream]).decode()
        expected = f"POST /a/b?c=d HTTP/1.1\nHost: {THERE}:{port}\nX-Kept: 1\nContent-Length: 4\nConnection: close\n\nbody"
        assert sent == expected.replace("\n", "\r\n")


async def test_http_refusals(service: Service, side: NetworkSide) -> None:
    async with naming(service, {}), proxies(side, ("http", "0")) as (local,):
        for head, status, why in (
            (f"CONNECT {THERE}:1 HTTP/1.1\nHost: x\n\n", 502, b"nothing listens there"),
            ("CONNECT a.name:1 HTTP/1.1\nHost: x\n\n", 502, b"no network knows an address of it"),
            ("CONNECT a HTTP/1.1\nHost: x\n\n", 400, b"host:port"),
            ("CONNECT a:99999 HTTP/1.1\nHost: x\n\n", 400, b"host:port"),
            ("GET / HTTP/1.1\nHost: x\n\n", 405, b"this is a proxy"),
            ("GET ftp://x/ HTTP/1.1\nHost: x\n\n", 405, b"this is a proxy"),
            ("GET http://x:99999/ HTTP/1.1\nHost: x\n\n", 400, b"URL"),
            ("\x16\3\1 nonsense\n\n", 400, b"not an HTTP request"),
            ("GET / HTTP/1.1\n" + "X: " + "y" * 40_000, 431, b"not an HTTP request"),
        ):
            code, body = await http(local, head)
            assert (code, why in body) == (status, True), (head, body)


async def test_http_with_credentials(service: Service, side: NetworkSide) -> None:
    async with proxies(side, ("http", "0"), credentials=CREDENTIALS) as (local,):
        for given_text, status in (("bob:secret", 502), ("bob:wrong", 407), ("bob", 407)):
            basic = base64.b64encode(given_text.encode()).decode()
            line = f"CONNECT {THERE}:1 HTTP/1.1\nHost: x\nProxy-Authorization: Basic {basic}\n\n"
            assert (await http(local, line))[0] == status
        assert (await http(local, f"CONNECT {THERE}:1 HTTP/1.1\nHost: x\n\n"))[0] == 407
        assert (await http(local, f"CONNECT {THERE}:1 HTTP/1.1\nHost: x\nProxy-Authorization: Basic %%%\n\n"))[0] == 407


async def test_who_says_nothing_is_sent_away(service: Service, side: NetworkSide) -> None:
    async with proxies(side, ("socks", "0"), ("http", "0"), handshake_s=0.05) as (one, two):
        for port in (one, two):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass


@pytest.mark.parametrize("serve", [serve_socks, serve_http])
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=600), st.binary(max_size=100).map(lambda tail: b"\5\1\0\5" + tail)))
def test_any_bytes_end_in_an_error_of_that_client_alone(serve, tmp_path: Path, data: bytes) -> None:
    """Whatever a client says before it leaves; there is no service, so nothing can succeed."""

    async def main() -> None:
        here, there = socket.socketpair()
        with trio.fail_after(30):
            async with trio.SocketStream(trio.socket.from_stdlib_socket(here)) as stream:
                with there:
                    there.sendall(data)
                    there.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError, ForwardError, ServiceUnavailable, trio.BrokenResourceError):
                        await serve(stream, NetworkSide(tmp_path / "none"), ProxySettings(handshake_s=5))

    trio.run(main)


@pytest.mark.parametrize("text", ["", "bob", "bob:", ":x", "b" * 256 + ":x"])
def test_credentials(text: str) -> None:
    assert check_credentials("bob:a:b") == (b"bob", b"a:b")
    with pytest.raises(ForwardError, match="NAME:PASSWORD"):
        check_credentials(text)
