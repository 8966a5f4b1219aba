"""The host's name servers as resolv.conf(5) names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from netcon.service.resolv_conf import host_name_servers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# a remark\nsearch lan\nnameserver 192.0.2.53\nnameserver\t2001:db8::53 # two\noptions edns0\n",
            "192.0.2.53 2001:db8::53",
        ),
        ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nnameserver 127.0.0.53\n", "127.0.0.53"),
        ("", "127.0.0.1 ::1"),
        ("nameserver \xff\n", "127.0.0.1 ::1"),
    ],
)
def test_which_they_are(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(text.encode("latin-1"))
    assert " ".join(map(str, host_name_servers(path))) == expected


def test_without_the_file_they_are_on_this_machine(tmp_path: Path) -> None:
    assert " ".join(map(str, host_name_servers(tmp_path / "none"))) == "127.0.0.1 ::1"
