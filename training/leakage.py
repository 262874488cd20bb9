"""Nothing from the future: what a training set is checked for before a model sees it.

Feast's join takes no feature row that is later than the observation. These checks are for what can get past it: a row
that is stamped too early, a feature that is the outcome in other words, a definition that looks ahead.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from feature_repo.domain import Domain
from training.dataset import OBSERVED, categorical, inputs, timestamps
from training.evaluate import roc_auc

TOO_GOOD = 0.985
"""No honest single feature separates people who will from people who will not as well as this (ROC-AUC)."""
SMALLEST_CATEGORY = 30
"""Rows that a category needs for its own rate in this check."""


class LeakageError(ValueError):
    """A feature knows what could not be known at the time of observation."""


def check(rows: pd.DataFrame, domain: Domain, version: int | None = None) -> None:
    """Refuse labelled rows with a feature from the future.

    Raises:
        LeakageError: which feature, and what gives it away.
    """
    refuse_outcome_names(inputs(domain, version))
    refuse_later_times(rows, [t for t in timestamps(domain) if t in rows.columns])
    refuse_negative_ages(rows, [e.name for e in domain.elapsed if e.name in rows.columns])
    if domain.label.done:
        refuse_done(rows, domain.label.done)
    refuse_too_good(rows, inputs(domain, version), categorical(domain, inputs(domain, version)))


def refuse_outcome_names(names: Sequence[str]) -> None:
    """A feature may not have the name of what belongs to the label."""
    if taken := sorted(set(names) & {*OBSERVED, "outcome_us"}):
        raise LeakageError(f"feature {', '.join(taken)}: this is part of the label, not something known before it")


def refuse_later_times(rows: pd.DataFrame, names: Sequence[str]) -> None:
    """A feature that is a point in time may not be after the observation."""
    for name in names:
        if (later := rows[name] > rows["now_us"]).any():
            row = rows[later].iloc[0]
            raise LeakageError(
                f"feature {name}: {int(later.sum())} rows hold a time after the observation, such as "
                f"{int(row[name])} µs for {row['user_id']} observed at {int(row['now_us'])} µs"
            )


def refuse_negative_ages(rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Nothing was seen a negative number of seconds ago."""
    for name in names:
        if (ahead := rows[name] < 0).any():
            raise LeakageError(f"feature {name}: {int(ahead.sum())} rows are elapsed since a time yet to come")


def refuse_done(rows: pd.DataFrame, done: str) -> None:
    """Nobody in the population has had the outcome yet; a feature that says so has looked ahead."""
    if done in rows.columns and (ahead := rows[done] > 0).any():
        raise LeakageError(
            f"feature {done}: {int(ahead.sum())} of {len(rows)} rows know of an outcome that had not happened "
            f"at the time of observation, such as that of {rows[ahead].iloc[0]['user_id']}"
        )


def refuse_too_good(rows: pd.DataFrame, names: Sequence[str], strings: Sequence[str], limit: float = TOO_GOOD) -> None:
    """No single feature, by its value or by being null, may give the label away."""
    y = rows["label"].to_numpy(dtype=np.float64)
    for name in names:
        scores = _rates(rows[name], y) if name in strings else pd.to_numeric(rows[name]).to_numpy(dtype=np.float64)
        null = np.isnan(scores)
        for what, score in (("its value", np.where(null, -np.inf, scores)), ("being null", null.astype(np.float64))):
            auc = roc_auc(y, np.nan_to_num(score), np.ones(len(y)))
            if max(auc, 1 - auc) >= limit:
                raise LeakageError(
                    f"feature {name}: {what} alone separates the labels with a ROC-AUC of {max(auc, 1 - auc):.3f} "
                    f"(limit {limit}); it is the outcome in other words, or was computed after it"
                )


def _rates(values: pd.Series, y: np.ndarray) -> np.ndarray:
    """(n,) rate of the label in each row's category; NaN for null; of all rows for a category that is rare."""
    rate = pd.Series(y, index=values.index).groupby(values).transform("mean")
    size = values.groupby(values).transform("size")
    return np.where(values.isna(), np.nan, np.where(size >= SMALLEST_CATEGORY, rate, y.mean()))
