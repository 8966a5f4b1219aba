"""Network and member records: their defaults, and what an update may do to them (service-api §4.1, §4.2).

A record is a JSON object, always in canonical form: every known field is present and of its kind. Records are replaced, never
changed in place, so that nested values may be shared between an old and a new one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from netcon.controller.coercion import as_address, as_bool, as_int, as_ip, as_list, as_prefix, as_text, as_u32
from netcon.controller.errors import CorruptStore, InvalidRequest
from netcon.core.errors import DecodeError
from netcon.core.rules import rule_from_json, rule_to_json

Record: TypeAlias = dict[str, Any]
Field: TypeAlias = Callable[[object], Any]

MINIMUM_MTU, DEFAULT_MTU, MAXIMUM_MTU = 1280, 2800, 10000
DEFAULT_MULTICAST_LIMIT = 32
V6_MODES = ("rfc4193", "zt", "6plane")
#: As real controllers write it, though they write every other action without `not` and `or` (service-api §4.1).
DEFAULT_RULES = [{"not": False, "or": False, "type": "ACTION_ACCEPT"}]

NETWORK_TABLE = "network"
MEMBER_TABLE = "member"
#: Rows of other modules' tables, which are none of these two.
OTHER_TABLES = ("token",)


def network_key(network: int) -> str:
    return f"{network:016x}"


def member_key(network: int, member: int) -> str:
    return f"{network:016x}/{member:010x}"


def record_text(record: Record) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


# -- defaults --


def new_network(network: int, now: int) -> Record:
    return {
        "id": f"{network:016x}",
        "nwid": f"{network:016x}",
        "objtype": "network",
        "creationTime": now,
        "revision": 1,
        "name": "",
        "private": True,
        "enableBroadcast": True,
        "multicastLimit": DEFAULT_MULTICAST_LIMIT,
        "mtu": DEFAULT_MTU,
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"rfc4193": False, "zt": False, "6plane": False},
        "routes": [],
        "ipAssignmentPools": [],
        "rules": DEFAULT_RULES,
        "capabilities": [],
        "tags": [],
        "dns": [],  # clients know this shape of "unset" (service-api §4.1), and the next
        "authTokens": [None],
        "remoteTraceTarget": None,
        "remoteTraceLevel": 0,
        "rulesSource": "",
        "ssoEnabled": False,
        "clientId": "",
        "authorizationEndpoint": "",
    }


def new_member(network: int, member: int, now: int) -> Record:
    return {
        "id": f"{member:010x}",
        "address": f"{member:010x}",
        "nwid": f"{network:016x}",
        "objtype": "member",
        "creationTime": now,
        "revision": 1,
        "authorized": False,
        "activeBridge": False,
        "noAutoAssignIps": False,
        "ipAssignments": [],
        "capabilities": [],
        "tags": [],
        "ssoExempt": False,
        "authenticationExpiryTime": 0,
        "remoteTraceTarget": None,
        "remoteTraceLevel": 0,
        "lastAuthorizedTime": 0,
        "lastDeauthorizedTime": 0,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedCredential": None,
        "vMajor": -1,
        "vMinor": -1,
        "vRev": -1,
        "vProto": -1,
    }


# -- fields --


class _Ignored:
    """A field whose value is of the wrong kind keeps what it has."""


IGNORED = _Ignored()


def _of(coerce: Callable[[object], Any]) -> Field:
    def field(value: object) -> Any:
        result = coerce(value)
        return IGNORED if result is None else result

    return field


def _mtu(value: object) -> Any:
    number = as_int(value)
    return IGNORED if number is None else min(max(number, MINIMUM_MTU), MAXIMUM_MTU)


def _v4_mode(value: object) -> Any:
    match value:
        case dict():
            return {"zt": as_bool(value.get("zt")) or False}
        case str():
            return {"zt": value == "zt"}
        case _:
            return IGNORED


def _v6_mode(value: object) -> Any:
    match value:
        case dict():
            return {mode: as_bool(value[mode]) or False for mode in V6_MODES if mode in value}
        case str():
            chosen = {part.strip() for part in value.split(",")}
            return {mode: mode in chosen for mode in V6_MODES}
        case _:
            return IGNORED


def _entries(convert: Callable[[Any], Any]) -> Field:
    """A list that replaces the old one; entries that `convert` returns None for are dropped."""

    def field(value: object) -> Any:
        entries = as_list(value)
        if entries is None:
            return IGNORED
        return [entry for entry in map(convert, entries) if entry is not None]

    return field


def _route(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return None
    prefix = as_prefix(entry.get("target"))
    if prefix is None:
        return None
    target, bits = prefix
    via = as_ip(entry.get("via"))
    return {"target": f"{target}/{bits}", "via": str(via) if via is not None and via.version == target.version else None}


def _pool(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return None
    start, end = as_ip(entry.get("ipRangeStart")), as_ip(entry.get("ipRangeEnd"))
    if start is None or end is None or start.version != end.version:
        return None
    return {"ipRangeStart": str(start), "ipRangeEnd": str(end)}


def _rule(entry: Any) -> Any:
    try:
        return rule_to_json(rule_from_json(entry))
    except DecodeError:
        return None  # rules that make no sense are removed (vl2 §4.7)


def _rules(value: object) -> Any:
    # A client that sends back the default as it read it changes nothing.
    return DEFAULT_RULES if value == DEFAULT_RULES else _entries(_rule)(value)


def _by_id(convert: Callable[[Any], tuple[int, Any] | None]) -> Field:
    """A list sorted by id, in which the last entry of an id counts."""

    def field(value: object) -> Any:
        entries = as_list(value)
        if entries is None:
            return IGNORED
        found = dict(pair for pair in map(convert, entries) if pair is not None)
        return [found[key] for key in sorted(found)]

    return field


def _capability(entry: Any) -> tuple[int, Any] | None:
    if not isinstance(entry, dict) or (number := as_u32(entry.get("id"))) is None:
        return None
    rules = _rules(entry.get("rules"))
    return number, {"id": number, "default": as_bool(entry.get("default")) or False, "rules": [] if rules is IGNORED else rules}


def _tag(entry: Any) -> tuple[int, Any] | None:
    if not isinstance(entry, dict) or (number := as_u32(entry.get("id"))) is None:
        return None
    return number, {"id": number, "default": as_u32(entry.get("default"))}


def _tag_value(entry: Any) -> tuple[int, Any] | None:
    if not isinstance(entry, list) or len(entry) != 2:
        return None
    number, value = as_u32(entry[0]), as_u32(entry[1])
    return None if number is None or value is None else (number, [number, value])


def _numbers(value: object) -> Any:
    entries = as_list(value)
    return IGNORED if entries is None else sorted({n for n in map(as_u32, entries) if n is not None})


def _ips(value: object) -> Any:
    entries = as_list(value)
    return IGNORED if entries is None else list(dict.fromkeys(str(ip) for ip in map(as_ip, entries) if ip is not None))


def _dns(value: object) -> Any:
    if not isinstance(value, dict):
        return IGNORED
    servers = _ips(value.get("servers"))
    return {"domain": as_text(value.get("domain")) or "", "servers": [] if servers is IGNORED else servers}


def _until(value: object) -> Any:
    """A time in ms; null and 0 are "for ever"."""
    number = 0 if value is None else as_int(value)
    return IGNORED if number is None else max(number, 0)


def _tokens(value: object) -> Any:
    if not isinstance(value, dict):
        return [None]
    pairs = ((as_text(token), as_int(expiry)) for token, expiry in value.items())
    return {token: expiry for token, expiry in pairs if token and expiry is not None}


NETWORK_FIELDS: dict[str, Field] = {
    "name": _of(as_text),
    "private": _of(as_bool),
    "enableBroadcast": _of(as_bool),
    "multicastLimit": _of(as_u32),
    "mtu": _mtu,
    "v4AssignMode": _v4_mode,
    "v6AssignMode": _v6_mode,
    "routes": _entries(_route),
    "ipAssignmentPools": _entries(_pool),
    "rules": _rules,
    "capabilities": _by_id(_capability),
    "tags": _by_id(_tag),
    "dns": _dns,
    "authTokens": _tokens,
    "remoteTraceTarget": as_address,
    "remoteTraceLevel": _of(as_u32),
}

MEMBER_FIELDS: dict[str, Field] = {
    "authorized": _of(as_bool),
    "activeBridge": _of(as_bool),
    "noAutoAssignIps": _of(as_bool),
    "ipAssignments": _ips,
    "capabilities": _numbers,
    "tags": _by_id(_tag_value),
    "name": _of(as_text),
    "authenticationExpiryTime": _of(as_int),
    "authorizedUntil": _until,  # ours; absent until it is set
    "remoteTraceTarget": as_address,
    "remoteTraceLevel": _of(as_u32),
}

#: What a stored or imported record holds beyond what the API may write.
STORED_NETWORK_FIELDS: dict[str, Field] = {
    **NETWORK_FIELDS,
    "creationTime": _of(as_int),
    "revision": _of(as_int),
    "rulesSource": _of(as_text),
    "ssoEnabled": _of(as_bool),
    "clientId": _of(as_text),
    "authorizationEndpoint": _of(as_text),
    "certificateTimeoutWindowSize": _of(as_int),
}

STORED_MEMBER_FIELDS: dict[str, Field] = {
    **MEMBER_FIELDS,
    "creationTime": _of(as_int),
    "revision": _of(as_int),
    "ssoExempt": _of(as_bool),
    "lastAuthorizedTime": _of(as_int),
    "lastDeauthorizedTime": _of(as_int),
    "lastAuthorizedCredentialType": as_text,
    "lastAuthorizedCredential": as_text,
    "vMajor": _of(as_int),
    "vMinor": _of(as_int),
    "vRev": _of(as_int),
    "vProto": _of(as_int),
    "identity": _of(as_text),
}


# -- updates --


def _apply(record: Record, changes: Mapping[Any, object], fields: Mapping[str, Field]) -> Record:
    changed = dict(record)
    for name, field in fields.items():
        if name in changes:
            value = field(changes[name])
            if value is not IGNORED:
                changed[name] = value
    return changed


def _object(changes: object) -> Mapping[Any, object]:
    if not isinstance(changes, Mapping):
        raise InvalidRequest('the body must be a JSON object, such as {"name": "office"}')
    return changes


def update_network(record: Record, changes: object) -> Record:
    """`record` with the recognised fields of `changes`. InvalidRequest if `changes` is no object."""
    return _apply(record, _object(changes), NETWORK_FIELDS)


def update_member(record: Record, changes: object, now: int) -> Record:
    """The same for a member; a change of `authorized` leaves its time."""
    changed = _apply(record, _object(changes), MEMBER_FIELDS)
    if changed["authorized"] and not record["authorized"]:
        if changed.get("authorizedUntil") == record.get("authorizedUntil"):
            changed = for_ever(changed, now)
        return authorized_by(changed, "api", None, now)
    if record["authorized"] and not changed["authorized"]:
        return deauthorized(changed, now)
    return changed


def for_ever(record: Record, now: int) -> Record:
    """Without the end of a membership that is over."""
    return {**record, "authorizedUntil": 0} if 0 < record.get("authorizedUntil", 0) <= now else record


def deauthorized(record: Record, now: int) -> Record:
    return {**record, "authorized": False, "lastDeauthorizedTime": now}


def authorization_ends(record: Record) -> int | None:
    """When this member's authorisation ends by itself, ms; None if it does not, or there is none."""
    return (record.get("authorizedUntil") or None) if record["authorized"] else None


