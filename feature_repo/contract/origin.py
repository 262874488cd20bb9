"""Where an event came from: what the service itself notes of it in `context.firstmile`, and the signature of a user id.

{"key": fingerprint of the write key, "browser": true, "verified": whether the user id was signed, "unlinked": device}

`key` is absent where no key was needed (this machine, or a bulk intake); `browser`, `verified` and `unlinked` are there
only for keys that browsers hold. What a sender puts in their place is left out (see events.parse), so it can be relied
on. Everything is content of the event, so it goes wherever the event goes.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

RESERVED = "firstmile"
"""The key in an event's context that only the service writes."""
USER_HASH = "userHash"
"""The field in which senders put the signature of the user id. It is checked, and never stored."""
FINGERPRINT = 12
"""Hexadecimal digits of a key's fingerprint."""


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is noted of an event's origin; the defaults stand for an event that came without a key.

    key: the write key's fingerprint. browser: whether the key is one that browsers hold, so that everybody knows it.
    verified: whether the user id was signed; None: not asked. unlinked: the anonymous id that an identify or alias
    named, which was another user's already: the event does not link it.
    """

    key: str | None = None
    browser: bool = False
    verified: bool | None = None
    unlinked: str | None = None

    @property
    def trusted(self) -> bool:
        """Whether the event's word on whose device it is may be followed by an erasure or an opt-out."""
        return not self.browser or self.verified is True


NO_KEY = Origin()
FIRST_RECEIVED = f"""CASE WHEN contains(context, '"{RESERVED}":')
    AND json_extract_string(context, '$.{RESERVED}.browser') = 'true' THEN received_us ELSE 0 END"""
"""`first_received` in SQL (DuckDB), of an event's columns."""
FROM_KEY = f"""coalesce(contains(context, '"{RESERVED}":')
    AND json_extract_string(context, '$.{RESERVED}.key') = ?, false)"""
"""The condition in SQL (DuckDB) that an event came by the key with a fingerprint, in place of `?`."""
_MARK = f'"{RESERVED}":'


def fingerprint(key: str) -> str:
    """What stands for a write key in events: the beginning of its SHA-256, in hexadecimal digits.

    >>> fingerprint("k" * 32)
    '5e318f8cf9cb'
    """
    return sha256(key.encode()).hexdigest()[:FINGERPRINT]


def note(context: dict[str, Any], origin: Origin) -> None:
    """Write an origin into an event's context."""
    if origin != NO_KEY:
        context[RESERVED] = msgspec.to_builtins(origin)


def origin_of(context: Mapping[str, Any] | str) -> Origin:
    """The origin in an event's context: the object, or its canonical JSON as the lake and the history hold it."""
    if isinstance(context, str):
        if _MARK not in context:
            return NO_KEY
        return origin_of(msgspec.json.decode(context, type=dict[str, Any]))
    return msgspec.convert(context.get(RESERVED, {}), Origin)


def first_received(context: str, received_us: int) -> int:
    """What copies of a message are ranked by before their timestamps: 0, but of a key that browsers hold when it came.

    So a copy by such a key, which anybody can send, never takes the place of another key's event, nor of an older one.
    """
    return received_us if origin_of(context).browser else 0


def user_hash(secret: str, user_id: str) -> str:
    """The signature of a user id: HMAC-SHA256 in hexadecimal digits, as Intercom's `user_hash`.

    >>> user_hash("s" * 32, "u-1")[:16]
    '6ef6974baf82af1e'
    """
    return hmac.new(secret.encode(), user_id.encode(), sha256).hexdigest()


def take_user_hash(*documents: dict[str, Any]) -> str | None:
    """Remove `userHash` from the documents of an event, their `traits` included; the first one that there is."""
    found: list[Any] = []
    for document in documents:
        for inside in (document, document.get("traits")):
            if isinstance(inside, dict) and USER_HASH in inside:
                found.append(inside.pop(USER_HASH))
    return next((hash_ for hash_ in found if isinstance(hash_, str)), None)
