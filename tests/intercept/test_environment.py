"""When the library acts, which service it trusts, what it says when there is none, and how it follows programs that are started."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.intercept.conftest import PATIENCE, PRELUDE, Service, fake_service

NETWORK = "8056c2e21c0000f7"
SOCKET_ERROR = "import socket\ntry:\n    socket.socket()\n    print('OK')\nexcept OSError as error:\n    print(error.strerror)\n"


def run(code: str, library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={"LD_PRELOAD": str(library), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with fake_service(tmp_path_factory.mktemp("fake") / "rpc.sock") as running:
        yield running


def test_without_its_variables_it_does_nothing(library: Path) -> None:
    code = "made = socket.socket()\nmade.bind(('127.0.0.1', 0))\nprint(socket.socket(fileno=os.dup(made.fileno())).family.name)\n"
    for environment in ({}, {"ZT_NC_NWID": ""}, {"NETCON_SOCK": ""}, {"NETCON_NETWORK": NETWORK}):
        done = run(code, library, **environment)
        assert (done.stdout, done.stderr) == ("AF_INET\n", "")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"NETCON_SOCK": "/nowhere/rpc.sock"}, "netcon: /nowhere/rpc.sock: no service here"),
        ({"ZT_NC_NWID": NETWORK}, f"netcon: /tmp/.ztnc_{NETWORK}: no service here"),
        ({"ZT_NC_NWID": "17"}, "netcon: /tmp/.ztnc_0000000000000017: no service here"),
        ({"ZT_NC_NWID": "network"}, "netcon: ZT_NC_NWID is not a network id"),
        ({"ZT_NC_NWID": NETWORK + "0"}, "netcon: ZT_NC_NWID is not a network id"),
        ({"ZT_NC_NWID": f"17,{NETWORK}"}, "netcon: /tmp/.ztnc_0000000000000017: no service here"),
        ({"ZT_NC_NWID": f"{NETWORK},"}, "netcon: ZT_NC_NWID is not a network id"),
        ({"ZT_NC_NWID": f"{NETWORK},,17"}, "netcon: ZT_NC_NWID is not a network id"),
        ({"ZT_NC_NWID": ",".join(["17"] * 17)}, "netcon: ZT_NC_NWID is not a network id"),
        ({"NETCON_SOCK": "/x", "NETCON_NETWORK": "?"}, "netcon: NETCON_NETWORK is not a network id"),
        ({"NETCON_SOCK": "/" + "x" * 107}, "netcon: the path of the service's socket is longer"),
    ],
)
def test_without_a_service_sockets_fail_closed_and_one_line_says_why(library: Path, environment: dict[str, str], line: str) -> None:
    done = run(SOCKET_ERROR * 2, library, **environment)
    assert done.stdout == "Network is down\n" * 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_other_sockets_work_without_a_service(library: Path) -> None:
    code = "socket.socketpair(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\nprint('OK')"
    assert run(code, library, ZT_NC_NWID=NETWORK).stdout == "OK\n"


@pytest.mark.parametrize("kind", ["AF_INET, socket.SOCK_DGRAM", "AF_INET6, socket.SOCK_DGRAM", "AF_INET, socket.SOCK_RAW, 1"])
def test_without_a_service_datagrams_fail_closed(library: Path, kind: str) -> None:
    code = f"assert error(socket.socket, socket.{kind}) == 'ENETDOWN'\nassert error(socket.if_nameindex) == 'ENETDOWN'"
    done = run(code, library, ZT_NC_NWID=NETWORK)
    assert done.returncode == 0, done.stderr


def test_the_line_is_not_written_to_an_internet_socket(library: Path) -> None:
    code = """
