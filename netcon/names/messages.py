"""DNS messages on the wire (RFC 1035 §4, RFC 6891): questions read with suspicion, answers made.

What comes in may be anything; what goes out is well formed. dnspython does the encoding.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from netcon.names.table import IP

#: Answers from the table hold this long, seconds: members come and go.
TTL = 30
#: The largest answer over UDP that crosses every virtual network in one piece (RFC 9715).
UDP_MAX = 1232
#: And where EDNS does not say more (RFC 1035 §4.2.1).
UDP_PLAIN = 512
_HEADER = 12
_QR = 0x80


@dataclass(slots=True)
class Question:
    """A well-formed query for one name. `room`: what the asker takes over UDP, bytes."""

    message: dns.message.QueryMessage
    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    room: int

    def ask(self, name: dns.name.Name) -> None:
        """Make it a question for another name."""
        if name != self.name:
            self.name = name
            self.message.question = [dns.rrset.RRset(name, dns.rdataclass.IN, self.rdtype)]


def read_question(wire: bytes) -> Question | bytes | None:
    """The question; or what to answer to a faulty one; or None for what gets no answer."""
    if len(wire) < _HEADER or wire[2] & _QR:
        return None
    opcode = wire[2] >> 3 & 15
    if opcode != dns.opcode.QUERY:
        return _refusal(wire, dns.rcode.NOTIMP)
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, UnicodeError):
        return _refusal(wire, dns.rcode.FORMERR)
    if not isinstance(message, dns.message.QueryMessage) or len(message.question) != 1:
        return _refusal(wire, dns.rcode.FORMERR)
    asked = message.question[0]
    transfer = dns.rdatatype.is_metatype(asked.rdtype) and asked.rdtype != dns.rdatatype.ANY
    if asked.rdclass != dns.rdataclass.IN or transfer:
        return respond(message, dns.rcode.REFUSED)
    if message.edns > 0:
        return _refusal(wire, dns.rcode.FORMERR)
    room = min(max(message.payload, UDP_PLAIN), UDP_MAX) if message.edns == 0 else UDP_PLAIN
    return Question(message, asked.name.canonicalize(), asked.rdtype, room)


def _refusal(wire: bytes, rcode: int) -> bytes:
    """A header alone: the question cannot be repeated."""
    return wire[:2] + bytes([_QR | wire[2] & 0x79, rcode & 15]) + bytes(8)


def respond(
    query: dns.message.Message,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    answer: Iterable[dns.rrset.RRset] = (),
    authority: Iterable[dns.rrset.RRset] = (),
    *,
    authoritative: bool = False,
    limit: int = 65535,
) -> bytes:
    """A response; what does not fit into `limit` bytes is left out, with TC set."""
    response = dns.message.make_response(query, recursion_available=True, our_payload=UDP_MAX)
    response.set_rcode(rcode)
    if authoritative:
        response.flags |= dns.flags.AA
    response.answer.extend(answer)
    response.authority.extend(authority)
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def address_records(name: dns.name.Name, rdtype: int, addresses: Iterable[IP]) -> list[dns.rrset.RRset]:
    """A or AAAA records; both for ANY."""
    records = []
    for version, kind in ((4, dns.rdatatype.A), (6, dns.rdatatype.AAAA)):
        texts = [str(ip) for ip in addresses if ip.version == version]
        if texts and rdtype in (kind, dns.rdatatype.ANY):
            records.append(dns.rrset.from_text_list(name, TTL, dns.rdataclass.IN, kind, texts))
    return records


def pointer_record(name: dns.name.Name, target: dns.name.Name) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, TTL, dns.rdataclass.IN, dns.rdatatype.PTR, target.to_text())


def start_of_authority(zone: dns.name.Name) -> dns.rrset.RRset:
    """With a negative answer: for how long it holds (RFC 2308 §3)."""
    text = f"{zone} hostmaster. 1 3600 600 86400 {TTL}"
    return dns.rrset.from_text(zone, TTL, dns.rdataclass.IN, dns.rdatatype.SOA, text)


def addresses_in(rrsets: Iterable[dns.rrset.RRset]) -> list[IP]:
    """The addresses of A and AAAA records."""
    return [
        ipaddress.ip_address(record.address)
        for rrset in rrsets
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        for record in rrset
    ]
