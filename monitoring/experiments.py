"""What experiments have brought, and whether one has to pause.

lake ─► first exposure of each person, merged through identity (exposures)
     ├► shares of the variants as intended?                         (sequential.mismatch)
     └► outcomes of people whose time is up                         (population)
        features just before the exposure ─► segment, covariate     (covariates)
        all of it ─► curves over days, overall, by segment, of guardrails (comparison) ─► paused.json
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.contract.feedback import VIEWED
from feature_repo.domain import Domain
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY
from monitoring import comparison, covariates, exposures
from monitoring.comparison import LEVEL, MISMATCH_LEVEL, Curve, Guarded, compare
from monitoring.population import observed, population
from monitoring.words import date, percent
from serving.experiments import paused
from serving.experiments.declared import Experiment, Experiments
from serving.experiments.paused import Paused


@dataclass(frozen=True)
class Result:
    """An experiment up to a time.

    exposed: people by variant. people: user_id, variant and segment of those whose outcome is known. crossed: who saw
    a second variant. unknown: who never became known, so that no outcome can be told. mismatch: p-value that the
    variants have the intended shares, valid at any time. overall, segments: a curve for each treatment.
    """

    experiment: Experiment
    at_us: int
    exposed: Mapping[str, int]
    people: pd.DataFrame
    crossed: int
    unknown: int
    mismatch: float
    overall: Sequence[Curve]
    segments: Sequence[Curve]
    guarded: Sequence[Guarded]

    @property
    def pause(self) -> str | None:
        """Why it has to pause; None: nothing is wrong."""
        if self.mismatch <= MISMATCH_LEVEL:
            shares = ", ".join(f"{name} {n:,}" for name, n in self.exposed.items())
            told = f"{shares}; p = {self.mismatch:.1g}"
            return f"the variants do not have the intended shares ({told}): assignment or logging is at fault"
        broken = [g for g in self.guarded if g.broken_us is not None]
        if not broken:
            return None
        one = min(broken, key=lambda g: g.broken_us or 0)
        allowed = f"worse than control by more than {100 * one.guardrail.worse_than:g} points"
        return f"{one.guardrail.metric} of {one.curve.treatment} is {allowed}, sure since {date(one.broken_us or 0)}"

    def figures(self) -> dict[str, object]:
        """All of it as plain values, for whoever shows it."""
        guarded = [
            g.curve.figures() | {"worse_than": g.guardrail.worse_than, "broken_us": g.broken_us} for g in self.guarded
        ]
        return {
            "experiment": self.experiment.name, "question": self.experiment.question, "at_us": self.at_us,
            "exposed": dict(self.exposed), "counted": len(self.people), "crossed": self.crossed,
            "unknown": self.unknown, "mismatch": self.mismatch, "pause": self.pause,
            "overall": [c.figures() for c in self.overall], "segments": [c.figures() for c in self.segments],
            "guardrails": guarded,
        }  # fmt: skip


def experiments(settings: Settings, declared: Experiments, at_us: int) -> list[Result]:
    """The result of each experiment that has begun by `at_us`; in their order."""
    domain = domains.load(settings.domain)
    begun = [e for e in declared.experiments.values() if e.start_us <= at_us]
    metrics = {m for e in begun for m in (e.metric, *(g.metric for g in e.guardrails))} - {domain.label.name}
    events = exposures.attributed(settings, {VIEWED, *metrics})
    events = events[events["ts_us"] <= at_us]
    seen, outcomes = exposures.first(events), domain.outcomes(settings).to_pandas()
    found = []
    for experiment in begun:
        people = population(seen, outcomes, experiment)
        people["segment"], features = None, None
        if len(people) and len(list(settings.features.glob("*.parquet"))):
            features, people["segment"] = covariates.before(settings, people)
        found.append(result(experiment, domain, people, features, events, at_us))
    return found


def result(
    experiment: Experiment, domain: Domain, people: pd.DataFrame, features: pd.DataFrame | None, events: pd.DataFrame,
    at_us: int,
) -> Result:  # fmt: skip
    """What the people of one experiment say. features: of just before the exposure, with their index; None: none."""
    label, metric = domain.label.name, experiment.metric
    rows = covered(observed(people, metric, label, events), features, at_us)
    last_us = min(at_us, int(rows["known_us"].max()) + DAY) if len(rows) else at_us
    days = comparison.looks(people["exposed_us"].to_numpy(np.int64), last_us)
    treatments = [name for name in experiment.variants if name != experiment.control]
    segments = [s.name for s in domain.segments] if rows["segment"].notna().any() else []
    pairs = [(t, s) for t in treatments for s in segments]
    return Result(
        experiment=experiment,
        at_us=at_us,
        exposed=_counts(people, experiment),
        people=rows.loc[rows["known_us"] <= at_us, ["user_id", "variant", "segment"]],
        crossed=int((people["variants"] > 1).sum()),
        unknown=int(people["anchor_us"].isna().sum()),
        mismatch=comparison.mismatch(people["variant"].tolist(), experiment),
        overall=[compare(rows, experiment, t, metric, days, LEVEL / len(treatments)) for t in treatments],
        segments=[compare(rows, experiment, t, metric, days, LEVEL / len(pairs), s) for t, s in pairs],
        guarded=_guarded(experiment, label, people, events, days, treatments),
    )


def covered(rows: pd.DataFrame, features: pd.DataFrame | None, at_us: int) -> pd.DataFrame:
    """The rows with `covariate`: the prediction from before the exposure; NaN where there is none."""
    if features is None or rows.empty:
        return rows.assign(covariate=np.nan)
    known = rows["y"].where(rows["known_us"] <= at_us)
    return rows.assign(covariate=covariates.cross_fitted(features.loc[rows.index], rows["user_id"], known))


def _guarded(
    experiment: Experiment, label: str, people: pd.DataFrame, events: pd.DataFrame, days: np.ndarray,
    treatments: Sequence[str],
) -> list[Guarded]:  # fmt: skip
    level = LEVEL / max(len(treatments) * len(experiment.guardrails), 1)
    found = []
    for g in experiment.guardrails:
        rows = observed(people, g.metric, label, events, g.within_us).assign(covariate=np.nan)
        curves = (compare(rows, experiment, t, g.metric, days, level) for t in treatments)
        found += [comparison.guard(curve, g) for curve in curves]
    return found


def _counts(rows: pd.DataFrame, experiment: Experiment) -> dict[str, int]:
    counted = Counter(rows["variant"])
    return {name: counted[name] for name in experiment.variants}


def pause(settings: Settings, results: Sequence[Result]) -> dict[str, Paused]:
    """Pause what has to pause, in the file that serving reads; returns what is paused now.

    What is paused stays so, until somebody resumes it.
    """
    held = paused.read(settings.state)
    wrong = {r.experiment.name: Paused(why, r.at_us) for r in results if (why := r.pause)}
    new = {name: why for name, why in wrong.items() if name not in held}
    if new:
        paused.write(settings.state, held | new)
    return held | new


def resume(settings: Settings, name: str) -> Paused:
    """Take an experiment out of the paused ones; returns why it was paused.

    Raises:
        ValueError: it is not paused.
    """
    held = paused.read(settings.state)
    if name not in held:
        raise ValueError(f"{name!r} is not paused; {', '.join(held) or 'nothing'} is")
    paused.write(settings.state, {n: p for n, p in held.items() if n != name})
    return held[name]


def sentence(curve: Curve) -> str:
    """The newest interval, in words."""
    if not curve.known:
        return f"too few people yet ({curve.people[-1] if len(curve.people) else 0:,})"
    points = f"{100 * curve.effect[-1]:+.1f} points, {100 * curve.low[-1]:+.1f} to {100 * curve.high[-1]:+.1f}"
    return f"{points} on {percent(float(curve.control[-1]))}"
