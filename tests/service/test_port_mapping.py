"""When a port is mapped, renewed and taken back, in virtual time with gateways of the test's own; and NAT-PMP over a socket with
gateways that lie. Real ones: tests/integration/test_nat.py."""

from __future__ import annotations

import ipaddress
import math
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from netcon.core.actions import Endpoint
from netcon.service import natpmp, port_mapping
from netcon.service.port_mapping import (
    LEASE_S,
    REMOVAL_S,
    RENEW_S,
    RETRY_S,
    Gateway,
    Lease,
    MappingError,
    NatPmpMapper,
    PortMapping,
    UpnpMapper,
    behind_nat,
    usable_external,
)

PORT = 23456
HOME = Gateway("eth0", bytes((192, 168, 7, 10)), bytes((192, 168, 7, 1)))
OFFICE = Gateway("eth0", bytes((10, 0, 0, 5)), bytes((10, 0, 0, 1)))
OUTSIDE = Endpoint(bytes((44, 7, 0, 1)), 40000)


class Router:
    """Gateways of a test; `log`: what was asked, when."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, str]] = []
        self.start = trio.current_time()
        self.lease: Lease | Exception = Lease(OUTSIDE, LEASE_S)
        self.other: Lease | Exception = MappingError("not in this way")
        self.hangs = False
        self.changes = 0

    def mapper(self, way: str, gateway: Gateway) -> Any:
        router = self

        class Way:
            async def map(self, port: int) -> Lease:
                assert port == PORT
                router.note(f"map {way}", gateway)
                lease = router.lease if way == "first" else router.other
                if isinstance(lease, Exception):
                    raise lease
                return lease

            async def unmap(self, port: int) -> None:
                router.note(f"unmap {way}", gateway)
                if router.hangs:
                    await trio.sleep_forever()

        return Way()

    def note(self, what: str, gateway: Gateway) -> None:
        self.log.append((trio.current_time() - self.start, what, gateway.interface + gateway.local.hex()))

    def mapping(self) -> PortMapping:
        return PortMapping(
            PORT, self.changed, [lambda gateway: self.mapper("first", gateway), lambda gateway: self.mapper("second", gateway)]
        )

    def changed(self) -> None:
        self.changes += 1

    def times(self, what: str) -> list[float]:
        return [time for time, asked, _ in self.log if asked == what]


@pytest.fixture
async def router() -> Router:
    return Router()


async def test_a_port_is_mapped_renewed_and_taken_back(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(3.5 * RENEW_S):
        await mapping.run()
    assert router.times("map first") == [0, RENEW_S, 2 * RENEW_S, 3 * RENEW_S]
    assert router.times("map second") == []
    assert router.times("unmap first") == [3.5 * RENEW_S]
    assert router.changes == 1


async def test_short_leases_are_renewed_before_they_end(router: Router, autojump_clock: MockClock) -> None:
    router.lease = Lease(OUTSIDE, 100.0)
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(220):
        await mapping.run()
    assert router.times("map first") == [0, 50, 100, 150, 200]


async def test_a_gateway_cannot_make_us_ask_without_pause(router: Router, autojump_clock: MockClock) -> None:
    router.lease = Lease(OUTSIDE, 0.001)
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(60):
        await mapping.run()
    assert len(router.times("map first")) <= 7


async def test_a_lease_without_end_is_still_looked_after(router: Router, autojump_clock: MockClock) -> None:
    router.lease = Lease(OUTSIDE, math.inf)
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(RENEW_S + 1):
        await mapping.run()
    assert router.times("map first") == [0, RENEW_S]


async def test_the_second_way_is_used_when_the_first_fails_and_goes_first_from_then_on(
    router: Router, autojump_clock: MockClock
) -> None:
    router.lease, router.other = ConnectionRefusedError(), Lease(OUTSIDE, LEASE_S)
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(2.5 * RENEW_S):
        await mapping.run()
    assert router.times("map first") == [0]
    assert router.times("map second") == [0, RENEW_S, 2 * RENEW_S]


async def test_a_gateway_that_does_not_answer_is_asked_ever_less_often(router: Router, autojump_clock: MockClock) -> None:
    router.lease = MappingError("no")
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    with trio.move_on_after(24 * 3600):
        await mapping.run()
    times = router.times("map first")
    assert times[:4] == [0, RETRY_S, 3 * RETRY_S, 7 * RETRY_S]
    assert len(times) < 100
    assert mapping.endpoints == []
    assert router.changes == 0


async def test_a_mapping_that_cannot_be_renewed_is_offered_until_its_lease_ends(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapping.run)
        await trio.sleep(1)
        assert mapping.endpoints == [OUTSIDE]
        router.lease = MappingError("gone")
        await trio.sleep(RENEW_S + 1)
        assert mapping.endpoints == [OUTSIDE]
        await trio.sleep(LEASE_S - RENEW_S)
        assert mapping.endpoints == []
        router.lease = Lease(OUTSIDE, LEASE_S)
        await trio.sleep(port_mapping.LONGEST_RETRY_S)
        assert mapping.endpoints == [OUTSIDE]
        nursery.cancel_scope.cancel()
    assert router.changes == 3


async def test_another_external_endpoint_is_told(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapping.run)
        await trio.sleep(1)
        moved = Endpoint(bytes((44, 7, 0, 99)), 40001)
        router.lease = Lease(moved, LEASE_S)
        await trio.sleep(RENEW_S)
        assert mapping.endpoints == [moved]
        nursery.cancel_scope.cancel()


async def test_another_gateway_gets_the_mapping_and_the_former_loses_it(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapping.run)
        await trio.sleep(10)
        mapping.set_gateways([OFFICE])
        await trio.sleep(10)
        office, home = "eth0" + OFFICE.local.hex(), "eth0" + HOME.local.hex()
        asked = [entry for entry in router.log if "first" in entry[1]]
        assert sorted(asked) == [(0, "map first", home), (10, "map first", office), (10, "unmap first", home)]
        mapping.set_gateways([])
        await trio.sleep(1)
        assert mapping.endpoints == []
        nursery.cancel_scope.cancel()


async def test_a_gateway_that_is_back_at_once_is_asked_after_the_removal(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mapping.run)
        await trio.sleep(1)
        mapping.set_gateways([])
        mapping.set_gateways([HOME])
        await trio.sleep(1)
        assert [what for _, what, _ in router.log if "first" in what] == ["map first", "unmap first", "map first"]
        assert mapping.endpoints == [OUTSIDE]
        nursery.cancel_scope.cancel()


async def test_a_gateway_that_hangs_at_the_end_holds_nobody_up(router: Router, autojump_clock: MockClock) -> None:
    mapping = router.mapping()
    mapping.set_gateways([HOME, OFFICE])
    router.hangs = True
    with trio.move_on_after(5):
        await mapping.run()
    assert trio.current_time() - router.start == 5 + REMOVAL_S


@pytest.mark.parametrize(
    "text", ["192.168.1.5", "10.0.0.1", "100.64.3.3", "0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.1.1", "255.255.255.255"]
)
def test_private_and_nonsensical_external_addresses_are_not_used(text: str) -> None:
    assert not usable_external(ipaddress.ip_address(text).packed)


def test_public_external_addresses_are_used_and_need_no_mapping_themselves() -> None:
    public = ipaddress.ip_address("44.7.0.1").packed
    assert usable_external(public)
    assert not behind_nat(public)
    assert behind_nat(HOME.local)
    assert not behind_nat(ipaddress.ip_address("fd00::1").packed)
    assert not usable_external(ipaddress.ip_address("2001:db8::1").packed)


# -- NAT-PMP over a socket --


@contextmanager
def gateway_socket() -> Iterator[tuple[trio.socket.SocketType, Gateway, int]]:
    """A gateway on loopback."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock._sock.bind(("127.0.0.1", 0))
        loopback = bytes((127, 0, 0, 1))
        yield sock, Gateway("lo", loopback, loopback), sock.getsockname()[1]


