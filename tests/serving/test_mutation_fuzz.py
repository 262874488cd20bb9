"""Mutated requests to the whole service: each is answered below 500, and afterwards the service is as before.

In this process many requests a second reach the real application; over HTTP they pass uvicorn with its limits too.
"""

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import ibis
import pytest

from feature_repo.erasing.tombstones import ERASED
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain
from feature_repo.lake.quarantine import Quarantine
from feature_repo.settings import Settings
from monitoring.parity import parity
from serving import wiring
from serving.app import App
from serving.collect.door import OPTED_OUT
from serving.console.playbook import Declared
from serving.segments.channels.running import STREAM
from tests.serving.collect.conftest import serving
from tests.serving.mutations import Asked, Mutator, wire
from tests.serving.test_users import Service

WAIT_S = 120.0
"""Nothing takes that long on a machine that is busy with other work too."""
AT_ONCE = 16


class Counts:
    """What came of the requests, and what was wrong about them."""

    def __init__(self) -> None:
        self.statuses, self.receipts = Counter[int](), Counter[str]()
        self.removed = 0
        self.wrong = list[tuple[Asked, Any]]()

    def answered(self, asked: Asked, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        if status >= 500:
            self.wrong.append((asked, (status, body[:500])))
        if told := headers.get(b"firstmile-receipts"):
            self.receipts.update({s.decode(): int(n) for s, n in re.findall(rb"(\w+)=(\d+)", told.partition(b";")[0])})
            self.receipts.update({s.decode(): int(n) for s, n in re.findall(rb";(\w+)=(\d+)", told)})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The whole service without Bento and without a model."""
    with closing(Service(Settings(home=tmp_path, domain="saas"))) as made:
        announcer = wiring.announcer(made.settings, made.engine, made.live)
        assert announcer is not None
        made.app.channels = wiring.channels(made.settings, made.engine, announcer)
        made.app.declared = Declared(made.settings, made.engine.playbook)
        yield made
        announcer.close()
        made.app.channels.close()


async def call(app: App, asked: Asked) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body that the application answers, called as uvicorn calls it."""
    host = [] if any(name == b"host" for name, _ in asked.headers) else [(b"host", b"localhost")]
    scope = {
        "type": "http", "method": asked.method, "path": unquote(asked.path.decode("ascii")), "raw_path": asked.path,
        "query_string": asked.query, "headers": [*asked.headers, *host], "client": ("127.0.0.1", 1), "scheme": "http",
    }  # fmt: skip
    said, body = dict[str, Any](), list[bytes]()
    coming = [{"type": "http.request", "body": asked.body}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return coming.pop(0) if len(coming) > 1 else coming[0]

    async def send(message: Any) -> None:
        said.update(message) if message["type"] == "http.response.start" else body.append(message["body"])

    await app(scope, receive, send)
    return said["status"], dict(said["headers"]), b"".join(body)


async def pour(service: Service, mutator: Mutator, count: int, counts: Counts) -> None:
    """Ask that many requests of the application, AT_ONCE at once; an erasure by itself."""

    async def one(asked: Asked) -> None:
        if asked.path.startswith(STREAM.encode()):
            return  # it never ends
        try:
            status, headers, body = await asyncio.wait_for(call(service.app, asked), WAIT_S)
        except Exception as e:
            counts.wrong.append((asked, repr(e)))
            return
        counts.answered(asked, status, headers, body)
        if asked.method == "DELETE" and status in (200, 202) and b'"stores"' in body:
            counts.removed += sum(int(n) for n in re.findall(rb'"store":"quarantine","removed":(\d+)', body))

    left = count
    while left > 0:
        chunk = [mutator.ask() for _ in range(min(AT_ONCE, left))]
        left -= len(chunk)
        await asyncio.gather(*(one(asked) for asked in chunk if asked.method != "DELETE"))
        for asked in chunk:
            if asked.method == "DELETE":
                await one(asked)


def over_http(port: int, mutator: Mutator, count: int, counts: Counts) -> None:
    """Ask that many requests over connections of their own; every third has its bytes damaged as a whole."""

    def one(asked: Asked, raw: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
            try:
                connection.sendall(raw)
                connection.settimeout(
                    WAIT_S if raw == wire(asked) and b"content-length" not in dict(asked.headers) else 0.3
                )
                got = b""
                while part := connection.recv(65_536):
                    got += part
            except (TimeoutError, ConnectionError) as e:  # of damaged requests more may be expected to come
                if isinstance(e, TimeoutError) and connection.gettimeout() == WAIT_S:
                    counts.wrong.append((asked, "no answer"))
                return
        for status in re.findall(rb"^HTTP/1\.1 (\d{3})", got):
            counts.answered(asked, int(status), {}, got)

    asked = [a for a in (mutator.ask() for _ in range(count)) if not a.path.startswith(STREAM.encode())]
    raws = [mutator.damaged(wire(a)) if n % 3 == 0 else wire(a) for n, a in enumerate(asked)]
    raws = [raw if STREAM.encode() not in raw else b"" for raw in raws]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, asked, raws))


def until_applied(service: Service) -> None:
    """Wait until the stream has applied every event."""
    ends = time.monotonic() + WAIT_S
    while service.live.lag():
        assert time.monotonic() < ends, "the stream does not get on"
        time.sleep(0.02)


def all_is_well(service: Service) -> int:
    """A clean client is served, nobody is set aside, and every vector served equals the lake; returns how many."""
    clean = [
        {"type": "identify", "userId": "clean", "messageId": "clean-1", "traits": {"plan": "pro"}},
        {"type": "track", "event": "Feature Used", "userId": "clean", "messageId": "clean-2", "properties": {}},
    ]
    assert [r["status"] for r in service.send(*clean)] == ["accepted", "accepted"]
    until_applied(service)
    assert service.decide("clean")["known"]
    assert service.ask("GET", "/v1/users/clean").status_code == 200
    assert service.ask("GET", "/v1/users/clean/why").status_code == 200
    assert not service.live.set_aside
    drain(service.settings)
    events = Lake(service.settings.lake).events(ibis.duckdb.connect()).to_pyarrow()
    for name, column in (("userIds", "user_id"), ("anonymousIds", "anonymous_id")):
        ids = [i for i in set(events[column].to_pylist()) if i]
        for start in range(0, len(ids), 500):
            answer = service.ask("POST", "/v1/decide/batch", json={name: ids[start : start + 500]})
            assert answer.status_code == 200, answer.text
    service.engine.close()
    found = parity(service.settings, progress=False)
    assert (found.wrong, found.wrong_vectors) == (0, 0), found.wrong_features
    return found.vectors


def every_refusal_is_kept(service: Service, removed: int) -> None:
    """What the door refused is in the quarantine, by the same reasons, but for what erasures removed."""
    assert service.app.door is not None
    refused = {
        r: n for (s, r), n in service.app.door.counted.items() if s == "refused" and r not in (OPTED_OUT, ERASED)
    }
    kept = Quarantine(service.settings.quarantine).counts()
    assert all(refused) and set(kept) <= set(refused)
    assert sum(refused.values()) == sum(kept.values()) + removed
    if not removed:
        assert dict(kept) == refused


def fuzz(service: Service, seed: int, count: int) -> Counts:
    """Everything about so many mutated requests."""
    print(f"seed {seed}")
    counts, mutator = Counts(), Mutator(seed)
    began = time.monotonic()
    asyncio.run(pour(service, mutator, count, counts))
    took = time.monotonic() - began
    assert not counts.wrong, counts.wrong[:3]
    until_applied(service)
    every_refusal_is_kept(service, counts.removed)
    vectors = all_is_well(service)
    assert counts.receipts["accepted"] > count / 20 and counts.receipts["refused"] > count / 20
    assert vectors > 50 and counts.statuses[200] > count / 5 and counts.statuses[400] > count / 50
    print(
        f"{count:,} inputs in {took:.0f} s: {dict(counts.statuses)}, {dict(counts.receipts)}, {vectors:,} vectors equal"
    )
    return counts


def test_mutated_requests(service: Service) -> None:
    fuzz(service, 1, 1_000)


@pytest.mark.soak
def test_mutated_requests_at_length(service: Service) -> None:
    fuzz(service, time.time_ns(), 100_000)


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mutated_requests_over_http(service: Service, count: int) -> None:
    counts = Counts()
    with serving(service.app) as url:
        over_http(int(url.rsplit(":", 1)[1]), Mutator(2), count, counts)
        assert not counts.wrong, counts.wrong[:3]
        assert sum(counts.statuses.values()) > count * 0.7 and counts.statuses[200] > count * 0.1
        assert httpx.get(f"{url}/readyz").status_code == 200
    until_applied(service)
    all_is_well(service)
