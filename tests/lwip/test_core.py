"""What the core's shared object shows to the world, and what the extension takes from it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lwip
from lwip import _lwip

PACKAGE = Path(_lwip.__file__).parent
CORE = PACKAGE / "liblwip-core.so"
SOURCES = Path(__file__).resolve().parents[2] / "lwip"


def dynamic_symbols(path: Path, *options: str) -> set[str]:
    out = subprocess.run(["nm", "-D", *options, str(path)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines()}


def test_the_core_exports_one_symbol() -> None:
    assert dynamic_symbols(CORE, "--defined-only") == {"lwip_core_table"}


def test_the_core_needs_libc_alone() -> None:
    out = subprocess.run(["readelf", "-d", str(CORE)], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"\(NEEDED\).*\[(.*?)\]", out) == ["libc.so.6"]
    allowed = {
        "malloc",
        "free",
        "memcpy",
        "memset",
        "memcmp",
        "memmove",
        "snprintf",
        "fprintf",
        "stderr",
        "abort",
        "_setjmp",
        "longjmp",
        "strrchr",
    }
    hardening = {"__stack_chk_fail", "__fprintf_chk", "__snprintf_chk", "__longjmp_chk", "__memcpy_chk"}
    runtime = {"__cxa_finalize", "__gmon_start__", "_ITM_registerTMCloneTable", "_ITM_deregisterTMCloneTable"}
    assert dynamic_symbols(CORE, "--undefined-only") <= allowed | hardening | runtime


def test_the_extension_links_no_lwip_symbol() -> None:
    out = subprocess.run(["nm", str(CORE)], check=True, capture_output=True, text=True).stdout
    in_core = {
        fields[-1] for line in out.splitlines() if (fields := line.split())[-2] in "TtDdBbRr" and not fields[-1].startswith("_")
    }
    assert {"tcp_write", "pbuf_alloc", "netif_add", "core_receive"} <= in_core  # the core is not stripped: the audit sees it
    assert dynamic_symbols(Path(_lwip.__file__), "--undefined-only") & in_core == set()


def test_no_part_of_lwip_that_is_not_wanted_is_in() -> None:
    out = subprocess.run(["nm", str(CORE)], check=True, capture_output=True, text=True).stdout
    assert not re.search(r"\b(httpd|snmp|ppp|netconn|lwip_socket|dhcp_start|dns_init|sys_timeout)", out)


LOAD = """
import sys
from netcon.dataplane.reactor import Reactor
import lwip
reactor = Reactor(manual=True)
stacks = [lwip.Stack(reactor.capsule(), mac=bytes((2, 0, 0, 0, 0, i))) for i in range(2)]
stacks[0].add_address("10.0.0.1", 24)
print([stack.addresses() for stack in stacks])
print(sum("netcon-lwip-" in line and "r-xp" in line for line in open("/proc/self/maps")))
"""


def run_apart(tmp_path: Path, code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
    )


def test_copies_in_real_files_for_debuggers(tmp_path: Path) -> None:
    done = run_apart(tmp_path, LOAD, NETCON_LWIP_FILES=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "10.0.0.1" in done.stdout
    assert len(list(tmp_path.glob("netcon-lwip-*.so"))) == 2


NO_MEMFD = """
import ctypes, os
# Refuse memfd_create, as a seccomp filter or an old kernel would.
libc = ctypes.CDLL(None, use_errno=True)
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Filter))]
number = {"x86_64": 319, "aarch64": 279}[os.uname().machine]
refuse, allow = Filter(0x06, 0, 0, 0x00050001), Filter(0x06, 0, 0, 0x7FFF0000)
rules = (Filter * 4)(Filter(0x20, 0, 0, 0), Filter(0x15, 0, 1, number), refuse, allow)
program = Program(4, rules)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
"""


def test_a_private_file_serves_where_memfd_does_not(tmp_path: Path) -> None:
    done = run_apart(tmp_path, NO_MEMFD + LOAD, TMPDIR=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    addresses, copies = done.stdout.splitlines()
    assert "10.0.0.1" in addresses
    assert copies == "2"
    assert list(tmp_path.glob("netcon-lwip-*")) == []  # unlinked as soon as loaded


@pytest.fixture
def package_copy(tmp_path: Path) -> Path:
    folder = tmp_path / "lwip"
    folder.mkdir()
    for file in [*PACKAGE.glob("_lwip*.so"), PACKAGE / "__init__.py", CORE]:
        shutil.copy(file, folder)
    return tmp_path


def load_copy(folder: Path) -> "subprocess.CompletedProcess[str]":
    return run_apart(folder, f"import sys; sys.path.insert(0, {str(folder)!r})\n{LOAD}")


def test_a_core_of_another_build_is_refused(package_copy: Path) -> None:
    core = package_copy / "lwip" / "liblwip-core.so"
    assert load_copy(package_copy).returncode == 0
    with_other_options = core.read_bytes()
    # The fingerprint's words, 64 bits each: TCP_MSS 61440 followed by TCP_WND 2 MiB.
    words = (61440).to_bytes(8, sys.byteorder) + (2 << 20).to_bytes(8, sys.byteorder)
    assert with_other_options.count(words) == 1
    core.write_bytes(with_other_options.replace(words, (1460).to_bytes(8, sys.byteorder) + words[8:]))
    done = load_copy(package_copy)
    assert done.returncode == 1
    assert "other lwIP headers or options" in done.stderr


def test_a_missing_core_says_what_to_do(package_copy: Path) -> None:
    (package_copy / "lwip" / "liblwip-core.so").unlink()
    done = load_copy(package_copy)
    assert done.returncode == 1
    assert "StackError" in done.stderr
    assert "build_ext" in done.stderr


def test_errors_have_one_type() -> None:
    assert issubclass(lwip.StackError, Exception)
    assert lwip.StackError.__module__ == "lwip"


def test_our_c_is_one_theory_per_file() -> None:
    for file in (SOURCES / "core").glob("*.[ch]"):
        assert file.read_text().startswith(f"/* {file.name}: "), file
