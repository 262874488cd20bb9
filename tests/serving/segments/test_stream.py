"""GET /v1/segments and /v1/segments/stream, asked over real sockets of a real server."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from feature_repo.settings import SOURCE, Settings
from serving import openapi
from serving.app import App
from serving.auth import Keys
from serving.http_limits import LimitedProtocol
from serving.segments.channels import running, sse
from serving.segments.channels.hub import AT_ONCE, MOST_WAITING, Hub, Listener
from serving.segments.channels.running import Channels
from serving.segments.journal import FILE, Change, Journal

PATIENCE_S = 10.0


def change(person: str = "u-1", segment: str = "keen", entered: bool = True, cause: str = "because") -> Change:
    return Change(person, "rules", segment, entered, 1, cause, "v1", 1)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


class Service(SimpleNamespace):
    """journal, channels, url, announcer (its listeners), server."""

    def write(self, *changes: Change) -> list[Change]:
        """As the announcer does it: into the journal, then the listeners."""
        written = self.journal.write({}, changes)
        for listener in self.announcer.listeners:
            listener(written)
        return written


@contextmanager
def served(app: App) -> Iterator[tuple[uvicorn.Server, str]]:
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=LimitedProtocol)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delenv("FIRSTMILE_WEBHOOKS", raising=False)
    settings, announcer = Settings(home=tmp_path, domain="saas", log="sqlite"), SimpleNamespace(listeners=[])
    settings.state.mkdir(parents=True)
    journal, app = Journal(settings.state / FILE), App(Keys())
    app.channels = running.start(settings, journal, announcer)
    with served(app) as (server, url):
        yield Service(
            journal=journal, channels=app.channels, url=url, announcer=announcer, server=server, settings=settings
        )
    app.channels.close()
    journal.close()


@contextmanager
def reading(service: Service, query: str = "", last: int | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a stream, as dicts of their fields; a comment is {}."""
    headers = {} if last is None else {"last-event-id": str(last)}
    url, timeout = f"{service.url}/v1/segments/stream{query}", httpx.Timeout(PATIENCE_S)
    with httpx.stream("GET", url, headers=headers, timeout=timeout) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        events = parsed(response.iter_lines())
        if last is None and not query.startswith("?after"):
            assert next(events) == {}  # it listens from here on
        yield events


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name in ("data", "id") else value


