"""Which planet a service lives on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from netcon.core.world import make_moon, make_planet
from netcon.service.errors import HomeError, ServiceError
from netcon.service.planet import choose_planet, public_planet
from tests.service.support import IDENTITIES, WORLD_KEY, private_planet

FILE = Path("/home/x/planet")


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only looks at the data; nothing is sent anywhere."""
    monkeypatch.delenv("NETCON_PLANET", raising=False)


@pytest.mark.usefixtures("public")
def test_the_public_planet_is_the_known_one() -> None:
    planet = public_planet()
    data = planet.encode()
    assert len(data) == 570
    assert hashlib.sha256(data).hexdigest() == "d85620dee418cd7efc5558b6a50b2a8ac34792764d074fa55d752952e48da470"
    assert planet.verify()


@pytest.mark.usefixtures("public")
def test_a_home_without_planet_lives_on_the_public_one() -> None:
    assert choose_planet(None, FILE) == public_planet()


@pytest.mark.usefixtures("public")
def test_an_older_public_planet_in_the_home_is_updated() -> None:
    stored = replace(public_planet(), timestamp=1)
    assert choose_planet(stored.encode(), FILE) == public_planet()


@pytest.mark.usefixtures("public")
def test_a_newer_public_planet_in_the_home_is_kept() -> None:
    stored = replace(public_planet(), timestamp=public_planet().timestamp + 1)
    assert choose_planet(stored.encode(), FILE) == stored


def test_a_private_planet_is_kept() -> None:
    planet = private_planet(IDENTITIES[0], 9993)
    assert choose_planet(planet.encode(), FILE) == planet


@pytest.mark.parametrize("stored", ["none", "public id"])
def test_the_public_planet_is_an_error_where_it_is_forbidden(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    monkeypatch.setenv("NETCON_PLANET", "private")
    data = None if stored == "none" else make_planet(149604618, 1, [], WORLD_KEY).encode()
    with pytest.raises(ServiceError, match="NETCON_PLANET=private forbids the public planet"):
        choose_planet(data, FILE)


@pytest.mark.parametrize("data", [b"", b"\x01", make_moon(1, 1, [], WORLD_KEY).encode()], ids=["empty", "cut", "moon"])
def test_a_corrupt_planet_names_its_file(data: bytes) -> None:
    with pytest.raises(HomeError, match=str(FILE)):
        choose_planet(data, FILE)
