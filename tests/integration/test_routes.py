"""Addresses added by hand, routes by a member, and members that are put out: with unmodified programs (vl2 §6.7, §7.5)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from netcon.cli.main import main
from tests.integration.lab import Lab, running_lab
from tests.integration.programs import output, run, server, wait_for_port
from tests.service.running import RunningService, wait_until

PAGE = b"by way of the gateway\n"
CUT_OFF_S = 10.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Member a serves a page; the network has a route to 192.168.77.0/24 by it."""
    folder = tmp_path_factory.mktemp("routes")
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_bytes(PAGE)
    with running_lab(folder) as lab:
        path = f"/controller/network/{lab.network}"
        routes = lab.root.client.get(path)["routes"]
        lab.root.client.post(path, {"routes": [*routes, {"target": "192.168.77.0/24", "via": lab.address}]})
        log = folder / "log"
        with server(
            lab.a, lab.network, "python3", "-m", "http.server", "--bind", "0.0.0.0", "-d", str(folder / "site"), "80", log=log
        ):
            wait_for_port(lab.b, lab.network, lab.address, 80)
            yield lab


def netcon(service: RunningService, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["-D", str(service.home), *words])
    assert result.exit_code == code, result.output
    return result.output


def get(lab: Lab, ip: str) -> bytes:
    return output(lab.b, lab.network, "curl", "-sS", "--fail", "--max-time", "20", f"http://{ip}/")


def test_an_address_added_by_hand_is_reached(gateway: Lab) -> None:
    netcon(gateway.a, "addresses", "add", gateway.network, "10.147.0.250/24", "10.147.0.251/24")
    for ip in ("10.147.0.250", "10.147.0.251", gateway.address):
        assert get(gateway, ip) == PAGE
    rows = [line.split(maxsplit=1) for line in netcon(gateway.a, "addresses", "list", gateway.network).splitlines()]
    assert [f"{gateway.address}/24", "controller"] in rows
    assert ["10.147.0.250/24", "by hand"] in rows
    netcon(gateway.a, "addresses", "remove", gateway.network, "10.147.0.250/24")
    assert gateway.a.client.get(f"/network/{gateway.network}")["localAddresses"] == ["10.147.0.251/24"]
    assert b"curl: (" in run(gateway.b, gateway.network, "curl", "-sS", "--max-time", "1", "http://10.147.0.250/").stderr
    assert "was not added" in netcon(gateway.a, "addresses", "remove", gateway.network, "10.147.0.250/24", code=1)
    assert "is not joined" in netcon(gateway.a, "addresses", "list", "1122334455112233", code=1)


def test_a_route_leads_by_a_member(gateway: Lab) -> None:
    """192.168.77.5 is on no network of b's: its packets go to the gateway that the controller names, which has that address."""
    netcon(gateway.a, "addresses", "add", gateway.network, "192.168.77.5/32")
    wait_until(
        lambda: any(route["via"] == gateway.address for route in gateway.b.client.get(f"/network/{gateway.network}")["routes"]),
        "the route",
    )
    assert get(gateway, "192.168.77.5") == PAGE


@pytest.mark.parametrize("text", ["10.1.2.3", "nonsense/24", "10.1.2.3/33"])
def test_what_is_no_address_is_refused(gateway: Lab, text: str) -> None:
    assert "10.1.2.3/24" in netcon(gateway.a, "addresses", "add", gateway.network, text, code=2)


def test_a_member_that_is_put_out_is_cut_off_and_comes_back(gateway: Lab) -> None:
    assert get(gateway, gateway.address) == PAGE
    member = f"/controller/network/{gateway.network}/member/{gateway.a.address}"
    start = time.monotonic()
    gateway.root.client.post(member, {"authorized": False})
    while run(gateway.b, gateway.network, "curl", "-sS", "--max-time", "1", f"http://{gateway.address}/").returncode == 0:
        assert time.monotonic() - start < CUT_OFF_S
    gateway.root.client.post(member, {"authorized": True})
    wait_until(
        lambda: run(gateway.b, gateway.network, "curl", "-sS", "--max-time", "2", f"http://{gateway.address}/").returncode == 0,
        "the member to be back",
    )
