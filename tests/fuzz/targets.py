"""The fuzz targets in Python: for each decoder what it is fed, which errors it may raise, and what must hold of what it returns.

A target is called with bytes. A documented error is a normal end; everything else that it raises is a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import h11

from netcon import policy as policies
from netcon import trace
from netcon.controller import CorruptStore, InvalidRequest
from netcon.controller.records import load_records, new_member, new_network, record_text, update_member, update_network
from netcon.core.address import (
    encode_inet,
    format_endpoint,
    format_mac,
    parse_endpoint,
    parse_mac,
    parse_network,
    parse_prefix,
    read_inet,
)
from netcon.core.buffer import Reader
from netcon.core.credentials import Capability, CertificateOfMembership, CertificateOfOwnership, Revocation, Tag
from netcon.core.dictionary import Dictionary
from netcon.core.errors import DecodeError, NetconError
from netcon.core.identity import Identity
from netcon.core.messages import Error, Ok, decode_error, decode_message, decode_reply
from netcon.core.netconf import ConfigAssembler, ConfigChunk, NetworkConfig, check_token
from netcon.core.node import Node
from netcon.core.packet import BODY, COMPRESSED, Fragment, PacketHeader, build_packet, decompress_body, is_fragment
from netcon.core.peer import parse_cache
from netcon.core.rule_decompiler import NotExpressible, decompile_rules, rule_set_from_json
from netcon.core.rule_language import RuleSyntaxError, compile_rules
from netcon.core.rules import RuleType, decode_rules, encode_rules, rule_from_json, rule_to_json
from netcon.core.world import World
from netcon.dataplane import crypto
from netcon.elf import DamagedElf, Elf
from netcon.forward import proxy, socks
from netcon.forward.specification import Direction, ForwardError, parse_forward
from netcon.names.messages import Question, read_question, respond
from netcon.service import resolve_rpc, socket_rpc
from netcon.service.errors import ServiceError, SettingsError
from netcon.service.home import Home
from netcon.service.planet import choose_planet
from netcon.service.settings import NetworkSettings, parse_local_conf
from tests.fuzz import corpus
from tests.fuzz.corpus import hexes, packets, strings, vectors

EPOCH = 1_700_000_000_000
_NETWORK = 0xCE350AEFF9CAFE01
_FILE = Path("fuzzed")


@dataclass(frozen=True)
class Target:
    """`errors`: what `run` may raise; DecodeError is always among them."""

    name: str
    run: Callable[[bytes], object]
    inputs: Callable[[], Iterable[bytes]]
    errors: tuple[type[Exception], ...] = ()

    def __call__(self, data: bytes) -> bool:
        """Whether the input was accepted."""
        try:
            self.run(data)
        except (DecodeError, *self.errors):
            return False
        return True

    def corpus(self) -> list[bytes]:
        found = list(dict.fromkeys(self.inputs()))
        assert found, f"{self.name} has nothing to begin with"
        return found


def same_again(value: Any, decode: Callable[[bytes], Any]) -> bytes:
    """decode(encode(x)) == x, and what is encoded is canonical: it decodes and encodes to itself."""
    encoded: bytes = value.encode()
    again = decode(encoded)
    assert again == value, f"{again!r} is not {value!r}"
    assert again.encode() == encoded
    return encoded


# -- the wire (vl1, vl2) --


def _bodies() -> Iterable[bytes]:
    return (packet[BODY - 1 :] for packet in packets() if len(packet) >= BODY)


def message(data: bytes) -> None:
    """The verb byte, then the body; replies and errors with what they carry."""
    if not data:
        return
    verb, body = data[0] & 0x1F, data[1:]
    if data[0] & COMPRESSED:
        body = decompress_body(body)
    decoded = decode_message(verb, body)
    same_again(decoded, lambda encoded: decode_message(verb, encoded))
    detail = None
    if isinstance(decoded, Ok):
        detail = decode_reply(decoded)
    elif isinstance(decoded, Error):
        detail = decode_error(decoded)
    if detail is not None:
        same_again(detail, type(detail).decode)


def header(data: bytes) -> None:
    if is_fragment(data):
        fragment = Fragment.parse(data)
        assert 1 <= fragment.number < fragment.total <= 7
        return
    parsed = PacketHeader.parse(data)
    rebuilt = build_packet(parsed.packet_id, parsed.destination, parsed.source, parsed.verb_byte, data[BODY:])
    assert rebuilt[:18] == data[:18]
    assert rebuilt[27:] == data[27:]


@cache
def _keys() -> crypto.PeerKeys:
    return crypto.PeerKeys(bytes.fromhex(vectors("packet_armor")["keys"]["key48"]))


def armour(data: bytes) -> None:
    """What opens is what was sealed: it seals to an equal packet."""
    clear = _keys().open(data)
    assert len(clear) == len(data)
    suite = data[18] >> 3 & 7
    if suite in (0, 1):
        sealed = _keys().seal(clear, suite)
        assert sealed[8:18] == data[8:18]
        assert sealed[19:] == data[19:]


def identity(data: bytes) -> None:
    reader = Reader(data)
    decoded = Identity.decode(reader)
    assert decoded.encode(secret=decoded.secret is not None) == data[: reader.offset]
    assert Identity.decode(Reader(decoded.encode())) == decoded


def identity_text(data: bytes) -> None:
    parsed = Identity.parse(data.decode("latin-1"))
    text = parsed.to_text(secret=parsed.secret is not None)
    assert text == data.decode("latin-1").strip().lower()
    assert Identity.parse(text) == parsed


def world(data: bytes) -> None:
    decoded = World.parse(data)
    same_again(decoded, World.parse)
    decoded.verify()


def inet(data: bytes) -> None:
    reader = Reader(data)
    endpoint = read_inet(reader)
    if endpoint is not None:
        assert encode_inet(endpoint) == data[: reader.offset]
        assert parse_endpoint(format_endpoint(endpoint)) == endpoint


def addresses_in_text(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse, write in ((parse_endpoint, format_endpoint), (parse_prefix, format_endpoint), (parse_mac, format_mac)):
        with contextlib.suppress(DecodeError):
            value = parse(text)
            assert parse(write(value)) == value
    parse_network(text)


def peer_cache(data: bytes) -> None:
    parse_cache(data)


def credential(data: bytes) -> None:
    """All kinds, for they lie back to back and each reads on."""
    for kind in (CertificateOfMembership, Capability, Tag, Revocation, CertificateOfOwnership):
        reader = Reader(data)
        with contextlib.suppress(DecodeError):
            decoded = kind.decode(reader)
            same_again(decoded, lambda encoded, kind=kind: kind.decode(Reader(encoded)))


def dictionary(data: bytes) -> None:
    """Never fails (vl2 §2.1)."""
    decoded = Dictionary.decode(data)
    assert Dictionary.decode(decoded.encode()) == decoded
    for key in decoded:
        assert 0 <= decoded.integer(key) < 1 << 64
        decoded.boolean(key)
        decoded.text(key)


def configuration(data: bytes) -> None:
    config = NetworkConfig.from_dictionary(data)
    written = config.to_dictionary()
    again = NetworkConfig.from_dictionary(written)
    assert again == config, f"{again!r} is not {config!r}"
    assert again.to_dictionary() == written


def _dictionaries() -> Iterable[bytes]:
    return hexes(vectors("netconf"), "dictionary", "encoded")


@cache
def _controller() -> Identity:
    return Identity.parse(vectors("netconf")["chunk_cases"]["controller_public"])


def chunks(data: bytes) -> None:
    """One OK's chunk, which is then offered to an assembler in three shapes: as it is, and claiming other totals."""
    chunk = ConfigChunk.decode(data)
    same_again(chunk, ConfigChunk.decode)
    controller = _controller()
    assembler = ConfigAssembler(chunk.network)
    for each in (chunk, replace(chunk, signature=b""), replace(chunk, update_id=0)):
        with contextlib.suppress(DecodeError):
            assembler.add(each, controller.address, controller)


