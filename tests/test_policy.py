"""The policy language, and that the table it becomes decides as it does (netcon/policy.h)."""

from __future__ import annotations

import ctypes
import ipaddress
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcon.policy import RULES_MAX, Direction, Policy, PolicyError, Protocol, Rule, Target

EXAMPLE = """\
loopback virtual
10.0.0.0/8 tcp 80,8000-8100 network 8056c2e21c000001
192.0.2.0/24 host
2001:db8::/32 udp,icmp refuse
tcp,udp 53 network
bind any tcp 8080 host
raw allow
names host
default refuse
"""


def test_what_is_formatted_is_read_again() -> None:
    policy = Policy.parse(EXAMPLE)
    again = Policy.parse(str(policy))
    assert again.compiled() == policy.compiled()
    assert str(again) == str(policy)
    assert str(policy).splitlines()[1] == "10.0.0.0/8 tcp 80,8000-8100 network 8056c2e21c000001"
    assert Policy.parse("loopback host # as ever; not a line") == Policy.parse(["loopback host"])
    assert Policy.parse("any host; default host") == Policy((Rule(Target.HOST, line=1),), Target.HOST)
    assert Policy.parse("") == Policy()


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("foo", 1, 1, "`foo` is not an address"),
        ("loopback host\nany", 2, 4, "the end of the line is not"),
        ("10.0.0.1/8 host", 1, 1, "host bits"),
        ("10.0.0.256 host", 1, 1, "not an address or prefix"),
        ("::ffff:10.0.0.1 host", 1, 1, "write IPv4 addresses as such"),
        ("any 53 host", 1, 5, "name the protocol"),
        ("any icmp 53 host", 1, 10, "name the protocol"),
        ("any tcp 9-8 host", 1, 9, "ports go from"),
        ("any tcp 65536 host", 1, 9, "ports go from"),
        ("any virtual", 1, 5, "loopback addresses"),
        ("host", 1, 1, "say what this is about"),
        ("bind host", 1, 6, "say what this is about"),
        ("any network 12", 1, 13, "16 hexadecimal digits"),
        ("any host; any refuse x", 1, 22, "nothing may follow"),
        ("raw", 1, 1, "`allow` or `refuse`"),
        ("names", 1, 1, "`host` or `refuse`"),
        ("names host; names refuse", 1, 13, "said twice"),
        ("default network", 1, 1, "`host` or `refuse`"),
        ("default host\ndefault refuse", 2, 1, "said twice"),
        ("loopback host\n" * 33, 33, 1, "too long"),
    ],
)
def test_errors_name_the_place(text: str, line: int, column: int, part: str) -> None:
    with pytest.raises(PolicyError, match=part) as caught:
        Policy.parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("address", "port", "protocol", "direction", "line", "target"),
    [
        ("127.9.9.9", 1, Protocol.TCP, Direction.CONNECT, 1, Target.VIRTUAL),
        ("::1", 1, Protocol.UDP, Direction.BIND, 1, Target.VIRTUAL),
        ("::ffff:127.0.0.1", 1, Protocol.UDP, Direction.BIND, 1, Target.VIRTUAL),
        ("10.1.2.3", 8050, Protocol.TCP, Direction.CONNECT, 2, Target.NETWORK),
        ("10.1.2.3", 8101, Protocol.TCP, Direction.CONNECT, None, Target.UNDECIDED),
        ("10.1.2.3", 80, Protocol.UDP, Direction.CONNECT, None, Target.UNDECIDED),
        ("192.0.2.9", 0, Protocol.ICMP, Direction.CONNECT, 3, Target.HOST),
        ("192.0.2.9", 0, Protocol.TCP, Direction.BIND, None, Target.UNDECIDED),
        ("2001:db8::1", 53, Protocol.UDP, Direction.CONNECT, 4, Target.REFUSE),
        ("2001:db9::1", 53, Protocol.UDP, Direction.CONNECT, 5, Target.NETWORK),
        ("0.0.0.0", 8080, Protocol.TCP, Direction.BIND, 6, Target.HOST),
    ],
)
def test_the_first_line_that_fits_decides(
    address: str, port: int, protocol: Protocol, direction: Direction, line: int | None, target: Target
) -> None:
    verdict = Policy.parse(EXAMPLE).decide(ipaddress.ip_address(address), port, protocol, direction)
    assert (verdict.rule and verdict.rule.line, verdict.target) == (line, target)


