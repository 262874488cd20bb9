"""OULAD beside the published out-of-time figures, and beside what could honestly have been known.

Published (XGBoost, out of time): trained on all of 2013, tested on all of 2014, features of days up to t, a score only
if its deadline was 7 days before. Like it, the first comparison ignores when labels were known: 2013J ends months
after 2014B begins. The second, "as of", trains for each tested presentation only on those that had ended when its day t
came.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY
from training import contest, dataset, leakage, splits
from training.candidates import LightGBM
from training.evaluate import metrics
from training.plan import Plan
from training.progress import Progress
from training.splits import Split
from training.tune import Tuned

TRAIN, TEST = ("2013B", "2013J"), ("2014B", "2014J")
PUBLISHED = {14: (0.596, 0.283, 16_027), 28: (0.674, 0.357, 15_729)}
"""Day t → ROC-AUC, PR-AUC and rows of the publication's XGBoost."""

NOTE = (
    "As published: all of 2013 counts as known, though 2013J ends after 2014B begins, so label maturity is ignored. "
    "As of: each presentation is predicted from those that had ended when its day t came."
)


@dataclass(frozen=True)
class Scored:
    """Rows of a test and their probabilities."""

    rows: pd.DataFrame
    scores: np.ndarray

    def figures(self) -> dict[str, Any]:
        """n, roc_auc, pr_auc."""
        found = metrics(contest.labels(self.rows), self.scores)
        return {"n": len(self.rows), "roc_auc": round(found["roc_auc"], 4), "pr_auc": round(found["pr_auc"], 4)}


def compare(settings: Settings, progress: Progress = Progress()) -> list[dict[str, Any]]:
    """For each published day: {t, n, roc_auc, pr_auc, published: {…}, as_of: {n, roc_auc, pr_auc, presentations: […]}}.

    Raises:
        ValueError: the domain is not oulad, or presentations are missing.
    """
    if settings.domain != "oulad":
        raise ValueError(f"the published comparison is of domain oulad, not of {settings.domain}: set DOMAIN=oulad")
    domain = domains.load("oulad")
    offsets = [t * DAY for t in PUBLISHED]
    at_last = int(domain.outcomes(settings).to_pandas()["end_us"].max())  # when every label is known
    known = dataset.matured(dataset.observations(settings, at_last, offsets))
    rows = dataset.with_features(settings, known)
    leakage.check(rows, domain)
    return [_day(t, rows[rows["offset_us"] == t * DAY], progress) for t in PUBLISHED]


def _day(t: int, rows: pd.DataFrame, progress: Progress) -> dict[str, Any]:
    roc, pr, n = PUBLISHED[t]
    progress.say(f"t = {t}: as published")
    found = _score(splits.by_cohorts(rows, TRAIN, TEST))
    progress.say(f"t = {t}: as of")
    return {"t": t} | found.figures() | {"published": {"n": n, "roc_auc": roc, "pr_auc": pr}, "as_of": _as_of(rows)}


def _as_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Each tested presentation from what had ended by then, alone and together."""
    parts = {c: _score(splits.as_of(rows, rows[rows["cohort"] == c])) for c in TEST}
    together = Scored(pd.concat([p.rows for p in parts.values()]), np.concatenate([p.scores for p in parts.values()]))
    return together.figures() | {"presentations": [{"presentation": c} | p.figures() for c, p in parts.items()]}


def _score(split: Split) -> Scored:
    """LightGBM with its defaults, which 2013 alone has chosen (each presentation from the other), calibrated inside the
    training part."""
    domain = domains.load("oulad")
    strings = dataset.categorical(domain, dataset.inputs(domain))
    model = contest.fit(Tuned(LightGBM, {}, float("nan"), []), domain, split.train, strings, Plan())
    return Scored(split.holdout, model.probabilities(split.holdout))
