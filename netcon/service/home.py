"""The home folder (vl1 §7, service-api §1): identity, planet, token, caches, and the lock that makes it one service's.

Writes are atomic: a temporary file, fsync, rename. A corrupt file that a service cannot do without (identity, planet, token,
local.conf) is a HomeError that names it; a corrupt cache (peers.d, networks.d) is named in the log and done without.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import string
import time
from collections.abc import Iterator
from pathlib import Path

from netcon.core.actions import StateKind
from netcon.core.address import parse_prefix
from netcon.core.errors import NetconError
from netcon.core.identity import Identity
from netcon.core.physical import PhysicalNetwork
from netcon.service.errors import HomeError, HomeInUseError
from netcon.service.paths import SOCKET_PATH_MAX, rpc_socket, run_folder
from netcon.service.settings import LocalConf, NetworkSettings, parse_local_conf

log = logging.getLogger("netcon.home")

_PEER_CACHE_SECONDS = 30 * 86400  # vl1 §7
_PEER_CACHE_MOST = 16_384
_TOKEN_CHARACTERS = string.ascii_lowercase + string.digits
_TOKEN_LENGTH = 24
_TEMPORARY = ".netcon-tmp"
_NETWORK_FILE = re.compile(r"([0-9a-f]{16})\.conf")
_MOON_FILE = re.compile(r"([0-9a-f]{16})\.moon")
_SEED_FILE = re.compile(r"([0-9a-f]{16})\.seed")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_PEER_FILE = re.compile(r"([0-9a-f]{10})\.peer")


class Home:
    """One home folder, created if it is missing. `lock` before anything is written."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None
        longest = len(os.fsencode(rpc_socket(self.path, 0)))
        if longest > SOCKET_PATH_MAX:
            raise HomeError(
                f"{self.path}: too long a path: its sockets' names may have {SOCKET_PATH_MAX} bytes and would have {longest}; "
                "use a shorter one"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder, mode in ((self.path / "networks.d", 0o755), (self.path / "peers.d", 0o755), (run_folder(self.path), 0o700)):
                folder.mkdir(exist_ok=True, mode=mode)
            run_folder(self.path).chmod(0o700)
        except OSError as error:
            raise HomeError(f"{error.filename or self.path}: {error.strerror}; give a home folder that you may write to") from None

    # -- the lock --

    def lock(self) -> None:
        """Make the folder this process's until it ends. HomeInUseError."""
        path = self.path / "netcon.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(f"{path}: {error.strerror}; give a home folder that you may write to") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise HomeInUseError(
                f"{self.path}: another service (process {owner}) uses this home folder; stop it, or give another home folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor
        for folder in (self.path, *(self.path / name for name in ("networks.d", "peers.d", "moons.d"))):
            for left in folder.glob(f"*{_TEMPORARY}"):  # of a service that was killed
                left.unlink(missing_ok=True)

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- files --

    def write(self, name: str, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
        """Replace file `name` as a whole; from any thread. With `durable` it survives a power cut."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(descriptor)
            temporary.replace(target)
            if durable:
                folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise HomeError(f"{target}: {error.strerror}; check the space and the permissions of the home folder") from None

    def read(self, name: str) -> bytes | None:
        """The content of file `name`, None if there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeError(f"{self.path / name}: {error.strerror}; make it readable for user id {os.geteuid()}") from None

    def _files(self, folder: str) -> list[Path]:
        try:
            return sorted((self.path / folder).iterdir())
        except OSError as error:
            raise HomeError(f"{self.path / folder}: {error.strerror}; make it readable for user id {os.geteuid()}") from None

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _read_text(self, name: str) -> str | None:
        data = self.read(name)
        if data is None:
            return None
        try:
            return data.decode("ascii").strip()
        except UnicodeDecodeError:
            raise HomeError(f"{self.path / name}: corrupt, not text; restore it, or remove it to have a new one made") from None

    # -- identity and secrets --

    def identity(self) -> Identity:
        """The identity of `identity.secret`, checked in full; a new one if there is none (up to a second of work)."""
        path = self.path / "identity.secret"
        text = self._read_text("identity.secret")
        if text is None:
            identity = Identity.generate(secrets.token_bytes)
            self.write("identity.secret", identity.to_text(secret=True).encode(), 0o600)
        else:
            advice = "restore it from a copy, or remove it and identity.public to become a new node"
            try:
                identity = Identity.parse(text)
            except NetconError as error:
                raise HomeError(f"{path}: not an identity ({error}); {advice}") from None
            if identity.secret is None:
                raise HomeError(f"{path}: has no secret part; {advice}")
            if not identity.validate():
                raise HomeError(f"{path}: its address does not belong to its key; {advice}")
            if path.stat().st_mode & 0o077:
                log.warning("%s can be read by others: chmod 600 it", path)
        public = identity.to_text()
        if self._read_text("identity.public") != public:
            self.write("identity.public", public.encode())
        return identity

    def token(self) -> str:
        """The API token of `authtoken.secret`, made if missing."""
        text = self._read_text("authtoken.secret")
        if text is None:
            text = "".join(secrets.choice(_TOKEN_CHARACTERS) for _ in range(_TOKEN_LENGTH))
            self.write("authtoken.secret", text.encode(), 0o600)
        elif not text:
            raise HomeError(f"{self.path / 'authtoken.secret'}: empty; remove it to have a new token made")
        elif (self.path / "authtoken.secret").stat().st_mode & 0o077:
            log.warning("%s can be read by others: chmod 600 it", self.path / "authtoken.secret")
        return text

    def service_id(self) -> int:
        """The random 64-bit number that names this home to socket RPC, made once."""
        text = self._read_text("service.id")
        if text is None:
            number = secrets.randbits(64) or 1
            self.write("service.id", f"{number:016x}\n".encode(), 0o600)
            return number
        if not re.fullmatch(r"[0-9a-f]{16}", text):
            raise HomeError(f"{self.path / 'service.id'}: not 16 hexadecimal digits; remove it to have a new one made")
        return int(text, 16)

    # -- settings --

    def local_conf(self) -> LocalConf:
        path = self.path / "local.conf"
        text = self.read("local.conf")
        return LocalConf() if text is None else parse_local_conf(text, path)

    def trusted_paths(self) -> list[PhysicalNetwork]:
        """The old file `trustedpaths`: lines of `id=network/bits`, the id in hexadecimal digits (vl1 §7)."""
        found = []
        for line in (self._read_text("trustedpaths") or "").splitlines():
            text = line.partition("#")[0].strip()
            if not text:
                continue
            number, _, net = (part.strip() for part in text.partition("="))
            try:
                found.append(PhysicalNetwork(parse_prefix(net), trusted_path=int(number, 16) & (1 << 64) - 1))
            except (ValueError, NetconError):
                log.warning("%s: %r is not id=network/bits, ignored", self.path / "trustedpaths", line)
        return found

    def device_name(self, network: int) -> str | None:
        """The name for a network's interface in the file `devicemap`: lines of `nwid=ifname` (vl2 §6.7)."""
        for line in (self._read_text("devicemap") or "").splitlines():
            key, separator, name = (part.strip() for part in line.partition("="))
            if separator and key.lower() == f"{network:016x}" and not line.lstrip().startswith("#"):
                if _INTERFACE_NAME.fullmatch(name):
                    return name
                log.warning("%s: %r is not an interface name of at most 15 characters, ignored", self.path / "devicemap", name)
        return None

    def network_settings(self, network: int) -> NetworkSettings:
        name = f"networks.d/{network:016x}.local.conf"
        text = self._read_text(name)
        return NetworkSettings() if text is None else NetworkSettings.parse(text, self.path / name)

    def store_network_settings(self, network: int, settings: NetworkSettings) -> None:
        self.write(f"networks.d/{network:016x}.local.conf", settings.to_text().encode())

    # -- what the engine keeps --

    def networks(self) -> dict[int, bytes | None]:
        """The networks to join at start, each with its cached configuration if there is one (vl2 §6.5)."""
        found: dict[int, bytes | None] = {}
        for path in self._files("networks.d"):
            if (match := _NETWORK_FILE.fullmatch(path.name)) and (network := int(match[1], 16)):  # 0 names none
                found[network] = (self.read(f"networks.d/{path.name}") or b"").strip(b"\n") or None
        return found

    def moons(self) -> Iterator[tuple[int, bytes]]:
        """Ids and files of the moons to orbit at start (vl1 §7)."""
        folder = self.path / "moons.d"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (match := _MOON_FILE.fullmatch(path.name)) and (data := self.read(f"moons.d/{path.name}")) is not None:
                yield int(match[1], 16), data

    def moon_seeds(self) -> Iterator[tuple[int, int]]:
        """Moons that we wait for, and whom we ask for them."""
        folder = self.path / "moons.d"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if match := _SEED_FILE.fullmatch(path.name):
                text = self._read_text(f"moons.d/{path.name}") or ""
                if re.fullmatch(r"[0-9a-f]{10}", text):
                    yield int(match[1], 16), int(text, 16)
                else:
                    log.warning("%s: not a node address, ignored; orbit the moon again", path)

    def moon(self, moon: int) -> bytes | None:
        return self.read(f"moons.d/{moon:016x}.moon")

    def peers(self) -> Iterator[tuple[Path, bytes]]:
        """Cached peers, after `forget_old_peers`."""
        self.forget_old_peers()
        for path in self._files("peers.d"):
            if _PEER_FILE.fullmatch(path.name) and (data := self.read(f"peers.d/{path.name}")) is not None:
                yield path, data

    def forget_old_peers(self, most: int = _PEER_CACHE_MOST) -> None:
        """Remove cached peers older than 30 days (vl1 §7), and the oldest beyond `most`: anybody can become a peer."""
        dated: list[tuple[float, Path]] = []
        for path in self._files("peers.d"):
            if _PEER_FILE.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    dated.append((path.stat().st_mtime, path))
        dated.sort(reverse=True)
        oldest = time.time() - _PEER_CACHE_SECONDS
        for number, (modified, path) in enumerate(dated):
            if number >= most or modified < oldest:
                path.unlink(missing_ok=True)

    def join_token(self, network: int) -> str:
        """The secret that a network is still to be joined by; empty if there is none."""
        return self._read_text(f"networks.d/{network:016x}.token") or ""

    def store(self, kind: StateKind, key: int, data: bytes | None) -> None:
        """Write or (None) delete an object of the engine."""
        mode = 0o644
        match kind:
            case StateKind.PLANET:
                name, durable = "planet", True
            case StateKind.MOON:
                name, durable = f"moons.d/{key:016x}.moon", True
            case StateKind.MOON_SEED:
                name, durable = f"moons.d/{key:016x}.seed", True
            case StateKind.PEER:
                name, durable = f"peers.d/{key:010x}.peer", False
            case StateKind.NETWORK:
                name, durable = f"networks.d/{key:016x}.conf", True
            case StateKind.JOIN_TOKEN:
                name, durable, mode = f"networks.d/{key:016x}.token", True, 0o600
        if data is None:
            self.remove(name)
        else:
            self.write(name, data, mode, durable=durable)

    # -- what others look for --

    def announce(self, port: int) -> None:
        """Write the port and process id files that clients of ZeroTier One look for."""
        self.write("zerotier-one.port", str(port).encode(), durable=False)
        self.write("zerotier-one.pid", str(os.getpid()).encode(), durable=False)

    def last_port(self) -> int | None:
        """The primary port of the last start."""
        text = (self.read("zerotier-one.port") or b"").decode("ascii", "replace")
        return int(text) if re.fullmatch("[0-9]{1,5}", text) else None

    def withdraw(self) -> None:
        with contextlib.suppress(OSError):
            self.remove("zerotier-one.pid")