def address_answer(*ip: int, result: int = 0) -> bytes:
    return struct.pack(">BBHI", 0, 128, result, 7) + bytes(ip)


def mapped_answer(internal: int, external: int, lifetime_s: int) -> bytes:
    return struct.pack(">BBHIHHI", 0, 129, 0, 7, internal, external, lifetime_s)


async def serve(sock: trio.socket.SocketType, answers: Callable[[bytes], list[bytes]], got: list[bytes]) -> None:
    while True:
        request, sender = await sock.recvfrom(100)
        got.append(request)
        for answer in answers(request):
            await sock.sendto(answer, sender)


async def map_with(answers: Callable[[bytes], list[bytes]], got: list[bytes]) -> tuple[NatPmpMapper, Lease]:
    with gateway_socket() as (sock, gateway, port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, sock, answers, got)
            mapper = NatPmpMapper(gateway, port)
            lease = await mapper.map(PORT)
            await mapper.unmap(PORT)
            nursery.cancel_scope.cancel()
    return mapper, lease


async def test_natpmp_ignores_nonsense_and_takes_the_answer() -> None:
    def answers(request: bytes) -> list[bytes]:
        nonsense = [b"", b"\x00", bytes(2000), b"\x02\x80\x00\x00", address_answer(44, 7)]
        if request == natpmp.ask_address():
            return [*nonsense, mapped_answer(PORT, 1, 1), address_answer(44, 7, 0, 1)]
        lifetime = 0 if request == natpmp.ask_mapping(PORT, 0, 0) else 600
        return [*nonsense, address_answer(9, 9, 9, 9), mapped_answer(PORT + 1, 5, 5), mapped_answer(PORT, 40000, lifetime)]

    got: list[bytes] = []
    _, lease = await map_with(answers, got)
    assert lease == Lease(OUTSIDE, 600)
    assert got == [natpmp.ask_address(), natpmp.ask_mapping(PORT, PORT, LEASE_S), natpmp.ask_mapping(PORT, 0, 0)]


