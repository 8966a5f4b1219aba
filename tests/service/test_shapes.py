"""JSON objects of the local API that no running network of the other tests shows (service-api §3.4)."""

from __future__ import annotations

from netcon.core.address import Endpoint
from netcon.core.netconf import NetworkConfig, SingleSignOn
from netcon.core.network import NetworkStatus, State
from netcon.service.settings import NetworkSettings
from netcon.service.shapes import network_object

NETWORK = 0x701BEB847C4A52C7
SIGN_ON = {"ssoEnabled", "authenticationURL", "authenticationExpiryTime"}


def shape(state: State, config: NetworkConfig | None = None, url: str = "") -> dict[str, object]:
    status = NetworkStatus(NETWORK, bytes(6), state, config, False, (), url)
    return network_object(status, NetworkSettings(addresses=(Endpoint(bytes((10, 1, 2, 3)), 24),)), "lwip", "ztabc")


def test_a_network_without_sign_on_says_nothing_of_it() -> None:
    for state in (State.OK, State.ACCESS_DENIED, State.REQUESTING_CONFIGURATION):
        assert not SIGN_ON & shape(state, NetworkConfig(NETWORK, 1)).keys()


def test_a_controller_that_wants_a_sign_on_before_anything_else() -> None:
    found = shape(State.AUTHENTICATION_REQUIRED, url="https://login.example/x")
    assert found["status"] == "AUTHENTICATION_REQUIRED"
    assert {key: found[key] for key in SIGN_ON} == {
        "ssoEnabled": True,
        "authenticationURL": "https://login.example/x",
        "authenticationExpiryTime": 0,
    }


def test_a_sign_on_that_is_done_and_until_when() -> None:
    sso = SingleSignOn(enabled=True, login_url="https://login.example/y", expiry=1_700_000_000_000)
    found = shape(State.OK, NetworkConfig(NETWORK, 1, sso=sso))
    assert (found["authenticationURL"], found["authenticationExpiryTime"]) == ("https://login.example/y", 1_700_000_000_000)


def test_addresses_added_by_hand_are_told_apart() -> None:
    found = shape(State.OK, NetworkConfig(NETWORK, 1, addresses=(Endpoint(bytes((10, 9, 0, 7)), 16),)))
    assert (found["assignedAddresses"], found["localAddresses"]) == (["10.9.0.7/16"], ["10.1.2.3/24"])
