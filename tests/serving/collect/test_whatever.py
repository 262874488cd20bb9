"""Whatever is sent to whichever route: an answer of 2xx or 4xx, and a receipt for each event, never a fault of ours."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import given
from hypothesis import strategies as st

from serving.app import App
from serving.collect import ga4, mixpanel
from serving.collect.routes import METHODS

FIELDS = """batch events event type messageId userId anonymousId previousId timestamp sentAt context originalTimestamp
    properties traits category channel groupId writeKey optOut name params client_id user_id timestamp_micros
    user_properties value device user_location consent $set $token $distinct_id $time $distinct_ids alias $anon_id"""
NAMES = st.sampled_from([*FIELDS.split(), *mixpanel.IDS, *mixpanel.CONTEXT, *ga4.PARAMS, *ga4.DEVICE])
MEANINGFUL = """track identify alias page Clicked page_view $identify $create_alias $merge $mp_web_page_view u1 anon:x
    $device:d1 2026-01-01T00:00:00Z 9999-12-31T23:59:59.999999Z 0001-01-01T00:00:00+14:00"""
WORDS = st.sampled_from([*MEANINGFUL.split(), ""])
NUMBERS = st.integers() | st.integers(10**17, 10**20) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
EVENTS = st.fixed_dictionaries(
    {}, optional={"event": WORDS, "properties": VALUES, "params": VALUES, "name": WORDS, "type": WORDS}
)
REQUESTS = VALUES | st.fixed_dictionaries(
    {"batch": st.lists(EVENTS, max_size=3), "events": st.lists(EVENTS, max_size=3)},
    optional={"context": VALUES, "sentAt": WORDS},
)
TEXTS = REQUESTS.map(lambda v: json.dumps(v).encode())
WRAPS: list[Callable[[bytes], bytes]] = [
    lambda b: b,
    gzip.compress,
    base64.b64encode,
    lambda b: gzip.compress(b)[:-4],
    lambda b: b"data=" + quote(b).encode() + b"&verbose=1",
    lambda b: b"data=" + base64.b64encode(b),
    lambda b: gzip.compress(b"data=" + base64.b64encode(gzip.compress(b))),
    lambda b: b + b"\n" + b,
    lambda b: b[: len(b) // 2],
]
HUGE = [b'{"batch":[' + inner + b"]}" for inner in (b"[" * 50_000, b'{"a":' * 900 + b"1" + b"}" * 900, b"9" * 5_000)]
BODIES = (
    st.binary(max_size=60)
    | st.sampled_from(HUGE)
    | st.builds(lambda text, wrap: wrap(text), TEXTS, st.sampled_from(WRAPS))
)


@given(
    path=st.sampled_from(sorted(METHODS)),
    body=BODIES,
    data=st.none() | st.builds(lambda text, wrap: wrap(text), TEXTS, st.sampled_from(WRAPS[:3])),
    asked=st.dictionaries(
        st.sampled_from(["verbose", "img", "strict", "writeKey", "token", "api_secret"]), st.text(max_size=3)
    ),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "authorization", "origin", "user-agent", "dnt"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20) | st.just("Basic eDo="),
    ),
    keys=st.sampled_from([(), ("x" * 16,)]),
)
def test_whatever_is_sent(
    make_collector: Callable[..., App], ask: Callable[..., httpx.Response], path: str, body: bytes, data: bytes | None,
    asked: dict[str, str], headers: dict[str, str], keys: Any,
) -> None:  # fmt: skip
    query = "&".join(f"{k}={quote(v)}" for k, v in asked.items()) + (f"&data={quote(data)}" if data is not None else "")
    for method in METHODS[path].split(", "):
        content = body if method == "POST" else b""
        answer = ask(make_collector(keys=keys), method, f"{path}?{query}", content=content, headers=headers)
        assert 200 <= answer.status_code < 500, answer.text
        if answer.is_success:
            assert "firstmile-receipts" in answer.headers
        elif "firstmile-receipts" not in answer.headers:
            assert answer.json()["code"] and answer.json()["message"]


@given(st.binary(max_size=40).map(lambda b: quote(b, safe="/")), st.sampled_from(["GET", "POST", "OPTIONS", "PUT"]))
def test_whatever_is_asked_for(
    make_collector: Callable[..., App], ask: Callable[..., httpx.Response], path: str, method: str
) -> None:
    for prefix in ("/", "/v1/", "/v1/pixel/", "/v1/projects/"):
        for suffix in ("", "/settings"):
            assert ask(make_collector(), method, prefix + path + suffix).status_code < 500
