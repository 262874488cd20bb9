"""Google Analytics 4's Measurement Protocol: POST /mp/collect, and /debug/mp/collect, which judges and keeps nothing.

{"client_id": …, "user_id": …, "timestamp_micros": …, "user_properties": {name: {"value": …}}, "events": [event, …]}
event: {"name": …, "params": {…}, "timestamp_micros": …}

client_id is the anonymousId; page_view and screen_view are a page and a screen, all others a track of their name.
"""

from collections.abc import Sequence
from typing import Any

from serving.asgi import Answer, Refused
from serving.collect.dialect import Dialect, Taken, digest, edges, encode, fresh_id, moved, text_id
from serving.collect.door import Receipt
from serving.collect.request import Request, decoded, one
from serving.collect.times import rfc3339

LIMIT = 130 * 1000
MOST_EVENTS = 25
SHOWN = {"page_view": ("page", "page_title"), "screen_view": ("screen", "screen_name")}
"""Events that are of a type of their own, and the parameter that is their name."""
PARAMS = {"page_location": ("page", "url"), "page_referrer": ("page", "referrer")}
DEVICE = {
    "category": ("device", "type"),
    "model": ("device", "model"),
    "brand": ("device", "manufacturer"),
    "browser": ("browser",),
    "operating_system": ("os", "name"),
    "operating_system_version": ("os", "version"),
    "language": ("locale",),
}
LOCATION = {"country_id": ("location", "country"), "region_id": ("location", "region"), "city": ("location", "city")}
"""Where parameters, `device` and `user_location` go in the context."""
CODES = {
    "missing_field": "VALUE_REQUIRED",
    "missing_id": "VALUE_REQUIRED",
    "empty_id": "VALUE_REQUIRED",
    "unknown_event": "NAME_INVALID",
    "too_large": "VALUE_OUT_OF_BOUNDS",
    "too_long": "VALUE_OUT_OF_BOUNDS",
    "number_out_of_range": "VALUE_OUT_OF_BOUNDS",
    "timestamp_in_future": "VALUE_OUT_OF_BOUNDS",
    "timestamp_too_old": "VALUE_OUT_OF_BOUNDS",
    "too_many_keys": "EXCEEDED_MAX_ENTITIES",
}
"""Reasons in the words of GA4's validation; all others are VALUE_INVALID."""


def take(request: Request) -> Taken:
    """What a POST brought.

    Raises:
        Refused: 400, no event can be got out of it.
    """
    found = decoded(request.body)
    if type(found.value) is not dict:
        raise Refused(400, "invalid_request", "expected a JSON object", "$")
    sent = found.value.get("events")
    if type(sent) is not list:
        raise Refused(400, "invalid_request", "expected an array of events", "$.events")
    if len(sent) > MOST_EVENTS:
        raise Refused(400, "too_many_events", f"expected at most {MOST_EVENTS} events; came {len(sent)}", "$.events")
    events = [_event(event, place, found.value, request) for place, event in enumerate(sent)]
    keys = [key] if (key := request.query.get("api_secret")) else []
    return Taken([found.encode(e) for e in events], keys, [found.encode(e) for e in edges(events)])


def answer(request: Request, receipts: Sequence[Receipt]) -> Answer:
    """204, whatever became of the events."""
    return Answer(b"", 204)


def answer_debug(request: Request, receipts: Sequence[Receipt]) -> Answer:
    """What would be refused here, in the form of GA4's validation server."""
    messages = [
        {
            "fieldPath": f"events[{place}]",
            "description": f"{r.reason}: {r.detail}",
            "validationCode": CODES.get(r.reason or "", "VALUE_INVALID"),
        }
        for place, r in enumerate(receipts)
        if r.status == "refused"
    ]
    return Answer(encode({"validationMessages": messages, "receipts": receipts}))


def _event(event: Any, place: int, whole: dict[str, Any], request: Request) -> Any:
    """An event of the contract; what is no object, or has no object of parameters, is left for it to refuse."""
    if type(event) is not dict or type(event.get("params") or {}) is not dict:
        return {"type": "track"} | event if type(event) is dict else event
    name, params = event.get("name"), dict(event.get("params") or {})
    anonymous = text_id(whole.get("client_id", whole.get("app_instance_id")))
    micros = event.get("timestamp_micros", whole.get("timestamp_micros"))
    kept = {
        "type": "track",
        "event": name,
        "messageId": fresh_id() if micros is None else "ga4-" + digest(anonymous, name, str(micros), params, place),
        "userId": text_id(whole.get("user_id")),
        "anonymousId": anonymous,
        "timestamp": _time(micros, request.received_us),
        "context": _context(params, whole, request),
        "properties": params,
        "traits": {k: one(v).get("value") for k, v in one(whole.get("user_properties")).items()},
    }
    if type(name) is str and name in SHOWN:
        kept["type"], called = SHOWN[name]
        kept["name"] = params.pop(called, None)
        del kept["event"]
    return kept


def _context(params: dict[str, Any], whole: dict[str, Any], request: Request) -> dict[str, Any]:
    """Where it was and on what, out of the parameters and what came with all events."""
    device, location = dict(one(whole.get("device"))), dict(one(whole.get("user_location")))
    context = moved(params, PARAMS) | moved(device, DEVICE) | moved(location, LOCATION)
    context |= {"library": {"name": "ga4"}}
    if type(consent := whole.get("consent")) is dict:
        context["consent"] = consent
    if request.user_agent:
        context["userAgent"] = request.user_agent
    return context


def _time(micros: Any, received_us: int) -> Any:
    """timestamp_micros, a number or its digits; when it came, where there is none."""
    if micros is None:
        return rfc3339(received_us)
    if type(micros) is str and micros.isascii() and micros.isdigit() and len(micros) < 20:
        micros = int(micros)
    return (rfc3339(micros) or micros) if type(micros) is int else micros


POST = Dialect(LIMIT, take, answer, key_parameters=("api_secret",), key_in_body=False)
DEBUG = Dialect(LIMIT, take, answer_debug, dry=True, key_parameters=("api_secret",), key_in_body=False)
