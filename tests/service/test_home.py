"""The home folder: what is made, what is kept, and what a damaged one says."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netcon.core.actions import StateKind
from netcon.core.address import parse_endpoint, parse_prefix
from netcon.core.physical import PeerHints, PhysicalNetwork
from netcon.service.errors import HomeError, HomeInUseError, SettingsError
from netcon.service.home import Home
from netcon.service.settings import NetworkSettings
from tests.service.support import IDENTITIES

NETWORK = 0x701BEB847C4A52C7


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_new_home_is_private_to_its_owner(home: Home) -> None:
    assert mode(home.path) == 0o700
    assert mode(home.path / "run") == 0o700


def test_the_folder_of_sockets_is_closed_again_if_it_was_open(home: Home) -> None:
    (home.path / "run").chmod(0o777)
    Home(home.path)
    assert mode(home.path / "run") == 0o700


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="use a shorter one"):
        Home(tmp_path / ("x" * 100))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match=str(tmp_path / "file")):
        Home(tmp_path / "file" / "home")


# -- the lock --


def test_a_second_service_on_the_same_home_is_told_so(home: Home) -> None:
    home.lock()
    with pytest.raises(HomeInUseError, match=rf"process {os.getpid()}\) uses this home folder"):
        Home(home.path).lock()
    home.unlock()
    second = Home(home.path)
    second.lock()
    second.unlock()


def test_the_lock_of_a_killed_service_is_free(home: Home) -> None:
    script = (
        "from netcon.service.home import Home; from pathlib import Path; "
        f"Home(Path({str(home.path)!r})).lock(); print('locked', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(HomeInUseError):
            home.lock()
        process.kill()
    home.lock()
    home.unlock()


def test_what_a_killed_service_left_half_written_is_removed(home: Home) -> None:
    left = home.path / "networks.d" / f".{NETWORK:016x}.conf.123.netcon-tmp"
    left.write_bytes(b"half")
    home.lock()
    home.unlock()
    assert not left.exists()


# -- identity --


def test_an_identity_is_made_once_and_kept(home: Home) -> None:
    first = home.identity()
    assert first.validate()
    assert mode(home.path / "identity.secret") == 0o600
    assert (home.path / "identity.public").read_text() == first.to_text()
    assert Home(home.path).identity() == first


def test_a_given_identity_is_used_as_it_is(home: Home) -> None:
    text = IDENTITIES[0].to_text(secret=True)
    (home.path / "identity.secret").write_text(text)
    assert home.identity() == IDENTITIES[0]
    assert (home.path / "identity.secret").read_text() == text
    assert (home.path / "identity.public").read_text() == IDENTITIES[0].to_text()


def test_a_wrong_public_file_is_rewritten(home: Home) -> None:
    (home.path / "identity.secret").write_text(IDENTITIES[0].to_text(secret=True))
    (home.path / "identity.public").write_text(IDENTITIES[1].to_text())
    home.identity()
    assert (home.path / "identity.public").read_text() == IDENTITIES[0].to_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\xff\xfe\x00",
        IDENTITIES[0].to_text().encode(),
        b"0123456789" + IDENTITIES[0].to_text(secret=True).encode()[10:],
    ],
    ids=["empty", "text", "binary", "without secret", "another address"],
)
def test_a_corrupt_identity_names_its_file_and_is_not_replaced(home: Home, content: bytes) -> None:
    path = home.path / "identity.secret"
    path.write_bytes(content)
    with pytest.raises(HomeError, match=str(path)):
        home.identity()
    assert path.read_bytes() == content


# -- token and id --


def test_the_token_has_24_letters_and_digits_and_is_secret(home: Home) -> None:
    token = home.token()
    assert len(token) == 24
    assert token.isalnum()
    assert token == token.lower()
    assert mode(home.path / "authtoken.secret") == 0o600
    assert home.token() == token


def test_a_token_that_others_may_read_is_told(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    token = home.token()
    (home.path / "authtoken.secret").chmod(0o644)
    assert home.token() == token
    (record,) = caplog.records
    assert "chmod 600" in record.getMessage()
    assert token not in record.getMessage()


def test_whitespace_around_a_given_token_does_not_count(home: Home) -> None:
    (home.path / "authtoken.secret").write_text(" abc \n")
    assert home.token() == "abc"


def test_an_empty_token_is_refused(home: Home) -> None:
    (home.path / "authtoken.secret").write_text("\n")
    with pytest.raises(HomeError, match=r"authtoken\.secret: empty"):
        home.token()


def test_the_service_id_persists(home: Home) -> None:
    number = home.service_id()
    assert 0 < number < 1 << 64
    assert Home(home.path).service_id() == number


def test_a_corrupt_service_id_names_its_file(home: Home) -> None:
    (home.path / "service.id").write_text("zero")
    with pytest.raises(HomeError, match=r"service\.id"):
        home.service_id()


# -- settings --


def test_a_home_without_local_conf_has_the_defaults(home: Home) -> None:
    conf = home.local_conf()
    assert conf.settings.primaryPort is None
    assert conf.settings.allowSecondaryPort


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "Expected `object`"),
        ('{"settings": {"primaryPort": "9993"}}', r"\$\.settings\.primaryPort"),
        ('{"settings": {"primaryPort": 70000}}', r"settings\.primaryPort is 70000"),
        ('{"settings": {"bind": ["nowhere"]}}', r"settings\.bind: 'nowhere'"),
        ('{"physical": {"10.0.0.0/64": {}}}', r"physical: '10\.0\.0\.0/64'"),
        ('{"physical": {"10.0.0.0/8": {"trustedPathId": -1}}}', r"trustedPathId is -1"),
        ('{"virtual": {"me": {}}}', r"virtual: 'me'"),
        ('{"virtual": {"deadbeef01": {"try": ["host/1"]}}}', r"virtual\.deadbeef01\.try: 'host/1'"),
        ('{"virtual": {"deadbeef01": {"blacklist": ["x"]}}}', r"virtual\.deadbeef01\.blacklist: 'x'"),
    ],
)
def test_a_wrong_local_conf_names_file_and_key(home: Home, text: str, says: str) -> None:
    (home.path / "local.conf").write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        home.local_conf()
    assert str(home.path / "local.conf") in str(caught.value)


def test_settings_without_effect_are_told(home: Home) -> None:
    (home.path / "local.conf").write_text('{"settings": {"forceTcpRelay": true}}')
    assert home.local_conf().without_effect() == ["settings.forceTcpRelay"]


def test_physical_and_virtual_settings(home: Home) -> None:
    (home.path / "local.conf").write_text(
        """{"physical": {"10.0.0.0/24": {"blacklist": true}, "fd00::1/64": {"trustedPathId": 18446744073709551615, "mtu": 9000}},
            "virtual": {"deadbeef01": {"try": ["192.0.2.1/9993"], "blacklist": ["192.168.0.0/24"]}}}"""
    )
    conf = home.local_conf()
    assert conf.physical_networks() == [
        PhysicalNetwork(parse_prefix("10.0.0.0/24"), True),
        PhysicalNetwork(parse_prefix("fd00::/64"), False, 0xFFFFFFFFFFFFFFFF, 9000),
    ]
    assert conf.peer_hints() == {0xDEADBEEF01: PeerHints((parse_endpoint("192.0.2.1/9993"),), (parse_prefix("192.168.0.0/24"),))}
    assert conf.without_effect() == []


def test_the_old_file_of_trusted_paths(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    assert home.trusted_paths() == []
    (home.path / "trustedpaths").write_text("# ours\n1f = 10.1.0.0/16\nnonsense\n2=fd00::/8 # theirs\n")
    assert home.trusted_paths() == [
        PhysicalNetwork(parse_prefix("10.1.0.0/16"), trusted_path=0x1F),
        PhysicalNetwork(parse_prefix("fd00::/8"), trusted_path=2),
    ]
    assert "'nonsense' is not id=network/bits" in caplog.text


def test_network_settings_are_kept(home: Home) -> None:
    assert home.network_settings(NETWORK) == NetworkSettings()
    home.store_network_settings(NETWORK, NetworkSettings(default=True))
    text = (home.path / "networks.d" / f"{NETWORK:016x}.local.conf").read_text()
    assert text == "allowManaged=1\nallowGlobal=0\nallowDefault=1\nallowDNS=0\n"
    assert Home(home.path).network_settings(NETWORK) == NetworkSettings(default=True)


# -- networks and peers --


def test_a_folder_that_cannot_be_read_is_named(home: Home) -> None:
    for name in ("networks.d", "peers.d"):
        (home.path / name).rmdir()
        (home.path / name).touch()
    with pytest.raises(HomeError, match=r"networks\.d: .*; make it readable"):
        home.networks()
    with pytest.raises(HomeError, match=r"peers\.d: .*; make it readable"):
        list(home.peers())


def test_network_zero_is_none(home: Home) -> None:
    (home.path / "networks.d" / "0000000000000000.conf").touch()
    assert home.networks() == {}


def test_each_network_file_is_a_network_to_join(home: Home) -> None:
    folder = home.path / "networks.d"
    (folder / "701beb847c4a52c7.conf").write_bytes(b"v=7\nn=lab\n")
    (folder / "701beb847c4a52c8.conf").write_bytes(b"\n")
    (folder / "701beb847c4a52c9.conf").write_bytes(b"")
    for other in ("701beb847c4a52c7.local.conf", "701beb.conf", "xyz.conf"):
        (folder / other).write_bytes(b"")
    assert home.networks() == {NETWORK: b"v=7\nn=lab", NETWORK + 1: None, NETWORK + 2: None}


def test_cached_peers_older_than_30_days_are_removed(home: Home) -> None:
    home.store(StateKind.PEER, 0x0082915F5E, b"new")
    home.store(StateKind.PEER, 0x62F865AE71, b"old")
    old = home.path / "peers.d" / "62f865ae71.peer"
    long_ago = time.time() - 31 * 86400
    os.utime(old, (long_ago, long_ago))
    assert [(path.name, data) for path, data in home.peers()] == [("0082915f5e.peer", b"new")]
    assert not old.exists()


def test_the_peer_cache_is_bounded_and_the_newest_stay(home: Home) -> None:
    for number in range(5):
        home.store(StateKind.PEER, number + 1, b"peer")
        at = time.time() - 100 + number
        os.utime(home.path / "peers.d" / f"{number + 1:010x}.peer", (at, at))
    home.forget_old_peers(most=2)
    assert [path.name for path, _ in home.peers()] == ["0000000004.peer", "0000000005.peer"]


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [
        (StateKind.PLANET, 1, "planet"),
        (StateKind.MOON, 0xDEADBEEF00, "moons.d/000000deadbeef00.moon"),
        (StateKind.PEER, 0x82915F5E, "peers.d/0082915f5e.peer"),
        (StateKind.NETWORK, NETWORK, "networks.d/701beb847c4a52c7.conf"),
    ],
)
def test_what_the_engine_keeps_has_its_place(home: Home, kind: StateKind, key: int, name: str) -> None:
    home.store(kind, key, b"data")
    assert (home.path / name).read_bytes() == b"data"
    home.store(kind, key, None)
    assert not (home.path / name).exists()
    home.store(kind, key, None)


def test_a_write_that_fails_keeps_the_old_file_and_names_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("planet", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeError, match=r"planet: No space left"):
        home.write("planet", b"new")
    assert (home.path / "planet").read_bytes() == b"old"
    assert [path.name for path in home.path.glob(".*")] == []


def test_port_and_process_id_files_are_for_existing_clients(home: Home) -> None:
    home.announce(9993)
    assert (home.path / "zerotier-one.port").read_bytes() == b"9993"
    assert (home.path / "zerotier-one.pid").read_text() == str(os.getpid())
    home.withdraw()
    assert not (home.path / "zerotier-one.pid").exists()
    assert home.last_port() == 9993


def test_the_devicemap_names_a_networks_interface(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path / "home")
    assert home.device_name(0x8056C2E21C000001) is None
    (home.path / "devicemap").write_text("# names\n8056C2E21C000001 = lab0\n8056c2e21c000002=much-too-long-a-name\n")
    assert home.device_name(0x8056C2E21C000001) == "lab0"
    assert home.device_name(0x8056C2E21C000002) is None
    assert "not an interface name" in caplog.text


@pytest.mark.parametrize("text", ["9" * 5000, "99 93", "-1", ""])
def test_a_damaged_port_file_is_done_without(home: Home, text: str) -> None:
    """Thousands of digits stopped the start with a plain ValueError."""
    home.write("zerotier-one.port", text.encode())
    assert home.last_port() is None
