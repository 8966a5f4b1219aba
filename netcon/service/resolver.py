"""Names for programs: what the table (`netcon.names`) does not know is asked of the networks' DNS servers, over the networks.

Questions come from the intercept library by socket RPC (RESOLVE, include/netcon/socket_rpc.h) and from DNS clients on port 53
(`netcon.service.name_server`). Whatever is asked, an answer leaves within _LONGEST_S. The service asks no resolver of the host:
where policy lets a name go there, the library is told so (HOST), and asks in the program's own namespace.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import trio

from netcon.names.cache import Cache
from netcon.names.messages import (
    TTL,
    UDP_MAX,
    Question,
    address_records,
    addresses_in,
    pointer_record,
    read_question,
    respond,
    start_of_authority,
)
from netcon.names.ordering import order
from netcon.names.table import IP, Absent, Forward, Found, IPNetwork, NameTable, NetworkNames, Outside, Verdict, reversed_address
from netcon.service import resolve_rpc as rpc
from netcon.sockets import ServiceUnavailable, open_tcp, open_udp

log = logging.getLogger("netcon.names")

_PORT = 53
_CUT_OFF = 2  # TC, in the third byte of a message
_LONGEST_S = 12.0
_ATTEMPT_S = 2.0  # for a server's answer; the second round waits twice as long
_ROUNDS = 2
_NEGATIVE_TTL = 30


class Status(IntEnum):
    """enum netcon_resolve_status."""

    FOUND = 0
    NOT_FOUND = 1
    NO_DATA = 2
    AGAIN = 3
    FAILED = 4
    HOST = 5
    REFUSED = 6


@dataclass(slots=True, frozen=True)
class Answer:
    """What came of a question. `source` says, for people, who knows it."""

    status: Status
    source: str
    name: dns.name.Name | None = None
    """The canonical name, or the name of an address."""
    records: tuple[dns.rrset.RRset, ...] = ()
    ttl: int = TTL
    authoritative: bool = False
    zone: dns.name.Name | None = None

    @property
    def addresses(self) -> list[IP]:
        return addresses_in(self.records)


@dataclass(slots=True, frozen=True)
class View:
    """What the resolver must know of the service at one moment."""

    table: NameTable
    networks: tuple[NetworkNames, ...] = ()
    """What the table is made of."""
    sources: tuple[IP, ...] = ()
    """Our own addresses on the networks."""
    reachable: tuple[IPNetwork, ...] = ()
    host: bool = False
    """By policy a name of no network is for the host's resolver."""


Asker = Callable[[Forward, dns.message.QueryMessage, str], Awaitable[dns.message.Message]]


def network_asker(path: Path) -> Asker:
    """Asks one server, over UDP, and TCP when the answer is cut off. `path`: the service's own RPC socket.

    The asker raises OSError, EOFError, trio's BrokenResourceError, ServiceUnavailable, DNSException. Time limits are the caller's.
    """

    async def ask(forward: Forward, query: dns.message.QueryMessage, server: str) -> dns.message.Message:
        wire = query.to_wire()
        async with await open_udp(path, "::" if ":" in server else "0.0.0.0", 0, forward.network) as udp:
            await udp.connect(server, _PORT)
            await udp.send(wire)
            while True:
                data = await udp.receive()
                if data[:2] == wire[:2] and len(data) > 2 and data[2] & _CUT_OFF:
                    break
                with contextlib.suppress(dns.exception.DNSException):
                    response = dns.message.from_wire(data)
                    if query.is_response(response):
                        return response
        async with await open_tcp(path, server, _PORT, forward.network) as tcp:
            await tcp.send_all(len(wire).to_bytes(2) + wire)
            length = int.from_bytes(await receive_exactly(tcp, 2))
            response = dns.message.from_wire(await receive_exactly(tcp, length))
        if not query.is_response(response):
            raise EOFError("it answered another question")
        return response

    return ask


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """EOFError when the stream ends before."""
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise EOFError("the connection ended within a message")
        data += more
    return data


