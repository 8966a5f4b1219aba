"""Moons: orbit, deorbit, updates (vl1 §6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netcon.core.actions import Endpoint, StateKind
from netcon.core.errors import DecodeError
from netcon.core.peer import MOON, PLANET
from netcon.core.world import Root, World, make_moon, make_planet
from tests.simulator import EPOCH, IDENTITIES, Lab, SimNode

SECRET = bytes(range(100, 164))


def moon_of(*roots: SimNode, timestamp: int = EPOCH, secret: bytes = SECRET, moon: int | None = None) -> World:
    identity = roots[0].identity
    return make_moon(moon or identity.address, timestamp, [Root(node.identity, (node.endpoint,)) for node in roots], secret)


def orbit(node: SimNode, moon: World | int, seed: SimNode | None = None, stored: bool = False) -> bool:
    number = moon if isinstance(moon, int) else moon.id
    data = moon.encode() if stored and isinstance(moon, World) else None
    taken = node.node.orbit(number, node.fabric.now, seed=seed.identity.address if seed else 0, stored=data)
    node.perform()
    return taken


def held(node: SimNode) -> list[tuple[int, int | None]]:
    return [(moon.id, moon.world.timestamp if moon.world else None) for moon in node.node.moons()]


def role(node: SimNode, other: SimNode) -> str:
    return next(peer.role for peer in node.node.peers(node.fabric.now) if peer.address == other.identity.address)


def test_a_moons_file_makes_its_roots_upstreams() -> None:
    lab = Lab(2)
    a, b = lab.members
    lab.fabric.run(2_000)
    moon = moon_of(b)
    assert orbit(a, moon, stored=True)
    assert orbit(b, moon, stored=True)
    assert b.node.is_root
    assert not a.node.is_root
    lab.fabric.run_until(lambda: a.direct(b))
    assert role(a, b) == MOON
    assert role(a, lab.root) == PLANET
    assert held(a) == [(moon.id, EPOCH)]


def test_a_moon_comes_from_its_seed_which_only_the_root_knows() -> None:
    lab = Lab(2)
    a, seed = lab.members
    lab.fabric.run(2_000)
    moon = moon_of(seed)
    assert orbit(seed, moon, stored=True)
    lab.fabric.run(2_000)
    assert orbit(a, moon.id, seed)
    assert held(a) == [(moon.id, None)]
    took = lab.fabric.run_until(lambda: held(a) == [(moon.id, moon.timestamp)], 5_000)
    assert took < 2_000
    assert a.stored[(StateKind.MOON, moon.id)] == moon.encode()
    lab.fabric.run_until(lambda: a.direct(seed), 10_000)
    assert role(a, seed) == MOON


def test_a_wanted_moon_is_wanted_after_a_restart_until_it_came() -> None:
    lab = Lab(2)
    a, seed = lab.members
    key = (StateKind.MOON_SEED, seed.identity.address)
    lab.fabric.run(2_000)
    orbit(a, seed.identity.address, seed)
    assert a.stored[key] == f"{seed.identity.address:010x}".encode()
    a.restart()
    assert orbit(a, seed.identity.address, seed)  # as the host does with what is stored
    moon = moon_of(seed)
    orbit(seed, moon, stored=True)
    lab.fabric.run_until(lambda: held(a) == [(moon.id, moon.timestamp)], 60_000)
    assert key not in a.stored
    assert (StateKind.MOON, moon.id) in a.stored


def test_a_seed_is_forgotten_with_its_moon() -> None:
    lab = Lab(2)
    a, seed = lab.members
    lab.fabric.run(2_000)
    for stored in (False, True):
        orbit(a, seed.identity.address, seed)
        assert a.stored
        if stored:
            orbit(a, moon_of(seed), stored=True)
        else:
            a.node.deorbit(seed.identity.address, lab.fabric.now)
            a.perform()
        assert (StateKind.MOON_SEED, seed.identity.address) not in a.stored


def test_a_seed_that_comes_later_is_found() -> None:
    lab = Lab(2)
    a, seed = lab.members
    seed.stop()
    lab.fabric.run(2_000)
    moon = moon_of(seed)
    assert orbit(a, moon.id, seed)
    lab.fabric.run(60_000)
    seed.restart()
    orbit(seed, moon, stored=True)
    lab.fabric.run_until(lambda: held(a) == [(moon.id, moon.timestamp)], 60_000)


def test_a_moon_carries_on_when_the_planet_is_gone() -> None:
    lab = Lab(3)
    a, b, moonlet = lab.members
    lab.join_all()
    lab.fabric.run(1_000)
    moon = moon_of(moonlet)
    for node in (a, b, moonlet, lab.controller):
        orbit(node, moon, stored=True)
    lab.fabric.run(10_000)
    lab.root.stop()
    lab.fabric.block(a, b)
    lab.fabric.run(60_000)
    assert a.node.online
    a.send_frame(lab.network, b.mac(lab.network), 0x0800, b"by way of the moon" * 3)
    lab.fabric.run(1_000)
    assert [frame.payload for frame in b.take_frames()] == [b"by way of the moon" * 3]
    assert moonlet.node.counters["relayed"] > 0


def test_an_update_spreads_and_is_stored() -> None:
    lab = Lab(3)
    a, b, moonlet = lab.members
    first = moon_of(moonlet)
    for node in lab.members:
        orbit(node, first, stored=True)
    lab.fabric.run(5_000)
    second = moon_of(moonlet, b, timestamp=EPOCH + 1)
    assert moonlet.node.deorbit(first.id, lab.fabric.now)
    orbit(moonlet, second, stored=True)
    lab.fabric.run_until(lambda: held(a) == [(first.id, EPOCH + 1)], 70_000)
    assert a.stored[(StateKind.MOON, first.id)] == second.encode()
    lab.fabric.run_until(lambda: role(a, b) == MOON and b.node.is_root, 70_000)


@pytest.mark.parametrize("wrong", ["older", "other key", "broken signature"])
def test_a_false_update_is_refused(wrong: str) -> None:
    lab = Lab(3)
    a, b, moonlet = lab.members
    first = moon_of(moonlet)
    orbit(a, first, stored=True)
    lab.fabric.run(5_000)
    false = {
        "older": moon_of(moonlet, b, timestamp=EPOCH - 1),
        "other key": moon_of(moonlet, b, timestamp=EPOCH + 1, secret=bytes(64)),
        "broken signature": replace(moon_of(moonlet, timestamp=EPOCH + 1), signature=bytes(96)),
    }[wrong]
    orbit(moonlet, false, stored=True)
    lab.fabric.run(130_000)
    assert held(a) == [(first.id, EPOCH)]


def test_nobody_but_the_wanted_seed_makes_us_orbit() -> None:
    """A moon of that id whose roots do not include the seed, and a moon that was never wanted (vl1 §6.3)."""
    lab = Lab(3)
    a, b, seed = lab.members
    lab.fabric.run(2_000)
    stranger = moon_of(b, moon=seed.identity.address)
    orbit(seed, stranger, stored=True)
    orbit(seed, moon_of(b), stored=True)
    assert orbit(a, stranger.id, seed)
    lab.fabric.run(60_000)
    assert held(a) == [(stranger.id, None)]


def test_deorbit_forgets_the_moon() -> None:
    lab = Lab(2)
    a, b = lab.members
    moon = moon_of(b)
    orbit(a, moon, stored=True)
    lab.fabric.run(5_000)
    assert a.node.deorbit(moon.id, lab.fabric.now)
    a.perform()
    assert held(a) == []
    assert role(a, b) == "LEAF"
    assert (StateKind.MOON, moon.id) not in a.stored
    assert not a.node.deorbit(moon.id, lab.fabric.now)
    assert orbit(a, moon.id, b)
    assert a.node.deorbit(moon.id, lab.fabric.now)
    assert held(a) == []


def test_what_cannot_be_orbited() -> None:
    lab = Lab(1)
    (a,) = lab.members
    planet = make_planet(5, 1, [], SECRET)
    with pytest.raises(DecodeError):
        a.node.orbit(5, lab.fabric.now, stored=planet.encode())
    with pytest.raises(DecodeError):
        a.node.orbit(6, lab.fabric.now, stored=moon_of(lab.root).encode())
    with pytest.raises(DecodeError):
        a.node.orbit(6, lab.fabric.now, stored=b"\x7f")
    assert not orbit(a, 7), "neither file nor seed"
    assert all(orbit(a, number, lab.root) for number in range(1, 33))
    assert not orbit(a, 99, lab.root), "each moon is named in every HELLO"


def test_more_moons_than_fit_an_answer_come_one_after_the_other() -> None:
    """OK(HELLO) is one datagram; moons of four roots with many addresses would not fit together (vl1 §4.4)."""
    lab = Lab(2)
    a, seed = lab.members
    lab.fabric.run(2_000)
    endpoints = tuple(Endpoint(bytes(range(16)), port) for port in range(1, 33))
    others = [Root(identity, endpoints) for identity in IDENTITIES[5:8]]
    for number in range(1, 33):
        moon = make_moon(number, EPOCH, [Root(seed.identity, (seed.endpoint,)), *others], SECRET)
        assert orbit(seed, moon, stored=True)
    assert not orbit(seed, moon_of(seed, moon=99), stored=True)
    for number in range(1, 33):
        orbit(a, number, seed)
    largest = 0

    def tap(sender: SimNode, remote: Endpoint, data: bytes) -> bool:
        nonlocal largest
        largest = max(largest, len(data))
        return True

    lab.fabric.tap = tap
    lab.fabric.run_until(lambda: all(timestamp for _, timestamp in held(a)), 600_000)
    assert 5_000 < largest <= 10_024


def test_anchors_are_kept_in_contact() -> None:
    """Always-contact specialists get a HELLO though no traffic flows (vl2 §2.6)."""
    lab = Lab(3)
    a, _, anchor = lab.members
    lab.control.specialists = (0x0000040000000000 | anchor.identity.address,)
    lab.join_all()
    lab.fabric.run_until(lambda: a.direct(anchor), 90_000)
    lab.fabric.run(600_000)
    assert a.direct(anchor)
