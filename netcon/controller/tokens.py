"""Join tokens: secrets that authorise whoever shows one, at once (vl2 §7.1 step 5).

ZeroTier One keeps such tokens in clear in the network's record (`authTokens`), with an expiry and no more. Ours are records of
their own, of which only the hash of the secret is kept: they may be used so many times only, and the memberships that they make
may end by themselves. A member shows either kind in the same way, as `token:<secret>` in the metadata of its request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netcon.controller.coercion import as_int, as_text
from netcon.controller.errors import CorruptStore, InvalidRequest, UnknownToken
from netcon.controller.records import Record, record_text

TOKEN_TABLE = "token"
#: Of a secret that is drawn here, bytes.
SECRET_BYTES = 20
#: Of one that the user chose: short enough for the request's metadata (vl2 §2.2), too long to be guessed.
MINIMUM_SECRET, MAXIMUM_SECRET = 16, 256
MAXIMUM_TOKENS = 1_024

#: Writable when a token is made, with their defaults; times and durations in ms, 0 for no limit.
_FIELDS: dict[str, Any] = {"name": "", "expires": 0, "maximumUses": 0, "memberLifetime": 0}

Change = tuple[str, str, str | None]


def _key(network: int, token: str) -> str:
    return f"{network:016x}/{token}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _row(network: int, record: Record) -> Change:
    return TOKEN_TABLE, _key(network, record["id"]), record_text(record)


def presented(metadata_text: str) -> str:
    """The secret in a request's metadata `a`, or nothing."""
    scheme, _, secret = metadata_text.partition(":")
    return secret if scheme == "token" else ""


class TokenBook:
    """The tokens of all networks. Records are replaced, never changed in place; changes are the caller's to commit."""

    def __init__(self, rows: Iterable[tuple[str, str, str]] = ()) -> None:
        """CorruptStore names the row that cannot be used; rows of other tables are passed over."""
        self._tokens: dict[int, dict[str, Record]] = {}  # by network and id
        for table, key, text in rows:
            if table == TOKEN_TABLE:
                network, record = _load(key, text)
                self._tokens.setdefault(network, {})[record["id"]] = record

    def of(self, network: int, now: int) -> list[Record]:
        """As the API shows them: without the hash, oldest first."""
        return [shown(record, now) for record in sorted(self._tokens.get(network, {}).values(), key=lambda r: r["creationTime"])]

    def create(self, network: int, now: int, wanted: Mapping[str, object], random: Callable[[int], bytes]) -> tuple[Record, Change]:
        """A new token; `token` of the record is its secret, which is told this once. InvalidRequest."""
        tokens = self._tokens.setdefault(network, {})
        if len(tokens) >= MAXIMUM_TOKENS:
            raise InvalidRequest(f"the network has {MAXIMUM_TOKENS} tokens; revoke those that are not needed any more")
        fields = _checked(wanted, now)
        secret = wanted.get("token")
        if secret is None:
            secret = base64.b32encode(random(SECRET_BYTES)).decode().lower()
        elif (
            not isinstance(secret, str)
            or not MINIMUM_SECRET <= len(secret) <= MAXIMUM_SECRET
            or not (secret.isascii() and secret.isprintable() and " " not in secret)
        ):
            raise InvalidRequest(
                f"token: {MINIMUM_SECRET} to {MAXIMUM_SECRET} printable ASCII characters, no spaces; without it one is made"
            )
        digest = _digest(secret)
        if digest[:16] in tokens:
            raise InvalidRequest("the network has this token already; revoke it first")
        record = tokens[digest[:16]] = {
            "id": digest[:16],
            "nwid": f"{network:016x}",
            "objtype": "token",
            "hash": digest,
            "creationTime": now,
            "uses": 0,
            **fields,
        }
        return {**shown(record, now), "token": secret}, _row(network, record)

    def revoke(self, network: int, token: str, now: int) -> tuple[Record, Change]:
        """Nobody gets in by it any more; who did stays a member. UnknownToken."""
        record = self._tokens.get(network, {}).pop(token, None)
        if record is None:
            raise UnknownToken(network, token)
        return shown(record, now), (TOKEN_TABLE, _key(network, token), None)

    def forget(self, network: int) -> list[Change]:
        """The network is being deleted."""
        return [(TOKEN_TABLE, _key(network, token), None) for token in self._tokens.pop(network, {})]

    def admitting(self, network: int, secret: str, deauthorised: int, now: int) -> Record | None:
        """The token that lets in a member that shows `secret`. `deauthorised`: when it lost its authorisation, 0 for never: by a
        token that is older than that it does not come back, or nobody who holds one could ever be put out."""
        if not secret:
            return None
        digest = _digest(secret)
        record = self._tokens.get(network, {}).get(digest[:16])
        if record is None or record["hash"] != digest or state(record, now) != "active":
            return None
        return record if deauthorised == 0 or record["creationTime"] > deauthorised else None

    def used(self, network: int, record: Record) -> Change:
        """Count one use."""
        record = self._tokens[network][record["id"]] = {**record, "uses": record["uses"] + 1}
        return _row(network, record)


def state(record: Record, now: int) -> str:
    if 0 < record["expires"] <= now:
        return "expired"
    return "used up" if 0 < record["maximumUses"] <= record["uses"] else "active"


def shown(record: Record, now: int) -> Record:
    return {**{key: value for key, value in record.items() if key != "hash"}, "state": state(record, now)}


def _checked(wanted: Mapping[str, object], now: int) -> Record:
    """The fields of a new token. Unlike other records a token with a field that makes no sense is refused: it opens a door."""
    unknown = wanted.keys() - _FIELDS.keys() - {"token"}
    if unknown:
        raise InvalidRequest(f"unknown key {min(unknown)}; known are {', '.join(sorted((*_FIELDS, 'token')))}")
    fields: Record = {}
    for key, default in _FIELDS.items():
        value = wanted.get(key, default)
        taken = as_text(value) if isinstance(default, str) else as_int(value)
        if taken is None or (isinstance(taken, int) and taken < 0):
            raise InvalidRequest(f"{key}: {'text' if isinstance(default, str) else 'a number, 0 for no limit'} is wanted")
        fields[key] = taken
    if 0 < fields["expires"] <= now:
        raise InvalidRequest("expires: that time (ms since 1970) is over")
    return fields


def _load(key: str, text: str) -> tuple[int, Record]:
    try:
        network, _, token = key.partition("/")
        value = json.loads(text)
        record = {name: value[name] for name in ("id", "nwid", "objtype", "hash", "creationTime", "uses", *_FIELDS)}
        integers = (record[name] for name in ("creationTime", "uses", "expires", "maximumUses", "memberLifetime"))
        if (
            record["id"] != token
            or record["nwid"] != network
            or not all(isinstance(number, int) for number in integers)
            or len(bytes.fromhex(record["hash"])) != 32
        ):
            raise ValueError("its fields make no sense")
        return int(network, 16), record
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise CorruptStore(
            f"record {TOKEN_TABLE} {key} in controller.d is corrupt ({problem}); restore the folder from a backup or delete it"
        ) from problem
