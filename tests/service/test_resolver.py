"""The resolver, with a scripted world in the place of the networks' DNS servers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from netcon.names.messages import UDP_PLAIN
from netcon.names.table import Forward, Member, NameTable, NetworkNames
from netcon.service import resolve_rpc as rpc
from netcon.service.resolver import Resolver, Status, View

NETWORK = 0x8056C2E21C000001
SERVERS = (ipaddress.ip_address("10.1.0.53"), ipaddress.ip_address("10.1.0.54"))
Script = Callable[[dns.message.QueryMessage, str], dns.message.Message]


class World:
    """Says what each server answers, and remembers who was asked."""

    def __init__(self, script: Script, *, host: bool = False, servers: bool = True) -> None:
        prefix = ipaddress.ip_network("10.1.0.0/24")
        web = Member(0x1122334455, "web", (ipaddress.ip_address("10.1.0.7"),), "the controller")
        names = NetworkNames(NETWORK, "lab.example", SERVERS if servers else (), (web,), (prefix,))
        table = NameTable([names], {"printer": ["10.9.9.9"]})
        self.asked: list[str] = []
        self.script = script
        self.view = View(table, (names,), (ipaddress.ip_address("10.1.0.1"),), (prefix,), host)
        self.resolver = Resolver(lambda: self.view, self.ask)

    async def ask(self, forward: Forward, query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        assert forward.network == NETWORK
        self.asked.append(server)
        await trio.lowlevel.checkpoint()
        return self.script(query, server)


def answering(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Script:
    def script(query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        for record in records:
            name, ttl, kind, value = record.split(maxsplit=3)
            if kind in (dns.rdatatype.to_text(query.question[0].rdtype), "CNAME"):
                response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, value))
        return dns.message.from_wire(response.to_wire(max_size=65535))

    return script


def failing(error: Exception) -> Script:
    def script(query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        raise error

    return script


def name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


async def test_members_are_known_without_asking() -> None:
    world = World(failing(AssertionError()))
    answer = await world.resolver.addresses(b"web")
    assert (answer.status, list(map(str, answer.addresses)), answer.name) == (Status.FOUND, ["10.1.0.7"], name("web.lab.example"))
    assert (await world.resolver.addresses("web.lab.example", 10)).status is Status.NO_DATA
    assert (await world.resolver.name_of(ipaddress.ip_address("::ffff:10.1.0.7"))).name == name("web.lab.example")


async def test_servers_are_asked_for_the_rest_of_the_domain() -> None:
    world = World(answering("x.lab.example. 60 A 10.1.0.9", "x.lab.example. 60 AAAA fd00::9"))
    answer = await world.resolver.addresses("x.lab.example")
    assert sorted(map(str, answer.addresses)) == ["10.1.0.9", "fd00::9"]
    assert [str(ip) for ip in world.resolver.ordered(answer)] == ["10.1.0.9", "fd00::9"]
    assert "10.1.0.53" in answer.source


async def test_canonical_names_and_the_shortest_life(autojump_clock: MockClock) -> None:
    world = World(answering("x.lab.example. 20 CNAME y.lab.example.", "y.lab.example. 60 A 10.1.0.9"))
    answer = await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)
    assert (answer.name, answer.ttl) == (name("y.lab.example"), 20)
    await trio.sleep(5)
    assert (await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)).ttl == 15
    assert len(world.asked) == 1
    await trio.sleep(15)
    await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)
    assert len(world.asked) == 2


async def test_what_is_not_there_is_remembered_too(autojump_clock: MockClock) -> None:
    world = World(answering(rcode=dns.rcode.NXDOMAIN))
    for _ in range(3):
        assert (await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)).status is Status.NOT_FOUND
    assert len(world.asked) == 1
    await trio.sleep(31)
    await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)
    assert len(world.asked) == 2


async def test_the_next_server_is_asked_when_one_fails() -> None:
    good = answering("x.lab.example. 60 A 10.1.0.9")

    def script(query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        if server == "10.1.0.53":
            raise ConnectionRefusedError(111, "refused")
        return good(query, server)

    world = World(script)
    assert (await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)).status is Status.FOUND
    assert world.asked == ["10.1.0.53", "10.1.0.54"]


async def test_silent_servers_are_asked_again_and_then_given_up(autojump_clock: MockClock) -> None:
    world = World(answering())

    async def silent(forward: Forward, query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        world.asked.append(server)
        await trio.sleep_forever()
        raise AssertionError

    world.resolver.ask = silent
    start = trio.current_time()
    assert (await world.resolver.query(name("x.lab.example"), dns.rdatatype.A)).status is Status.AGAIN
    assert (len(world.asked), trio.current_time() - start) == (4, 12)
    assert (await world.resolver.answer(rpc.RESOLVE_NAME, b"x.lab.example", 2, 0, 0, None))[0] == Status.AGAIN


@pytest.mark.parametrize("error", [EOFError("cut"), OSError(5, "x"), trio.BrokenResourceError(), dns.exception.FormError()])
async def test_what_goes_wrong_with_a_server_is_no_answer(error: Exception) -> None:
    answer = await World(failing(error)).resolver.query(name("x.lab.example"), dns.rdatatype.A)
    assert answer.status is Status.AGAIN
    assert "10.1.0.5" in answer.source


async def test_servers_that_refuse() -> None:
    answer = await World(answering(rcode=dns.rcode.REFUSED)).resolver.query(name("x.lab.example"), dns.rdatatype.A)
    assert (answer.status, "REFUSED" in answer.source) == (Status.FAILED, True)


async def test_names_of_no_network_are_policys() -> None:
    assert (await World(failing(AssertionError())).resolver.addresses("www.example.org")).status is Status.REFUSED
    world = World(failing(AssertionError()), host=True)
    assert (await world.resolver.addresses("www.example.org")).status is Status.HOST
    assert (await world.resolver.name_of(ipaddress.ip_address("192.0.2.1"))).status is Status.HOST
    status, wire = await world.resolver.respond(dns.message.make_query("www.example.org", "A").to_wire())
    assert status is Status.HOST
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.REFUSED


async def test_only_families_that_we_have_when_asked_so() -> None:
    world = World(answering("x.lab.example. 60 A 10.1.0.9", "x.lab.example. 60 AAAA fd00::9"))
    answer = await world.resolver.addresses("x.lab.example", configured=True)
    assert list(map(str, answer.addresses)) == ["10.1.0.9"]


async def test_other_members_learn_this_networks_names_alone() -> None:
    world = World(failing(AssertionError()), servers=False)

    async def rcode(text: str, kind: str = "A", network: int = NETWORK) -> int:
        _, wire = await world.resolver.respond(dns.message.make_query(text, kind).to_wire(), network, forward=False)
        assert wire is not None
        return dns.message.from_wire(wire).rcode()

    assert await rcode("web.lab.example") == dns.rcode.NOERROR
    assert await rcode("7.0.1.10.in-addr.arpa", "PTR") == dns.rcode.NOERROR
    assert await rcode("nobody.lab.example") == dns.rcode.NXDOMAIN
    for text in ("printer", "www.example.org", "localhost", "9.9.9.10.in-addr.arpa"):
        assert await rcode(text) == dns.rcode.REFUSED
    world = World(failing(AssertionError()))  # its own servers are asked by nobody else's order
    assert await rcode("nobody.lab.example") == dns.rcode.REFUSED


async def test_answers_on_the_wire() -> None:
    world = World(answering())
    query = dns.message.make_query("web.lab.example", "A")
    _, wire = await world.resolver.respond(query.to_wire())
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    assert response.flags & dns.flags.AA
    assert len(wire) <= UDP_PLAIN
    assert await world.resolver.respond(b"") == (Status.FOUND, None)


async def test_rpc_answers() -> None:
    world = World(failing(AssertionError()))
    status, data = await world.resolver.answer(rpc.RESOLVE_NAME, b"web", 0, 0, NETWORK, None)
    assert (status, rpc.unpack_resolved(data)) == (Status.FOUND, (30, [ipaddress.ip_address("10.1.0.7")], b"web.lab.example"))
    question = rpc.pack_question_address(ipaddress.ip_address("10.1.0.7"))
    status, data = await world.resolver.answer(rpc.RESOLVE_ADDRESS, question, 0, 0, NETWORK, None)
    assert (status, rpc.unpack_resolved(data)) == (Status.FOUND, (30, [], b"web.lab.example"))
    wire = dns.message.make_query("web.lab.example", "A").to_wire()
    status, data = await world.resolver.answer(rpc.RESOLVE_MESSAGE, wire, 0, 0, NETWORK, None)
    assert len(dns.message.from_wire(data).answer) == 1


@pytest.mark.parametrize(("kind", "data"), [(0, b"x"), (4, b"x"), (2, b"x"), (2, bytes(28)), (-1, b"")])
async def test_rpc_questions_that_make_no_sense(kind: int, data: bytes) -> None:
    with pytest.raises(ValueError):
        await World(answering()).resolver.answer(kind, data, 0, 0, 0, None)


def test_answers_fit_into_a_message() -> None:
    many = [ipaddress.ip_address(f"10.0.0.{number}") for number in range(100)]
    data = rpc.pack_resolved(7, many, b"x" * 300)
    assert len(data) <= rpc.DATA_MAX
    ttl, addresses, owner = rpc.unpack_resolved(data)
    assert (ttl, addresses, owner) == (7, many[: len(addresses)], b"x" * rpc.NAME_MAX)
    with pytest.raises(ValueError):
        rpc.unpack_resolved(data[:20])


@settings(max_examples=60)
@given(st.integers(1, 3), st.binary(min_size=1, max_size=100), st.integers(0, 7))
def test_any_rpc_question_is_answered_or_refused(kind: int, data: bytes, flags: int) -> None:
    async def once() -> None:
        try:
            status, reply = await World(answering(rcode=dns.rcode.NXDOMAIN)).resolver.answer(kind, data, 0, flags, 0, rpc.DATA_MAX)
        except ValueError:
            return
        assert status in Status
        assert len(reply) <= rpc.DATA_MAX

    trio.run(once)


async def test_a_search_asks_the_networks_domains_first() -> None:
    world = World(failing(AssertionError()), servers=False)

    async def searched(text: str, kind: str = "A") -> tuple[Status, dns.message.Message]:
        wire = dns.message.make_query(text, kind).to_wire()
        status, data = await world.resolver.answer(rpc.RESOLVE_MESSAGE, wire, 0, rpc.RESOLVE_SEARCH, 0, None)
        return Status(status), dns.message.from_wire(data)

    status, response = await searched("web")
    assert status is Status.FOUND
    assert response.question[0].name.to_text() == "web.lab.example."
    assert (await searched("web.lab.example"))[0] is Status.FOUND
    status, response = await searched("nobody")
    assert status is Status.REFUSED
    assert response.question[0].name.to_text() == "nobody."


async def test_an_answer_has_the_room_that_it_is_given() -> None:
    world = World(answering(*(f"many.lab.example. 60 A 10.1.0.{number}" for number in range(1, 101))))
    plain = dns.message.make_query("many.lab.example", "A").to_wire()
    large = dns.message.make_query("many.lab.example", "A", use_edns=0, payload=4096).to_wire()
    for query, room, cut in ((plain, None, True), (large, None, True), (plain, 65535, False), (plain, 600, True)):
        _, wire = await world.resolver.respond(query, limit=room)
        assert wire is not None
        assert bool(dns.message.from_wire(wire).flags & dns.flags.TC) is cut
        assert len(wire) <= (room or (UDP_PLAIN if query is plain else 1232))
