"""The collectors' part of the OpenAPI document. The bodies are the SDKs': their own documentation describes them."""

from typing import Any

import msgspec

from serving.collect import ga4, mixpanel, segment
from serving.collect.dialect import RECEIPTS
from serving.collect.door import Receipt
from serving.collect.request import KB
from serving.collect.routes import ROUTES, SETTINGS, SNIPPET

Json = dict[str, Any]
SETTINGS_PATH = "{writeKey}".join(SETTINGS)
QUARANTINE = "/v1/quarantine"

ABOUT = """Events are taken from the SDKs of Segment, RudderStack and Mixpanel and from GA4's Measurement Protocol,
unmodified, and each gets a receipt: in the field `receipts` of JSON answers, and as counts in the header
Firstmile-Receipts of all."""

SECURITY: dict[str, Json] = {
    "writeKey": {
        "type": "http",
        "scheme": "basic",
        "description": "One of the keys in FIRSTMILE_WRITE_KEYS as user, without password; or in the body as "
        "`writeKey` (Segment) or `token` (Mixpanel). Without keys: open, on loopback only.",
    },
    "apiSecret": {"type": "apiKey", "in": "query", "name": "api_secret", "description": "The same, as GA4 sends it."},
}

REFUSALS = {
    "400": "No event can be got out of it.",
    "401": "No valid write key.",
    "403": "A web page of an undeclared origin; or there are no write keys, and the caller is on another machine.",
    "405": "Another method.",
    "408": "The body took too long to arrive.",
    "413": "The body is too long, or would be once unpacked.",
    "429": "More events a second than one write key may send.",
    "503": "The service is starting, or cannot store events now.",
}


class Receipts(msgspec.Struct):
    """What became of the events, beside what the SDK looks at."""

    receipts: list[Receipt]


class ImportRefused(msgspec.Struct):
    """What /import answers where any event was refused, unless strict=0; the others were taken."""

    code: int
    status: str
    error: str
    num_records_imported: int
    failed_records: list[dict[str, Any]]
    receipts: list[Receipt]


class GA4Debug(msgspec.Struct):
    """What would be refused, in the form of GA4's validation server."""

    validationMessages: list[dict[str, str]]
    receipts: list[Receipt]


def paths() -> Json:
    """Every collecting route."""
    found: Json = {}
    for path, dialect in ROUTES.items():
        if dialect is segment.PIXEL:
            found[path] = {"get": _operation(path, "get", "An event as an image's address.", "image/gif")}
        elif dialect is segment.POST:
            found[path] = {"post": _operation(path, "post", _summary(path), "Receipts", _segment_limit())}
        elif dialect in (mixpanel.EVENTS, mixpanel.PROFILES):
            what = (
                "Profiles, as Mixpanel's SDKs send them."
                if path == "/engage"
                else "Events, as Mixpanel's SDKs send them."
            )
            limit = f"At most {mixpanel.LIMIT // KB // KB} MB and {mixpanel.MOST_EVENTS:,} events."
            found[path] = {
                m: _mixpanel(_operation(path, m, what, "Receipts", limit if m == "post" else ""))
                for m in ("get", "post")
            }
            if path == "/import":
                found[path]["post"]["responses"]["400"]["content"] = _either("Problem", "ImportRefused")
        else:
            what = "Judge events and keep nothing." if dialect.dry else "Events of GA4's Measurement Protocol."
            limit = f"At most {ga4.LIMIT // 1000} kB and {ga4.MOST_EVENTS} events."
            found[path] = {"post": _operation(path, "post", what, "GA4Debug" if dialect.dry else None, limit)}
    return found | {
        SETTINGS_PATH: {"get": _settings()},
        SNIPPET: {"get": _snippet()},
        QUARANTINE: {"get": _quarantine()},
    }


def _summary(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    call = segment.CALLS.get(name, name)
    what = "Up to 2,500 events" if call == "batch" else f"One {call} event"
    return f"{what}, as the SDKs of Segment and RudderStack send {'them' if call == 'batch' else 'it'}."


def _segment_limit() -> str:
    return f"At most {segment.LIMIT // KB} KB, and 32 KB an event; gzip or not."


def _operation(path: str, method: str, summary: str, answers: str | None, limit: str = "") -> Json:
    """answers: a schema's name, a media type, or None for an answer without a body."""
    operation: Json = {
        "operationId": method + "".join(part.title() for part in path.replace("/", " ").split()),
        "tags": ["collect"],
        "summary": summary,
        "security": [{"apiSecret": []}, {}] if path.endswith("/collect") else [{"writeKey": []}, {}],
        "responses": {"200" if answers else "204": _answer(answers)}
        | {status: {"description": what, "content": _ref("Problem")} for status, what in REFUSALS.items()},
    }
    if method == "post":
        operation["requestBody"] = {"required": True, "description": limit, "content": {"*/*": {"schema": {}}}}
    else:
        operation["parameters"] = [parameter("data", "query", "JSON, in base64 or not.")]
    return operation


def _mixpanel(operation: Json) -> Json:
    """The operation with the other forms of its answer: 1 or 0 without `verbose`, an image with `img`."""
    operation["responses"]["200"]["content"] |= {
        "text/plain": {"schema": {"type": "string", "enum": ["1", "0"]}},
        "image/gif": {"schema": {"type": "string"}},
    }
    return operation


def _answer(answers: str | None) -> Json:
    counts = {"schema": {"type": "string", "examples": ["accepted=2, duplicate=0, refused=1;unknown_event=1"]}}
    answer: Json = {"description": "Taken; the receipts say what became of each event."}
    answer["headers"] = {RECEIPTS.decode().title(): counts}
    if answers:
        answer["content"] = {answers: {"schema": {"type": "string"}}} if "/" in answers else _ref(answers)
    return answer


def _settings() -> Json:
    return {
        "operationId": "segmentSettings",
        "tags": ["collect"],
        "summary": "What @segment/analytics-next asks for when it loads.",
        "security": [],
        "parameters": [parameter("writeKey", "path", "The write key.")],
        "responses": {"200": {"description": "This server.", "content": {"application/json": {"schema": {}}}}},
    }


def _snippet() -> Json:
    script = {"description": "JavaScript.", "content": {"text/javascript": {"schema": {"type": "string"}}}}
    return {
        "operationId": "snippet",
        "tags": ["collect"],
        "summary": "A browser snippet that sends pages, clicks and forms.",
        "security": [],
        "responses": {"200": script},
    }


def _quarantine() -> Json:
    refusals = {"401": "No valid server key.", "422": "Another limit.", "503": "The service is starting."}
    return {
        "operationId": "quarantine",
        "tags": ["collect"],
        "summary": "The refused events, and how many there are by reason.",
        "security": [{"serverKey": []}, {}],
        "parameters": [
            parameter("limit", "query", "How many to show, the newest; 100 unless told, at most 1,000."),
            parameter("reason", "query", "Only those refused for this."),
        ],
        "responses": {"200": {"description": "What the quarantine holds.", "content": _ref("RefusedEvents")}}
        | {status: {"description": what, "content": _ref("Problem")} for status, what in refusals.items()},
    }


def parameter(name: str, place: str, description: str) -> Json:
    """A parameter of an operation."""
    return {
        "name": name, "in": place, "required": place == "path", "description": description, "schema": {"type": "string"}
    }  # fmt: skip


def _either(*schemas: str) -> Json:
    return {"application/json": {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas]}}}


def _ref(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
