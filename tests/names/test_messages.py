"""DNS messages: anything may come in, only well-formed answers go out."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.names import messages
from netcon.names.messages import Question, address_records, read_question, respond, start_of_authority

NAME = dns.name.from_text("web.lab.example.")


def question(**more: object) -> dns.message.QueryMessage:
    return dns.message.make_query("Web.Lab.example.", "A", **more)  # type: ignore[arg-type]


def read(wire: bytes) -> Question:
    made = read_question(wire)
    assert isinstance(made, Question)
    return made


def refusal(wire: bytes) -> int:
    made = read_question(wire)
    assert isinstance(made, bytes)
    return dns.message.from_wire(made).rcode()


def test_a_question_is_read() -> None:
    made = read(question().to_wire())
    assert (made.name, made.rdtype, made.room) == (NAME, dns.rdatatype.A, messages.UDP_PLAIN)


@pytest.mark.parametrize(("payload", "room"), [(100, 512), (900, 900), (4096, 1232)])
def test_what_the_asker_takes(payload: int, room: int) -> None:
    assert read(question(use_edns=0, payload=payload).to_wire()).room == room


def test_what_gets_no_answer() -> None:
    response = question().to_wire()
    for wire in (b"", b"\0" * 11, response[:2] + b"\x80" + response[3:]):
        assert read_question(wire) is None


def test_what_is_refused() -> None:
    wire = question().to_wire()
    assert refusal(wire[:-3]) == dns.rcode.FORMERR
    assert refusal(wire[:2] + bytes([5 << 3]) + wire[3:]) == dns.rcode.NOTIMP
    two = question()
    two.question.append(dns.rrset.from_text("b.", 0, "IN", "A"))
    assert refusal(two.to_wire()) == dns.rcode.FORMERR
    assert refusal(dns.message.make_query("x.", "A", "CH").to_wire()) == dns.rcode.REFUSED
    assert refusal(dns.message.make_query("x.", "AXFR").to_wire()) == dns.rcode.REFUSED


def test_an_answer_repeats_the_question_as_it_was_written() -> None:
    made = read(question().to_wire())
    records = address_records(NAME, dns.rdatatype.A, [ipaddress.ip_address("10.1.0.7"), ipaddress.ip_address("fd00::1")])
    wire = respond(made.message, answer=records, authoritative=True)
    response = dns.message.from_wire(wire)
    assert question(id=made.message.id).is_response(response)
    assert response.flags & dns.flags.AA
    assert [rrset.to_text().lower() for rrset in response.answer] == ["web.lab.example. 30 in a 10.1.0.7"]
    assert b"Web" in wire


def test_both_families_for_any() -> None:
    addresses = [ipaddress.ip_address("10.1.0.7"), ipaddress.ip_address("fd00::1")]
    assert [rrset.rdtype for rrset in address_records(NAME, dns.rdatatype.ANY, addresses)] == [1, 28]


def test_what_does_not_fit_is_cut_off() -> None:
    addresses = [ipaddress.IPv4Address(0x0A000000 + number) for number in range(200)]
    made = read(question().to_wire())
    wire = respond(made.message, answer=address_records(NAME, dns.rdatatype.A, addresses), limit=512)
    assert len(wire) <= 512
    assert dns.message.from_wire(wire).flags & dns.flags.TC


def test_a_negative_answer_says_how_long_it_holds() -> None:
    made = read(question().to_wire())
    wire = respond(made.message, dns.rcode.NXDOMAIN, authority=[start_of_authority(NAME.parent())])
    response = dns.message.from_wire(wire)
    assert (response.rcode(), response.authority[0].rdtype, response.authority[0].ttl) == (3, dns.rdatatype.SOA, messages.TTL)


@given(st.binary(max_size=600))
def test_garbage_is_read(wire: bytes) -> None:
    made = read_question(wire)
    if isinstance(made, bytes):
        assert made[:2] == wire[:2]
        assert made[2] & 0x80


@given(st.binary(max_size=200), st.integers(0, 60))
def test_spoilt_questions_are_read(garbage: bytes, at: int) -> None:
    wire = question(use_edns=0).to_wire()
    made = read_question(wire[:at] + garbage + wire[at + len(garbage) :])
    if isinstance(made, Question):
        dns.message.from_wire(respond(made.message, answer=address_records(NAME, made.rdtype, [])))
