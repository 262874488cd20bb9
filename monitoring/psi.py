"""The population stability index (PSI) of two distributions over the same categories, and how to read it."""

import math
from collections.abc import Sequence

WATCH = 0.1
"""From here on a distribution has moved: look at it."""
DRIFTED = 0.2
"""From here on a distribution has drifted: act on it."""
FLOOR = 0.0001
"""The share an empty category counts as, so that the logarithm exists (Evidently takes the same)."""
Z95 = 1.6448536269514722
"""The standard normal's 95 % point."""


def psi(before: Sequence[int], after: Sequence[int]) -> float:
    """PSI of two counts over the same categories: the sum of (b - a) * ln(b / a) over their shares a and b.

    >>> round(psi([50, 50], [80, 20]), 4)
    0.4159
    >>> psi([10, 30], [1, 3])
    0.0

    Raises:
        ValueError: the categories differ in number, or one side is empty.
    """
    if len(before) != len(after):
        raise ValueError(f"psi: {len(before)} categories before, {len(after)} after: count the same ones on both sides")
    if not sum(before) or not sum(after):
        raise ValueError("psi: one side holds nobody, so it has no shares")
    shares = [(max(a / sum(before), FLOOR), max(b / sum(after), FLOOR)) for a, b in zip(before, after, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in shares)


def by_chance(categories: int, n_before: int, n_after: int) -> float:
    """The PSI that two samples of one and the same distribution stay below 95 times in 100.

    PSI is then distributed as (1/n + 1/m) times a chi-square of `categories - 1` degrees of freedom (Yurdakul and
    Naranjo, 2020); its 95 % point is taken by the approximation of Wilson and Hilferty.
    """
    k = categories - 1
    if k < 1 or not n_before or not n_after:
        return 0.0
    chi2 = k * (1 - 2 / (9 * k) + Z95 * math.sqrt(2 / (9 * k))) ** 3
    return (1 / n_before + 1 / n_after) * chi2


def level(value: float, chance: float = 0.0) -> str:
    """`stable`, `moved` or `drifted`; nothing that chance alone explains is called more than stable."""
    if value < WATCH or value <= chance:
        return "stable"
    return "moved" if value < DRIFTED else "drifted"
