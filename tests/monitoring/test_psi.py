"""monitoring.psi against values computed by hand and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.psi import FLOOR, by_chance, level, psi

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(any)


def test_by_hand() -> None:
    # shares .5/.5 → .8/.2: (.3)ln(1.6) + (-.3)ln(.4) = .14100 + .27489
    assert psi([50, 50], [80, 20]) == pytest.approx(0.3 * math.log(1.6) + 0.3 * math.log(2.5))
    # three categories: .25/.25/.5 → .5/.25/.25
    assert psi([1, 1, 2], [2, 1, 1]) == pytest.approx(0.5 * math.log(2))


def test_an_empty_category_counts_as_the_floor() -> None:
    assert psi([100, 0], [90, 10]) == pytest.approx((0.9 - 1) * math.log(0.9) + (0.1 - FLOOR) * math.log(0.1 / FLOOR))


@given(counts)
def test_is_zero_for_the_same_shares_whatever_the_size(before: list[int]) -> None:
    assert psi(before, [7 * n for n in before]) == pytest.approx(0, abs=1e-12)


@given(st.data())
def test_is_symmetric_and_never_negative(data: st.DataObject) -> None:
    before = data.draw(counts)
    after = data.draw(st.lists(st.integers(0, 1000), min_size=len(before), max_size=len(before)).filter(any))
    assert psi(before, after) == pytest.approx(psi(after, before))
    assert psi(before, after) >= 0


@pytest.mark.parametrize(
    ("before", "after", "says"), [([1, 2], [1], "2 categories before, 1"), ([0, 0], [1, 2], "nobody")]
)
def test_refuses_what_has_no_psi(before: list[int], after: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        psi(before, after)


def test_chance_stays_below_its_bound_95_times_in_100() -> None:
    rng, shares = np.random.default_rng(7), [0.4, 0.3, 0.2, 0.1]
    pairs = [(rng.multinomial(400, shares).tolist(), rng.multinomial(300, shares).tolist()) for _ in range(2000)]
    below = sum(psi(a, b) <= by_chance(4, 400, 300) for a, b in pairs) / len(pairs)
    assert 0.93 < below < 0.97


def test_levels_and_their_edges() -> None:
    assert [level(v) for v in (0.0999, 0.1, 0.1999, 0.2)] == ["stable", "moved", "moved", "drifted"]
    assert level(0.3, chance=0.31) == "stable"
    assert level(0.3, chance=0.29) == "drifted"