@pytest.mark.parametrize(
    "answer", [address_answer(192, 168, 1, 1), address_answer(0, 0, 0, 0), address_answer(44, 7, 0, 1, result=3)]
)
async def test_natpmp_asks_for_no_mapping_that_is_of_no_use(answer: bytes) -> None:
    got: list[bytes] = []
    with gateway_socket() as (sock, gateway, port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, sock, lambda _: [answer], got)
            mapper = NatPmpMapper(gateway, port)
            with pytest.raises(MappingError):
                await mapper.map(PORT)
            await mapper.unmap(PORT)
            nursery.cancel_scope.cancel()
    assert got == [natpmp.ask_address()]


async def test_natpmp_asks_again_when_a_datagram_was_lost() -> None:
    got: list[bytes] = []

    def answers(request: bytes) -> list[bytes]:
        if len(got) == 1:
            return []
        return [address_answer(44, 7, 0, 1) if request == natpmp.ask_address() else mapped_answer(PORT, 40000, 600)]

    _, lease = await map_with(answers, got)
    assert lease.external == OUTSIDE
    assert got[:2] == [natpmp.ask_address()] * 2


async def test_nobody_there_is_an_error() -> None:
    with gateway_socket() as (_, gateway, port):
        pass
    with pytest.raises(OSError, match="refused"):
        await NatPmpMapper(gateway, port).map(PORT)


# -- UPnP, with a device of the test's own --


