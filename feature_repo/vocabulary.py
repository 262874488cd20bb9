"""The vocabulary in which a domain declares its features.

A *term* is a piecewise-constant function of one person's events: `value(t)` sees the events with
timestamp <= t and, where the term has a window W, those in (t - W, t]. All durations are integers in
microseconds. A `Feature` gives a term its name and its words; nothing else in the project lists features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Literal

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

INT64 = (-(2**63), 2**63 - 1)
MAX_WEIGHTS = 10**9
"""Weights of a Linear together, at most: times 10**10 events of the largest int64 they stay within 38 digits."""

Scalar = str | int
Where = tuple[tuple[str, tuple[Scalar, ...]], ...]


def where(**columns: Scalar | tuple[Scalar, ...]) -> Where:
    """A condition on an event: each named column has one of the given values.

    >>> where(name="Clicked", plan=("free", "pro"))
    (('name', ('Clicked',)), ('plan', ('free', 'pro')))
    """
    return tuple((c, v if isinstance(v, tuple) else (v,)) for c, v in sorted(columns.items()))


ANY: Where = ()


TYPES = ("string", "int64", "boolean", "decimal")


@dataclass(frozen=True)
class Column:
    """A typed column that a domain takes out of the event's JSON; values.py says which JSON value is of which type.

    path: dotted, from `properties`, `traits` or `context`, such as `properties.bytes`.
    type: one of TYPES. Features see a boolean as 1 or 0, and a decimal, exactly, as an integer of 10**-scale units:
        9.99 with scale 2 is 999.
    low, high: bounds of a number, both included, as it is sent: an integer, or for a decimal also a text like "9.99".
    outside: what features see of a number outside the bounds: null, or, with "clip", the bound that is next to it.
    strict: refuse an event whose value is of another type. Otherwise the event is kept, features see null in this
        column, and the path is put into the event's context.flags and counted, as it is for a number out of bounds.

    Raises:
        ValueError: the type is none of TYPES, or scale or bounds do not fit it.
    """

    name: str
    path: str
    type: str = "string"
    scale: int | None = None
    low: int | str | None = None
    high: int | str | None = None
    outside: Literal["null", "clip"] = "null"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"column {self.name}: expected a type of {', '.join(TYPES)}; came {self.type!r}")
        if (self.type == "decimal") != (self.scale is not None):
            raise ValueError(f"column {self.name}: a decimal, and nothing else, needs a scale; came {self.scale!r}")
        if self.scale is not None and not 0 <= self.scale <= 18:
            raise ValueError(f"column {self.name}: expected a scale of 0 to 18; came {self.scale}")
        if self.outside not in ("null", "clip"):
            raise ValueError(f"column {self.name}: expected outside='null' or 'clip'; came {self.outside!r}")
        if (limits := self.limits) is not None:
            if self.type not in ("int64", "decimal"):
                raise ValueError(f"column {self.name}: bounds are for int64 and decimal, not for {self.type}")
            if not INT64[0] <= limits[0] <= limits[1] <= INT64[1]:
                raise ValueError(f"column {self.name}: expected low <= high in int64; came {self.low} and {self.high}")

    @property
    def value_type(self) -> str:
        """The type as which features see a value: `string` or `int64`."""
        return "string" if self.type == "string" else "int64"

    @cached_property
    def limits(self) -> tuple[int, int] | None:
        """The bounds as features see values, both included; None where there are none."""
        if self.low is None and self.high is None:
            return None
        low, high = (None if bound is None else self._units(bound) for bound in (self.low, self.high))
        return (INT64[0] if low is None else low, INT64[1] if high is None else high)

    def _units(self, bound: int | str) -> int:
        try:
            units = Decimal(bound).scaleb(self.scale or 0)
        except (ArithmeticError, TypeError) as e:
            raise ValueError(f"column {self.name}: expected a bound like 10 or '9.99'; came {bound!r}") from e
        if isinstance(bound, float) or not units.is_finite() or units != int(units):
            raise ValueError(
                f"column {self.name}: expected a bound of at most {self.scale or 0} decimals, an integer or a text; "
                f"came {bound!r}"
            )
        return int(units)


@dataclass(frozen=True)
class Initial:
    """Only events in [s, s + period), where s is the timestamp of the first event that matches `since`."""

    period: int
    since: Where = ANY


@dataclass(frozen=True)
class Count:
    """Number of matching events (with `column`: of those where it is not null). Never null."""

    where: Where = ANY
    column: str | None = None
    window: int | None = None
    initial: Initial | None = None


@dataclass(frozen=True)
class Sum:
    """Sum of a column over the matching events; null values add nothing. Never null.

    Of an int64 column; of a decimal one, in its units; of a boolean one, how often it is true.

    Sums are exact whatever the order of the events: they are added up without a limit, and so are the differences of
    windows. Only where a sum, or a Linear of sums, becomes the value of a feature or the side of a ratio, a total
    beyond int64 saturates: it becomes the nearest int64, -2**63 or 2**63 - 1.
    """

    column: str
    where: Where = ANY
    window: int | None = None
    initial: Initial | None = None


@dataclass(frozen=True)
class Distinct:
    """Number of distinct non-null values of a column among the matching events. Never null."""

    column: str
    where: Where = ANY
    window: int | None = None


@dataclass(frozen=True)
class Sessions:
    """Number of sessions that started: a matching event more than `gap` after the one before it. Never null."""

    gap: int
    where: Where = ANY
    window: int | None = None


@dataclass(frozen=True)
class SessionTime:
    """Milliseconds inside sessions: the steps of at most `gap` between matching events, each counted at its end.

    Each step is floored to the millisecond before it is added. Never null.
    """

    gap: int
    where: Where = ANY
    window: int | None = None


@dataclass(frozen=True)
class First:
    """Value of a column at the first matching event where it is not null (ties: smallest message id)."""

    column: str
    where: Where = ANY


@dataclass(frozen=True)
class Last:
    """Value of a column at the last matching event where it is not null (ties: largest message id)."""

    column: str
    where: Where = ANY


@dataclass(frozen=True)
class FirstTime:
    """Timestamp of the first matching event, microseconds since 1970 UTC; null before it."""

    where: Where = ANY


@dataclass(frozen=True)
class LastTime:
    """Timestamp of the last matching event, microseconds since 1970 UTC; null before it."""

    where: Where = ANY


@dataclass(frozen=True)
class Linear:
    """Sum of integer terms times integer weights. Never null. Saturates as a Sum does.

    Raises:
        ValueError: the weights are so large that even the wide integers in which it is computed could overflow.
    """

    parts: tuple[tuple["Term", int], ...]

    def __post_init__(self) -> None:
        if not self.parts or sum(abs(weight) for _, weight in self.parts) > MAX_WEIGHTS:
            raise ValueError(f"Linear: expected weights of at most {MAX_WEIGHTS:,} together; came {self.parts}")


@dataclass(frozen=True)
class Ratio:
    """numerator / denominator in float64, of two integer terms; null where the denominator is 0."""

    numerator: "Term"
    denominator: "Term"


Term = Count | Sum | Distinct | Sessions | SessionTime | First | Last | FirstTime | LastTime | Linear | Ratio
Additive = Count | Sum | Distinct | Sessions | SessionTime


def mean(column: str, where: Where = ANY, window: int | None = None) -> Ratio:
    """Mean of a column over the matching events where it is not null; null where there are none."""
    return Ratio(Sum(column, where, window), Count(where, column, window))


def trend(of: Count | Sum, recent: int, base: int) -> Linear:
    """Pace of the recent window against the longer one: base/recent * recent value - base value.

    0 is an even pace, above 0 it speeds up. `base` must be a multiple of `recent` (both in µs).
    """
    if base % recent:
        raise ValueError(f"base window {base} is not a multiple of the recent window {recent}")
    from dataclasses import replace

    return Linear(((replace(of, window=recent), base // recent), (replace(of, window=base), -1)))


@dataclass(frozen=True)
class Feature:
    """A named term. `since` is the feature-service version that first holds it; `null` says what null means."""

    name: str
    term: Term
    doc: str
    unit: str = ""
    null: str = ""
    since: int = 1


@dataclass(frozen=True)
class Elapsed:
    """Seconds (float64) from the timestamp in feature `of` to the time of asking; null where that is null."""

    name: str
    of: str
    doc: str
    since: int = 1
    unit: str = field(default="seconds", init=False)


def leaves(term: Term) -> Iterator[Term]:
    """The terms that a term is made of: itself, or the leaves of its parts."""
    if isinstance(term, Linear):
        for part, _ in term.parts:
            yield from leaves(part)
    elif isinstance(term, Ratio):
        yield from leaves(term.numerator)
        yield from leaves(term.denominator)
    else:
        yield term


def windows(features: tuple[Feature, ...]) -> list[int]:
    """Every window length in use, in µs, ascending."""
    used = {getattr(leaf, "window", None) for f in features for leaf in leaves(f.term)}
    return sorted(w for w in used if w)


def feature_type(term: Term, columns: Mapping[str, str]) -> str:
    """`int64`, `float64` or `string`: the type of a term's value, given the types of the columns."""
    match term:
        case Ratio():
            return "float64"
        case First(column=c) | Last(column=c):
            return columns[c]
        case _:
            return "int64"


def null_meaning(feature: Feature) -> str:
    """What null means for a feature, in words."""
    if feature.null:
        return feature.null
    match feature.term:
        case Ratio():
            return "nothing to divide by yet"
        case First() | Last() | FirstTime() | LastTime():
            return "not seen yet"
        case _:
            return "never null"
