"""The HTTP API as existing clients know it (service-api §2 to §4), over its real sockets."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.running import RunningService, World
from tests.service.support import IDENTITIES

NETWORK = "1234567890abcdef"
STRANGER = "0082915f5e"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    world = World(tmp_path_factory.mktemp("api"), 0)
    with RunningService(world.root_home) as running:
        yield running


@pytest.fixture(scope="module")
def port(service: RunningService) -> int:
    return int((service.home / "zerotier-one.port").read_text())


@pytest.fixture(scope="module")
def token(service: RunningService) -> str:
    return (service.home / "authtoken.secret").read_text()


@pytest.fixture
def http(port: int, token: str) -> Iterator[httpx.Client]:
    """As existing clients come: TCP, with the token."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-ZT1-Auth": token}, trust_env=False) as client:
        yield client


def raw(port: int, request: bytes) -> bytes:
    """What comes back for bytes that no HTTP library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# -- who may ask --


def test_the_unix_socket_needs_no_token_but_is_its_owners_alone(service: RunningService) -> None:
    path = service.home / "run" / "api.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert service.client.get("/status")["address"] == f"{IDENTITIES[0].address:010x}"


@pytest.mark.parametrize(
    "headers",
    [{"X-ZT1-Auth": "{}"}, {"x-zt1-auth": "{}"}, {"Authorization": "Bearer {}"}, {"authorization": "bearer {}"}],
)
def test_the_token_may_come_in_a_header(port: int, token: str, headers: dict[str, str]) -> None:
    filled = {name: value.format(token) for name, value in headers.items()}
    assert httpx.get(f"http://127.0.0.1:{port}/status", headers=filled).status_code == 200


def test_the_token_may_come_in_the_query(port: int, token: str) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}/status?auth={token}").status_code == 200


@pytest.mark.parametrize("path", ["/status", "/network", "/controller/network", "/nowhere", "/config"])
def test_without_the_token_nothing_is_told(port: int, path: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}")
    assert (answer.status_code, answer.text) == (401, "{}")


@pytest.mark.parametrize("wrong", ["", "wrong", "x" * 24, "é" * 24])
def test_a_wrong_token_is_refused(port: int, wrong: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/status", headers={"X-ZT1-Auth": wrong.encode()})
    assert (answer.status_code, answer.text) == (401, "{}")


def test_only_the_first_credential_is_examined(port: int, token: str) -> None:
    headers = {"X-ZT1-Auth": "wrong", "Authorization": f"Bearer {token}"}
    assert httpx.get(f"http://127.0.0.1:{port}/status?auth={token}", headers=headers).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "127.0.0.1:9993", "[::1]:9993"])
def test_hosts_of_this_machine_are_accepted(http: httpx.Client, host: str) -> None:
    assert http.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:9993", "10.0.0.1", ""])
def test_another_host_is_refused_even_with_the_token(http: httpx.Client, host: str) -> None:
    answer = http.get("/status", headers={"Host": host})
    assert (answer.status_code, answer.text) == (401, "{}")


def test_health_needs_no_token_but_a_host_of_this_machine(port: int) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/health")
    assert answer.status_code == 200
    assert answer.json()["online"] is True
    assert httpx.get(f"http://127.0.0.1:{port}/health", headers={"Host": "evil.example"}).status_code == 401


def test_the_tcp_port_is_reached_from_this_machine_only(service: RunningService, port: int) -> None:
    lines = Path(f"/proc/{service.process.pid}/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


# -- conventions --


def test_answers_are_compact_json_with_sorted_keys(http: httpx.Client) -> None:
    answer = http.get("/status")
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.text == json.dumps(answer.json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    "path",
    ["/", "/nowhere", "/network/123", f"/network/{NETWORK}0", "/network/123456789012345x", "/peer/123", "/controller/network/12"],
)
def test_a_path_that_names_nothing_is_404_with_an_empty_body(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (404, b"")


def test_jsonp_wraps_the_answer(http: httpx.Client) -> None:
    answer = http.get("/network?jsonp=callback")
    assert answer.text == "callback([]);"
    assert answer.headers["content-type"].startswith("application/javascript")


def test_jsonp_takes_names_only(http: httpx.Client) -> None:
    assert http.get("/network?jsonp=alert(1)//").text == "[]"


def test_a_post_without_length_or_body_is_taken_as_empty(service: RunningService, port: int, token: str) -> None:
    head = f"POST /network/{NETWORK} HTTP/1.1\r\nHost: localhost\r\nX-ZT1-Auth: {token}\r\nConnection: close\r\n\r\n"
    answer = raw(port, head.encode())
    assert answer.startswith(b"HTTP/1.1 200")
    service.client.delete(f"/network/{NETWORK}")


def test_a_body_too_large_is_413(http: httpx.Client) -> None:
    assert http.post("/controller/network", content=b" " * (5 << 20)).status_code == 413


@pytest.mark.parametrize(
    "request_bytes", [b"garbage\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000]
)
def test_bad_http_harms_nobody_else(http: httpx.Client, port: int, request_bytes: bytes) -> None:
    assert b" 200" not in raw(port, request_bytes)[:20]
    assert http.get("/status").status_code == 200


# -- node --


def test_status(http: httpx.Client, service: RunningService, port: int) -> None:
    status = http.get("/status").json()
    assert status["address"] == f"{IDENTITIES[0].address:010x}"
    assert status["publicIdentity"] == IDENTITIES[0].to_text()
    assert status["online"] is True
    assert status["version"] == f"{status['versionMajor']}.{status['versionMinor']}.{status['versionRev']}"
    assert status["planetWorldId"] == 0x7E57
    assert set(status) == {
        *("address", "publicIdentity", "online", "tcpFallbackActive", "versionMajor", "versionMinor", "versionRev", "versionBuild"),
        *("version", "clock", "planetWorldId", "planetWorldTimestamp", "config"),
    }
    settings = status["config"]["settings"]
    assert settings["primaryPort"] == port
    assert settings["listeningOn"] == [f"127.0.0.1/{port}"]
    assert settings["homeDir"] == str(service.home)
    for key in ("allowTcpFallbackRelay", "portMappingEnabled", "softwareUpdate", "softwareUpdateChannel", "surfaceAddresses"):
        assert key in settings


def test_config_is_the_file_and_settings_are_stored_in_it(http: httpx.Client, service: RunningService) -> None:
    before = http.get("/config").json()
    assert before == json.loads((service.home / "local.conf").read_text())
    assert http.post("/config/settings", json={"interfacePrefixBlacklist": ["wlan"]}).json() == {}
    text = (service.home / "local.conf").read_text()
    assert json.loads(text)["settings"] == {**before["settings"], "interfacePrefixBlacklist": ["wlan"]}
    assert '\n    "settings"' in text


def test_settings_that_cannot_be_used_are_not_stored(http: httpx.Client, service: RunningService) -> None:
    before = (service.home / "local.conf").read_text()
    answer = http.post("/config/settings", json={"primaryPort": "many"})
    assert answer.status_code == 400
    assert "primaryPort" in answer.json()["description"]
    assert (service.home / "local.conf").read_text() == before


def test_moons(http: httpx.Client) -> None:
    assert http.get("/moon").json() == []
    assert http.get("/moon/0123456789").status_code == 404
    waiting = {
        "id": "0000000123456789",
        "roots": [],
        "timestamp": 0,
        "signature": None,
        "updatesMustBeSignedBy": None,
        "waiting": True,
    }
    assert http.post("/moon/0123456789", json={"seed": STRANGER}).json() == waiting
    assert http.get("/moon").json() == [waiting]
    assert http.get("/moon/0000000123456789").json() == http.post("/moon/0000000123456789").json() == waiting
    assert http.delete("/moon/0123456789").json() == {"result": True}
    assert http.get("/moon").json() == []
    refused = http.post("/moon/0123456789", json={})
    assert (refused.status_code, "give a seed" in refused.text) == (400, True)
    assert http.post("/moon/123", json={"seed": STRANGER}).status_code == 404


# -- networks --

NETWORK_FIELDS = {
    *("id", "nwid", "name", "mac", "status", "type", "mtu", "dhcp", "bridge", "broadcastEnabled", "portError", "netconfRevision"),
    *("portDeviceName", "allowManaged", "allowGlobal", "allowDefault", "allowDNS", "assignedAddresses", "routes"),
    *("multicastSubscriptions", "dns"),
}


def test_join_and_leave(http: httpx.Client, service: RunningService) -> None:
    assert http.get("/network").json() == []
    joined = http.post(f"/network/{NETWORK.upper()}", json={}).json()
    assert set(joined) == NETWORK_FIELDS | {"port", "localAddresses"}  # ours: the kind of port, and addresses added by hand
    assert joined["id"] == joined["nwid"] == NETWORK
    assert joined["status"] == "REQUESTING_CONFIGURATION"
    assert joined["type"] == "PRIVATE"
    assert joined["name"] == ""
    assert joined["portDeviceName"].startswith("zt")
    assert len(joined["portDeviceName"]) == 10
    assert joined["assignedAddresses"] == joined["routes"] == []
    assert joined["dns"] == {"domain": "", "servers": []}
    assert http.get(f"/network/{NETWORK}").json() == joined
    assert http.get("/network").json() == [joined]
    assert (service.home / "networks.d" / f"{NETWORK}.conf").exists()
    assert (service.home / "run" / f"{NETWORK}.sock").exists()

    assert http.delete(f"/network/{NETWORK}").json() == {"result": True}
    assert http.get("/network").json() == []
    assert not (service.home / "run" / f"{NETWORK}.sock").exists()
    assert http.delete(f"/network/{NETWORK}").json() == {}
    assert http.get(f"/network/{NETWORK}").status_code == 404


def test_network_settings_take_real_booleans_only(http: httpx.Client, service: RunningService) -> None:
    joined = http.put(f"/network/{NETWORK}", json={"allowGlobal": True, "allowDefault": 1, "allowDNS": "true"}).json()
    assert (joined["allowManaged"], joined["allowGlobal"], joined["allowDefault"], joined["allowDNS"]) == (True, True, False, False)
    text = (service.home / "networks.d" / f"{NETWORK}.local.conf").read_text()
    assert text == "allowManaged=1\nallowGlobal=1\nallowDefault=0\nallowDNS=0\n"
    http.delete(f"/network/{NETWORK}")


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff"])
def test_an_invalid_body_of_join_is_ignored(http: httpx.Client, body: bytes) -> None:
    assert http.post(f"/network/{NETWORK}", content=body).json()["id"] == NETWORK
    http.delete(f"/network/{NETWORK}")


def test_network_zero_is_none(http: httpx.Client) -> None:
    answer = http.post("/network/" + "0" * 16, json={})
    assert answer.status_code == 400
    assert "names no network" in answer.json()["description"]
    assert http.get("/network/" + "0" * 16).status_code == 404


def test_a_body_nested_too_deep_is_400(http: httpx.Client) -> None:
    answer = http.post("/controller/network", content=b"[" * 200_000)
    assert answer.status_code == 400


def test_an_unknown_peer_is_an_empty_object(http: httpx.Client) -> None:
    answer = http.get(f"/peer/{STRANGER}")
    assert (answer.status_code, answer.json()) == (200, {})
    assert http.get("/peer").json() == []


# -- controller --


def test_controller_overview_is_indented_with_tabs_in_its_own_order(http: httpx.Client) -> None:
    text = http.get("/controller").text
    assert text.startswith('{\n\t"controller": true,\n\t"apiVersion": 4,\n\t"clock": ')
    assert text.endswith(',\n\t"databaseReady": true\n}\n')


@pytest.fixture
def network(http: httpx.Client) -> Iterator[dict[str, Any]]:
    """As web interfaces make one: the address and six underscores."""
    address = http.get("/status").json()["address"]
    record = http.post(f"/controller/network/{address}______", json={"name": "x", "private": True}).json()
    yield record
    http.delete(f"/controller/network/{record['id']}")


def test_web_interfaces_make_networks_with_six_underscores(http: httpx.Client, network: dict[str, Any]) -> None:
    assert network["id"] == network["nwid"]
    assert network["id"].startswith(f"{IDENTITIES[0].address:010x}")
    assert (network["name"], network["private"], network["mtu"], network["revision"]) == ("x", True, 2800, 1)
    assert (network["authTokens"], network["dns"]) == ([None], [])
    assert http.get("/controller/network").json() == [network["id"]]
    assert http.get(f"/controller/network/{network['id']}").json() == network


def test_networks_of_another_controller_are_not_made(http: httpx.Client) -> None:
    assert http.post(f"/controller/network/{STRANGER}______", json={}).status_code == 400


def test_the_sequence_of_a_web_interface(http: httpx.Client, network: dict[str, Any]) -> None:
    path = f"/controller/network/{network['id']}"
    pool = {
        "routes": [{"target": "10.9.0.0/24", "via": None}],
        "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.254"}],
        "v4AssignMode": {"zt": True},
    }
    changed = http.post(path, json=pool).json()
    assert changed["routes"] == pool["routes"]
    assert changed["revision"] == 2
    assert http.get(f"{path}/member").json() == {}
    member = http.post(f"{path}/member/{STRANGER}", json={"authorized": True}).json()
    assert (member["id"], member["address"], member["nwid"]) == (STRANGER, STRANGER, network["id"])
    assert member["authorized"] is True
    assert member["lastAuthorizedCredentialType"] == "api"
    assert http.get(f"{path}/member").json() == {STRANGER: member["revision"]}
    changed = http.put(f"{path}/member/{STRANGER}", json={"ipAssignments": ["10.9.0.7"]}).json()
    assert changed["ipAssignments"] == ["10.9.0.7"]
    assert http.get(f"{path}/member/{STRANGER}").json() == changed
    assert http.delete(f"{path}/member/{STRANGER}").json() == changed
    assert http.get(f"{path}/member/{STRANGER}").status_code == 404
    assert http.delete(path).json()["id"] == network["id"]
    assert http.get(path).status_code == 404
    assert http.delete(path).status_code == 404


def test_a_record_survives_in_the_store_before_its_answer(
    http: httpx.Client, service: RunningService, network: dict[str, Any]
) -> None:
    import sqlite3

    with sqlite3.connect(f"file:{service.home}/controller.d/controller.sqlite3?mode=ro", uri=True) as store:
        rows = store.execute("SELECT value FROM records WHERE kind = 'network' AND key = ?", (network["id"],)).fetchall()
    store.close()
    assert json.loads(rows[0][0]) == network


def test_unstable_lists_of_records(http: httpx.Client, network: dict[str, Any]) -> None:
    http.post(f"/controller/network/{network['id']}/member/{STRANGER}", json={"authorized": "true"})
    networks = http.get("/unstable/controller/network").json()
    assert networks["meta"] == {"networkCount": 1}
    assert networks["data"][0]["meta"] == {"totalMemberCount": 1, "authorizedMemberCount": 1}
    members = http.get(f"/unstable/controller/network/{network['id']}/member").json()
    assert members["meta"] == {"totalCount": 1, "authorizedCount": 1}
    assert members["data"][0]["id"] == STRANGER


def test_a_body_that_is_not_json_is_400_and_an_empty_one_is_nothing(http: httpx.Client, network: dict[str, Any]) -> None:
    path = f"/controller/network/{network['id']}"
    assert http.post(path, content=b"{").status_code == 400
    assert http.post(path, content=b"[]").status_code == 400
    assert http.post(path, content=b"").json() == network


def test_unknown_networks_and_members_are_404(http: httpx.Client) -> None:
    for method, path in (
        ("GET", f"/controller/network/{NETWORK}"),
        ("DELETE", f"/controller/network/{NETWORK}"),
        ("GET", f"/controller/network/{NETWORK}/member"),
        ("GET", f"/controller/network/{NETWORK}/member/{STRANGER}"),
        ("POST", f"/controller/network/{NETWORK}/member/{STRANGER}"),
        ("GET", f"/unstable/controller/network/{NETWORK}/member"),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.content) == (404, b""), path


def test_a_path_that_names_no_network_or_capture_is_not_our_failure(http: httpx.Client) -> None:
    """Both were a 500."""
    answer = http.get("/names/10.1.2.3", params={"network": "none"})
    assert answer.status_code == 400
    assert "network id" in answer.json()["description"]
    assert http.get("/capture/" + "9" * 5000).status_code == 404
