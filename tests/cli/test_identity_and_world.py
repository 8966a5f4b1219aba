"""`netcon identity` and `netcon world`: files in, files out, no service."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netcon.cli.main import main
from netcon.core.identity import Identity
from netcon.core.world import World
from tests.service.support import IDENTITIES


def netcon(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "identity.secret"
    path.write_text(IDENTITIES[0].to_text(secret=True))
    return path


@pytest.fixture
def public(tmp_path: Path) -> Path:
    path = tmp_path / "identity.public"
    path.write_text(IDENTITIES[0].to_text())
    return path


# -- identity --


def test_generate_writes_a_valid_identity_and_never_overwrites(tmp_path: Path) -> None:
    secret, public = tmp_path / "s", tmp_path / "p"
    printed = netcon("identity", "generate", secret, public).output.strip()
    assert Identity.parse(secret.read_text()).validate()
    assert public.read_text() == printed == Identity.parse(secret.read_text()).to_text()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = secret.read_text()
    assert f"{secret}: exists already" in netcon("identity", "generate", secret, code=1).output
    assert secret.read_text() == before


def test_the_folder_of_a_new_identity_is_made(tmp_path: Path) -> None:
    netcon("identity", "generate", tmp_path / "root" / "identity.secret", tmp_path / "root" / "identity.public")
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700
    assert (tmp_path / "root" / "identity.public").exists()


def test_a_missing_identity_says_how_to_make_one(tmp_path: Path) -> None:
    assert "netcon identity generate" in netcon("identity", "validate", tmp_path / "none", code=1).output


def test_validate(secret: Path, tmp_path: Path) -> None:
    assert "is valid" in netcon("identity", "validate", secret).output
    wrong = tmp_path / "wrong"
    wrong.write_text("0123456789" + IDENTITIES[0].to_text()[10:])
    assert "does not belong to this key" in netcon("identity", "validate", wrong, code=1).output
    assert str(tmp_path / "none") in netcon("identity", "validate", tmp_path / "none", code=1).output


def test_getpublic_shows_no_secret(secret: Path) -> None:
    assert netcon("identity", "getpublic", secret).output.strip() == IDENTITIES[0].to_text()


def test_sign_and_verify(secret: Path, public: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"contents")
    signature = netcon("identity", "sign", secret, file).output.strip()
    assert len(bytes.fromhex(signature)) == 96
    netcon("identity", "verify", public, file, signature)
    file.write_bytes(b"changed")
    assert "not signed by" in netcon("identity", "verify", public, file, signature, code=1).output
    assert "no secret part" in netcon("identity", "sign", public, file, code=1).output
    netcon("identity", "verify", public, file, "00", code=2)


# -- world --


def test_a_planet_is_made_and_shown(public: Path, tmp_path: Path) -> None:
    planet, key = tmp_path / "planet", tmp_path / "key"
    netcon("world", "make", "--root", f"{public}=192.0.2.1/9993,2001:db8::1/9993", "--key", key, "-o", planet)
    made = World.parse(planet.read_bytes())
    assert made.verify()
    assert [root.identity for root in made.roots] == [IDENTITIES[0]]
    assert len(made.roots[0].endpoints) == 2
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shown = netcon("world", "show", planet).output
    assert f"root {IDENTITIES[0].address:010x} at 192.0.2.1/9993, 2001:db8::1/9993" in shown


def test_a_new_version_is_accepted_by_nodes_that_have_the_old_one(public: Path, tmp_path: Path) -> None:
    planet, key = tmp_path / "planet", tmp_path / "key"
    netcon("world", "make", "--root", f"{public}=192.0.2.1/9993", "--key", key, "-o", planet)
    old = World.parse(planet.read_bytes())
    netcon("world", "make", "--root", f"{public}=192.0.2.2/9993", "--key", key, "-o", planet)
    assert old.accepts_update(World.parse(planet.read_bytes()))


def test_another_key_cannot_make_the_next_version(public: Path, tmp_path: Path) -> None:
    planet = tmp_path / "planet"
    netcon("world", "make", "--root", f"{public}=192.0.2.1/9993", "--key", tmp_path / "key", "-o", planet)
    before = planet.read_bytes()
    words = ("world", "make", "--root", f"{public}=192.0.2.1/9993", "--key", tmp_path / "other", "-o", planet)
    assert "was not signed with" in netcon(*words, code=1).output
    assert planet.read_bytes() == before


@pytest.mark.parametrize(
    "root", ["", "x", "{public}=", "{public}=192.0.2.1:9993", "{public}=host/9993", "{public}=192.0.2.1/99999"]
)
def test_a_wrong_root_is_a_usage_error(public: Path, tmp_path: Path, root: str) -> None:
    netcon("world", "make", "--root", root.format(public=public), "--key", tmp_path / "key", "-o", tmp_path / "planet", code=2)
    assert not (tmp_path / "planet").exists()


def test_a_corrupt_planet_or_key_is_named(public: Path, tmp_path: Path) -> None:
    (tmp_path / "planet").write_bytes(b"nonsense")
    assert str(tmp_path / "planet") in netcon("world", "show", tmp_path / "planet", code=1).output
    (tmp_path / "key").write_text("nonsense")
    words = ("world", "make", "--root", f"{public}=192.0.2.1/9993", "--key", tmp_path / "key", "-o", tmp_path / "new")
    assert str(tmp_path / "key") in netcon(*words, code=1).output
