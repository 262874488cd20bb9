"""First compilation: a row for every moment at which any feature of a person changes.

A value changes at an event and, for a window W, at an event + W. Everything additive is a difference of two running
totals: at a change point c, the total after the last moment <= c less the total after the last moment <= c - W. Those
two moments are found by counting: each moment marks one arrival at ts and one departure at ts + W, and the running
counts of the marks are the ordinals of the moments to look up. A distinct count is such a difference too: +1 where
the same value was last seen >= W ago, -1 at ts + W where it is not seen again before then.
"""

from collections.abc import Callable, Iterator
from functools import reduce

import ibis
from ibis import _
from ibis.expr.types import Table, Value

from feature_repo.domain import Domain
from feature_repo.features.history import END, KEY, history, matches, typed
from feature_repo.features.program import Program
from feature_repo.features.terms import (
    all_leaves,
    amount,
    as_int64,
    as_wide,
    base,
    bases,
    earliest,
    occurrences,
    only,
    step_measure,
    steps,
    value,
    windows_of,
    without,
)
from feature_repo.vocabulary import (
    Additive,
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

MOMENT = ["person", "ts_us"]


def at_change_points(events: Table, domain: Domain, program: Program) -> Table:
    """The rows in force from each change point on, for everybody who owns one of the events.

    Args:
        events: the lake's canonical events.
        program: takes the intermediate steps.

    Returns:
        user_id string | ts_us int64, the change point | position int64, the person's highest log position |
        valid_until_us int64, the next change point known, null for never | the domain's features |
        person int64, in the order of user_id, which sorts faster.
        Unique per (user_id, ts_us). An anonymous person who became known ends there: the last row's valid_until_us.
    """
    return change_point_rows(typed(events, domain), domain, program)


def change_point_rows(events: Table, domain: Domain, program: Program) -> Table:
    """`at_change_points` over events that are typed already (see history.typed)."""
    names = _names(domain)
    owned = program.step("owned", history(events, domain, program))  # KEY, ts_us, message_id, position, columns
    persons = program.step("persons", _persons(owned))  # person int64, KEY, position
    seen = program.step("seen", without(owned.join(persons, KEY), *KEY, "position_right"))  # person, ts_us, columns
    streams = [program.step(f"stream_{names[b]}", s) for b, s in _streams(seen, domain, names)]
    # person, ts_us, n, what happened then
    moments = program.step("moments", reduce(_beside, streams, _moments(seen, domain, names)))
    firsts = program.step("firsts", _firsts(seen, domain, names))  # person, first values and when they were set
    totals = program.step("totals", _running(moments, domain, names))  # person, n, running totals
    points = program.step("points", _points(moments, persons, domain.windows))  # person, ts_us, n, n_<W>
    return _rows(points, totals, firsts, persons, domain, names)


def _names(domain: Domain) -> dict[Term, str]:
    """A short column name for every base."""
    every = dict.fromkeys(base(leaf) for leaf in all_leaves(domain))
    return {b: f"m{i}" for i, b in enumerate(every)}


def _persons(owned: Table) -> Table:
    """person int64, KEY, position: a short key for everything that follows."""
    applied = owned.group_by("entity").aggregate(position=owned.position.max())
    keys = owned.select(KEY).distinct().join(applied, "entity")
    return keys.mutate(person=ibis.row_number().over(ibis.window(order_by=KEY)))


def _moments(seen: Table, domain: Domain, names: dict[Term, str]) -> Table:
    """person, ts_us, n (1 for a person's first) and the measures that the events of that microsecond add."""
    plain = [b for b in bases(domain, Count, Sum) if not b.initial]
    measures = {names[b]: amount(seen, b, matches(seen, b.where)) for b in plain}
    for b in bases(domain, LastTime):
        measures[names[b]] = only(matches(seen, b.where), seen.ts_us).max()
    moments = seen.group_by(MOMENT).aggregate(**measures)
    order = ibis.window(group_by="person", order_by="ts_us")
    return moments.mutate(n=(ibis.row_number().over(order) + 1).cast("int64"))


def _beside(moments: Table, stream: Table) -> Table:
    added = [c for c in stream.columns if c not in MOMENT]
    return moments.left_join(stream, MOMENT).select(*moments.columns, *added)


def _streams(seen: Table, domain: Domain, names: dict[Term, str]) -> Iterator[tuple[Term, Table]]:
    """What takes a person's other events to know: initial periods, sessions, distinct and last values."""
    for b in bases(domain, Count, Sum):
        if b.initial:
            yield b, _initial(seen, b, names[b])
    for b in bases(domain, Sessions, SessionTime):
        found = steps(seen.filter(matches(seen, b.where)), ["person"], b.gap)
        yield b, found.select(*MOMENT, **{names[b]: found[step_measure(b)]})
    for b in bases(domain, Distinct):
        yield b, _distinct(seen, domain, b, names[b])
    for b in bases(domain, Last):
        found = seen.filter(matches(seen, b.where), seen[b.column].notnull())
        yield b, found.group_by(MOMENT).aggregate(**{names[b]: found[b.column].argmax(found.message_id)})


def _initial(seen: Table, leaf: Count | Sum, name: str) -> Table:
    """A count or sum of the events in [s, s + period), s being the first event that matches `since`."""
    initial = leaf.initial or Initial(0)
    starts = seen.filter(matches(seen, initial.since)).group_by("person").aggregate(start=_.ts_us.min())
    early = seen.filter(matches(seen, leaf.where)).join(starts, "person")
    early = early.filter(early.ts_us >= early.start, early.ts_us < early.start + initial.period)
    return early.group_by(MOMENT).aggregate(**{name: amount(early, leaf, early.ts_us.notnull())})


def _distinct(seen: Table, domain: Domain, leaf: Distinct, name: str) -> Table:
    """New values at each moment: ever (`m`), and for each window those that arrive (`m_in_W`) and leave (`m_out_W`)."""
    found = occurrences(seen.filter(matches(seen, leaf.where)), ["person"], leaf)
    measures = {name: found.earlier.isnull()}
    for w in windows_of(domain, leaf):
        measures[f"{name}_in_{w}"] = (found.earlier + w <= found.ts_us).fill_null(True)
        measures[f"{name}_out_{w}"] = (found.later >= found.ts_us + w).fill_null(True)
    return found.group_by(MOMENT).aggregate(**{n: only(flag, ibis.literal(1)).count() for n, flag in measures.items()})


def _firsts(seen: Table, domain: Domain, names: dict[Term, str]) -> Table:
    """person and, for each first value and first time, the value (`m`) and its timestamp (`m_at`)."""
    columns: dict[str, Value] = {}
    for b in bases(domain, First, FirstTime):
        test = matches(seen, b.where)
        if isinstance(b, First):
            test = test & seen[b.column].notnull()
            columns[names[b]] = earliest(seen, b.column, test)
        columns[f"{names[b]}_at"] = only(test, seen.ts_us).min()
    return seen.group_by("person").aggregate(**columns)


def _running(moments: Table, domain: Domain, names: dict[Term, str]) -> Table:
    """person, n and every measure's running value after that moment."""
    so_far = ibis.cumulative_window(group_by="person", order_by="ts_us")
    columns: dict[str, Value] = {}
    for b, name in names.items():
        match b:
            case First() | FirstTime():
                continue
            case Last():
                columns[f"{name}_k"] = moments[name].count().over(so_far)
            case LastTime():
                columns[name] = moments[name].max().over(so_far)
            case _:
                of_type = as_wide if isinstance(b, Sum) else as_int64
                for column in [c for c in moments.columns if c == name or c.startswith(f"{name}_")]:
                    columns[column] = of_type(moments[column].sum().over(so_far).fill_null(0))
    totals = moments.select("person", "n", **columns)
    for b, name in names.items():
        if isinstance(b, Last):
            totals = _carry(totals, moments, name)
    return totals


def _carry(totals: Table, moments: Table, name: str) -> Table:
    """Carry a value on from the moment that set it: the k-th value that was set."""
    found = moments.filter(moments[name].notnull())
    k = (ibis.row_number().over(ibis.window(group_by="person", order_by="ts_us")) + 1).cast("int64")
    set_to = found.select(value_of="person", k=k, **{name: name})
    joined = totals.left_join(set_to, [totals.person == set_to.value_of, totals[f"{name}_k"] == set_to.k])
    return without(joined, "value_of", "k", f"{name}_k")


def _points(moments: Table, persons: Table, windows: list[int]) -> Table:
    """person, ts_us, n and n_<W>: each change point with the ordinals of the last moments <= it and <= it - W."""
    at = moments.select(MOMENT).join(persons, "person").select(*MOMENT, "epoch_from", "epoch_to")
    marks = {0: "n"} | {w: f"n_{w}" for w in windows}
    points = reduce(
        Table.union,
        [
            at.mutate(ts_us=at.ts_us + w, **{n: ibis.literal(int(n == name)) for n in marks.values()})
            for w, name in marks.items()
        ],
    )
    points = points.mutate(ts_us=ibis.greatest(points.ts_us, points.epoch_from))
    points = points.filter(points.ts_us < points.epoch_to)
    points = points.group_by(MOMENT).aggregate(**{name: as_int64(points[name].sum()) for name in marks.values()})
    so_far = ibis.cumulative_window(group_by="person", order_by="ts_us")
    return points.select(
        *MOMENT,
        following=points.ts_us.lead().over(ibis.window(group_by="person", order_by="ts_us")),
        **{name: as_int64(points[name].sum().over(so_far)) for name in marks.values()},
    )


def _rows(points: Table, totals: Table, firsts: Table, persons: Table, domain: Domain, names: dict[Term, str]) -> Table:
    """Look the running totals up at every change point and put the features together."""
    rows = points.join(totals, ["person", "n"])
    for w in domain.windows:
        needed = sorted({_departed(leaf, names) for leaf in all_leaves(domain) if getattr(leaf, "window", None) == w})
        gone = totals.select(gone_person="person", gone_n="n", **{f"{c}_{w}_gone": c for c in needed})
        rows = rows.left_join(gone, [rows.person == gone.gone_person, rows[f"n_{w}"] == gone.gone_n])
        rows = without(rows, "gone_person", "gone_n")
    rows = rows.join(persons, "person").join(firsts, "person")
    until = rows.following.fill_null((rows.epoch_to < END).ifelse(rows.epoch_to, None))
    features = {f.name: value(f.term, _leaf_value(rows, names)) for f in domain.features}
    return rows.select("person", "position", "ts_us", user_id="entity", valid_until_us=until.cast("int64"), **features)


def _departed(leaf: Term, names: dict[Term, str]) -> str:
    """The running total to subtract for a leaf with a window."""
    name = names[base(leaf)]
    return f"{name}_out_{leaf.window}" if isinstance(leaf, Distinct) else name


def _leaf_value(rows: Table, names: dict[Term, str]) -> Callable[[Term], Value]:
    """A leaf's value from the running totals beside each change point."""

    def of_leaf(leaf: Term) -> Value:
        name, window = names[base(leaf)], getattr(leaf, "window", None)
        if isinstance(leaf, First | FirstTime):
            at = rows[f"{name}_at"]
            return (rows.ts_us >= at).ifelse(rows[name] if isinstance(leaf, First) else at, None)
        if not isinstance(leaf, Additive) or window is None:
            return rows[name]
        arrived = f"{name}_in_{window}" if isinstance(leaf, Distinct) else name
        return rows[arrived] - rows[f"{_departed(leaf, names)}_{window}_gone"].fill_null(0)

    return of_leaf
