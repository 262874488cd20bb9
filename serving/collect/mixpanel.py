"""Mixpanel's dialect: /track, /engage and /import, as JSON, as lines of it, or as `data` of a form or query.

event:   {"event": …, "properties": {token distinct_id $device_id $user_id $insert_id time, and the event's own}}
profile: {"$token": …, "$distinct_id": …, "$time": …, "$set": {…}, and other operations}

$identify, $create_alias and $merge are identity edges; $set of a profile are the traits of an identify. The other
operations ($add, $append, …) stay in its context: an event has no place for a change of what is there.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from serving.asgi import Answer, Refused
from serving.collect.dialect import Dialect, Taken, edges, encode, fresh_id, moved, text_id
from serving.collect.door import ERASED, OPTED_OUT, Receipt
from serving.collect.request import KB, Json, Request, decoded, listed, one, parameters, plain, unpacked, unwrapped
from serving.collect.segment import GIF
from serving.collect.times import of_number

LIMIT = 10 * KB * KB
MOST_EVENTS = 2_000
DEVICE = "$device:"
"""What a distinct_id begins with that is a device's."""
IDS = ("token", "distinct_id", "$device_id", "$user_id", "$insert_id", "time", "ip", "$ip")
CONTEXT = {
    "mp_lib": ("library", "name"),
    "$lib_version": ("library", "version"),
    "$current_url": ("page", "url"),
    "$referrer": ("page", "referrer"),
    "utm_source": ("campaign", "source"),
    "utm_medium": ("campaign", "medium"),
    "utm_campaign": ("campaign", "name"),
    "utm_term": ("campaign", "term"),
    "utm_content": ("campaign", "content"),
    "$os": ("os", "name"),
    "$browser": ("browser",),
    "$user_agent": ("userAgent",),
    "mp_country_code": ("location", "country"),
}
"""Properties that are about the moment, and where they go in the context."""
PAGE = "$mp_web_page_view"


def opened(request: Request) -> Request:
    """The request with its form, if it has one, among its parameters, and the events alone as its body.

    Raises:
        Refused: 400 or 413, it cannot be unpacked.
    """
    body = unpacked(request).body.strip()
    query = request.query
    if b"=" in body and body[:1] not in (b"[", b"{"):
        query = {**query, **parameters(body)}
        body = b""
    if "data" in query:
        body = query["data"].encode()
    return replace(request, query=query, body=plain(unwrapped(body), request.limit))


def take(request: Request) -> Taken:
    """What a request to /track or /import brought.

    Raises:
        Refused: 400, no event can be got out of it.
    """
    found = _found(request.body)
    events = [_event(event, request) for event in listed(found.value)]
    implied = edges(e for e in events if one(e).get("type") in ("track", "page"))
    return Taken([found.encode(e) for e in events], _keys(found, request), [found.encode(e) for e in implied])


def take_profiles(request: Request) -> Taken:
    """What a request to /engage brought: an identify for each update."""
    found = _found(request.body)
    return Taken([found.encode(_profile(update, request)) for update in listed(found.value)], _keys(found, request))


def answer(request: Request, receipts: Sequence[Receipt]) -> Answer:
    """1 where any event is valid, else 0; in JSON and with the reason where the request is `verbose`."""
    asked = request.query
    told = [f"{r.reason}: {r.detail}" for r in receipts if _failed(r)]
    status = 0 if told and len(told) == len(receipts) else 1
    if asked.get("verbose") == "1":
        return Answer(encode({"status": status, "error": None if status else told[0], "receipts": receipts}))
    if asked.get("img") == "1":
        return Answer(GIF, content_type=b"image/gif")
    if request.path == "/import" and "data" not in asked:
        return _imported(asked.get("strict") != "0", receipts)
    return Answer(str(status).encode(), content_type=b"text/plain; charset=utf-8")


def refusal(refused: Refused) -> Answer:
    """A request that was not taken: `status` 0 and `error` for Mixpanel's SDKs, `code` and `message` for people."""
    problem = refused.problem
    told = {"status": 0, "error": problem.message, "code": problem.code, "message": problem.message}
    return Answer(encode(told), refused.status, headers=refused.headers)


def _imported(strict: bool, receipts: Sequence[Receipt]) -> Answer:
    """The answer of /import to an array or lines of JSON; 400 where any event was refused, unless strict=0."""
    failed = [
        {"index": n, "insert_id": r.message_id, "field": r.reason, "message": r.detail}
        for n, r in enumerate(receipts)
        if _failed(r)
    ]
    told: dict[str, Any] = {
        "code": 200,
        "status": "OK",
        "num_records_imported": len(receipts) - len(failed),
        "receipts": receipts,
    }
    if failed and strict:
        error = "some data points in the request failed validation"
        told |= {"code": 400, "status": "Bad Request", "error": error, "failed_records": failed}
    return Answer(encode(told), told["code"])


