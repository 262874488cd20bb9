import numpy as np
import pytest

from training import calibration
from training.calibration import Isotonic, Sigmoid
from training.candidates import probability


def world(n: int, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log odds that exaggerate by 1 / slope, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=n) * 2
    return odds, (rng.random(n) < [probability(slope * o - 0.5) for o in odds]).astype(np.int8)


def test_sigmoid_finds_the_true_slope() -> None:
    odds, y = world(20_000, 0.5)
    found = calibration.sigmoid(odds, y)
    assert found.slope == pytest.approx(0.5, abs=0.05) and found.intercept == pytest.approx(-0.5, abs=0.05)


def test_scores_that_fall_with_the_label_are_not_turned_round() -> None:
    odds, y = world(2_000, -1.0)
    assert calibration.sigmoid(odds, y).slope == 1.0


def test_equal_scores_become_the_base_rate() -> None:
    y = np.array([1, 0, 0, 0])
    assert calibration.choose(np.full(4, 2.0), y)(2.0) == pytest.approx(0.25)


def test_isotonic_is_chosen_where_no_sigmoid_fits() -> None:
    rng = np.random.default_rng(1)
    odds = rng.normal(size=8_000)
    steps = np.where(odds < -0.5, 0.1, np.where(odds < 0.5, 0.6, 0.65))
    y = (rng.random(8_000) < steps).astype(np.int8)
    assert isinstance(calibration.choose(odds, y), Isotonic)
    assert isinstance(calibration.choose(odds[:900], y[:900]), Sigmoid)
    assert isinstance(calibration.choose(*world(8_000, 0.7)), Sigmoid)


def test_isotonic_is_flat_outside_and_straight_between() -> None:
    curve = Isotonic((0.0, 1.0), (0.2, 0.4))
    assert [curve(-9.0), curve(0.5), curve(9.0)] == [0.2, pytest.approx(0.3), 0.4]
    assert Isotonic((1.0,), (0.3,))(0.0) == Isotonic((1.0,), (0.3,))(2.0) == 0.3


def test_many_get_the_bits_of_one() -> None:
    odds, y = world(1_500, 0.5)
    for curve in (calibration.sigmoid(odds, y), calibration.isotonic(odds, y)):
        assert calibration.apply(curve, odds).tolist() == [curve(o) for o in odds.tolist()]
        assert (np.diff(calibration.apply(curve, np.sort(odds))) >= 0).all()