def _chunks() -> Iterable[bytes]:
    yield from hexes(vectors("netconf")["captured_configurations"], "payload")
    for case in vectors("netconf")["chunk_cases"]["cases"]:
        yield from (bytes.fromhex(text) for text in case["payloads_after_in_re_packet_id"])


def rules(data: bytes) -> None:
    decoded = decode_rules(data)
    assert decode_rules(encode_rules(decoded)) == decoded
    for rule in decoded:
        shown = rule_to_json(rule)
        again = rule_from_json(json.loads(json.dumps(shown)))
        assert rule_to_json(again) == shown


def _rules() -> Iterable[bytes]:
    yield from hexes(vectors("netconf")["credentials"]["rules"], "bytes")
    yield bytes.fromhex(vectors("netconf")["credentials"]["rules_all_concatenated"])
    yield from hexes(vectors("rules_eval"), "rules")


def _as_json(data: bytes) -> Any:
    """JSON, as every reader of ours gets it."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise DecodeError("not JSON") from None


def rule_json(data: bytes) -> None:
    source = _as_json(data)
    for entry in source if isinstance(source, list) else [source]:
        with contextlib.suppress(DecodeError):
            rule = rule_from_json(entry)
            assert decode_rules(rule.encode()) == (rule,)
    found = rule_set_from_json(source)
    with contextlib.suppress(NotExpressible):
        decompile_rules(found)


def _rules_as_json() -> Iterable[bytes]:
    known = frozenset(RuleType)
    lists = [[rule_to_json(rule) for rule in decode_rules(data) if rule.type in known] for data in _rules()]
    yield from (json.dumps(entries).encode() for entries in lists)
    for text in _RULE_TEXTS:
        yield json.dumps(compile_rules(text).to_json()).encode()


_RULE_TEXTS = (
    "drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6;\naccept;\n",
    "tag department\n\tid 1000\n\tenum 100 sales\n\tenum 200 it\n\tdefault sales\n;\naccept tdiff department 0;\ndrop;\n",
    "cap superuser\n\tid 1\n\taccept ipprotocol tcp and dport 22;\n;\nbreak chr tcp_syn and not chr tcp_ack;\naccept;\n",
    "macro web($port)\n\taccept ipprotocol tcp and dport $port;\n;\ninclude web(80)\n# said\naccept ipsrc 10.0.0.0/8;\ndrop;\n",
    "tee 64 1234567890 iptos 0xfc 8-16;\nredirect 1234567890 icmp 8 0;\nwatch -1 1234567890 random 0.5;\ndrop;",
)


def rule_text(data: bytes) -> None:
    compiled = compile_rules(data.decode("utf-8", "replace"))
    for rule in compiled.rules:
        assert decode_rules(rule.encode()) == (rule,)
    text = decompile_rules(compiled)
    assert compile_rules(text).rules == compiled.rules, text


# -- files and requests of the owner --


def policy(data: bytes) -> None:
    parsed = policies.Policy.parse(data.decode("utf-8", "replace"))
    again = policies.Policy.parse(str(parsed))
    assert str(again) == str(parsed)
    assert again.compiled() == parsed.compiled()


_POLICIES = (
    "loopback virtual\n10.0.0.0/8 tcp 80,443,1000-2000 network 8056c2e21c000001\n192.0.2.0/24 host # said\ndefault refuse\n",
    "any udp,tcp 53 network; bind any tcp 8080 host; raw allow; default host",
    "bind fd00::/8 tcp 22 refuse\nany icmp host\n",
)


def local_conf(data: bytes) -> None:
    conf = parse_local_conf(data, _FILE)
    conf.policy()
    conf.physical_networks()
    conf.peer_hints()
    conf.blacklisted_networks()
    conf.without_effect()


_LOCAL_CONFS = (
    {
        "physical": {"10.0.0.0/8": {"blacklist": True}, "10.1.2.0/24": {"trustedPathId": 7, "mtu": 1400}},
        "virtual": {"1234567890": {"try": ["192.0.2.1/9993"], "blacklist": ["fd00::/8"]}},
        "settings": {
            "primaryPort": 9993,
            "allowTcpFallbackRelay": True,
            "interfacePrefixBlacklist": ["docker"],
            "bind": ["10.0.0.1", "::"],
            "names": {"hosts": {"db": ["10.1.1.1"]}, "serve": ["ce350aeff9cafe01"]},
            "networkPort": "stack",
            "policy": ["default host"],
        },
    },
    {"settings": {}},
)


def network_conf(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    parsed = NetworkSettings.parse(text, _FILE)
    assert NetworkSettings.parse(parsed.to_text(), _FILE) == parsed


_NETWORK_CONFS = (
    b"allowManaged=1\nallowGlobal=0\nallowDefault=0\nallowDNS=1\n",
    b"allowManaged=10.0.0.0/8,fd00::/8\nport=tap\naddresses=10.1.2.3/24\n",
)

NETWORK_RECORDS = (
    {
        "name": "lab",
        "private": True,
        "mtu": 2800,
        "multicastLimit": 32,
        "v4AssignMode": {"zt": True},
        "v6AssignMode": "6plane,zt",
        "routes": [{"target": "10.9.0.0/24", "via": "10.9.0.1"}],
        "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.9"}],
        "rules": [{"type": "ACTION_ACCEPT"}],
        "dns": {"domain": "lab", "servers": ["10.9.0.1"]},
        "tags": [{"id": 1, "default": 2}],
        "capabilities": [{"id": 1, "default": True, "rules": [{"type": "MATCH_ETHERTYPE", "etherType": 2048}]}],
    },
    {
        "authorized": True,
        "activeBridge": "true",
        "ipAssignments": ["10.9.0.7"],
        "capabilities": [1],
        "tags": [[1, 2]],
        "noAutoAssignIps": 0,
        "authorizedUntil": 1700000000000,
    },
)


def controller_body(data: bytes) -> None:
    """A POST to the controller's API: any JSON. The record that results is one that the store takes, and gives back."""
    changes = _as_json(data)
    network = update_network(new_network(_NETWORK, 0), changes)
    member = update_member(new_member(_NETWORK, 0x1234567890, 0), changes, 5)
    rows = [("network", f"{_NETWORK:016x}", record_text(network)), ("member", f"{_NETWORK:016x}/1234567890", record_text(member))]
    networks, members = load_records(rows)
    assert networks == {_NETWORK: network}
    assert members == {_NETWORK: {0x1234567890: member}}


