"""netcon.sockets: trio sockets over socket RPC, between two stacks on one link, and against a service that is not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from netcon.policy import Policy
from netcon.service import socket_rpc
from netcon.sockets import (
    DatagramSocket,
    ServiceUnavailable,
    TcpListener,
    TcpStream,
    interfaces,
    listen_tcp,
    open_ping,
    open_tcp,
    open_udp,
)
from tests.lwip.service import HERE, HERE6, NETWORK_A, NETWORK_B, THERE, THERE6, Service, eventually

FAMILIES = pytest.mark.parametrize(("here", "there"), [(HERE, THERE), (HERE6, THERE6)], ids=["IPv4", "IPv6"])


@pytest.fixture
def service() -> Iterator[Service]:
    """Nothing of a test's sockets is left in the service, or here."""
    service = Service(two=True)
    before = len(os.listdir("/proc/self/fd"))
    yield service
    service.assert_idle()
    assert len(os.listdir("/proc/self/fd")) <= before
    service.close()


@contextlib.asynccontextmanager
async def connection(service: Service, here: str = HERE, there: str = THERE) -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """A connection from network A to network B: (the client's end, the accepted one)."""
    async with await listen_tcp(service.path, there, 0) as listener:
        client = await open_tcp(service.path, there, listener.local[1], NETWORK_A)
        accepted = await listener.accept()
    async with client, accepted:
        yield client, accepted


async def refused(service: Service, port: int) -> int:
    with pytest.raises(OSError) as caught:
        await open_tcp(service.path, THERE, port, NETWORK_A)
    assert caught.value.errno is not None
    return caught.value.errno


@FAMILIES
async def test_bytes_both_ways_and_half_close(service: Service, here: str, there: str) -> None:
    async with connection(service, here, there) as (client, server):
        assert (client.local[0], client.remote) == (here, server.local)
        assert (server.local[0], server.remote) == (there, client.local)
        assert await client.getsockname() == client.local
        assert await client.getpeername() == client.remote
        await client.send_all(b"question")
        await client.send_eof()
        assert await server.receive_some() == b"question"
        assert await server.receive_some() == b""
        await server.send_all(b"answer after the end")
        assert await client.receive_some() == b"answer after the end"
        await server.send_eof()
        assert await client.receive_some() == b""


async def test_a_large_transfer_is_whole_and_back_pressure_holds(service: Service) -> None:
    data = b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(1 << 16))
    async with connection(service) as (client, server), trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await client.send_all(data * 4)
            sent.set()
            await client.send_eof()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert not sent.is_set(), "16 MiB fit into no buffer"
        digest = hashlib.sha256()
        async for piece in server:
            digest.update(piece)
        assert digest.digest() == hashlib.sha256(data * 4).digest()


async def test_a_refused_connection_has_its_errno_and_says_what_to_do(service: Service) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        await open_tcp(service.path, THERE, 81, NETWORK_A)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"{THERE}:81" in str(caught.value)
    assert "nothing listens there" in str(caught.value)


async def test_no_way_to_the_destination(service: Service) -> None:
    with pytest.raises(OSError) as caught:
        await open_tcp(service.path, "192.0.2.1", 80)
    assert caught.value.errno == errno.ENETUNREACH
    assert "netcon networks" in str(caught.value)


async def test_what_the_policy_gives_to_the_host_is_an_error_that_says_so(service: Service) -> None:
    service.server.set_policy(Policy.parse("192.0.2.0/24 host\nbind any tcp 8080 host").compiled())
    async with await open_udp(service.path, HERE) as udp:
        for attempt in (
            partial(open_tcp, service.path, "192.0.2.1", 80),
            partial(listen_tcp, service.path, "0.0.0.0", 8080),
            partial(udp.connect, "192.0.2.1", 53),
            partial(udp.send_to, b"x", ("192.0.2.1", 53), confirm=True),
        ):
            with pytest.raises(OSError, match="use the host's own sockets") as caught:
                await attempt()
            assert caught.value.errno == errno.ENETUNREACH


