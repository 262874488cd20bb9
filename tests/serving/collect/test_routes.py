"""What stands between the network and a dialect: keys, rate, limits, origins, opting out; and the receipts."""

import asyncio
import base64
import gzip
import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from feature_repo.log.event_log import Busy
from serving.app import App
from serving.auth import Keys
from serving.collect import ga4, mixpanel, segment, snippet
from serving.collect.routes import METHODS, MIXPANEL, Options

Ask = Callable[..., httpx.Response]
Make = Callable[..., App]
OTHER = "o" * 32


def track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Clicked", "userId": "u1", "messageId": "m1"} | fields


def batch(key: str, *events: dict[str, Any]) -> dict[str, Any]:
    return {"batch": list(events) or [track()], "writeKey": key}


def mixpanel_event(key: str | None, name: str = "Clicked") -> dict[str, Any]:
    return {"event": name, "properties": {"token": key, "distinct_id": "u1", "$insert_id": "i1"}}


def basic(key: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def test_receipts_are_where_the_sdks_do_not_look(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    sent = batch(
        keys.write, track(), track(), track(messageId="m2", event="Nonsense"), track(messageId="m3", userId=None)
    )
    answer = ask(make_collector(), "POST", "/v1/batch", json=sent)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert [r["status"] for r in answer.json()["receipts"]] == ["accepted", "duplicate", "refused", "refused"]
    assert answer.json()["receipts"][0] == {"messageId": "m1", "status": "accepted"}
    assert answer.json()["receipts"][3]["detail"].startswith("expected of track userId or anonymousId")
    assert answer.headers["firstmile-receipts"] == "accepted=1, duplicate=1, refused=2;missing_id=1;unknown_event=1"
    assert [e.message_id for e in log.events] == ["m1"]


@pytest.mark.parametrize("path", MIXPANEL)
def test_mixpanels_own_addresses_end_in_a_slash(make_collector: Make, ask: Ask, keys: Any, log: Any, path: str) -> None:
    profile = {"$token": keys.write, "$distinct_id": "u1", "$set": {"plan": "pro"}}
    sent = profile if path == "/engage" else mixpanel_event(None)
    answer = ask(make_collector(), "POST", f"{path}/?verbose=1", json=[sent], headers=basic(keys.write))
    assert answer.status_code == 200 and len(log.events) == 1
    assert ask(make_collector(), "POST", f"{path}//", json=[sent]).status_code == 404


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t"])
def test_one_event_a_request(make_collector: Make, ask: Ask, keys: Any, path: str, log: Any) -> None:
    answer = ask(make_collector(), "POST", path, json=track(), headers=basic(keys.write))
    assert [r["status"] for r in answer.json()["receipts"]] == ["accepted"]
    assert len(log.events) == 1


@pytest.mark.parametrize("call", [c for c in segment.CALLS.values() if c not in ("batch", "track")])
def test_every_call_has_its_routes(make_collector: Make, ask: Ask, keys: Any, call: str, log: Any) -> None:
    event = {"userId": "u1", "anonymousId": "a1", "previousId": "a1", "writeKey": keys.write}
    data = base64.urlsafe_b64encode(json.dumps(event).encode()).decode().rstrip("=")
    app = make_collector()
    assert ask(app, "POST", f"/v1/{call}", json=event).json()["receipts"][0]["status"] == "accepted"
    assert ask(app, "POST", f"/v1/{call[0]}", json=event).json()["receipts"][0]["status"] == "accepted"
    pixel = ask(app, "GET", f"/v1/pixel/{call}?data={data}")
    assert (pixel.headers["content-type"], pixel.content[:6]) == ("image/gif", b"GIF89a")
    assert pixel.headers["firstmile-receipts"] == "accepted=1, duplicate=0, refused=0"
    assert [e.type for e in log.events] == [call] * 3


WAYS = [
    ("POST", "/v1/batch", lambda k: {"json": batch(k)}),
    ("POST", "/v1/batch", lambda k: {"json": {"batch": [track()]}, "headers": basic(k)}),
    ("POST", "/v1/batch", lambda k: {"json": {"batch": [track(writeKey=k)]}}),
    ("POST", "/v1/t", lambda k: {"json": track(writeKey=k)}),
    ("POST", "/v1/track", lambda k: {"json": track(), "params": {"writeKey": k}}),
    ("GET", "/v1/pixel/track", lambda k: {"params": {"data": json.dumps(track(writeKey=k))}}),
    ("POST", "/track", lambda k: {"json": [mixpanel_event(k)]}),
    ("GET", "/track", lambda k: {"params": {"data": json.dumps(mixpanel_event(k))}}),
    ("POST", "/engage", lambda k: {"data": {"data": json.dumps({"$token": k, "$distinct_id": "u1", "$set": {}})}}),
    ("POST", "/import", lambda k: {"json": [mixpanel_event(None)], "headers": basic(k)}),
    (
        "POST",
        "/mp/collect",
        lambda k: {"json": {"client_id": "c", "events": [{"name": "Clicked"}]}, "params": {"api_secret": k}},
    ),
    ("GET", "/v1/projects/KEY/settings", lambda k: {}),
]


@pytest.mark.parametrize(("method", "path", "way"), WAYS, ids=[f"{m} {p}" for m, p, _ in WAYS])
def test_the_key_is_found_where_each_sdk_puts_it(
    make_collector: Make, ask: Ask, keys: Any, log: Any, method: str, path: str, way: Callable[[str], dict[str, Any]]
) -> None:
    app = make_collector(keys=(OTHER, keys.write))

    def sent(key: str) -> httpx.Response:
        return ask(app, method, path.replace("KEY", key), address="10.0.0.7", **way(key))

    assert sent(keys.write).is_success
    taken = len(log.events)
    for wrong in ("x" * 32, keys.write[:-1], keys.write + "w", keys.server, "ü"):
        answer = sent(wrong)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert len(log.events) == taken


def test_every_event_of_a_request_has_to_have_a_key_of_ours(
    make_collector: Make, ask: Ask, keys: Any, log: Any
) -> None:
    app = make_collector()
    assert ask(app, "POST", "/track", json=[mixpanel_event(keys.write), mixpanel_event("x" * 32)]).status_code == 401
    assert ask(app, "POST", "/v1/batch", json=batch(keys.write, track(writeKey="x" * 32))).status_code == 401
    assert ask(app, "POST", "/v1/batch", json={"batch": [track()]}).json()["message"] == "a write key is needed"
    assert not log.events


def test_without_keys_only_this_machine_is_served(make_collector: Make, ask: Ask, log: Any) -> None:
    app = make_collector(keys=())
    assert ask(app, "POST", "/v1/batch", address="::1", json=batch("whatever")).is_success
    answer = ask(app, "POST", "/v1/batch", address="10.0.0.7", content=b"{")  # before anything is read
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert len(log.events) == 1


def test_errors_are_in_the_form_of_each_dialect(make_collector: Make, ask: Ask, keys: Any) -> None:
    app = make_collector()
    rudder = ask(app, "POST", "/v1/batch", content=b"{", headers=basic(keys.write))
    assert rudder.status_code == 400 and {"code", "message"} <= set(rudder.json())
    python = ask(app, "POST", "/track", data={"data": json.dumps(mixpanel_event("x" * 32)), "verbose": "1"})
    assert (python.status_code, python.json()["status"], python.json()["error"]) == (
        401, 0, "this write key is none of ours",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "limit", "most", "make"),
    [
        ("/v1/batch", segment.LIMIT, segment.MOST_EVENTS, lambda n: {"batch": [{}] * n}),
        ("/track", mixpanel.LIMIT, mixpanel.MOST_EVENTS, lambda n: [{}] * n),
        ("/mp/collect", ga4.LIMIT, ga4.MOST_EVENTS, lambda n: {"events": [{}] * n}),
    ],
)
def test_limits_of_a_request(make_collector: Make, ask: Ask, path: str, limit: int, most: int, make: Any) -> None:
    app = make_collector(keys=())
    spaces = json.dumps(make(1)).encode()
    assert ask(app, "POST", path, content=spaces + b" " * (limit - len(spaces))).status_code < 300
    for body in (b" " * (limit + 1), gzip.compress(b" " * (limit + 1))):
        answer = ask(app, "POST", path, content=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_long")
    assert ask(app, "POST", path, json=make(most)).status_code < 300
    answer = ask(app, "POST", path, json=make(most + 1))
    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_events")


def test_a_large_event_is_refused_alone(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    large = track(messageId="m2", properties={"x": "x" * 33_000})
    answer = ask(make_collector(), "POST", "/v1/batch", json=batch(keys.write, track(), large, track(messageId="m3")))
    assert [r.get("reason") for r in answer.json()["receipts"]] == [None, "too_large", None]
    assert len(log.events) == 2


def test_a_body_is_limited_before_it_is_read(make_collector: Make, ask: Ask, keys: Any) -> None:
    answer = ask(make_collector(), "POST", "/v1/batch", content=b"", headers={"content-length": "9999999999"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


def test_the_rate_is_each_keys_own(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    app = make_collector(keys=(keys.write, OTHER), per_second=10)
    events = [track(messageId=f"m{n}") for n in range(35)]
    assert ask(app, "POST", "/v1/batch", json=batch(keys.write, *events)).is_success
    for path, request in (("/v1/batch", batch(keys.write)), ("/track", [mixpanel_event(keys.write)])):
        answer = ask(app, "POST", path, json=request)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "3"
    assert ask(app, "POST", "/v1/batch", json=batch(OTHER)).is_success
    assert len(log.events) == 36


def test_the_rate_counts_kilobytes_where_they_are_more_than_the_events(
    make_collector: Make, ask: Ask, keys: Any, log: Any
) -> None:
    app = make_collector(per_second=10)
    large = track(properties={"feature": "x" * 35_000})
    assert ask(app, "POST", "/v1/batch", json=batch(keys.write, large)).is_success
    answer = ask(app, "POST", "/v1/batch", json=batch(keys.write))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "rate_limited", "3")


def test_a_busy_log_is_503_with_the_time_to_wait(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    log.fault = Busy("50000 events wait to be written", 1.5)
    answer = ask(make_collector(), "POST", "/v1/batch", json=batch(keys.write))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "busy", "2")
    log.fault = OSError(28, "No space left on device")
    assert ask(make_collector(), "POST", "/track", json=[mixpanel_event(keys.write)]).status_code == 503


def test_before_the_start_the_collectors_wait(ask: Ask) -> None:
    app = App(Keys(), collect=Options())
    assert ask(app, "POST", "/v1/batch", json=batch("k")).status_code == 503
    assert ask(app, "GET", "/v1/quarantine").status_code == 503
    assert ask(app, "GET", "/firstmile.js").status_code == 200


@pytest.mark.parametrize("header", ["dnt", "sec-gpc"])
@pytest.mark.parametrize(("method", "path", "way"), WAYS[:-1], ids=[f"{m} {p}" for m, p, _ in WAYS[:-1]])
def test_do_not_track(
    make_collector: Make, ask: Ask, keys: Any, log: Any, quarantine: Any, header: str, method: str, path: str, way: Any
) -> None:
    request, app = way(keys.write), make_collector()
    request["headers"] = request.get("headers", {}) | {header: "1"}
    answer = ask(app, method, path, **request)
    assert answer.is_success
    assert answer.headers["firstmile-receipts"] == "accepted=0, duplicate=0, refused=1;opted_out=1"
    if path == "/track":
        assert answer.text == "1"
    assert not log.events and not quarantine.folder.exists()
    request["headers"][header] = "0"
    assert ask(app, method, path, **request).headers["firstmile-receipts"].startswith("accepted=1")


ORIGIN = "https://shop.example"


def test_pages_of_declared_origins_may_send(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    app = make_collector(origins=frozenset({ORIGIN}))
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-retry-count",
    }
    preflight = ask(app, "OPTIONS", "/v1/batch", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-methods"] == "POST"
    assert preflight.headers["access-control-allow-headers"] == "content-type,x-retry-count"
    for sent in (batch(keys.write), batch("x" * 32)):  # a refusal too is for the page to read
        answer = ask(app, "POST", "/v1/batch", json=sent, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "firstmile-receipts" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "origin"


def test_pages_of_other_origins_may_not(make_collector: Make, ask: Ask, keys: Any, log: Any) -> None:
    app, other = make_collector(origins=frozenset({ORIGIN})), {"origin": "https://evil.example"}
    for method, request in (("OPTIONS", {}), ("POST", {"json": batch(keys.write)})):
        answer = ask(app, method, "/v1/batch", headers=other, **request)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_declared")
        assert "access-control-allow-origin" not in answer.headers
    assert not log.events
    assert ask(app, "POST", "/v1/batch", headers={"origin": "http://localhost"}, json=batch(keys.write)).is_success


def test_decisions_are_not_for_pages(make_collector: Make, ask: Ask, keys: Any) -> None:
    app = make_collector(origins=frozenset({"*"}))
    headers = {"origin": ORIGIN, "authorization": f"Bearer {keys.server}"}
    answer = ask(app, "GET", "/v1/quarantine", headers=headers)
    assert answer.is_success and "access-control-allow-origin" not in answer.headers
    assert ask(app, "OPTIONS", "/v1/decide", headers=headers).status_code == 405


@pytest.mark.parametrize("path", sorted(METHODS))
def test_other_methods(make_collector: Make, ask: Ask, path: str) -> None:
    answer = ask(make_collector(), "DELETE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, METHODS[path])


@pytest.mark.parametrize("path", ["/firstmile.js", "/console", "/console/demo", "/console/style.css", "/docs"])
@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE"])
def test_files_are_only_read(make_collector: Make, ask: Ask, path: str, method: str) -> None:
    answer = ask(make_collector(), method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert ask(make_collector(), "HEAD", path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/healthz", "/none", "/v1/quarantine", "/firstmile.js", "/track"]
)
def test_every_answer_says_that_it_is_in_no_frame_and_of_no_other_type(service: SimpleNamespace, path: str) -> None:
    headers = httpx.get(f"{service.url}{path}").headers
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers.get_list("cache-control") == ["public, max-age=3600" if path == "/firstmile.js" else "no-store"]


def test_the_quarantine_shows_what_was_refused(make_collector: Make, ask: Ask, keys: Any) -> None:
    app = make_collector()
    bad = [track(messageId=f"m{n}", event="Nonsense") for n in range(5)]
    ask(app, "POST", "/v1/batch", json=batch(keys.write, *bad, track(userId=None), track(context={"optOut": True})))
    server = {"authorization": f"Bearer {keys.server}"}
    assert ask(app, "GET", "/v1/quarantine").status_code == 401
    assert ask(app, "GET", "/v1/quarantine", headers=basic(keys.write)).status_code == 401
    shown = ask(app, "GET", "/v1/quarantine", params={"limit": 2, "reason": "unknown_event"}, headers=server).json()
    assert shown["counts"] == {"missing_id": 1, "unknown_event": 5}
    assert shown["optedOut"] == 1
    assert [e["event"]["messageId"] for e in shown["events"]] == ["m3", "m4"]
    assert (shown["events"][0]["reason"], shown["events"][0]["receivedAt"][:2]) == ("unknown_event", "20")
    assert len(ask(app, "GET", "/v1/quarantine", headers=server).json()["events"]) == 6
    for wrong in ("-1", "1001", "x", "1" * 99, "²"):
        answer = ask(app, "GET", "/v1/quarantine", params={"limit": wrong}, headers=server)
        assert (answer.status_code, answer.json()["where"]) == (422, "limit")


def test_the_quarantine_shows_what_is_no_json(make_collector: Make, ask: Ask, keys: Any) -> None:
    app = make_collector()
    ask(
        app,
        "POST",
        "/v1/batch",
        content=b'{"batch":[{"messageId":"\\ud800","traits":NaN}],"writeKey":"%s"}' % keys.write.encode(),
    )
    (event,) = ask(app, "GET", "/v1/quarantine", headers={"authorization": f"Bearer {keys.server}"}).json()["events"]
    assert event["reason"] == "not_json" and "NaN" in event["event"]


def test_segments_settings_lead_to_us(make_collector: Make, ask: Ask, keys: Any) -> None:
    app = make_collector()
    answer = ask(app, "GET", f"/v1/projects/{keys.write}/settings", headers={"x-forwarded-proto": "https"})
    found = answer.json()["integrations"]
    assert list(found) == ["Segment.io"]
    assert {k: found["Segment.io"][k] for k in ("apiKey", "apiHost", "protocol")} == {
        "apiKey": keys.write,
        "apiHost": "localhost/v1",
        "protocol": "https",
    }
    assert ask(app, "GET", "/v1/projects//settings").status_code == 404
    assert ask(app, "GET", "/v1/projects/a/b/settings").status_code == 404


def test_the_snippet_is_small_and_served_to_all(make_collector: Make, ask: Ask) -> None:
    app = make_collector()
    plain = ask(app, "GET", "/firstmile.js", headers={"accept-encoding": "identity", "origin": ORIGIN})
    packed = ask(app, "GET", "/firstmile.js", headers={"accept-encoding": "gzip, br"})
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert plain.headers["access-control-allow-origin"] == "*"
    assert plain.content == packed.content == snippet.script()
    assert packed.headers["content-encoding"] == "gzip"
    assert len(plain.content) < 3_300 and int(packed.headers["content-length"]) < 1_750


def test_a_slow_reader_is_given_up_and_hurts_nobody(make_collector: Make, keys: Any, serve: Any) -> None:
    app = make_collector(body_s=0.5)
    with serve(app) as url:

        def drip() -> Any:
            for _ in range(600):
                yield b" "
                time.sleep(0.1)

        statuses: list[int] = []

        def slow() -> None:
            try:
                statuses.append(httpx.post(f"{url}/v1/batch", content=drip()).status_code)
            except httpx.HTTPError:  # the answer was missed: the connection is closed while it is still being sent to
                statuses.append(408)

        slow_ones = [threading.Thread(target=slow) for _ in range(20)]
        began = time.monotonic()
        for one in slow_ones:
            one.start()
        with httpx.Client() as client:
            for _ in range(50):
                assert client.post(f"{url}/v1/batch", json=batch(keys.write)).is_success
        for one in slow_ones:
            one.join()
        assert statuses == [408] * 20
        assert time.monotonic() - began < 40  # they would go on for a minute


def test_bodies_held_at_once_are_limited(make_collector: Make, keys: Any) -> None:
    app = make_collector(most_held=1_000)
    scope = {
        "type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"", "client": ("127.0.0.1", 1),
        "headers": [],
    }  # fmt: skip

    async def one(body: bytes, wait: asyncio.Event) -> int:
        messages, status = [{"type": "http.request", "body": body, "more_body": True}], 0

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await wait.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(scope, receive, send)
        return status

    async def run() -> tuple[int, int, int]:
        wait, now = asyncio.Event(), asyncio.Event()
        now.set()
        body = json.dumps(batch(keys.write)).encode()
        holding = asyncio.create_task(one(b" " * 950, wait))
        await asyncio.sleep(0.01)
        refused = await one(body, now)
        wait.set()
        return await holding, refused, await one(body, now)

    assert asyncio.run(run()) == (400, 503, 200)
