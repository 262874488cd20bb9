import asyncio
import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.stream.personal import Known
from feature_repo.stream.slow_lane import TakesLong
from serving import decision_log
from serving.app import LIMITS, App
from serving.auth import Keys
from serving.policy import Seen
from serving.rules import State
from serving.rules.facts import Membership
from serving.segments.person import Behind, Document, Person

JSON = {"content-type": "application/json"}


def ask(app: App, method: str, path: str, fakes: SimpleNamespace, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with fakes.client(app, request.pop("address", "127.0.0.1"), request.pop("key", None)) as http:
            return await http.request(method, path, **request)

    return asyncio.run(send())


def test_decide(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    body = {"userId": "slow", "anonymousId": "d"}
    response = ask(make_app(), "POST", "/v1/decide", fakes, json=body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert len(answer.pop("decisionId")) == 32
    assert answer == {
        "userId": "slow",
        "anonymousId": None,
        "at": "2026-01-01T00:00:00.000000Z",
        "known": True,
        "stale": False,
        "segment": "slow",
        "segments": ["slow"],
        "persona": None,
        "score": 0.2,
        "model": {"name": "tiny-engagement", "version": 1},
        "elements": ["help", "tour"],
        "dropped": [],
        "experiments": [],
        "holdout": False,
        "reasons": [
            "score 0.2000 by tiny-engagement version 1: segment slow (below 0.5000)",
            "help for slow: slow people get help",
            "tour for slow: again",
        ],
    }


def test_an_unseen_person_gets_the_default_journey(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    answer = ask(make_app(), "POST", "/v1/decide", fakes, json={"userId": "nobody"}).json()
    assert (answer["known"], answer["segment"], answer["score"]) == (False, None, None)
    assert (answer["elements"], answer["reasons"][0]) == (["tour"], "unknown user: default journey")
    assert answer["model"] == {"name": "tiny-engagement", "version": 1}


def test_explain_tells_the_strongest_features(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    answer = ask(make_app(), "POST", "/v1/decide", fakes, json={"userId": "slow", "explain": True}).json()
    assert answer["contributions"] == [
        {"feature": "clicks", "value": 2, "effect": -3.0},
        {"feature": "device", "value": "mobile", "effect": 0.25},
    ]
    unseen = ask(make_app(), "POST", "/v1/decide", fakes, json={"userId": "nobody", "explain": True}).json()
    assert "contributions" not in unseen


def test_batch_answers_in_the_order_of_the_ids(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    users = ["fast", "nobody", "slow", "done", "fast"] * 200
    response = ask(make_app(), "POST", "/v1/decide/batch", fakes, json={"userIds": users})
    assert response.status_code == 200
    decisions = response.json()["decisions"]
    assert [d["userId"] for d in decisions] == users
    assert [d["segment"] for d in decisions[:5]] == ["fast", None, "slow", "finished", "fast"]
    assert len({d["decisionId"] for d in decisions}) == 1_000


def test_who_is_named_twice_has_one_row_of_that_moment(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    """A batch is read in parts; between them the row of somebody whose window has ended is written."""
    reader = fakes.Reader({"fast": fakes.person(8, valid_until_us=fakes.NOW)})
    reader.later, read = {"fast": fakes.person(1)}, reader.read

    def read_and_write(ids: Any, at: int) -> Any:
        found = read(ids, at)
        reader.people["fast"] = fakes.person(1)
        return found

    reader.read = read_and_write
    users = ["fast", *(f"nobody{n}" for n in range(99)), "fast"]
    decisions = ask(make_app(reader=reader), "POST", "/v1/decide/batch", fakes, json={"userIds": users})
    assert [d["segment"] for d in decisions.json()["decisions"] if d["userId"] == "fast"] == ["slow", "slow"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "where", "says"),
    [
        ("/v1/decide", b"", 400, "invalid_json", None, "truncated"),
        ("/v1/decide", b"{", 400, "invalid_json", None, "truncated"),
        ("/v1/decide", b'{"userId": NaN}', 400, "invalid_json", None, "invalid character"),
        ("/v1/decide", b'{"userId": "\xff"}', 400, "invalid_json", None, "no JSON"),
        ("/v1/decide", b'{"userId": "u"} x', 400, "invalid_json", None, "trailing"),
        (
            "/v1/decide",
            b'{"userId":' + b"[" * 3000 + b"]" * 3000 + b"}",
            422,
            "invalid_request",
            "$.userId",
            "Expected `str`, got `array`",
        ),
        ("/v1/decide", b"[]", 422, "invalid_request", "$", "Expected `object`, got `array`"),
        ("/v1/decide", b"null", 422, "invalid_request", "$", "got `null`"),
        ("/v1/decide", b"{}", 422, "invalid_request", "$", "expected userId or anonymousId"),
        ("/v1/decide", b'{"userId": 7}', 422, "invalid_request", "$.userId", "Expected `str`, got `int`"),
        ("/v1/decide", b'{"userId": ""}', 422, "invalid_request", "$.userId", "length >= 1"),
        ("/v1/decide", b'{"userId": null}', 422, "invalid_request", "$.userId", "got `null`"),
        ("/v1/decide", b'{"userId": "' + b"u" * 257 + b'"}', 422, "invalid_request", "$.userId", "length <= 256"),
        ("/v1/decide", b'{"userId": "u", "context": {}}', 422, "invalid_request", "$", "unknown field `context`"),
        ("/v1/decide", b'{"explain": true}', 422, "invalid_request", "$", "expected userId or anonymousId"),
        ("/v1/decide", b'{"anonymousId": ""}', 422, "invalid_request", "$.anonymousId", "length >= 1"),
        ("/v1/decide/batch", b'{"anonymousIds": []}', 422, "invalid_request", "$", "expected 1 to 1,000 ids together"),
        ("/v1/decide", b'{"userId": "u", "explain": 1}', 422, "invalid_request", "$.explain", "Expected `bool`"),
        ("/v1/decide", b'{"userId": "u", "user": 1}', 422, "invalid_request", "$", "unknown field `user`"),
        ("/v1/decide", b'{"user_id": "u"}', 422, "invalid_request", "$", "unknown field `user_id`"),
        ("/v1/decide/batch", b'{"userIds": []}', 422, "invalid_request", "$", "expected 1 to 1,000 ids together"),
        ("/v1/decide/batch", b'{"userIds": "u"}', 422, "invalid_request", "$.userIds", "Expected `array`"),
        ("/v1/decide/batch", b'{"userIds": ["u", 3]}', 422, "invalid_request", "$.userIds[1]", "got `int`"),
        (
            "/v1/decide/batch",
            json.dumps({"userIds": ["u"] * 1001}).encode(),
            422,
            "invalid_request",
            "$.userIds",
            "<= 1000",
        ),
        ("/v1/decide", b'"' + b"x" * LIMITS["/v1/decide"] + b'"', 413, "too_long", None, "longer than 65536 bytes"),
    ],
)
def test_bad_requests_are_told_what_is_wrong_and_where(
    make_app: Callable[..., App],
    fakes: SimpleNamespace,
    path: str,
    body: bytes,
    status: int,
    code: str,
    where: str | None,
    says: str,
) -> None:
    response = ask(make_app(), "POST", path, fakes, content=body, headers=JSON)
    problem = response.json()
    assert (response.status_code, problem["code"], problem.get("where")) == (status, code, where)
    assert says in problem["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/v1/decide", {}, 405, "method_not_allowed"),
        ("PUT", "/v1/decide/batch", JSON, 405, "method_not_allowed"),
        ("POST", "/openapi.json", JSON, 405, "method_not_allowed"),
        ("POST", "/v1/decide/", JSON, 404, "not_found"),
        ("POST", "/v2/decide", JSON, 404, "not_found"),
        ("POST", "/v1/decide", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/v1/decide", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ("POST", "/v1/decide", JSON | {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
        ("POST", "/v1/decide", JSON | {"content-length": "99999999"}, 413, "too_long"),
    ],
)
def test_wrong_method_path_or_content(
    make_app: Callable[..., App],
    fakes: SimpleNamespace,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    response = ask(make_app(), method, path, fakes, content=b'{"userId": "u"}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_content_type_may_have_parameters(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert ask(make_app(), "POST", "/v1/decide", fakes, content=b'{"userId":"u"}', headers=headers).is_success


def test_a_body_without_a_content_type_is_refused(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    """A page of any site can make a browser send one, with no question before."""
    refused = ask(make_app(), "POST", "/v1/decide", fakes, content=b'{"userId":"u"}')
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["userId", "anonymousId", "x"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_is_a_server_error(make_app: Callable[..., App], fakes: SimpleNamespace, body: bytes) -> None:
    response = ask(make_app(), "POST", "/v1/decide", fakes, content=body, headers=JSON)
    assert response.status_code in (200, 400, 422)
    assert response.is_success or response.json()["message"]


@pytest.mark.parametrize(
    ("keys", "key", "address", "status"),
    [
        (1, "right", "10.0.0.7", 200),
        (1, "right", "127.0.0.1", 200),
        (1, "wrong", "127.0.0.1", 401),
        (1, None, "127.0.0.1", 401),
        (0, None, "127.0.0.1", 200),
        (0, None, "::1", 200),
        (0, None, "10.0.0.7", 403),
        (0, "right", "10.0.0.7", 403),
    ],
)
def test_who_may_decide(
    make_app: Callable[..., App], fakes: SimpleNamespace, keys: int, key: str | None, address: str, status: int
) -> None:
    app = make_app([fakes.KEY] * keys)
    given_key = {"right": fakes.KEY, "wrong": "w" * 32, None: None}[key]
    for path, body in (("/v1/decide", {"userId": "slow"}), ("/v1/decide/batch", {"userIds": ["slow"]})):
        response = ask(app, "POST", path, fakes, json=body, key=given_key, address=address)
        assert response.status_code == status
        assert ("www-authenticate" in response.headers) == (status == 401)
    assert ask(app, "GET", "/metrics", fakes, key=given_key, address=address).status_code == status
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert ask(app, "GET", path, fakes, address=address).status_code == 200


def test_the_key_is_asked_before_the_body_is_read(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    assert ask(make_app([fakes.KEY]), "POST", "/v1/decide", fakes, content=b"{").status_code == 401


def test_a_store_that_fails_costs_no_answer(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    reader = fakes.Reader({"slow": fakes.person(2)})
    app = make_app(reader=reader)
    reader.fault = ConnectionError("refused")
    answer = ask(app, "POST", "/v1/decide", fakes, json={"userId": "slow"})
    assert (answer.status_code, answer.json()["elements"]) == (200, ["tour"])
    assert "the online store did not answer (ConnectionError: refused)" in answer.json()["reasons"][0]
    assert "firstmile_store_error 1" in ask(app, "GET", "/metrics", fakes).text
    reader.fault = None
    assert ask(app, "POST", "/v1/decide", fakes, json={"userId": "slow"}).json()["segment"] == "slow"
    assert "firstmile_store_error 0" in ask(app, "GET", "/metrics", fakes).text


def test_a_store_that_hangs_is_given_up(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    reader = fakes.Reader({"slow": fakes.person(2)}, local=False)
    reader.slow_s = 3.0
    answer = ask(make_app(reader=reader, read_timeout_s=0.05), "POST", "/v1/decide", fakes, json={"userId": "slow"})
    assert answer.status_code == 200
    assert answer.json()["reasons"][0] == "the online store did not answer (it took too long): default journey"
    assert answer.elapsed.total_seconds() < 2.5


def test_no_model_is_no_error(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    answer = ask(make_app(model=None), "POST", "/v1/decide", fakes, json={"userId": "slow"}).json()
    assert (answer["known"], answer["model"], answer["elements"]) == (True, None, ["tour"])


def test_a_row_whose_window_has_ended_is_looked_up(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    reader = fakes.Reader({"fast": fakes.person(8, valid_until_us=fakes.NOW)})
    reader.later = {"fast": fakes.person(1)}
    app = make_app(reader=reader)
    assert ask(app, "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()["segment"] == "slow"
    reader.later = OSError("gone")
    answer = ask(app, "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()
    assert (answer["segment"], answer["stale"]) == ("fast", True)
    assert answer["reasons"][0].startswith("features as of 2025-12-31T23:59:59.999000Z: a window has ended since")
    reader.later = {}
    answer = ask(app, "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()
    assert (answer["segment"], "there are no offline rows" in answer["reasons"][0]) == ("fast", True)
    reader.people["fast"] = fakes.person(8, valid_until_us=fakes.NOW + 1)
    assert len(ask(app, "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()["reasons"]) == 2


@pytest.mark.parametrize(("field", "ahead_us"), [("valid_until_us", 0), ("event_us", 1)])
def test_who_may_be_somebody_by_now_is_not_said_to_be_nobody(
    make_app: Callable[..., App], fakes: SimpleNamespace, field: str, ahead_us: int
) -> None:
    """The online row is of nobody, as their first event lay ahead, or was another user's until a moment ahead."""
    row = msgspec.structs.replace(fakes.person(1), values={}, **{field: fakes.NOW + ahead_us})
    reader = fakes.Reader({"fast": row})
    reader.later = {"fast": fakes.person(1)}
    answer = ask(make_app(reader=reader), "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()
    assert (answer["known"], answer["stale"], answer["segment"]) == (True, False, "slow")
    reader.later = TimeoutError()
    answer = ask(make_app(reader=reader), "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()
    assert (answer["known"], answer["stale"]) == (False, True)
    assert "the row in force is not known (it took too long)" in answer["reasons"][0]


def test_a_store_that_is_down_is_said(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    reader = fakes.Reader({"fast": fakes.person(8)})
    reader.fault = OSError("gone")
    assert ask(make_app(reader=reader), "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()["stale"]


def test_whose_row_takes_long_keeps_nobody_else_waiting(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    rows = {name: fakes.person(8, valid_until_us=fakes.NOW) for name in ("long", "fast", "other")}
    reader, done = fakes.Reader(rows), threading.Event()

    def in_force(ended: dict[str, Any], now_us: int, patient: bool = True) -> dict[str, Any]:
        if "long" in ended:
            if not patient:
                raise TakesLong({"long"})
            assert list(ended) == ["long"] and done.wait(20)
        return dict.fromkeys(ended, fakes.person(1))

    reader.in_force = in_force
    app = make_app(reader=reader, read_timeout_s=0.3)
    for _ in range(6):  # more than there are threads
        batch = ask(app, "POST", "/v1/decide/batch", fakes, json={"userIds": ["long", "fast"]}).json()["decisions"]
        assert [d["segment"] for d in batch] == ["fast", "slow"]
        assert (
            "a window has ended since, and the row in force is not known (it took too long)" in batch[0]["reasons"][0]
        )
    assert ask(app, "POST", "/v1/decide", fakes, json={"userId": "other"}).json()["segment"] == "slow"
    done.set()
    until_s = time.monotonic() + 20
    while ask(app, "POST", "/v1/decide", fakes, json={"userId": "long"}).json()["segment"] != "slow":
        assert time.monotonic() < until_s


def test_whose_row_cannot_be_had_in_time_has_the_one_that_ended(
    make_app: Callable[..., App], fakes: SimpleNamespace
) -> None:
    reader = fakes.Reader({name: fakes.person(8, valid_until_us=fakes.NOW) for name in ("very long", "long", "fast")})

    def in_force(ended: dict[str, Any], now_us: int, patient: bool = True) -> dict[str, Any]:
        if long := ({"very long"} if patient else {"very long", "long"}).intersection(ended):
            raise TakesLong(long)
        return dict.fromkeys(ended, fakes.person(1))

    reader.in_force = in_force
    asked = {"userIds": ["very long", "long", "fast"]}
    batch = ask(make_app(reader=reader), "POST", "/v1/decide/batch", fakes, json=asked).json()["decisions"]
    assert [d["segment"] for d in batch] == ["fast", "slow", "slow"]
    assert "the row in force is not known (it took too long)" in batch[0]["reasons"][0]


def test_a_row_that_others_wrote_after_the_question_is_not_served(
    make_app: Callable[..., App], fakes: SimpleNamespace
) -> None:
    begins_later = msgspec.structs.replace(fakes.person(8), event_us=fakes.NOW + 1)
    reader = fakes.Reader({"fast": begins_later})
    reader.later = {"fast": fakes.person(1)}
    assert (
        ask(make_app(reader=reader), "POST", "/v1/decide", fakes, json={"userId": "fast"}).json()["segment"] == "slow"
    )


def test_while_a_very_long_past_is_read_what_was_known_before_decides(
    make_app: Callable[..., App], fakes: SimpleNamespace
) -> None:
    known = Person(Document(Known({}, 0, None), State({"stuck": Membership("in", fakes.NOW - 1)})), Seen(1))

    def follow(*_: object) -> None:
        raise Behind(known)

    keeper = SimpleNamespace(known=lambda *_: None, follow=follow, note=lambda *_: None, close=lambda: None)
    app = make_app(keeper=keeper, logged=True)
    answer = ask(app, "POST", "/v1/decide", fakes, json={"userId": "slow"}).json()
    assert answer["segment"] == "slow"
    assert any("a very long past is being read" in reason for reason in answer["reasons"]), answer
    assert app.engine is not None and app.engine.log is not None
    app.engine.log.close()
    (row,) = decision_log.read(app.engine.log.folder).to_pylist()
    assert json.loads(row["situation"])["state"] == msgspec.to_builtins(known.document.state)


def test_decisions_are_logged(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    app = make_app(logged=True)
    answer = ask(app, "POST", "/v1/decide", fakes, json={"userId": "slow"}).json()
    assert app.engine is not None and app.engine.log is not None
    app.engine.log.close()
    import pyarrow.parquet as pq

    (file,) = app.engine.log.folder.glob("*.parquet")
    (row,) = pq.read_table(file).to_pylist()
    assert (row["decision_id"], row["segment"], row["elements"]) == (answer["decisionId"], "slow", ["help", "tour"])


def test_before_the_start_only_decisions_wait(fakes: SimpleNamespace) -> None:
    app = App(Keys())
    assert ask(app, "POST", "/v1/decide", fakes, json={"userId": "u"}).status_code == 503
    assert ask(app, "GET", "/readyz", fakes).status_code == 503
    assert ask(app, "GET", "/healthz", fakes).status_code == 200


def test_head_has_no_body(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    response = ask(make_app(), "HEAD", "/openapi.json", fakes)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 1_000


def test_metrics_say_how_far_processing_is_behind(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    app = make_app()
    assert "log_lag" not in ask(app, "GET", "/metrics", fakes).text
    app.engine.reader.behind = 3
    assert "firstmile_log_lag 3" in ask(app, "GET", "/metrics", fakes).text.splitlines()


def test_metrics_count_what_happened(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    app = make_app()
    for user in ("slow", "slow", "fast", "nobody"):
        ask(app, "POST", "/v1/decide", fakes, json={"userId": user})
    ask(app, "POST", "/v1/decide", fakes, content=b"{", headers=JSON)
    text = ask(app, "GET", "/metrics", fakes).text
    for line in (
        'firstmile_decisions_total{segment="slow"} 2',
        'firstmile_decisions_total{segment="default"} 1',
        'firstmile_responses_total{path="/v1/decide",status="200"} 4',
        'firstmile_responses_total{path="/v1/decide",status="400"} 1',
        'firstmile_response_seconds_bucket{le="+Inf"} 5',
        "firstmile_model_version 1",
    ):
        assert line in text.splitlines()
