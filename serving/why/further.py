"""A person's features as they would be had they just done one thing more: the vocabulary, compiled a third time.

    (values at t, act) -> values at t, with one more event of that kind at t, exactly as the definitions give them

What cannot be told from the values alone (a sum of what nobody knows beforehand, whether a page is new to somebody)
is left alone, and named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.domain import Act, Carried, Domain
from feature_repo.elapsed import elapsed_seconds
from feature_repo.vocabulary import (
    DAY,
    HOUR,
    Additive,
    Count,
    Distinct,
    First,
    FirstTime,
    Last,
    LastTime,
    Linear,
    Ratio,
    Sessions,
    SessionTime,
    Sum,
    Term,
    Where,
    leaves,
)
from serving.values import Value

Values = Mapping[str, Value]
PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")


EXACT = 2**53
"""Up to here a float64 holds every integer."""


class Unknown(Exception):
    """The values do not tell what a term would be."""


@dataclass(frozen=True)
class Changed:
    """Values after an act; `alone`: features that it may change in a way that cannot be told, which are as before."""

    values: dict[str, Value]
    alone: frozenset[str] = frozenset()


class Further:
    """What one more act does to the features of a domain."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._named: dict[Term, str] = {}
        for f in domain.features:
            self._named.setdefault(f.term, f.name)
        self._touched = {act.one: [f for f in domain.features if _touches(act, f.term)] for act in domain.acts}

    def after(self, values: Values, act: Act, at_us: int) -> Changed:
        """The features at `at_us` (µs since 1970 UTC) of somebody who does this then; of the domain's acts one."""
        seen = _Person(self._named, values, {"type": "track", **act.columns, **_of_time(at_us)}, at_us)
        new, alone = dict(values), set[str]()
        for feature in self._touched[act.one]:
            if feature.name in values:
                try:
                    new[feature.name] = seen.after(feature.term, values[feature.name])
                except Unknown:
                    alone.add(feature.name)
        for e in self.domain.elapsed:
            if e.of in new:
                new[e.name] = elapsed_seconds(at_us, new[e.of])
        return Changed(new, frozenset(alone))


