"""Whether what was predicted came true: on labels that have matured only, since an open horizon says nothing yet.

The figures are those of training.evaluate, so that a week's AUC can be laid beside that of the training run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training import evaluate

DRAWS = 200
SEED = 20_240_101
Z975 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """How often the outcome came in a group: its 95 % interval, and the mean score (None: no scores).

    n: labels. The interval is Wilson's for as many trials as there are people: one person's labels say the same.
    """

    name: str
    n: int
    people: int
    happened: int
    low: float
    high: float
    predicted: float | None

    @property
    def rate(self) -> float:
        """Share of the group whose outcome came."""
        return self.happened / self.n


@dataclass(frozen=True)
class Quality:
    """Figures of matured predictions; auc with its 95 % interval (people drawn again) is None with one class only.

    calibration_chance: the error that true probabilities stay below 95 times in 100, with so many people.
    """

    rows: int
    people: int
    happened: int
    auc: float | None
    low: float | None
    high: float | None
    brier: float
    calibration_error: float
    calibration_chance: float
    predicted: float
    bins: list[Rate]

    @property
    def rate(self) -> float:
        """Share of rows whose outcome came."""
        return self.happened / self.rows


def rates(matured: pd.DataFrame, by: str, order: Sequence[str]) -> list[Rate]:
    """The rate of the outcome in each group of column `by` that has rows, in the given order.

    matured: DataFrame[user_id, label (0/1), score (null: not scored), `by`].
    """
    groups = {str(name): rows for name, rows in matured.groupby(by, observed=True)}
    return [_rate(name, groups[name]) for name in order if name in groups]


def quality(matured: pd.DataFrame) -> Quality | None:
    """Quality of the scores of matured rows [user_id, label, score]; None without any."""
    rows = matured[matured["score"].notna()].sort_values(["user_id", "score"], kind="stable")
    if rows.empty:
        return None
    label, score, once = rows["label"].to_numpy(int), rows["score"].to_numpy(float), np.ones(len(rows))
    weights = evaluate.draws(rows["user_id"].to_numpy(str), DRAWS, SEED)
    auc = evaluate.interval(evaluate.roc_auc, label, score, weights, share=0.95)
    return Quality(
        rows=len(rows), people=rows["user_id"].nunique(), happened=int(label.sum()),
        auc=_known(auc.value), low=_known(auc.low), high=_known(auc.high),
        brier=evaluate.brier(label, score, once), calibration_error=evaluate.ece(label, score, once),
        calibration_chance=calibration_chance(rows["user_id"].to_numpy(str), score),
        predicted=float(score.mean()), bins=calibration(rows),
    )  # fmt: skip


def calibration_chance(people: np.ndarray, score: np.ndarray) -> float:
    """The calibration error that these scores stay below 95 times in 100 if they are true probabilities.

    The rows of one person share their luck, as the rows of one person share their outcome.
    """
    _, person = np.unique(people, return_inverse=True)
    rng, once = np.random.default_rng(SEED), np.ones(len(score))
    luck = rng.random((DRAWS, int(person.max()) + 1))
    errors = [evaluate.ece((drawn[person] < score).astype(int), score, once) for drawn in luck]
    return float(np.quantile(errors, 0.95))


def calibration(rows: pd.DataFrame) -> list[Rate]:
    """Rows [user_id, label, score] in at most ten groups of about equal size, by rising score."""
    groups = evaluate.bins(rows["score"].to_numpy(float))
    return [_rate(str(i + 1), group) for i, (_, group) in enumerate(rows.groupby(groups))]


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate in n trials (Wilson, 1927).

    >>> [round(x, 3) for x in wilson(0.1, 10)]
    [0.018, 0.404]
    """
    z2 = Z975**2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z975 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _rate(name: str, rows: pd.DataFrame) -> Rate:
    """The rate of one group; its mean score leaves out rows that were not scored."""
    n, people, happened = len(rows), rows["user_id"].nunique(), int(rows["label"].sum())
    low, high = wilson(happened / n, people)
    return Rate(name, n, people, happened, low, high, _known(float(rows["score"].mean())))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
