"""What the library tells a tracer, and that a tracer never disturbs the program."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netcon import trace
from netcon.trace import Decision, Event
from tests.intercept.conftest import ADDRESS, PATIENCE, PRELUDE, Service


class Tracer:
    """Takes the events of one program, all of them, when it has ended; the socket's buffers hold them until then."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "trace.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.listener.setblocking(False)

    def events(self) -> list[Event]:
        found = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                break
            with connection:
                connection.settimeout(PATIENCE)
                while message := connection.recv(trace.RECORD_MAX):
                    found.append(trace.decode(message))
        return sorted(found, key=lambda event: event.started)

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *error: object) -> None:
        self.listener.close()


def python(service: Service, tracer: Tracer, code: str) -> str:
    done = service.run([sys.executable, "-c", PRELUDE + code], NETCON_TRACE=tracer.path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(events: list[Event], call: str) -> list[Event]:
    return [event for event in events if event.ended and event.call == call]


def test_a_connection_from_socket_to_shutdown(service: Service, tmp_path: Path) -> None:
    with Tracer(tmp_path) as tracer:
        port = int(
            python(
                service,
                tracer,
                """
client, server = connection()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client.shutdown(socket.SHUT_WR)
print(server.getsockname()[1])
""",
            )
        )
        events = tracer.events()
    begun = [event.call for event in events if not event.ended]
    assert sorted(begun) == sorted(event.call for event in events if event.ended), "every call that began has ended"
    (connect,) = ended(events, "connect")
    assert (connect.decision, connect.result, trace.arguments(connect)) == (
        Decision.NETWORK,
        0,
        f"{connect.arguments[0]}, {ADDRESS}:{port}",
    )
    assert str(connect.remote) == f"{ADDRESS}:{port}"
    (accept,) = ended(events, "accept4")
    assert (accept.decision, accept.state, accept.remote) == (Decision.NETWORK, "C", connect.local)
    assert "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 0)" in {
        f"{event.call}({trace.arguments(event)})" for event in ended(events, "socket")
    }
    assert trace.arguments(ended(events, "setsockopt")[-1]).endswith("IPPROTO_TCP, TCP_NODELAY, 1")
    assert trace.arguments(ended(events, "shutdown")[0]).endswith("SHUT_WR")
    assert {event.process for event in events} == {events[0].thread}
    assert all(event.lost == 0 for event in events)


def test_a_refusal_has_its_errno(service: Service, tmp_path: Path) -> None:
    with Tracer(tmp_path) as tracer:
        python(service, tracer, "assert error(socket.socket().connect, (ADDRESS, 9)) == 'ECONNREFUSED'")
        (connect,) = ended(tracer.events(), "connect")
    assert trace.result(connect) == "-1 ECONNREFUSED (Connection refused)"


def test_what_is_given_to_the_kernel_and_what_was_never_ours(service: Service, tmp_path: Path) -> None:
    code = """
made = socket.socket()
made.bind(('127.0.0.1', 0))
made.listen()
other, _ = socket.socketpair()
other.sendmsg([b'x'])
"""
    with Tracer(tmp_path) as tracer:
        python(service, tracer, code)
        events = tracer.events()
    assert ended(events, "bind")[0].decision is Decision.GIVEN
    assert ended(events, "listen")[0].decision is Decision.HOST
    assert ended(events, "sendmsg")[0].decision is Decision.OTHER


def test_datagrams_show_their_addresses(service: Service, tmp_path: Path) -> None:
    code = """
one, two = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
for end in (one, two):
    end.bind((ADDRESS, 0))
one.sendto(b'hello', two.getsockname())
data, address = two.recvfrom(100)
two.sendmsg([data], [], 0, address)
one.recvmsg(100)
print(one.getsockname()[1], two.getsockname()[1])
"""
    with Tracer(tmp_path) as tracer:
        one, two = python(service, tracer, code).split()
        events = tracer.events()
    assert trace.arguments(ended(events, "sendto")[0]).endswith(f", 5, 0, {ADDRESS}:{two}")
    assert trace.arguments(ended(events, "recvfrom")[0]).endswith(f", 100, 0, {ADDRESS}:{one}")
    assert trace.arguments(ended(events, "sendmsg")[0]).endswith(f", {ADDRESS}:{one}, 0")
    assert trace.arguments(ended(events, "recvmsg")[0]).endswith(f", {ADDRESS}:{two}, 0")


def test_calls_by_number_threads_and_children_are_told(service: Service, tmp_path: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(41, socket.AF_INET, socket.SOCK_STREAM, 0) >= 0
thread = threading.Thread(target=lambda: socket.socket(socket.AF_INET6))
thread.start(); thread.join()
child = os.fork()
if child == 0:
    socket.socket(type=socket.SOCK_DGRAM)
    os.execv(sys.executable, [sys.executable, '-c', 'import socket; socket.socket()'])
os.waitpid(child, 0)
print(os.getpid(), child)
"""
    with Tracer(tmp_path) as tracer:
        parent, child = map(int, python(service, tracer, code).split())
        events = tracer.events()
    made = [(event.process, _kind(event), event.thread == event.process) for event in ended(events, "socket")]
    assert made == [
        (parent, "AF_INET, SOCK_STREAM", True),
        (parent, "AF_INET6, SOCK_STREAM", False),
        (child, "AF_INET, SOCK_DGRAM", True),
        (child, "AF_INET, SOCK_STREAM", True),
    ]
    (replaced,) = [event for event in events if event.call == "execve"]
    assert not replaced.ended
    assert trace.arguments(replaced) == f'"{sys.executable}"'


def _kind(event: Event) -> str:
    return trace.arguments(event).replace("|SOCK_CLOEXEC", "").rpartition(", ")[0]


def test_posix_spawn_is_told(service: Service, tmp_path: Path) -> None:
    with Tracer(tmp_path) as tracer:
        python(service, tracer, "os.waitpid(os.posix_spawn('/bin/true', ['true'], os.environ), 0)")
        (spawned,) = ended(tracer.events(), "posix_spawn")
    assert (trace.arguments(spawned), spawned.result) == ('"/bin/true"', 0)


def test_names_and_interfaces_are_told(service: Service, tmp_path: Path) -> None:
    code = """
import ctypes
print(socket.getaddrinfo('10.0.0.1', 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])
for call in (lambda: socket.getaddrinfo('nobody.invalid', 80), lambda: socket.gethostbyaddr('10.9.9.9'),
             lambda: socket.if_indextoname(99),
             lambda: ctypes.CDLL(None).gethostbyname(b'127.0.0.1')):
    try:
        call()
    except OSError:
        pass
print(socket.getnameinfo(('10.0.0.1', 80), socket.NI_NUMERICHOST), socket.if_nameindex(), socket.if_nametoindex('lo'))
"""
    with Tracer(tmp_path) as tracer:
        python(service, tracer, code)
        events = tracer.events()
    told = {(event.call, trace.arguments(event)): trace.result(event) for event in events if event.ended}
    assert told["getaddrinfo", '"10.0.0.1", …'] == "0"
    assert told["getaddrinfo", '"nobody.invalid", …'] in ("EAI_NONAME", "EAI_FAIL")
    assert told["getnameinfo", "10.0.0.1:80, …"] == "0"
    assert told["gethostbyname", '"127.0.0.1", AF_INET'] == "0"
    assert told["gethostbyaddr", "10.9.9.9, AF_INET"].startswith("NULL ")
    assert told["if_nameindex", ""] == "0"
    assert told["if_nametoindex", '"lo"'] == "1"
    assert told["if_indextoname", "99"].startswith("-1 ENXIO")


def test_it_goes_on_after_all_descriptors_were_closed(service: Service, tmp_path: Path) -> None:
    with Tracer(tmp_path) as tracer:
        python(service, tracer, "socket.socket(); os.closerange(3, 1024); socket.socket(socket.AF_INET6)")
        kinds = [_kind(event) for event in ended(tracer.events(), "socket")]
    assert kinds == ["AF_INET, SOCK_STREAM", "AF_INET6, SOCK_STREAM"]


def test_it_goes_on_in_another_root_folder(service: Service, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.fail("chroot needs root: run the tests as root, as CI does")
    with Tracer(tmp_path) as tracer:
        python(service, tracer, "socket.socket(); os.chroot('/proc'); socket.socket(socket.AF_INET6)")
        assert len(ended(tracer.events(), "socket")) == 2


def test_a_bad_pointer_costs_the_bytes_only(service: Service, tmp_path: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
made = socket.socket()
assert libc.setsockopt(made.fileno(), 1, 9, ctypes.c_void_p(8), 4) == -1
print(errno.errorcode[ctypes.get_errno()])
"""
    with Tracer(tmp_path) as tracer:
        assert python(service, tracer, code) == "EFAULT\n"
        (event,) = ended(tracer.events(), "setsockopt")
    assert trace.arguments(event).endswith("SOL_SOCKET, SO_KEEPALIVE, 0x8")


def test_the_length_of_an_address_that_nobody_wants_is_not_read(service: Service, tmp_path: Path) -> None:
    """As the kernel: without room for an address the pointer to its length may point anywhere."""
    code = """
import ctypes
waiting = listener()
client = socket.create_connection(waiting.getsockname())
print(ctypes.CDLL(None).accept(waiting.fileno(), None, ctypes.c_void_p(8)) > 0)
"""
    with Tracer(tmp_path) as tracer:
        assert python(service, tracer, code) == "True\n"
        (event,) = ended(tracer.events(), "accept")
    assert event.decision is trace.Decision.NETWORK


def test_a_tracer_that_stalls_loses_events_and_holds_nobody_up(service: Service, tmp_path: Path) -> None:
    code = "made = socket.socket()\nfor _ in range(5000): made.getsockname()\nprint('done')"
    with Tracer(tmp_path) as tracer:
        assert python(service, tracer, code) == "done\n"
        events = tracer.events()
    assert 0 < len(events) < 10000


def test_the_lost_are_counted(service: Service, tmp_path: Path) -> None:
    code = "made = socket.socket()\nfor _ in range(5000): made.getsockname()\nprint('full', flush=True)\ninput()\nmade.listen()"
    with Tracer(tmp_path) as tracer:
        environment = service.environment(NETCON_TRACE=tracer.path)
        with subprocess.Popen([sys.executable, "-c", PRELUDE + code], env=environment, stdin=-1, stdout=-1, text=True) as program:
            assert program.stdout is not None
            assert program.stdin is not None
            assert program.stdout.readline() == "full\n"
            connection, _ = tracer.listener.accept()
            with connection:
                connection.setblocking(False)
                kept = []
                while True:
                    try:
                        kept.append(trace.decode(connection.recv(trace.RECORD_MAX)))
                    except BlockingIOError:
                        break
                program.stdin.write("\n")
                program.stdin.flush()
                connection.settimeout(PATIENCE)
                event = trace.decode(connection.recv(trace.RECORD_MAX))
                assert event.call == "listen"
                assert event.lost == 2 * 5001 - len(kept)
                while connection.recv(trace.RECORD_MAX):
                    pass


def test_a_tracer_that_is_not_there_or_goes_away_is_forgotten(service: Service, tmp_path: Path) -> None:
    done = service.run([sys.executable, "-c", PRELUDE + "connection()"], NETCON_TRACE=str(tmp_path / "nobody"))
    assert (done.returncode, done.stderr) == (0, "")
    code = "socket.socket(); print('once', flush=True); input(); connection(); print('twice')"
    with Tracer(tmp_path) as tracer:
        environment = service.environment(NETCON_TRACE=tracer.path)
        with subprocess.Popen([sys.executable, "-c", PRELUDE + code], env=environment, stdin=-1, stdout=-1, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "once\n"
            connection, _ = tracer.listener.accept()
            connection.close()
            tracer.listener.close()
            assert program.communicate("\n", PATIENCE)[0] == "twice\n"
            assert program.returncode == 0


@pytest.mark.parametrize("path", ["relative/path", "/" + "x" * 200, ""])
def test_a_path_that_cannot_be_is_ignored(service: Service, path: str) -> None:
    done = service.run([sys.executable, "-c", PRELUDE + "connection()"], NETCON_TRACE=path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_call_that_never_ends_is_printed_at_the_end() -> None:
    begun = _event(call="accept", arguments=(3, 0, 0))
    printer = trace.Printer()
    assert list(printer.lines(begun)) == []
    assert list(printer.unfinished()) == ["7 accept(3, NULL) = ? <unfinished …>"]


def test_lines_tell_the_network_the_thread_and_what_was_lost() -> None:
    local = trace.Endpoint(ipaddress.IPv4Address("10.1.2.9"), 40000)
    asked = []

    def network_of(address: str) -> int:
        asked.append(address)
        return 0x8056C2E21C000001

    printer = trace.Printer(network_of)
    event = _event(
        call="connect", arguments=(3, 99, 16), ended=True, decision=Decision.NETWORK, local=local, state="C", lost=2, thread=8
    )
    event = event._replace(data=b"\2\0\0\x50\x0a\1\2\3" + bytes(8), data_at=1, duration=400_000)
    assert list(printer.lines(event)) == [
        "7 … 2 events lost: the tracer was too slow",
        "7/8 connect(3, 10.1.2.3:80) = 0 [network 8056c2e21c000001, 0.4 ms]",
    ]
    assert len(list(printer.lines(event))) == 1, "the lost are told once"
    assert asked == ["10.1.2.9"], "and the network is asked for once"
    given = event._replace(decision=Decision.GIVEN, call="bind", data=b"\2\0\0\0\x7f\0\0\1" + bytes(8), thread=7)
    assert list(printer.lines(given)) == ["7 bind(3, 127.0.0.1:0) = 0 [host: loopback, 0.4 ms]"]
    other = event._replace(decision=Decision.OTHER)
    assert list(printer.lines(other)) == []
    assert len(list(trace.Printer(everything=True).lines(other._replace(lost=0)))) == 1


def test_calls_that_the_tracer_does_not_know_are_shown_as_numbers() -> None:
    assert trace.arguments(_event(call="teleport", arguments=(3, 1 << 40))) == "3, 0x10000000000"
    assert trace.arguments(_event(call="sendto", arguments=(3,))) == "3", "too few for what it is"


@pytest.mark.parametrize("message", [b"", b"x" * 199, b"x" * 200, bytes(328)])
def test_what_is_no_record_is_refused(message: bytes) -> None:
    with pytest.raises(trace.BadRecord):
        trace.decode(message)


def test_names_of_flags_and_options_are_the_headers() -> None:
    event = _event(call="recvfrom", arguments=(3, 0, 10, int(socket.MSG_PEEK | socket.MSG_DONTWAIT), 0, 0))
    assert trace.arguments(event) == "3, 10, MSG_DONTWAIT|MSG_PEEK"
    assert trace.arguments(_event(call="shutdown", arguments=(3, 2))) == "3, SHUT_RDWR"
    assert trace.arguments(_event(call="getsockopt", arguments=(3, 1, 15, 0, 0))) == "3, SOL_SOCKET, SO_REUSEPORT, NULL"


def _event(**given: object) -> Event:
    blank = Event(False, Decision.NONE, 7, 7, 0, 0, (), 0, 0, 0, 0, 0, 0, "", 0, None, None, "", b"", -1)
    return blank._replace(**given)  # type: ignore[arg-type]


def test_a_call_in_a_signal_handler_is_inside_of_the_one_that_it_interrupts() -> None:
    outer, inner = _event(call="accept", arguments=(3, 0, 0)), _event(call="socket", arguments=(2, 1, 0))
    printer = trace.Printer()
    events = [outer, inner, inner._replace(ended=True), outer._replace(ended=True)]
    assert [line.split("(")[0] for event in events for line in printer.lines(event)] == ["7 socket", "7 accept"]
    assert list(printer.unfinished()) == []


def test_an_execution_that_succeeded_is_printed_with_the_next_call() -> None:
    printer = trace.Printer()
    assert list(printer.lines(_event(call="execve", arguments=(1, 2, 3), data=b"/bin/true", data_at=0))) == []
    following = _event(call="socket", arguments=(2, 1, 0))
    assert list(printer.lines(following)) == ['7 execve("/bin/true") = 0 [replaced the program]']
