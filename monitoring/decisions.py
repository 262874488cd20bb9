"""What the service decided: the decision log of a week, summed up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from feature_repo.vocabulary import WEEK
from serving import decision_log

NOBODY = "no segment"
"""What decisions for people nobody has seen are counted under."""
COLUMNS = ["at_us", "user_id", "known", "segment", "score", "model_version"]


@dataclass(frozen=True)
class Decisions:
    """Decisions in (from_us, to_us]; total: in the whole log; newest_us: the newest in the log, None where it is empty.

    segments: decisions by segment, NOBODY among them. versions: decisions by model version.
    """

    from_us: int
    to_us: int
    total: int
    newest_us: int | None
    count: int
    people: int
    unknown: int
    segments: dict[str, int]
    versions: dict[str, int]
    scores: list[float]


def week(folder: Path, at_us: int, order: Sequence[str]) -> Decisions:
    """The decisions of the seven days up to `at_us`.

    folder: of the decision log's Parquet files; may be absent or empty.
    order: names of the segments, in which their counts come; others follow.
    """
    log = _read(folder)
    rows = log[(log["at_us"] > at_us - WEEK) & (log["at_us"] <= at_us)]
    segments = _counts(rows["segment"].fillna(NOBODY))
    versions = _counts(rows["model_version"].dropna().astype(int))
    return Decisions(
        from_us=at_us - WEEK, to_us=at_us, total=len(log), newest_us=int(log["at_us"].max()) if len(log) else None,
        count=len(rows), people=rows["user_id"].nunique(), unknown=int((~rows["known"].astype(bool)).sum()),
        segments={name: segments[name] for name in [*order, *sorted({*segments} - {*order})] if name in segments},
        versions=dict(sorted(versions.items(), key=lambda version: int(version[0]))),
        scores=rows["score"].dropna().astype(float).sort_values().tolist(),
    )  # fmt: skip


def first_week_with_any(folder: Path, ends: Sequence[int], order: Sequence[str]) -> Decisions:
    """The decisions of the first of these weeks that has any; without any, the first week's."""
    weeks = [week(folder, end, order) for end in ends]
    return next((found for found in weeks if found.count), weeks[0])


def newest(folder: Path) -> int | None:
    """Time of the newest decision in the log, µs; None where it is empty."""
    log = _read(folder)
    return int(log["at_us"].max()) if len(log) else None


def _read(folder: Path) -> pd.DataFrame:
    """All decisions in the log, the columns that the report reads."""
    return decision_log.read(folder, COLUMNS).to_pandas()


def _counts(values: "pd.Series[Any]") -> dict[str, int]:
    """How often each value is there."""
    return {str(value): int(count) for value, count in values.value_counts().items()}
