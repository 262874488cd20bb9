"""The OpenAPI 3.1 document, made from the structs in schema.py."""

from functools import lru_cache
from typing import Any

import msgspec

from serving.collect import document as collect
from serving.collect.refused import RefusedEvents
from serving.console.files import PATH as CONSOLE
from serving.console.playbook import PATH as PLAYBOOK
from serving.console.playbook import PlaybookNow
from serving.erasing import Erased
from serving.schema import BatchRequest, BatchResponse, DecideRequest, Decision, Problem
from serving.segments.channels.event import SegmentChanged
from serving.segments.channels.overview import SegmentsNow
from serving.segments.channels.running import PATH as SEGMENTS
from serving.segments.channels.running import STREAM
from serving.users import ANONYMOUS_USERS, LIMIT, MOST, OPT_OUT, PATH, WHY, Held
from serving.why.answers import Why

Json = dict[str, Any]
VERSION = "1"

REFUSALS = {
    "400": "The body is no JSON.",
    "401": "No valid server key.",
    "403": "The service has no server keys and the caller is on another machine.",
    "405": "Another method than POST.",
    "413": "The body is too long.",
    "415": "Another content type than application/json, or a compressed body.",
    "422": "JSON, but no such request: `where` says which part.",
    "503": "The service is starting.",
}

ABOUT = """Ask what a person's onboarding shows next.

A decision is always given: for a person nobody has seen, and while the store or the model is down, it is the default
journey, and `reasons` say so. Times are UTC. Unknown fields are refused."""


@lru_cache
def document() -> Json:
    """The whole document: every route that the service answers, Bento's own among them."""
    _, components = msgspec.json.schema_components(
        (
            DecideRequest,
            BatchRequest,
            Decision,
            BatchResponse,
            Problem,
            collect.Receipts,
            collect.GA4Debug,
            collect.ImportRefused,
            RefusedEvents,
            Held,
            Why,
            Erased,
            SegmentsNow,
            SegmentChanged,
            PlaybookNow,
        ),
        ref_template="#/components/schemas/{name}",
    )
    one = [{"required": [ids]} for ids in ("userId", "anonymousId")]
    components["DecideRequest"]["anyOf"] = one
    some = [{"required": [ids], "properties": {ids: {"minItems": 1}}} for ids in ("userIds", "anonymousIds")]
    components["BatchRequest"]["anyOf"] = some
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Firstmile",
            "version": VERSION,
            "description": f"{ABOUT}\n\n{collect.ABOUT}",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "decisions", "description": "What to show."},
            {"name": "collect", "description": "What happened."},
            {"name": "users", "description": "What is held of a person, and its removal."},
            {"name": "segments", "description": "Who is where, and who moves."},
            {"name": "playbook", "description": "What decides."},
            {"name": "service", "description": "The state of the process; only /metrics needs a key."},
        ],
        "paths": _decisions() | collect.paths() | _users() | _segments() | _playbook() | _service(),
        "webhooks": {"segment.changed": {"post": _webhook()}},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "serverKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the keys in FIRSTMILE_SERVER_KEYS; without keys: open, on loopback only.",
                },
                **collect.SECURITY,
            },
        },
    }


def _decisions() -> Json:
    return {
        "/v1/decide": _post(
            "decide", "Decide for one user, by userId or anonymousId.", "DecideRequest", "Decision", "At most 64 KiB."
        ),
        "/v1/decide/batch": _post(
            "decideBatch",
            "Decide for up to 1,000 users at once.",
            "BatchRequest",
            "BatchResponse",
            "At most 1 MiB.",
        ),
    }