def authorized_by(record: Record, credential_type: str, credential: str | None, now: int) -> Record:
    return {
        **record,
        "authorized": True,
        "lastAuthorizedTime": now,
        "lastAuthorizedCredentialType": credential_type,
        "lastAuthorizedCredential": credential,
    }


def revised(old: Record, new: Record) -> Record | None:
    """`new` with the next revision, or None if nothing but the revision differs (vl2 §7.5)."""
    if {**new, "revision": old["revision"]} == old:
        return None
    return {**new, "revision": old["revision"] + 1}


# -- from the store --


def _identifier(text: str, digits: int) -> int:
    if len(text) != digits or not all(c in "0123456789abcdef" for c in text):
        raise ValueError(f"{text!r} is not {digits} hexadecimal digits")
    return int(text, 16)


def load_records(rows: Iterable[tuple[str, str, str]]) -> tuple[dict[int, Record], dict[int, dict[int, Record]]]:
    """Networks, and members by network, of a store's (table, key, JSON) rows. CorruptStore names the row that cannot be used."""
    networks: dict[int, Record] = {}
    members: dict[int, dict[int, Record]] = {}
    for table, key, text in rows:
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
            if table == NETWORK_TABLE:
                network = _identifier(key, 16)
                networks[network] = _apply(new_network(network, 0), value, STORED_NETWORK_FIELDS)
            elif table == MEMBER_TABLE:
                network_text, _, member_text = key.partition("/")
                network, member = _identifier(network_text, 16), _identifier(member_text, 10)
                record = _apply(new_member(network, member, 0), value, STORED_MEMBER_FIELDS)
                members.setdefault(network, {})[member] = record
            elif table not in OTHER_TABLES:
                raise ValueError("no such table")
        except (ValueError, RecursionError) as problem:
            raise CorruptStore(
                f"record {table} {key} in controller.d is corrupt ({problem}); restore the folder from a backup or delete it"
            ) from problem
    orphans = members.keys() - networks.keys()
    if orphans:
        raise CorruptStore(
            f"controller.d has members of network {min(orphans):016x}, but not the network; restore the folder from a backup"
        )
    return networks, members
