"""Weekly snapshots: everybody who was in their onboarding at a week's end, to be replayed point-in-time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from feature_repo.vocabulary import WEEK
from training.dataset import known_at

LIMIT = 20_000
"""People at most in one snapshot; of more, a fixed sample is replayed, and the page says so."""
SEED = 20_240_101


@dataclass(frozen=True)
class Snapshots:
    """rows: DataFrame[user_id, anchor_us, now_us], one row a person and week end; people: how many there were, sampled
    or not, by week end (µs)."""

    rows: pd.DataFrame
    people: dict[int, int]

    @property
    def ends(self) -> list[int]:
        """The week ends, ascending, µs."""
        return sorted(self.people)

    @property
    def sampled(self) -> bool:
        """Whether some snapshot is a sample."""
        return len(self.rows) < sum(self.people.values())


def at_week_ends(people: pd.DataFrame, at_us: int, weeks: int, done_stays: bool, limit: int = LIMIT) -> Snapshots:
    """The newest `weeks` snapshots before or at `at_us`, seven days apart, that hold anybody.

    people: the domain's outcomes, [user_id, anchor_us, outcome_us (null: not yet), end_us].
    done_stays: whether somebody whose outcome has happened stays in view until the horizon ends (in the label's
        `done_segment`), or has left.
    """
    order = _priority(people["user_id"])
    frames, counts = [], {}
    first = int(people["anchor_us"].min()) if len(people) else at_us + 1
    for end in range(at_us, first - 1, -WEEK):
        inside = people[in_onboarding(people, end, done_stays)]
        if len(inside):
            counts[end] = len(inside)
            frames.append(known_at(_sample(inside, order, limit).assign(now_us=end)))
        if len(counts) == weeks:
            break
    rows = pd.concat(frames[::-1], ignore_index=True) if frames else people.iloc[:0].assign(now_us=0)
    return Snapshots(rows[["user_id", "anchor_us", "now_us"]], counts)


def in_onboarding(people: pd.DataFrame, t_us: int, done_stays: bool) -> "pd.Series[bool]":
    """Who is in their onboarding at t: anchor <= t < end, and, unless the done ones stay, no outcome by t."""
    inside = (people["anchor_us"] <= t_us) & (people["end_us"] > t_us)
    if done_stays:
        return inside
    return inside & ~(people["outcome_us"].astype("Int64") <= t_us).fillna(False).astype(bool)


def consecutive(ends: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of week ends that are one week apart, ascending."""
    known = set(ends)
    return [(end - WEEK, end) for end in sorted(ends) if end - WEEK in known]


def _priority(user_ids: "pd.Series[str]") -> "pd.Series[int]":
    """A fixed random order of people, the same in each week, so that moves can be seen in samples too."""
    ids = np.sort(user_ids.unique().astype(str))
    return pd.Series(np.random.default_rng(SEED).permutation(len(ids)), index=ids)


def _sample(rows: pd.DataFrame, order: "pd.Series[int]", limit: int) -> pd.DataFrame:
    """At most `limit` rows, first in the fixed order, sorted by user."""
    if len(rows) > limit:
        rows = rows.loc[order.reindex(rows["user_id"]).set_axis(rows.index).nsmallest(limit).index]
    return rows.sort_values("user_id")
