from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.segments import choose_cutoffs, segment_of


def test_cutoffs_lie_between_groups() -> None:
    scores = np.concatenate([np.full(40, 0.1), np.full(30, 0.5), np.full(30, 0.9)])
    assert choose_cutoffs(scores, 3) == [0.5, 0.9]
    assert [segment_of(s, ["a", "b", "c"], [0.5, 0.9]) for s in (0.1, 0.5, 0.89, 0.9)] == ["a", "b", "b", "c"]


def test_no_segment_is_smaller_than_asked() -> None:
    scores = np.concatenate([np.linspace(0, 0.1, 97), [0.9, 0.95, 0.99]])
    low, high = choose_cutoffs(scores, 3, smallest=0.15)
    sizes = [(scores < low).sum(), ((scores >= low) & (scores < high)).sum(), (scores >= high).sum()]
    assert min(sizes) >= 15


def test_equal_scores_are_cut_evenly() -> None:
    assert choose_cutoffs(np.full(50, 0.3), 4) == [0.25, 0.5, 0.75]


@given(st.lists(st.integers(0, 12), min_size=12, max_size=30))
def test_no_other_cutoffs_are_better(values: list[int]) -> None:
    scores = np.array(values) / 12
    found = choose_cutoffs(scores, 3, smallest=0.1)
    assert all(a < b for a, b in pairwise(found))
    possible = [cost(scores, pair) for pair in combinations(sorted(set(scores.tolist()))[1:], 2)]
    if any(np.isfinite(possible)):
        assert cost(scores, tuple(found)) <= min(possible) + 1e-9


def cost(scores: np.ndarray, cutoffs: tuple[float, ...]) -> float:
    """Squared deviations within the segments; infinite where one is too small."""
    part = np.searchsorted(cutoffs, scores, side="right")
    groups = [scores[part == k] for k in range(len(cutoffs) + 1)]
    if min(len(g) for g in groups) < max(1, 0.1 * len(scores)):
        return float("inf")
    return float(sum(((g - g.mean()) ** 2).sum() for g in groups))
