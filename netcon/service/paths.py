"""Where things are: the default home folder and the names inside it. Imports nothing heavy, for `netcon run` uses it."""

from __future__ import annotations

import os
from pathlib import Path

#: Longest path of an AF_UNIX socket, without the final NUL (unix(7)).
SOCKET_PATH_MAX = 107


def default_home() -> Path:
    """`$NETCON_HOME`; else `/var/lib/netcon` for root and `$XDG_DATA_HOME/netcon` for everyone else."""
    if given := os.environ.get("NETCON_HOME"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/netcon")
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "netcon"


def run_folder(home: Path) -> Path:
    """The 0700 folder of the service's sockets."""
    return home / "run"


def api_socket(home: Path) -> Path:
    return run_folder(home) / "api.sock"


def rpc_socket(home: Path, network: int | None = None) -> Path:
    """The socket RPC path of this home: with `network` as its default network, or for whichever fits the destination."""
    return run_folder(home) / ("netcon.sock" if network is None else f"{network:016x}.sock")


def well_known_sockets(network: int) -> list[Path]:
    """The paths at which programs with nothing but `ZT_NC_NWID` look, in the order in which they do."""
    folders = [Path("/tmp")]
    if (runtime := os.environ.get("XDG_RUNTIME_DIR")) and os.path.isdir(runtime):
        folders.append(Path(runtime))
    return [folder / f".ztnc_{network:016x}" for folder in folders]
