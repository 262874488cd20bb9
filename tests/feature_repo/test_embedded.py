"""The live part beside a lake that was filled without it, and across stops."""

import threading
import time
from pathlib import Path

import ibis
import pyarrow as pa
import pytest

from feature_repo import domains
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.settings import Settings
from feature_repo.stream import embedded, processor, slow_lane, stream
from feature_repo.stream.embedded import Embedded
from feature_repo.stream.processor import MOST_PERSONS, WHILE_ONE_WAITS
from feature_repo.stream.slow_lane import TakesLong
from feature_repo.stream.stream import MOST_EVENTS
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


def test_while_many_events_wait_they_go_first_and_rows_that_somebody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_EVENTS", 3)
    monkeypatch.setattr(stream, "BEHIND_S", 60.0)
    settings, users, noted = Settings(home=tmp_path, domain="saas"), [f"u{n}" for n in range(7)], threading.Event()
    live = Embedded(settings, lambda: BASE)  # driven from here
    live.stream._looked_s = time.monotonic()
    live.append([parsed(event(u, n, BASE - 1)) for n, u in enumerate(users)]).add_done_callback(lambda _: noted.set())
    assert noted.wait(20)
    live.stream._step()
    assert live.processor.waiting and clicks(settings, users) == [None] * 7
    assert live.pending.of(["u0"])
    live.stream._step()
    assert clicks(settings, ["u0", "u6"]) == [1, None] and live.applied == 0
    live.stream._step()  # the last one: less than are applied together
    assert clicks(settings, users) == [1] * 7 and live.applied == 7
    live.close()


def test_whose_event_is_not_applied_yet_waits_for_one_batch_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, users = Settings(home=tmp_path, domain="saas"), [f"u{n}" for n in range(2 * MOST_PERSONS)]
    live = Embedded(settings, lambda: BASE)  # driven from here
    refresh = live.processor.refresh

    def then_somebody_comes() -> int:
        monkeypatch.setattr(live.processor, "refresh", refresh)
        due = refresh()
        appended(live, event("late", 0, BASE - 1))
        assert live.pending.of(["late"])
        return due

    appended(live, *(event(u, n, BASE - 1) for n, u in enumerate(users)))
    monkeypatch.setattr(live.processor, "refresh", then_somebody_comes)
    live.stream._step()
    assert clicks(settings, users).count(1) == MOST_PERSONS and live.applied == 0
    live.processor.hurry(["late"])
    live.stream._step()
    assert clicks(settings, ["late"]) == [1]
    live.stream._step()
    assert clicks(settings, users) == [1] * len(users) and live.applied == len(users) + 1
    live.close()


def appended(live: Embedded, *events: dict) -> None:
    """Returns once it is known that these are pending."""
    noted = threading.Event()
    live.append([parsed(e) for e in events]).add_done_callback(lambda _: noted.set())
    assert noted.wait(20)


def test_of_what_is_applied_nothing_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "AT_ONCE", 4)
    live = Embedded(Settings(home=tmp_path, domain="saas"), lambda: BASE)
    for n, user in enumerate(("u0", "u1", "u0", "u2")):
        appended(live, event(user, n, BASE - 1))
        if n == 1:
            live.stream._step()
    assert live.pending._until == {"u0": 3, "u2": 4}
    assert {message: position for (_, message), position in live.pending._copies.items()} == {"u0-2": 3, "u2-3": 4}
    live.close()


def test_who_is_in_the_slow_lane_is_pending_by_every_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "AT_ONCE", 1)
    live = Embedded(Settings(home=tmp_path, domain="saas"), lambda: BASE)
    appended(live, event("u", 0, BASE - 9) | {"type": "identify", "name": None, "anonymous_id": "d"})
    live.stream._step()
    monkeypatch.setattr(processor, "needs_past", lambda held, persons: {"u"}.intersection(persons))
    appended(live, event("d", 1, BASE - 1) | {"user_id": None, "anonymous_id": "d"})
    live.stream._step()
    assert live.applied == 2 and "u" in live.processor.slow
    for n in range(3):
        appended(live, event("other", n, BASE - 1))
    live.stream._step()
    assert live.pending.of(["u"]) and not live.pending.of(["other"])
    monkeypatch.undo()
    live.processor.refresh_slow()
    assert not live.pending.of(["u"]) and clicks(live.settings, ["u"]) == [1]
    live.close()


