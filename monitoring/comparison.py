"""An experiment's people -> its effect as it was to be seen at the end of each day. Pure: no I/O, no clock.

Somebody counts once what will have become of them is known: when their onboarding is over, or the time of a guardrail
is up. Who activated early does not count before those who take as long as they may: else every rate would begin too
high. The control is what everything is compared with; several treatments, segments and guardrails share the level
(Bonferroni), so that all of an experiment's intervals hold together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from feature_repo.vocabulary import DAY
from monitoring import sequential
from monitoring.sequential import Arms, Effects, Floats, Ints
from serving.experiments.declared import Experiment, Guardrail

LEVEL = 0.05
"""Chance that any interval of a group (overall, by segment, guardrails) ever misses what is true."""

MISMATCH_LEVEL = 0.01
"""Chance that shares that are as intended are ever called a mismatch."""


@dataclass(frozen=True)
class Curve:
    """Treatment less control, at each look (k,). NaN: too few people yet.

    metric: what is counted. segment: at the exposure; None: everybody. plain_*: without the covariate.
    low, high: cover the effect at all looks at once, with what else of the experiment shares the level.
    """

    treatment: str
    metric: str
    segment: str | None
    looks_us: Ints
    people: Ints
    control: Floats
    effect: Floats
    low: Floats
    high: Floats
    plain: Floats
    plain_low: Floats
    plain_high: Floats

    @property
    def known(self) -> bool:
        """Whether there were ever enough people."""
        return bool(len(self.effect)) and not np.isnan(self.effect[-1])

    def figures(self) -> dict[str, object]:
        """The newest interval as plain values; effects are differences of shares, null: too few people yet."""
        who: dict[str, object] = {"treatment": self.treatment, "metric": self.metric, "segment": self.segment}
        newest = {"control": self.control, "effect": self.effect, "low": self.low, "high": self.high}
        values = {name: round(float(v[-1]), 4) if self.known else None for name, v in newest.items()}
        return who | {"people": int(self.people[-1])} | values

    @property
    def narrowed(self) -> float:
        """Width of the newest interval against that without the covariate."""
        return float((self.high[-1] - self.low[-1]) / (self.plain_high[-1] - self.plain_low[-1]))


@dataclass(frozen=True)
class Guarded:
    """A guardrail and its curve; `broken_us`: the first look at which it was surely broken, None: never."""

    guardrail: Guardrail
    curve: Curve
    broken_us: int | None


def looks(exposed_us: Ints, last_us: int) -> Ints:
    """The ends of the days (UTC) from the first exposure to `last_us`, and that itself."""
    if not len(exposed_us):
        return np.array([last_us], dtype=np.int64)
    ends = np.arange((int(exposed_us.min()) // DAY + 1) * DAY, last_us, DAY, dtype=np.int64)
    return np.append(ends, last_us)


def compare(
    rows: pd.DataFrame, experiment: Experiment, treatment: str, metric: str, looks_us: Ints, level: float,
    segment: str | None = None,
) -> Curve:  # fmt: skip
    """The curve of one treatment.

    rows: a person each: variant, y (0/1), known_us (when y is known; people who are never known are not among them),
        covariate (of before the exposure; null: none), segment.
    """
    rows = rows if segment is None else rows[rows["segment"] == segment]
    rows = rows.sort_values("known_us", kind="stable")
    arms = [_arm(rows[rows["variant"] == name], looks_us) for name in (experiment.control, treatment)]
    adjusted, plain = (sequential.effects(arms[0], arms[1], adjusted=a) for a in (True, False))
    if not rows["covariate"].notna().all():
        adjusted = plain
    return _curve(treatment, metric, segment, looks_us, arms, adjusted, plain, level)


def _arm(rows: pd.DataFrame, looks_us: Ints) -> Arms:
    known = np.searchsorted(rows["known_us"].to_numpy(np.int64), looks_us, side="right")
    covariate = rows["covariate"].fillna(0.0).to_numpy(np.float64)
    return Arms.of(rows["y"].to_numpy(np.float64), covariate, known)


def _curve(
    treatment: str, metric: str, segment: str | None, looks_us: Ints, arms: Sequence[Arms], adjusted: Effects,
    plain: Effects, level: float,
) -> Curve:  # fmt: skip
    people = (arms[0].n + arms[1].n).astype(np.int64)
    return Curve(
        treatment, metric, segment, looks_us, people, plain.control,
        adjusted.effect, *adjusted.interval(level), plain.effect, *plain.interval(level),
    )  # fmt: skip


def guard(curve: Curve, guardrail: Guardrail) -> Guarded:
    """The guardrail on its curve: broken where the least that the metric can have worsened is more than allowed."""
    least = -curve.high if guardrail.good else curve.low
    broken = np.flatnonzero(np.nan_to_num(least, nan=-1.0) > guardrail.worse_than)
    return Guarded(guardrail, curve, int(curve.looks_us[broken[0]]) if len(broken) else None)


def mismatch(variants: Sequence[str], experiment: Experiment) -> float:
    """p-value, valid at any time, that people in the order of exposure were divided as the weights say."""
    names, weights = list(experiment.variants), np.array(list(experiment.weights.values()))
    arm = np.array([names.index(v) for v in variants], dtype=np.int64)
    found = sequential.mismatch(arm, weights / weights.sum())
    return float(found[-1]) if len(found) else 1.0
