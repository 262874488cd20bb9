import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.training.world import shop
from training import contest
from training.candidates import LightGBM, by_name
from training.contest import Result, choose, thin
from training.model import EngagementModel
from training.plan import Plan
from training.tune import Tuned


def result(kind: str, loss: float) -> Result:
    return Result(Tuned(by_name(kind), {}, loss, []), cast(EngagementModel, None), np.empty(0), {})


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ({"base_rate": 0.1, "logistic": 0.50, "random_forest": 0.45, "lightgbm": 0.47}, "random_forest"),
        ({"base_rate": 0.6, "logistic": 0.50, "random_forest": 0.450, "lightgbm": 0.452}, "lightgbm"),
        ({"base_rate": 0.6, "logistic": 0.451, "random_forest": 0.450, "lightgbm": 0.46}, "logistic"),
    ],
)
def test_the_least_loss_wins_and_of_equals_the_quickest(losses: dict[str, float], best: str) -> None:
    assert choose([result(kind, loss) for kind, loss in losses.items()]).kind == best


def test_a_candidate_of_another_kind_takes_part() -> None:
    class Other(LightGBM):
        kind = "other"
        microseconds = 10

    other = replace(result("lightgbm", 0.451), tuned=Tuned(Other, {}, 0.451, []))
    assert choose([result("logistic", 0.450), other]) is other
    Other.microseconds = math.inf  # not declared: any other is preferred, unless this one predicts better
    assert choose([result("logistic", 0.450), other]).kind == "logistic"
    assert choose([result("logistic", 0.460), other]) is other


def test_thinning_keeps_whole_people(rows: pd.DataFrame) -> None:
    some = thin(rows, 500, seed=3)
    assert 400 <= len(some) <= 500
    assert (some.groupby("user_id").size() == rows.groupby("user_id").size().reindex(some["user_id"].unique())).all()
    assert some.equals(thin(rows, 500, seed=3)) and not some.equals(thin(rows, 500, seed=4))
    assert thin(rows, 10**6, seed=3) is rows


def test_calibration_is_learnt_on_the_newest_people(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration and segments come from people whom the candidate that scores them has not seen."""
    seen: list[set[str]] = []
    odds_of = contest.odds_of

    def noted(candidate: Any, newest: pd.DataFrame) -> np.ndarray:
        seen.append(set(newest["user_id"]))
        return odds_of(candidate, newest)

    monkeypatch.setattr(contest, "odds_of", noted)
    whole = rows.assign(clicks_1d=rows["clicks"], last_click_us=1.0, bought=0.0, since_click=1.0)
    tuned = Tuned(by_name("lightgbm"), {"trees": 10}, 0.5, [])
    model = contest.fit(tuned, shop(lambda _: pa.table({})), whole, ["device", "country"], Plan(calibrate=0.25))
    (people,) = seen
    newest = whole[whole["user_id"].isin(people)]
    assert newest["anchor_us"].min() >= whole[~whole["user_id"].isin(people)]["anchor_us"].max()
    assert len(people) == pytest.approx(0.25 * whole["user_id"].nunique(), abs=1)
    assert len(model.cutoffs) == 2 and model.segments == ["cold", "warm", "hot"]