def controller_record(data: bytes) -> None:
    """A damaged row of the controller's store."""
    text = data.decode("utf-8", "replace")
    load_records([("network", f"{_NETWORK:016x}", text), ("member", f"{_NETWORK:016x}/1234567890", text)])


def _records() -> Iterable[bytes]:
    return (json.dumps(record).encode() for record in NETWORK_RECORDS)


# -- programs on this host --


def rpc(data: bytes) -> None:
    """What a service, or whoever is in its place, says to `netcon.sockets`: reply, names, interfaces, datagrams."""
    for read in (
        socket_rpc.unpack_reply,
        socket_rpc.decode_service_name,
        socket_rpc.unpack_address,
        socket_rpc.unpack_interfaces,
        lambda message: socket_rpc.unpack_datagram(message, 2),
        lambda message: socket_rpc.unpack_datagram(message, 10),
        lambda message: socket_rpc.unpack_hello(message, _FILE),
    ):
        with contextlib.suppress(socket_rpc.ProtocolError):
            read(data)


def _rpc_inputs() -> Iterable[bytes]:
    for ip in ("10.1.2.3", "fd00::1"):
        yield socket_rpc.pack_address(ip, 80)
        yield socket_rpc.pack_datagram(b"data", (ip, 53), source=ip, ttl=9, tos=3)
    packed = socket_rpc.SERVICE_NAME.pack(7, 1, 0, 2, 80, 81, 0, b"\x0a\x01\x02\x03", b"\x0a\x01\x02\x04")
    yield socket_rpc.encode_name("C", packed)
    data = socket_rpc.HELLO_REPLY.pack(1, 2, 3)
    yield data
    yield socket_rpc.REPLY.pack(socket_rpc.MAGIC, 1, 1, 0, 0, 0, len(data)) + data
    address = socket_rpc.pack_address("10.1.2.3", 0)
    yield 2 * socket_rpc.INTERFACE.pack(_NETWORK, 2, 65, 2800, 24, b"ztabcdefgh", bytes(6), 0, address)


