"""monitoring.segments on literal snapshots."""

import pandas as pd
import pytest

from feature_repo.vocabulary import WEEK
from monitoring.psi import psi
from monitoring.segments import JOINED, LEFT, moves, moves_by_week, shares_by_week

NAMES = ["cold", "hot", "done"]


def snapshot(week: int, **segments: str) -> pd.DataFrame:
    """The segment of each person at the end of a week."""
    return pd.DataFrame(
        [(user, week * WEEK, s) for user, s in segments.items()], columns=["user_id", "now_us", "segment"]
    )


FIRST = snapshot(1, a="cold", b="cold", c="hot", d="hot")
SECOND = snapshot(2, b="cold", c="done", d="cold", e="hot")


def test_shares_and_psi_by_week() -> None:
    one, two = shares_by_week(pd.concat([SECOND, FIRST]), NAMES)
    assert (one.end_us, one.counts, one.psi, one.level) == (WEEK, {"cold": 2, "hot": 2, "done": 0}, None, "unknown")
    assert two.shares == {"cold": 0.5, "hot": 0.25, "done": 0.25}
    assert two.psi == pytest.approx(psi([2, 2, 0], [2, 1, 1]))


def test_weeks_that_are_not_neighbours_are_not_compared() -> None:
    rows = pd.concat([FIRST, snapshot(3, a="hot")])
    assert [week.psi for week in shares_by_week(rows, NAMES)] == [None, None]
    assert moves_by_week(rows, NAMES) == []


def test_the_matrix_of_moves() -> None:
    (found,) = moves_by_week(pd.concat([FIRST, SECOND]), NAMES)
    assert (found.from_us, found.to_us) == (WEEK, 2 * WEEK)
    assert found.rows == [*NAMES, JOINED] and found.columns == [*NAMES, LEFT]
    assert found.counts == [
        [1, 0, 0, 1],  # cold: b stayed, a's onboarding is over
        [1, 0, 1, 0],  # hot: d cooled down, c is done
        [0, 0, 0, 0],
        [0, 1, 0, 0],  # e is new
    ]
    assert found.stayed == pytest.approx(1 / 3)


def test_moves_add_up_to_both_snapshots() -> None:
    (found,) = moves_by_week(pd.concat([FIRST, SECOND]), NAMES)
    assert [sum(row) for row in found.counts[:-1]] == [2, 2, 0]
    assert [sum(column) for column in zip(*found.counts, strict=True)][:-1] == [2, 1, 1]


def test_nobody_in_both_snapshots_means_nobody_stayed_or_moved() -> None:
    assert moves(pd.Series({"a": "cold"}), pd.Series({"b": "hot"}), 0, WEEK, NAMES).stayed is None
