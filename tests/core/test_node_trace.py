"""Why frames were dropped: for the host, and for the observer that the controller names (vl2 §6.8)."""

from __future__ import annotations

from netcon.core.dictionary import Dictionary
from netcon.core.messages import RemoteTrace
from netcon.core.packet import Verb
from netcon.core.rule_language import compile_rules
from netcon.core.rules import encode_rules
from netcon.core.trace import MAX_WAITING, Level
from tests.simulator import Lab, SimNode


def traces(node: SimNode, name: str = "trace") -> list[dict[str, str]]:
    found = [Dictionary.decode(event.data) for event in node.events if event.name == name]
    node.events = []
    return [{key: value.decode() for key, value in event.items()} for event in found]


def ready(members: int = 2, rules: str = "drop ethertype 0x88cc ; accept;", level: int | None = None) -> Lab:
    lab = Lab(members)
    lab.control.rules = encode_rules(compile_rules(rules).rules)
    if level is not None:
        lab.control.trace = (lab.members[-1].identity.address, level)
    lab.join_all()
    lab.fabric.run(1_000)
    return lab


def test_the_host_is_told_if_it_wants_to() -> None:
    lab = ready()
    a, b = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    assert traces(a) == []
    a.node.tracing = True
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    assert traces(a) == [
        {
            "event": "filtered_out",
            "networkId": f"{lab.network:016x}",
            "sourceZtAddr": f"{a.identity.address:010x}",
            "destZtAddr": f"{b.identity.address:010x}",
            "sourceMac": a.mac(lab.network).hex(":"),
            "destMac": b.mac(lab.network).hex(":"),
            "etherType": "88cc",
            "frameLength": "3c",
            "filterResult": "drop",
            "filterReason": "rule 2",
        }
    ]
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, bytes(60), source=bytes.fromhex("00163e000001"))
    (event,) = traces(a)
    assert event["event"] == "port_dropped"
    a.node.tracing = False
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    assert traces(a) == []


def test_the_receiver_says_what_it_drops() -> None:
    lab = ready(rules="accept not chr inbound ;")
    a, b = lab.members
    b.node.tracing = True
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, bytes(60))
    lab.fabric.run(1_000)
    (event,) = traces(b)
    assert (event["event"], event["filterReason"]) == ("filtered_in", "no rule accepts it")
    assert event["sourceZtAddr"] == f"{a.identity.address:010x}"


def test_the_observer_of_the_controller_hears_of_it() -> None:
    lab = ready(3, level=Level.RULES)
    a, b, observer = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    lab.fabric.run(3_000)
    (event,) = traces(observer, "remote_trace")
    assert (event["event"], event["filterResult"]) == ("filtered_out", "drop")
    assert traces(a) == traces(b) == []


def test_a_low_level_hears_less() -> None:
    lab = ready(3, level=Level.NORMAL)
    a, b, observer = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    lab.fabric.run(3_000)
    assert traces(observer, "remote_trace") == []


def test_a_flood_of_frames_is_no_flood_of_traces() -> None:
    lab = ready(3, level=Level.RULES)
    a, b, observer = lab.members
    a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    lab.fabric.run(3_000)
    traces(observer)
    sent = 0
    send = a.node._sender.send

    def count(destination, verb, *rest, **options):  # type: ignore[no-untyped-def]
        nonlocal sent
        sent += verb == Verb.REMOTE_TRACE
        send(destination, verb, *rest, **options)

    a.node._sender.send = count  # type: ignore[method-assign]
    for _ in range(500):
        a.send_frame(lab.network, b.mac(lab.network), 0x88CC, bytes(60))
    lab.fabric.run(3_000)
    assert sent == 1
    assert len(traces(observer, "remote_trace")) == MAX_WAITING
    assert a.node.counters["traces_dropped"] == 500 - MAX_WAITING


def test_a_malformed_trace_is_nobodys_event() -> None:
    lab = ready()
    a, b = lab.members
    for body in (b"", b"event=x", b"\0", b"a=1\0\0"):
        a.node._sender.send(b.identity.address, Verb.REMOTE_TRACE, body, lab.fabric.now)
    a.node._sender.send(b.identity.address, Verb.REMOTE_TRACE, RemoteTrace((b"event=x",)).encode(), lab.fabric.now)
    a.perform()
    lab.fabric.run(3_000)
    assert traces(b, "remote_trace") == [{"event": "x"}]
    assert b.node.counters["malformed"] == 4
