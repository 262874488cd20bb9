import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring import sequential
from monitoring.sequential import Arms, effects, factor, mismatch


def arms(y: list[np.ndarray], x: list[np.ndarray] | None = None, looks: list[int] | None = None) -> tuple[Arms, Arms]:
    found = [
        Arms.of(values, x[i] if x else np.zeros_like(values), np.array([len(values)] if looks is None else looks))
        for i, values in enumerate(y)
    ]
    return found[0], found[1]


def rate(n: int, happened: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [happened, n - happened])


@pytest.mark.parametrize(
    ("control", "treatment", "low", "high"),
    [
        ((500, 150), (520, 190), -0.02401662160248305, 0.1547858523717138),
        ((5000, 1500), (5100, 1700), 0.003330240204480441, 0.06333642646218621),
    ],
)
def test_the_interval_is_that_of_another_implementation(
    control: tuple[int, int], treatment: tuple[int, int], low: float, high: float
) -> None:
    """GrowthBook's gbstats 0.8.0, SequentialTwoSidedTTest with tuning parameter 1000."""
    found = effects(*arms([rate(*control), rate(*treatment)]), adjusted=False)
    assert [float(v[0]) for v in found.interval(0.05)] == pytest.approx([low, high], rel=1e-9)


def test_an_interval_is_narrowest_in_proportion_near_what_it_is_tuned_for() -> None:
    people = np.array([10.0, 100, 1_000, 10_000, 100_000])
    assert int(np.argmin(factor(people, 0.05))) == 2
    assert (factor(people, 0.01) > factor(people, 0.05)).all() and (factor(people, 0.05) > 1.96).all()


def test_the_adjusted_effect_is_that_of_a_regression_in_each_arm() -> None:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=n) for n in (300, 250)]
    y = [(rng.random(len(v)) < 1 / (1 + np.exp(-v * (1 + i)))).astype(float) for i, v in enumerate(x)]
    found = effects(*arms(y, x))
    everybody = np.concatenate(x)
    fits = [np.polyfit(v, w, 1) for v, w in zip(x, y, strict=True)]
    pseudo = np.polyval(fits[1], everybody) - np.polyval(fits[0], everybody)
    left = [w - np.polyval(f, v) for v, w, f in zip(x, y, fits, strict=True)]
    error = np.sqrt(sum((r**2).sum() / (len(r) - 2) / len(r) for r in left) + pseudo.var() / len(everybody))
    assert float(found.effect[0]) == pytest.approx(pseudo.mean())
    assert float(found.error[0]) == pytest.approx(error)


def test_each_look_is_what_the_people_until_then_give() -> None:
    rng = np.random.default_rng(2)
    x = [rng.normal(size=400) for _ in range(2)]
    y = [(rng.random(400) < 0.4).astype(float) for _ in range(2)]
    many = effects(*arms(y, x, looks=[150, 300, 400]))
    for i, n in enumerate([150, 300, 400]):
        one = effects(*arms([v[:n] for v in y], [v[:n] for v in x]))
        assert (float(many.effect[i]), float(many.error[i])) == (float(one.effect[0]), float(one.error[0]))


def test_too_few_people_in_one_arm_say_nothing() -> None:
    n = sequential.FEWEST
    found = effects(*arms([np.tile([1.0, 0.0], 250), np.tile([1.0, 0.0], n // 2)], looks=[0, n - 1, n]))
    assert np.isnan(found.effect).tolist() == [True, True, False]
    assert all(np.isnan(side).tolist() == [True, True, False] for side in found.interval(0.05))


@pytest.mark.parametrize("happened", [0, 9, 10, 490, 491, 500])
def test_a_rate_of_almost_none_or_all_says_nothing(happened: int) -> None:
    """Without a single one the standard error would be 0, and the interval sure of itself."""
    found = effects(*arms([rate(500, 250), rate(500, happened)]), adjusted=False)
    assert np.isnan(found.effect[0]) == (happened not in (10, 490))


def test_a_covariate_that_says_nothing_changes_nothing() -> None:
    y = [rate(200, 50), rate(300, 90)]
    plain, adjusted = (effects(*arms(y, [np.full(len(v), 3.0) for v in y]), adjusted=a) for a in (False, True))
    assert float(adjusted.effect[0]) == pytest.approx(float(plain.effect[0]))
    assert float(adjusted.error[0]) == pytest.approx(float(plain.error[0]), rel=0.01)


@given(st.lists(st.integers(0, 2), max_size=60))
def test_the_mismatch_is_the_product_of_predictions(arm: list[int]) -> None:
    """Each person's variant as predicted from those before, against the intended shares: a martingale, step by step."""
    shares, odds, best, expected = np.array([0.5, 0.3, 0.2]), 1.0, 1.0, []
    seen = sequential.CONCENTRATION * shares
    for a in arm:
        odds *= seen[a] / seen.sum() / shares[a]
        seen[a] += 1
        best = max(best, odds)
        expected.append(min(1.0, 1 / best))
    assert mismatch(np.array(arm, dtype=np.int64), shares) == pytest.approx(expected)


def test_shares_that_are_as_intended_and_shares_that_are_not() -> None:
    rng, shares = np.random.default_rng(3), np.array([0.5, 0.5])
    right, wrong = (mismatch((rng.random(5_000) < p).astype(np.int64), shares) for p in (0.5, 0.55))
    assert right[-1] > 0.05 and wrong[-1] < 1e-4
    assert (np.diff(wrong) <= 0).all(), "what has been found stays found"
