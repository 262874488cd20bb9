"""Feature rows to a float64 matrix: the one way in, for a frame of many people and for one person's values."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

OTHER = 0.0
"""Code of a category that was rare in training or never seen there."""


class Encoder(TransformerMixin, BaseEstimator):
    """Numbers stay numbers, categories become codes; null and infinite become NaN.

    categorical: names of the string columns. rarest: fewer rows than this make a category `OTHER`.
    A value that is not a string in a categorical column counts as null.
    """

    def __init__(self, categorical: Sequence[str] = (), rarest: int = 10) -> None:
        self.categorical = categorical
        self.rarest = rarest

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Learn the codes: 1, 2, … in alphabetical order of the categories that are frequent enough."""
        self.names_ = [str(c) for c in X.columns]
        self.codes_: dict[int, dict[str, float]] = {}
        for i, name in enumerate(self.names_):
            if name in self.categorical:
                counts = pd.Series([v for v in X[name] if isinstance(v, str)], dtype=object).value_counts()
                frequent = sorted(counts.index[counts >= self.rarest])
                self.codes_[i] = {v: float(code) for code, v in enumerate(frequent, start=1)}
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """(n, p) float64, columns in the order of training.

        Raises:
            ValueError: a column of training is missing.
        """
        if missing := [c for c in self.names_ if c not in X.columns]:
            raise ValueError(f"feature rows lack {', '.join(missing)}: they came with {len(X.columns)} columns")
        out = np.empty((len(X), len(self.names_)), dtype=np.float64)
        for i, name in enumerate(self.names_):
            if (codes := self.codes_.get(i)) is None:
                out[:, i] = pd.to_numeric(X[name]).to_numpy(dtype=np.float64, na_value=np.nan)
            else:
                out[:, i] = [codes.get(v, OTHER) if isinstance(v, str) else math.nan for v in X[name]]
        out[~np.isfinite(out)] = np.nan
        return out

    def row(self, values: Sequence[Any]) -> np.ndarray:
        """(1, p) float64 of one person's values, in the order of training; equal to `transform` of a one-row frame."""
        out = np.empty((1, len(values)), dtype=np.float64)
        cells = out[0]
        codes = self.codes_
        for i, v in enumerate(values):
            if i in codes:
                cells[i] = codes[i].get(v, OTHER) if isinstance(v, str) else math.nan
            else:
                cells[i] = math.nan if v is None else v
        cells[~np.isfinite(cells)] = math.nan
        return out
