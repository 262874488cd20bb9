"""A name and a sentence for each persona, from the features that set it apart."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count

import numpy as np

from training.personas import Persona, Scale

TOLD = 2
"""Features in a name; a third and more only where two names would be equal."""
APART = 0.25
"""Standard deviations from everybody's mean below which a feature does not set a persona apart."""
SAME = 0.8
"""Correlation from which on two features tell the same."""


def described(
    X: np.ndarray, scale: Scale, groups: np.ndarray, names: Sequence[str], docs: Mapping[str, str]
) -> tuple[Persona, ...]:
    """Name, words and share of each group. X: (n, p) values, NaN for null. groups: (n,), below 0 for none."""
    Z = scale.standard(X)
    alike = np.abs(np.atleast_2d(np.corrcoef(Z.T)))
    values = np.where(np.isfinite(X), X, scale.fill)
    of_all = values.mean(axis=0)
    found: list[Persona] = []
    for g in range(int(groups.max()) + 1):
        own = groups == g
        apart = Z[own].mean(axis=0) - Z.mean(axis=0)
        told = list(_telling(apart, alike))
        name = _unused([("more" if apart[j] > 0 else "less", names[j]) for j in told], {p.name for p in found})
        mean = values[own].mean(axis=0)
        said = {j: f"{docs[names[j]].rstrip('.')} ({_short(mean[j])}, all {_short(of_all[j])})" for j in told}
        found.append(Persona(name, _words(said, apart), float(own.mean())))
    return tuple(found)


def _telling(apart: np.ndarray, alike: np.ndarray) -> Iterator[int]:
    """Features from the one furthest apart on, none that tells the same as one before it."""
    taken: list[int] = []
    for j in np.argsort(-np.abs(apart), kind="stable").tolist():
        if abs(apart[j]) >= APART and all(alike[j, t] < SAME for t in taken):
            taken.append(j)
            yield j


def _unused(told: Sequence[tuple[str, str]], used: set[str]) -> str:
    """`more_uploads_less_errors`: as many features as it needs to be unlike the others, then a number."""
    parts = [f"{way}_{re.sub(r'[^0-9a-z]+', '_', name.lower())}" for way, name in told] or ["like_everybody"]
    names = ["_".join(parts[:n]) for n in range(min(TOLD, len(parts)), len(parts) + 1)]
    return next(n for n in chain(names, (f"{names[0]}_{i}" for i in count(2))) if n not in used)


def _words(said: Mapping[int, str], apart: np.ndarray) -> str:
    """What there is more of, then what there is less of, among the few features furthest apart."""
    few = list(said)[: TOLD + 1]
    more, less = ("; ".join(said[j] for j in few if (apart[j] > 0) == up) for up in (True, False))
    told = [f"{way}: {what}." for way, what in (("More", more), ("Less", less)) if what]
    return " ".join(told) or "Much like everybody."


def _short(value: float) -> str:
    """Three digits that say something, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
