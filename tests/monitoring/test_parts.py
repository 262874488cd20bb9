"""monitoring.parts: which observations are looked at."""

import pandas as pd

from feature_repo.vocabulary import DAY, WEEK
from monitoring.parts import INSIDE, SINCE, UNKNOWN, Champion, compared, divide, week_end


def observed(*days: int, mature_by: int = 0, age: int = 1) -> pd.DataFrame:
    """Observations on those days, matured up to day `mature_by`."""
    rows = [{"user_id": f"u{d}", "now_us": d * DAY, "offset_us": age * DAY, "matured": d <= mature_by} for d in days]
    return pd.DataFrame(rows)


REFERENCE = pd.DataFrame({"offset_us": [DAY, DAY, 3 * DAY]})


def test_the_newest_week_is_open_at_its_start_and_closed_at_its_end() -> None:
    parts = divide(observed(13, 14, 20, 21), REFERENCE, 21 * DAY, 0)
    assert parts.current["now_us"].tolist() == [20 * DAY, 21 * DAY]
    assert parts.week_end_us == 21 * DAY


def test_weeks_without_observations_are_passed_over() -> None:
    assert week_end(observed(20), 21 * DAY) == 21 * DAY
    assert week_end(observed(14), 21 * DAY) == 14 * DAY
    assert week_end(observed(15), 40 * DAY) == 40 * DAY - 3 * WEEK


def test_the_reference_has_the_ages_of_the_newest_week() -> None:
    assert len(divide(observed(20), REFERENCE, 21 * DAY, 0).reference) == 2
    assert len(divide(observed(20, age=3), REFERENCE, 21 * DAY, 0).reference) == 1


def test_labels_matured_since_training_come_first() -> None:
    rows = observed(1, 5, 9, 20, mature_by=9)
    since = divide(rows, REFERENCE, 21 * DAY, 5 * DAY)
    assert (since.matured["user_id"].tolist(), since.labels_words) == (["u5", "u9"], SINCE)
    inside = divide(rows, REFERENCE, 21 * DAY, 15 * DAY)
    assert (inside.matured["user_id"].tolist(), inside.labels_words) == (["u1", "u5", "u9"], INSIDE)
    unknown = divide(rows, REFERENCE, 21 * DAY, None)
    assert (len(unknown.matured), unknown.labels_words) == (3, UNKNOWN)


def test_what_the_version_s_tags_say() -> None:
    known = Champion.of("m", 2, {"known_by_us": "17", "holdout.roc_auc": "0.8 [0.7, 0.9]"})
    assert (known.train_end_us, known.holdout_auc) == (17, 0.8)
    assert Champion.of("m", 2, {}).train_end_us is None


def test_the_comparison_in_words() -> None:
    words = compared(divide(observed(20, 21), REFERENCE, 21 * DAY, 0))
    assert "2 observations of 21 Jan 1970 to 22 Jan 1970 against 2 " in words
    assert "1 day after they came" in words
