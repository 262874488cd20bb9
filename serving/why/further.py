"""A person's features as they would be had they just done one thing more: the vocabulary, compiled a third time.

    (values at t, act) -> values at t, with one more event of that kind at t, exactly as the definitions give them

What cannot be told from the values alone (a sum of what nobody knows beforehand, whether a page is new to somebody)
is left alone, and named.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from feature_repo.domain import Act, Carried, Domain
from feature_repo.features.elapsed import elapsed_seconds
from feature_repo.features.plain import saturated
from feature_repo.vocabulary import (
    DAY,
    INT64,
    Additive,
    Count,
    Distinct,
    First,
    FirstTime,
    Initial,
    Last,
    LastTime,
    Linear,
    Ratio,
    Sessions,
    SessionTime,
    Sum,
    Term,
    Where,
)
from serving.values import Value

Values = Mapping[str, Value]
More = Callable[[Values, int], int]
"""(values before, µs) -> what is added to an integer term. Raises Unknown."""
After = Callable[[Values, Value, int], Value]
"""(values before, the term's own one, µs) -> the term's value after. Raises Unknown."""
EXACT = 2**53
"""Up to here a float64 holds every integer."""
CHANGING = ("day", "part_of_day")
"""Columns that depend on when an event comes."""


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
        named: dict[Term, str] = {}
        for f in domain.features:
            named.setdefault(f.term, f.name)
        self._after = {act.one: list(_compiled(domain, _Event(act, named))) for act in domain.acts}

    def after(self, values: Values, act: Act, at_us: int) -> Changed:
        """The features at `at_us` (µs since 1970 UTC) of somebody who does this then; of the domain's acts one."""
        new, alone = dict(values), set[str]()
        for name, after in self._after[act.one]:
            if name in values:
                try:
                    new[name] = after(values, values[name], at_us)
                except Unknown:
                    alone.add(name)
        for e in self.domain.elapsed:
            if e.of in new:
                new[e.name] = elapsed_seconds(at_us, new[e.of])
        return Changed(new, frozenset(alone))


def _compiled(domain: Domain, event: "_Event") -> Iterator[tuple[str, After]]:
    """The features that an event may change, with what it does to them."""
    for feature in domain.features:
        if (after := event.after(feature.term)) is not None:
            yield feature.name, after


def _whole(value: Value) -> int:
    if not isinstance(value, int) or value in INT64:  # at a limit of int64 the sum itself may lie beyond it
        raise Unknown
    return value


def _untold(*_: object) -> int:
    raise Unknown


class _Event:
    """An event as an act describes it. named: the feature that shows a term."""

    def __init__(self, act: Act, named: Mapping[Term, str]) -> None:
        self._columns: Mapping[str, str | int | Carried] = {"type": "track", **act.columns}
        self._named = named

    def after(self, term: Term) -> After | None:
        """What it does to a term; None: nothing."""
        match term:
            case Ratio():
                return self._ratio(term)
            case First() | Last() | FirstTime() | LastTime():
                return self._one(term)
            case _:
                more = self._more(term)
                return more and (lambda values, own, at: saturated(_whole(own) + more(values, at)))

    def _shown(self, term: Term) -> Callable[[Values], Value]:
        """The value of a term, where a feature shows it."""
        name = self._named.get(term)

        def shown(values: Values) -> Value:
            if name is None or name not in values:
                raise Unknown
            return values[name]

        return shown

    def _matches(self, where: Where) -> bool | None:
        """Whether the event is one of these; None: it cannot be told."""
        told = [(self._columns.get(c), c in CHANGING, values) for c, values in where]
        if any(not (c or isinstance(v, Carried)) and v not in values for v, c, values in told):
            return False
        return None if any(c or isinstance(v, Carried) for v, c, _ in told) else True

    def _more(self, term: Term) -> More | None:
        """How much it adds to an integer term; None: nothing."""
        if isinstance(term, Linear):
            parts = [(more, w) for part, w in term.parts if (more := self._more(part)) is not None]
            return (lambda values, at: sum(w * more(values, at) for more, w in parts)) if parts else None
        if not isinstance(term, Additive):
            return _untold
        match self._matches(term.where):
            case False:
                return None
            case None:
                return _untold
        match term:
            case Count() | Sum():
                return self._amount(term)
            case Distinct():
                return self._distinct(term)
            case _:
                return self._session(term)

    def _amount(self, term: Count | Sum) -> More | None:
        carried = self._columns.get(term.column) if term.column else 1
        if carried is None:
            return None
        adds = 1 if isinstance(term, Count) else carried
        if not isinstance(adds, int):
            return _untold
        if term.initial is None:
            return lambda values, at: adds
        return self._initially(term.initial, adds)

    def _initially(self, initial: Initial, adds: int) -> More:
        begun, begins = self._shown(FirstTime(initial.since)), self._matches(initial.since)

        def more(values: Values, at: int) -> int:
            since = begun(values)
            if since is None and begins is False:
                return 0
            return adds if _whole(since) <= at < _whole(since) + initial.period else 0

        return more

    def _distinct(self, term: Distinct) -> More | None:
        if term.column == "day":
            return self._days(term)
        own, ever = self._shown(term), self._shown(Distinct(term.column, term.where))
        match self._columns.get(term.column):
            case None:
                return None
            case Carried.NEW:
                return lambda values, at: 1
            case Carried.AGAIN:
                return lambda values, at: int(own(values) == 0)
            case _:
                return lambda values, at: 1 if ever(values) == 0 else _untold()

    def _days(self, term: Distinct) -> More:
        """A day counts with its first event in the window."""
        last_of = self._shown(LastTime(term.where))

        def more(values: Values, at: int) -> int:
            last = last_of(values)
            if last is None or _whole(last) // DAY != at // DAY:
                return 1
            return int(term.window is not None and _whole(last) <= at - term.window)

        return more

    def _session(self, term: Sessions | SessionTime) -> More:
        last_of, whole = self._shown(LastTime(term.where)), isinstance(term, Sessions)

        def more(values: Values, at: int) -> int:
            last = last_of(values)
            step = None if last is None else at - _whole(last)
            begins = step is None or step > term.gap
            return int(begins) if whole else 0 if begins or step is None else step // 1_000

        return more

    def _one(self, term: First | Last | FirstTime | LastTime) -> After | None:
        matches = self._matches(term.where)
        if matches is False:
            return None
        if matches is None:
            return _untold
        if isinstance(term, LastTime):
            return lambda values, own, at: at
        if isinstance(term, FirstTime):
            return lambda values, own, at: at if own is None else own
        carried = self._columns.get(term.column)
        if carried is None and term.column not in CHANGING:
            return None
        if isinstance(term, First):
            return lambda values, own, at: _said(carried) if own is None else own
        return lambda values, own, at: _said(carried)

    def _ratio(self, term: Ratio) -> After | None:
        more, below_more = self._more(term.numerator), self._more(term.denominator)
        if more is None and below_more is None:
            return None
        above_of, below_of = self._named.get(term.numerator), self._named.get(term.denominator)

        def after(values: Values, own: Value, at: int) -> Value:
            shown = [values.get(name) if name else None for name in (above_of, below_of)]
            above, below = _parts(shown[0], shown[1], own)
            below += below_more(values, at) if below_more else 0
            return (above + (more(values, at) if more else 0)) / below if below else None

        return after


def _said(carried: str | int | Carried | None) -> Value:
    if carried is None or isinstance(carried, Carried):
        raise Unknown
    return carried


def _parts(above: Value, below: Value, ratio: Value) -> tuple[int, int]:
    """Numerator and denominator; where only one of them is a feature, the other follows from the ratio."""
    if ratio is None:
        return _whole(above), 0
    if isinstance(ratio, str):
        raise Unknown
    if above is None and abs(_whole(below) * ratio) < EXACT:
        above = round(_whole(below) * ratio)
    elif below is None and above and ratio:
        below = round(_whole(above) / ratio)
    return _whole(above), _whole(below)
