"""What the dialects have in common: each is a few pure functions and a limit.

opened(request)    -> the request unpacked; what the others get
take(request)      -> the events as JSON of the contract, the write keys that came with them
answer(request, r) -> what the SDK expects to hear; r: a receipt for each event
refusal(refused)   -> the same for a request that was not taken at all
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from feature_repo.contract.origin import USER_HASH
from serving.asgi import Answer, Refused, answer_of
from serving.collect.door import Receipt
from serving.collect.request import Request, one, unpacked
from serving.collect.times import microseconds

RECEIPTS = b"firstmile-receipts"
DAY_US = 24 * 3600 * 1_000_000
encode = msgspec.json.Encoder().encode


class Taken(NamedTuple):
    """What a request brought.

    raws: events, in the order in which they were sent. keys: the write keys it shows, each once.
    edges: further events, the identity edges that those imply; they need no receipt.
    """

    raws: list[bytes]
    keys: list[str]
    edges: Sequence[bytes] = ()


class Dialect(NamedTuple):
    """How to speak with one kind of SDK.

    limit: bytes of a request's body. dry: events are judged and not kept.
    key_parameters: of the query, where a write key may be. basic_is_key: whether the user of Basic authentication is
    always one. key_in_body: whether the body may have it.
    """

    limit: int
    take: Callable[[Request], Taken]
    answer: Callable[[Request, Sequence[Receipt]], Answer]
    refusal: Callable[[Refused], Answer] = answer_of
    opened: Callable[[Request], Request] = unpacked
    dry: bool = False
    key_parameters: tuple[str, ...] = ()
    basic_is_key: bool = True
    key_in_body: bool = True


def fresh_id() -> str:
    """A messageId for an event that came without one."""
    return str(uuid4())


def text_id(value: Any) -> Any:
    """An id as text; none for an empty one. What can't be one stays as it is."""
    if type(value) is int:
        return str(value)
    return None if value == "" else value


def digest(*parts: Any) -> str:
    """32 hex digits that stand for JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def set_path(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put a value at a path of nested objects, unless there is something already."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
        if type(tree) is not dict:
            return
    tree.setdefault(path[-1], value)


def moved(source: dict[str, Any], paths: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Take the named keys out of `source`, and return them as nested objects.

    >>> properties = {"$os": "Linux", "plan": "pro"}
    >>> moved(properties, {"$os": ("os", "name")}), properties
    ({'os': {'name': 'Linux'}}, {'plan': 'pro'})
    """
    tree: dict[str, Any] = {}
    for key, path in paths.items():
        if key in source:
            set_path(tree, path, source.pop(key))
    return tree


def edges(events: Iterable[Any]) -> list[dict[str, Any]]:
    """The identifies that events with both ids imply, for SDKs that have no call for it: one a day and pair of ids.

    It comes again with every such event of the day; the earliest copy counts, as of every message.
    """
    found: dict[tuple[str, str, int], tuple[int, dict[str, Any]]] = {}
    for event in events:
        ids = {field: one(event).get(field) for field in ("userId", "anonymousId", "timestamp")}
        user, anonymous, at_us = ids["userId"], ids["anonymousId"], microseconds(ids["timestamp"])
        if type(user) is str and type(anonymous) is str and at_us is not None:
            key = (anonymous, user, at_us // DAY_US)
            if key not in found or at_us < found[key][0]:
                edge = {"type": "identify", "messageId": f"edge-{digest(*key)}"} | ids
                found[key] = (at_us, edge | {"context": {USER_HASH: hash_}} if (hash_ := _hash(event)) else edge)
    return [event for _, event in found.values()]


def _hash(event: dict[str, Any]) -> Any:
    """The signature of the user id in an event of the contract; None: it has none."""
    return next((h for part in ("context", "traits", "properties") if (h := one(event.get(part)).get(USER_HASH))), None)


def counted(receipts: Sequence[Receipt]) -> bytes:
    """Receipts in a header, as counts by status, and of the refused by reason (a structured field, RFC 9651)."""
    statuses = Counter(r.status for r in receipts)
    reasons = Counter(r.reason for r in receipts if r.reason)
    why = "".join(f";{reason}={n}" for reason, n in sorted(reasons.items()))
    return ", ".join(f"{s}={statuses[s]}" for s in ("accepted", "duplicate", "refused")).encode() + why.encode()
