"""Drift of the features and of the score against the training reference: PSI and missing values, by Evidently."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monitoring import evidently_pages
from monitoring.evidently_pages import Page
from monitoring.psi import DRIFTED, by_chance

MISSING_POINTS = 0.05
"""A share of missing values that moves by at least this much is worth a look."""
LIMIT = 20_000
"""Rows at most on each side; of more, a fixed sample is compared."""
SEED = 20_240_101


@dataclass(frozen=True)
class FeatureDrift:
    """One feature: PSI (None: `note` says why there is none) and the share of missing values on both sides.

    missing_moved: whether that share moved by as much as is worth a look, and by more than chance does.
    """

    name: str
    psi: float | None
    missing_reference: float
    missing_now: float
    missing_moved: bool = False
    note: str = ""

    @property
    def drifted(self) -> bool:
        """Whether the PSI reaches the threshold."""
        return self.psi is not None and self.psi >= DRIFTED


@dataclass(frozen=True)
class Drift:
    """What was measured: features by falling PSI, the score's PSI (None: not measurable), and Evidently's pages.

    ages: rows that one person has at most. Rows of one person resemble each other, so for what chance can do there are
    only n / ages of them.
    """

    features: list[FeatureDrift]
    score: float | None
    n_reference: int
    n_now: int
    ages: int
    pages: list[Page]

    @property
    def drifted(self) -> list[FeatureDrift]:
        """Features whose PSI reaches the threshold, the largest first."""
        return [f for f in self.features if f.drifted]

    @property
    def people(self) -> int:
        """People at least on the smaller side."""
        return min(self.n_reference, self.n_now) // self.ages

    @property
    def chance(self) -> float:
        """The PSI that chance alone stays below 95 times in 100, for a feature in ten categories."""
        return by_chance(10, self.n_reference // self.ages, self.n_now // self.ages)


def measure(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    types: dict[str, str],
    folder: Path,
    ages: int = 1,
    step: Callable[[str], None] = lambda _: None,
) -> Drift:
    """Measure the drift of every feature and of `score`, and write Evidently's pages into `folder`.

    reference, current: DataFrames with the features and `score` (null: not scored).
    types: `string`, `int64` or `float64` of each feature to measure. ages: rows that one person has at most.
    """
    reference, current = (_prepared(side, types) for side in (reference, current))
    gaps = {name: _gap(reference[name], current[name]) for name in [*types, "score"]}
    full = {name: type_ for name, type_ in types.items() if not gaps[name]}
    values, pages = evidently_pages.write(reference, current, types, full, not gaps["score"], folder, step)
    features = [_feature(name, values.get(name), gaps[name], reference[name], current[name], ages) for name in types]
    features.sort(key=lambda f: (f.psi is None, -round(f.psi or 0, 6), f.name))
    return Drift(features, values.get("score"), len(reference), len(current), ages, pages)


def _prepared(side: pd.DataFrame, types: dict[str, str]) -> pd.DataFrame:
    """The columns to measure: numbers as float64 with NaN, strings as objects with None; at most LIMIT rows."""
    side = side.sample(LIMIT, random_state=SEED) if len(side) > LIMIT else side
    columns = {name: _typed(side[name], type_) for name, type_ in (types | {"score": "float64"}).items()}
    return pd.DataFrame(columns).reset_index(drop=True)


def _typed(column: "pd.Series[Any]", type_: str) -> "pd.Series[Any]":
    """A string column as objects with None, any other as float64 with NaN."""
    if type_ == "string":
        return column.astype(object).where(column.notna(), None)
    return pd.to_numeric(column).astype("float64")


def _gap(reference: "pd.Series[Any]", current: "pd.Series[Any]") -> str:
    """Why a column has no PSI, or nothing."""
    empty = [side for side, column in (("reference", reference), ("newest week", current)) if column.isna().all()]
    return f"no value in the {' and the '.join(empty)}" if empty else ""


def _feature(
    name: str, psi: float | None, gap: str, reference: "pd.Series[Any]", current: "pd.Series[Any]", ages: int
) -> FeatureDrift:
    """One feature's line."""
    then, now = (float(column.isna().mean()) if len(column) else 0.0 for column in (reference, current))
    worth = _worth_a_look(then, now, len(reference) // ages, len(current) // ages)
    return FeatureDrift(name, psi, then, now, abs(now - then) >= worth, gap)


def _worth_a_look(then: float, now: float, n_then: int, n_now: int) -> float:
    """By how much a share must move: at least MISSING_POINTS, and three standard errors of the difference."""
    if not n_then or not n_now:
        return math.inf
    both = (then * n_then + now * n_now) / (n_then + n_now)
    return max(MISSING_POINTS, 3 * math.sqrt(both * (1 - both) * (1 / n_then + 1 / n_now)))
