"""The event contract: one closed, versioned, typed event, and the reasons for which anything else is refused.

On the wire an event is one JSON object with these fields and no others (null means absent, everywhere):

| field | type | |
|---|---|---|
| schemaVersion | 1 | optional |
| type | string | `track`, `identify`, `page`, `screen`, `group` or `alias` |
| messageId | string, 1 to 100 characters | unique within its sender |
| userId, anonymousId | string, 1 to 200 characters | one of them; identify needs userId, alias both |
| timestamp | RFC 3339 string with a zone | to the microsecond, further digits are cut off; a number is refused |
| event | string, 1 to 200 characters | track only, required: a name that the domain declares |
| name | string, up to 200 characters | page and screen only |
| properties, traits, context | object | a declared path of another type is flagged, or refused where it is strict |

An alias says that anonymousId (the previous id) is userId from the timestamp on; so does an identify with both.
What a sender puts into context.firstmile is left out: the service notes an event's origin there (see origin.py).
Of a key that an object repeats, the last value counts, as everywhere in JSON. What was sent is never changed: the paths
of values that features do not see as they were sent are added to the list context.flags.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from feature_repo.contract.declared import FLAGS, Rules, Spec, check, declared_types
from feature_repo.contract.origin import RESERVED
from feature_repo.contract.refusals import MEANING, Reason, Refusal, RefusedError, refuse, show
from feature_repo.contract.wire import canonical_json, decode
from feature_repo.domain import Domain

__all__ = [
    "ANONYMOUS", "MEANING", "VERSION", "Event", "Reason", "Refusal", "canonical_json", "ids_of", "key_of", "parse",
    "spoken",
]  # fmt: skip

VERSION = 1
TYPES = frozenset({"track", "identify", "page", "screen", "group", "alias"})
COMMON = frozenset(
    {"schemaVersion", "type", "messageId", "userId", "anonymousId", "timestamp", "properties", "traits", "context"}
)
FIELDS: Mapping[str, frozenset[str]] = {
    t: COMMON | ({"event"} if t == "track" else {"name"} if t in ("page", "screen") else set()) for t in TYPES
}

ANONYMOUS = "anon:"
"""What the key of an anonymous user begins with, inside: callers give and get `userId` and `anonymousId`. No userId
begins with it, so that no user has the key of an anonymous one."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that no id or name may have: they end lines, hide in logs, and cannot be in an address."""
MAX_ID = 200
MAX_MESSAGE_ID = 100
MAX_NAME = 200
MAX_AHEAD_US = 24 * 3600 * 1_000_000
OLDEST_US = 946_684_800_000_000
"""2000-01-01 UTC: nothing that this project can learn from is older."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """An accepted event. Times are microseconds since 1970 UTC; null ids and names are absent ones."""

    type: str
    message_id: str
    user_id: str | None
    anonymous_id: str | None
    ts_us: int
    received_us: int
    name: str | None
    properties: dict[str, Any]
    traits: dict[str, Any]
    context: dict[str, Any]


def ids_of(user_key: str) -> tuple[str | None, str | None]:
    """(user id, anonymous id), one of them None, of a user's key.

    >>> ids_of("u-1"), ids_of("anon:d-1")
    (('u-1', None), (None, 'd-1'))
    """
    if user_key.startswith(ANONYMOUS):
        return None, user_key.removeprefix(ANONYMOUS)
    return user_key, None


def key_of(user_id: str | None, anonymous_id: str | None) -> str:
    """A user's key, of a user id, or of an anonymous id where there is none.

    >>> key_of("u-1", None), key_of(None, "d-1")
    ('u-1', 'anon:d-1')
    """
    return user_id if user_id is not None else f"{ANONYMOUS}{anonymous_id}"


def spoken(user_key: str) -> str:
    """What a user is called in text for people.

    >>> spoken("u-1"), spoken("anon:visitor-9")
    ('u-1', 'anonymous visitor-9')
    """
    user_id, anonymous_id = ids_of(user_key)
    return user_id if user_id is not None else f"anonymous {anonymous_id}"


def parse(raw: bytes | str | dict[str, Any], domain: Domain, received_us: int) -> Event | Refusal:
    """The event that `raw` is, or why it is refused; never raises, whatever `raw` is.

    raw: JSON as bytes (UTF-8) or text, or the object as Python dicts, lists, strings, numbers, booleans and None.
    received_us: when it arrived, microseconds since 1970 UTC.
    """
    try:
        return _event(decode(raw), declared_types(domain), received_us)
    except RefusedError as refused:
        return refused.refusal


def _event(wire: dict[str, Any], rules: Rules, received_us: int) -> Event:
    kind = _type(wire)
    user_id, anonymous_id = _ids(wire, kind)
    name = _name(wire, kind, rules)
    spec, flags = rules[name if kind == "track" else None], list[str]()
    properties, traits, context = (_object(wire, f, spec[f], flags) for f in ("properties", "traits", "context"))
    context.pop(RESERVED, None)
    return Event(
        kind,
        _identifier(wire, "messageId", MAX_MESSAGE_ID) or _missing("messageId"),
        user_id,
        anonymous_id,
        _timestamp(wire.get("timestamp"), received_us),
        received_us,
        name,
        properties,
        traits,
        _flagged(context, flags),
    )


def _missing(field: str) -> NoReturn:
    refuse(Reason.MISSING_FIELD, f"{field}: expected a string; it is missing")


def _type(wire: dict[str, Any]) -> str:
    """The event's type, once all its fields are known to be those of the type."""
    version = wire.get("schemaVersion")
    if version is not None and (type(version) is not int or version != VERSION):
        refuse(Reason.UNSUPPORTED_VERSION, f"schemaVersion: expected {VERSION}; came {show(version)}")
    kind = wire.get("type")
    if kind is None:
        _missing("type")
    if type(kind) is not str:
        refuse(Reason.WRONG_TYPE, f"type: expected a string; came {show(kind)}")
    fields = FIELDS.get(kind)
    if fields is None:
        refuse(Reason.UNKNOWN_TYPE, f"type: expected one of {', '.join(sorted(TYPES))}; came {show(kind)}")
    if not wire.keys() <= fields:
        came = ", ".join(repr(key[:40]) for key in sorted(wire.keys() - fields)[:5])
        refuse(Reason.UNKNOWN_FIELD, f"expected of {kind} only {', '.join(sorted(fields))}; came {came}")
    return kind


