"""Each check of the gate on figures made for it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.settings import Settings
from training.evaluate import draws
from training.promote import Check, Gate, Verdict, better, calibrated, served_right, slices_hold, unseen

N = 3_000
RNG = np.random.default_rng(9)
TRUTH = RNG.beta(2, 3, N)
Y = (RNG.random(N) < TRUTH).astype(np.int8)
USERS = np.array([f"u{i}" for i in range(N)])
NOISY = np.clip(TRUTH + RNG.normal(size=N) * 0.25, 0.01, 0.99)
WEIGHTS = draws(USERS, 100, 1)
GATE = Gate(draws=100)


def test_a_better_model_passes_and_says_by_how_much() -> None:
    found = better(Y, TRUTH, NOISY, WEIGHTS, "version 3", GATE)
    assert found.passed and "of version 3: +0." in found.words


@pytest.mark.parametrize("other", [TRUTH, TRUTH * 0.5])
def test_the_same_ranking_is_not_better(other: np.ndarray) -> None:
    assert not better(Y, TRUTH, other, WEIGHTS, "version 3", GATE).passed


def test_a_gain_within_the_noise_is_not_better() -> None:
    slightly = np.clip(TRUTH + RNG.normal(size=N) * 0.03, 0.01, 0.99)
    few = slice(0, 150)
    gain = better(Y[few], TRUTH[few], slightly[few], draws(USERS[few], 100, 1), "it", Gate(margin=-1))
    assert not gain.passed


def test_calibration_counts_beyond_chance() -> None:
    assert calibrated(Y, TRUTH, USERS, GATE).passed
    assert calibrated(Y[:100], TRUTH[:100], USERS[:100], GATE).passed  # the raw error is large, all of it chance
    too_bold = calibrated(Y, np.clip(TRUTH * 1.6, 0, 0.99), USERS, GATE)
    assert not too_bold.passed and "at most 0.05" in too_bold.words


def test_less_informative_than_the_base_rate_is_not_calibrated() -> None:
    assert not calibrated(Y, np.full(N, 0.5), USERS, Gate(ece=1)).passed


def slices(hurt: float, size: int) -> Check:
    """A candidate that is the truth, but `hurt` in one slice of `size` rows."""
    device = np.where(np.arange(N) < size, "tablet", "desk")
    p = np.where(device == "tablet", np.clip(TRUTH + RNG.normal(size=N) * hurt, 0, 1), TRUTH)
    rows = pd.DataFrame({"device": device, "user_id": USERS, "label": Y})
    (found,) = slices_hold(["device"], rows, p, TRUTH, GATE)
    return found


def test_a_slice_that_got_worse_is_named() -> None:
    found = slices(hurt=2.0, size=800)
    assert not found.passed and "device=tablet -0." in found.words and "desk" not in found.words


def test_small_slices_are_not_judged() -> None:
    found = slices(hurt=2.0, size=150)
    assert found.passed and "none of 1 slices" in found.words


def test_labels_from_inside_the_holdout() -> None:
    assert unseen(10, 10).passed
    assert not unseen(11, 10).passed


def test_the_reason_is_what_failed() -> None:
    checks = [Check("a", True, "a is well"), Check("b", False, "b is not")]
    assert Verdict(2, 1, False, checks).reason == "b is not"
    assert Verdict(2, 1, True, checks[:1]).reason == "a is well"


@pytest.mark.parametrize("wrong", [0, 3])
def test_features_that_were_served_wrong_keep_a_model_back(tmp_path: Path, wrong: int) -> None:
    settings = Settings(home=tmp_path)
    assert served_right(settings) == []
    settings.state.mkdir(parents=True)
    (settings.state / "parity.json").write_text(json.dumps({"vectors": 1_200, "wrong": wrong}))
    (check,) = served_right(settings)
    assert check.passed == (wrong == 0)
    assert check.words == f"1,200 served feature vectors, {wrong} values that the lake does not give"


def test_the_gate_names_the_features_that_were_served_wrong(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.state.mkdir(parents=True)
    tallies = {f"f{n}": {"compared": 9, "mismatched": n, "missing": 0, "extra": int(n > 5)} for n in range(8)}
    found = {"vectors": 9, "wrong": 30, "features": tallies, "faults": {"an older row": 2, "unexplained": 1}}
    (settings.state / "parity.json").write_text(json.dumps(found))
    (check,) = served_right(settings)
    assert not check.passed and check.words == (
        "9 served feature vectors, 30 values that the lake does not give: "
        "f7 8, f6 7, f5 5, f4 4, f3 3 and 2 more; looks like an older row, unexplained"
    )