class Device:
    """As miniupnpc has it."""

    lanaddr = "192.168.7.10"
    external = "44.7.0.1"
    taken: frozenset[int] = frozenset()
    permanent_only = False

    def __init__(self, multicastif: str, discoverdelay: int) -> None:
        assert multicastif == "192.168.7.10"
        self.mapped: dict[int, tuple[int, int]] = {}
        devices.append(self)

    def discover(self) -> int:
        return 1

    def selectigd(self) -> str:
        return ""

    def externalipaddress(self) -> str:
        return self.external

    def addportmapping(self, external: int, protocol: str, host: str, port: int, what: str, remote: str, lease: int) -> bool:
        assert (protocol, host, remote) == ("UDP", self.lanaddr, "")
        if external in self.taken:
            raise Exception("ConflictInMappingEntry")
        if lease and self.permanent_only:
            raise Exception("OnlyPermanentLeasesSupported")
        self.mapped[external] = port, lease
        return True

    def deleteportmapping(self, external: int, protocol: str) -> bool:
        del self.mapped[external]
        return True


devices: list[Device] = []


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    class Own(Device):
        pass

    devices.clear()
    monkeypatch.setattr("miniupnpc.UPnP", Own)
    return Own


async def test_upnp_maps_the_same_port_and_takes_it_back(device: type[Device]) -> None:
    mapper = UpnpMapper(HOME)
    assert await mapper.map(PORT) == Lease(Endpoint(OUTSIDE.ip, PORT), LEASE_S)
    assert await mapper.map(PORT) == Lease(Endpoint(OUTSIDE.ip, PORT), LEASE_S)
    assert [each.mapped for each in devices] == [{PORT: (PORT, LEASE_S)}]
    await mapper.unmap(PORT)
    assert devices[0].mapped == {}


async def test_upnp_takes_another_port_where_ours_is_taken(device: type[Device]) -> None:
    device.taken = frozenset((PORT,))
    mapper = UpnpMapper(HOME)
    first = await mapper.map(PORT)
    assert first.external.port not in (0, PORT)
    assert await mapper.map(PORT) == first
    assert devices[0].mapped == {first.external.port: (PORT, LEASE_S)}


async def test_upnp_devices_without_leases_are_asked_for_none(device: type[Device]) -> None:
    device.permanent_only = True
    assert await UpnpMapper(HOME).map(PORT) == Lease(Endpoint(OUTSIDE.ip, PORT), math.inf)
    assert devices[0].mapped == {PORT: (PORT, 0)}


@pytest.mark.parametrize("text", ["192.168.0.2", "", "nonsense", "::1", "0.0.0.0"])
async def test_upnp_devices_with_a_useless_address_are_not_used(device: type[Device], text: str) -> None:
    device.external = text
    with pytest.raises(MappingError):
        await UpnpMapper(HOME).map(PORT)
    assert devices[0].mapped == {}


async def test_an_upnp_device_elsewhere_is_not_used(device: type[Device]) -> None:
    device.lanaddr = "10.9.9.9"
    with pytest.raises(MappingError, match="not on eth0"):
        await UpnpMapper(HOME).map(PORT)


async def test_another_upnp_device_is_found_when_the_first_is_gone(device: type[Device], monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = UpnpMapper(HOME)
    await mapper.map(PORT)

    def gone() -> str:
        raise Exception("HttpError")

    monkeypatch.setattr(devices[0], "externalipaddress", gone)
    await mapper.map(PORT)
    assert len(devices) == 2
    assert devices[1].mapped == {PORT: (PORT, LEASE_S)}


async def test_an_upnp_device_that_takes_for_ever_is_given_up(device: type[Device], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    stuck = threading.Event()
    monkeypatch.setattr(device, "discover", lambda self: stuck.wait(60))
    monkeypatch.setattr(port_mapping, "_UPNP_LIMIT_S", 0.2)
    try:
        with pytest.raises(MappingError, match="too long"):
            await UpnpMapper(HOME).map(PORT)
    finally:
        stuck.set()
