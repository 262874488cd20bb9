"""What somebody without a key can make the service do: nothing is read that a key decides about."""

import asyncio
import gzip
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving.app import App
from serving.collect import routes
from tests.serving.attacks.conftest import answer, bystander, p99

WRONG = "x" * 32


def never_read(app: App, path: str, query: bytes, *headers: tuple[bytes, bytes]) -> int:
    """The status that a request gets whose body must not be asked for."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query}
    asyncio.run(app(scope | {"headers": list(headers), "client": ("10.0.0.7", 1)}, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        ("/v1/batch", b"", [(b"authorization", b"Basic " + b"eDo=")]),
        ("/v1/batch", b"writeKey=" + WRONG.encode(), []),
        ("/mp/collect", b"api_secret=" + WRONG.encode(), []),
        ("/mp/collect", b"", []),
        ("/track", b"token=" + WRONG.encode(), []),
        ("/v1/decide", b"", [(b"content-type", b"application/json")]),
    ],
)
def test_a_wrong_key_before_the_body_is_refused_without_reading_it(
    make_collector: Callable[..., App], path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    assert never_read(make_collector(), path, query, *headers) == 401


def test_a_large_body_needs_its_key_before_it(make_collector: Callable[..., App], ask: Any, keys: Any) -> None:
    app, large = make_collector(), b'[{"event":"Clicked"}]' + b" " * routes.UNKNOWN
    assert ask(app, "POST", "/import", content=large).status_code == 413
    assert (
        ask(app, "POST", f"/import?token={keys.write}", content=large).status_code == 400
    )  # read, and its event refused


def test_large_bodies_are_translated_in_few_threads_and_a_bounded_queue(
    make_collector: Callable[..., App], keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import current_thread

    used, translated = set[str](), routes._translated

    def slow(*arguments: Any) -> Any:
        used.add(current_thread().name)
        time.sleep(0.05)
        return translated(*arguments)

    monkeypatch.setattr(routes, "_translated", slow)
    app, body = make_collector(), b'{"batch":[]}' + b" " * routes.SMALL

    async def flood() -> list[int]:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            sent = [http.post("/v1/batch", content=body, auth=(keys.write, "")) for _ in range(100)]
            return [response.status_code for response in await asyncio.gather(*sent)]

    answers = asyncio.run(flood())
    assert len(used) == 2 and all(name.startswith("translate") for name in used)
    assert answers.count(200) == routes.MOST_TRANSLATING and answers.count(503) == 100 - routes.MOST_TRANSLATING


BOMBS = {
    "empty gzip files": (b"/track", gzip.compress(b"") * 50_000),
    "gzip of 100 MB": (b"/track", gzip.compress(b"[" + b" " * 100_000_000)),
    "JSON with NaN": (b"/import", b"[NaN" + b",1" * 500_000 + b"]"),
    "referrers": (
        b"/v1/batch",
        b'{"writeKey":"%s","batch":[' + b",".join(
            b'{"type":"page","userId":"u","messageId":"%d","context":{"page":{"url":"http://a.b/","referrer":"http://%s"}}}'
            % (n, b"a." * 990 + b"%d" % n) for n in range(200)
        ) + b"]}",
    ),
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("name", BOMBS)
def test_nobody_waits_for_a_strangers_bomb(
    service: SimpleNamespace, connect: Callable[[], socket.socket], name: str
) -> None:
    path, body = BOMBS[name]
    body = body.replace(b"%s", service.key.encode(), 1) if name == "referrers" else body
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
    with bystander(service.url) as took:
        for _ in range(20):
            connection = connect()
            with suppress(OSError):
                connection.sendall(head + body)
            answer(connection)
        time.sleep(5)
    assert p99(took) <= 0.1
