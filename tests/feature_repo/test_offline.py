"""The point-in-time join: the last row up to the time of asking, for every person, exactly."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Int64, String
from hypothesis import given
from hypothesis import strategies as st
from ibis.backends.duckdb import Backend

from feature_repo.feature_store.offline import ROW, Source, as_table, in_force, in_microseconds

T0 = datetime(2024, 2, 29, 23, 59, 59, 999_998, tzinfo=UTC)
US = timedelta(microseconds=1)

Point = tuple[str, int]  # a person and a time, µs from T0
USERS = st.sampled_from(["a", "b", "c"])
FEATURE_ROWS = st.dictionaries(
    st.tuples(USERS, st.integers(0, 6)), st.one_of(st.none(), st.integers(-(2**52), 2**52)), max_size=12
)
ASKED = st.lists(st.tuples(USERS, st.integers(-1, 7)), min_size=1, max_size=8)


def at(us: int) -> datetime:
    return T0 + us * US


def brute_force(rows: dict[Point, int | None], user: str, asked: int, ttl: int | None = None) -> int | None:
    """The value of the last row of `user` up to `asked`, and no older than `ttl`."""
    times = [t for (u, t) in rows if u == user and t <= asked]
    if not times or (ttl and max(times) + ttl < asked):
        return None
    return rows[(user, max(times))]


def feature_table(rows: dict[Point, int | None]) -> pa.Table:
    stamp = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "user_id": pa.array([u for u, _ in rows], pa.string()),
            "event_timestamp": pa.array([at(t) for _, t in rows], stamp),
            "created": pa.array([T0] * len(rows), stamp),
            "n": pa.array(list(rows.values()), pa.int64()),
        }
    )


@cache
def duckdb() -> Backend:
    """One database for all examples of a property."""
    return ibis.duckdb.connect()


@given(rows=FEATURE_ROWS, asked=ASKED, ttl=st.sampled_from([None, 1, 3]))
def test_every_row_equals_brute_force(rows: dict[Point, int | None], asked: list[Point], ttl: int | None) -> None:
    con = duckdb()
    entities = pd.DataFrame({"user_id": [u for u, _ in asked], "event_timestamp": [at(t) for _, t in asked]})
    table = con.create_table("features", feature_table(rows), temp=True, overwrite=True)
    renamed = table.select(__key0="user_id", __at="event_timestamp", __created="created", n="n")
    source = Source(renamed, ("user_id",), ("n",), ttl * US if ttl else None)
    found = in_force(as_table(con, in_microseconds(entities), "event_timestamp"), source).order_by(ROW).to_pyarrow()
    assert found["n"].to_pylist() == [brute_force(rows, u, t, ttl) for u, t in asked]


ROWS: dict[Point, int | None] = {
    **{("a", t): 1_709_251_199_999_990 + t for t in (0, 2, 4)},
    **{("b", t): None if t == 3 else t for t in range(1, 6)},
}
ASKING: list[Point] = [("b", 3), ("a", 3), ("nobody", 3), ("a", -1), ("a", 0), ("b", 3), ("b", 100), ("a", 4), ("a", 1)]


def entity_rows(unit: Literal["us", "ns"] = "us") -> pd.DataFrame:
    """People asked for, unsorted and repeated, with columns and an index of their own."""
    frame = pd.DataFrame(
        {
            "label": [f"label {i}" for i in range(len(ASKING))],
            "user_id": [u for u, _ in ASKING],
            "event_timestamp": pd.Series([at(t) for _, t in ASKING]).dt.as_unit(unit),
            "weight": [i / 7 for i in range(len(ASKING))],
        }
    )
    return frame.set_index(pd.Index(range(100, 100 + len(ASKING))))


def store(folder: Path, offline: str, ttl: timedelta = timedelta(0)) -> FeatureStore:
    """A feature store over two views, the second with other features, on Parquet in several files."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    views = []
    for name, feature in (("first", "n"), ("second", "m")):
        source = FileSource(
            name=f"{name}_rows",
            path=str(folder / name),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        schema = [Field(name="user_id", dtype=String), Field(name=feature, dtype=Int64)]
        views.append(FeatureView(name=name, entities=[user], ttl=ttl, schema=schema, source=source))
    config = {"type": offline}
    registry, online = str(folder / f"{offline}.db"), {"type": "sqlite", "path": str(folder / "online.db")}
    made = FeatureStore(
        config=RepoConfig(
            project="probe", provider="local", registry=registry, offline_store=config, online_store=online
        )
    )
    made.apply([user, *views])
    return made


OURS = "feature_repo.feature_store.offline.AsofDuckDBOfflineStore"


@pytest.fixture
def rows_on_disk(tmp_path: Path) -> Path:
    table = feature_table(ROWS)
    for name, feature in (("first", "n"), ("second", "m")):
        (tmp_path / name).mkdir()
        renamed = table.rename_columns(["user_id", "event_timestamp", "created", feature])
        pq.write_table(renamed.slice(0, 3), tmp_path / name / "0.parquet")
        pq.write_table(renamed.slice(3), tmp_path / name / "1.parquet")
        (tmp_path / name / "state.json").write_text("{}")
    return tmp_path


def history(made: FeatureStore, entities: pd.DataFrame, **options: Any) -> pa.Table:
    return made.get_historical_features(entities, features=["first:n", "second:m"], **options).to_arrow()


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_entity_rows_keep_their_order_their_columns_and_their_repetitions(
    rows_on_disk: Path, unit: Literal["us", "ns"]
) -> None:
    entities = entity_rows(unit)
    found = history(store(rows_on_disk, OURS), entities)
    expected = [brute_force(ROWS, u, t) for u, t in ASKING]
    assert found.column_names == [*entities.columns, "n", "m"]
    assert found["label"].to_pylist() == entities["label"].tolist()
    assert found["weight"].to_pylist() == entities["weight"].tolist()
    assert found["event_timestamp"].to_pylist() == [at(t) for _, t in ASKING]
    assert found["n"].to_pylist() == found["m"].to_pylist() == expected
    assert found["n"].type == pa.int64()


def test_the_same_as_feasts_own_store(rows_on_disk: Path) -> None:
    entities = entity_rows()
    ours = history(store(rows_on_disk, OURS), entities)
    theirs = history(store(rows_on_disk, "duckdb"), entities)
    assert ours.sort_by("label").to_pylist() == theirs.select(ours.column_names).sort_by("label").to_pylist()


def test_ttl_and_the_created_cutoff_are_feasts(rows_on_disk: Path) -> None:
    for ttl, cutoff in ((US, False), (timedelta(0), True)):
        tables = [
            history(store(rows_on_disk, kind, ttl), entity_rows(), filter_by_created_timestamp=cutoff)
            for kind in (OURS, "duckdb")
        ]
        ours, theirs = (t.select(["label", "n", "m"]).sort_by("label").to_pylist() for t in tables)
        assert ours == theirs
        assert any(r["n"] is not None for r in ours)


def test_full_feature_names(rows_on_disk: Path) -> None:
    found = history(store(rows_on_disk, OURS), entity_rows(), full_feature_names=True)
    assert found.column_names[-2:] == ["first__n", "second__m"]


def test_of_two_rows_with_one_timestamp_the_last_created_counts(rows_on_disk: Path) -> None:
    later = feature_table({("a", 4): 7}).set_column(2, "created", pa.array([T0 + US], pa.timestamp("us", "UTC")))
    pq.write_table(later, rows_on_disk / "first" / "2.parquet")
    found = history(store(rows_on_disk, OURS), entity_rows())
    assert len(found) == len(ASKING)
    assert found["n"].to_pylist()[ASKING.index(("a", 4))] == 7


def test_no_features_yet_says_what_to_do(rows_on_disk: Path) -> None:
    for file in (rows_on_disk / "second").glob("*.parquet"):
        file.unlink()
    made = store(rows_on_disk, OURS)
    with pytest.raises(FileNotFoundError, match=r"second_rows: no features yet in .*second: run `make backfill`"):
        history(made, entity_rows())


def test_memory_limit_and_threads_reach_duckdb(tmp_path: Path) -> None:
    from feature_repo.feature_store.offline import connect

    offline = {"type": OURS, "memory_limit": "300MB", "threads": 1, "temp_directory": str(tmp_path / "spill")}
    config = RepoConfig(project="probe", provider="local", registry="r.db", offline_store=offline)
    query = "SELECT current_setting('memory_limit'), current_setting('threads'), current_setting('temp_directory')"
    assert connect(config).raw_sql(query).fetchone() == ("286.1 MiB", 1, str(tmp_path / "spill"))
