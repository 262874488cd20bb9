"""Rows that cannot move anybody are not looked at, and everything comes out as if they were."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import event, given, settings
from hypothesis import strategies as st

from serving.rules import Rules, State
from serving.rules.fold import Row
from serving.rules.history import History
from serving.segments.timeline import follow
from tests.serving.rules.made_up import lives, rules

EXAMPLES = settings.get_profile(settings.get_current_profile_name()).max_examples
MOMENT = pa.timestamp("us", "UTC")


def written(folder: Path, people: dict[str, list[Row]]) -> None:
    rows = [(person, *row) for person, life in people.items() for row in life]
    at = pa.array([row[1] for row in rows], pa.int64()).cast(MOMENT)
    columns = {name: pa.array([row[2][name] for row in rows], pa.int64()) for name in ("x", "seen_us")}
    end = pa.array([row[3] for row in rows], pa.int64())
    first = {"user_id": [row[0] for row in rows], "event_timestamp": at, "created": at, "valid_until_us": end}
    pq.write_table(pa.table(first | columns), folder / "0000.parquet")


@st.composite
def calm(draw: st.DrawFn) -> list[Row]:
    """Many rows of whose values few differ from those before."""
    steps = draw(st.lists(st.integers(1, 3), min_size=4, max_size=14))
    moments = [sum(steps[:n]) for n in range(len(steps))]
    x, seen, rows = 1, 0, list[Row]()
    for at, until in zip(moments, [*moments[1:], moments[-1] + 25], strict=True):
        x = draw(st.sampled_from([x, x, x, x, 1 + x % 3]))
        seen = draw(st.sampled_from([seen, at]))
        rows.append((at, {"x": x, "seen_us": seen}, until))
    return rows


@settings(max_examples=EXAMPLES * 20)
@given(rules(), st.lists(st.one_of(lives(), calm()), min_size=1, max_size=3), st.integers(0, 70))
def test_quiet_rows_change_nothing(found: Rules, people: list[list[Row]], at_us: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), {f"u{n}": life for n, life in enumerate(people)})
        pasts = list(History(Path(folder), ["x", "seen_us"]).pasts(found))
    assert [past.person for past in pasts] == [f"u{n}" for n in range(len(people))]
    for past in pasts:
        assert not past.quiet[0]
        if past.begins[0] > at_us:
            continue
        past = past.until(at_us)
        looked_at = follow([(0, found)], past.rows, State(), 0, at_us)
        event(f"{sum(past.quiet)} quiet, {min(len(looked_at.moves), 3)} moves")
        assert follow([(0, found)], past.rows, State(), 0, at_us, quiet=past.quiet) == looked_at


def test_what_crosses_no_limit_is_quiet(tmp_path: Path) -> None:
    from serving.rules import Segment
    from serving.rules.conditions import Compare, Elapsed

    busy = Segment("busy", "w", Compare("x", ">=", 3), Elapsed("since", "seen_us", ">", 5))
    life: list[Row] = [(n, {"x": x, "seen_us": n}, n + 1) for n, x in enumerate([0, 1, 2, 3, 4, 4])]
    written(tmp_path, {"u": [*life, (6, {"x": 4, "seen_us": 6}, None)]})
    (past,) = History(tmp_path, ["x", "seen_us"]).pasts(Rules("saas", [busy]))
    assert past.quiet == [False, True, True, False, True, True, False]
