import pandas as pd
import pytest

from tests.training.world import INPUTS, STRINGS
from training.candidates import BaseRate, LightGBM, Logistic
from training.splits import time_folds
from training.tune import Fold, Trial, prepare, tune


@pytest.fixture(scope="module")
def folds(rows: pd.DataFrame) -> list[Fold]:
    return prepare(list(time_folds(rows, 3)), INPUTS)


def test_the_best_trial_is_kept_and_the_defaults_come_first(folds: list[Fold]) -> None:
    seen: list[Trial] = []
    found = tune(Logistic, folds, STRINGS, 4, seed=1, on_trial=seen.append)
    assert seen == found.trials and len(seen) == 4
    assert seen[0].params == {"C": 0.1, "l1": 0.5, "imputation": "median"}
    best = min((t for t in seen if t.state == "complete"), key=lambda t: t.loss)
    assert (found.loss, found.params) == (best.loss, best.params)


def test_the_same_seed_gives_the_same_trials(folds: list[Fold]) -> None:
    first, second = (tune(Logistic, folds, STRINGS, 3, seed=5) for _ in range(2))
    assert [(t.params, t.loss) for t in first.trials] == [(t.params, t.loss) for t in second.trials]


def test_hopeless_trials_are_pruned(folds: list[Fold], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LightGBM, "suggest", lambda trial: {"trees": trial.suggest_int("trees", 1, 120)})
    found = tune(LightGBM, folds, STRINGS, 10, seed=2)
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert pruned and all(len(t.folds) < len(folds) for t in pruned)


def test_what_has_no_parameters_is_tried_once(folds: list[Fold]) -> None:
    found = tune(BaseRate, folds, STRINGS, 9, seed=0)
    assert len(found.trials) == 1 and found.params == {}


def test_the_timeout_strikes(folds: list[Fold]) -> None:
    assert len(tune(Logistic, folds, STRINGS, 500, seed=0, timeout=0.01).trials) < 5
