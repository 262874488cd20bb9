"""Without keys only programs and pages of this machine are served, whatever page makes a browser here ask."""

from collections.abc import Callable
from typing import Any

import pytest

from serving.app import App

REFUSED = {
    "rebound host": {"host": "evil.example"},
    "rebound host with a port": {"host": "evil.example:3000"},
    "a host that begins like ours": {"host": "localhost.evil.example"},
    "an address of the network": {"host": "192.168.0.7:3000"},
    "another site": {"sec-fetch-site": "cross-site"},
    "another port": {"sec-fetch-site": "same-site"},
    "another origin": {"origin": "https://evil.example"},
    "no origin": {"origin": "null"},
    "a proxy's client": {"x-forwarded-for": "203.0.113.9"},
    "one of a proxy's clients": {"x-forwarded-for": "127.0.0.1, 203.0.113.9"},
    "a proxy's client, by nginx": {"x-real-ip": "203.0.113.9"},
    "a proxy's client, by RFC 7239": {"forwarded": 'proto=https;for="[2001:db8::1]:443";by=127.0.0.1'},
}
SERVED = {
    "a program": {},
    "by name": {"host": "localhost:3000"},
    "by address": {"host": "127.0.0.1:3000"},
    "by address 6": {"host": "[::1]:3000"},
    "typed in": {"sec-fetch-site": "none"},
    "our own page": {"sec-fetch-site": "same-origin", "origin": "http://localhost:3000", "host": "localhost:3000"},
    "a proxy here": {"x-forwarded-for": "127.0.0.1", "x-real-ip": "::1", "forwarded": 'for="[::1]:5"'},
}
ROUTES = [
    ("GET", "/v1/users/u1"), ("DELETE", "/v1/users/u1"), ("PUT", "/v1/users/u1/opt-out"), ("GET", "/v1/quarantine"),
    ("POST", "/v1/decide"), ("GET", "/v1/segments"), ("GET", "/v1/segments/stream"), ("GET", "/v1/playbook"),
    ("POST", "/v1/batch"), ("GET", "/v1/pixel/track"), ("GET", "/track"), ("POST", "/mp/collect"), ("POST", "/import"),
]  # fmt: skip


@pytest.fixture
def keyless(make_collector: Callable[..., App]) -> App:
    from serving.auth import Keys

    app = make_collector(keys=())
    app.keys = Keys()
    return app


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("name", REFUSED)
def test_who_is_not_of_this_machine_is_refused(
    keyless: App, ask: Any, log: Any, method: str, path: str, name: str
) -> None:
    answer = ask(keyless, method, path, headers=REFUSED[name])
    assert answer.status_code == 403, answer.text
    assert not log.events


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("name", SERVED)
def test_who_is_of_this_machine_is_served(keyless: App, ask: Any, method: str, path: str, name: str) -> None:
    assert ask(keyless, method, path, headers=SERVED[name]).status_code not in (401, 403)


def test_a_declared_page_may_send_without_keys(make_collector: Callable[..., App], ask: Any) -> None:
    app = make_collector(keys=(), origins=frozenset({"https://shop.example"}))
    cross = {"sec-fetch-site": "cross-site"}
    event = {"type": "track", "event": "Clicked", "userId": "u1", "messageId": "m1"}
    assert ask(app, "POST", "/v1/t", headers=cross | {"origin": "https://shop.example"}, json=event).status_code == 200
    assert ask(app, "GET", "/v1/pixel/track", headers=cross | {"referer": "https://shop.example/a"}).status_code == 200
    assert ask(app, "GET", "/v1/pixel/track", headers=cross | {"referer": "https://evil.example/"}).status_code == 403
    assert ask(app, "GET", "/v1/pixel/track", headers=cross).status_code == 403


def test_with_keys_the_host_is_anything(make_collector: Callable[..., App], ask: Any, keys: Any) -> None:
    headers = {"host": "events.example.org", "x-forwarded-for": "203.0.113.9", "sec-fetch-site": "cross-site"}
    event = {"type": "track", "event": "Clicked", "userId": "u1", "messageId": "m1", "writeKey": keys.write}
    assert ask(make_collector(), "POST", "/v1/t", headers=headers, json=event).status_code == 200
