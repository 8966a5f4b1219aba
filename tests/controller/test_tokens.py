"""Join tokens: who they let in, how often, until when, and that they outlive a crash (vl2 §7.1 step 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from netcon.controller import Controller, CorruptStore, InvalidRequest, UnknownNetwork, UnknownToken
from netcon.controller.tokens import MAXIMUM_TOKENS, TokenBook
from netcon.core.netconf import request_metadata
from tests.controller.lab import METADATA, NETWORK, POOL, Lab, node

DENIED = 0x07
HOUR = 3_600_000


def showing(token: str) -> dict[str, bytes]:
    return {**METADATA, "a": f"token:{token}".encode()}


def ready(wanted: Mapping[str, object] | None = None) -> tuple[Lab, str, str]:
    """A private network with a token: its secret and its id."""
    lab = Lab()
    lab.network(**POOL)
    record = lab.controller.create_token(lab.now, NETWORK, wanted or {})
    lab.settle()
    return lab, record["token"], record["id"]


def test_a_token_makes_a_member_at_once() -> None:
    lab, token, number = ready()
    member = node(1)
    assert lab.refused(member) == DENIED
    lab.now += 2_000
    assert lab.served(member, metadata=showing(token)).addresses
    record = lab.controller.get_member(NETWORK, member.address)
    assert record["authorized"]
    assert (record["lastAuthorizedCredentialType"], record["lastAuthorizedCredential"]) == ("token", number)
    lab.now += 60_000
    lab.served(member)
    (shown,) = lab.controller.list_tokens(NETWORK, lab.now)
    assert (shown["id"], shown["uses"], shown["state"]) == (number, 1, "active")


@pytest.mark.parametrize("shown", ["", "x", "token:", "token:wrong", "tokens:{0}", "token:{0} ", "token:{0}x", "{0}"])
def test_nothing_else_does(shown: str) -> None:
    lab, token, _ = ready()
    assert lab.refused(node(1), metadata={**METADATA, "a": shown.format(token).encode()}) == DENIED
    assert lab.controller.list_tokens(NETWORK, lab.now)[0]["uses"] == 0


def test_a_token_of_another_network_does_not() -> None:
    lab, token, _ = ready()
    other = lab.network(NETWORK + 1)
    assert lab.refused(node(1), other, showing(token)) == DENIED


def test_the_secret_is_told_once_and_not_kept() -> None:
    lab, token, number = ready({"name": "build machines"})
    (shown,) = lab.controller.list_tokens(NETWORK, lab.now)
    assert shown["name"] == "build machines"
    assert "token" not in shown
    assert "hash" not in shown
    rows = [(table, key, text) for table, key, text in lab.store.load() if table == "token"]
    assert [key for _, key, _ in rows] == [f"{NETWORK:016x}/{number}"]
    assert token not in json.dumps(lab.store.load())
    assert len(token) == 32


def test_so_many_uses_and_no_more() -> None:
    lab, token, _ = ready({"maximumUses": 2})
    lab.served(node(1), metadata=showing(token))
    lab.served(node(2), metadata=showing(token))
    assert lab.refused(node(3), metadata=showing(token)) == DENIED
    assert lab.controller.list_tokens(NETWORK, lab.now)[0]["state"] == "used up"
    lab.now += 60_000
    lab.served(node(1), metadata=showing(token))  # a member already: no use of it
    assert lab.controller.list_tokens(NETWORK, lab.now)[0]["uses"] == 2


def test_until_a_time_and_no_longer() -> None:
    lab, token, _ = ready({"expires": Lab().now + HOUR})
    lab.now += HOUR - 1
    lab.served(node(1), metadata=showing(token))
    lab.now += 1
    assert lab.refused(node(2), metadata=showing(token)) == DENIED
    assert lab.controller.list_tokens(NETWORK, lab.now)[0]["state"] == "expired"
    lab.now += 60_000
    lab.served(node(1))


def test_a_revoked_token_is_worthless_and_its_members_stay() -> None:
    lab, token, number = ready()
    lab.served(node(1), metadata=showing(token))
    assert lab.controller.revoke_token(lab.now, NETWORK, number)["id"] == number
    lab.settle()
    assert lab.controller.list_tokens(NETWORK, lab.now) == []
    assert lab.refused(node(2), metadata=showing(token)) == DENIED
    lab.now += 60_000
    lab.served(node(1))
    with pytest.raises(UnknownToken, match=number):
        lab.controller.revoke_token(lab.now, NETWORK, number)


def test_who_was_put_out_does_not_come_back_by_an_old_token() -> None:
    lab, token, _ = ready()
    member = node(1)
    lab.served(member, metadata=showing(token))
    lab.now += 5_000
    lab.controller.update_member(lab.now, NETWORK, member.address, {"authorized": False})
    lab.settle()
    lab.now += 5_000
    assert lab.refused(member, metadata=showing(token)) == DENIED
    new = lab.controller.create_token(lab.now, NETWORK)["token"]
    lab.settle()
    lab.now += 5_000
    lab.served(member, metadata=showing(new))


def test_nor_by_a_token_of_the_network_record() -> None:
    lab = Lab()
    lab.network(**POOL, authTokens={"secret": 0, "old": 1})
    member = node(1)
    assert lab.refused(member, metadata=showing("old")) == DENIED
    lab.now += 2_000
    lab.served(member, metadata=showing("secret"))
    lab.now += 2_000
    lab.controller.update_member(lab.now, NETWORK, member.address, {"authorized": False})
    lab.settle()
    assert lab.refused(member, metadata=showing("secret")) == DENIED


def test_tokens_and_their_uses_survive_a_crash_and_an_answer_is_never_before_them() -> None:
    lab, token, _ = ready({"maximumUses": 1})
    lab.ask(node(1), metadata=showing(token))
    lab.take()
    lab.start()  # neither committed nor answered
    lab.now += 5_000
    lab.served(node(2), metadata=showing(token))
    lab.start()
    lab.now += 5_000
    assert lab.refused(node(1), metadata=showing(token)) == DENIED
    assert lab.controller.list_tokens(NETWORK, lab.now)[0]["uses"] == 1


def test_a_deleted_network_takes_its_tokens_along() -> None:
    lab, token, _ = ready()
    lab.controller.delete_network(lab.now, NETWORK)
    lab.settle()
    assert lab.store.load() == []
    lab.network(**POOL)
    assert lab.refused(node(1), metadata=showing(token)) == DENIED


def test_a_secret_of_the_users_own() -> None:
    lab, _, _ = ready()
    lab.controller.create_token(lab.now, NETWORK, {"token": "correct-horse-battery"})
    lab.settle()
    lab.served(node(1), metadata=showing("correct-horse-battery"))
    with pytest.raises(InvalidRequest, match="already"):
        lab.controller.create_token(lab.now, NETWORK, {"token": "correct-horse-battery"})


@pytest.mark.parametrize(
    "wanted",
    [
        {"token": "short"},
        {"token": "x" * 257},
        {"token": "with a space in between"},
        {"token": "ümlaut-ümlaut-ümlaut"},
        {"token": 12345678901234567},
        {"expires": 5},
        {"expires": "soon"},
        {"maximumUses": -1},
        {"memberLifetime": [1]},
        {"name": 5},
        {"uses": 3},
        [],
    ],
)
def test_a_token_that_makes_no_sense_is_refused(wanted: object) -> None:
    lab, _, _ = ready()
    with pytest.raises(InvalidRequest):
        lab.controller.create_token(lab.now, NETWORK, wanted)
    assert len(lab.controller.list_tokens(NETWORK, lab.now)) == 1


def test_tokens_are_of_networks_that_exist_and_not_too_many() -> None:
    lab, _, _ = ready()
    for call in (
        lambda: lab.controller.create_token(lab.now, 5),
        lambda: lab.controller.list_tokens(5, lab.now),
        lambda: lab.controller.revoke_token(lab.now, 5, "x"),
    ):
        with pytest.raises(UnknownNetwork):
            call()
    for _ in range(MAXIMUM_TOKENS - 1):
        lab.controller.create_token(lab.now, NETWORK)
    with pytest.raises(InvalidRequest, match="revoke"):
        lab.controller.create_token(lab.now, NETWORK)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id":"x"}', "5"])
def test_a_corrupt_row_is_named(text: str) -> None:
    lab, _, number = ready()
    rows = [row for row in lab.store.load() if row[0] != "token"]
    key = f"{NETWORK:016x}/{number}"
    with pytest.raises(CorruptStore, match=key):
        Controller(lab.identity, lab.random.randbytes, [*rows, ("token", key, text)])


def test_a_row_under_a_wrong_key_is_named() -> None:
    lab, _, _ = ready()
    ((_, _, text),) = (row for row in lab.store.load() if row[0] == "token")
    for key in ("", "x", f"{NETWORK:016x}", f"{NETWORK:016x}/0000000000000000", f"{NETWORK + 1:016x}/{json.loads(text)['id']}"):
        with pytest.raises(CorruptStore):
            TokenBook([("token", key, text)])


def test_a_members_request_carries_the_longest_token() -> None:
    assert len(request_metadata((255, 255, 65535), platform="linux/x86_64", token="=" * 256)) < 1023
