"""Puts what was measured together into what the page says. Pure: no I/O, no clock."""

from collections.abc import Sequence

import pandas as pd

from feature_repo.domain import Domain
from feature_repo.features.saturation import AtLimit
from feature_repo.vocabulary import SECOND
from monitoring import outcomes, segments, verdicts
from monitoring.decisions import Decisions
from monitoring.drift import Drift
from monitoring.page import Week
from monitoring.parity import Parity
from monitoring.parts import Champion, Parts, ages, compared
from monitoring.rule_segments import RuleSegments
from monitoring.snapshots import Snapshots
from monitoring.verdicts import Verdict
from monitoring.words import date, span
from training.dataset import timestamps


def compose(
    domain: Domain,
    champion: Champion,
    at_us: int,
    parts: Parts,
    drift: Drift,
    taken: Snapshots,
    replayed: pd.DataFrame,
    log: Decisions,
    served: Parity,
    by_rule: RuleSegments | None = None,
    at_limit: Sequence[AtLimit] = (),
) -> Week:
    """The week. replayed: taken.rows with `segment`. served: the vectors of the decisions in `log`.

    by_rule: None: nobody is followed by rules yet. at_limit: of the offline rows.
    """
    order = segment_names(domain)
    weeks = segments.shares_by_week(replayed, order)
    moves = segments.moves_by_week(replayed, order)
    rates = outcomes.rates(parts.matured, "segment", order)
    quality = outcomes.quality(parts.matured)
    return Week(
        title=f"{domain.title}, the week to {date(parts.week_end_us)}", domain=domain.name,
        at_us=at_us, week_end_us=parts.week_end_us,
        model_name=champion.name, model_version=champion.version, train_end_us=champion.train_end_us,
        outcome=domain.label.name.replace("_", " "), label_doc=_sentence(domain.label.doc), good=domain.label.good,
        verdicts=judged(domain, champion, parts, drift, weeks, moves, quality, rates, log, served, by_rule, at_limit),
        drift=drift,
        scores_reference=_scores(parts.reference), scores_now=_scores(parts.current),
        reference_words=compared(parts), timestamps=timestamps(domain), docs=docs(domain),
        segments=order, done_segment=domain.label.done_segment if domain.label.done else None,
        weeks=weeks, in_training=[inside(week.end_us, champion.train_end_us) for week in weeks],
        people=taken.people, sampled=taken.sampled, moves=moves, ages_scored=ages(domain.observations),
        rates=rates, quality=quality, ages=by_age(parts.matured), labels_words=parts.labels_words, decisions=log,
        served=served,
    )  # fmt: skip


def judged(
    domain: Domain,
    champion: Champion,
    parts: Parts,
    drift: Drift,
    weeks: Sequence[segments.WeekShares],
    moves: Sequence[segments.Moves],
    quality: outcomes.Quality | None,
    rates: Sequence[outcomes.Rate],
    log: Decisions,
    served: Parity,
    by_rule: RuleSegments | None = None,
    at_limit: Sequence[AtLimit] = (),
) -> list[Verdict]:
    """The verdicts, in the order in which a reviewer asks."""
    return [
        verdicts.segment_stability(weeks, moves),
        verdicts.segments_by_rule(by_rule),
        verdicts.by_segment(rates, domain.label),
        verdicts.ranking(quality, parts.labels_words, champion.holdout_auc),
        verdicts.calibration(quality),
        verdicts.feature_drift(drift),
        verdicts.score_drift(drift),
        verdicts.missing_values(drift),
        *([verdicts.sums_at_limit(at_limit)] if at_limit else []),
        verdicts.decided(log),
        verdicts.served_as_defined(served),
    ]


def segment_names(domain: Domain) -> list[str]:
    """The segments from the lowest score to the highest, then that of the people who are done."""
    return [s.name for s in domain.segments] + ([domain.label.done_segment] if domain.label.done else [])


def measured_types(domain: Domain, features: Sequence[str]) -> dict[str, str]:
    """Type of each of the model's features whose drift is measured: all but the points in time."""
    types = domain.feature_types | {e.name: "float64" for e in domain.elapsed}
    return {name: types[name] for name in features if name not in timestamps(domain)}


def docs(domain: Domain) -> dict[str, str]:
    """What each feature is, with its unit."""
    known = [(f.name, f.doc, f.unit) for f in domain.features] + [(e.name, e.doc, e.unit) for e in domain.elapsed]
    return {name: _sentence(f"{doc} ({unit})" if unit else doc) for name, doc, unit in known}


def by_age(matured: pd.DataFrame) -> list[tuple[str, outcomes.Quality]]:
    """Quality at each age at which people are observed, youngest first."""
    found = [(int(str(offset)), outcomes.quality(rows)) for offset, rows in matured.groupby("offset_us")]
    return [(span(offset / SECOND), quality) for offset, quality in sorted(found, key=lambda f: f[0]) if quality]


def inside(end_us: int, train_end_us: int | None) -> bool | None:
    """Whether a week lay inside the training period; None where that is not known."""
    return None if train_end_us is None else end_us <= train_end_us


def _scores(rows: pd.DataFrame) -> list[float]:
    return sorted(rows["score"].dropna().astype(float).tolist())


def _sentence(words: str) -> str:
    """Words as a sentence."""
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "!")) else ".") if words else ""
