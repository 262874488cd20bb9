from collections.abc import Callable

import pandas as pd
import pytest

from feature_repo.vocabulary import DAY
from training import splits

Make = Callable[..., pd.DataFrame]


def people(rows: pd.DataFrame) -> set[str]:
    return set(rows["user_id"])


def test_training_knows_only_labels_from_before_the_holdout(rows: pd.DataFrame) -> None:
    split = splits.newest_holdout(rows, 0.2)
    assert split.train["end_us"].max() <= split.holdout["now_us"].min() == split.known_by_us
    assert not people(split.train) & people(split.holdout)
    assert len(split.train) + len(split.holdout) + split.dropped == len(rows)
    assert split.dropped > 0


def test_the_holdout_is_whole_newest_cohorts(rows: pd.DataFrame) -> None:
    split = splits.newest_holdout(rows, 0.25)
    held = splits.cohorts(split.holdout)
    assert held == splits.cohorts(rows)[-len(held) :]
    assert len(people(split.holdout)) >= 0.25 * len(people(rows))
    assert not rows[rows["cohort"].isin(held) & ~rows["user_id"].isin(people(split.holdout))].size


def test_a_gap_moves_the_training_part_back(rows: pd.DataFrame) -> None:
    split = splits.newest_holdout(rows, 0.2, gap=3 * DAY)
    assert split.train["end_us"].max() + 3 * DAY <= split.known_by_us
    assert len(split.train) < len(splits.newest_holdout(rows, 0.2).train)


def test_a_history_that_is_too_short_says_so(make: Make) -> None:
    with pytest.raises(ValueError, match="two cohorts"):
        splits.newest_holdout(make(50, weeks=1))
    with pytest.raises(ValueError, match="no label was known"):
        splits.newest_holdout(make(50, weeks=2))


def test_folds_go_forward_in_time(rows: pd.DataFrame) -> None:
    folds = list(splits.time_folds(rows, 3))
    assert len(folds) == 3
    for fold in folds:
        assert fold.train["end_us"].max() <= fold.holdout["now_us"].min()
        assert not people(fold.train) & people(fold.holdout)
    assert [f.known_by_us for f in folds] == sorted(f.known_by_us for f in folds)
    assert len(folds[0].train) < len(folds[-1].train)


def test_one_fold_is_left_where_the_past_is_short(make: Make) -> None:
    (fold,) = splits.time_folds(make(100, weeks=2), 3)
    assert fold.train["anchor_us"].max() <= fold.holdout["anchor_us"].min()
    assert not people(fold.train) & people(fold.holdout)


def test_the_newest_part_is_people(rows: pd.DataFrame) -> None:
    older, newest = splits.newest_part(rows, 0.2)
    assert not people(older) & people(newest)
    assert older["anchor_us"].max() <= newest["anchor_us"].min()
    assert len(people(newest)) == pytest.approx(0.2 * len(people(rows)), abs=1)


def test_people_of_one_anchor_are_not_divided_by_name(rows: pd.DataFrame) -> None:
    """Ids that begin with a course or a tenant would put whole ones on one side."""
    together = rows.assign(anchor_us=0, user_id=[f"{'ab'[int(u[1:]) % 2]}/{u}" for u in rows["user_id"]])
    _, newest = splits.newest_part(together, 0.3)
    assert 0.4 < newest["user_id"].str.startswith("b").mean() < 0.6
    assert newest.equals(splits.newest_part(together, 0.3)[1])


def test_published_cohorts_ignore_maturity(rows: pd.DataFrame) -> None:
    split = splits.by_cohorts(rows, ("w00", "w08"), ("w09",))
    assert set(split.train["cohort"]) == {"w00", "w08"} and set(split.holdout["cohort"]) == {"w09"}
    assert split.train["end_us"].max() > split.known_by_us
    with pytest.raises(ValueError, match="2013B"):
        splits.by_cohorts(rows, ("2013B",), ("w09",))


def test_as_of_takes_what_was_known(rows: pd.DataFrame) -> None:
    held = rows[rows["cohort"] == "w05"]
    split = splits.as_of(rows, held)
    assert set(split.train["cohort"]) <= {"w00", "w01", "w02", "w03"}
    assert len(split.train) == (rows["end_us"] <= held["now_us"].min()).sum()
