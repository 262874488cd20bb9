"""How the people in onboarding are spread over the segments, week by week, and how they move between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from feature_repo.vocabulary import WEEK
from monitoring.psi import by_chance, level, psi
from monitoring.snapshots import consecutive

JOINED = "new this week"
LEFT = "onboarding over"


@dataclass(frozen=True)
class WeekShares:
    """One snapshot: counts by segment, PSI against the week before (None: there is none) and what chance explains."""

    end_us: int
    counts: dict[str, int]
    psi: float | None
    chance: float

    @property
    def people(self) -> int:
        """People in the snapshot."""
        return sum(self.counts.values())

    @property
    def shares(self) -> dict[str, float]:
        """Share of each segment."""
        return {name: count / self.people for name, count in self.counts.items()}

    @property
    def level(self) -> str:
        """`stable`, `moved`, `drifted`, or `unknown` where there is no week before."""
        return "unknown" if self.psi is None else level(self.psi, self.chance)


@dataclass(frozen=True)
class Moves:
    """People by segment at the earlier week end (rows) and at the later one (columns).

    The last row are those who joined in between, the last column those whose onboarding ended.
    """

    from_us: int
    to_us: int
    rows: list[str]
    columns: list[str]
    counts: list[list[int]]

    @property
    def stayed(self) -> float | None:
        """Share, among people in both snapshots, who kept their segment; None where nobody is in both."""
        both = sum(sum(row[:-1]) for row in self.counts[:-1])
        return sum(row[i] for i, row in enumerate(self.counts[:-1])) / both if both else None


def shares_by_week(replayed: pd.DataFrame, names: Sequence[str]) -> list[WeekShares]:
    """Shares of every week end in `replayed` [now_us, segment], ascending; `names` are all segments, in order."""
    counts = pd.crosstab(replayed["now_us"], replayed["segment"]).reindex(columns=list(names), fill_value=0)
    weeks = {int(end): [int(n) for n in row] for end, row in zip(counts.index, counts.to_numpy(), strict=True)}
    return [_week(end, row, weeks.get(end - WEEK), names) for end, row in sorted(weeks.items())]


def moves_by_week(replayed: pd.DataFrame, names: Sequence[str]) -> list[Moves]:
    """The matrix of moves between each two consecutive week ends in `replayed` [user_id, now_us, segment]."""
    by_end = {int(str(end)): rows.set_index("user_id")["segment"] for end, rows in replayed.groupby("now_us")}
    return [moves(by_end[a], by_end[b], a, b, names) for a, b in consecutive(list(by_end))]


def moves(before: "pd.Series[str]", after: "pd.Series[str]", from_us: int, to_us: int, names: Sequence[str]) -> Moves:
    """The matrix between two snapshots, each a segment by user."""
    both = pd.DataFrame({"before": before, "after": after})
    rows, columns = [*names, JOINED], [*names, LEFT]
    table = pd.crosstab(both["before"].fillna(JOINED), both["after"].fillna(LEFT))
    table = table.reindex(index=rows, columns=columns, fill_value=0)
    return Moves(from_us, to_us, rows, columns, [[int(n) for n in row] for row in table.to_numpy()])


def _week(end: int, counts: list[int], before: list[int] | None, names: Sequence[str]) -> WeekShares:
    """The shares of one week, against the counts of the week before."""
    value = psi(before, counts) if before else None
    chance = by_chance(len(names), sum(before), sum(counts)) if before else 0.0
    return WeekShares(end, dict(zip(names, counts, strict=True)), value, chance)
