"""Second compilation: plain aggregation, the one row of each person at a time t.

One pass and one aggregate: each leaf is an aggregate over the person's events that it sees, so that a single person
costs little. What takes the event before to know (sessions) stands beside each event.
"""

from collections.abc import Callable

import ibis
from ibis.expr.types import BooleanValue, Table, Value

from feature_repo.domain import Domain
from feature_repo.features.history import BEGIN, END, history, matches
from feature_repo.features.program import Program
from feature_repo.features.terms import WIDE, all_leaves, amount, as_int64, bases, earliest, latest, only, value
from feature_repo.vocabulary import (
    Count,
    Distinct,
    First,
    FirstTime,
    Initial,
    Last,
    LastTime,
    Sessions,
    SessionTime,
    Sum,
    Term,
    Where,
)

ENTITY = ["entity"]
ASKED = "asked_us"
"""The time t beside each typed event."""


def as_of(events: Table, domain: Domain, program: Program, folded: Table | None = None) -> Table:
    """The row in force at t, by plain aggregation over the events with timestamp <= t.

    Args:
        events: typed ones (history.typed) with t beside each: `asked_us` int64, µs, the same for all of a person's.
        program: takes the intermediate steps.
        folded: `person` and a WIDE column for each additive leaf (see `additive`): what events add to it that are
            not there.

    Returns:
        user_id | ts_us, the last change point <= t | position | valid_until_us, the first one after t among the known
        events, null for never | the domain's features. Where ts_us is null the person has no event by t: no row then.
    """
    rows = leaf_rows(events, domain, program, folded)
    names: dict[Term, str] = {leaf: f"l{i}" for i, leaf in enumerate(all_leaves(domain))}
    features = {f.name: value(f.term, _column(rows, names)) for f in domain.features}
    return rows.select("ts_us", "valid_until_us", "position", "user_id", **features)


def additive(domain: Domain) -> dict[str, Term]:
    """The leaves to which each event adds for good, whatever comes later, by their column in `leaf_rows`."""
    kinds = Count | Sum | Sessions | SessionTime
    found = {f"l{i}": leaf for i, leaf in enumerate(all_leaves(domain))}
    return {name: leaf for name, leaf in found.items() if isinstance(leaf, kinds) and leaf.window is None}


def leaf_rows(events: Table, domain: Domain, program: Program, folded: Table | None = None) -> Table:
    """As `as_of`, but in place of the features their leaves (terms.all_leaves) as columns l0, l1, …"""
    owned = program.step("owned", history(events, domain, program, ASKED))
    t = owned[ASKED]
    seen = owned.mutate(current=(owned.epoch_from <= t) & (t < owned.epoch_to))
    seen = seen.mutate(past=seen.current & (seen.ts_us <= seen[ASKED]))
    seen = _beside(seen, domain)
    found = {f"l{i}": _leaf(seen, leaf) for i, leaf in enumerate(all_leaves(domain))}
    rows = seen.group_by("entity").aggregate(**_bounds(seen, domain), **found)
    bounds = {"ts_us": rows.ts_us.nullif(BEGIN), "valid_until_us": rows.valid_until_us.nullif(END)}
    values = {name: rows[name] for name in found}
    if folded is not None:
        rows = rows.left_join(folded.rename({f"{name}_folded": name for name in additive(domain)}),
                              rows.entity == folded.person)  # fmt: skip
        values |= {name: _with_folded(rows, name) for name in additive(domain)}
    return rows.select(**bounds, position=rows.position, user_id=rows.entity, **values)


def _with_folded(rows: Table, name: str) -> Value:
    """An additive leaf with what the folded events add, of the leaf's own type."""
    total = rows[name].cast(WIDE) + rows[f"{name}_folded"].fill_null(0)
    return total if rows[name].type() == WIDE else as_int64(total)


def _beside(seen: Table, domain: Domain) -> Table:
    """The events with what takes other events to know: starts of initial periods, the moment before in a session."""
    every = ibis.window(group_by=ENTITY)
    columns = {
        _start(i): only(seen.past & matches(seen, i.since), seen.ts_us).min().over(every) for i in _initials(domain)
    }
    for leaf in bases(domain, Sessions, SessionTime):
        same = ibis.window(group_by=[*ENTITY, seen.past & matches(seen, leaf.where)], order_by="ts_us")
        columns[_before(leaf.where)] = seen.ts_us.lag().over(same)
    return seen.mutate(**columns)


def _initials(domain: Domain) -> list[Initial]:
    found = (leaf.initial for leaf in all_leaves(domain) if isinstance(leaf, Count | Sum) and leaf.initial)
    return list(dict.fromkeys(found))


def _start(initial: Initial) -> str:
    return f"start of {initial}"


def _before(where: Where) -> str:
    return f"before {where}"


def _inside(seen: Table, leaf: Term) -> BooleanValue:
    """The events that a leaf sees at t."""
    test = seen.past & matches(seen, getattr(leaf, "where", ()))
    window, initial = getattr(leaf, "window", None), getattr(leaf, "initial", None)
    if window is not None:
        test = test & (seen.ts_us > seen[ASKED] - window)
    if initial is not None:
        start = seen[_start(initial)]
        test = test & ((seen.ts_us >= start) & (seen.ts_us < start + initial.period)).fill_null(False)
    return test


def _leaf(seen: Table, leaf: Term) -> Value:
    """A leaf's value as an aggregate."""
    inside = _inside(seen, leaf)
    match leaf:
        case Count() | Sum():
            return amount(seen, leaf, inside)
        case Distinct(column=c):
            return only(inside, seen[c]).nunique()
        case Sessions() | SessionTime():
            step = seen.ts_us - seen[_before(leaf.where)]  # 0 among equal timestamps
            follows = (step <= leaf.gap).fill_null(False)
            if isinstance(leaf, Sessions):
                return only(inside & ~follows, ibis.literal(1)).count()
            return as_int64(only(inside & follows, step // 1000).sum().fill_null(0))
        case FirstTime():
            return only(inside, seen.ts_us).min()
        case LastTime():
            return only(inside, seen.ts_us).max()
        case First(column=c):
            return earliest(seen, c, inside)
        case Last(column=c):
            return latest(seen, c, inside)
    raise TypeError(f"no leaf of the vocabulary: {leaf!r}")


def _bounds(seen: Table, domain: Domain) -> dict[str, Value]:
    """ts_us and valid_until_us, the change points around t (BEGIN, END where there is none), and position."""
    t = seen[ASKED]
    points = [ibis.greatest(seen.ts_us + w, seen.epoch_from) for w in [0, *domain.windows]]
    before = [only(seen.current & (p <= t), p).max().fill_null(BEGIN) for p in points]
    after = [only(seen.current & (p > t), p).min().fill_null(END) for p in points]
    end = only(seen.current, seen.epoch_to).min().fill_null(END)
    begin = only(seen.epoch_from > t, seen.epoch_from).min().fill_null(END)  # events that are this person's only later
    return {
        "ts_us": ibis.greatest(*before),
        "valid_until_us": ibis.least(*after, end, begin),
        "position": seen.position.max(),
    }


def _column(rows: Table, names: dict[Term, str]) -> Callable[[Term], Value]:
    return lambda leaf: rows[names[leaf]]
