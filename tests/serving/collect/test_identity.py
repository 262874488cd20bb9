"""Write keys that browsers hold: signed user ids, what is noted of an event's origin, and whose device it stays."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from feature_repo.contract.events import Event
from feature_repo.contract.origin import fingerprint, user_hash
from serving.app import App
from serving.auth import Keys

Ask = Callable[..., httpx.Response]
Make = Callable[..., App]
BROWSER, SECRET, OLD_SECRET = "b" * 32, "secret-" * 4, "older-secret-" * 2


@pytest.fixture
def app(make_collector: Make) -> App:
    """A server's key, a browser's key, and two secrets: one is being replaced by the other."""
    return make_collector(browser_keys=Keys((BROWSER,)), secrets=(SECRET, OLD_SECRET))


def event(kind: str = "track", **fields: Any) -> dict[str, Any]:
    named = {"event": "Clicked"} if kind == "track" else {}
    return {"type": kind, "messageId": "m1", "userId": "u1", "anonymousId": "a1"} | named | fields


def send(ask: Ask, app: App, key: str, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
    answer = ask(app, "POST", "/v1/batch", json={"batch": list(events), "writeKey": key})
    return [(r["status"], r.get("reason")) for r in answer.json()["receipts"]]


def origins(log: Any) -> list[Any]:
    return [e.context.get("firstmile") for e in log.events]


SIGNED = user_hash(SECRET, "u1")
PLACES = [
    {"context": {"userHash": SIGNED}}, {"traits": {"userHash": SIGNED}}, {"properties": {"userHash": SIGNED}},
    {"context": {"traits": {"userHash": SIGNED}}}, {"context": {"userHash": user_hash(OLD_SECRET, "u1")}},
]  # fmt: skip


@pytest.mark.parametrize("signed", PLACES)
@pytest.mark.parametrize("kind", ["track", "identify"])
def test_a_signed_user_id_is_taken_and_the_signature_is_not_kept(
    app: App, ask: Ask, log: Any, kind: str, signed: dict[str, Any]
) -> None:
    assert send(ask, app, BROWSER, event(kind, **signed)) == [("accepted", None)]
    assert origins(log) == [{"key": fingerprint(BROWSER), "browser": True, "verified": True}]
    assert (
        b"userHash" not in json.dumps([log.events[0].context, log.events[0].traits, log.events[0].properties]).encode()
    )


@pytest.mark.parametrize("kind", ["track", "identify", "page", "group", "alias"])
@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({}, "unsigned_user_id"), ({"userHash": 7}, "unsigned_user_id"), ({"userHash": ""}, "wrong_user_hash"),
        ({"userHash": "é"}, "wrong_user_hash"), ({"userHash": SIGNED.upper()}, "wrong_user_hash"),
        ({"userHash": user_hash(SECRET, "u2")}, "wrong_user_hash"),
        ({"userHash": user_hash("x" * 32, "u1")}, "wrong_user_hash"),
    ],
)  # fmt: skip
def test_a_user_id_that_is_not_signed_is_refused_of_a_browser(
    app: App, ask: Ask, log: Any, quarantine: Any, kind: str, context: dict[str, Any], reason: str
) -> None:
    assert send(ask, app, BROWSER, event(kind, context=context)) == [("refused", reason)]
    assert not log.events
    (kept,) = list(type(quarantine)(quarantine.folder).read())
    assert kept.reason == reason
    if isinstance(given := context.get("userHash"), str) and given:
        assert given not in json.dumps(kept.raw if isinstance(kept.raw, str) else kept.raw.decode(), ensure_ascii=False)


def test_servers_and_anonymous_visitors_need_no_signature(app: App, ask: Ask, log: Any, keys: Any) -> None:
    assert send(ask, app, keys.write, event()) == [("accepted", None)]
    assert send(ask, app, BROWSER, event(userId=None)) == [("accepted", None)]
    assert origins(log) == [{"key": fingerprint(keys.write)}, {"key": fingerprint(BROWSER), "browser": True}]


def test_without_keys_nothing_is_noted(make_collector: Make, ask: Ask, log: Any) -> None:
    assert send(ask, make_collector(keys=()), "", event()) == [("accepted", None)]
    assert origins(log) == [None]


def test_what_a_sender_notes_itself_is_left_out(app: App, ask: Ask, log: Any, make_collector: Make) -> None:
    forged = {"firstmile": {"key": "0" * 12, "verified": True}, "page": {"path": "/"}}
    send(ask, app, BROWSER, event(userId=None, context=forged))
    send(ask, make_collector(keys=()), "", event(userId=None, context=forged))
    assert [e.context for e in log.events] == [
        {"page": {"path": "/"}, "firstmile": {"key": fingerprint(BROWSER), "browser": True}}, {"page": {"path": "/"}},
    ]  # fmt: skip


def test_a_request_with_a_browsers_key_is_a_browsers(app: App, ask: Ask, log: Any, keys: Any) -> None:
    sent = {"batch": [event() | {"writeKey": keys.write}, event() | {"writeKey": BROWSER}]}
    receipts = ask(app, "POST", "/v1/batch", json=sent).json()["receipts"]
    assert [r["reason"] for r in receipts] == ["unsigned_user_id"] * 2


def test_mixpanel_signs_with_a_super_property_and_its_implied_links_too(app: App, ask: Ask, log: Any) -> None:
    properties = {"token": BROWSER, "$user_id": "u1", "$device_id": "a1", "$insert_id": "i1"}
    ask(app, "POST", "/track", json=[{"event": "Clicked", "properties": properties}])
    assert not log.events
    signed = properties | {"userHash": SIGNED}
    ask(app, "POST", "/track", json=[{"event": "Clicked", "properties": signed}])
    assert [(e.type, e.user_id, e.anonymous_id) for e in log.events] == [
        ("track", "u1", "a1"),
        ("identify", "u1", "a1"),
    ]
    profile = {"$token": BROWSER, "$distinct_id": "u1", "$set": {"plan": "pro", "userHash": SIGNED}}
    ask(app, "POST", "/engage", json=[profile])
    assert log.events[-1].traits == {"plan": "pro"}


def test_ga4_signs_with_a_user_property(app: App, ask: Ask, log: Any) -> None:
    sent = {"client_id": "a1", "user_id": "u1", "events": [{"name": "Clicked"}]}
    ask(app, "POST", f"/mp/collect?api_secret={BROWSER}", json=sent)
    assert not log.events
    ask(
        app,
        "POST",
        f"/mp/collect?api_secret={BROWSER}",
        json=sent | {"user_properties": {"userHash": {"value": SIGNED}}},
    )
    assert [e.type for e in log.events] == ["track", "identify"]


def claimed(log: Any) -> list[tuple[str, str | None]]:
    return [(e.user_id, e.anonymous_id) for e in log.events]


@pytest.mark.parametrize("kind", ["identify", "alias"])
def test_the_first_claim_of_a_device_holds_for_browsers(
    make_collector: Make, ask: Ask, log: Any, keys: Any, kind: str
) -> None:
    def claims(devices: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for e in log.events:
            if isinstance(e, Event) and e.anonymous_id and e.user_id:
                found.setdefault(e.anonymous_id, set()).add(e.user_id)
        return found

    app = make_collector({"claims": claims}, browser_keys=Keys((BROWSER,)))
    ids = {"previousId": "a1"} if kind == "alias" else {}
    for user, key in (
        ("first", BROWSER),
        ("second", BROWSER),
        ("first", BROWSER),
        ("third", keys.write),
        ("third", BROWSER),
    ):
        send(ask, app, key, event(kind, userId=user, messageId=f"{user}-{key[0]}", **ids))
    assert claimed(log) == [("first", "a1"), ("second", None), ("first", "a1"), ("third", "a1"), ("third", "a1")]
    assert [o.get("unlinked") for o in origins(log)] == [None, "a1", None, None, None]


def test_of_two_claims_in_one_batch_or_at_once_the_first_holds(make_collector: Make, ask: Ask, log: Any) -> None:
    app = make_collector(browser_keys=Keys((BROWSER,)))
    send(
        ask,
        app,
        BROWSER,
        event("identify"),
        event("identify", userId="u2"),
        event("identify", userId="u1", messageId="m2"),
    )
    assert claimed(log) == [("u1", "a1"), ("u2", None), ("u1", "a1")]
