"""Every message of the golden vectors decodes and encodes back byte for byte; hostile bytes are refused (vl1 §4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcon.core.address import Endpoint, MulticastGroup, parse_address, parse_network
from netcon.core.errors import DecodeError
from netcon.core.identity import Identity
from netcon.core.messages import (
    Ack,
    AuthenticationRequired,
    DirectPath,
    Echo,
    Error,
    ExtFrame,
    Frame,
    GatherResults,
    Hello,
    Like,
    MoonVersion,
    MulticastFrame,
    MulticastGather,
    MulticastLike,
    NetworkConfigPush,
    NetworkConfigRequest,
    NetworkCredentials,
    Nop,
    Ok,
    OkHello,
    OkMulticastFrame,
    OkMulticastGather,
    OkNetworkConfigRequest,
    OkWhois,
    PathNegotiationRequest,
    PushDirectPaths,
    QosMeasurement,
    QosRecord,
    RemoteTrace,
    Rendezvous,
    UnknownMessage,
    UnwantedMulticast,
    UserMessage,
    Whois,
    decode_error,
    decode_message,
    decode_reply,
)
from netcon.core.netconf import ConfigChunk
from netcon.core.packet import BODY, Fragment, PacketHeader, Verb, decompress_body, is_fragment
from netcon.dataplane.crypto import PeerKeys

VERBS = json.loads((Path(__file__).parent.parent / "vectors" / "verbs.json").read_text())


def name_of(case: dict[str, Any]) -> str:
    return f"{case['verb']}-{case.get('description', case.get('capture', ''))}"[:70]


def body_of(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["plaintext"])[BODY:]


def fields_of(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, _offset, _length, value, *_note in case["fields"]}


def example(section: str, description: str) -> dict[str, Any]:
    return next(case for case in VERBS[section] if case.get("description", case["verb"]).startswith(description))


@pytest.mark.parametrize("case", VERBS["captured"] + VERBS["synthesised"], ids=name_of)
def test_message_round_trips(case: dict[str, Any]) -> None:
    body = body_of(case)
    message = decode_message(case["verb_number"], body)
    assert not isinstance(message, UnknownMessage)
    assert case["verb_number"] == message.VERB
    assert message.encode() == body
    if isinstance(message, Ok):
        reply = decode_reply(message)
        assert reply is not None
        assert reply.encode() == message.data
    if isinstance(message, Error) and (detail := decode_error(message)) is not None:
        assert detail.encode() == message.data


def opened(case: dict[str, Any]) -> bytes:
    """What the datagrams of a case hold after reassembly, armour, compression and field encryption."""
    datagrams = [bytes.fromhex(datagram) for datagram in case["datagrams"]]
    head = next(datagram for datagram in datagrams if not is_fragment(datagram))
    pieces = sorted((Fragment.parse(datagram) for datagram in datagrams if is_fragment(datagram)), key=lambda piece: piece.number)
    keys = PeerKeys(bytes.fromhex(case["key48"]))
    packet = keys.open(head + b"".join(piece.data for piece in pieces))
    header = PacketHeader.parse(packet)
    body = packet[BODY:]
    if header.compressed:
        body = decompress_body(body)
    if header.verb == Verb.HELLO and (offset := Hello.tail_offset(body)) is not None:
        body = keys.crypt_field(packet, BODY + offset)[BODY:]
    return packet[: BODY - 1] + bytes((header.verb,)) + body


@pytest.mark.parametrize("case", VERBS["captured"] + VERBS["synthesised"] + VERBS["malformed"], ids=name_of)
def test_wire_opens_to_the_plain_text(case: dict[str, Any]) -> None:
    assert opened(case)[BODY - 1 :] == bytes.fromhex(case["plaintext"])[BODY - 1 :]


#: Malformed packets that a decoder cannot refuse by itself: it knows neither sender nor what was asked.
ENGINE = {
    "HELLO with protocol version 3": "the decoder reads old versions; the engine drops HELLO below protocol 4",
    "HELLO whose identity address differs": "the source is in the header",
    "ECHO sent in the clear": "the suite is in the header",
    "RENDEZVOUS from a node that is not a root": "who is a root",
    "PUSH_DIRECT_PATHS announcing five paths": "accepted as far as it goes",
    "MULTICAST_FRAME to a unicast MAC": "a rule of reception (vl2 §5.7)",
    "MULTICAST_FRAME with all-zero source MAC": "a rule of reception (vl2 §5.7)",
    "MULTICAST_FRAME with a multicast source MAC": "a rule of reception (vl2 §5.7)",
    "OK(HELLO) for a packet never sent": "what was sent",
    "OK(WHOIS) from a node that is not a root": "who is a root",
    "unknown verb 0x1f": "counts as a sign of life",
    "NETWORK_CONFIG from a plain member": "the signature needs the controller's identity",
    "NETWORK_CONFIG in the unsigned short form": "the source is in the header",
}


@pytest.mark.parametrize("case", VERBS["malformed"], ids=name_of)
def test_malformed_is_refused_unless_only_the_engine_can_tell(case: dict[str, Any]) -> None:
    if any(case["description"].startswith(start) for start in ENGINE):
        decode_message(case["verb_number"], body_of(case))
    else:
        with pytest.raises(DecodeError):
            decode_message(case["verb_number"], body_of(case))


def test_hello_fields() -> None:
    case = example("synthesised", "HELLO naming two moons")
    fields = fields_of(case)
    hello = Hello.decode(body_of(case))
    assert (hello.protocol, hello.major, hello.minor, hello.revision) == tuple(
        fields[name] for name in ("protocol_version", "major", "minor", "revision")
    )
    assert hello.identity.address == parse_address(fields["identity.address"])
    assert hello.destination is not None
    assert hello.destination.port == fields["sent_to.port_or_bits"]
    assert hello.moons is not None
    assert len(hello.moons) == fields["moon_count"] == 2


def test_hello_variants_of_old_senders() -> None:
    oldest = Hello.decode(body_of(example("synthesised", "HELLO of the oldest accepted protocol")))
    assert (oldest.protocol, oldest.destination, oldest.planet_id, oldest.moons) == (4, None, None, None)
    no_planet = Hello.decode(body_of(example("synthesised", "HELLO without the planet part")))
    assert no_planet.destination is not None
    assert (no_planet.planet_id, no_planet.moons) == (None, None)


def test_hello_tail_offset() -> None:
    with_moons = body_of(example("synthesised", "HELLO naming two moons"))
    offset = Hello.tail_offset(with_moons)
    assert offset is not None
    assert with_moons[offset : offset + 2] == b"\0\2"
    assert Hello.tail_offset(body_of(example("synthesised", "HELLO without the planet part"))) is None
    assert Hello.tail_offset(with_moons[:offset]) is None
    assert Hello.tail_offset(b"") is None


def test_push_direct_paths_uses_what_is_there() -> None:
    message = PushDirectPaths.decode(body_of(example("malformed", "PUSH_DIRECT_PATHS announcing five paths")))
    assert len(message.paths) == 1


def test_push_direct_paths_fields() -> None:
    paths = PushDirectPaths.decode(body_of(example("synthesised", "PUSH_DIRECT_PATHS: plain IPv4"))).paths
    assert [len(path.endpoint.ip) for path in paths if path.endpoint] == [4, 16, 4]
    assert [len(path.extension) for path in paths] == [0, 3, 0]
    assert [path.forget for path in paths] == [False, False, True]


def test_push_direct_paths_skips_unknown_address_types() -> None:
    body = bytes.fromhex("0002 00 0000 07 02 abcd 00 0000 04 06 0a000001 2709".replace(" ", ""))
    assert PushDirectPaths.decode(body).paths == (
        DirectPath(0, b"", None),
        DirectPath(0, b"", Endpoint(bytes((10, 0, 0, 1)), 9993)),
    )


def test_frame_fields() -> None:
    case = next(case for case in VERBS["captured"] if case["verb"] == "FRAME")
    fields = fields_of(case)
    frame = Frame.decode(body_of(case))
    assert (frame.network, frame.ethertype) == (parse_network(fields["network_id"]), int(fields["ethertype"], 16))


def test_ext_frame_carries_the_certificate_of_old_senders() -> None:
    frame = ExtFrame.decode(body_of(example("synthesised", "EXT_FRAME with inline membership")))
    assert frame.certificate is not None
    assert frame.certificate.network == frame.network


def test_gather_survives_a_broken_certificate() -> None:
    message = MulticastGather(0x1122334455667788, MulticastGroup(b"\xff" * 6, 7), 5)
    body = bytearray(message.encode())
    body[8] |= 0x01
    assert MulticastGather.decode(bytes(body) + b"\x02junk") == message


def test_config_acknowledgement_names_echo_or_network_config() -> None:
    data = bytes(range(16))
    for in_re, kind in ((Verb.ECHO, "OkEcho"), (Verb.NETWORK_CONFIG, "OkNetworkConfig")):
        reply = decode_reply(Ok(in_re, 1, data))
        assert type(reply).__name__ == kind
        assert reply is not None
        assert reply.encode() == data


def test_ok_to_a_verb_without_reply() -> None:
    assert decode_reply(Ok(Verb.FRAME, 1, b"x")) is None


def test_unknown_verb_is_kept_as_it_came() -> None:
    assert decode_message(0x1F, b"abc") == UnknownMessage(0x1F, b"abc")


def test_hello_of_appendix_a5() -> None:
    """The complete HELLO of vl1 appendix A.5, armour included."""
    secrets = bytes(range(64)), bytes(range(64, 128))
    publics = [
        bytes.fromhex(
            "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
            "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7"
        ),
        bytes.fromhex(
            "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a"
            "174553b456dddfc6908ecab1c101fe6ab21e2baa0617795b7d43a63482993fd5"
        ),
    ]
    sender = Identity(0x0102030405, publics[0], secrets[0])
    receiver = Identity(0x0A0B0C0D0E, publics[1])
    hello = Hello(
        protocol=12,
        major=1,
        minor=14,
        revision=1,
        timestamp=1700000000000,
        identity=sender,
        destination=Endpoint(bytes((203, 0, 113, 7)), 9993),
        planet_id=149604618,
        planet_timestamp=1644592324813,
        moons=(),
    )
    body = hello.encode()
    offset = Hello.tail_offset(body)
    assert offset == 135 - BODY
    keys = PeerKeys(sender.agree(receiver))
    packet = b"".join(
        (bytes.fromhex("8877665544332211"), receiver.address.to_bytes(5), sender.address.to_bytes(5), bytes(9), b"\x01", body)
    )
    assert keys.seal(keys.crypt_field(packet, BODY + offset), 0).hex() == (
        "88776655443322110a0b0c0d0e010203040500d4f37b803ce24eff010c010e00010000018bcfe568000102030405008f40c5adb68f25624ae5b214"
        "ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd70004cb00710727"
        "090000000008eac90a0000017ee95760cd431c"
    )


# -- properties --

u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
byte = st.integers(0, 255)
address = st.integers(0, (1 << 40) - 1)
mac = st.binary(min_size=6, max_size=6)
group = st.builds(MulticastGroup, mac, u32)
endpoint = st.builds(Endpoint, st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), u16)
identity = st.builds(Identity, address, st.binary(min_size=64, max_size=64))
results = st.builds(GatherResults, u32, st.lists(address, max_size=9).map(tuple))
chunk = st.builds(ConfigChunk, u64, st.binary(max_size=99)).map(
    lambda piece: ConfigChunk(piece.network, piece.data, total=len(piece.data))
)

MESSAGES = st.one_of(
    st.builds(Nop, st.binary()),
    st.builds(
        Hello,
        byte,
        byte,
        byte,
        u16,
        u64,
        identity,
        st.none() | endpoint,
        u64,
        u64,
        st.none() | st.lists(st.builds(MoonVersion, u64, u64, byte), max_size=4).map(tuple),
    ),
    st.builds(Error, byte, u64, byte, st.binary()),
    st.builds(Ok, byte, u64, st.binary()),
    st.builds(Whois, st.lists(address, min_size=1, max_size=9).map(tuple)),
    st.builds(Rendezvous, byte, address, endpoint.filter(lambda at: at.port > 0)),
    st.builds(Frame, u64, u16, st.binary()),
    st.builds(ExtFrame, u64, byte.map(lambda flags: flags & ~1), mac, mac, u16, st.binary()),
    st.builds(Echo, st.binary()),
    st.builds(MulticastLike, st.lists(st.builds(Like, u64, group), max_size=9).map(tuple)),
    st.builds(NetworkCredentials, lists=st.integers(0, 4)),
    st.builds(NetworkConfigRequest, u64, st.binary(max_size=1023), u64, u64),
    st.builds(NetworkConfigPush, chunk),
    st.builds(MulticastGather, u64, group, u32),
    st.builds(MulticastFrame, u64, group, u16, st.binary(), st.none() | u32, st.none() | mac, st.booleans()),
    st.builds(PushDirectPaths, st.lists(st.builds(DirectPath, byte, st.binary(max_size=5), endpoint), max_size=5).map(tuple)),
    st.builds(Ack, u32),
    st.builds(QosMeasurement, st.lists(st.builds(QosRecord, u64, u16), min_size=1, max_size=140).map(tuple)),
    st.builds(UserMessage, u64, st.binary()),
    st.builds(
        RemoteTrace, st.lists(st.binary(min_size=1).filter(lambda event: b"\0" not in event), min_size=1, max_size=3).map(tuple)
    ),
    st.builds(PathNegotiationRequest, st.integers(-32768, 32767)),
)
REPLIES = st.one_of(
    st.builds(OkHello, u64, byte, byte, byte, u16, st.none() | endpoint, st.none() | st.binary()),
    st.builds(OkWhois, st.lists(identity, min_size=1, max_size=3).map(tuple)),
    st.builds(OkMulticastGather, u64, group, results),
    st.builds(OkMulticastFrame, u64, group, st.none() | results),
    st.builds(OkNetworkConfigRequest, chunk),
)
DETAILS = st.one_of(
    st.builds(UnwantedMulticast, u64, group),
    st.builds(AuthenticationRequired, u64, st.none() | st.binary()),
)


@given(MESSAGES)
def test_generated_messages_round_trip(message: Any) -> None:
    assert decode_message(message.VERB, message.encode()) == message


@given(REPLIES)
def test_generated_replies_round_trip(reply: Any) -> None:
    assert decode_reply(Ok(reply.IN_RE, 0, reply.encode())) == reply


@given(DETAILS)
def test_generated_error_details_round_trip(detail: Any) -> None:
    assert type(detail).decode(detail.encode()) == detail


def examine(verb: int, body: bytes) -> None:
    try:
        message = decode_message(verb, body)
        if isinstance(message, Ok):
            decode_reply(message)
        elif isinstance(message, Error):
            decode_error(message)
    except DecodeError:
        pass


@given(st.sampled_from(Verb), st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_decode_error(verb: int, body: bytes) -> None:
    examine(verb, body)
    Hello.tail_offset(body)


#: One body of each kind.
SAMPLES = list({case["verb"]: (case["verb_number"], body_of(case)) for case in VERBS["captured"] + VERBS["synthesised"]}.values())


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_messages_raise_nothing_but_decode_error(sample: tuple[int, bytes], data: st.DataObject) -> None:
    verb, body = sample
    cut = data.draw(st.integers(0, len(body)))
    examine(verb, body[:cut])
    if body:
        broken = bytearray(body)
        for _ in range(data.draw(st.integers(1, 4))):
            broken[data.draw(st.integers(0, len(body) - 1))] = data.draw(byte)
        examine(verb, bytes(broken))
