"""Where one engagement segment ends and the next begins: cut-offs on the score, chosen in training."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np


def segment_of(score: float, segments: Sequence[str], cutoffs: Sequence[float]) -> str:
    """The segment of a score: a score on a cut-off is in the higher one.

    >>> segment_of(0.5, ["low", "high"], [0.5])
    'high'
    """
    return segments[bisect_right(cutoffs, score)]


def choose_cutoffs(scores: np.ndarray, segments: int, smallest: float = 0.1, grid: int = 100) -> list[float]:
    """The cut-offs (segments - 1, rising strictly) that lie between the groups of most alike scores.

    Best: the least variance of the calibrated scores within the segments, found exactly over a grid of score quantiles
    by dynamic programming, with at least the share `smallest` of the people in each. Scores stand for labels here
    because they are calibrated, and do not move with the luck of a small sample. Where the scores do not allow it (too
    many are equal), evenly between 0 and 1.
    """
    ranked = np.sort(scores)
    edges = _edges(ranked, grid)
    cost = _costs(ranked, edges, min(smallest, 0.5 / segments) * len(ranked))
    starts = _best_starts(cost, segments)
    if starts is None:
        return [i / segments for i in range(1, segments)]
    return [float(ranked[edges[s]]) for s in starts]


def _edges(ranked: np.ndarray, grid: int) -> np.ndarray:
    """Positions where a segment may begin: the first of its score, about `grid` of them; then the end."""
    wanted = np.unique(ranked[(np.arange(1, grid) * len(ranked)) // grid])
    starts = np.searchsorted(ranked, wanted, side="left")
    return np.concatenate([[0], starts[starts > 0], [len(ranked)]])


def _costs(ranked: np.ndarray, edges: np.ndarray, least: float) -> np.ndarray:
    """(e, e): squared deviations within the rows from edge i up to edge j; infinite where they are too few."""
    once, twice = (np.concatenate([[0.0], np.cumsum(v)])[edges] for v in (ranked, ranked**2))
    rows = (edges[None, :] - edges[:, None]).astype(np.float64)
    sums, squares = once[None, :] - once[:, None], twice[None, :] - twice[:, None]
    return np.where(rows >= max(least, 1), squares - sums**2 / np.maximum(rows, 1), np.inf)


def _best_starts(cost: np.ndarray, segments: int) -> list[int] | None:
    """The edges at which the segments after the first begin, or None where no division is allowed."""
    total, came_from = cost[0], []
    for _ in range(segments - 1):
        longer = total[:, None] + cost
        came_from.append(np.argmin(longer, axis=0))
        total = longer.min(axis=0)
    if not np.isfinite(total[-1]):
        return None
    starts = [len(cost) - 1]
    for step in reversed(came_from):
        starts.append(int(step[starts[-1]]))
    return starts[:0:-1]
