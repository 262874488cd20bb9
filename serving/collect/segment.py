"""Segment's and RudderStack's dialect: one event or a batch as JSON, a pixel, and the settings of the browser's SDK.

{"batch": [event, …], "sentAt": …, "writeKey": …, "context": {…}}     or one event, its type in the path
event: type messageId userId anonymousId timestamp|originalTimestamp sentAt event|name properties traits context
       and what the contract does not know: see `_event`
"""

import base64
from collections.abc import Sequence
from typing import Any

from serving.asgi import Answer, Refused
from serving.collect.dialect import Dialect, Taken, encode, fresh_id, set_path, text_id
from serving.collect.door import Receipt
from serving.collect.request import KB, Json, Request, decoded, one, unwrapped
from serving.collect.times import behind_us, corrected

CALLS = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias", "b": "batch"}
"""The browser SDK's short names, and the routes that they stand for."""
LIMIT = 500 * KB
MOST_EVENTS = 2_500
KEPT = ("schemaVersion", "properties", "traits")
"""Fields that are the contract's as they are; `event` is for a track, and `name` for a page or screen."""
NAMED = {"track": ("event",), "page": ("name",), "screen": ("name",)}
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


def take(request: Request) -> Taken:
    """What POST /v1/<call> brought.

    Raises:
        Refused: 400, no event can be got out of it.
    """
    found = decoded(request.body)
    call = _call(request)
    if type(found.value) is not dict:
        raise Refused(400, "invalid_request", "expected a JSON object", "$")
    sent: Any = [found.value]
    if call == "batch":
        sent = found.value.get("batch")
        if type(sent) is not list:
            raise Refused(400, "invalid_request", "expected an array of events", "$.batch")
        if len(sent) > MOST_EVENTS:
            raise Refused(400, "too_many_events", f"expected at most {MOST_EVENTS} events; came {len(sent)}", "$.batch")
    return Taken([_raw(event, call, found, request) for event in sent], _keys(request, [found.value, *sent]))


def take_pixel(request: Request) -> Taken:
    """What GET /v1/pixel/<call>?data=<base64 of an event> brought."""
    found = decoded(unwrapped(request.query.get("data", "{}").encode()))
    return Taken([_raw(found.value, _call(request), found, request)], _keys(request, [found.value]))


def answer(request: Request, receipts: Sequence[Receipt]) -> Answer:
    """200, as Segment and Rudder do for refused events too: what an SDK sends again would be refused again."""
    return Answer(encode({"success": True, "receipts": receipts}))


def answer_pixel(request: Request, receipts: Sequence[Receipt]) -> Answer:
    """A transparent image of one pixel."""
    return Answer(GIF, content_type=b"image/gif", headers=((b"cache-control", b"no-store"),))


def settings(write_key: str, host: str, protocol: str) -> Answer:
    """What @segment/analytics-next wants to know when it loads: that there is one integration, this server.

    host: where the browser reached us, with any path before /v1.
    """
    segment = {
        "apiKey": write_key,
        "apiHost": f"{host}/v1",
        "protocol": protocol,
        "addBundledMetadata": False,
        "unbundledIntegrations": [],
    }
    found = {
        "integrations": {"Segment.io": segment},
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }
    return Answer(encode(found), headers=((b"cache-control", b"no-cache"),))


def _call(request: Request) -> str:
    name = request.path.rsplit("/", 1)[-1]
    return CALLS.get(name, name)


def _keys(request: Request, objects: list[Any]) -> list[str]:
    """The write keys of the query, the body and its events; the header's is looked at for every dialect."""
    shown = [request.query.get("writeKey"), *(one(o).get("writeKey") for o in objects)]
    return list(dict.fromkeys(key for key in shown if type(key) is str and key))


def _raw(event: Any, call: str, found: Json, request: Request) -> bytes:
    """An event as JSON of the contract; what is no object stays as it is, for the contract to refuse."""
    if type(event) is not dict:
        return found.encode(event)
    return found.encode(_event(event, call, one(found.value), request))


def _event(event: dict[str, Any], call: str, whole: dict[str, Any], request: Request) -> dict[str, Any]:
    """An event of the contract. channel and groupId go into context, a page's category into properties.

    Of what belongs to the delivery (integrations, sentAt, receivedAt, writeKey, _metadata, …) nothing is kept.
    """
    kind = event.get("type") if call == "batch" else call
    named = NAMED.get(kind, ()) if type(kind) is str else ()
    kept = {"type": kind} | {field: event[field] for field in (*KEPT, *named) if field in event}
    kept["messageId"] = text_id(event.get("messageId")) or fresh_id()
    behind = behind_us(event.get("sentAt") or whole.get("sentAt"), request.received_us)
    time = event.get("timestamp") or event.get("originalTimestamp")
    kept["timestamp"] = corrected(time, behind, request.received_us)
    for field in ("userId", "anonymousId"):
        kept[field] = text_id(event.get(field))
    if kind == "alias":
        kept["anonymousId"] = text_id(event.get("previousId")) or kept["anonymousId"]
    if event.get("category") is not None and type(event.get("properties") or {}) is dict:
        kept["properties"] = {"category": event["category"]} | (event.get("properties") or {})
    context = kept["context"] = _context(event, whole, request)
    if kind == "identify" and type(context) is dict and type(context.get("traits")) is dict:
        above = context.pop("traits")
        kept["traits"] = above | event["traits"] if type(event.get("traits")) is dict else event.get("traits") or above
    return kept


def _context(event: dict[str, Any], whole: dict[str, Any], request: Request) -> Any:
    """The event's context over the batch's, with what the contract has no place for."""
    context = event.get("context")
    if context is not None and type(context) is not dict:
        return context
    context = (one(whole.get("context")) if whole is not event else {}) | (context or {})
    for value, path in (
        (event.get("channel"), ("channel",)),
        (event.get("groupId"), ("groupId",)),
        (request.user_agent, ("userAgent",)),
    ):
        if value is not None:
            set_path(context, path, value)
    return context


POST = Dialect(LIMIT, take, answer, key_parameters=("writeKey",))
PIXEL = Dialect(LIMIT, take_pixel, answer_pixel, key_parameters=("writeKey",))