def take(events: Iterator[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < n:
        if event := next(events):
            found.append(event)
    return found


def test_a_stream_is_in_no_frame_and_kept_by_nobody(service: Service) -> None:
    with httpx.stream("GET", f"{service.url}/v1/segments/stream", timeout=PATIENCE_S) as response:
        told = [response.headers[f"x-{name}"] for name in ("content-type-options", "frame-options")]
        assert (*told, response.headers.get_list("cache-control")) == ("nosniff", "DENY", ["no-store"])


def test_changes_are_told_as_they_happen(service: Service) -> None:
    service.write(change("before"))
    with reading(service) as events, reading(service, "?user=u-2") as hers, reading(service, "?segment=idle") as idle:
        service.write(change("u-1"), change("u-2"), change("u-1", "idle", False))
        told = take(events, 3)
        assert [e["id"] for e in told] == [2, 3, 4] and {e["event"] for e in told} == {"segment.changed"}
        assert told[0]["data"]["userId"] == "u-1" and told[0]["data"]["seq"] == 2
        assert [e["id"] for e in take(hers, 1)] == [3] and [e["id"] for e in take(idle, 1)] == [4]
    until(lambda: len(service.channels.hub) == 0)


def test_an_anonymous_user_is_told_of_and_asked_for_by_anonymous_id(service: Service) -> None:
    with reading(service, "?anonymousId=d-1") as device, reading(service, "?user=d-1") as user:
        service.write(change("anon:d-1"), change("d-1"))
        ids = [
            (e["id"], e["data"]["userId"], e["data"]["anonymousId"])
            for events in (device, user)
            for e in take(events, 1)
        ]
    assert ids == [(1, None, "d-1"), (2, "d-1", None)]
    now = httpx.get(f"{service.url}/v1/segments")
    assert [(c["userId"], c["anonymousId"]) for c in now.json()["changes"]] == [("d-1", None), (None, "d-1")]
    assert "anon:" not in now.text


@pytest.mark.parametrize(
    ("query", "where", "code"),
    [
        ("user=anon%3Ad-1", "?user", "reserved_id"),
        ("user=u&anonymousId=d", "?anonymousId", "invalid_request"),
    ],
)
def test_who_cannot_be_asked_for(service: Service, query: str, where: str, code: str) -> None:
    refused = httpx.get(f"{service.url}/v1/segments/stream?{query}")
    assert (refused.status_code, refused.json()["where"], refused.json()["code"]) == (422, where, code)


def test_after_a_break_it_goes_on_where_it_was(service: Service) -> None:
    service.write(*[change(f"u-{n}") for n in range(5)])
    with reading(service, last=2) as events:
        assert [e["id"] for e in take(events, 3)] == [3, 4, 5]
        service.write(change("new"))
        assert [e["id"] for e in take(events, 1)] == [6]
    with reading(service, "?after=5&user=new") as events:
        assert [e["id"] for e in take(events, 1)] == [6]


def test_none_is_lost_or_told_twice_while_it_catches_up(service: Service) -> None:
    service.write(*[change(f"u-{n}") for n in range(2 * sse.PAGE + 7)])
    writer = threading.Thread(target=lambda: [service.write(change("meanwhile")) for _ in range(100)])
    writer.start()
    with reading(service, last=0) as events:
        assert [e["id"] for e in take(events, 2 * sse.PAGE + 107)] == list(range(1, 2 * sse.PAGE + 108))
    writer.join()


def test_what_comes_while_a_reader_is_let_in_is_told_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    last = service.journal.last
    monkeypatch.setattr(service.journal, "last", lambda: (service.write(change("just now")), last())[1])
    with reading(service, last=0) as events:
        assert take(events, 1)[0]["data"]["userId"] == "just now"
        service.write(change("then"))
        assert take(events, 1)[0]["data"]["userId"] == "then"


def test_too_much_missed_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_AGAIN", 3)
    service.write(*[change(f"u-{n}") for n in range(10)])
    with reading(service, last=1) as events:
        assert [(e["event"], e["id"]) for e in take(events, 2)] == [("reset", 7), ("segment.changed", 8)]
    with reading(service, last=99) as events:  # of another journal
        assert [(e["event"], e["id"]) for e in take(events, 1)] == [("reset", 10)]
        service.write(change())
        assert take(events, 1)[0]["id"] == 11


def test_a_comment_shows_that_it_lives(service: Service) -> None:
    service.channels._streams._heartbeat_s = 0.05
    with reading(service) as events:
        assert [next(events) for _ in range(3)] == [{}, {}, {}]


def test_a_slow_reader_is_dropped_and_nobody_else_notices(service: Service) -> None:
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect(("127.0.0.1", int(service.url.rsplit(":", 1)[1])))
    lazy.sendall(b"GET /v1/segments/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    until(lambda: len(service.channels.hub) == 1)
    with reading(service) as events:
        sent = 0
        while len(service.channels.hub) == 2:
            assert sent < 40 * MOST_WAITING
            began = time.monotonic()
            service.write(*[change(cause="x" * 20_000) for _ in range(50)])
            assert time.monotonic() - began < 2
            take(events, 50)
            sent += 50
        service.write(change("after"))
        assert take(events, 1)[0]["data"]["userId"] == "after"
    lazy.close()


def test_what_is_refused(service: Service) -> None:
    stream = f"{service.url}/v1/segments/stream"
    assert httpx.get(f"{stream}?after=x").json()["code"] == "invalid_position"
    assert httpx.get(stream, headers={"last-event-id": "-1"}).status_code == 422
    assert httpx.post(f"{service.url}/v1/segments").status_code == httpx.head(stream).status_code == 405
    service.channels.hub._most = 0
    refused = httpx.get(stream)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        503, "too_many_readers", "30",
    )  # fmt: skip


def test_a_key_is_needed_or_this_machine(fakes: SimpleNamespace) -> None:
    async def statuses(app: App, address: str = "127.0.0.1", key: str | None = None) -> set[int]:
        async with fakes.client(app, address, key) as client:
            return {(await client.get(path)).status_code for path in (running.PATH, running.STREAM)}

    keyed, open_here = App(Keys((fakes.KEY,))), App(Keys())
    assert asyncio.run(statuses(keyed)) == asyncio.run(statuses(keyed, key="x" * 32)) == {401}
    assert asyncio.run(statuses(open_here, "10.0.0.1")) == {403}
    assert asyncio.run(statuses(keyed, key=fakes.KEY)) == asyncio.run(statuses(open_here)) == {503}  # starting


def test_counts_follow_the_changes_and_an_erasure(service: Service) -> None:
    def now() -> Any:
        return httpx.get(f"{service.url}/v1/segments").json()

    assert now() == {"segments": [], "changes": [], "seq": 0}
    service.write(change("a"), change("b"), change("c", "idle"), change("d", "idle"))
    assert [(s["segment"], s["people"]) for s in now()["segments"]] == [("idle", 2), ("keen", 2)]
    service.write(change("a", entered=False), change("c", "idle", entered=False), change("d", "idle", entered=False))
    found = now()
    assert found["segments"] == [{"source": "rules", "segment": "keen", "people": 1}] and found["seq"] == 7
    assert [c["seq"] for c in found["changes"]] == [7, 6, 5, 4, 3, 2, 1]
    service.write(*[change(f"more-{n}") for n in range(60)])
    assert len(now()["changes"]) == 50 and now()["segments"][0]["people"] == 61
    service.journal.erase(["b"])
    assert now()["segments"][0]["people"] == 60


def test_the_document_describes_what_is_sent(service: Service) -> None:
    from tests.serving.test_openapi import valid

    service.write(change("a"))
    assert valid(httpx.get(f"{service.url}/v1/segments").json(), "SegmentsNow", openapi.document())


def test_streams_end_when_they_are_told_to_and_no_new_one_begins(service: Service) -> None:
    with reading(service) as events:
        service.channels.hub.close()
        assert list(events) == []  # ended as HTTP wants it: httpx raises otherwise
    assert httpx.get(f"{service.url}/v1/segments/stream").json()["code"] == "ending"


def test_telling_nobody_costs_nothing_and_waits_for_nobody() -> None:
    Hub().tell([change()])
    Channels(Journal(), []).tell([change()])


def test_decisions_have_their_turn_while_many_are_told() -> None:
    """Of the event loop, while 200 changes go to 500 readers: counted in turns, not in time."""

    async def turns() -> int:
        hub, listeners, found = Hub(), [Listener(None, None) for _ in range(500)], 0
        for listener in listeners:
            hub.add(listener)
        hub.tell([change(f"u-{n}") for n in range(200)])
        while listeners[-1].waiting.qsize() < 200 or listeners[0].waiting.qsize() < 200:
            await asyncio.sleep(0)
            found += 1
        frames = [listeners[0].waiting.get_nowait() for _ in range(200)]
        assert [f.change.person for f in frames] == [f"u-{n}" for n in range(200)]
        return found

    assert asyncio.run(turns()) >= 200 * 500 // AT_ONCE


SERVER = """
import sys, uvicorn
from types import SimpleNamespace
from pathlib import Path
from feature_repo.settings import Settings
from serving.app import App
from serving.auth import Keys
from serving.http_limits import LimitedProtocol
from serving.segments.channels import running
from serving.segments.channels.signals import before_end
from serving.segments.journal import Journal

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        inner.channels = running.start(Settings(home=Path(sys.argv[1])), Journal(), SimpleNamespace(listeners=[]))
        before_end(inner.channels.hub.close)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("closed", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await inner(scope, receive, send)

inner = App(Keys())
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical")
"""


def test_a_server_that_is_told_to_stop_does_not_wait_for_readers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(tmp_path), str(port)]
    process = subprocess.Popen(command, cwd=SOURCE, stdout=subprocess.PIPE, text=True)
    try:
        service = Service(url=f"http://127.0.0.1:{port}")
        until_answers(port)
        with reading(service) as events:
            process.send_signal(signal.SIGTERM)
            assert list(events) == []
        assert process.communicate(timeout=PATIENCE_S)[0] == "closed\n"
    finally:
        process.kill()
        process.wait()


def until_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
