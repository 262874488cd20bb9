"""Third form of the features, for few events: one person's row at a time t, in plain Python over events in memory.

What `as_of` compiles for a database, step by step the same: whose event it is and when (history.py), what each leaf
sees of it, terms of leaves. It costs a fraction of a millisecond for a person where a query costs several.

rows ─► Seen, typed, with the conditions that it meets ─► owned ─► epochs ─► past ─► leaves ─► features
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS
from feature_repo.contract.values import value_of
from feature_repo.domain import Domain
from feature_repo.features.as_of import additive
from feature_repo.features.history import BEGIN, END
from feature_repo.features.terms import all_leaves
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import (
    ANY,
    DAY,
    HOUR,
    INT64,
    Count,
    Distinct,
    First,
    FirstTime,
    Initial,
    Last,
    LastTime,
    Linear,
    Ratio,
    Scalar,
    Sessions,
    SessionTime,
    Sum,
    Term,
    Where,
)

Test = tuple[int, list[tuple[int, frozenset[Scalar | None]]]]
"""A condition's bit, and the columns that it looks at with the values that meet it."""
OTHER = "\0"
"""Stands for every name that no condition is about; no name has it."""
PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")
_DECODE = msgspec.json.Decoder().decode


class Seen(NamedTuple):
    """An event as features see it; in the order of (time, message id).

    meets: bit i is set where it meets condition i. values: of the domain's columns (Domain.column_types).
    """

    ts_us: int
    message_id: str
    position: int
    user_id: str | None
    anonymous_id: str | None
    meets: int
    values: tuple[Scalar | None, ...]


class Edge(NamedTuple):
    """From a time on an anonymous id is a user; in the order of (time, message id)."""

    ts_us: int
    message_id: str
    user_id: str


Edges = Mapping[str, Sequence[Edge]]
"""By anonymous id, in order."""
_TIME = attrgetter("ts_us")
_Owned = tuple[Seen, int, int]
"""An event, and from when (µs) until when (exclusive) it is a person's."""


class Past:
    """A person's events by t, in order, by the conditions that they meet."""

    def __init__(self, events: Sequence[Seen], t_us: int) -> None:
        self.events, self.t_us = events, t_us
        self._meeting: dict[int, Sequence[Seen]] = {0: events}

    def meeting(self, bit: int) -> Sequence[Seen]:
        """Those that meet a condition; all for 0."""
        found = self._meeting.get(bit)
        if found is None:
            found = self._meeting[bit] = [e for e in self.events if e.meets & bit]
        return found


class PlainRow(NamedTuple):
    """As of t. ts_us: the last change point, null where the person has no event by then; valid_until_us: the next one
    among the known events, null for never; values: of the features, in declared order."""

    ts_us: int | None
    valid_until_us: int | None
    values: list[Any]