def _failed(receipt: Receipt) -> bool:
    """Whether to say that an event is wrong; one whose person opted out, or was erased, is not."""
    return receipt.status == "refused" and receipt.reason not in (OPTED_OUT, ERASED)


def _found(text: bytes) -> Json:
    """The one object or the array that came, or the objects of its lines."""
    try:
        found = decoded(text)
    except Refused:
        if not (text.startswith(b"{") and b"\n" in text):
            raise
        found = decoded(b"[%s]" % b",".join(line for line in text.splitlines() if line.strip()))
    if type(found.value) not in (dict, list):
        raise Refused(400, "invalid_request", "expected an object or an array of them", "$")
    if (came := len(listed(found.value))) > MOST_EVENTS:
        raise Refused(400, "too_many_events", f"expected at most {MOST_EVENTS} events; came {came}", "$")
    return found


def _keys(found: Json, request: Request) -> list[str]:
    """Each token of the events, else what the query or form has."""
    objects = [one(e) for e in listed(found.value)]
    tokens = [o.get("$token") or one(o.get("properties")).get("token") for o in objects]
    shown = tokens if any(tokens) else [request.query.get(k) for k in ("token", "api_key")]
    return list(dict.fromkeys(key for key in shown if type(key) is str and key))


def _event(event: Any, request: Request) -> Any:
    """An event of the contract; what is no object, or has no object of properties, is left for it to refuse."""
    if type(event) is not dict or type(event.get("properties") or {}) is not dict:
        return {"type": "track"} | event if type(event) is dict else event
    properties = dict(event.get("properties") or {})
    came = {name: properties.pop(name, None) for name in IDS}
    name = event.get("event")
    kept = {
        "messageId": text_id(came["$insert_id"]) or fresh_id(),
        "timestamp": of_number(came["time"], request.received_us),
        "context": _context(properties, request),
    }
    if type(name) is str and name in _EDGES:
        return kept | _EDGES[name](came | properties)
    kept |= _ids(came["distinct_id"], came["$device_id"], came["$user_id"]) | {"properties": properties}
    if name == PAGE:
        return kept | {"type": "page", "name": properties.pop("current_page_title", None)}
    return kept | {"type": "track", "event": name}


def _profile(update: Any, request: Request) -> Any:
    if type(update) is not dict:
        return update
    context = _context({}, request)
    rest = {k: v for k, v in update.items() if k not in ("$token", "$distinct_id", "$time", "$set", "$ip")}
    return {
        "type": "identify",
        "messageId": fresh_id(),
        "timestamp": of_number(update.get("$time"), request.received_us),
        "traits": update.get("$set"),
        "context": context | {"mixpanel": rest} if rest else context,
    } | _ids(update.get("$distinct_id"), None, None)


def _ids(distinct: Any, device: Any, user: Any) -> dict[str, Any]:
    """distinct_id is the device's where it says so or is the same, else the user's."""
    distinct, device, user = text_id(distinct), text_id(device), text_id(user)
    if type(distinct) is str and distinct.startswith(DEVICE):
        device = device or distinct.removeprefix(DEVICE)
    elif user is None and distinct != device:
        user = distinct
    return {"userId": user, "anonymousId": device}


def _identify(came: dict[str, Any]) -> dict[str, Any]:
    user = text_id(came.get("$identified_id")) or text_id(came["$user_id"]) or text_id(came["distinct_id"])
    device = came.get("$anon_id") or came.get("$anon_distinct_id") or came["$device_id"]
    return {"type": "identify", "userId": user, "anonymousId": _device(device)}


def _alias(came: dict[str, Any]) -> dict[str, Any]:
    return {"type": "alias", "userId": text_id(came.get("alias")), "anonymousId": _device(came["distinct_id"])}


def _merge(came: dict[str, Any]) -> dict[str, Any]:
    """The device's id is the anonymous one, else the second."""
    ids = sorted(listed(came.get("$distinct_ids")), key=lambda i: str(i).startswith(DEVICE))
    if len(ids) != 2:
        return {"type": "alias", "$distinct_ids": ids}  # refused for this name
    return {"type": "alias", "userId": text_id(ids[0]), "anonymousId": _device(ids[1])}


_EDGES = {"$identify": _identify, "$create_alias": _alias, "$merge": _merge}


def _device(value: Any) -> Any:
    value = text_id(value)
    return value.removeprefix(DEVICE) if type(value) is str else value


def _context(properties: dict[str, Any], request: Request) -> dict[str, Any]:
    context = moved(properties, CONTEXT)
    if request.user_agent:
        context.setdefault("userAgent", request.user_agent)
    return context


KEYS = ("token", "api_key")
EVENTS = Dialect(LIMIT, take, answer, refusal, opened, key_parameters=KEYS, basic_is_key=False)
PROFILES = Dialect(LIMIT, take_profiles, answer, refusal, opened, key_parameters=KEYS, basic_is_key=False)
"""Basic authentication may be a service account of Mixpanel's instead."""