@dataclass(slots=True)
class Resolver:
    """Answers questions about names. `view` gives the state of now, `clock` seconds, `ask` performs one query."""

    view: Callable[[], View]
    ask: Asker
    clock: Callable[[], float] = trio.current_time
    cache: Cache[Answer] = field(default_factory=Cache)

    # -- one name, one type --

    async def query(self, name: dns.name.Name, rdtype: int, network: int = 0, *, forward: bool = True) -> Answer:
        """A question as DNS asks it. `forward`: servers may be asked; otherwise (for other members) we say what we know."""
        view = self.view()
        ip = reversed_address(name)
        verdict = view.table.look_up(name, network) if ip is None else view.table.name_of(ip, network)
        if not forward and not self._is_of(verdict, view.table, network):
            return Answer(Status.REFUSED, "not a name of this network")
        match verdict:
            case Found():
                return self._known(verdict, name, rdtype, ip)
            case Absent(zone, source):
                return Answer(Status.NOT_FOUND, source, authoritative=True, zone=zone)
            case Forward() if forward:
                return await self._forwarded(verdict, name, rdtype)
            case Outside() if forward and view.host:
                return Answer(Status.HOST, "no network's name: the host's resolver may be asked")
        return Answer(Status.REFUSED, "no network's name, and policy keeps names from the host's resolver")

    @staticmethod
    def _is_of(verdict: Verdict, table: NameTable, network: int) -> bool:
        """For other members: names of this network, and that one of its names is missing. The owner's other names are his."""
        match verdict:
            case Found(name):
                return any(name.is_subdomain(domain) for domain in table.domains(network))
            case Absent():
                return True
        return False

    @staticmethod
    def _known(found: Found, name: dns.name.Name, rdtype: int, ip: IP | None) -> Answer:
        if ip is not None:
            records = [pointer_record(name, found.name)] if rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY) else []
        else:
            records = address_records(name, rdtype, found.addresses)
        status = Status.FOUND if records else Status.NO_DATA
        return Answer(status, found.source, found.name, tuple(records), authoritative=True, zone=found.name)

    async def _forwarded(self, forward: Forward, name: dns.name.Name, rdtype: int) -> Answer:
        key = (forward.network, forward.servers, name, rdtype)
        if (kept := self.cache.get(key, self.clock())) is not None:
            answer, left = kept
            return Answer(answer.status, answer.source, answer.name, answer.records, left, zone=answer.zone)
        answer = await self._ask_servers(forward, name, rdtype)
        if answer.status in (Status.FOUND, Status.NOT_FOUND, Status.NO_DATA):
            self.cache.put(key, answer, answer.ttl, self.clock())
        return answer

    async def _ask_servers(self, forward: Forward, name: dns.name.Name, rdtype: int) -> Answer:
        refused = ""
        trouble = "no answer"
        for attempt in range(_ROUNDS):
            for server in map(str, forward.servers):
                query = dns.message.make_query(name, dns.rdatatype.RdataType(rdtype), use_edns=0, payload=UDP_MAX)
                try:
                    with trio.fail_after(_ATTEMPT_S * (attempt + 1)):
                        response = await self.ask(forward, query, server)
                except (OSError, EOFError, trio.TooSlowError, trio.BrokenResourceError, ServiceUnavailable) as error:
                    trouble = f"{server}: {str(error) or 'no answer in time'}"
                    continue
                except dns.exception.DNSException as error:
                    trouble = f"{server}: {error}"
                    continue
                if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return _of_response(response, f"DNS server {server} of network {forward.network:016x}")
                refused = f"{server}: {dns.rcode.to_text(response.rcode())}"
            if refused:
                return Answer(Status.FAILED, refused, zone=forward.zone)
        return Answer(Status.AGAIN, trouble, zone=forward.zone)

    # -- as programs ask --

    async def addresses(self, text: str | bytes, family: int = 0, network: int = 0, *, configured: bool = False) -> Answer:
        """The addresses of a name as a program gives it, best first. Its `records` are not in that order: use `ordered`."""
        last = Answer(Status.NOT_FOUND, "not a name that DNS could hold")
        for name in self.view().table.candidates(text, network):
            answers: dict[int, Answer] = {}

            async def one(rdtype: int, name: dns.name.Name = name, answers: dict[int, Answer] = answers) -> None:
                answers[rdtype] = await self.query(name, rdtype, network)

            async with trio.open_nursery() as nursery:
                for rdtype in self._types(family, configured):
                    nursery.start_soon(one, rdtype)
            last = _merged([answers[rdtype] for rdtype in sorted(answers)]) if answers else last
            if last.status is not Status.NOT_FOUND:
                break
        return last

    def _types(self, family: int, configured: bool) -> list[int]:
        versions = {ip.version for ip in self.view().sources} if configured else {4, 6}
        wanted = [(socket.AF_INET, 4, dns.rdatatype.A), (socket.AF_INET6, 6, dns.rdatatype.AAAA)]
        types = [int(rdtype) for each, version, rdtype in wanted if family in (0, each) and version in versions]
        return types or [int(rdtype) for each, _, rdtype in wanted if family in (0, each)]

    def ordered(self, answer: Answer) -> list[IP]:
        """Its addresses in the order of RFC 6724."""
        view = self.view()
        return order(answer.addresses, view.sources, view.reachable)

    async def name_of(self, ip: IP, network: int = 0) -> Answer:
        """The name of an address."""
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        answer = await self.query(dns.reversename.from_address(str(ip)), dns.rdatatype.PTR, network)
        if answer.status is Status.FOUND:
            for rrset in answer.records:
                if rrset.rdtype == dns.rdatatype.PTR:
                    return Answer(Status.FOUND, answer.source, rrset[0].target, answer.records, answer.ttl)
            return Answer(Status.NO_DATA, answer.source)
        return answer

    async def respond(
        self, wire: bytes, network: int = 0, *, limit: int | None = None, forward: bool = True, search: bool = False
    ) -> tuple[Status, bytes | None]:
        """The response to a DNS query; None: none is due. `limit`: bytes that fit, else what the query says of UDP. `search`: one
        label is looked for in the networks' domains first; the response is to the query that ended the search."""
        question = read_question(wire)
        if not isinstance(question, Question):
            return Status.FOUND, question
        try:
            with trio.fail_after(_LONGEST_S):
                answer = await self.query(question.name, question.rdtype, network, forward=forward)
                for name in self._domains_of(question.name, network) if search else []:
                    found = await self.query(name, question.rdtype, network, forward=forward)
                    if found.status is not Status.NOT_FOUND:
                        answer = found
                        question.ask(name)
                        break
        except trio.TooSlowError:
            answer = Answer(Status.AGAIN, "no answer in time")
        room = question.room if limit is None else limit
        match answer.status:
            case Status.FOUND | Status.NO_DATA | Status.NOT_FOUND:
                rcode = dns.rcode.NXDOMAIN if answer.status is Status.NOT_FOUND else dns.rcode.NOERROR
                authority = [start_of_authority(answer.zone)] if answer.zone is not None and not answer.records else []
                reply = respond(question.message, rcode, answer.records, authority, authoritative=answer.authoritative, limit=room)
            case Status.AGAIN:
                reply = respond(question.message, dns.rcode.SERVFAIL, limit=room)
            case _:
                reply = respond(question.message, dns.rcode.REFUSED, limit=room)
        return answer.status, reply

    def _domains_of(self, name: dns.name.Name, network: int) -> list[dns.name.Name]:
        """A name of one label, in the networks' domains."""
        return self.view().table.candidates(name.to_text(omit_final_dot=True), network)[:-1]

    # -- for socket RPC --

    async def answer(self, kind: int, data: bytes, family: int, flags: int, network: int, room: int | None) -> tuple[int, bytes]:
        """(status, data) of the reply to RESOLVE. `room`: as `respond`'s `limit`. ValueError: the request makes no sense."""
        with trio.move_on_after(_LONGEST_S):
            match kind:
                case rpc.RESOLVE_NAME:
                    text = data.decode("utf-8", "replace") if flags & rpc.RESOLVE_IDN else data
                    answer = await self.addresses(text, family, network, configured=bool(flags & rpc.RESOLVE_CONFIGURED))
                    return answer.status, rpc.pack_resolved(answer.ttl, self.ordered(answer), _text(answer.name))
                case rpc.RESOLVE_ADDRESS:
                    answer = await self.name_of(rpc.unpack_question_address(data), network)
                    return answer.status, rpc.pack_resolved(answer.ttl, [], _text(answer.name))
                case rpc.RESOLVE_MESSAGE:
                    status, response = await self.respond(data, network, limit=room, search=bool(flags & rpc.RESOLVE_SEARCH))
                    return status, response or b""
                case _:
                    raise ValueError(f"question {kind}")
        return Status.AGAIN, b""


