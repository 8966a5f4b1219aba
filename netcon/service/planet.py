"""Which planet a service lives on: the home folder's own, or the public one (data of vl1 appendix B).

Under `NETCON_PLANET=private` in the environment (tests, demos, benchmarks) the public planet is an error, wherever it comes from.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from netcon.core.actions import Endpoint
from netcon.core.errors import NetconError
from netcon.core.identity import Identity
from netcon.core.world import Root, World, WorldType
from netcon.service.errors import HomeError, ServiceError

PUBLIC_PLANET_ID = 149604618
_TIMESTAMP = 1644592324813
_UPDATE_KEY = (
    "b8b388a469221491aa9acd66cc764cdefd56039f1067ae15e69c6fb42d7b5533"
    "0e3fdaac529c0792fd7340a6aa21aba8a489fdaea44a39bf2d00659ac9c818eb"
)
_SIGNATURE = (
    "3600927637ef4d1404a44d544684851379751faa79b4c4ea85040175ea065860"
    "482402e1eb342052000e6290061a9be0cd293c8b55f1c3d2524808afc5492208"
    "0e3539a75addc3cef0f6ad260d588293bb7786e71efa4b9057dad9867afe12dd"
)
#: (address, public block, IPv4, IPv6), each at port 9993.
_ROOTS = (
    (
        "cafe9efeb9",
        "ccdef76bc7b97ded904eabc5df09886d9c1514a610036cb9139cc214001a2958978efcec15712dd3948c6e6b3a8e893df01ff493d1f8d9806a860c5420571bf0",
        "104.194.8.134",
        "2605:9880:200:1200:30:571:e34:51",
    ),
    (
        "778cde7190",
        "3f6681a99e5ad1895e9fba33e6212d4454e168bcec7112101bf000956ed8e92e42892cb6f2ec410881a84ab19da50e1287ba3d926c3a1f755cccf299a1207055",
        "103.195.103.66",
        "2605:9880:400:c3:254:f2bc:a1f7:19",
    ),
    (
        "62f865ae71",
        "e2076c57de870e6288d7d5e7404408b1545efca37d67f77b87e9e54168c25d3ef1a9abf2905ea5e785c01dff23887ad4232d95c7a8fd2c27111a72bd159322dc",
        "50.7.252.138",
        "2001:49f0:d0db:2::2",
    ),
    (
        "cafe04eba9",
        "6c6a9d1dea55c1616bfe2a2b8f0ff9a8cacaf70374fb1f39e3bef81cbfebef17b7228268a0a2a29d3488c752565c6c965cbd6506ec24397cc8a5d9d15285a87f",
        "84.17.53.155",
        "2a02:6ea0:d405::9993",
    ),
)


def public_planet() -> World:
    """The default planet of ZeroTier One 1.8.5 to 1.14.1. ServiceError under `NETCON_PLANET=private`."""
    if os.environ.get("NETCON_PLANET") == "private":
        raise ServiceError(
            "NETCON_PLANET=private forbids the public planet: put a planet of your own into the home folder "
            "(`netcon world make`), or unset NETCON_PLANET"
        )
    return World(
        type=WorldType.PLANET,
        id=PUBLIC_PLANET_ID,
        timestamp=_TIMESTAMP,
        update_key=bytes.fromhex(_UPDATE_KEY),
        signature=bytes.fromhex(_SIGNATURE),
        roots=tuple(
            Root(
                Identity(int(address, 16), bytes.fromhex(public)),
                tuple(Endpoint(ipaddress.ip_address(ip).packed, 9993) for ip in ips),
            )
            for address, public, *ips in _ROOTS
        ),
    )


def choose_planet(stored: bytes | None, path: Path) -> World:
    """The planet to start with (vl1 §5.2 step 2): `stored`, the content of the home's `planet`, updated by the built-in one."""
    if stored is None:
        return public_planet()
    try:
        planet = World.parse(stored)
    except NetconError as error:
        raise HomeError(f"{path}: not a planet ({error}); restore it, or remove it to use the public planet") from None
    if planet.type != WorldType.PLANET:
        raise HomeError(f"{path}: a moon, not a planet; moons belong into moons.d")
    if planet.id != PUBLIC_PLANET_ID:
        return planet
    newest = public_planet()
    return newest if planet.accepts_update(newest) else planet