def _post(operation: str, summary: str, request: str, response: str, limit: str) -> Json:
    refusals = {status: {"description": what, "content": _json("Problem")} for status, what in REFUSALS.items()}
    refusals["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    refusals["405"]["headers"] = {"Allow": {"schema": {"type": "string"}}}
    return {
        "post": {
            "operationId": operation,
            "tags": ["decisions"],
            "summary": summary,
            "security": [{"serverKey": []}, {}],
            "requestBody": {"required": True, "description": limit, "content": _json(request)},
            "responses": {"200": {"description": "Decided.", "content": _json(response)}} | refusals,
        }
    }


def _users() -> Json:
    by_user = collect.parameter("id", "path", "A user id.")
    by_device = collect.parameter("id", "path", "An anonymous id that is linked to no user: else ask by user id.")
    return _users_by(PATH, "", by_user) | _users_by(ANONYMOUS_USERS, "Anonymous", by_device)


def _users_by(path: str, suffix: str, who: Json) -> Json:
    """The routes of one kind of id; suffix: of their operations' names."""

    def told(operation: str, summary: str, parameters: list[Json]) -> Json:
        return _user(operation + suffix, summary, parameters)

    pages = [
        collect.parameter("limit", "query", f"Most events, and most decisions; {LIMIT:,} unless told, up to {MOST:,}."),
        collect.parameter("after", "query", "Events after this position: `next.after` of the page before."),
        collect.parameter("decisionsAfter", "query", "Decisions after this id: `next.decisionsAfter`."),
        collect.parameter("refusedAfter", "query", "Refused events after this place: `next.refusedAfter`."),
    ]
    refusals = {
        "401": REFUSALS["401"],
        "403": REFUSALS["403"],
        "405": "Another method than GET and DELETE.",
        "409": "This anonymous id belongs to somebody who is known by a user id.",
        "422": "No such id or parameter can be.",
        "503": "The service is starting, another process takes the events in, or nothing can be written.",
    }
    unknown = {"404": "Nobody is known by that id.", "410": "This person was erased."}
    wished = {"204": {"description": "Recorded."}} | _problems(
        {s: refusals[s] for s in ("401", "403", "405", "422", "503")}
    )
    why = _described("In plain words.", "Why")
    why["content"] |= {"text/html": {"schema": {"type": "string"}}}
    gone = {"200": _described("Nothing is left.", "Erased")}
    gone |= {"202": _described("Something may still be there: `pending` says where, and until when.", "Erased")}
    return {
        path + "{id}": {
            "get": told("export", "What is held of a person.", [who, *pages])
            | {"responses": {"200": _described("A page.", "Held")} | _problems(refusals | unknown)},
            "delete": _user(
                "erase" + suffix, "Erase a person and their aliases from every store; again is as once.", [who]
            )
            | {"responses": gone | _problems(refusals)},
        },
        path + "{id}" + OPT_OUT: {
            "put": _user(
                "optOut" + suffix, "Collect nothing more of a person, and show them the default journey.", [who]
            )
            | {"responses": wished},
            "delete": told("optIn", "Take that back.", [who]) | {"responses": wished},
        },
        path + "{id}" + WHY: {
            "get": told("why", "What a person was shown last and why, for the person; HTML by Accept.", [who])
            | {"responses": {"200": why} | _problems(refusals | unknown)}
        },
    }


def _user(operation: str, summary: str, parameters: list[Json]) -> Json:
    told = {"operationId": operation, "tags": ["users"], "summary": summary}
    return told | {"security": [{"serverKey": []}, {}], "parameters": parameters}


def _segments() -> Json:
    filters = [
        collect.parameter("user", "query", "Only the changes of the user with this id."),
        collect.parameter("anonymousId", "query", "Only the changes of this anonymous user; not with `user`."),
        collect.parameter("segment", "query", "Only changes of this segment."),
        collect.parameter("after", "query", "Changes after this `seq`; Last-Event-ID, where it is given, counts more."),
        collect.parameter("Last-Event-ID", "header", "The id of the last event that was read: `seq`."),
    ]
    refusals = {
        "401": REFUSALS["401"],
        "403": REFUSALS["403"],
        "405": "Another method than GET.",
        "503": "The service is starting or ending, another process follows the segments, or too many read the stream.",
    }
    events = (
        "Server-sent events `segment.changed`, each a SegmentChanged; `reset` where too much was missed to be sent."
    )
    stream: Json = {"description": events, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    told = {"tags": ["segments"], "security": [{"serverKey": []}, {}]}
    now: Json = {"operationId": "segments", "summary": "How many people are in each segment, and the last changes."}
    follow: Json = {"operationId": "followSegments", "summary": "Changes as they happen.", "parameters": filters}
    positions = {"422": "No such position or user can be."}
    return {
        SEGMENTS: {"get": now | told | {"responses": {"200": _described("Now.", "SegmentsNow")} | _problems(refusals)}},
        STREAM: {"get": follow | told | {"responses": {"200": stream} | _problems(refusals | positions)}},
    }


def _playbook() -> Json:
    refusals = {s: REFUSALS[s] for s in ("401", "403", "503")} | {"405": "Another method than GET."}
    asked: Json = {
        "operationId": "playbook",
        "tags": ["playbook"],
        "summary": "Rules, elements and experiments that decide now, in words.",
        "security": [{"serverKey": []}, {}],
        "responses": {"200": _described("Now.", "PlaybookNow")} | _problems(refusals),
    }
    return {PLAYBOOK: {"get": asked}}


def _webhook() -> Json:
    signed = "Signed as Standard Webhooks 1.0 says: https://www.standardwebhooks.com"
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "summary": "Somebody entered or left a segment: sent to the endpoints in FIRSTMILE_WEBHOOKS.",
        "parameters": [collect.parameter(name, "header", signed) for name in names],
        "requestBody": {"required": True, "content": _json("SegmentChanged")},
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "Send nothing more here."},
            "default": {"description": "Not taken: it is sent again."},
        },
    }


