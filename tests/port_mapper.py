"""miniupnpd, as home routers have it, in a NAT box of a test: it maps ports by NAT-PMP or UPnP. Needs the packages miniupnpd and
miniupnpd-nftables."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.netns_hosts import Host
from tests.service.running import wait_until

#: The chains that it fills.
_CHAINS = """
table inet mapped {
    chain ports { }
    chain prerouting { type nat hook prerouting priority dstnat; jump ports_in; }
    chain postrouting { type nat hook postrouting priority srcnat; jump ports_out; }
    chain ports_in { }
    chain ports_out { }
}
"""
_SETTINGS = """
upnp_table_name=mapped
upnp_nat_table_name=mapped
upnp_forward_chain=ports
upnp_nat_chain=ports_in
upnp_nat_postrouting_chain=ports_out
min_lifetime=1
uuid=00000000-0000-0000-0000-000000000001
ipv6_disable=yes
"""


@contextlib.contextmanager
def maps_ports(box: Host, outside: str, inside: str, how: str) -> Iterator[None]:
    """`box` maps ports of `outside` for whoever asks from `inside`, by `how`: natpmp or upnp."""
    folder = Path(tempfile.mkdtemp(prefix="netcon-miniupnpd-"))
    box.nft(_CHAINS)
    ways = "".join(f"enable_{way}={'yes' if way == how else 'no'}\n" for way in ("natpmp", "upnp"))
    (folder / "conf").write_text(f"ext_ifname={outside}\nlistening_ip={inside}\n{ways}{_SETTINGS}")
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [*box.inside(), "/usr/sbin/miniupnpd", "-d", "-f", str(folder / "conf"), "-P", str(folder / "pid")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        port = ":5351 " if how == "natpmp" else ":1900 "
        wait_until(lambda: daemon.poll() is not None or port in box.run("ss", "-Hlun"), "miniupnpd", 30)
        assert daemon.poll() is None, (folder / "log").read_text()
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
        shutil.rmtree(folder)


def mapped_ports(box: Host) -> list[str]:
    """The rules that are there for them."""
    return [line.strip() for line in box.run("nft", "list", "chain", "inet", "mapped", "ports_in").splitlines() if "dnat" in line]