def _text(name: dns.name.Name | None) -> bytes:
    return b"" if name is None else name.to_text(omit_final_dot=True).encode("ascii")


def _of_response(response: dns.message.Message, source: str) -> Answer:
    """What a server's NOERROR or NXDOMAIN says."""
    name: dns.name.Name | None = None
    ttl = _NEGATIVE_TTL
    found = False
    if isinstance(response, dns.message.QueryMessage) and response.question:
        try:
            chain = response.resolve_chaining()
            name, found = chain.canonical_name, chain.answer is not None
            ttl = min(chain.minimum_ttl, 3600)
        except dns.exception.DNSException:
            found = False
    soa = next((rrset.name for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA), None)
    if found:
        return Answer(Status.FOUND, source, name, tuple(response.answer), ttl)
    status = Status.NOT_FOUND if response.rcode() == dns.rcode.NXDOMAIN else Status.NO_DATA
    return Answer(status, source, name, tuple(response.answer), min(ttl, _NEGATIVE_TTL), zone=soa)


_BEST_FIRST = (Status.FOUND, Status.HOST, Status.AGAIN, Status.NO_DATA, Status.NOT_FOUND, Status.REFUSED, Status.FAILED)


def _merged(answers: Sequence[Answer]) -> Answer:
    """Of the two families' answers, one."""
    best = min(answers, key=lambda answer: _BEST_FIRST.index(answer.status))
    if best.status is not Status.FOUND:
        return best
    records = tuple(rrset for answer in answers if answer.status is Status.FOUND for rrset in answer.records)
    return Answer(Status.FOUND, best.source, best.name, records, min(answer.ttl for answer in answers))