def test_loopback_is_the_hosts_and_the_rest_closed_without_a_word() -> None:
    verdict = Policy().decide(ipaddress.ip_address("127.0.0.1"))
    assert (verdict.target, verdict.fallback, Policy().raw) == (Target.HOST, Target.REFUSE, None)


SOURCE = """
#include <netcon/policy.h>
#include <string.h>
int decide(const void *table, int size, int direction, int protocol, const unsigned char *ip, int port) {
    struct netcon_policy policy;
    memset(&policy, 0, sizeof policy);
    memcpy(&policy, table, (size_t)size < sizeof policy ? (size_t)size : sizeof policy);
    if (!netcon_policy_is_valid(&policy, (size_t)size)) return -1;
    const struct netcon_policy_rule *rule = netcon_policy_match(&policy, direction, protocol, ip, (uint16_t)port);
    return rule ? rule->target : 0;
}
"""
Decide = Callable[[bytes, int, int, int, bytes, int], int]


@pytest.fixture(scope="module")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Decide:
    """The evaluator that the library and the service are compiled with."""
    target = tmp_path_factory.mktemp("policy") / "policy.so"
    include = Path(__file__).parents[1] / "include"
    command = [
        "gcc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        f"-I{include}",
        "-x",
        "c",
        "-",
        "-o",
        str(target),
    ]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    function: Decide = ctypes.CDLL(str(target)).decide
    return function


ips = st.sampled_from(
    [
        ipaddress.ip_address(ip)
        for ip in ("10.0.0.1", "10.0.0.9", "127.0.0.1", "0.0.0.0", "::1", "::", "fd00::1", "fd80::1", "8000::1")
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    ip = draw(ips)
    prefix = ipaddress.ip_network((ip, draw(st.integers(0, ip.max_prefixlen))), strict=False)
    where = draw(st.sampled_from(["any", "loopback", str(prefix)]))
    protocol = draw(st.sampled_from(["", "tcp", "udp", "icmp", "tcp,udp"]))
    ports = draw(st.sampled_from(["", "80", "0-79", "80-443,9000"])) if protocol not in ("", "icmp") else ""
    return (
        f"{draw(st.sampled_from(['', 'bind ']))}{where} {protocol} {ports} {draw(st.sampled_from(['host', 'refuse', 'network']))}"
    )


@settings(deadline=None)
@given(
    st.lists(lines(), max_size=8),
    ips,
    st.sampled_from([0, 79, 80, 81, 9000]),
    st.sampled_from(Protocol),
    st.sampled_from(Direction),
)
def test_the_table_decides_as_the_text(
    decide: Decide,
    text: list[str],
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    protocol: Protocol,
    way: Direction,
) -> None:
    policy = Policy.parse(text)
    packed = ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
    expected = next((rule.target for rule in policy.rules if rule.fits(way, protocol, ip, port)), Target.UNDECIDED)
    table = policy.compiled()
    assert decide(table, len(table), way, protocol, packed, port) == expected


def test_what_is_no_table_is_known_as_such(decide: Decide) -> None:
    table = Policy.parse("127.0.0.0/8 host\n" * RULES_MAX).compiled()
    assert decide(table, len(table), 1, 1, bytes(16), 0) == 0
    bad_target = table[:8] + table[8:35] + b"\x09" + table[36:]
    for wrong in (table[:-1], table + bytes(32), b"\xff" + table[1:], b"", table[:1] + b"\x01" + table[2:], bad_target):
        assert decide(wrong, len(wrong), 1, 1, bytes(16), 0) == -1


@pytest.mark.parametrize("port", ["9" * 5000, "\u0665\u0663", "1-" + "9" * 5000])
def test_ports_that_are_no_numbers_of_ours_are_policy_errors(port: str) -> None:
    """Not a plain ValueError, which nobody who reads a policy expects."""
    with pytest.raises(PolicyError):
        Policy.parse(f"any tcp {port} host")
