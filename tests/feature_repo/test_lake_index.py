"""A look-up of a user gives what a search through everybody's events gives, whatever the index knows."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.lake import lake_index, user_events
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.lake_sql import ROW_GROUP, STORED
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.lake.past import Past
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings
from tests.feature_repo import histories, oracle
from tests.feature_repo.test_stream import event

SAAS = domains.load("saas")
HOMES = itertools.count()
STEPS = ("nothing", "drain", "compact", "compact, as a killed command leaves it", "lose the index", "damage the index")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


def expected(rows: list[histories.Row], user: str) -> list[tuple[Any, ...]]:
    """The definition of `user_events.around` in plain loops."""
    counted = oracle.canonical(rows)
    links = {r["anonymous_id"] for r in counted if r["user_id"] == user and r["type"] in ("identify", "alias")}
    ids = {user.removeprefix("anon:")} if user.startswith("anon:") else links - {None}
    theirs = [r for r in counted if r["user_id"] == user or r["anonymous_id"] in ids]
    return sorted((r["ts_us"], r["message_id"], r["user_id"] or "", r["anonymous_id"] or "") for r in theirs)


def looked_up(settings: Settings, user: str) -> list[tuple[Any, ...]]:
    found = user_events.around(settings, user)
    assert found.schema.names == STORED.names
    return sorted((r["ts_us"], r["message_id"], r["user_id"] or "", r["anonymous_id"] or "") for r in found.to_pylist())


def agree(settings: Settings, rows: list[histories.Row]) -> None:
    for user in (*histories.USERS, *(f"anon:{d}" for d in histories.DEVICES), "nobody", "anon:nobody"):
        assert looked_up(settings, user) == expected(rows, user), user


def pasts_agree(settings: Settings, rows: list[histories.Row]) -> None:
    """What a history is given of senders is the same by the index, where it can be, and by a search."""
    senders = [*histories.USERS, *(f"anon:{d}" for d in histories.DEVICES), "nobody", "anon:nobody"]
    by_search, counted = Past(settings, row_groups=-1), oracle.canonical(rows)
    for some in (*([sender] for sender in senders), senders):
        found = sorted(by_search(some), key=lambda row: row.key)
        assert sorted(Past(settings)(some), key=lambda row: row.key) == found
        sent = {(r["user_id"] or f"anon:{r['anonymous_id']}", r["message_id"]) for r in counted}
        assert {row.key for row in found} == {key for key in sent if key[0] in some}


@given(data=st.data())
def test_a_look_up_is_the_same_whatever_log_lake_and_index_hold(home: Path, data: st.DataObject) -> None:
    settings = Settings(home=home / str(next(HOMES)), domain="saas")
    settings.state.mkdir(parents=True)
    rows = data.draw(histories.events(SAAS, 20))
    rows += [r | {"ts_us": r["ts_us"] + 1} for r in data.draw(st.lists(st.sampled_from(rows), max_size=4))]
    arriving, index = data.draw(st.permutations(rows)), LakeIndex(settings)
    with closing(SqliteLog(log_file(settings))) as log:
        while arriving:
            size = data.draw(st.integers(1, len(arriving)))
            log.append([event(r) for r in arriving[:size]]).result()
            log.poll(size, 1)
            arriving = arriving[size:]
            match data.draw(st.sampled_from(STEPS)):
                case "drain":
                    drain(settings)
                case "compact, as a killed command leaves it":
                    drain(settings)
                    index.lake.compact(buckets=2, progress=False)
                case "compact":
                    lake_index.compact(settings, progress=False)
                case "lose the index":
                    (settings.state / lake_index.FILE).unlink(missing_ok=True)
                case "damage the index":
                    (settings.state / lake_index.FILE).write_bytes(b"no database at all" * 500)
        agree(settings, rows)
        drain(settings)
        log.trim(log.last)
        agree(settings, rows)
        pasts_agree(settings, rows)
        index.lake.erase(["u2"])  # rewrites files under their names, and the index is not told
        agree(settings, [r for r in rows if r["user_id"] != "u2"])
        pasts_agree(settings, [r for r in rows if r["user_id"] != "u2"])
        index.refresh()
        agree(settings, [r for r in rows if r["user_id"] != "u2"])
        pasts_agree(settings, [r for r in rows if r["user_id"] != "u2"])


def test_a_lake_elsewhere_is_looked_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_LAKE", f"memory://{tmp_path}/lake")
    settings = Settings(home=tmp_path, domain="saas")
    lake = Lake(settings.lake)
    for n in range(3):
        lake.append([plain(n, f"u{n}", "device"), plain(n + 10, "u1")])
    for indexed in (False, True):
        if indexed:
            LakeIndex(settings).refresh()
        assert [r["message_id"] for r in user_events.around(settings, "u1").to_pylist()] == ["m1", "m10", "m11", "m12"]
        assert user_events.around(settings, "anon:device").num_rows == 3
    lake_index.compact(settings, progress=False)
    lake.erase(["u1"])
    assert user_events.around(settings, "u1").num_rows == 0


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_read_does_not_grow_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacted: bool
) -> None:
    settings, read = Settings(home=tmp_path, domain="saas"), list[int]()
    group_of = lake_index._read

    def counted(file: Any, group: int, columns: Any) -> pa.Table:
        read.append((rows := group_of(file, group, columns)).num_rows)
        return rows

    monkeypatch.setattr(lake_index, "_read", counted)
    per_size = []
    for part in range(3):
        base = part * 40_000
        Lake(settings.lake).append([plain(n, f"u{n}", f"d{n}") for n in range(base, base + 40_000)])
        LakeIndex(settings).refresh()
        if compacted:
            lake_index.compact(settings, progress=False)
        read.clear()
        assert user_events.around(settings, "u7").num_rows == 1
        per_size.append(sum(read))
        read.clear()
        assert len(list(Past(settings)(["u7"]))) == 1 and 0 < sum(read) <= ROW_GROUP
    assert max(per_size) <= ROW_GROUP


def plain(n: int, user: str | None, device: str | None = None) -> Event:
    at = histories.BASE + n
    return Event("page", f"m{n}", user, device, at, at, None, {}, {}, {})


@pytest.mark.parametrize(
    "odd", ["nul\x00in it", "'; drop table lake; --", "ß\\u0027'", "x" * 256, "$1 ?", "getvariable('a')"]
)
def test_ids_are_values_and_never_sql(tmp_path: Path, odd: str) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    lake, con = Lake(settings.lake), ibis.duckdb.connect()
    lake.append([plain(1, odd), plain(2, "u1"), plain(3, None, odd), plain(4, None, "d1")])
    for senders in ([odd], [odd, f"anon:{odd}"], [odd, *(f"x{n}" for n in range(500))]):
        found = lake.events(con, senders).message_id.to_pyarrow().to_pylist()
        assert sorted(found) == ["m1", "m3"][: 1 + (f"anon:{odd}" in senders)]
    assert user_events.around(settings, odd)["message_id"].to_pylist() == ["m1"]
    assert user_events.around(settings, f"anon:{odd}")["message_id"].to_pylist() == ["m3"]
    assert lake.erase([odd, f"anon:{odd}"], [("u1", odd)]) == 2
    assert sorted(lake.events(con).message_id.to_pyarrow().to_pylist()) == ["m2", "m4"]