def resolver_rpc(data: bytes) -> None:
    """A program's question, and a service's answer."""
    for read in (resolve_rpc.unpack_question_address, resolve_rpc.unpack_resolved):
        with contextlib.suppress(ValueError):
            read(data)


def _resolver_inputs() -> Iterable[bytes]:
    ips = [resolve_rpc.unpack_question_address(socket_rpc.pack_address(ip, 0)) for ip in ("10.1.2.3", "fd00::1")]
    yield from (resolve_rpc.pack_question_address(ip) for ip in ips)
    yield resolve_rpc.pack_resolved(30, ips, b"host.example")


def trace_record(data: bytes) -> None:
    event = trace.decode(data)
    trace.arguments(event)
    trace.result(event)


def _trace_records() -> Iterable[bytes]:
    address = socket_rpc.pack_address("10.1.2.3", 80)
    sockaddr = b"\x02\0\0\x50\x0a\x01\x02\x03" + bytes(8)
    for call, count in ((b"connect", 3), (b"sendto", 6), (b"setsockopt", 5), (b"recvfrom", 6), (b"poll", 3), (b"socket", 3)):
        start = (trace.MAGIC, trace.VERSION, 1, 0, 7, 8, 9, 10)
        given = (3, 1, 2, 16, 0, 0)
        head = trace._RECORD.pack(*start, *given, 0, _NETWORK, 5, 2, 1, 6, count, 1, 67, 0, address, address, call)
        yield head + sockaddr
    yield head


