"""Who may know whom (architecture.md, Rooms): the imports of each package are the ones that the design allows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Package -> what of ours it may import, by prefix. A package may always import itself.
ALLOWED = {
    "netcon/core": ["netcon.dataplane.crypto"],
    "netcon/controller": ["netcon.core", "netcon.dataplane.crypto"],
    "netcon/names": ["netcon.core"],
    "netcon/dataplane": [],
    "lwip": [],
    "netcon/service": ["netcon", "lwip"],
    "netcon/cli": ["netcon"],
    "netcon/forward": ["netcon.core.errors", "netcon.sockets"],
    "intercept": [],
}
FORBIDDEN = {
    "netcon/service": ["netcon.cli"],
    "netcon/cli": ["netcon.dataplane.reactor", "lwip"],
}


def imports(file: Path) -> set[str]:
    """Every module that `file` imports, anywhere in it; `from a import b` counts as `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in ("netcon", "lwip", "tests")}


def below(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    own = package.replace("/", ".")
    wrong = {}
    for file in (ROOT / package).rglob("*.py"):
        for name in imports(file):
            if below(name, [own]):
                continue
            if not below(name, ALLOWED[package]) or below(name, FORBIDDEN.get(package, [])):
                wrong[str(file.relative_to(ROOT))] = name
    assert not wrong


@pytest.mark.parametrize("folder", ["netcon/dataplane/src", "lwip/src", "lwip/core", "intercept/src"])
def test_native_parts_meet_only_in_the_boundary_headers(folder: str) -> None:
    others = {"netcon/dataplane", "lwip", "intercept"} - {"/".join(folder.split("/")[:2]), folder.split("/")[0]}
    for file in (ROOT / folder).rglob("*"):
        if file.suffix in (".c", ".h", ".cpp", ".hpp"):
            for line in file.read_text().splitlines():
                if line.startswith("#include"):
                    assert not any(f"{other}/" in line for other in others), f"{file.name}: {line}"


def test_the_engine_has_no_clock_socket_file_or_randomness() -> None:
    banned = {"socket", "time", "random", "secrets", "os", "threading", "asyncio", "trio", "select"}
    for file in [*(ROOT / "netcon/core").rglob("*.py"), *(ROOT / "netcon/controller").rglob("*.py")]:
        if file.name == "sqlite_store.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & banned, file
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] not in banned, file