def _of_time(at_us: int) -> dict[str, str | int]:
    return {"day": at_us // DAY, "part_of_day": PARTS_OF_DAY[at_us // HOUR % 24 // 6]}


def _touches(act: Act, term: Term) -> bool:
    """Whether a term reads events of this kind at all."""
    fixed = {"type": "track", **act.columns}
    return any(_may_match(fixed, getattr(leaf, "where", ())) for leaf in leaves(term))


def _may_match(event: Mapping[str, object], where: Where) -> bool:
    return all(c in _of_time(0) or event.get(c) in values or isinstance(event.get(c), Carried) for c, values in where)


@dataclass
class _Person:
    """Somebody at a moment, and the event that comes then. named: the feature that shows a term."""

    named: Mapping[Term, str]
    values: Values
    event: Mapping[str, str | int | Carried]
    at_us: int

    def after(self, term: Term, value: Value) -> Value:
        """What a term with this value becomes.

        Raises:
            Unknown: the values do not tell.
        """
        match term:
            case Linear(parts=parts):
                return self._whole(value) + sum(weight * self._more(part) for part, weight in parts)
            case Ratio():
                return self._ratio(term, value)
            case First() | Last() | FirstTime() | LastTime():
                return self._one(term, value)
            case _:
                more = self._more(term)
                return self._whole(value) + more if more else value

    def _whole(self, value: Value) -> int:
        if not isinstance(value, int):
            raise Unknown
        return value

    def _now(self, term: Term) -> Value:
        """The value of a term, where a feature shows it."""
        if (name := self.named.get(term)) is None or name not in self.values:
            raise Unknown
        return self.values[name]

    def _matches(self, where: Where) -> bool:
        told = [(self.event.get(c), values) for c, values in where]
        if any(isinstance(v, Carried) for v, _ in told):
            raise Unknown
        return all(v in values for v, values in told)

    def _more(self, term: Term) -> int:
        """How much is added to an integer term."""
        if isinstance(term, Linear):
            return sum(weight * self._more(part) for part, weight in term.parts)
        if not isinstance(term, Additive) or not self._matches(term.where):
            if isinstance(term, Additive):
                return 0
            raise Unknown
        return _MORE[type(term)](self, term)

    def _count(self, term: Count) -> int:
        carried = term.column is None or term.column in self.event
        return int(carried and self._initial(term))

    def _sum(self, term: Sum) -> int:
        added = self.event.get(term.column)
        if added is None or not self._initial(term):
            return 0
        if not isinstance(added, int):
            raise Unknown
        return added

    def _initial(self, term: Count | Sum) -> bool:
        """Whether the moment is in the term's first period."""
        if term.initial is None:
            return True
        since = self._now(FirstTime(term.initial.since))
        if since is None and not self._matches(term.initial.since):
            return False
        return self._whole(since) <= self.at_us < self._whole(since) + term.initial.period

    def _distinct(self, term: Distinct) -> int:
        match self.event.get(term.column):
            case None:
                return 0
            case Carried.NEW:
                return 1
            case Carried.AGAIN:
                return int(self._now(term) == 0)
            case _ if term.column == "day":
                return self._new_day(term)
            case _:
                if self._now(Distinct(term.column, term.where)) == 0:
                    return 1
                raise Unknown

    def _new_day(self, term: Distinct) -> int:
        """Days rise on the day's first event, and in a window also where the day had left it, which is not told."""
        last = self._now(LastTime(term.where))
        if last is None or self._whole(last) // DAY != self.at_us // DAY:
            return 1
        if term.window is not None and self._whole(last) <= self.at_us - term.window:
            return 1
        return 0

    def _sessions(self, term: Sessions) -> int:
        return int(self._step(term) is None)

    def _session_time(self, term: SessionTime) -> int:
        return (self._step(term) or 0) // 1_000

    def _step(self, term: Sessions | SessionTime) -> int | None:
        """µs since the event before, inside a session; null: a session begins."""
        last = self._now(LastTime(term.where))
        step = None if last is None else self.at_us - self._whole(last)
        return None if step is None or step > term.gap else step

    def _one(self, term: First | Last | FirstTime | LastTime, value: Value) -> Value:
        if not self._matches(term.where):
            return value
        if isinstance(term, LastTime):
            return self.at_us
        if isinstance(term, FirstTime):
            return self.at_us if value is None else value
        carried = self.event.get(term.column)
        if carried is None or (isinstance(term, First) and value is not None):
            return value
        if isinstance(carried, Carried):
            raise Unknown
        return carried

    def _ratio(self, term: Ratio, value: Value) -> Value:
        more, below_more = self._more(term.numerator), self._more(term.denominator)
        if not more and not below_more:
            return value
        above, below = self._parts(term, value)
        return (above + more) / (below + below_more) if below + below_more else None

    def _parts(self, term: Ratio, value: Value) -> tuple[int, int]:
        """Numerator and denominator; where only one of them is a feature, the other follows from the ratio."""
        above, below = self._shown(term.numerator), self._shown(term.denominator)
        if value is None:
            below = 0
        elif above is None and below is not None and isinstance(value, float | int) and abs(below * value) < EXACT:
            above = round(below * value)
        elif below is None and above and isinstance(value, float | int) and value:
            below = round(above / value)
        if above is None or below is None:
            raise Unknown
        return above, below

    def _shown(self, term: Term) -> int | None:
        name = self.named.get(term)
        value = self.values.get(name) if name else None
        return value if isinstance(value, int) else None


_MORE: Mapping[type, Callable[[_Person, Any], int]] = {
    Count: _Person._count,
    Sum: _Person._sum,
    Distinct: _Person._distinct,
    Sessions: _Person._sessions,
    SessionTime: _Person._session_time,
}
