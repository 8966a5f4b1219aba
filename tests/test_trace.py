"""Records of programs' calls that no library of ours wrote."""

from __future__ import annotations

from netcon import trace
from tests.fuzz.targets import TARGETS


def test_a_socket_call_of_too_many_arguments_is_shown_all_the_same() -> None:
    """Found by fuzzing: the command that prints them ended."""
    (target,) = [target for target in TARGETS if target.name == "trace_record"]
    record = next(data for data in target.corpus() if b"socket\0" in data)
    event = trace.decode(record)
    event = event._replace(arguments=(2, 1, 0, 4, 5))
    assert trace.arguments(event) == "AF_INET, SOCK_STREAM, 0"