def dns_question(data: bytes) -> None:
    question = read_question(data)
    if isinstance(question, Question):
        assert respond(question.message, 0)[:2] == data[:2]  # type: ignore[arg-type]
    elif question is not None:
        assert question[:2] == data[:2]
        assert question[2] & 0x80


_DNS = (
    b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\4host\7example\0\0\1\0\1",
    b"\x12\x34\x01\0\0\1\0\0\0\0\0\1\4host\7example\0\0\x1c\0\1\0\0\x29\x10\0\0\0\0\0\0\0",
    b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x013\x012\x011\x0210\7in-addr\4arpa\0\0\x0c\0\1",
    b"\x12\x34\x01\0\0\1\0\0\0\0\0\1\4host\0\0\xff\0\1\xc0\x0c\0\x10\0\1\0\0\0\1\0\3\2ab",
)


def socks_client(data: bytes) -> None:
    """Each message of a SOCKS5 client. None: more is wanted; then no longer input was needed than is there."""
    for read in (socks.parse_greeting, socks.parse_password, socks.parse_request):
        with contextlib.suppress(socks.SocksError):
            found = read(data)
            if found is not None:
                value, used = found
                assert 0 < used <= len(data)
                assert read(data[:used]) == (value, used)
                assert read(data[: used - 1]) is None
    socks.parse_datagram(data)


_SOCKS = (
    b"\5\2\0\2",
    b"\1\4user\6secret",
    b"\5\1\0\1\x0a\1\2\3\0\x50",
    b"\5\1\0\3\7example\0\x50",
    b"\5\3\0\4" + bytes(15) + b"\1\0\x50",
    b"\0\0\0\1\x0a\1\2\3\0\x35query",
)


