"""The report in words: one verdict for each question that a weekly reviewer asks, each with its threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from feature_repo.domain import Label
from feature_repo.features.saturation import AtLimit
from monitoring.decisions import Decisions
from monitoring.drift import MISSING_POINTS, Drift, FeatureDrift
from monitoring.evidently_pages import DRIFT_SHARE
from monitoring.outcomes import Quality, Rate
from monitoring.parity import Parity
from monitoring.psi import DRIFTED, WATCH
from monitoring.psi import level as psi_level
from monitoring.rule_segments import RuleSegments
from monitoring.segments import Moves, WeekShares
from monitoring.words import date, listed, percent

CALIBRATED = 0.05
"""A calibration error up to this is good."""
FEW = 50
"""With fewer people on either side there is no verdict."""
NAMED = 5

GOOD, LOOK, ACT, UNKNOWN = "good", "look", "act", "unknown"
LEVELS = {"stable": GOOD, "moved": LOOK, "drifted": ACT}


@dataclass(frozen=True)
class Verdict:
    """level: good, look, act or unknown; title: the answer; text: figures and threshold; anchor: where to read on."""

    level: str
    title: str
    text: str
    anchor: str


def feature_drift(drift: Drift) -> Verdict:
    """Have the features moved away from what the model was trained on?"""
    measured = [f for f in drift.features if f.psi is not None]
    if not measured or drift.people < FEW:
        return Verdict(UNKNOWN, "Feature drift: too few people to tell", _sides(drift), "drift")
    count = len(drift.drifted)
    text = f"{count} of {len(measured)} features at or above PSI {DRIFTED:g}"
    text += f": {_names([f.name for f in drift.drifted])}. " if count else ". "
    if not count:
        text += f"The largest is {measured[0].name} with {measured[0].psi:.2f}. "
    level = GOOD if not count else LOOK if count < DRIFT_SHARE * len(measured) else ACT
    title = {GOOD: "Features stable", LOOK: "Some features drift", ACT: "Features drift"}[level]
    return Verdict(level, title, f"{text}{_sides(drift)}{_by_chance(drift.chance)}", "drift")


def score_drift(drift: Drift) -> Verdict:
    """Has the score's distribution moved?"""
    if drift.score is None or drift.people < FEW:
        return Verdict(UNKNOWN, "Score drift: too few people to tell", _sides(drift), "score")
    level = LEVELS[psi_level(drift.score, drift.chance)]
    title = {GOOD: "Score stable", LOOK: "Score has moved", ACT: "Score drifts"}[level]
    text = f"PSI {drift.score:.2f} against training (look from {WATCH:g}, act from {DRIFTED:g})."
    return Verdict(level, title, text + _by_chance(drift.chance), "score")


def missing_values(drift: Drift) -> Verdict:
    """Do values go missing that used to be there, or the other way round?"""
    if drift.people < FEW:
        return Verdict(UNKNOWN, "Missing values: too few people to tell", _sides(drift), "missing")
    moved = sorted((f for f in drift.features if f.missing_moved), key=_moved_by)
    rule = f"by {100 * MISSING_POINTS:g} points or more, and by more than chance would"
    if not moved:
        return Verdict(GOOD, "Missing values as in training", f"No feature's share of them moved {rule}.", "missing")
    worst = moved[0]
    text = (
        f"{len(moved)} of {len(drift.features)} features moved {rule}: {_names([f.name for f in moved])}. "
        f"Most: {worst.name}, from {percent(worst.missing_reference)} to {percent(worst.missing_now)}."
    )
    return Verdict(LOOK, "Missing values have changed", text, "missing")


def sums_at_limit(found: Sequence[AtLimit]) -> Verdict:
    """Which features hold a limit of int64 in place of a sum beyond it? Asked where any does."""
    names = _names([f.feature for f in found])
    text = f"{'. '.join(map(str, found))}. Bounds of the column (low, high, outside) keep such values out."
    return Verdict(LOOK, f"Sums beyond int64: {names}", text, "missing")


def segment_stability(weeks: Sequence[WeekShares], moves: Sequence[Moves]) -> Verdict:
    """Are the segments as large as the week before?"""
    if not weeks or weeks[-1].psi is None or weeks[-1].people < FEW:
        return Verdict(
            UNKNOWN, "Segments: too few weeks or people to tell", "Two weeks in a row are needed.", "segments"
        )
    last = weeks[-1]
    text = f"PSI {last.psi:.2f} to the week before (look from {WATCH:g}, act from {DRIFTED:g}; n={last.people:,})."
    text += _by_chance(last.chance)
    if moves and (stayed := moves[-1].stayed) is not None and moves[-1].to_us == last.end_us:
        text += f" {percent(stayed)} of those still in onboarding kept their segment."
    level = LEVELS[last.level]
    title = {GOOD: "Segments stable", LOOK: "Segments have moved", ACT: "Segments unstable"}[level]
    return Verdict(level, title, text, "segments")


def segments_by_rule(found: RuleSegments | None) -> Verdict:
    """Do the rules divide people into segments that are large enough, unlike one another, and calm?

    found: None: there is no journal yet, or there are no rules.
    """
    if found is not None and found.unread:
        return Verdict(UNKNOWN, "Segments by rule: the journal cannot be read", found.unread, "segments")
    if found is None or not found.people:
        text = "A running service follows people; `python -m serving segments` does it for a past."
        return Verdict(UNKNOWN, "Segments by rule: nobody is followed yet", text, "segments")
    now = ", ".join(f"{name} {percent(share)}" for name, share in found.shares.items())
    restless, flips = max(found.flips_per_day.items(), key=lambda f: f[1])
    text = f"Now of {found.people:,} people: {now}. Most restless: {restless}, {flips:.2f} times in or out a day. "
    if not found.exceeded:
        return Verdict(GOOD, "Segments by rule within their limits", f"{text}No limit is exceeded.", "segments")
    return Verdict(LOOK, "Segments by rule exceed their limits", f"{text}{'. '.join(found.exceeded)}.", "segments")


