"""Parts of the labelled rows by time and by person: never at random.

Rows: a frame with `user_id`, `anchor_us`, `now_us` (time of observation), `end_us` (when the label is known),
`cohort`. A person is wholly on one side, because a cohort is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import pandas as pd


@dataclass(frozen=True)
class Split:
    """Two parts of the same rows, and those that belong to neither (their label was not known in time)."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    dropped: int

    @property
    def known_by_us(self) -> int:
        """The time by which every label of the training part was known: the first observation of the holdout."""
        return int(self.holdout["now_us"].min())


def cohorts(rows: pd.DataFrame) -> list[str]:
    """Names of the cohorts, oldest first by their first anchor."""
    return [str(c) for c in rows.groupby("cohort")["anchor_us"].min().sort_values(kind="stable").index]


def as_of(rows: pd.DataFrame, held: pd.DataFrame, gap: int = 0) -> Split:
    """`held` as holdout; for training every other person's rows whose label was known `gap` µs before it began.

    Raises:
        ValueError: no row was known by then.
    """
    begins = int(held["now_us"].min())
    others = rows[~rows["user_id"].isin(set(held["user_id"]))]
    train = others[others["end_us"] + gap <= begins]
    if train.empty:
        raise ValueError(
            f"no label was known when the holdout ({', '.join(cohorts(held))}) begins: "
            f"{len(others)} earlier rows end later; give a longer history or a smaller holdout"
        )
    return Split(train, held, len(others) - len(train))


def newest_holdout(rows: pd.DataFrame, share: float = 0.2, gap: int = 0) -> Split:
    """The newest whole cohorts with at least `share` of the people held out; training is what was known before.

    Raises:
        ValueError: there is only one cohort, or nothing was known before the holdout.
    """
    names = cohorts(rows)
    if len(names) < 2:
        raise ValueError(f"a holdout in time needs two cohorts with known labels, there is {len(names)}: {names}")
    people = rows.groupby("cohort")["user_id"].nunique()
    held: list[str] = []
    for name in reversed(names[1:]):
        held.append(name)
        if sum(people[c] for c in held) >= share * people.sum():
            break
    return as_of(rows, rows[rows["cohort"].isin(held)], gap)


def newest_part(rows: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(older, newest): about `share` of the people, those with the latest anchors, are the newest part.

    People of one anchor may be divided, by a hash of their id (names can say who they are); a person is not.
    """
    people = rows.drop_duplicates("user_id")[["anchor_us", "user_id"]]
    people = people.assign(hashed=[crc32(u.encode()) for u in people["user_id"]])
    people = people.sort_values(["anchor_us", "hashed", "user_id"])
    newest = set(people["user_id"].iloc[round(len(people) * (1 - share)) :])
    inside = rows["user_id"].isin(newest)
    return rows[~inside], rows[inside]


def time_folds(rows: pd.DataFrame, folds: int = 3, gap: int = 0, least: int = 200) -> Iterator[Split]:
    """Ever longer pasts, each with the cohorts that came next: cross-validation in the order of time.

    The newer half of the cohorts is validated on, in `folds` blocks. A fold without `least` known rows before it is
    left out; where that leaves none, the newest quarter of the people against the others is the only fold.
    """
    names = cohorts(rows)
    ahead = names[max(1, len(names) // 2) :]
    found = False
    for block in _blocks(ahead, folds):
        held = rows[rows["cohort"].isin(block)]
        known = rows[(rows["end_us"] + gap <= held["now_us"].min()) & ~rows["user_id"].isin(set(held["user_id"]))]
        if len(known) >= least and _both(known) and _both(held):
            found = True
            yield Split(known, held, len(rows) - len(known) - len(held))
    if not found:
        older, newest = newest_part(rows, 0.25)
        yield Split(older, newest, 0)


def _blocks(names: list[str], blocks: int) -> list[list[str]]:
    """The names in order, in at most `blocks` runs of about equal length."""
    blocks = min(blocks, len(names))
    return [names[i * len(names) // blocks : (i + 1) * len(names) // blocks] for i in range(blocks)]


def _both(rows: pd.DataFrame) -> bool:
    return rows["label"].nunique() == 2


def by_cohorts(rows: pd.DataFrame, train: tuple[str, ...], test: tuple[str, ...]) -> Split:
    """Named cohorts against named cohorts, whether or not the labels were known: as publications do.

    Raises:
        ValueError: a named cohort has no rows.
    """
    if missing := [c for c in (*train, *test) if c not in set(rows["cohort"])]:
        raise ValueError(f"no rows of cohort {', '.join(missing)}: there are {', '.join(cohorts(rows))}")
    inside, held = rows[rows["cohort"].isin(train)], rows[rows["cohort"].isin(test)]
    return Split(inside, held, len(rows) - len(inside) - len(held))