datagram = socket.socket(fileno=int(sys.argv[1]))
os.dup2(datagram.fileno(), 2)
assert error(socket.socket) == 'ENETDOWN'
assert error(datagram.recv, 99, socket.MSG_DONTWAIT) == 'EAGAIN'
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        datagram.connect(datagram.getsockname())
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + code, str(datagram.fileno())],
            env={"LD_PRELOAD": str(library), "ZT_NC_NWID": NETWORK},
            pass_fds=[datagram.fileno()],
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0


def test_a_service_that_has_ended_is_named(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
    assert "the service has ended" in run(SOCKET_ERROR, library, NETCON_SOCK=str(path)).stderr


def test_a_service_of_another_version_is_named(library: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "rpc.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        command = [sys.executable, "-c", SOCKET_ERROR]
        environment = {"LD_PRELOAD": str(library), "NETCON_SOCK": path}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            peer, _ = server.accept()
            with peer:
                _, (end,), _, _ = socket.recv_fds(peer, 4096, 1)
                with socket.socket(fileno=end) as reply:
                    reply.send(struct.pack("=HHHHiiI", 0x4E43, 1, 1, 0, 71, 0, 0))  # EPROTO
                output, errors = client.communicate(timeout=PATIENCE)
    assert output == "Network is down\n"
    assert "another version" in errors


def test_a_service_that_finds_an_empty_name(fake: Service) -> None:
    code = """
ip = "10.77.0.98"
try:
    print(socket.gethostbyaddr(ip))
except socket.herror:
    print("none")
print(socket.getnameinfo((ip, 80), socket.NI_NUMERICSERV)[0])
"""
    assert fake.python(code).split() == ["none", "10.77.0.98"]


@pytest.mark.parametrize("reply", [b"", b"short", b"\xff" * 20, struct.pack("=HHHHiiI", 0x4E43, 1, 1, 0, 0, 0, 999)])
def test_a_service_that_answers_nonsense_harms_nobody(library: Path, tmp_path: Path, reply: bytes) -> None:
    path = str(tmp_path / "rpc.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        command = [sys.executable, "-c", SOCKET_ERROR]
        environment = {"LD_PRELOAD": str(library), "NETCON_SOCK": path}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            peer, _ = server.accept()
            with peer:
                _, (end,), _, _ = socket.recv_fds(peer, 4096, 1)
                with socket.socket(fileno=end) as answering:
                    if reply:
                        answering.send(reply)
                output, errors = client.communicate(timeout=PATIENCE)
    assert output == "Network is down\n"
    assert "does not answer" in errors


def test_the_well_known_paths(library: Path, tmp_path: Path) -> None:
    runtime = tmp_path / f".ztnc_{NETWORK}"
    with fake_service(runtime):
        environment = {"ZT_NC_NWID": NETWORK.upper(), "XDG_RUNTIME_DIR": str(tmp_path)}
        assert run(SOCKET_ERROR, library, **environment).stdout == "OK\n"
    well_known = Path(f"/tmp/.ztnc_{NETWORK}")
    with fake_service(well_known):
        assert run(SOCKET_ERROR, library, **environment).stdout == "OK\n", "the second path serves when the first is not there"
        environment["XDG_RUNTIME_DIR"] = "/" + "x" * 120
        assert run(SOCKET_ERROR, library, **environment).stdout == "OK\n", "and when the first is too long"


def test_a_well_known_path_of_another_user_is_not_trusted(library: Path, tmp_path: Path) -> None:
    path = tmp_path / f".ztnc_{NETWORK}"
    code = f"""
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.bind({str(path)!r})
os.setuid(65534)
server.listen()
print('READY', flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "READY\n"
        done = run(SOCKET_ERROR, library, ZT_NC_NWID=NETWORK, XDG_RUNTIME_DIR=str(tmp_path))
        other.communicate("")
    assert done.stdout == "Network is down\n"
    assert f"netcon: {path}: belongs to another user" in done.stderr


def test_relative_path_is_resolved_at_the_start(library: Path, fake: Service) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os\nos.chdir('/')\n" + SOCKET_ERROR],
        env={"LD_PRELOAD": str(library), "NETCON_SOCK": "rpc.sock"},
        cwd=Path(fake.path).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "OK\n"


def test_values_survive_unsetenv(fake: Service) -> None:
    fake.python("os.unsetenv('NETCON_SOCK')\nos.unsetenv('LD_PRELOAD')\nconnection()")


def test_a_variable_that_a_program_sets_stays_as_it_sets_it(fake: Service) -> None:
    code = "os.execve('/usr/bin/env', ['env'], {'NETCON_SOCK': '/other', 'LD_PRELOAD': '/nothing.so'})"
    done = fake.run([sys.executable, "-c", PRELUDE + code])
    assert "NETCON_SOCK=/other" in done.stdout
    assert f"LD_PRELOAD={fake.environment()['LD_PRELOAD']}:/nothing.so" in done.stdout


def test_subprocesses_with_a_new_environment_stay_inside(fake: Service) -> None:
    fake.python("""
import subprocess
waiting = listener()
code = 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).sendall(b"inside")'
child = subprocess.Popen([sys.executable, '-c', code, ADDRESS, str(waiting.getsockname()[1])], env={})
peer, _ = waiting.accept()
assert peer.recv(6, socket.MSG_WAITALL) == b'inside'
assert child.wait() == 0
""")


def test_what_cannot_be_kept_for_children_is_closed(fake: Service) -> None:
    """A child that lacked one of the variables would run on the host, or without the run's policy."""
    code = """
import subprocess
print(error(socket.socket))
print(error(os.execve, '/bin/true', ['true'], {}))
print(error(lambda: subprocess.run(['/bin/true'], env={}, close_fds=False)))
print(error(os.posix_spawn, '/bin/true', ['true'], {}))
"""
    for more in ({"NETCON_PADDING": "x" * 16384}, {f"NETCON_{n}": "" for n in range(40)}):
        done = fake.run([sys.executable, "-c", PRELUDE + code], **more)
        assert done.stdout == "ENETDOWN\nE2BIG\nE2BIG\nE2BIG\n"
        assert done.stderr.count("netcon: LD_PRELOAD, ZT_NC_* and NETCON_*") == 1
        assert done.stderr.count("netcon: /bin/true: not started") == 3


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("call", ["os.execv(path, [path])", "os.posix_spawn(path, [path], {})"])
def test_a_set_user_id_program_is_refused_with_one_line(fake: Service, tmp_path: Path, script: bool, call: str) -> None:
    program = tmp_path / "other-rights"
    program.write_bytes(Path("/bin/true").read_bytes())
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    path = tmp_path / "script" if script else program
    if script:
        path.write_text(f"#!{program}\n")
        path.chmod(0o755)
    done = fake.run(
        [
            sys.executable,
            "-c",
            f"import errno, os\npath = {str(path)!r}\ntry:\n    {call}\nexcept OSError as e:\n    print(errno.errorcode[e.errno])",
        ]
    )
    assert done.stdout == "EPERM\n"
    assert done.stderr.startswith(f"netcon: {path}: not started: it has set-user-id")
    assert done.stderr.count("\n") == 1


def test_a_set_user_id_program_of_ours_is_started(fake: Service, tmp_path: Path) -> None:
    program = tmp_path / "own-rights"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o4755)
    fake.succeeds(sys.executable, "-c", f"import os; os.execv({str(program)!r}, ['x'])")


def test_a_service_that_starts_again_is_found(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    code = "connection()\nprint('first', flush=True)\ninput()\nconnection()\nprint('second', flush=True)\n"
    environment = {"LD_PRELOAD": str(library), "NETCON_SOCK": str(path)}
    with fake_service(path):
        client = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        assert client.stdout.readline() == "first\n"
    with fake_service(path):
        output, _ = client.communicate("\n", timeout=PATIENCE)
    assert output == "second\n"
