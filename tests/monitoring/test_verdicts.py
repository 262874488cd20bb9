"""monitoring.verdicts: the words say what the figures say."""

import dataclasses
from pathlib import Path

import pytest

from feature_repo.domain import Label
from feature_repo.vocabulary import WEEK
from monitoring import verdicts
from monitoring.decisions import week
from monitoring.drift import Drift, FeatureDrift
from monitoring.outcomes import Quality, Rate, wilson
from monitoring.parity import NO_POSITION, UNKNOWN, Parity, Tally
from monitoring.rule_segments import RuleSegments
from monitoring.segments import WeekShares

LABEL = Label("activation", "activates", good=True)


def drift(*values: float, score: float = 0.02, n_now: int = 500) -> Drift:
    """Features f0, f1, ... with these PSIs."""
    return Drift([FeatureDrift(f"f{i}", v, 0, 0) for i, v in enumerate(values)], score, 5000, n_now, 1, [])


def quality(low: float = 0.75, happened: int = 200, error: float = 0.02, chance: float = 0.01) -> Quality:
    """Matured labels with an AUC of 0.78."""
    return Quality(900, 300, happened, 0.78, low, 0.81, 0.1, error, chance, 0.24, [])


def rate(name: str, happened: int, n: int = 100) -> Rate:
    """A segment's rate."""
    low, high = wilson(happened / n, n)
    return Rate(name, n, n, happened, low, high, predicted=None)


@pytest.mark.parametrize(
    ("values", "level"), [((0.05, 0.19, 0, 0, 0, 0), "good"), ((0.2, 0, 0, 0, 0, 0), "look"), ((0.3, 0.2, 0, 0), "act")]
)
def test_feature_drift(values: tuple[float, ...], level: str) -> None:
    assert verdicts.feature_drift(drift(*values)).level == level


def test_feature_drift_names_the_features_and_the_threshold() -> None:
    found = verdicts.feature_drift(drift(*[0.5 - i / 100 for i in range(7)], *[0.0] * 34))
    assert found.text.startswith(
        "7 of 41 features at or above PSI 0.2: f0, f1, f2, f3, f4 and 2 more. 500 observations now"
    )


def test_few_people_give_no_verdict() -> None:
    few = drift(0.5, score=0.5, n_now=49)
    for ask in (verdicts.feature_drift, verdicts.score_drift, verdicts.missing_values):
        assert ask(few).level == "unknown"


@pytest.mark.parametrize(("psi", "level"), [(0.09, "good"), (0.1, "look"), (0.2, "act")])
def test_score_drift(psi: float, level: str) -> None:
    assert verdicts.score_drift(drift(0.0, score=psi)).level == level


def test_missing_values_name_the_worst_first() -> None:
    features = [
        FeatureDrift("a", 0, 0.10, 0.16, True),
        FeatureDrift("b", 0, 0.5, 0.1, True),
        FeatureDrift("c", 0, 0.10, 0.14),
    ]
    found = verdicts.missing_values(Drift(features, 0, 500, 500, 1, []))
    assert (found.level, found.text) == (
        "look",
        "2 of 3 features moved by 5 points or more, and by more than chance would: b, a. Most: b, from 50 % to 10 %.",
    )


@pytest.mark.parametrize(
    ("psi", "chance", "level"), [(0.03, 0.01, "good"), (0.15, 0.01, "look"), (0.25, 0.01, "act"), (0.25, 0.3, "good")]
)
def test_segments(psi: float, chance: float, level: str) -> None:
    found = verdicts.segment_stability([WeekShares(WEEK, {"cold": 60, "hot": 40}, psi, chance)], [])
    assert found.level == level
    assert f"PSI {psi:.2f}" in found.text and "look from 0.1, act from 0.2" in found.text


def test_segments_need_a_week_before() -> None:
    assert verdicts.segment_stability([WeekShares(WEEK, {"cold": 60}, None, 0.0)], []).level == "unknown"
    assert verdicts.segment_stability([], []).level == "unknown"


@pytest.mark.parametrize(
    ("low", "training", "level"), [(0.75, 0.8, "good"), (0.51, None, "good"), (0.75, 0.82, "look"), (0.5, 0.8, "act")]
)
def test_auc(low: float, training: float | None, level: str) -> None:
    found = verdicts.ranking(quality(low), "since then", training)
    assert (found.level, found.title) == (level, "AUC on matured labels 0.78")
    assert "n=900 labels of 300 people, since then." in found.text
    assert ("of training's holdout" in found.text) == (training is not None)