async def test_a_reset_is_a_broken_resource_with_the_errno(service: Service) -> None:
    async with connection(service) as (client, server):
        await client.send_all(b"x")
        await server.abort()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await client.getsockopt_int(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_a_connect_can_be_cancelled(service: Service) -> None:
    with trio.move_on_after(0.2) as scope:
        await open_tcp(service.path, "10.77.0.99", 80, NETWORK_A)
    assert scope.cancelled_caught


async def test_options_and_the_source_address(service: Service) -> None:
    async with await listen_tcp(service.path, THERE, 0) as listener:
        stream = await open_tcp(service.path, THERE, listener.local[1], NETWORK_A, source=(HERE, 4711))
        async with stream, await listener.accept() as accepted:
            assert accepted.remote == (HERE, 4711)
            for end in (stream, accepted):
                assert await end.getsockopt_int(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert await stream.getsockopt_int(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            await stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert await stream.getsockopt_int(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            with pytest.raises(OSError) as caught:
                await stream.getsockopt(socket.IPPROTO_TCP, 9999)
            assert caught.value.errno == errno.ENOPROTOOPT


async def test_a_taken_port_and_a_foreign_address(service: Service) -> None:
    async with await listen_tcp(service.path, THERE, 0) as listener:
        with pytest.raises(OSError) as caught:
            await listen_tcp(service.path, *listener.local)
        assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as caught:
        await listen_tcp(service.path, "10.1.2.3", 80)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError) as caught:
        await listen_tcp(service.path, "a.name", 80)
    assert caught.value.errno == errno.EINVAL


async def test_a_wildcard_listener_serves_both_families(service: Service) -> None:
    async with await listen_tcp(service.path, "::", 80) as listener:
        for ip, seen in ((THERE, f"::ffff:{HERE}"), (THERE6, HERE6)):
            async with await open_tcp(service.path, ip, 80, NETWORK_A), await listener.accept() as accepted:
                assert accepted.remote[0] == seen
    async with await listen_tcp(service.path, "::", 80, v6_only=True):
        assert await refused(service, 80) == errno.ECONNREFUSED


async def test_a_listener_of_one_network_is_not_on_another(service: Service) -> None:
    async with await listen_tcp(service.path, "0.0.0.0", 80, NETWORK_A):
        assert await refused(service, 80) == errno.ECONNREFUSED


async def test_trio_serves_a_listener(service: Service) -> None:
    async def echo(stream: TcpStream) -> None:
        async for piece in stream:
            await stream.send_all(piece)

    async with await listen_tcp(service.path, THERE, 0) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        for number in range(20):
            async with await open_tcp(service.path, THERE, listener.local[1], NETWORK_A) as stream:
                await stream.send_all(b"%d" % number)
                await stream.send_eof()
                assert b"".join([piece async for piece in stream]) == b"%d" % number
        nursery.cancel_scope.cancel()


async def test_with_a_full_table_of_descriptors_the_connection_stays_queued(service: Service) -> None:
    async with (
        await listen_tcp(service.path, THERE, 0) as listener,
        await open_tcp(service.path, THERE, listener.local[1], NETWORK_A) as client,
    ):
        await trio.lowlevel.wait_readable(listener.socket)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        fill = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (fill[0] + 1, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.open("/dev/null", os.O_RDONLY))
            with pytest.raises(OSError) as caught:
                await listener.accept()
            assert caught.value.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fill:
                os.close(fd)
        async with await listener.accept() as accepted:
            await client.send_all(b"not lost")
            assert await accepted.receive_some() == b"not lost"


async def test_a_squatted_name_is_avoided(service: Service) -> None:
    with contextlib.ExitStack() as squatters:
        real = socket.socketpair

        def squat(*arguments: int) -> tuple[socket.socket, socket.socket]:
            """The name that the pair's P would get is taken at once."""
            p, s = real(*arguments)
            if arguments[1] == socket.SOCK_STREAM:
                squatter = squatters.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                squatter.bind(socket_rpc.program_name(identity, socket_rpc.cookie(p), socket.AF_INET, 1, 6))
            return p, s

        identity = socket_rpc.hello(Path(service.path)).service
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socketpair", squat)
            async with await listen_tcp(service.path, THERE, 0) as listener:
                assert isinstance(listener, TcpListener)


# ---- datagrams ----


@FAMILIES
async def test_datagrams_with_their_addresses(service: Service, here: str, there: str) -> None:
    async with await open_udp(service.path, there) as server, await open_udp(service.path, here) as client:
        await client.send_to(b"question", (there, (await server.getsockname())[1]))
        got = await server.receive_from()
        assert (got.data, got.peer) == (b"question", await client.getsockname())
        assert got.ttl is None
        await server.send_to(b"", got.peer)
        got = await client.receive_from()
        assert (got.data, got.peer) == (b"", await server.getsockname())


@FAMILIES
async def test_ancillary_data_both_ways(service: Service, here: str, there: str) -> None:
    async with await open_udp(service.path, there) as server, await open_udp(service.path, here) as client:
        await server.receive_ttl()
        level, name = (socket.IPPROTO_IPV6, 49) if ":" in here else (socket.IPPROTO_IP, 8)  # IPV6_RECVPKTINFO, IP_PKTINFO
        await server.setsockopt(level, name, 1)
        await client.send_to(b"x", await server.getsockname(), ttl=17, source=here)
        got = await server.receive_from()
        assert (got.ttl, got.local, got.peer[0]) == (17, there, here)
        assert got.interface is not None


async def connected(service: Service, peer: DatagramSocket) -> DatagramSocket:
    made = await open_udp(service.path, HERE)
    await made.connect(*await peer.getsockname())
    return made


async def test_a_connected_socket(service: Service) -> None:
    async with await open_udp(service.path, THERE) as server, await connected(service, server) as client:
        await client.send(b"bare")
        got = await server.receive_from()
        await server.send_to(b"back", got.peer)
        await server.send_to(b"", got.peer)
        assert await client.receive() == b"back"
        got = await client.receive_from()
        assert (got.data, got.peer) == (b"", await server.getsockname())
        await client.send_to(b"elsewhere", await server.getsockname())
        assert await server.receive() == b"elsewhere"
        await client.receive_ttl()
        await client.send(b"framed")
        got = await server.receive_from()
        await server.send_to(b"back", got.peer)
        assert (await client.receive_from()).ttl is not None
        with pytest.raises(OSError) as caught:
            await server.send(b"whereto?")
        assert caught.value.errno == errno.EDESTADDRREQ


@pytest.mark.parametrize("framed", [False, True])
async def test_a_refusal_reaches_a_connected_socket(service: Service, framed: bool) -> None:
    async with await open_udp(service.path, THERE) as server:
        client = await connected(service, server)
    eventually(lambda: service.count("datagram_sockets") == 1, "the server's port is free")
    async with client:
        if framed:
            await client.receive_ttl()
        await client.send(b"anyone?")
        with pytest.raises(ConnectionRefusedError):
            await client.receive()


async def test_errors_of_sending(service: Service) -> None:
    async with await open_udp(service.path) as client:
        for size, number in ((65_508, errno.EMSGSIZE), (10, errno.ENETUNREACH)):
            with pytest.raises(OSError) as caught:
                await client.send_to(b"x" * size, ("192.0.2.1", 9), confirm=True)
            assert caught.value.errno == number
    with pytest.raises(trio.ClosedResourceError):
        await client.send_to(b"x", ("192.0.2.1", 9))
    with pytest.raises(trio.ClosedResourceError):
        await client.receive()


@FAMILIES
async def test_ping(service: Service, here: str, there: str) -> None:
    async with await open_ping(service.path, there, NETWORK_A) as ping:
        for sequence in (1, 2, 65535):
            await ping.send_echo(there, sequence, b"payload %d" % sequence)
            echo = await ping.receive_echo()
            assert (echo.peer, echo.sequence, echo.payload) == (there, sequence, b"payload %d" % sequence)
            assert echo.ttl
        with pytest.raises(OSError) as caught:
            await ping.send_echo("2001:db8::1" if ":" in here else "192.0.2.1", 1)
        assert caught.value.errno == errno.ENETUNREACH


async def test_interfaces(service: Service) -> None:
    found = {(each.network, each.address) for each in await interfaces(service.path)}
    assert found >= {(NETWORK_A, HERE), (NETWORK_A, HERE6), (NETWORK_B, THERE), (NETWORK_B, THERE6)}


# ---- services that are not there, or not what they should be ----


async def test_nobody_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"no service at .*/sock .*netcon service -d"):
        await open_tcp(tmp_path / "sock", HERE, 80)
    with pytest.raises(ServiceUnavailable):
        await interfaces(tmp_path)


async def serve_once(path: Path, answer: bytes | None, task_status: trio.TaskStatus[None]) -> None:
    """A path that answers the first request with `answer`, or closes it."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        await listener.bind(os.fspath(path))
        listener.listen(1)
        task_status.started()
        channel, _ = await listener.accept()
        with channel:
            _, ancillary, _, _ = await channel.recvmsg(1000, 1000, socket.MSG_CMSG_CLOEXEC)
            for fd in socket_rpc.passed(ancillary):
                with trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) as reply_end:
                    if answer is not None:
                        await reply_end.send(answer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "without an answer"),
        (b"hello", "not a netcon service"),
        (b"hello" * 10, "not a netcon service"),
        (socket_rpc.REPLY.pack(socket_rpc.MAGIC, 7, 1, 0, 0, 0, 0), "another version"),
        (socket_rpc.REPLY.pack(socket_rpc.MAGIC, 1, 1, 0, 0, 0, 9), "another version"),
        (socket_rpc.REPLY.pack(socket_rpc.MAGIC, 1, 1, 0, 0, 0, 1) + b"x", "another version"),
        (socket_rpc.REPLY.pack(socket_rpc.MAGIC, 1, 1, 0, errno.EPROTO, 0, 0), "restart it"),
    ],
)
async def test_what_answers_is_no_service_or_another_version(tmp_path: Path, answer: bytes | None, why: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_once, tmp_path / "sock", answer)
        with pytest.raises(ServiceUnavailable, match=why):
            await open_tcp(tmp_path / "sock", HERE, 80)


async def test_the_queue_of_the_path_is_full(tmp_path: Path) -> None:
    """It is waited for, and not taken for a connection."""
    path = str(tmp_path / "sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(path)
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        waiting.connect(path)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ServiceUnavailable, match="without an answer"):
                    await interfaces(path)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            listener.accept()[0].close()
            accepted = await trio.to_thread.run_sync(lambda: listener.accept()[0])
            with accepted:
                _, fds = await trio.to_thread.run_sync(socket_rpc.receive_message, accepted, 1000)
                for fd in fds:
                    os.close(fd)


async def test_a_list_of_networks(service: Service) -> None:
    """A socket is on these and no other; the destination chooses."""
    elsewhere = (0x8056C2E21C0000F1, 0x8056C2E21C0000F2)
    async with await listen_tcp(service.path, THERE, 0, (NETWORK_B, NETWORK_A)) as listener:
        port = listener.local[1]
        async with await open_tcp(service.path, THERE, port, (NETWORK_A, elsewhere[0])) as client:
            assert client.local[0] == HERE
        for attempt in (
            partial(open_tcp, service.path, THERE, port, elsewhere),
            partial(listen_tcp, service.path, THERE, 0, (NETWORK_A, elsewhere[0])),
            partial(open_udp, service.path, THERE, 0, (NETWORK_A, elsewhere[0])),
        ):
            with pytest.raises(OSError, match=r"no joined network reaches|not an address of ours"):
                await attempt()
    async with await open_ping(service.path, THERE, (NETWORK_A, NETWORK_B)) as ping:
        await ping.send_echo(THERE, 1, b"")
        assert (await ping.receive_echo()).peer == THERE
    with pytest.raises(ServiceUnavailable, match="Invalid argument"):
        await listen_tcp(service.path, THERE, 0, (NETWORK_A, 0))


async def test_the_service_goes() -> None:
    service = Service(two=True)
    listener = await listen_tcp(service.path, THERE, 0)
    udp = await open_udp(service.path, HERE)
    async with connection(service) as (client, _):
        service.close()
        for wait in (listener.accept, udp.receive, client.receive_some):
            with pytest.raises(trio.BrokenResourceError):
                await wait()
    for each in (listener, udp):
        await each.aclose()
    with pytest.raises(ServiceUnavailable):
        await listen_tcp(service.path, THERE, 0)


def test_every_public_name_is_exported_and_documented() -> None:
    import netcon.sockets

    for name in netcon.sockets.__all__:
        assert getattr(netcon.sockets, name).__doc__, name
