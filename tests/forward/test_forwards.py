"""Forwards between the host's sockets and two stacks: TCP, UDP, Unix sockets; ends, resets, limits."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from netcon.forward.command import run_forwards
from netcon.forward.sides import HostSide, NetworkSide
from netcon.forward.specification import Direction, ForwardError, Unix, parse_forward
from netcon.sockets import ServiceUnavailable, TcpStream, listen_tcp, open_tcp, open_udp
from tests.forward.conftest import naming
from tests.lwip.service import HERE, HERE6, NETWORK_B, THERE, THERE6, Service, eventually

DATA = b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(1 << 16))
DEADLINE_S = 60


@contextlib.asynccontextmanager
async def forwarding(
    side: NetworkSide, *texts: str, connections_max: int = 100, flows_max: int = 100, idle_s: float = 60
) -> AsyncIterator[list[int]]:
    """Run forwards, `-L …` or `-R …`; yields the ports on which they listen (0 for Unix sockets)."""
    forwards = [parse_forward(Direction(text[1]), text[3:]) for text in texts]
    lines: list[str] = []
    started = trio.Event()

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == len(forwards):
            started.set()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await run_forwards(forwards, side, say, connections_max=connections_max, flows_max=flows_max, idle_s=idle_s)

            nursery.start_soon(run)
            await started.wait()
            yield [int(found[1]) if (found := re.search(r":(\d+), for", line)) else 0 for line in lines]
            nursery.cancel_scope.cancel()


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Send all back, but only when all has come: half-close."""
    async with stream:
        data = b"".join([piece async for piece in stream])
        await stream.send_all(data)
        await stream.send_eof()
        await trio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def network_echo(service: Service, ip: str = THERE) -> AsyncIterator[int]:
    async with await listen_tcp(service.path, ip, 0, NETWORK_B) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        yield listener.local[1]
        nursery.cancel_scope.cancel()


async def exchange(stream: trio.SocketStream | TcpStream, data: bytes) -> bytes:
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("there", [THERE, f"[{THERE6}]"])
async def test_local_carries_all_both_ways_and_half_closes(service: Service, side: NetworkSide, there: str) -> None:
    async with network_echo(service, there.strip("[]")) as port, forwarding(side, f"-L 0:{there}:{port}") as (local,):
        back = await exchange(await trio.open_tcp_stream("127.0.0.1", local), DATA)
        assert hashlib.sha256(back).digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("here", [HERE, HERE6])
