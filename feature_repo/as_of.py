"""Second compilation: plain aggregation, the one row of each person at a time t."""

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import ibis
from ibis.expr.types import BooleanValue, IntegerValue, Table, Value

from feature_repo.domain import Domain
from feature_repo.history import END, history, matches
from feature_repo.program import Program
from feature_repo.terms import all_leaves, amount, as_int64, occurrences, step_measure, steps, value
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
)

ENTITY = ["entity"]


def as_of(events: Table, domain: Domain, t: IntegerValue, program: Program) -> Table:
    """The row in force at t, by plain aggregation over the events with timestamp <= t.

    Args:
        events: the lake's canonical events.
        t: µs, a literal or a parameter.
        program: takes the intermediate steps.

    Returns:
        user_id | position | valid_until_us, the first change point after t among the known events, null for never |
        the domain's features. People with no event at or before t have no row.
    """
    owned = program.step("owned", history(events, domain, program))
    current = owned.filter(owned.epoch_from <= t, t < owned.epoch_to)
    names: dict[Term, str] = {leaf: f"l{i}" for i, leaf in enumerate(all_leaves(domain))}
    past = current.filter(current.ts_us <= t)
    initials = dict.fromkeys(leaf.initial for leaf in names if isinstance(leaf, Count | Sum) and leaf.initial)
    starts = {initial: f"start{i}" for i, initial in enumerate(initials)}
    past = past.mutate(**{name: _initial_start(past, initial) for initial, name in starts.items()})
    plain = past.group_by("entity").aggregate(**_plain(past, names, starts, t))
    parts = [plain, _bounds(current, owned, domain, t), *_streams(past, names, t)]
    rows = reduce(_beside, parts)
    features = {f.name: value(f.term, _leaf_value(rows, names)) for f in domain.features}
    return rows.select("position", "valid_until_us", user_id="entity", **features)


def _beside(left: Table, right: Table) -> Table:
    added = [c for c in right.columns if c not in ENTITY]
    return left.left_join(right, ENTITY).select(*left.columns, *added)


def _inside(
    past: Table, leaf: Any, t: IntegerValue, starts: Mapping[Initial, str] = MappingProxyType({})
) -> BooleanValue:
    """The events that a leaf sees at t."""
    test = matches(past, leaf.where)
    window, initial = getattr(leaf, "window", None), getattr(leaf, "initial", None)
    if window is not None:
        test = test & (past.ts_us > t - window)
    if initial is not None:
        start = past[starts[initial]]
        test = test & ((past.ts_us >= start) & (past.ts_us < start + initial.period)).fill_null(False)
    return test


def _initial_start(past: Table, initial: Initial) -> IntegerValue:
    """The timestamp at which a person's initial period starts, beside each event."""
    return past.ts_us.min(where=matches(past, initial.since)).over(ibis.window(group_by=ENTITY))


def _plain(past: Table, names: dict[Term, str], starts: dict[Initial, str], t: IntegerValue) -> dict[str, Value]:
    """The leaves that one aggregation gives."""
    order = ibis.struct({"us": past.ts_us, "id": past.message_id})
    found: dict[str, Value] = {}
    for leaf, name in names.items():
        match leaf:
            case Count() | Sum():
                found[name] = amount(past, leaf, _inside(past, leaf, t, starts))
            case FirstTime():
                found[name] = past.ts_us.min(where=_inside(past, leaf, t, starts))
            case LastTime():
                found[name] = past.ts_us.max(where=_inside(past, leaf, t, starts))
            case First(column=c):
                found[name] = past[c].argmin(order, where=_inside(past, leaf, t, starts) & past[c].notnull())
            case Last(column=c):
                found[name] = past[c].argmax(order, where=_inside(past, leaf, t, starts) & past[c].notnull())
    return found


def _streams(past: Table, names: dict[Term, str], t: IntegerValue) -> list[Table]:
    """The leaves that take neighbouring events to know."""
    streams = []
    for leaf, name in names.items():
        if isinstance(leaf, Sessions | SessionTime):
            found = steps(past.filter(matches(past, leaf.where)), ENTITY, leaf.gap)
            test = found.ts_us > (t - leaf.window if leaf.window else ibis.literal(-END))
            total = as_int64(found[step_measure(leaf)].sum(where=test).fill_null(0))
            streams.append(found.group_by("entity").aggregate(**{name: total}))
        if isinstance(leaf, Distinct):
            seen = occurrences(past.filter(_inside(past, leaf, t)), ENTITY, leaf)
            streams.append(seen.group_by("entity").aggregate(**{name: seen.count(where=seen.earlier.isnull())}))
    return streams


def _bounds(current: Table, owned: Table, domain: Domain, t: IntegerValue) -> Table:
    """entity, position and valid_until_us: the first event, event + W or end of epoch after t."""
    after = [_first_after(current.ts_us + w, t) for w in [0, *domain.windows]]
    end = current.epoch_to.min()
    bounds = current.group_by("entity").aggregate(valid_until_us=ibis.least(*after, end))
    bounds = bounds.mutate(valid_until_us=bounds.valid_until_us.nullif(END))
    applied = owned.group_by("entity").aggregate(position=owned.position.max())
    return _beside(bounds, applied)


def _first_after(times: Value, t: IntegerValue) -> Value:
    return times.min(where=times > t).fill_null(END)


def _leaf_value(rows: Table, names: dict[Term, str]) -> Callable[[Term], Value]:
    def of_leaf(leaf: Term) -> Value:
        column = rows[names[leaf]]
        return column.fill_null(0).cast("int64") if isinstance(leaf, Distinct | Sessions | SessionTime) else column

    return of_leaf
