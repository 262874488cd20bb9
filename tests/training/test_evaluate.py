import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from training import evaluate

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=4, max_size=60)


@given(PAIRS, st.integers(0, 99))
def test_figures_are_scikit_learns(pairs: list[tuple[int, int]], seed: int) -> None:
    y, p = np.array([a for a, _ in pairs] + [0, 1]), np.array([b / 8 for _, b in pairs] + [0.5, 0.5])
    w = np.random.default_rng(seed).integers(1, 4, len(y)).astype(float)
    assert evaluate.roc_auc(y, p, w) == pytest.approx(theirs.roc_auc_score(y, p, sample_weight=w))
    assert evaluate.pr_auc(y, p, w) == pytest.approx(theirs.average_precision_score(y, p, sample_weight=w))
    assert evaluate.brier(y, p, w) == pytest.approx(theirs.brier_score_loss(y, p, sample_weight=w))
    q = np.clip(p, 1e-6, 1 - 1e-6)
    assert evaluate.log_loss(y, p, w) == pytest.approx(theirs.log_loss(y, q, sample_weight=w))


def test_a_weight_is_a_repetition() -> None:
    y, p = np.array([0, 1, 1, 0]), np.array([0.2, 0.7, 0.4, 0.5])
    again = np.array([0, 1, 2, 3, 3])
    for name, metric in evaluate.METRICS.items():
        if name != "ece":  # its bins are those of the rows as they came
            assert metric(y, p, np.array([1.0, 1, 1, 2])) == pytest.approx(metric(y[again], p[again], np.ones(5)))


def test_calibration_error() -> None:
    p = np.repeat([0.2, 0.8], 500)
    right = np.concatenate([np.arange(500) < 100, np.arange(500) < 400]).astype(int)
    assert evaluate.ece(right, p, np.ones(1000)) == pytest.approx(0)
    assert evaluate.ece(right, p + 0.1, np.ones(1000)) == pytest.approx(0.1)


def test_one_label_only_has_no_ranking() -> None:
    found = evaluate.metrics(np.ones(5), np.linspace(0, 1, 5))
    assert np.isnan(found["roc_auc"]) and found["pr_auc"] == 1.0


def test_people_are_drawn_with_all_their_rows() -> None:
    users = np.array(["a", "b", "a", "c", "b"])
    weights = evaluate.draws(users, 50, seed=1)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, evaluate.draws(users, 50, seed=1))


def test_repeated_rows_of_a_person_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 150), rng.random(150)
    users = np.array([f"u{i}" for i in range(150)])
    once = evaluate.intervals(y, p, users)["brier"]
    often = evaluate.intervals(np.tile(y, 4), np.tile(p, 4), np.tile(users, 4))["brier"]
    assert often.high - often.low == pytest.approx(once.high - once.low)
    assert once.low < once.value < once.high


def test_paired_difference_sees_a_small_steady_gain() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(2_000)
    y = (rng.random(2_000) < truth).astype(int)
    worse = truth + rng.normal(size=2_000) * 0.3
    weights = evaluate.draws(np.arange(2_000).astype(str), 100, 3)
    gain = evaluate.difference(evaluate.METRICS["roc_auc"], y, truth, worse, weights)
    assert gain.low > 0 and gain.low < gain.value < gain.high
    same = evaluate.difference(evaluate.METRICS["roc_auc"], y, truth, truth, weights)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_slices_have_a_row_for_null() -> None:
    rows = pd.DataFrame({"device": ["m", None, "m", "d", None]})
    found = evaluate.slices(rows, np.array([1, 0, 0, 1, 1]), np.array([0.9, 0.1, 0.2, 0.8, 0.6]), ["device"], least=2)
    assert found[["value", "rows", "rate", "roc_auc"]].to_numpy().tolist() == [
        ["(null)", 2, 0.5, 1.0],
        ["m", 2, 0.5, 1.0],
    ]
