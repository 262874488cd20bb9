"""The numbers of a bench: quantiles, paired ratios, and whether a target is met."""

import math
from collections.abc import Sequence
from statistics import median

import msgspec

Cell = str | float | int | None


class Check(msgspec.Struct, frozen=True):
    """A measured value beside its target. `target` None: shown only. `at_most`: the target is a ceiling, else a floor.

    low, high: the smallest and the largest of the rounds whose median `value` is.
    """

    name: str
    value: float
    target: float | None = None
    at_most: bool = True
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


class Table(msgspec.Struct, frozen=True):
    """Figures to show as they are; a cell that is None is empty."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


class Result(msgspec.Struct, frozen=True):
    """What a section measured. `skipped`: why nothing was, else empty. `rounds`: every single measurement."""

    title: str
    checks: list[Check] = []
    tables: list[Table] = []
    notes: list[str] = []
    rounds: list[dict[str, Cell]] = []
    skipped: str = ""
    at: str = ""
    machine: dict[str, str] = {}


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a share `q` of the values does not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or q is not in (0, 1].

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    if not values or not 0 < q <= 1:
        raise ValueError(f"quantile: expected values and q in (0, 1]; came {len(values)} values, q={q}")
    return sorted(values)[math.ceil(q * len(values)) - 1]


def paired(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    target: float | None = None,
    at_most: bool = True,
) -> Check:
    """The median over the rounds of ours / theirs, each ratio of one round.

    Raises:
        ValueError: not as many rounds of one as of the other, or none.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{name}: expected as many rounds of both, at least one; came {len(ours)} and {len(theirs)}")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Check(name, median(ratios), target, at_most, "x", min(ratios), max(ratios))


def highest(name: str, values: Sequence[float], target: float | None, unit: str) -> Check:
    """The median of the rounds under a ceiling; with none it is shown only."""
    return Check(name, median(values), target, True, unit, min(values), max(values))


def lowest(name: str, values: Sequence[float], target: float | None, unit: str) -> Check:
    """The median of the rounds over a floor; with none it is shown only."""
    return msgspec.structs.replace(highest(name, values, target, unit), at_most=False)


def alternated(names: Sequence[str], round_: int) -> list[str]:
    """The order of a round: each begins with the next one, and every second round goes backwards.

    >>> [alternated(["a", "b", "c"], r) for r in range(3)]
    [['a', 'b', 'c'], ['b', 'a', 'c'], ['c', 'a', 'b']]
    """
    step = -1 if round_ % 2 else 1
    return [names[(round_ + step * i) % len(names)] for i in range(len(names))]
