"""The tables of a join: what can be read, and what is wrong with those that can't."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contract.events import Event
from feature_repo.enrichment import TableJoin
from feature_repo.vocabulary import Column
from tests.feature_repo.enrichment.test_steps import FOLDER, PLANS, event_of

TIER = (Column("tier", "context.account.tier"),)


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def joined(step: TableJoin, event: Event) -> Any:
    return step.compiled()(event).context.get("account")


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    path = parquet(tmp_path, plan=["team", "pro"], tier=["sales", "sales"], seats=[25, None], sso=[False, True])
    for plan in ("team", "pro", "none"):
        event = event_of(traits={"plan": plan})
        assert joined(replace(PLANS, table=path), event) == joined(PLANS, event)


def test_a_uri_is_opened_by_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://tables/plans.csv", "wb") as file:
        file.write((FOLDER / "plans.csv").read_bytes())
    assert joined(replace(PLANS, table="memory://tables/plans.csv"), event_of(traits={"plan": "free"}))["seats"] == 1


@pytest.mark.parametrize(
    ("keys", "path", "event"),
    [
        (pa.array([7, 8, None]), "traits.company", {"traits": {"company": 7}}),
        (pa.array([7, 8, None], pa.uint8()), "traits.company", {"traits": {"company": "7"}}),
        (pa.array(["u", "v", None]).dictionary_encode(), "userId", {"userId": "u"}),
        (pa.array(["u", "v", None], pa.large_string()), "anonymousId", {"userId": None, "anonymousId": "u"}),
    ],
)
def test_keys_are_texts_or_integers(tmp_path: Path, keys: Any, path: str, event: dict[str, Any]) -> None:
    table = parquet(tmp_path, key=keys, tier=["a", "b", "c"])
    assert joined(TableJoin(table, path, "key", TIER), event_of(**event)) == {"tier": "a"}


def test_integers_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    seats = (Column("seats", "context.account.seats", "int64"),)
    table = parquet(tmp_path, key=["u", "v"], seats=[25.0, None])
    assert joined(TableJoin(table, "userId", "key", seats), event_of()) == {"seats": 25}


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    step = TableJoin(tmp_path / "t.csv", "userId", "key", TIER)
    for tier in ("a", "longer"):
        (tmp_path / "t.csv").write_text(f"key,tier\nu,{tier}\n")
        assert joined(step, event_of()) == {"tier": tier}


@pytest.mark.parametrize(
    ("text", "kind", "wrong"),
    [
        (None, "string", "expected a CSV or Parquet file with columns key, tier; .*No such file"),
        ("", "string", "expected a CSV or Parquet file with columns key, tier; Empty CSV"),
        ("key,level\nu,a\n", "string", "expected a column 'tier'; there are key, level"),
        ("id,tier\nu,a\n", "string", "expected a column 'key'; there are id, tier"),
        ("key,tier\nu,a\nv,b\nu,c\n", "string", "column 'key': expected each key once; 'u' is there again"),
        ("key,tier\nu,high\n", "int64", "CSV conversion error to int64"),
    ],
)
def test_what_is_wrong_names_file_and_column(tmp_path: Path, text: str | None, kind: str, wrong: str) -> None:
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    columns = (Column("tier", "context.account.tier", kind),)
    with pytest.raises(ValueError, match=f"{path}: .*{wrong}"):
        TableJoin(path, "userId", "key", columns).compiled()


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("string", pa.array([1.5]), "expected string; came double"),
        ("int64", pa.array([1.5]), "expected int64; .*truncated"),
        ("int64", pa.array([2**64 - 1], pa.uint64()), "expected int64; .*not in range"),
        ("int64", pa.array(["many"]), "expected int64; Failed to parse"),
        ("string", pa.array([["a"]]), "expected string; came list"),
        ("int64", pa.array([1], pa.timestamp("us")), "expected int64; came timestamp"),
    ],
)
def test_a_parquet_column_of_another_type(tmp_path: Path, kind: str, values: Any, wrong: str) -> None:
    path = parquet(tmp_path, key=["u"], tier=values)
    with pytest.raises(ValueError, match=f"{path}: column 'tier': {wrong}"):
        TableJoin(path, "userId", "key", (Column("tier", "context.account.tier", kind),)).compiled()