def _identifier(wire: dict[str, Any], field: str, longest: int) -> str | None:
    value = wire.get(field)
    if value is None:
        return None
    if type(value) is not str:
        refuse(Reason.WRONG_TYPE, f"{field}: expected a string; came {show(value)}")
    if not value:
        refuse(Reason.EMPTY_ID, f"{field}: expected 1 to {longest} characters; came none")
    _limit(value, field, longest)
    return value


def _limit(value: str, field: str, longest: int) -> None:
    if len(value) > longest:
        refuse(Reason.TOO_LONG, f"{field}: expected at most {longest} characters; came {len(value)}")
    if found := CONTROL.search(value):
        what = f"U+{ord(found[0]):04X} at character {found.start()}"
        refuse(Reason.BAD_CHARACTER, f"{field}: expected no control characters; came {what}")


def _ids(wire: dict[str, Any], kind: str) -> tuple[str | None, str | None]:
    user_id = _identifier(wire, "userId", MAX_ID)
    anonymous_id = _identifier(wire, "anonymousId", MAX_ID)
    if user_id is None:
        if anonymous_id is None or kind in ("identify", "alias"):
            needed = {"identify": "userId", "alias": "userId and anonymousId (the previous id)"}
            refuse(Reason.MISSING_ID, f"expected of {kind} {needed.get(kind, 'userId or anonymousId')}; it is missing")
    elif user_id.startswith(ANONYMOUS):
        refuse(Reason.RESERVED_ID, f"userId: expected one that does not begin with {ANONYMOUS!r}; came {show(user_id)}")
    elif anonymous_id is None and kind == "alias":
        refuse(Reason.MISSING_ID, "anonymousId: expected of alias (the previous id); it is missing")
    return user_id, anonymous_id


def _name(wire: dict[str, Any], kind: str, rules: Rules) -> str | None:
    field = "event" if kind == "track" else "name"
    name = wire.get(field)
    if name is None:
        return None if kind != "track" else _missing("event")
    if type(name) is not str:
        refuse(Reason.WRONG_TYPE, f"{field}: expected a string; came {show(name)}")
    _limit(name, field, MAX_NAME)
    if kind == "track" and name not in rules:
        declared = ", ".join(sorted(filter(None, rules)))
        refuse(Reason.UNKNOWN_EVENT, f"event: expected one that the domain declares ({declared}); came {show(name)}")
    return name


_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 24 * 3600 * 1_000_000


def _timestamp(text: object, received_us: int) -> int:
    """Microseconds since 1970 UTC."""
    if text is None:
        _missing("timestamp")
    if type(text) is not str:
        refuse(Reason.WRONG_TYPE, f"timestamp: expected an RFC 3339 string; came {show(text)}")
    ts_us = _microseconds(text)
    if ts_us is None:
        refuse(
            Reason.BAD_TIMESTAMP,
            f"timestamp: expected RFC 3339 with a zone, as 2024-05-31T23:59:59.123456Z; came {show(text)}",
        )
    if ts_us > received_us + MAX_AHEAD_US:
        hours = (ts_us - received_us) // 3_600_000_000
        refuse(Reason.TIMESTAMP_IN_FUTURE, f"timestamp: expected at most 24 hours ahead; came {show(text)}, {hours} h")
    if ts_us < OLDEST_US:
        refuse(Reason.TIMESTAMP_TOO_OLD, f"timestamp: expected 2000-01-01 UTC or later; came {show(text)}")
    return ts_us


def _microseconds(text: str) -> int | None:
    """RFC 3339 -> microseconds; None if it is not. A leap second counts as the second after it, as in Unix time."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, minute, second, fraction, zone = match.groups()
    leap = second == "60"
    try:
        at = datetime.fromisoformat(f"{day}T{minute}{'59' if leap else second}{zone.upper()}")
    except ValueError:  # a day that its month does not have, the year 0
        return None
    ts_us = (at - _EPOCH) // _MICROSECOND + (leap and 1_000_000)
    if leap and ts_us % _DAY_US:
        return None
    return ts_us + (int(fraction[1:7].ljust(6, "0")) if fraction else 0)


def _flagged(context: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """The context with these paths among its flags; as it is where there are none, or where a sender says otherwise."""
    held = context.get(FLAGS)
    held = [] if held is None else held
    if not flags or type(held) is not list:
        return context
    return {**context, FLAGS: [*held, *(path for path in flags if path not in held)]}


def _object(wire: dict[str, Any], field: str, spec: Spec, flags: list[str]) -> dict[str, Any]:
    value = wire.get(field)
    if value is None:
        return {}
    if type(value) is not dict:
        refuse(Reason.WRONG_TYPE, f"{field}: expected an object; came {show(value)}")
    if spec:
        check(value, spec, field, flags)
    return value