def _described(what: str, schema: str) -> Json:
    return {"description": what, "content": _json(schema)}


def _problems(refusals: dict[str, str]) -> Json:
    return {status: _described(what, "Problem") for status, what in refusals.items()}


def _service() -> Json:
    text, html, data = "text/plain", "text/html", "application/json"
    starting = {"503": {"description": "Not yet."}}
    return {
        "/": _get("index", "To /docs.", None, status="307"),
        "/docs": _get("docs", "This document for people.", html),
        CONSOLE: _get("console", "Segments, people, rules and experiments, for people.", html),
        CONSOLE + "/demo": _get("demo", "A small product whose onboarding adapts, for people.", html),
        CONSOLE + "/{file}": _console_file(),
        "/openapi.json": _get("openapi", "This document.", data),
        "/healthz": _get("healthz", "The process is alive (answered by Bento).", text),
        "/livez": _get("livez", "The same, by another name (answered by Bento).", text),
        "/readyz": _get(
            "readyz", "Ready to decide: the first look for a champion is over (answered by Bento).", text, starting
        ),
        "/metrics": _metrics(),
        "/schema.json": _get("schema", "Bento's description of its service (answered by Bento).", data),
    }


def _metrics() -> Json:
    refusals = {status: REFUSALS[status] for status in ("401", "403", "503")} | {"405": "Another method than GET."}
    found = _get("metrics", "Counts and durations, in Prometheus' text format.", "text/plain", _problems(refusals))
    found["get"]["security"] = [{"serverKey": []}, {}]
    return found


def _console_file() -> Json:
    found = _get("consoleFile", "A file that these pages load.", "text/plain", {"404": {"description": "None such."}})
    found["get"]["parameters"] = [collect.parameter("file", "path", "A style sheet or a script.")]
    return found


def _get(operation: str, summary: str, kind: str | None, more: Json | None = None, status: str = "200") -> Json:
    schema: Json = {"type": "object"} if kind == "application/json" else {"type": "string"}
    answer: Json = {"description": summary}
    if kind:
        answer["content"] = {kind: {"schema": schema}}
    responses = {status: answer} | (more or {})
    return {
        "get": {
            "operationId": operation,
            "tags": ["service"],
            "summary": summary,
            "security": [],
            "responses": responses,
        }
    }


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