def ranking(quality: Quality | None, which: str, training: float | None) -> Verdict:
    """Do people with a higher score have the outcome more often, and as much as at training?

    which: labels, in words. training: AUC on the holdout of the training, None: not known.
    """
    if quality is None or quality.auc is None or min(quality.happened, quality.rows - quality.happened) < FEW:
        n = quality.rows if quality else 0
        return Verdict(UNKNOWN, "AUC: too few matured labels to tell", f"{n:,} matured labels, {which}.", "outcomes")
    low, high = quality.low or 0.0, quality.high or 1.0
    level = ACT if low <= 0.5 else LOOK if training is not None and high < training else GOOD
    text = f"95 % interval {low:.2f}–{high:.2f}; n={quality.rows:,} labels of {quality.people:,} people, {which}. "
    if training is not None:
        text += f"Look if it is all below the {training:.2f} of training's holdout. "
    text += "Act if it reaches 0.50, the toss of a coin."
    return Verdict(level, f"AUC on matured labels {quality.auc:.2f}", text, "outcomes")


def calibration(quality: Quality | None) -> Verdict:
    """Does 30 % mean 30 %?"""
    if quality is None or quality.rows < FEW:
        return Verdict(UNKNOWN, "Calibration: too few matured labels to tell", "", "outcomes")
    level = GOOD if quality.calibration_error <= max(CALIBRATED, quality.calibration_chance) else LOOK
    title = {GOOD: "Probabilities hold", LOOK: "Probabilities are off"}[level]
    text = (
        f"Predicted {percent(quality.predicted)} on average, {percent(quality.rate)} came; "
        f"calibration error {quality.calibration_error:.3f} (good up to {CALIBRATED:g})."
    )
    if quality.calibration_chance > CALIBRATED:
        text += f" With so few people chance alone reaches {quality.calibration_chance:.3f}."
    return Verdict(level, title, text, "outcomes")


def by_segment(rates: Sequence[Rate], label: Label) -> Verdict:
    """Do the segments differ in what becomes of their people?"""
    if len(rates) < 2:
        return Verdict(UNKNOWN, "Outcome by segment: too few matured labels to tell", "", "by-segment")
    first, last = rates[0], rates[-1]
    rising = all(a.rate <= b.rate for a, b in pairwise(rates))
    word = label.name.replace("_", " ")
    text = f"Rate of “{word}” from {percent(first.rate)} in {first.name} to {percent(last.rate)} in {last.name}"
    text += ", rising from segment to segment." if rising else ", but not rising from each segment to the next."
    apart = first.high < last.low
    level = GOOD if rising and apart else LOOK if apart else ACT
    title = "Segments tell people apart" if apart else "Segments do not tell people apart"
    return Verdict(level, title, text, "by-segment")


def decided(log: Decisions) -> Verdict:
    """Did the service decide, and for people it knows?"""
    if log.newest_us is None:
        return Verdict(
            UNKNOWN, "No decisions logged", "The decision log is empty: nothing was served yet.", "decisions"
        )
    if not log.count:
        text = (
            f"The log holds {log.total:,}, the newest of {date(log.newest_us)}, outside the seven days of this report."
        )
        return Verdict(UNKNOWN, "No decisions this week", text, "decisions")
    share = log.unknown / log.count
    text = f"For {log.people:,} people; {percent(share)} were for people nobody has seen (look from 20 %)."
    return Verdict(GOOD if share < 0.2 else LOOK, f"{log.count:,} decisions this week", text, "decisions")


def served_as_defined(served: Parity) -> Verdict:
    """Were the features that decisions were made from those of the definition, by what was known then?"""
    why = _counted(served.because)
    left_out = f"Not comparable: {why}." if why else ""
    if not served.vectors:
        title = "Served features: nothing to compare"
        return Verdict(UNKNOWN, title, left_out or "Nothing was served.", "served")
    if not served.wrong_vectors:
        text = f"{served.vectors:,} vectors recomputed from the lake as it was known then: none differs. {left_out}"
        return Verdict(GOOD, "Served as defined", text.strip(), "served")
    text = (
        f"{served.wrong:,} values in {served.wrong_vectors:,} of {served.vectors:,} vectors differ from the lake's "
        f"(act from 1): {_names(list(served.wrong_features))}. "
        f"Of {sum(served.faults.values())} looked into: {_counted(served.faults)}. {left_out}"
    )
    return Verdict(ACT, "Served features are wrong", text.strip(), "served")


def _counted(counts: Mapping[str, int]) -> str:
    """What there is how often."""
    return listed([f"{n:,} {what}" for what, n in counts.items()])


def _sides(drift: Drift) -> str:
    """The two sides of the comparison."""
    return f"{drift.n_now:,} observations now against {drift.n_reference:,} in training."


def _by_chance(chance: float) -> str:
    """What chance does with few people; nothing where that is below every threshold."""
    return f" With so few people chance alone reaches {chance:.2f}." if chance >= WATCH else ""


def _moved_by(feature: FeatureDrift) -> float:
    """How far a feature's share of missing values moved, the farthest first."""
    return -abs(feature.missing_now - feature.missing_reference)


def _names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