def test_after_a_kill_nothing_is_applied_before_the_rows_that_were_left_are_written(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    killed = Embedded(settings, lambda: BASE)
    appended(killed, event("u", 0, BASE - 1))
    killed.processor.apply(killed.log.poll(10, 1))
    killed.close()  # which writes no rows
    live = Embedded(settings, lambda: BASE)
    assert live.pending.of(["u"]) and clicks(settings, ["u"]) == [None]
    live.stream._step()
    assert not live.pending.of(["u"]) and clicks(settings, ["u"]) == [1] and live.applied == 1
    live.close()


def test_after_a_kill_who_lacks_an_event_in_the_slow_lane_is_pending_and_who_is_due_by_time_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, now = Settings(home=tmp_path, domain="saas"), [BASE]
    killed = Embedded(settings, lambda: now[0])
    appended(killed, event("event", 0, BASE - 9), event("time", 0, BASE - 9))
    killed.stream._step()
    monkeypatch.setattr(slow_lane, "HEAVY", 0)
    appended(killed, event("event", 1, BASE - 1))
    killed.stream._step()
    now[0] += 2 * DAY
    killed.processor.refresh()
    assert killed.processor.slow == {"event"} and len(killed.history.claim(now[0], 10, slow=True)) == 2
    killed.close()
    live = Embedded(settings, lambda: now[0])
    live.stream._step()
    assert [live.pending.of([user]) for user in ("event", "time")] == [True, False]
    live.processor.refresh_slow(), live.processor.refresh_heavy()
    assert not live.pending.of(["event"]) and clicks(settings, ["event"]) == [2]
    live.close()


def test_who_cannot_wait_is_told_whose_rows_take_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Embedded(Settings(home=tmp_path, domain="saas"), lambda: BASE)
    appended(live, event("much", 0, BASE - 9), event("much", 1, BASE - 1), event("little", 0, BASE - 1))
    live.stream._step()
    monkeypatch.setattr(slow_lane, "HEAVY", 1)
    with live.processor._lanes.slow.lock:  # the slow lane is at it
        with pytest.raises(TakesLong) as told:
            live.rows(["much", "little"], BASE, patient=False)
        assert told.value.persons == {"much"}
        found, _ = live.rows(["little"], BASE, patient=False)
        assert found["user_id"].to_pylist() == ["little"]
    found, _ = live.rows(["much", "little"], BASE)
    assert found["clicks"].to_pylist() == [1, 2]
    live.close()


def test_who_has_very_many_events_keeps_nobody_in_the_slow_lane_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_lane, "HEAVY", 3)
    settings = Settings(home=tmp_path, domain="saas")
    past = rows("much", [BASE - 60 * DAY + n for n in range(5)]) + rows("little", [BASE - 60 * DAY])
    Lake(settings.lake).append_table(pa.Table.from_pylist(past, INCOMING))
    live = Embedded(settings, lambda: BASE)
    appended(live, event("much", 9, BASE - 1), event("little", 9, BASE - 1))
    live.stream._step()
    assert live.processor.slow == {"much", "little"}
    with live.processor._lanes.heavy.lock:  # the lane of those with very many events is at it
        assert live.processor.refresh_slow() == 1 and live.processor.slow == {"much"}
        assert clicks(settings, ["much", "little"]) == [None, 2] and live.history.left(["much"]) == {"much"}
        assert live.rows(["little"], BASE)[0]["clicks"].to_pylist() == [2]
        with pytest.raises(TakesLong) as told:
            live.rows(["much", "little"], BASE)
        assert told.value.persons == {"much"}
        assert live.processor.refresh_slow() == 0
    assert live.processor.refresh_heavy() == 1 and clicks(settings, ["much"]) == [6]
    assert live.processor.slow == set() and live.processor.refresh_slow() + live.processor.refresh_heavy() == 0
    assert live.rows(["much", "little"], BASE)[0]["clicks"].to_pylist() == [2, 6]
    live.close()


def test_an_event_that_comes_while_a_row_takes_seconds_is_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_lane, "HEAVY", 0)
    live = Embedded(Settings(home=tmp_path, domain="saas"), lambda: BASE)
    lane, later = live.processor._lanes.heavy, [event("much", 1, BASE - 1)]
    fold = lane.fold

    def meanwhile(persons: list[str], now_us: int) -> None:
        if later:
            appended(live, later.pop())
            live.stream._step()
            live.processor.refresh_slow()
        fold(persons, now_us)

    monkeypatch.setattr(lane, "fold", meanwhile)
    appended(live, event("much", 0, BASE - 9))
    live.stream._step()
    live.processor.refresh_slow(), live.processor.refresh_heavy()
    assert clicks(live.settings, ["much"]) == [1] and live.pending.of(["much"])
    live.processor.refresh_heavy()
    assert clicks(live.settings, ["much"]) == [2] and not live.pending.of(["much"])
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


def test_a_claim_on_a_device_that_no_row_has_yet_is_known_also_after_a_kill(tmp_path: Path) -> None:
    settings, noted = Settings(home=tmp_path, domain="saas"), threading.Event()
    live = Embedded(settings, lambda: BASE)  # never started: nothing is applied
    link = parsed(event("u", 0, BASE - 9) | {"type": "identify", "name": None, "anonymous_id": "d"})
    live.append([link]).add_done_callback(lambda _: noted.set())
    assert noted.wait(20)
    assert live.pending.claims(["d", "e"]) == {"d": {"u"}, "e": set()}
    live.log.close()  # as a kill would
    again = Embedded(settings, lambda: BASE)
    assert again.pending.claims(["d"]) == {"d": {"u"}}
    again.close()
