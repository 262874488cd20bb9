"""Sums beyond int64 are kept at the limit, counted, and told with feature and user, by the stream and by backfill."""

import json
import logging
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.__main__ import main
from feature_repo.erasing import erasure
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.store import apply
from feature_repo.features.saturation import AtLimit, Watch, summed
from feature_repo.settings import Settings
from feature_repo.stream.embedded import Embedded
from tests.feature_repo import oracle
from tests.feature_repo.histories import BASE
from tests.feature_repo.test_backfill import append, event
from tests.feature_repo.test_embedded import settled
from tests.feature_repo.test_stream import event as parsed

OULAD = domains.load("oulad")
HIGH, LOW = 2**63 - 1, -(2**63)
LOG = "feature_repo.features.saturation"


def viewed(user: str | None, n: int, clicks: int, device: str | None = None) -> dict[str, Any]:
    """The n-th event: an hour before the n-th before it."""
    made = event(user, n, BASE - n * 3_600_000_000, "Viewed") | {"properties": json.dumps({"clicks": clicks})}
    return made | {"anonymous_id": device}


def beyond(rows: list[dict[str, Any]], user: str, at_us: int = BASE) -> set[str]:
    """The features whose exact sums, by the definition in plain loops, are at a limit."""
    row = oracle.row(rows, OULAD, user, at_us) or {}
    return {name for name in summed(OULAD) if row[name] in (LOW, HIGH)}


def test_the_stream_counts_them_and_names_each_feature_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(home=tmp_path, domain="oulad")
    apply(settings)
    live = Embedded(settings, lambda: BASE).start()
    rows = {"high": [viewed("high", n, HIGH) for n in range(2)], "fine": [viewed("fine", 5, 7)]}
    live.append([parsed(e) for of in rows.values() for e in of]).result()
    settled(live, list(rows))
    expected = {user: beyond(of, user) for user, of in rows.items()}
    assert expected["fine"] == set() and expected["high"]
    assert live.sums_at_limit == len(expected["high"])
    more = [viewed("more", 0, HIGH), viewed("more", 1, 1)]
    live.append([parsed(e) for e in more]).result()
    settled(live, ["more"])
    assert live.sums_at_limit == len(expected["high"]) + len(beyond(more, "more"))
    told = [r.getMessage() for r in caplog.records if r.name == LOG and r.levelno == logging.WARNING]
    names = expected["high"] | beyond(more, "more")
    assert sorted(t.split(":")[0] for t in told) == sorted(f"feature {name}" for name in names)
    assert not any(" high " in t or " more " in t for t in told)  # an erasure does not reach the log
    live.settle()
    live.erase(erasure.plan(settings, "high"))
    assert live.sums_at_limit == len(beyond(more, "more")) > 0
    earlier = more[0] | {"ts_us": BASE - 1, "properties": json.dumps({"clicks": 7})}  # this copy of the message counts
    live.append([parsed(earlier)]).result()
    settled(live, ["more"])
    assert live.sums_at_limit == len(beyond([more[1], earlier], "more")) == 0
    live.close()


def test_backfill_names_the_feature_and_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, domain="oulad")
    users = {
        "anon:visitor-9": [viewed(None, n, HIGH, "visitor-9") for n in range(3)],
        "high": [viewed("high", n, HIGH) for n in range(2)], "fine": [viewed("fine", 5, 7)],
    }  # fmt: skip
    append(settings, [e for of in users.values() for e in of])
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["backfill", "--domain", "oulad"])
    assert done.exit_code == 0, done.output
    rows = ibis.duckdb.connect().read_parquet(str(settings.features / "*.parquet")).to_pyarrow().to_pylist()
    wanted = list[AtLimit]()
    for name in summed(OULAD):
        found = [r["user_id"] for r in rows if r[name] in (LOW, HIGH)]
        wanted += [AtLimit(name, len(set(found)), len(found), min(found))] if found else []
    assert {f.feature for f in wanted} >= set.union(*(beyond(of, u, BASE) for u, of in users.items()))
    assert list(backfill(settings, progress=False).at_limit) == wanted  # also where there was nothing to do
    for found in wanted:
        assert f"{found}\n" in done.output
    assert "anonymous visitor-9 and 1 more users" in done.output and "anon:" not in done.output


def test_without_extreme_values_nothing_is_said(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="oulad")
    append(settings, [viewed("fine", 5, 7)])
    assert backfill(settings, progress=False).at_limit == ()


VALUES = st.sampled_from([None, 0, 7, LOW + 1, LOW, HIGH, HIGH - 1])


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1), max_size=6))
def test_the_count_is_that_of_the_rows_written_last(writes: list[dict[str, int | None]]) -> None:
    watch, now, (name, *others) = Watch(OULAD), dict[str, int | None](), summed(OULAD)
    for some in writes:
        now |= some
        nothing = pa.array([None] * len(some), pa.int64())
        columns = {"user_id": pa.array(some), name: pa.array(some.values(), pa.int64())} | dict.fromkeys(
            others, nothing
        )
        watch.see(list(some), pa.table(columns))
        assert watch.count == sum(value in (LOW, HIGH) for value in now.values())
