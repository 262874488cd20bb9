"""Events through the collector get what the domain's steps add, before they are in the log."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ibis
import pytest

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.enrichment import HttpJoin, Step, TableJoin
from feature_repo.enrichment.compiled import AT_ONCE, Enrichment
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.lake.intake import take_in
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.stream.embedded import Embedded
from feature_repo.vocabulary import Column
from serving import wiring
from serving.app import App
from serving.collect.door import Door

NOW = 1_767_261_600_000_000
CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36"
)
SENT = {
    "type": "track",
    "event": "File Uploaded",
    "messageId": "m1",
    "anonymousId": "a1",
    "timestamp": "2026-01-01T09:00:00Z",
    "properties": {"bytes": 2 * 10**12},
    "context": {
        "timezone": "Asia/Tokyo",
        "page": {"url": "https://app.example.com/files", "referrer": "https://www.bing.com/"},
    },
}
ADDED = {
    "device": {"type": "mobile"},
    "browser": "Chrome",
    "os": {"name": "Android", "version": "10"},
    "campaign": {"source": "bing", "medium": "organic", "channel": "organic_search"},
    "local": {"part_of_day": "evening", "hour": 18, "weekday": 4},
    "flags": ["properties.bytes"],
}
SAAS = domains.load("saas")
NAMED = (Column("name", "context.company.name"),)


def raw(**fields: Any) -> bytes:
    return json.dumps(SENT | fields).encode()


def enriching(*steps: Step) -> Enrichment:
    return Enrichment(replace(SAAS, enrich=steps))


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{{key}}"


def test_a_browsers_event_has_device_and_browser_in_the_log(
    make_collector: Callable[..., App], serve: Callable[..., Any], log: Any, keys: Any
) -> None:
    with serve(make_collector({"enrich": Enrichment(SAAS)}, origins=("https://app.example.com",))) as url:
        headers = {"User-Agent": CHROME, "Origin": "https://app.example.com"}
        told = httpx.post(f"{url}/v1/batch", json={"batch": [SENT], "writeKey": keys.write}, headers=headers)
    assert (told.status_code, told.json()["receipts"][0]["status"]) == (200, "accepted")
    (event,) = log.events
    key = {"firstmile": event.context["firstmile"]}  # the fingerprint of the write key
    assert event.context == SENT["context"] | {"userAgent": CHROME} | ADDED | key
    assert event.properties == SENT["properties"]  # out of range: flagged, and kept


def test_the_service_is_wired_with_the_steps_of_its_domain(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings).start()
    door = wiring.door(settings, live)
    assert "firstmile_enrichment_failures_total" in door.metrics()
    asyncio.run(door.accept([raw(context=SENT["context"] | {"userAgent": CHROME})], NOW))
    deadline = time.monotonic() + 20
    while live.pending.of(["anon:a1"]):
        assert time.monotonic() < deadline, live.stream.error
        time.sleep(0.01)
    (row,) = read_online(feature_store(settings, lineage=False), SAAS, ["anon:a1"], ["device", "browser", "referral"])
    live.close()
    assert row == {"device": "mobile", "browser": "Chrome", "referral": "bing"}


def test_a_bulk_intake_gives_the_same_event(tmp_path: Path, make_door: Callable[..., Door], log: Any) -> None:
    sent = raw(context=SENT["context"] | {"userAgent": CHROME})
    asyncio.run(make_door(enrich=Enrichment(SAAS)).accept([sent], NOW))
    settings = Settings(home=tmp_path, domain="saas")
    take_in(settings, SAAS, [(sent, NOW)], progress=False)
    (row,) = Lake(settings.lake).events(ibis.duckdb.connect()).to_pyarrow().to_pylist()
    assert json.loads(row["context"]) == log.events[0].context == SENT["context"] | {"userAgent": CHROME} | ADDED


def test_a_domain_without_steps_takes_in_what_came(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    take_in(settings, replace(SAAS, enrich=()), [(raw(), NOW)], progress=False)
    (row,) = Lake(settings.lake).events(ibis.duckdb.connect()).to_pyarrow().to_pylist()
    assert json.loads(row["context"]) == SENT["context"] | {"flags": ["properties.bytes"]}


def test_a_source_that_says_nothing_delays_a_batch_by_its_time_out_only(
    make_door: Callable[..., Door], log: Any
) -> None:
    with silent() as url:
        door = make_door(enrich=enriching(HttpJoin(url, "anonymousId", NAMED), *SAAS.enrich))
        began = time.monotonic()
        raws = [raw(messageId=f"m{n}", anonymousId=f"a{n}") for n in range(50)]
        receipts = asyncio.run(door.accept(raws, NOW))
        assert time.monotonic() - began < 8  # not 50 times 0.2 s
    assert [r.status for r in receipts] == ["accepted"] * 50
    assert all(e.context == SENT["context"] | {k: ADDED[k] for k in ("campaign", "local", "flags")} for e in log.events)
    assert 'firstmile_enrichment_failures_total{step="1 HttpJoin",reason="timeout"}' in door.metrics()


def test_a_table_that_is_not_there_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = replace(SAAS, enrich=(TableJoin(tmp_path / "t.csv", "userId", "id", NAMED),))
    monkeypatch.setattr(domains, "load", lambda _: domain)
    with pytest.raises(ValueError, match=r"t\.csv: expected a CSV or Parquet file with columns id, name"):
        wiring.check(Settings(home=tmp_path, domain="saas"))


class Counting:
    """A step that says how often the loop had a turn since the first event."""

    adds: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.turn = 0

    def compiled(self) -> Callable[[Event], Event]:
        def look(event: Event) -> Event:
            self.turns.append(self.turn)
            return event

        return look


def test_others_get_their_turn_while_a_large_batch_is_enriched(make_door: Callable[..., Door]) -> None:
    step = Counting()

    async def run() -> None:
        over = asyncio.Event()

        async def other() -> None:
            while not over.is_set():
                step.turn += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        await make_door(enrich=enriching(step)).accept([raw(messageId=f"m{n}") for n in range(1_000)], NOW)
        over.set()
        await beside

    asyncio.run(run())
    assert len(set(step.turns)) == 1_000 // AT_ONCE


def test_copies_of_a_message_stay_copies(make_door: Callable[..., Door], log: Any) -> None:
    door = make_door(enrich=Enrichment(SAAS))
    for _ in range(2):
        asyncio.run(door.accept([raw(), raw()], NOW))
    assert len(log.events) == 2 and log.events[0] == log.events[1]
