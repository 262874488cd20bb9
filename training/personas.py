"""Personas: groups of people who behave alike, found in training and told of one person at a time in serving.

    values of a person → log1p → standardised → axes (PCA) → shape → the persona's name

A persona says what somebody does, the engagement segment how likely the outcome is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from feature_repo.domain import Domain
from feature_repo.vocabulary import Count, Distinct, Feature, Ratio, Sessions, SessionTime, Sum, leaves
from training.shapes import NOISE, Shape

KEPT, AXES = 0.9, 8
"""Share of the variance that the axes keep, as far as that many can."""
KNOWN = 0.8
"""A feature that is null for more people than the rest says nothing of a persona."""


def behaviour(domain: Domain, version: int | None = None) -> list[Feature]:
    """The features that personas are made of: what a person has done, counted or timed.

    Left out: what the domain declares sensitive, attributes (first and last values: device, plan, …), points in time,
    windows (they change by the passing of time alone: a persona says what somebody does, not when), weighted sums and
    ratios by something that is a feature itself (they would count it twice), and whatever counts the events of the
    label's outcome.
    """
    stored = set(domain.service(version)[0]) - set(domain.sensitive)
    outcome = {leaf for f in domain.features if f.name == domain.label.done for leaf in leaves(f.term)}
    able = [f for f in domain.features if f.name in stored and _counts(f) and not outcome & set(leaves(f.term))]
    terms = {f.term for f in able}
    return [f for f in able if not (isinstance(f.term, Ratio) and f.term.denominator in terms)]


def _counts(feature: Feature) -> bool:
    kinds = Count | Sum | Distinct | Sessions | SessionTime
    plain = all(isinstance(p, kinds) and getattr(p, "window", None) is None for p in leaves(feature.term))
    return plain and isinstance(feature.term, kinds | Ratio)


@dataclass(frozen=True)
class Scale:
    """Values to coordinates. fill, mean, spread: (p,). axes: (p, q), the principal axes with the most variance."""

    fill: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray) -> Self:
        """Learn from X (n, p), NaN for null, in every column something else than NaN and not only one value."""
        fill = np.array([np.median(c[~np.isnan(c)]) for c in X.T])
        drawn = _drawn(X, fill)
        mean, spread = drawn.mean(axis=0), drawn.std(axis=0)
        _, sizes, axes = np.linalg.svd((drawn - mean) / spread, full_matrices=False)
        shares = np.cumsum(sizes**2) / np.sum(sizes**2)
        q = min(AXES, max(2, int(np.searchsorted(shares, KEPT)) + 1))
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
        return cls(fill, mean, spread, np.ascontiguousarray((axes * signs[:, None])[:q].T))

    def standard(self, X: np.ndarray) -> np.ndarray:
        """(n, p) without NaN: log1p of the size, with the sign, standardised."""
        return (_drawn(X, self.fill) - self.mean) / self.spread

    def points(self, X: np.ndarray) -> np.ndarray:
        """(n, q) coordinates on the axes; the same bits for a row alone."""
        Z = self.standard(X)
        return np.asarray(np.add.reduce(np.multiply(Z.T[:, :, None], self.axes[:, None, :], order="C"), axis=0))


def _drawn(X: np.ndarray, fill: np.ndarray) -> np.ndarray:
    filled = np.where(np.isfinite(X), X, fill)
    return np.copysign(np.log1p(np.abs(filled)), filled)


@dataclass(frozen=True)
class Persona:
    """name: an identifier. doc: what sets these people apart, for people. share: of the people learnt from."""

    name: str
    doc: str
    share: float


@dataclass(frozen=True)
class Personas:
    """What was found, and the rule that assigns a person.

    inputs: features read. personas: in the order of the shape's groups. method: how they were found.
    """

    inputs: list[str]
    scale: Scale
    shape: Shape
    personas: tuple[Persona, ...]
    method: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The personas' names."""
        return tuple(p.name for p in self.personas)

    def one(self, values: Sequence[Any]) -> str | None:
        """Persona of one person, `values` in the order of `inputs`, None for null.

        None: nothing is known of the person, or nobody like that was learnt from (HDBSCAN and DBSCAN only).
        """
        cells = [math.nan if v is None else v for v in values]
        return self._named(np.array([cells], dtype=np.float64))[0]

    def many(self, rows: pd.DataFrame) -> list[str | None]:
        """Persona of each feature row, as `one` says it."""
        return self._named(matrix(rows, self.inputs))

    def _named(self, X: np.ndarray) -> list[str | None]:
        known = np.isfinite(X).any(axis=1)
        groups = self.shape.nearest(self.scale.points(X)) if len(X) else np.empty(0, dtype=np.int64)
        pairs = zip(groups.tolist(), known.tolist(), strict=True)
        return [self.names[g] if k and g != NOISE else None for g, k in pairs]


def matrix(rows: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """(n, p) float64 of the named columns, NaN for null.

    Raises:
        ValueError: a column is missing.
    """
    if missing := [n for n in names if n not in rows.columns]:
        raise ValueError(f"feature rows lack {', '.join(missing)}, which personas are told by")
    columns = [pd.to_numeric(rows[n]).to_numpy(dtype=np.float64, na_value=np.nan) for n in names]
    return np.column_stack(columns) if columns else np.empty((len(rows), 0))
