"""From the lake to the offline rows: a full backfill, an incremental one, and the rows that go online."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.feature_store import backfill as backfilling
from feature_repo.feature_store.backfill import BOOKMARK, backfill
from feature_repo.feature_store.materialize import in_force, materialize
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.settings import Settings
from tests.feature_repo import histories, oracle

SAAS = domains.load("saas")


def settings(folder) -> Settings:
    return Settings(home=folder, domain="saas")


def append(to: Settings, events) -> None:
    if events:
        Lake(to.lake).append_table(pa.Table.from_pylist(events, INCOMING))


def rows(of: Settings):
    """All offline rows without the applied position, which depends on the order of arrival."""
    found = pa.concat_tables([pq.read_table(f) for f in sorted(of.features.glob("*.parquet"))])
    return found.drop_columns(["created", "applied_position"]).sort_by(
        [("user_id", "ascending"), ("event_timestamp", "ascending")]
    )


@given(data=st.data())
def test_batches_repetition_and_touched_users_only_give_the_full_backfill(data, tmp_path_factory):
    events = data.draw(histories.events(SAAS, 15))
    copies = [
        e | {"ts_us": e["ts_us"] + data.draw(st.sampled_from([0, 1, 3_600_000_000]))}
        for e in data.draw(st.lists(st.sampled_from(events), max_size=4))
    ]
    arrivals = data.draw(st.permutations(events + copies))
    cut = data.draw(st.integers(1, len(arrivals)))
    once, twice = settings(tmp_path_factory.mktemp("once")), settings(tmp_path_factory.mktemp("twice"))
    append(once, events + copies)
    backfill(once, progress=False)
    for part in (arrivals[:cut], arrivals[cut:]):
        append(twice, part)
        backfill(twice, progress=False)
    assert rows(once).equals(rows(twice))
    for row in rows(once).to_pylist():  # and the canonical copies are those of the definition
        t = round(row["event_timestamp"].timestamp() * 1_000_000)
        wanted = oracle.row(oracle.canonical(events + copies), SAAS, row["user_id"], t)
        assert {n: row[n] for n in SAAS.feature_types} == wanted


def event(user: str, n: int, ts_us: int, name: str = "Clicked") -> dict:
    """A track event of the saas product."""
    return {
        "message_id": f"{user}-{n}", "type": "track", "name": name, "user_id": user, "anonymous_id": None,
        "ts_us": ts_us, "received_us": ts_us, "properties": "{}", "traits": "{}", "context": "{}",
    }  # fmt: skip


T0 = histories.BASE


def test_nothing_to_do_does_nothing(tmp_path):
    append(settings(tmp_path), [event("a", 0, T0)])
    assert backfill(settings(tmp_path), progress=False).buckets > 0
    before = {f: f.stat().st_mtime_ns for f in settings(tmp_path).features.glob("*.parquet")}
    assert backfill(settings(tmp_path), progress=False).buckets == 0
    assert {f: f.stat().st_mtime_ns for f in settings(tmp_path).features.glob("*.parquet")} == before


def test_new_events_cost_what_their_users_cost(tmp_path):
    append(settings(tmp_path), [event(f"u{i}", 0, T0 + i) for i in range(200)])
    backfill(settings(tmp_path), progress=False)
    append(settings(tmp_path), [event("u7", 1, T0 + 1000)])
    done = backfill(settings(tmp_path), progress=False)
    assert (done.buckets, done.events) == (1, 2)


def test_changed_definitions_are_computed_anew(tmp_path):
    append(settings(tmp_path), [event("a", 0, T0)])
    backfill(settings(tmp_path), progress=False)
    bookmark = settings(tmp_path).features / BOOKMARK
    bookmark.write_text(json.dumps(json.loads(bookmark.read_text()) | {"features": "of before"}))
    assert backfill(settings(tmp_path), progress=False).buckets > 0


def test_the_same_definitions_have_the_same_fingerprint_in_every_process():
    code = (
        "from feature_repo import domains; from feature_repo.feature_store.backfill import fingerprint; "
        "print(fingerprint(domains.load('saas')))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_kill_between_buckets_loses_nothing(tmp_path, monkeypatch):
    once, killed = settings(tmp_path / "once"), settings(tmp_path / "killed")
    first, then = [event(f"u{i}", 0, T0 + i) for i in range(50)], [event(f"u{i}", 1, T0 + 60 + i) for i in range(50)]
    for to in (once, killed):
        append(to, first)
        backfill(to, progress=False)
        append(to, then)
    calls = []
    replace = backfilling._replace

    def dies(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        replace(*args)

    monkeypatch.setattr(backfilling, "_replace", dies)
    with pytest.raises(KeyboardInterrupt):
        backfill(killed, progress=False)
    monkeypatch.undo()
    backfill(once, progress=False)
    backfill(killed, progress=False)
    assert rows(once).equals(rows(killed))


@pytest.mark.parametrize("name", domains.names())
def test_rows_have_the_declared_types(name, tmp_path):
    to = Settings(home=tmp_path, domain=name)
    append(to, [event("a", 0, T0)])
    backfill(to, progress=False)
    schema = pq.read_schema(next(to.features.glob("*.parquet")))
    declared = {n: t.replace("float64", "double") for n, t in domains.load(name).feature_types.items()}
    assert {f.name: str(f.type) for f in schema if f.name in declared} == declared
    times = [str(schema.field(n).type) for n in ("event_timestamp", "created", "valid_until_us")]
    assert times == ["timestamp[us, tz=UTC]", "timestamp[us, tz=UTC]", "int64"]


def test_an_empty_lake_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="make simulate"):
        backfill(settings(tmp_path), progress=False)


HOUR = 3_600_000_000


def test_rows_in_force_leave_windows_without_a_new_event(tmp_path):
    append(settings(tmp_path), [event("a", 0, T0), event("b", 0, T0 + HOUR)])
    backfill(settings(tmp_path), progress=False)
    at = {
        t: {r["user_id"]: r["interactions_1h"] for r in in_force(settings(tmp_path), T0 + t).to_pylist()}
        for t in (0, HOUR)
    }
    assert at == {0: {"a": 1}, HOUR: {"a": 0, "b": 1}}


def test_only_what_changed_since_goes_online(tmp_path):
    append(settings(tmp_path), [event("a", 0, T0), event("b", 0, T0)])
    backfill(settings(tmp_path), progress=False)
    append(settings(tmp_path), [event("b", 1, T0 + 5)])
    backfill(settings(tmp_path), progress=False)
    changed = in_force(settings(tmp_path), T0 + 10, since_us=T0 + 1, since_position=2).to_pylist()
    assert [r["user_id"] for r in changed] == ["b"]


def test_changed_definitions_are_written_online_anew(tmp_path):
    to = settings(tmp_path)
    append(to, [event("a", 0, T0)])
    backfill(to, progress=False)
    assert [materialize(to, T0 + n, progress=False).rows for n in (1, 2)] == [1, 0]
    bookmark = to.features / BOOKMARK
    bookmark.write_text(json.dumps(json.loads(bookmark.read_text()) | {"features": "of before"}))
    assert [materialize(to, T0 + n, progress=False).rows for n in (3, 4)] == [1, 0]


def test_a_correction_that_moves_back_takes_the_time_of_the_belief_it_replaces(tmp_path):
    append(settings(tmp_path), [event("a", 0, T0 + 100)])
    backfill(settings(tmp_path), progress=False)
    append(settings(tmp_path), [event("a", 0, T0)])  # a copy with an earlier timestamp: the canonical one
    backfill(settings(tmp_path), progress=False)
    (row,) = in_force(settings(tmp_path), T0 + 200, since_us=T0 + 150, since_position=1).to_pylist()
    assert round(row["event_timestamp"].timestamp() * 1_000_000) == T0 + 150
    assert row["last_event_us"] == T0