def test_auc_needs_enough_of_both_outcomes() -> None:
    for too_few in (None, quality(happened=49), quality(happened=851)):
        assert verdicts.ranking(too_few, "since then", None).level == "unknown"


@pytest.mark.parametrize(("error", "level"), [(0.05, "good"), (0.051, "look")])
def test_calibration(error: float, level: str) -> None:
    assert verdicts.calibration(quality(error=error)).level == level


def test_what_chance_explains_is_not_called_drift_or_off() -> None:
    few = drift(0.0, score=0.25, n_now=60)
    assert few.chance > 0.25
    found = verdicts.score_drift(few)
    assert found.level == "good" and f"chance alone reaches {few.chance:.2f}" in found.text
    off = verdicts.calibration(quality(error=0.07, chance=0.08))
    assert off.level == "good" and "chance alone reaches 0.080" in off.text


def test_segments_tell_people_apart() -> None:
    def ask(*happened: int) -> str:
        return verdicts.by_segment([rate(f"s{i}", h) for i, h in enumerate(happened)], LABEL).level

    assert (ask(5, 30, 60), ask(5, 3, 60), ask(30, 31, 32), ask(5)) == ("good", "look", "act", "unknown")


def test_decisions(tmp_path: Path) -> None:
    nothing = week(tmp_path, WEEK, [])
    some = dataclasses.replace(nothing, newest_us=WEEK, total=10, count=10, people=5, unknown=1)
    assert verdicts.decided(nothing).title == "No decisions logged"
    assert verdicts.decided(dataclasses.replace(some, count=0)).title == "No decisions this week"
    assert verdicts.decided(some).level == "good"
    assert verdicts.decided(dataclasses.replace(some, unknown=2)).level == "look"


def test_served_as_defined() -> None:
    good = Parity({"a": Tally(1_200)}, vectors=1_200, because={UNKNOWN: 3, NO_POSITION: 2})
    found = verdicts.served_as_defined(good)
    assert (found.level, found.title, found.anchor) == ("good", "Served as defined", "served")
    assert found.text == (
        "1,200 vectors recomputed from the lake as it was known then: none differs. "
        "Not comparable: 3 for people nobody has seen and 2 without a log position beside the features."
    )


def test_a_single_wrong_value_is_to_be_acted_on() -> None:
    tallies = {"a": Tally(9), "b": Tally(9, 1), "c": Tally(9, 1, 1)}
    wrong = Parity(tallies, vectors=9, wrong_vectors=2, faults={"a lost event": 2, "unexplained": 1})
    found = verdicts.served_as_defined(wrong)
    assert found.level == "act" and found.text == (
        "3 values in 2 of 9 vectors differ from the lake's (act from 1): c, b. "
        "Of 3 looked into: 2 a lost event and 1 unexplained."
    )


def test_where_nothing_was_compared_it_is_not_known_whether_it_was_right() -> None:
    nothing = verdicts.served_as_defined(Parity({"a": Tally()}))
    assert (nothing.level, nothing.text) == ("unknown", "Nothing was served.")
    only_unknown = verdicts.served_as_defined(Parity({"a": Tally()}, because={UNKNOWN: 3}))
    assert (only_unknown.level, only_unknown.text) == ("unknown", "Not comparable: 3 for people nobody has seen.")


def test_segments_by_rule() -> None:
    shares, flips = {"newcomer": 0.4, "stuck": 0.03}, {"newcomer": 0.2, "stuck": 1.25}
    found = verdicts.segments_by_rule(RuleSegments(300, shares, flips))
    assert (found.level, found.title) == ("good", "Segments by rule within their limits")
    assert found.text == (
        "Now of 300 people: newcomer 40 %, stuck 3.0 %. Most restless: stuck, 1.25 times in or out a day. "
        "No limit is exceeded."
    )
    over = verdicts.segments_by_rule(RuleSegments(300, shares, flips, ("stuck: too restless", "newcomer: too small")))
    assert (over.level, over.title) == ("look", "Segments by rule exceed their limits")
    assert over.text.endswith(" a day. stuck: too restless. newcomer: too small.")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "nobody is followed yet"),
        (RuleSegments(0, {"a": 0.0}, {"a": 0.0}), "nobody is followed yet"),
        (RuleSegments(0, {}, {}, unread="segments.db: no such table"), "cannot be read"),
    ],
)
def test_segments_by_rule_of_nobody(found: RuleSegments | None, says: str) -> None:
    assert verdicts.segments_by_rule(found).level == "unknown" and says in verdicts.segments_by_rule(found).title
