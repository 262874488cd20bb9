"""Statistics that may be looked at every day: intervals and a check that hold at all times at once. Pure, vectorised.

The effect is a difference of two rates, adjusted by a covariate from before the exposure: Lin's regression (2013), the
form of CUPED (Deng et al., 2013) with a slope for each arm, which is asymptotically never wider than without. It is
the doubly robust estimate of a randomised experiment, so its interval is the asymptotic confidence sequence of
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas ("Time-uniform central limit theory and asymptotic confidence
sequences", 2021; Annals of Statistics, 2024): from a first look at many people on it covers the effect at all looks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TUNED_FOR = 1_000
"""The number of people for which an interval is narrowest. Chosen beforehand: it may not follow the data."""

FEWEST = 100
"""People in each arm before anything is said: the intervals are asymptotic."""

FEWEST_OF_EACH = 10
"""People in each arm to whom it happened, and to whom it did not, before anything is said."""

CONCENTRATION = 100.0
"""Of the Dirichlet prior of a mismatch: the larger, the closer to the intended shares it is looked for."""


@dataclass(frozen=True)
class Arms:
    """Running sums of one arm at each look (k,): people, and the sums of outcome y and covariate x."""

    n: Floats
    y: Floats
    x: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @classmethod
    def of(cls, y: Floats, x: Floats, looks: Ints) -> "Arms":
        """y, x: in the order in which people became known. looks: (k,) how many are known at each look."""
        return cls(*(_until(column, looks) for column in (np.ones_like(y), y, x, x * x, x * y, y * y)))

    def too_few(self) -> npt.NDArray[np.bool_]:
        """At which looks the arm is too small for an interval; y is 0 or 1."""
        return (self.n < FEWEST) | (np.minimum(self.y, self.n - self.y) < FEWEST_OF_EACH)


@dataclass(frozen=True)
class Effects:
    """Treatment less control at each look (k,): estimate, standard error, mean of the control; NaN: too few people."""

    effect: Floats
    error: Floats
    people: Floats
    control: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """(low, high), each (k,), that cover the effect at all looks at once with probability 1 - level."""
        half = self.error * factor(self.people, level)
        return self.effect - half, self.effect + half


def _until(column: Floats, looks: Ints) -> Floats:
    return np.concatenate([[0.0], np.cumsum(column)])[looks]


def effects(control: Arms, treatment: Arms, adjusted: bool = True) -> Effects:
    """The difference at each look. adjusted: use the covariate, else the plain difference of the two rates."""
    with np.errstate(divide="ignore", invalid="ignore"):
        people = control.n + treatment.n
        mean_x, var_x = _moments(people, control.x + treatment.x, control.xx + treatment.xx)
        level, slope, left = zip(*(_fitted(arm, mean_x, adjusted) for arm in (control, treatment)), strict=True)
        spread = (slope[1] - slope[0]) ** 2 * var_x / people
        error = np.sqrt(left[0] / control.n + left[1] / treatment.n + spread)
        few = control.too_few() | treatment.too_few()
        return Effects(*(np.where(few, np.nan, v) for v in (level[1] - level[0], error, people, level[0])))


def _fitted(arm: Arms, at: Floats, adjusted: bool) -> tuple[Floats, Floats, Floats]:
    """Least squares of y on x in one arm: its value at `at`, its slope, the variance of what it leaves."""
    mean_y, var_y = _moments(arm.n, arm.y, arm.yy)
    if not adjusted:
        return mean_y, np.zeros_like(mean_y), var_y * arm.n / (arm.n - 1)
    mean_x, var_x = _moments(arm.n, arm.x, arm.xx)
    covariance = arm.xy / arm.n - mean_x * mean_y
    slope = np.where(var_x > 1e-12, covariance / np.maximum(var_x, 1e-12), 0.0)
    left = np.maximum(var_y - slope * covariance, 0.0) * arm.n / (arm.n - 2)
    return mean_y + slope * (at - mean_x), slope, left


def _moments(n: Floats, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
    mean = total / n
    return mean, squares / n - mean * mean


def factor(people: Floats, level: float, tuned_for: float = TUNED_FOR) -> Floats:
    """How many standard errors an asymptotic confidence sequence is to each side (Theorem 2.2 of the paper).

    people: number of observations. level: 1 - coverage, two-sided.

    >>> factor(np.array([100.0, 1000.0, 10000.0]), 0.05).round(2).tolist()
    [3.86, 3.04, 3.24]
    """
    nr = people * _rho2(level, tuned_for)
    return np.asarray(np.sqrt((nr + 1) / nr * 2 * np.log(np.sqrt(nr + 1) / level)))


def _rho2(level: float, tuned_for: float) -> float:
    """The parameter that makes the sequence narrowest at about that many people (their appendix, approximation)."""
    return float((-2 * np.log(level) + np.log(-2 * np.log(level) + 1)) / tuned_for)


def mismatch(arm: Ints, shares: Floats) -> Floats:
    """p-values (n,) after each person that the arms have the intended shares; valid however often one looks.

    arm: number of each person's arm, in the order of exposure. shares: (arms,) intended, they sum to 1.

    The sequential multinomial test of Lindon and Malek ("Anytime-valid inference for multinomial count data", 2022;
    2020 as "Sequential testing of multinomial hypotheses"): the likelihood of the arms so far, mixed over a Dirichlet
    prior around the intended shares, against that of the intended shares. It is a martingale where the shares are as
    intended, so it ever exceeds 1 / p with probability at most p (Ville).
    """
    if not len(arm):
        return np.ones(0)
    counts = np.cumsum(np.eye(len(shares))[arm], axis=0)
    prior = CONCENTRATION * shares
    mixed = gammaln(prior + counts).sum(axis=1) - gammaln(prior).sum()
    mixed += gammaln(CONCENTRATION) - gammaln(CONCENTRATION + np.arange(1, len(arm) + 1))
    against = mixed - counts @ np.log(shares)
    return np.minimum(1.0, np.exp(-np.maximum.accumulate(against)))
