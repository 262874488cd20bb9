"""What a model without a sense for nulls, outliers and scales needs: clip, impute, spread out, standardise.

Everything here works element by element or adds up in a fixed order, so that one row alone gives the same bits as
the same row among thousands.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

IMPUTATIONS = ("median", "most_frequent", "knn")


def _quiet_quantile(X: np.ndarray, q: float, empty: float) -> np.ndarray:
    """Quantile of each column without its NaN; `empty` for a column that has nothing else."""
    return np.array([np.quantile(c[~np.isnan(c)], q) if (~np.isnan(c)).any() else empty for c in X.T])


class Clip(TransformerMixin, BaseEstimator):
    """Outliers to the quantiles `low` and `high` of the training part. NaN stays NaN."""

    def __init__(self, low: float = 0.005, high: float = 0.995) -> None:
        self.low = low
        self.high = high

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Learn the two limits of each column."""
        self.lower_ = _quiet_quantile(X, self.low, -np.inf)
        self.upper_ = _quiet_quantile(X, self.high, np.inf)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(n, p) within the limits."""
        return np.minimum(np.maximum(X, self.lower_), self.upper_)


class Impute(TransformerMixin, BaseEstimator):
    """NaN to the column's median or most frequent value, or to the mean of the k nearest people who have it.

    KNN compares with at most `donors` people of the training part, by the mean squared difference over the
    standardised columns that both have. A column that is all null in training becomes 0.
    """

    def __init__(self, strategy: str = "median", k: int = 5, donors: int = 200, seed: int = 0) -> None:
        self.strategy = strategy
        self.k = k
        self.donors = donors
        self.seed = seed

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Learn the filling of each column.

        Raises:
            ValueError: an unknown strategy.
        """
        if self.strategy not in IMPUTATIONS:
            raise ValueError(f"imputation {self.strategy!r}: expected one of {', '.join(IMPUTATIONS)}")
        if self.strategy == "most_frequent":
            self.fill_ = np.array([_most_frequent(c[~np.isnan(c)]) for c in X.T])
        else:
            self.fill_ = _quiet_quantile(X, 0.5, 0.0)
        if self.strategy == "knn":
            self.spread_ = _spread(X)
            chosen = np.random.default_rng(self.seed).permutation(len(X))[: self.donors]
            self.donors_ = X[np.sort(chosen)]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(n, p) without NaN."""
        filled = _nearest(X, self.donors_, self.spread_, self.k) if self.strategy == "knn" else X
        return np.where(np.isnan(filled), self.fill_, filled)


def _most_frequent(values: np.ndarray) -> float:
    if not len(values):
        return 0.0
    found, counts = np.unique(values, return_counts=True)
    return float(found[np.argmax(counts)])


def _spread(X: np.ndarray) -> np.ndarray:
    """Standard deviation of each column without its NaN; 1 where there is none."""
    spread = np.array([np.std(c[~np.isnan(c)]) if (~np.isnan(c)).any() else 0.0 for c in X.T])
    return np.where(spread > 0, spread, 1.0)


def _nearest(X: np.ndarray, donors: np.ndarray, spread: np.ndarray, k: int) -> np.ndarray:
    """X with each NaN filled from its k nearest donors; NaN is left where no donor has a value."""
    out = X.copy()
    rows = np.flatnonzero(np.isnan(X).any(axis=1))
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        order = np.argsort(_distances(X[part], donors, spread), axis=1, kind="stable")
        for j in np.flatnonzero(np.isnan(X[part]).any(axis=0)):
            holes = np.isnan(X[part, j])
            out[part[holes], j] = _mean_of_first(donors[order[holes], j], k)
    return out


def _distances(X: np.ndarray, donors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(n, donors) mean squared difference over the columns that both have; infinite where they share none."""
    total = np.zeros((len(X), len(donors)))
    shared = np.zeros((len(X), len(donors)))
    for j in range(X.shape[1]):
        step = (X[:, j, None] - donors[None, :, j]) / spread[j]
        both = ~np.isnan(step)
        total += np.where(both, step * step, 0.0)
        shared += both
    return np.where(shared > 0, total / np.maximum(shared, 1.0), np.inf)


def _mean_of_first(candidates: np.ndarray, k: int) -> np.ndarray:
    """Mean of the first k non-NaN values of each row (n, donors); NaN where a row has none."""
    has = ~np.isnan(candidates)
    first = has & (np.cumsum(has, axis=1) <= k)
    total = np.zeros(len(candidates))
    for column in np.where(first, candidates, 0.0).T:
        total += column
    count = first.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class Dense(TransformerMixin, BaseEstimator):
    """Encoded rows to numbers that a linear model or a forest takes: (n, p) with NaN → (n, q) without.

    Numbers are clipped, imputed, drawn together by a signed square root and standardised; a number that was null in
    training gets a 0/1 column of its own; each category becomes 0/1 columns (other, each known one, null).
    """

    def __init__(self, categories: Sequence[tuple[int, int]] = (), imputation: str = "median", seed: int = 0) -> None:
        self.categories = categories
        self.imputation = imputation
        self.seed = seed

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Learn limits, fillings and scales. `categories`: (column, number of known codes) of each categorical."""
        taken = {i for i, _ in self.categories}
        self.numeric_ = np.array([i for i in range(X.shape[1]) if i not in taken], dtype=np.intp)
        numbers = X[:, self.numeric_]
        self.clip_ = Clip().fit(numbers)
        self.holes_ = np.flatnonzero(np.isnan(numbers).any(axis=0))
        self.impute_ = Impute(self.imputation, seed=self.seed).fit(self.clip_.transform(numbers))
        drawn = self._drawn(numbers)
        self.mean_, self.scale_ = drawn.mean(axis=0), _spread(drawn)
        self.sources_ = self._sources()
        return self

    def _drawn(self, numbers: np.ndarray) -> np.ndarray:
        filled = self.impute_.transform(self.clip_.transform(numbers))
        return np.sign(filled) * np.sqrt(np.abs(filled))

    def _sources(self) -> np.ndarray:
        """(q,) input column behind each output column."""
        hot = [i for i, known in self.categories for _ in range(known + 2)]
        return np.array([*self.numeric_, *self.numeric_[self.holes_], *hot], dtype=np.intp)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(n, q) float64 without NaN."""
        numbers = X[:, self.numeric_]
        parts = [
            (self._drawn(numbers) - self.mean_) / self.scale_,
            np.isnan(numbers[:, self.holes_]).astype(np.float64),
        ]
        for i, known in self.categories:
            codes = np.where(np.isnan(X[:, i]), known + 1.0, X[:, i])
            parts.append((codes[:, None] == np.arange(known + 2.0)).astype(np.float64))
        return np.concatenate(parts, axis=1)
