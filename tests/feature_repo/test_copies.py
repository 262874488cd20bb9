"""Which of several copies of a message counts, by keys that browsers hold and others: the same in Python and in SQL."""

from pathlib import Path

import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.events import Event
from feature_repo.contract.origin import Origin, note
from feature_repo.history.history_store import row_of
from feature_repo.lake.lake import Lake
from monitoring import recompute

KEYS = [Origin(), Origin("1" * 12), Origin("2" * 12, browser=True, verified=True), Origin("3" * 12, browser=True)]


def copy(ts_us: int, received_us: int, origin: Origin, feature: str = "a") -> Event:
    context: dict = {}
    note(context, origin)
    return Event("track", "m", "u", None, ts_us, received_us, "Clicked", {"feature": feature}, {}, context)


one = st.builds(copy, st.integers(1, 3), st.integers(1, 4), st.sampled_from(KEYS), st.sampled_from("ab"))
copies = st.lists(one, min_size=1, max_size=6)


@given(copies)
def test_a_public_key_never_replaces_and_order_stays_indifferent(events: list[Event]) -> None:
    rows = [row_of(n, e) for n, e in enumerate(events, 1)]
    best = min(rows, key=lambda r: r.rank)
    private = [e for e in events if not e.context.get("firstmile", {}).get("browser")]
    if private:
        assert best.ts_us == min(e.ts_us for e in private) and '"browser"' not in best.context
    else:
        assert best.received_us == min(e.received_us for e in events)
    again = [row_of(n, e) for n, e in enumerate(sorted(events, key=lambda e: (e.ts_us, e.received_us)), 1)]
    assert min(again, key=lambda r: r.rank).rank[:-1] == best.rank[:-1]


@pytest.mark.parametrize("compacted", [False, True])
def test_lake_parity_and_history_agree_on_the_copy_that_counts(tmp_path: Path, compacted: bool) -> None:
    events = [
        copy(2, 1, KEYS[2]),
        copy(1, 2, KEYS[3], "b"),
        copy(3, 3, KEYS[1]),
        copy(1, 4, KEYS[3]),
        copy(2, 5, KEYS[0]),
    ]
    best = min((row_of(n, e) for n, e in enumerate(events, 1)), key=lambda r: r.rank)
    lake = Lake(str(tmp_path))
    lake.append(events)
    if compacted:
        lake.compact(progress=False)
    con = ibis.duckdb.connect()
    (held,) = lake.events(con).to_pyarrow().to_pylist()
    assert (held["position"], held["ts_us"]) == (best.position, best.ts_us) == (5, 2)
    con.create_view("copies", lake.new_since(con, 0))
    ranked = con.raw_sql(f"select position from copies order by {recompute.RANK} limit 1").fetchone()
    assert ranked == (5,)
