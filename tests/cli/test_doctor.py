"""`netcon doctor`: what it finds, what it advises, its exit code."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from netcon import doctor, kernel_facts
from netcon.cli.main import main
from netcon.service.paths import rpc_socket
from tests.service.running import RunningService, World, running_world, wait_until

STRANGER = "1122334455112233"  # of a controller that nobody knows


class Lab(NamedTuple):
    world: World
    root: RunningService
    member: RunningService
    network: str


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_world(tmp_path_factory.mktemp("doctor"), 1) as (world, root, (member,)):
        network = world.make_network(root)
        world.join(root, member, network)
        yield Lab(world, root, member, network)


def examine(home: Path, *words: str, code: int) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["-D", str(home), "doctor", "--json", *words])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.output)
    assert found["works"] == (code == 0)
    return found


def problems(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["about"], finding["text"]) for finding in found["findings"] if finding["level"] == "error"]


def compiled(folder: Path, code: str, *options: str, compiler: str = "gcc") -> Path:
    source, target = folder / "program.c", folder / "program"
    source.write_text(code)
    subprocess.run([compiler, "-o", str(target), str(source), *options], check=True)
    return target


def test_a_program_on_a_joined_network_works(lab: Lab) -> None:
    found = examine(lab.member.home, "curl", "-sS", "http://10.0.0.1/", code=0)
    texts = [finding["text"] for finding in found["findings"]]
    assert any("dynamically linked to glibc" in text for text in texts)
    assert any(lab.network in text for text in texts)
    assert "a socket that was made under it belongs to the service" in texts


def test_for_people_it_ends_with_a_sentence(lab: Lab) -> None:
    result = CliRunner().invoke(main, ["-D", str(lab.member.home), "doctor", "-v", "curl"])
    assert result.output.splitlines()[-1] in ("curl: works", "curl: works, with the warnings above")
    assert "left alone: " in result.output


def test_without_a_program_the_installation_is_examined(lab: Lab) -> None:
    assert {finding["about"] for finding in examine(lab.member.home, code=0)["findings"]} >= {
        "kernel",
        "library",
        "service",
        "network",
    }


def test_without_a_service_the_advice_is_to_start_one(tmp_path: Path) -> None:
    ((about, text),) = problems(examine(tmp_path, code=1))
    assert about == "service"
    assert f"netcon -D {tmp_path} service -d" in text


def test_a_network_that_was_not_joined_is_told(lab: Lab) -> None:
    ((_, text),) = problems(examine(lab.member.home, "--network", STRANGER, code=1))
    assert f"join {STRANGER}" in text


def test_a_service_without_a_network_is_told(lab: Lab) -> None:
    ((about, text),) = problems(examine(lab.root.home, code=1))
    assert (about, text) == ("network", "the service has not joined any network: there is nowhere to connect to")


def test_a_network_that_is_not_authorised_names_the_member(lab: Lab) -> None:
    network = lab.world.make_network(lab.root)
    lab.member.client.post(f"/network/{network}", {})
    try:
        wait_until(lambda: lab.member.client.get(f"/network/{network}")["status"] == "ACCESS_DENIED", "the refusal")
        found = examine(lab.member.home, "--network", network, code=1)
        (finding,) = [finding for finding in found["findings"] if finding["level"] == "error"]
        assert "not authorised" in finding["text"]
        assert lab.member.address in finding["advice"]
        examine(lab.member.home, code=0)  # the other network is enough
    finally:
        lab.member.client.delete(f"/network/{network}")


def test_another_version_of_the_service_is_told(tmp_path: Path) -> None:
    path = rpc_socket(tmp_path)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        child = os.fork()
        if child == 0:
            # Says EPROTO to everybody, until the test ends it.
            while True:
                connection, _ = listener.accept()
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
                os.write(descriptors[-1], struct.pack("=HHHHiiI", 0x4E43, 1, 1, 0, 71, 0, 0))
        try:
            ((about, text),) = problems(examine(tmp_path, "--socket", str(path), code=1))
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
    assert about == "service"
    assert "another version" in text


@pytest.mark.parametrize(
    ("option", "compiler", "expected"),
    [("-static", "gcc", "as Go programs"), ("-static-pie", "gcc", "static-pie"), ("-static", "musl-gcc", "statically linked")],
)
def test_static_programs_do_not_work(lab: Lab, tmp_path: Path, option: str, compiler: str, expected: str) -> None:
    program = compiled(tmp_path, "int main(void) { return 0; }", option, compiler=compiler)
    ((about, text),) = problems(examine(lab.member.home, str(program), code=1))
    assert about == "program"
    assert expected in text


def test_a_musl_program_works_and_is_named_so(lab: Lab, tmp_path: Path) -> None:
    program = compiled(
        tmp_path, "#include <sys/socket.h>\nint main(void) { return socket(AF_INET, SOCK_STREAM, 0) < 0; }", compiler="musl-gcc"
    )
    found = examine(lab.member.home, str(program), code=0)
    assert any("dynamically linked to musl" in finding["text"] for finding in found["findings"])


def test_a_script_is_followed_to_its_interpreter(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    found = examine(lab.member.home, str(script), code=0)
    assert any(f"{script} → " in finding["text"] for finding in found["findings"])


def test_rights_that_make_the_loader_ignore_us_are_told(lab: Lab, tmp_path: Path) -> None:
    program = compiled(tmp_path, "int main(void) { return 0; }")
    os.chown(program, 12345, 12345)
    program.chmod(0o4755)
    ((_, text),) = problems(examine(lab.member.home, str(program), code=1))
    assert "set-user-id" in text


def test_a_function_that_the_library_does_not_know_is_a_warning(lab: Lab, tmp_path: Path) -> None:
    library, source = tmp_path / "libodd.so", tmp_path / "odd.c"
    # Nothing defines it, and nothing calls it: a weak reference.
    source.write_text("extern int socket_of_tomorrow(void) __attribute__((weak)); void *use = (void *)socket_of_tomorrow;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    program = compiled(tmp_path, "extern void *use; int main(void) { return !use; }", str(library))
    found = examine(lab.member.home, str(program), code=0)
    (warning,) = [finding for finding in found["findings"] if finding["level"] == "warning"]
    assert "libodd.so uses socket_of_tomorrow" in warning["text"]


def test_users_of_io_uring_are_warned(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "uring.c").write_text("int uring(void) { return 0; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(tmp_path / "liburing.so.2"), str(tmp_path / "uring.c")], check=True)
    program = compiled(tmp_path, "int uring(void); int main(void) { return uring(); }", str(tmp_path / "liburing.so.2"))
    found = examine(lab.member.home, str(program), code=0)
    assert any("io_uring" in finding["text"] for finding in found["findings"] if finding["level"] == "warning")


def test_a_missing_library_is_told(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "gone.c").write_text("int gone(void) { return 0; }\n")
    library = tmp_path / "libgone.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "gone.c")], check=True)
    program = compiled(tmp_path, "int gone(void); int main(void) { return gone(); }", f"-L{tmp_path}", "-lgone")
    library.unlink()
    ((_, text),) = problems(examine(lab.member.home, str(program), code=1))
    assert "libgone.so" in text


def test_another_preloaded_library_that_wraps_the_same_is_a_warning(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proxy.c").write_text("int connect(int a, void *b, int c) { return a + !b + c; }\n")
    library = tmp_path / "libproxy.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-fno-builtin", "-o", str(library), str(tmp_path / "proxy.c")], check=True)
    # Only doctor looks at it; the trial under the library would load it.
    monkeypatch.setenv("LD_PRELOAD", str(library))
    found = examine(lab.member.home, code=0)
    assert any(f"{library} too, which wraps connect" in finding["text"] for finding in found["findings"])


def test_a_program_that_is_not_there(lab: Lab) -> None:
    ((_, text),) = problems(examine(lab.member.home, "no-such-program", code=1))
    assert "is it installed" in text


def test_a_kernel_without_a_needed_fact_does_not_work(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [kernel_facts.Fact("flying", "it has no wings", True), kernel_facts.Fact("memfd", "refused", False)]
    monkeypatch.setattr(kernel_facts, "check", lambda: facts)
    found = examine(lab.member.home, code=1)
    assert problems(found) == [("kernel", "not here: flying (it has no wings)")]
    assert any("private files are used instead" in finding["text"] for finding in found["findings"])


def test_this_kernel_has_all_that_is_needed() -> None:
    assert [fact for fact in kernel_facts.check() if fact.problem] == []


def test_few_descriptors_are_a_warning(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (32, 4096))
    found = examine(lab.member.home, code=0)
    (warning,) = [finding for finding in found["findings"] if finding["level"] == "warning"]
    assert (warning["about"], warning["advice"]) == ("limits", "raise it: ulimit -n 1024")


def test_a_library_and_a_table_of_different_versions_are_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_symbols", lambda: doctor.SymbolTable(frozenset({"socket"}), {}))
    ((about, text),) = problems(examine(lab.member.home, code=1))
    assert about == "library"
    assert "different versions" in text
