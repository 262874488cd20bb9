"""Intervals, checks and guardrails against the simulator's truth, looked at every day for four weeks.

Everybody is drawn by the simulator, with the probabilities that it knows, and is exposed at the sign-up; what became of
them is known 14 days later. So from day 15 to day 42 there is something new to see every day.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feature_repo.domains.saas.people import draw
from feature_repo.vocabulary import DAY
from monitoring import comparison
from monitoring.comparison import LEVEL, MISMATCH_LEVEL, Curve
from serving.experiments.declared import Experiment, Guardrail, Step, Variant

PEOPLE, DAYS, HORIZON = 4_200, 28, 14
BEGIN = 1_800_000_000_000_000 // DAY * DAY
LOOKS = BEGIN + np.arange(HORIZON + 1, HORIZON + DAYS + 1) * DAY
ARMS = {"control": Variant(1), "tour": Variant(1)}
TRIAL = Experiment("trial", "?", "one", (0, 1), BEGIN, None, (Step(BEGIN, 1.0),), ARMS, "activation")
NONE: Mapping[str, float] = {}
HELPS = {"explorer": 0.5, "hesitant": 0.7, "tourist": 0.2}
HARMS = {"racer": -0.8, "explorer": -0.6, "hesitant": -0.4}
SEGMENTS = ("low", "middle", "high", "top")
MANY = [50, pytest.param(500, marks=pytest.mark.soak)]


@dataclass(frozen=True)
class World:
    """rows: as comparison.compare takes them, in the order of exposure."""

    rows: pd.DataFrame

    def curve(self, level: float = LEVEL, segment: str | None = None) -> Curve:
        return comparison.compare(self.rows, TRIAL, "tour", "activation", LOOKS, level, segment)


def world(seed: int, effects: Mapping[str, float]) -> World:
    end_us = BEGIN + DAYS * DAY
    people = draw(PEOPLE, seed, end_us, DAYS, {"tour": effects}, {"tour": 0.5})
    rows = pd.DataFrame({
        "variant": np.where(people.shown["tour"], "tour", "control"),
        "y": people.activates.astype(float),
        "known_us": people.signup_us + HORIZON * DAY,
        "covariate": people.p0,
        "segment": np.array(SEGMENTS)[np.digitize(people.p0, (0.15, 0.35, 0.6))],
    })  # fmt: skip
    return World(rows)


@cache
def worlds(count: int, kind: str) -> list[World]:
    effects = {"none": NONE, "helps": HELPS, "harms": HARMS}[kind]
    return [world(10_000 * len(kind) + i, effects) for i in range(count)]


@cache
def truth(kind: str) -> float:
    """Mean of what the element does to the probability, over all whom the simulator may draw."""
    effects = {"none": NONE, "helps": HELPS, "harms": HARMS}[kind]
    people = draw(200_000, 1, BEGIN + DAYS * DAY, DAYS, {"tour": effects})
    return float((people.p1["tour"] - people.p0).mean())


def misses(curve: Curve, true: float) -> bool:
    """Whether the interval ever, at any look, does not hold the truth."""
    return bool(((curve.low > true) | (curve.high < true)).any())


def at_most(level: float, count: int) -> int:
    """What a share `level` of `count` exceeds once in a thousand times."""
    return int(stats.binom.ppf(0.999, count, level))


@pytest.mark.parametrize("count", MANY)
def test_no_effect_is_seldom_called_one_on_any_day(count: int) -> None:
    curves = [w.curve() for w in worlds(count, "none")]
    assert all(len(c.effect) == DAYS and np.isnan(c.effect).sum() <= 4 for c in curves)
    assert sum(misses(c, 0.0) for c in curves) <= at_most(LEVEL, count)


@pytest.mark.parametrize("count", MANY)
def test_a_common_interval_looked_at_every_day_would_be_wrong_more_often_than_it_says(count: int) -> None:
    """So the test above can fail: 1.96 standard errors to each side are right on one day, not on 28."""
    wrong = 0
    for curve in (w.curve() for w in worlds(count, "none")):
        error = (curve.high - curve.low) / 2 / comparison.sequential.factor(curve.people.astype(float), LEVEL)
        wrong += bool((np.abs(curve.effect) > 1.96 * error).any())
    assert wrong > at_most(LEVEL, count)


@pytest.mark.parametrize("kind", ["helps", "harms"])
@pytest.mark.parametrize("count", MANY)
def test_the_true_effect_is_covered_on_all_days_at_once(count: int, kind: str) -> None:
    curves = [w.curve() for w in worlds(count, kind)]
    assert sum(misses(c, truth(kind)) for c in curves) <= at_most(LEVEL, count)


@pytest.mark.parametrize("count", MANY)
def test_an_effect_of_seven_points_is_found_nine_times_in_ten(count: int) -> None:
    assert 0.06 < truth("helps") < 0.08
    found = [bool((w.curve().low > 0).any()) for w in worlds(count, "helps")]
    assert sum(found) >= count * 0.9 - 3 * np.sqrt(count * 0.09)


@pytest.mark.parametrize("count", MANY)
def test_the_covariate_narrows_by_what_it_explains_and_does_not_bias(count: int) -> None:
    curves = [w.curve() for w in worlds(count, "helps")]
    arms = [arm for w in worlds(count, "helps") for _, arm in w.rows.groupby("variant")]
    explained = [float(arm["y"].corr(arm["covariate"]) ** 2) for arm in arms]
    expected = float(np.sqrt(1 - np.mean(explained)))
    assert expected < 0.93
    assert abs(np.mean([c.narrowed for c in curves]) - expected) < 0.005
    for estimates in ([c.effect[-1] for c in curves], [c.plain[-1] for c in curves]):
        assert abs(np.mean(estimates) - truth("helps")) < 4 * np.std(estimates) / np.sqrt(count)
    assert np.std([c.effect[-1] for c in curves]) < np.std([c.plain[-1] for c in curves])


@pytest.mark.parametrize("count", MANY)
def test_all_segments_together_are_seldom_wrong(count: int) -> None:
    each = LEVEL / len(SEGMENTS)
    wrong = sum(any(misses(w.curve(each, s), 0.0) for s in SEGMENTS) for w in worlds(count, "none"))
    assert wrong <= at_most(LEVEL, count)


@pytest.mark.parametrize("count", MANY)
def test_an_effect_is_found_in_the_segments_that_have_it(count: int) -> None:
    each = LEVEL / len(SEGMENTS)
    found = {s: np.mean([(w.curve(each, s).low > 0).any() for w in worlds(count, "helps")]) for s in SEGMENTS}
    assert max(found, key=lambda s: found[s]) in ("low", "middle") and max(found.values()) > 0.4


@pytest.mark.parametrize("count", MANY)
def test_the_check_of_shares_is_silent_where_they_are_right(count: int) -> None:
    found = [comparison.mismatch(w.rows["variant"].tolist(), TRIAL) for w in worlds(count, "none")]
    alarms = sum(p <= MISMATCH_LEVEL for p in found)
    assert alarms <= at_most(MISMATCH_LEVEL, count)


def losing(rows: pd.DataFrame, share: float, rng: np.random.Generator) -> list[str]:
    """A fault of the product: some exposures to the treatment are not sent."""
    kept = (rows["variant"] != "tour") | (rng.random(len(rows)) >= share)
    return rows["variant"][kept].tolist()


@pytest.mark.parametrize("count", MANY)
def test_exposures_that_are_lost_in_one_variant_are_caught(count: int) -> None:
    rng = np.random.default_rng(0)
    caught = [comparison.mismatch(losing(w.rows, 0.2, rng), TRIAL) <= MISMATCH_LEVEL for w in worlds(count, "none")]
    assert np.mean(caught) >= 0.95


@pytest.mark.parametrize("count", MANY)
def test_a_guardrail_pauses_what_harms_and_not_what_does_not(count: int) -> None:
    rail = Guardrail("activation", 0.02, good=True)

    def broken(w: World) -> bool:
        return comparison.guard(w.curve(), rail).broken_us is not None

    assert truth("harms") < -0.08
    assert np.mean([broken(w) for w in worlds(count, "harms")]) > 0.8
    assert sum(broken(w) for w in worlds(count, "none")) <= at_most(LEVEL, count)
    assert not any(broken(w) for w in worlds(count, "helps"))
