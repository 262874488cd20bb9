"""The live part beside a lake that was filled without it, and across stops."""

import threading
import time
from pathlib import Path

import ibis
import pyarrow as pa

from feature_repo import domains
from feature_repo.embedded import Embedded
from feature_repo.lake import Lake
from feature_repo.lake_sql import INCOMING
from feature_repo.settings import Settings
from feature_repo.store import feature_store, read_online
from feature_repo.stream import MOST_EVENTS, MOST_PERSONS, WHILE_ONE_WAITS
from tests.feature_repo import oracle
from tests.feature_repo.histories import BASE
from tests.feature_repo.test_backfill import event
from tests.feature_repo.test_stream import event as parsed

SAAS = domains.load("saas")
DAY = 24 * 3_600_000_000


def rows(user: str, at: list[int]) -> list[dict]:
    return [event(user, n, t) | {"position": n + 1, "content_hash": ""} for n, t in enumerate(at)]


def settled(live: Embedded, users: list[str]) -> None:
    deadline = time.monotonic() + 20
    while live.pending.of(users) or live.pending.history.waiting(live.processor.clock()):
        assert time.monotonic() < deadline, live.stream.error
        time.sleep(0.01)


def clicks(settings: Settings, users: list[str]) -> list[int | None]:
    found = read_online(feature_store(settings, lineage=False), SAAS, users, ["clicks"])
    return [None if row is None else row["clicks"] for row in found]


def test_what_the_lake_had_before_counts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    past = rows("old", [BASE - 60 * DAY, BASE - 50 * DAY]) + rows("new", [BASE - DAY, BASE - 1])
    Lake(settings.lake).append_table(pa.Table.from_pylist(past, INCOMING))
    live = Embedded(settings, lambda: BASE).start()
    settled(live, ["old", "new"])
    assert clicks(settings, ["old", "new"]) == [None, 2]  # a window will still leave the new one
    later = [event("old", 9, BASE), event("new", 9, BASE)]
    live.append([parsed(row) for row in later]).result()
    settled(live, ["old", "new"])
    assert clicks(settings, ["old", "new"]) == [3, 3]
    for user in ("old", "new"):
        (found,) = read_online(feature_store(settings, lineage=False), SAAS, [user], list(SAAS.feature_types))
        assert found == oracle.row([r for r in past + later if r["user_id"] == user], SAAS, user, BASE)
    live.close()
    kept = Lake(settings.lake).events(ibis.duckdb.connect()).position.to_pyarrow().to_pylist()
    assert sorted(kept) == [1, 2, 3, 4, 5, 6]


def test_whom_a_decision_waits_for_comes_first_and_waits_for_nobody_else(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings, lambda: BASE)  # driven from here
    users, noted = [f"u{n}" for n in range(MOST_PERSONS + 1)], threading.Event()
    live.append([parsed(event(u, n, BASE - 1)) for n, u in enumerate(users)]).add_done_callback(lambda _: noted.set())
    assert noted.wait(20)
    first, *_, last = users
    assert live.pending.of([first]) and live.pending.of([last])
    live.processor.apply(live.log.poll(MOST_EVENTS, 1))
    assert live.pending.of([last]) and clicks(settings, [last]) == [None]
    assert live.processor.refresh() == WHILE_ONE_WAITS
    assert not live.pending.of([last]) and clicks(settings, [last]) == [1]
    written = [u for u in users if not live.pending.of([u])]
    assert len(written) == WHILE_ONE_WAITS and {first, last} <= set(written)
    assert [u for u, n in zip(users, clicks(settings, users), strict=True) if n == 1] == written
    assert live.lag() == len(users)
    live.close()


def test_what_was_ingested_while_it_was_stopped_counts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings, lambda: BASE).start()
    live.append([parsed(event("u1", 1, BASE))]).result()
    settled(live, ["u1"])
    live.close()
    Lake(settings.lake).append_table(pa.Table.from_pylist(rows("u2", [BASE]), INCOMING))
    live = Embedded(settings, lambda: BASE).start()
    live.append([parsed(event("u1", 2, BASE))]).result()
    settled(live, ["u1", "u2"])
    assert clicks(settings, ["u1", "u2"]) == [2, 1]
    live.close()
