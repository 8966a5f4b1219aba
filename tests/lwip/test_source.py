"""How lwIP's source is obtained: what is taken, what is refused, what is said."""

import hashlib
import importlib.util
import io
import os
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "lwip" / "source.py"


@pytest.fixture
def source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lwip_source", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return tmp_path / "build"


def make_tree(folder: Path) -> Path:
    for name in ("src/core/tcp.c", "src/include/lwip/init.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("/* lwIP */\n")
    return folder


def make_tarball(path: Path, **files: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz") as archive:
        for name, text in {"lwip/src/core/tcp.c": "", "lwip/src/include/lwip/init.h": "", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def pin(source: ModuleType, monkeypatch: pytest.MonkeyPatch, tarball: Path) -> None:
    monkeypatch.setattr(source, "PINNED", {hashlib.sha256(tarball.read_bytes()).hexdigest(): "2.2.1"})


NO_APT = {"PATH": "/nonexistent"}


def test_a_directory_that_the_builder_names(
    source: ModuleType, tmp_path: Path, build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree")
    assert source.obtain(build, {"LWIP_SOURCE": str(tree), **NO_APT}) == tree
    assert f"LWIP_SOURCE, the directory {tree}" in capsys.readouterr().err


def test_a_tarball_that_the_builder_names(
    source: ModuleType, tmp_path: Path, build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tarball = make_tarball(tmp_path / "mine.tar.xz")
    tree = source.obtain(build, {"LWIP_SOURCE": str(tarball), **NO_APT})
    assert (tree / "src/core/tcp.c").is_file()
    assert tree.parent == build
    assert "trusted because you named it" in capsys.readouterr().err
    assert source.obtain(build, {"LWIP_SOURCE": str(tarball), **NO_APT}) == tree


@pytest.mark.parametrize("what", ["nothing", "empty folder", "not a tarball", "tarball of something else"])
def test_what_the_builder_names_must_be_lwip(source: ModuleType, tmp_path: Path, build: Path, what: str) -> None:
    given = tmp_path / "given"
    match what:
        case "empty folder":
            given.mkdir()
        case "not a tarball":
            given.write_text("hello")
        case "tarball of something else":
            with tarfile.open(given, "w:xz") as archive:
                archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(source.SourceError, match=str(given)):
        source.obtain(build, {"LWIP_SOURCE": str(given), **NO_APT})
    assert list(build.glob("*")) == []


def test_a_cached_tarball_with_the_pinned_hash(
    source: ModuleType, tmp_path: Path, build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tarball = make_tarball(tmp_path / "cache" / "netcon" / "lwip_2.2.1.orig.tar.xz")
    pin(source, monkeypatch, tarball)
    tree = source.obtain(build, {"XDG_CACHE_HOME": str(tmp_path / "cache"), **NO_APT})
    assert (tree / "src/core/tcp.c").is_file()
    assert f"cached {tarball}" in capsys.readouterr().err


def test_a_cached_tarball_in_the_build_folder(source: ModuleType, build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(source, monkeypatch, make_tarball(build / "lwip_2.2.1.orig.tar.xz"))
    assert source.obtain(build, NO_APT).parent == build


def test_a_tarball_with_another_hash_is_refused(
    source: ModuleType, tmp_path: Path, build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tarball(tmp_path / "cache" / "netcon" / "lwip_2.2.1.orig.tar.xz")
    with pytest.raises(source.SourceError):
        source.obtain(build, {"XDG_CACHE_HOME": str(tmp_path / "cache"), **NO_APT})
    assert "is refused: its SHA-256" in capsys.readouterr().err


def test_without_any_way_the_error_names_the_variable(source: ModuleType, build: Path, tmp_path: Path) -> None:
    with pytest.raises(source.SourceError, match=r"Set LWIP_SOURCE to a directory or tarball of lwIP 2\.2\.1"):
        source.obtain(build, {"XDG_CACHE_HOME": str(tmp_path), **NO_APT})


def test_a_tarball_cannot_write_outside(source: ModuleType, tmp_path: Path, build: Path) -> None:
    tarball = make_tarball(
        tmp_path / "evil.tar.xz", **{"../../outside": "x", "lwip/../../../outside": "x", f"{tmp_path}/outside": "x"}
    )
    tree = source.obtain(build, {"LWIP_SOURCE": str(tarball), **NO_APT})
    assert not list(tmp_path.rglob("outside"))
    assert source.is_source_tree(tree)


# ---- apt ----

FAKE_APT = """#!/bin/sh
# What apt-get would do, as far as the caller sees it.
case "$*" in
*" update")
    grep -q trixie "$(sed -n 's/^Dir::Etc::sourcelist "\\(.*\\)";/\\1/p' "$APT_CONFIG")" || exit 100
    echo updated >> "$LOG"
    exit 0 ;;
*" source --download-only --tar-only lwip") cp "$TARBALL" . 2>/dev/null || exit 100; exit 0 ;;
esac
exit 99
"""


@pytest.fixture
def fake_apt(tmp_path: Path) -> dict[str, str]:
    """A machine with an apt-get of ours; what `etc_apt` holds is its configuration."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apt-get"
    program.write_text(FAKE_APT)
    program.chmod(0o755)
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text("deb http://deb.example/debian bookworm main\n")
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LOG": str(tmp_path / "log"),
        "TARBALL": "",
    }


BOOKWORM = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}


def test_the_distribution_s_package_is_verified_and_cached(
    source: ModuleType, tmp_path: Path, build: Path, fake_apt: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "os_release", lambda: BOOKWORM)
    tarball = make_tarball(tmp_path / "lwip_2.2.1.orig.tar.xz")
    pin(source, monkeypatch, tarball)
    tree = source.from_apt({**fake_apt, "TARBALL": str(tarball)}, build, tmp_path / "etc")
    assert source.is_source_tree(tree)
    assert (tmp_path / "cache" / "netcon" / tarball.name).read_bytes() == tarball.read_bytes()
    assert (tmp_path / "log").read_text() == "updated\n"


def test_a_package_with_another_hash_is_refused(
    source: ModuleType, tmp_path: Path, build: Path, fake_apt: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "os_release", lambda: BOOKWORM)
    tarball = make_tarball(tmp_path / "lwip_2.2.1.orig.tar.xz")
    assert source.from_apt({**fake_apt, "TARBALL": str(tarball)}, build, tmp_path / "etc") is None
    assert not (tmp_path / "cache").exists()


def test_an_apt_that_brings_nothing_is_not_fatal(
    source: ModuleType,
    tmp_path: Path,
    build: Path,
    fake_apt: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(source, "os_release", lambda: BOOKWORM)
    assert source.from_apt(fake_apt, build, tmp_path / "etc") is None
    assert "brought nothing" in capsys.readouterr().err


def test_source_lines_of_both_styles(source: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://one.example/debian bookworm main contrib # why\n"
        "deb-src http://two.example/debian bookworm main\n"
        "deb http://third.party.example/apt cloud-sdk-bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "# comment\nTypes: deb deb-src\nURIs: http://three.example/debian\n http://four.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /usr/share/keyrings/d.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n"
    )
    signed = "[signed-by=/usr/share/keyrings/d.gpg]"
    assert source.source_list(tmp_path, BOOKWORM).splitlines() == [
        "deb-src [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://one.example/debian bookworm main contrib",
        "deb-src [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://one.example/debian trixie main contrib",
        f"deb-src {signed} http://three.example/debian bookworm main",
        f"deb-src {signed} http://three.example/debian trixie main",
        f"deb-src {signed} http://three.example/debian bookworm-updates main",
        f"deb-src {signed} http://four.example/debian bookworm main",
        f"deb-src {signed} http://four.example/debian trixie main",
        f"deb-src {signed} http://four.example/debian bookworm-updates main",
    ]


def test_a_newer_distribution_is_asked_for_its_own(source: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/ubuntu noble universe\n")
    release = {"ID": "ubuntu", "VERSION_ID": "24.04", "VERSION_CODENAME": "noble"}
    assert source.source_list(tmp_path, release) == "deb-src http://one.example/ubuntu noble universe\n"


def test_apt_s_private_state_is_the_whole_of_its_state(source: ModuleType) -> None:
    text = source.APT_CONFIGURATION
    for setting in (
        "Dir::State",
        "Dir::State::status",
        "Dir::Cache",
        "Dir::Etc::sourcelist",
        "Dir::Etc::sourceparts",
        "Dir::Etc::preferences",
    ):
        assert f"\n{setting} " in f"\n{text}"
    assert 'AllowInsecureRepositories "false"' in text
    assert 'AllowUnauthenticated "false"' in text