class Plain:
    """A domain's features over Seen events."""

    def __init__(self, domain: Domain) -> None:
        self._windows = [0, *domain.windows]
        self._columns = {name: i for i, name in enumerate(domain.column_types)}
        paths = [c.path.split(".") for c in domain.columns]
        self._paths = [(root, keys, c) for c, (root, *keys) in zip(domain.columns, paths, strict=True)]
        self._roots = list(dict.fromkeys(root for root, *_ in paths))
        self._bits: dict[Where, int] = {ANY: 0}
        leaves = all_leaves(domain)
        self._leaves = [self._leaf(leaf) for leaf in leaves]
        self._folded = [int(name.removeprefix("l")) for name in additive(domain)]
        self._terms = [_term(f.term, {leaf: i for i, leaf in enumerate(leaves)}) for f in domain.features]
        self._tests: list[Test] = [
            (bit, [(self._columns[c], frozenset(values)) for c, values in where])
            for where, bit in self._bits.items() if bit
        ]  # fmt: skip
        self._named = frozenset().union(*(v for _, test in self._tests for c, v in test if c == self._columns["name"]))
        self._by_kind: dict[tuple[str, str | None], list[Test]] = {}

    def seen(self, row: Row) -> Seen:
        """An event of the history, typed; None where it has no value of a column's type."""
        documents = {root: {} if (raw := getattr(row, root)) == "{}" else _DECODE(raw) for root in self._roots}
        hour = row.ts_us // HOUR % 24
        found: list[Scalar | None] = [row.type, row.name, row.ts_us // DAY, PARTS_OF_DAY[hour // 6]]
        for root, keys, column in self._paths:
            value = documents[root]
            for key in keys:
                value = value.get(key) if type(value) is dict else None
            found.append(None if value is None else value_of(column, value))
        tests = self._tests_of(row.type, row.name)
        meets = sum(bit for bit, test in tests if not test or all(found[c] in values for c, values in test))
        return Seen(row.ts_us, row.message_id, row.position, row.user_id, row.anonymous_id, meets, tuple(found))

    def _tests_of(self, kind: str, name: str | None) -> list[Test]:
        """What is left to test of an event of this type and name; not of every name there is, for a page has any."""
        key = kind, name if name in self._named else OTHER
        if key not in self._by_kind:
            self._by_kind[key] = [
                (bit, [(c, values) for c, values in test if c >= len(key)])
                for bit, test in self._tests
                if all(key[c] in values for c, values in test if c < len(key))
            ]
        return self._by_kind[key]

    def row(
        self, person: str, events: Iterable[Seen], edges: Edges, t_us: int, folded: Sequence[int] = ()
    ) -> PlainRow | None:
        """A person's row in force at t; None where no event is, or will be, theirs.

        events: the person's own, and of the anonymous ids that are ever said to be theirs; edges: of those ids.
        folded: what events add to the additive leaves that are not there.
        """
        owned = _owned(person, events, edges)
        if not owned:
            return None
        begin, end = _epoch(owned, t_us)
        current = sorted(e for e, since, until in owned if since < end and until > begin)
        ts_us, valid_until_us = self._bounds(current, begin, end, t_us)
        if begin > BEGIN or end < END:
            valid_until_us = min(valid_until_us, _next_epoch(owned, t_us))
        values = self._features(Past(current[: bisect_right(current, t_us, key=_TIME)], t_us), folded)
        return PlainRow(None if ts_us == BEGIN else ts_us, None if valid_until_us == END else valid_until_us, values)

    def _bounds(self, current: Sequence[Seen], begin: int, end: int, t_us: int) -> tuple[int, int]:
        """The change points around t inside an epoch: BEGIN, END where there is none."""
        if not current:
            return BEGIN, END
        before, after = BEGIN, end
        for window in self._windows:
            n = bisect_right(current, t_us - window, key=_TIME)
            if n:
                before = max(before, begin, current[n - 1].ts_us + window)
            if n < len(current):
                after = min(after, current[n].ts_us + window)
        return before, after

    def _features(self, past: Past, folded: Sequence[int]) -> list[Any]:
        leaves = [leaf(past) for leaf in self._leaves]
        for i, more in zip(self._folded, folded, strict=bool(folded)):
            leaves[i] += more
        return [term(leaves) for term in self._terms]

    def _leaf(self, leaf: Term) -> Callable[[Past], Any]:
        """What gives a leaf's value."""
        inside = self._inside(leaf)
        at = self._columns.get(getattr(leaf, "column", None) or "", 0)
        match leaf:
            case Count(column=None):
                return lambda past: len(inside(past))
            case Count():
                return lambda past: sum(e.values[at] is not None for e in inside(past))
            case Sum():
                return lambda past: sum(e.values[at] or 0 for e in inside(past))
            case Distinct():
                return lambda past: len({e.values[at] for e in inside(past)} - {None})
            case Sessions() | SessionTime():
                return self._sessions(leaf)
            case FirstTime():
                return lambda past: next((e.ts_us for e in inside(past)), None)
            case LastTime():
                return lambda past: next((e.ts_us for e in reversed(inside(past))), None)
            case First():
                return lambda past: next((v for e in inside(past) if (v := e.values[at]) is not None), None)
            case Last():
                return lambda past: next((v for e in reversed(inside(past)) if (v := e.values[at]) is not None), None)
        raise TypeError(f"no leaf of the vocabulary: {leaf!r}")

    def _bit(self, where: Where) -> int:
        return self._bits.setdefault(where, 1 << len(self._bits) - 1)

    def _inside(self, leaf: Term) -> Callable[[Past], Sequence[Seen]]:
        """What gives the events that a leaf sees at t, in order."""
        bit, window = self._bit(getattr(leaf, "where", ANY)), getattr(leaf, "window", None)
        initial: Initial | None = getattr(leaf, "initial", None)
        since = self._bit(initial.since) if initial else 0

        def inside(past: Past) -> Sequence[Seen]:
            found = past.meeting(bit)
            if initial:
                first = past.meeting(since)[:1]
                found = _between(found, first[0].ts_us, first[0].ts_us + initial.period) if first else []
            return found[bisect_right(found, past.t_us - window, key=_TIME) :] if window else found

        return inside

    def _sessions(self, leaf: Sessions | SessionTime) -> Callable[[Past], int]:
        bit, window, gap = self._bit(leaf.where), leaf.window, leaf.gap
        counts = isinstance(leaf, Sessions)

        def total(past: Past) -> int:
            found = past.meeting(bit)
            n = bisect_right(found, past.t_us - window, key=_TIME) if window else 0
            times = [e.ts_us for e in found[max(0, n - 1) :]]
            steps = [after - before for before, after in pairwise(times)]
            if counts:
                return (n == 0 and bool(found)) + sum(step > gap for step in steps)
            return sum(step // 1000 for step in steps if step <= gap)

        return total


@cache
def plain(domain_name: str) -> Plain:
    """A domain's features, compiled once."""
    return Plain(domains.load(domain_name))


def _between(found: Sequence[Seen], begin: int, end: int) -> Sequence[Seen]:
    return found[bisect_left(found, begin, key=_TIME) : bisect_left(found, end, key=_TIME)]


def _term(term: Term, places: Mapping[Term, int]) -> Callable[[list[Any]], Any]:
    """What gives a feature's value from the values of all leaves: as terms.value."""
    match term:
        case Ratio(numerator=a, denominator=b):
            above, below = _term(a, places), _term(b, places)
            return lambda leaves: float(above(leaves)) / float(n) if (n := below(leaves)) else None
        case Sum() | Linear():
            exact = _exact(term, places)
            return lambda leaves: saturated(exact(leaves))
    return _exact(term, places)


def _exact(term: Term, places: Mapping[Term, int]) -> Callable[[list[Any]], Any]:
    """A term that is no ratio, in Python's integers."""
    if isinstance(term, Linear):
        terms = [(_exact(part, places), weight) for part, weight in term.parts]
        return lambda leaves: sum(part(leaves) * weight for part, weight in terms)
    place = places[term]
    return lambda leaves: leaves[place]


def saturated(total: int) -> int:
    """The nearest int64."""
    return min(max(total, INT64[0]), INT64[1])


def _owned(person: str, events: Iterable[Seen], edges: Edges) -> list[_Owned]:
    """The events that are a person's at some time: see history.py."""
    found: list[_Owned] = []
    for event in events:
        if event.user_id is None:
            found += _turns(person, event, edges.get(event.anonymous_id or "", ()))
        elif event.user_id == person:
            found.append((event, event.ts_us, END))
    return found


def _turns(person: str, event: Seen, edges: Sequence[Edge]) -> list[_Owned]:
    """When an anonymous event is this person's."""
    n = bisect_left(edges, event.ts_us, key=_TIME)
    before = edges[n - 1].user_id if n else f"{ANONYMOUS}{event.anonymous_id}"
    if n == len(edges) or edges[n].user_id == before:
        return [(event, event.ts_us, END)] if before == person else []
    after = edges[n]
    found = [(event, event.ts_us, after.ts_us)] if before == person and event.ts_us < after.ts_us else []
    return [*found, (event, after.ts_us, END)] if after.user_id == person else found


def _cuts(owned: Iterable[_Owned]) -> list[int]:
    """When the set of a person's events changes other than by a new one: the ends of epochs, in order."""
    return sorted({since for e, since, _ in owned if since > e.ts_us} | {until for _, _, until in owned if until < END})


def _epoch(owned: Iterable[_Owned], t_us: int) -> tuple[int, int]:
    """The epoch that t is in, from and until (exclusive)."""
    cuts = [BEGIN, *_cuts(owned), END]
    n = bisect_right(cuts, t_us)
    return cuts[n - 1], cuts[n]


def _next_epoch(owned: Sequence[_Owned], t_us: int) -> int:
    """When the first epoch after t begins in which anything is this person's; END: there is none."""
    cuts = [*(cut for cut in _cuts(owned) if cut > t_us), END]
    later = (a for a, b in pairwise(cuts) if any(since < b and until > a for _, since, until in owned))
    return next(later, END)
