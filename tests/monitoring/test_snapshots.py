"""monitoring.snapshots: who is in onboarding at which week's end."""

import pandas as pd

from feature_repo.vocabulary import DAY, WEEK
from monitoring.snapshots import at_week_ends, consecutive, in_onboarding


def people(*rows: tuple[str, int, int | None, int]) -> pd.DataFrame:
    """Outcomes from (user, anchor, outcome, end) in days."""
    frame = pd.DataFrame(rows, columns=["user_id", "anchor_us", "outcome_us", "end_us"])
    for column in ("anchor_us", "outcome_us", "end_us"):
        frame[column] = (frame[column].astype("Float64") * DAY).astype("Int64")
    return frame.astype({"anchor_us": "int64", "end_us": "int64"})


def test_the_edges_of_onboarding() -> None:
    a = people(("a", 10, None, 24))
    inside = [bool(in_onboarding(a, t, True).iloc[0]) for t in (10 * DAY - 1, 10 * DAY, 24 * DAY - 1, 24 * DAY)]
    assert inside == [False, True, True, False]


def test_who_has_the_outcome_stays_only_where_the_domain_says_so() -> None:
    both = people(("gone", 0, 5, 14), ("here", 0, None, 14), ("later", 0, 9, 14))
    assert in_onboarding(both, 7 * DAY, True).tolist() == [True, True, True]
    assert in_onboarding(both, 7 * DAY, False).tolist() == [False, True, True]


def test_week_ends_count_back_from_the_end_and_skip_empty_weeks() -> None:
    crowd = people(("a", 1, None, 15), ("b", 50, None, 64))
    taken = at_week_ends(crowd, 63 * DAY, weeks=3, done_stays=True)
    assert [end // DAY for end in taken.ends] == [14, 56, 63]
    assert taken.rows[["user_id", "now_us"]].values.tolist() == [["a", 14 * DAY], ["b", 56 * DAY], ["b", 63 * DAY]]
    assert consecutive(taken.ends) == [(56 * DAY, 63 * DAY)]


def test_a_sample_is_fixed_and_keeps_the_same_people_from_week_to_week() -> None:
    crowd = people(*[(f"u{i}", 0, None, 30) for i in range(500)])
    taken = at_week_ends(crowd, 14 * DAY, weeks=2, done_stays=True, limit=100)
    first, second = (set(rows["user_id"]) for _, rows in taken.rows.groupby("now_us"))
    assert len(first) == 100 and first == second
    assert taken.sampled and taken.people == {7 * DAY: 500, 14 * DAY: 500}
    again = at_week_ends(crowd.sample(frac=1, random_state=1), 14 * DAY, 2, True, limit=100)
    pd.testing.assert_frame_equal(again.rows, taken.rows)


def test_nobody_gives_no_snapshot() -> None:
    taken = at_week_ends(people(), 14 * WEEK, weeks=8, done_stays=True)
    assert taken.ends == [] and taken.rows.empty and not taken.sampled