def http_proxy(data: bytes) -> None:
    """The head of a request to the HTTP proxy."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return
    if not isinstance(request, h11.Request):
        return
    try:
        settings = proxy.ProxySettings(credentials=(b"user", b"secret"))
        with contextlib.suppress(proxy.HttpRefusal):
            proxy._authenticate(request, settings)
        inet, head = (proxy._connect_target if request.method == b"CONNECT" else proxy._plain_target)(request)
    except proxy.HttpRefusal as refusal:
        proxy._answer(refusal)
        return
    assert 0 < inet.port < 65536
    assert not head or head.count(b"\r\n\r\n") == 1


_HTTP = (
    b"CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n",
    b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[fd00::1]:8080/path?query HTTP/1.1\r\nHost: x\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\r\n",
    b"OPTIONS http://host.example HTTP/1.0\r\nKeep-Alive: 5\r\n\r\n",
)


def forward_specification(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for direction in Direction:
        for udp in (False, True):
            with contextlib.suppress(ForwardError):
                parse_forward(direction, text, udp=udp)


def elf(data: bytes) -> None:
    """A program that `netcon run` or `netcon doctor` looks into."""
    file = Elf(io.BytesIO(data))
    for look in ("interpreter", "is_dynamic", "is_go", "needed", "binds_now", "imports", "exports", "machine_name"):
        with contextlib.suppress(DamagedElf):
            getattr(file, look)


def _programs() -> Iterable[bytes]:
    """The head of this interpreter, and a small shared object."""
    yield Path(sys.executable).read_bytes()[:12_000]
    yield Path("/lib64/ld-linux-x86-64.so.2").read_bytes()[:12_000] if Path("/lib64/ld-linux-x86-64.so.2").exists() else b"\x7fELF"


#: Files of a home folder: the first byte of an input says which of them the rest is.
_HOME_FILES = (
    "identity.secret",
    "identity.public",
    "authtoken.secret",
    "service.id",
    "local.conf",
    "trustedpaths",
    "devicemap",
    "planet",
    "zerotier-one.port",
    f"networks.d/{_NETWORK:016x}.conf",
    f"networks.d/{_NETWORK:016x}.local.conf",
    f"networks.d/{_NETWORK:016x}.token",
    "peers.d/0082915f5e.peer",
    "moons.d/0000000082915f5e.moon",
    "moons.d/0000000082915f5e.seed",
)


def _planet() -> bytes:
    return hexes(vectors("session_join"), "planet")[0]


def home_file(data: bytes) -> None:
    """A home with a file that is damaged: everything that a service reads at its start. A refusal names the file."""
    if not data:
        return
    name = _HOME_FILES[data[0] % len(_HOME_FILES)]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        if name != "identity.secret":
            home.write("identity.secret", corpus.secret().encode(), 0o600)
        home.write("planet", _planet())
        home.write(name, data[1:], 0o600)
        try:
            own = home.identity() if name.startswith("identity") else Identity.parse(corpus.secret())  # the check is memory-hard
            home.token()
            home.service_id()
            conf = home.local_conf()
            home.last_port()
            planet = choose_planet(home.read("planet"), home.path / "planet")
            node = Node(own, planet, random=random.Random(7).randbytes, now=EPOCH)
            node.set_physical([*conf.physical_networks(), *home.trusted_paths()], conf.peer_hints(), EPOCH)
            for network, cached in home.networks().items():
                home.network_settings(network)
                home.device_name(network)
                with contextlib.suppress(NetconError):
                    check_token(home.join_token(network))
                node.join(network, EPOCH, cached)
        except ServiceError as error:
            if name not in str(error):
                raise AssertionError(f"{error}: does not name {name}") from error
            raise
        for moon, stored in home.moons():
            with contextlib.suppress(DecodeError):
                node.orbit(moon, EPOCH, stored=stored)
        for moon, seed in home.moon_seeds():
            node.orbit(moon, EPOCH, seed=seed)
        for _, stored in home.peers():
            with contextlib.suppress(DecodeError):
                node.load_peer(stored, EPOCH)


def _home_files() -> Iterable[bytes]:
    secret, planet = corpus.secret(), _planet()
    good = (
        *(secret.encode(), secret.rpartition(":")[0].encode(), b"q7" * 12, b"0123456789abcdef\n"),
        *(json.dumps(_LOCAL_CONFS[0]).encode(), b"7=10.0.0.0/8 # said\n", b"ce350aeff9cafe01=zt0\n", planet, b"9993"),
        *(next(iter(_dictionaries())), _NETWORK_CONFS[0], b"a-token-of-this-network", _PEER_CACHE, planet, b"0082915f5e"),
    )
    return (bytes((number,)) + data for number, data in enumerate(good))


def _texts(*texts: str) -> Callable[[], Iterable[bytes]]:
    return lambda: (text.encode() for text in texts)


TARGETS: tuple[Target, ...] = (
    Target("message", message, _bodies),
    Target("header", header, corpus.datagrams),
    Target("armour", armour, lambda: hexes(vectors("packet_armor"), "armored"), (crypto.CryptoError,)),
    Target("identity", identity, lambda: hexes(vectors("identity"), "binary_public", "binary_with_private", "bytes")),
    Target(
        "identity_text",
        identity_text,
        lambda: (text.encode() for text in strings(vectors("identity"), "public_string", "secret_string", "string")),
    ),
    Target("world", world, lambda: hexes([vectors("verbs"), vectors("session_join")], "planet")),
    Target("inet", inet, lambda: hexes(vectors("addressing")["address_decoding"], "bytes")),
    Target("addresses_in_text", addresses_in_text, _texts("10.1.2.3/24", "fd00::1/64", "02:00:00:00:00:01", "ce350aeff9cafe01")),
    Target("peer_cache", peer_cache, lambda: [_PEER_CACHE]),
    Target("credential", credential, corpus.credentials),
    Target("dictionary", dictionary, _dictionaries),
    Target("configuration", configuration, _dictionaries),
    Target("chunks", chunks, _chunks),
    Target("rules", rules, _rules),
    Target("rule_json", rule_json, _rules_as_json),
    Target("rule_text", rule_text, _texts(*_RULE_TEXTS), (RuleSyntaxError, NotExpressible)),
    Target("policy", policy, _texts(*_POLICIES), (policies.PolicyError,)),
    Target("local_conf", local_conf, lambda: (json.dumps(conf).encode() for conf in _LOCAL_CONFS), (SettingsError,)),
    Target("network_conf", network_conf, lambda: _NETWORK_CONFS, (SettingsError,)),
    Target("home_file", home_file, _home_files, (ServiceError,)),
    Target("controller_body", controller_body, _records, (InvalidRequest,)),
    Target("controller_record", controller_record, _records, (CorruptStore,)),
    Target("rpc", rpc, _rpc_inputs),
    Target("resolver_rpc", resolver_rpc, _resolver_inputs),
    Target("trace_record", trace_record, _trace_records, (trace.BadRecord,)),
    Target("dns_question", dns_question, lambda: _DNS),
    Target("socks_client", socks_client, lambda: _SOCKS, (socks.SocksError,)),
    Target("http_proxy", http_proxy, lambda: _HTTP),
    Target(
        "forward_specification",
        forward_specification,
        _texts("8080:host:80", "[::1]:8080:[fd00::1]:80", "/run/a.sock:db:5432", "53"),
    ),
    Target("elf", elf, _programs, (DamagedElf,)),
)
_PEER_CACHE = (
    b"\x02"
    + bytes.fromhex(vectors("identity")["valid"][0]["binary_public"])
    + b"\0\x0c\0\1\0\x0e\0\1\0\2"
    + b"\x04\x0a\x4d\0\1\x27\x09\x06"
    + bytes(16)
    + b"\x27\x09"
)
