"""How good are the probabilities: figures, slices, and intervals from people drawn again.

y: (n,) labels 0 or 1; p: (n,) probabilities; weights: (n,) how often each row counts, or None for once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.candidates import EDGE

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]

HIGHER_IS_BETTER = {"roc_auc": True, "pr_auc": True, "log_loss": False, "brier": False, "ece": False}


def steps(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of (positives, negatives) at or above each distinct score, from the highest score down."""
    order = np.argsort(-p, kind="stable")
    ranked, weight, label = p[order], w[order], y[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return np.cumsum(weight * label)[last], np.cumsum(weight * (1 - label))[last]


def roc_auc(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """Chance that a positive has a higher score than a negative (ties: half); NaN without one of them."""
    hits, misses = steps(y, p, w)
    if hits[-1] == 0 or misses[-1] == 0:
        return float("nan")
    return float(np.trapezoid(np.append(0.0, hits), np.append(0.0, misses)) / (hits[-1] * misses[-1]))


def pr_auc(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """Average precision, step-wise: sum of precision * gain in recall, not the trapezoid; NaN without positives."""
    hits, misses = steps(y, p, w)
    if hits[-1] == 0:
        return float("nan")
    found = hits + misses
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    return float((np.diff(np.append(0.0, hits)) * precision).sum() / hits[-1])


def log_loss(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """Mean negative logarithm of the probability given to what happened (nats)."""
    q = np.clip(p, EDGE, 1 - EDGE)
    return float(np.average(-np.log(np.where(y == 1, q, 1 - q)), weights=w))


def brier(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """Mean squared difference of probability and label."""
    return float(np.average((p - y) ** 2, weights=w))


def bins(p: np.ndarray, count: int = 10) -> np.ndarray:
    """(n,) number of the bin of each score: about equal rows in each, equal scores together."""
    inner = np.unique(np.quantile(p, np.arange(1, count) / count))
    return np.searchsorted(inner, p, side="right")


def ece(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """Expected calibration error: mean over ten bins of equal rows of |mean score - share of label 1|."""
    part = bins(p)
    gaps = np.bincount(part, w * (p - y))
    return float(np.abs(gaps).sum() / w.sum())


METRICS: Mapping[str, Metric] = {
    "roc_auc": roc_auc, "pr_auc": pr_auc, "log_loss": log_loss, "brier": brier, "ece": ece,
}  # fmt: skip


def metrics(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Every metric of these rows."""
    once = np.ones(len(y))
    return {name: metric(y, p, once) for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Interval:
    """A figure with the range in which it lies with the asked confidence."""

    value: float
    low: float
    high: float


def draws(users: Sequence[str] | np.ndarray, times: int, seed: int) -> np.ndarray:
    """(times, n) weights: in each draw, how often the person of each row was drawn (with replacement)."""
    _, person = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    people = int(person.max()) + 1 if len(person) else 0
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(times)])
    return drawn[:, person].astype(np.float64)


def interval(metric: Metric, y: np.ndarray, p: np.ndarray, weights: np.ndarray, share: float = 0.9) -> Interval:
    """A metric with its bootstrap interval (percentiles of the draws)."""
    drawn = np.array([metric(y, p, w) for w in weights])
    return _interval(metric(y, p, np.ones(len(y))), drawn, share)


def difference(
    metric: Metric, y: np.ndarray, p: np.ndarray, q: np.ndarray, weights: np.ndarray, share: float = 0.9
) -> Interval:
    """metric(p) - metric(q) with its paired bootstrap interval: both are scored on the same draws."""
    once = np.ones(len(y))
    drawn = np.array([metric(y, p, w) - metric(y, q, w) for w in weights])
    return _interval(metric(y, p, once) - metric(y, q, once), drawn, share)


def _interval(value: float, drawn: np.ndarray, share: float) -> Interval:
    usable = drawn[np.isfinite(drawn)]
    if not len(usable):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(usable, [(1 - share) / 2, (1 + share) / 2])
    return Interval(float(value), float(low), float(high))


def intervals(
    y: np.ndarray, p: np.ndarray, users: Sequence[str] | np.ndarray, times: int = 200, seed: int = 0
) -> dict[str, Interval]:
    """Every metric with its 90 % interval, people drawn again `times` times."""
    weights = draws(users, times, seed)
    return {name: interval(metric, y, p, weights) for name, metric in METRICS.items()}


def slices(rows: pd.DataFrame, y: np.ndarray, p: np.ndarray, columns: Sequence[str], least: int = 1) -> pd.DataFrame:
    """A row for each value of each column that has at least `least` rows: slice, value, rows, rate and the metrics.

    Null is a value of its own, "(null)". ROC-AUC is NaN where a slice has one label only.
    """
    found = []
    for column in columns:
        values = rows[column].astype(object).where(rows[column].notna(), "(null)").to_numpy(dtype=object)
        for value in sorted(set(values.tolist()), key=str):
            if (inside := values == value).sum() >= least:
                head = {
                    "slice": column,
                    "value": str(value),
                    "rows": int(inside.sum()),
                    "rate": float(y[inside].mean()),
                }
                found.append(head | metrics(y[inside], p[inside]))
    return pd.DataFrame(found, columns=["slice", "value", "rows", "rate", *METRICS])