async def test_remote_carries_all_both_ways_and_half_closes(service: Service, side: NetworkSide, here: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, forwarding(side, f"-R 0:127.0.0.1:{port}") as (remote,):
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        back = await exchange(await open_tcp(service.path, here, remote, NETWORK_B), DATA)
        assert hashlib.sha256(back).digest() == hashlib.sha256(DATA).digest()
        nursery.cancel_scope.cancel()


async def test_the_default_is_loopback_alone(service: Service, side: NetworkSide) -> None:
    async with forwarding(side, f"-L 0:{THERE}:9") as (local,):
        with socket.socket() as sock:
            sock.bind(("127.0.0.2", local))  # it is not on all addresses
        with pytest.raises(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", local))


async def test_a_unix_socket_for_its_owner_alone(service: Service, side: NetworkSide, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with network_echo(service) as port:
        for _ in range(2):
            async with forwarding(side, f"-L {path}:{THERE}:{port}"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert await exchange(await trio.open_unix_socket(path), b"hello") == b"hello"
                with pytest.raises(ForwardError, match=r"sock: .*another program may hold it"):
                    await HostSide().listen(Unix(str(path)))
            assert not path.exists()


async def test_a_dead_unix_socket_is_replaced_and_nothing_else(side: NetworkSide, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await (await HostSide().listen(Unix(str(path)))).aclose()
    path.write_text("a file")
    with pytest.raises(ForwardError):
        await HostSide().listen(Unix(str(path)))
    assert path.read_text() == "a file"


async def test_remote_to_a_unix_socket(service: Service, side: NetworkSide, tmp_path: Path) -> None:
    listener = await HostSide().listen(Unix(str(tmp_path / "sock")))
    async with trio.open_nursery() as nursery, forwarding(side, f"-R 0:{tmp_path / 'sock'}") as (remote,):

        async def once() -> None:
            await echo(await listener.accept())
            await listener.aclose()

        nursery.start_soon(once)
        assert await exchange(await open_tcp(service.path, HERE, remote, NETWORK_B), b"hello") == b"hello"


async def test_a_connection_that_cannot_be_made_is_reset_and_ends_nothing_else(
    service: Service, side: NetworkSide, caplog: pytest.LogCaptureFixture
) -> None:
    async with network_echo(service) as port, forwarding(side, f"-L 0:{THERE}:1", f"-L 0:{THERE}:{port}") as (bad, good):
        stream = await trio.open_tcp_stream("127.0.0.1", bad)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await stream.aclose()
        assert await exchange(await trio.open_tcp_stream("127.0.0.1", good), b"x") == b"x"
    assert any(record.levelno == logging.WARNING and "nothing listens there" in record.message for record in caplog.records)


async def test_a_reset_goes_through(service: Service, side: NetworkSide) -> None:
    async with (
        await listen_tcp(service.path, THERE, 0, NETWORK_B) as listener,
        forwarding(side, f"-L 0:{THERE}:{listener.local[1]}") as (local,),
    ):
        for network_first in (True, False):
            client = await trio.open_tcp_stream("127.0.0.1", local)
            server = await listener.accept()
            await client.send_all(b"x")
            assert await server.receive_some() == b"x"
            if network_first:
                await server.abort()
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await client.aclose()
                with pytest.raises(trio.BrokenResourceError):
                    await server.receive_some()
            await client.aclose()
            await server.aclose()


async def test_when_it_ends_connections_are_reset_not_cut_short(service: Service, side: NetworkSide) -> None:
    async with await listen_tcp(service.path, THERE, 0, NETWORK_B) as listener:
        async with forwarding(side, f"-L 0:{THERE}:{listener.local[1]}") as (local,):
            client = await trio.open_tcp_stream("127.0.0.1", local)
            server = await listener.accept()
            await client.send_all(b"x")
            assert await server.receive_some() == b"x"
        async with client, server:
            for end in (client, server):
                with pytest.raises(trio.BrokenResourceError):
                    await end.receive_some()


async def test_who_comes_when_all_slots_are_taken_waits(service: Service, side: NetworkSide) -> None:
    async with network_echo(service) as port, forwarding(side, f"-L 0:{THERE}:{port}", connections_max=1) as (local,):
        first = await trio.open_tcp_stream("127.0.0.1", local)
        second = await trio.open_tcp_stream("127.0.0.1", local)
        await second.send_all(b"second")
        await second.send_eof()
        with trio.move_on_after(0.2) as scope:
            await second.receive_some()
        assert scope.cancelled_caught
        assert await exchange(first, b"first") == b"first"
        assert await second.receive_some() == b"second"
        await second.aclose()


async def test_back_pressure(service: Service, side: NetworkSide) -> None:
    """What nobody reads is not taken: the forward holds a chunk, and all buffers together a few MiB."""
    async with (
        await listen_tcp(service.path, THERE, 0, NETWORK_B) as listener,
        forwarding(side, f"-L 0:{THERE}:{listener.local[1]}") as (local,),
    ):
        client = await trio.open_tcp_stream("127.0.0.1", local)
        server = await listener.accept()
        with trio.move_on_after(1) as scope:
            while True:
                await client.send_all(DATA * 16)
        assert scope.cancelled_caught
        await client.aclose()
        await server.aclose()


async def test_udp_flows_have_their_own_ports_and_answers(service: Service, side: NetworkSide) -> None:
    async with await open_udp(service.path, THERE, 0, NETWORK_B) as server:
        port = (await server.getsockname())[1]
        async with forwarding(side, f"-L udp:0:{THERE}:{port}") as (local,):
            with trio.socket.socket(type=socket.SOCK_DGRAM) as one, trio.socket.socket(type=socket.SOCK_DGRAM) as two:
                peers = []
                for sock in (one, two):
                    await sock.connect(("127.0.0.1", local))
                    await sock.send(b"hello")
                    got = await server.receive_from()
                    assert got.data == b"hello"
                    peers.append((sock, got.peer))
                assert peers[0][1] != peers[1][1]
                for sock, peer in peers:
                    for data in (b"%d" % peer[1], b"", b"x" * 9000):
                        await server.send_to(data, peer)
                        assert await sock.recv(10_000) == data


async def test_udp_from_the_network(service: Service, side: NetworkSide) -> None:
    with trio.socket.socket(type=socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        async with forwarding(side, f"-R udp:0:127.0.0.1:{server.getsockname()[1]}") as (remote,):
            for ip in (HERE, HERE6):
                async with await open_udp(service.path, THERE6 if ":" in ip else THERE, 0, NETWORK_B) as client:
                    await client.send_to(b"question", (ip, remote))
                    data, peer = await server.recvfrom(100)
                    assert data == b"question"
                    await server.sendto(b"answer", peer)
                    got = await client.receive_from()
                    assert (got.data, got.peer) == (b"answer", (ip, remote))


async def test_an_idle_udp_flow_ends_and_the_oldest_makes_room(service: Service, side: NetworkSide) -> None:
    async with await open_udp(service.path, THERE, 0, NETWORK_B) as server:
        port = (await server.getsockname())[1]

        async def ask(sock: trio.socket.SocketType) -> int:
            await sock.send(b"x")
            return (await server.receive_from()).peer[1]

        async def client(stack: contextlib.ExitStack, local: int) -> trio.socket.SocketType:
            sock = stack.enter_context(trio.socket.socket(type=socket.SOCK_DGRAM))
            await sock.connect(("127.0.0.1", local))
            return sock

        with contextlib.ExitStack() as stack:
            async with forwarding(side, f"-L udp:0:{THERE}:{port}", flows_max=2) as (local,):
                one, two, three = [await client(stack, local) for _ in range(3)]
                first, second = await ask(one), await ask(two)
                assert await ask(one) == first
                await ask(three)  # in the place of two, which was idle longest
                assert await ask(one) == first
                assert await ask(two) != second
            async with forwarding(side, f"-L udp:0:{THERE}:{port}", idle_s=0.05) as (local,):
                one = await client(stack, local)
                first = await ask(one)
                sockets = service.count("datagram_sockets")
                gone = lambda: service.count("datagram_sockets") < sockets  # noqa: E731
                await trio.to_thread.run_sync(eventually, gone, "the flow is gone")
                assert await ask(one) != first


async def test_a_refused_datagram_ends_nothing(service: Service, side: NetworkSide) -> None:
    async with await open_udp(service.path, THERE, 0, NETWORK_B) as server:
        port = (await server.getsockname())[1]
        async with forwarding(side, f"-L udp:0:{THERE}:9", f"-L udp:0:{THERE}:{port}") as (bad, good):
            with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
                for _ in range(3):
                    await sock.sendto(b"x", ("127.0.0.1", bad))
                await sock.sendto(b"y", ("127.0.0.1", good))
                assert await server.receive() == b"y"


async def test_a_port_that_is_taken(side: NetworkSide) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ForwardError, match="choose another port"):
        await run_forwards(
            [parse_forward(Direction.LOCAL, f"{taken.getsockname()[1]}:{THERE}:1")],
            side, print, connections_max=1, flows_max=1, idle_s=1,
        )  # fmt: skip


async def test_names_of_the_network(service: Service, side: NetworkSide) -> None:
    """The second address is taken where the first is not reachable; a name that is none ends its connection alone."""
    async with (
        naming(service, {"a.name": ["192.0.2.1", THERE], "c.name": [THERE]}),
        network_echo(service) as port,
        await open_udp(service.path, THERE, 0, NETWORK_B) as server,
    ):
        udp = f"-L udp:0:c.name:{(await server.getsockname())[1]}"
        async with forwarding(side, f"-L 0:a.name:{port}", f"-L 0:no.name:{port}", udp) as (local, none, datagrams):
            async with await trio.open_tcp_stream("127.0.0.1", none) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert await exchange(await trio.open_tcp_stream("127.0.0.1", local), b"x") == b"x"
            with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
                await sock.sendto(b"by name", ("127.0.0.1", datagrams))
                assert await server.receive() == b"by name"


async def test_the_service_goes() -> None:
    service = Service(two=True)
    side = NetworkSide(service.path)
    forwards = [parse_forward(Direction.REMOTE, text) for text in ("0:127.0.0.1:9", "udp:0:127.0.0.1:9")]
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            service.close()

    with pytest.raises(BaseExceptionGroup) as caught:
        await run_forwards(forwards, side, say, connections_max=1, flows_max=1, idle_s=1)
    assert caught.group_contains(trio.BrokenResourceError)
    with pytest.raises(ServiceUnavailable):
        await side.listen(parse_forward(Direction.REMOTE, "0:127.0.0.1:9").listen)
