"""Log odds to honest probabilities, learnt on the newest part of training, never on the holdout."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from training.candidates import EDGE, log_odds, probability

ISOTONIC_ROWS = 1_000
"""Fewer rows than this are too few for a free-form curve."""
ISOTONIC_GAIN = 1e-3
"""By how much log loss the free-form curve must be better: it makes ties, which cost ranking."""


@dataclass(frozen=True)
class Sigmoid:
    """Platt scaling: probability(slope * log odds + intercept). Keeps the order of people."""

    slope: float
    intercept: float

    def __call__(self, odds: float) -> float:
        """One probability."""
        return probability(self.slope * odds + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """A rising curve through (knot, value) pairs, straight between them, flat outside."""

    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, odds: float) -> float:
        """One probability."""
        i = bisect_right(self.knots, odds)
        if i == 0 or i == len(self.knots):
            return self.values[min(i, len(self.values) - 1)]
        part = (odds - self.knots[i - 1]) / (self.knots[i] - self.knots[i - 1])
        return self.values[i - 1] + part * (self.values[i] - self.values[i - 1])


Calibration = Sigmoid | Isotonic


def apply(calibration: Calibration, odds: np.ndarray) -> np.ndarray:
    """(n,) probabilities of log odds (n,): one by one, so that one person alone gets the same bits."""
    return np.array([calibration(o) for o in odds.tolist()], dtype=np.float64)


def sigmoid(odds: np.ndarray, y: np.ndarray) -> Sigmoid:
    """Platt scaling; where the scores do not rise with the label it only sets the level."""
    if np.ptp(odds) > 0 and 0 < y.mean() < 1:
        fit = LogisticRegression(C=1e6, max_iter=1000).fit(odds[:, None], y)
        if (slope := float(fit.coef_[0, 0])) > 0:
            return Sigmoid(slope, float(fit.intercept_[0]))
    return Sigmoid(1.0, log_odds(float(y.mean())) - float(odds.mean()))


def isotonic(odds: np.ndarray, y: np.ndarray) -> Isotonic:
    """The rising curve of least squares."""
    fit = IsotonicRegression(y_min=EDGE, y_max=1 - EDGE, out_of_bounds="clip").fit(odds, y)
    return Isotonic(tuple(fit.X_thresholds_.tolist()), tuple(fit.y_thresholds_.tolist()))


def choose(odds: np.ndarray, y: np.ndarray, folds: int = 5) -> Calibration:
    """The sigmoid, unless there are rows enough and the free-form curve does better out of fold.

    Fold of a row: its position modulo `folds`.
    """
    if len(y) < ISOTONIC_ROWS or np.ptp(odds) == 0:
        return sigmoid(odds, y)
    part = np.arange(len(y)) % folds
    losses = {kind: [_loss(kind(odds[part != f], y[part != f]), odds[part == f], y[part == f]) for f in range(folds)]
              for kind in (sigmoid, isotonic)}  # fmt: skip
    free = float(np.mean(losses[isotonic])) < float(np.mean(losses[sigmoid])) - ISOTONIC_GAIN
    return isotonic(odds, y) if free else sigmoid(odds, y)


def _loss(calibration: Calibration, odds: np.ndarray, y: np.ndarray) -> float:
    p = np.clip(apply(calibration, odds), EDGE, 1 - EDGE).tolist()
    return -math.fsum(math.log(q if label else 1 - q) for q, label in zip(p, y.tolist(), strict=True)) / len(p)
