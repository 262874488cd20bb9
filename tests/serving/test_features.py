"""The reader against a real Feast store, offline rows in Parquet files, and a walk through the rows as the oracle."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from serving import features
from serving.features import VALID_UNTIL, Reader

HOUR = 3_600_000_000


@pytest.fixture
def reader(state: SimpleNamespace) -> Reader:
    made = Reader(state.settings, state.domain)
    assert made.connect()
    return made


def stored(row: dict[str, Any], domain: Domain) -> dict[str, Any]:
    return {name: row[name] for name in domain.feature_types}


def test_the_same_values_as_feast_gives(reader: Reader, state: SimpleNamespace) -> None:
    from feature_repo.feature_store.store import feature_store

    users = ["u1", "u3", "nobody", "u5"]
    store = feature_store(state.settings, lineage=False)
    given = [{"user_id": u, "now_us": state.now} for u in users]
    service = store.get_feature_service(f"{state.domain.name}_v{state.domain.version}")
    feast = store.get_online_features(features=service, entity_rows=given).to_dict()
    found = reader.read(users, state.now)
    assert found[2] is None
    assert all(feast[name][2] is None for name in state.domain.feature_types)
    for at in (0, 1, 3):
        row = found[at]
        assert row is not None
        by_feast = {name: values[at] for name, values in feast.items() if name != "user_id"}
        assert {n: v for n, v in row.values.items() if v == v} == {n: v for n, v in by_feast.items() if v == v}
        assert list(row.values) == [*state.domain.feature_types, *(e.name for e in state.domain.elapsed)]


def test_a_row_says_when_it_was_made_and_how_long_it_holds(reader: Reader, state: SimpleNamespace) -> None:
    (row,) = reader.read(["u2"], state.now)
    assert row is not None
    assert (row.event_us, row.valid_until_us) == (state.start, state.start + HOUR)
    assert row.values["since_last_event"] == (state.now - row.values["last_event_us"]) / 1e6


def test_a_thousand_people_in_the_order_asked_for(reader: Reader, state: SimpleNamespace) -> None:
    users = [f"u{i % 45}" for i in range(1_000)]
    found = reader.read(users, state.start)
    assert [r is not None for r in found] == [i % 45 < 40 for i in range(1_000)]
    assert all(r is None or r.values["clicks"] == i % 45 for i, r in enumerate(found))


def test_a_window_ends_at_its_microsecond(reader: Reader, state: SimpleNamespace) -> None:
    for now, ended in ((state.start + HOUR - 1, False), (state.start + HOUR, True)):
        (row,) = reader.read(["u2"], now)
        assert row is not None
        assert reader.ended(row, now) is ended


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 39), st.integers(-1, 5), st.integers(-1, 1))
def test_the_row_in_force_is_the_last_one_up_to_now(
    reader: Reader, state: SimpleNamespace, number: int, hours: int, off: int
) -> None:
    user, now = f"u{number}", state.start + hours * HOUR + off
    mine = [r for r in state.rows if r["user_id"] == user and r["event_us"] <= now]
    online = reader.read([user], now)[0]
    assert online is not None
    found = reader.in_force({user: online}, now).get(user, online) if reader.ended(online, now) else online
    expected = max(mine, key=lambda r: r["event_us"], default=None)
    if expected is not None:
        assert stored(dict(found.values), state.domain) == stored(expected, state.domain)
        assert (found.event_us, found.valid_until_us) == (expected["event_us"], expected[VALID_UNTIL])
        assert found.values["since_last_event"] == (now - expected["last_event_us"]) / 1e6


def test_many_at_once_are_the_same_as_one_by_one(reader: Reader, state: SimpleNamespace) -> None:
    now = state.start + 2 * HOUR
    online = {f"u{i}": r for i in range(0, 40, 2) if (r := reader.read([f"u{i}"], now)[0]) is not None}
    together = reader.in_force(online, now)
    assert set(together) == set(online)
    for user, row in online.items():
        assert reader.in_force({user: row}, now)[user] == together[user]
    assert together["u2"].applied_position == 900_002


def test_a_row_that_was_looked_up_is_remembered_while_it_holds(
    reader: Reader, state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = state.start + HOUR
    (online,) = reader.read(["u2"], now)
    assert online is not None
    fresh = reader.in_force({"u2": online}, now)["u2"]
    monkeypatch.setattr(reader._offline, "in_force", lambda *_: pytest.fail("must not be asked again"))
    assert reader.read(["u2"], now) == [fresh]
    (later,) = reader.read(["u2"], now + 1_000_000)
    assert later is not None
    assert later.values["since_last_event"] == (now + 1_000_000 - fresh.values["last_event_us"]) / 1e6  # type: ignore[operator]
    (after,) = reader.read(["u2"], state.start + 2 * HOUR)
    assert after is not None and reader.ended(after, state.start + 2 * HOUR)


def test_what_is_remembered_gives_way_to_a_new_online_row(
    reader: Reader, state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = state.start + HOUR
    (online,) = reader.read(["u4"], now)
    assert online is not None
    reader.in_force({"u4": online}, now)
    store = reader._store
    assert store is not None
    values, event_us = store.read(["u4"])[0] or ({}, 0)
    monkeypatch.setattr(store, "read", lambda _: [(values | {"clicks": 77}, event_us)])
    (row,) = reader.read(["u4"], now)
    assert row is not None and row.values["clicks"] == 77


def test_no_more_people_are_remembered_than_allowed(
    reader: Reader, state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "REMEMBERED", 5)
    now = state.start + HOUR
    online = {f"u{i}": r for i in range(0, 40, 2) if (r := reader.read([f"u{i}"], now)[0]) is not None}
    reader.in_force(online, now)
    assert len(reader._memory) == 5


def test_without_offline_rows_nothing_is_in_force(state: SimpleNamespace, tmp_path: Path) -> None:
    from serving.offline import OfflineRows

    rows = OfflineRows(tmp_path, ["clicks"])
    assert rows.in_force({"u2": 0}, state.now) == {}
    (tmp_path / "backfill.json").write_text('{"buckets": 4}')
    assert rows.in_force({"u2": 0}, state.now) == {}
    for bucket in range(4):
        (tmp_path / f"{bucket:04d}.parquet").write_bytes(b"torn")
    with pytest.raises((OSError, pa.ArrowException)):
        rows.in_force({"u2": 0}, state.now)


def test_a_store_that_comes_later_is_found(
    state: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo.feature_store.store import apply

    monkeypatch.setattr(features, "RETRY_S", 0.0)
    elsewhere = Settings(home=tmp_path, domain=state.domain.name, online="sqlite")
    reader = Reader(elsewhere, state.domain)
    assert not reader.connect()
    with pytest.raises(ConnectionError):
        reader.read(["u1"], state.now)
    apply(elsewhere)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert reader.read(["u1"], state.now) == [None]
            break
        except ConnectionError:
            time.sleep(0.05)
    else:
        pytest.fail("the store was never found")


def test_a_first_event_counts_from_its_moment_on(tmp_path: Path) -> None:
    from feature_repo import domains
    from feature_repo.contract.events import Event
    from feature_repo.stream.embedded import Embedded

    now = [1_700_000_000_000_000]
    live = Embedded(Settings(home=tmp_path, domain="saas"), lambda: now[0]).start()
    try:
        ahead = Event("track", "m", "u", None, now[0] + 5, now[0], "Clicked", {}, {}, {})
        live.append([ahead]).result()
        while live.pending.of(["u"]):
            time.sleep(0.01)
        reader = Reader(live.settings, domains.load("saas"), live)
        assert reader.connect()
        assert reader.read(["u", "nobody"], now[0] + 4) == [None, None]
        first, nobody = reader.read(["u", "nobody"], now[0] + 5)
        assert first is not None and reader.ended(first, now[0] + 5) and nobody is None
        assert reader.in_force({"u": first}, now[0] + 5)["u"].values["clicks"] == 1
    finally:
        live.close()
