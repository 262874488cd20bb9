"""What the two compilations share: the distinct leaves of a domain's terms, and terms made of other terms."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import ibis
from ibis.expr import datatypes as dt
from ibis.expr import operations as ops
from ibis.expr.types import Table, Value

from feature_repo.domain import Domain
from feature_repo.vocabulary import (
    INT64,
    Additive,
    Count,
    Distinct,
    Linear,
    Ratio,
    SessionTime,
    Sum,
    Term,
    leaves,
)


def all_leaves(domain: Domain) -> list[Term]:
    """Every leaf that the domain's features are made of, each once, in declared order."""
    return list(dict.fromkeys(leaf for f in domain.features for leaf in leaves(f.term)))


def bases(domain: Domain, *kinds: type) -> list[Any]:
    """The leaves of the given kinds, without their windows, each once."""
    found = (leaf for leaf in all_leaves(domain) if isinstance(leaf, kinds))
    return list(dict.fromkeys(base(leaf) for leaf in found))


def base(leaf: Term) -> Term:
    """A leaf without its window: what is counted, whatever the time."""
    return replace(leaf, window=None) if isinstance(leaf, Additive) else leaf


def windows_of(domain: Domain, of: Term) -> list[int]:
    """The windows in which the domain asks for a base, in µs, ascending."""
    found = {leaf.window for leaf in all_leaves(domain) if isinstance(leaf, Additive) and base(leaf) == of}
    return sorted(w for w in found if w)


WIDE = dt.Decimal(38, 0)
"""The type of sums until they are the value of a feature: no sum of int64 leaves it."""


def value(term: Term, of_leaf: Callable[[Term], Value]) -> Value:
    """A feature's value from the values of its leaves; sums beyond int64 saturate, and division comes last."""
    if isinstance(term, Ratio):
        above, below = value(term.numerator, of_leaf), value(term.denominator, of_leaf)
        return above.cast("float64") / below.nullif(0).cast("float64")
    total = _exact(term, of_leaf)
    return saturated(total) if isinstance(term, Sum | Linear) else total


def _exact(term: Term, of_leaf: Callable[[Term], Value]) -> Value:
    """A term that is no ratio, WIDE where it is a sum."""
    if not isinstance(term, Linear):
        return of_leaf(term)
    weighted = [_exact(part, of_leaf).cast(WIDE) * ibis.literal(weight, WIDE) for part, weight in term.parts]
    return reduce(add, weighted)


def saturated(total: Value) -> Value:
    """A WIDE total as int64: the nearest int64 where it is beyond."""
    low, high = (ibis.literal(limit, WIDE) for limit in INT64)
    return as_int64(ibis.least(ibis.greatest(total, low), high))


def as_int64(total: Value) -> Value:
    """A count as int64. Ibis takes it for one already and leaves a plain cast out; DuckDB's sums are HUGEINT."""
    return ops.Cast(total, dt.int64).to_expr()


def as_wide(total: Value) -> Value:
    """A sum of int64 or of WIDE as WIDE."""
    return ops.Cast(total, WIDE).to_expr()


def only(test: Value, column: Value) -> Value:
    """A column where a test holds, else null: to be aggregated.

    An aggregate's own FILTER makes DuckDB copy every input of every aggregate of the group for each of them.
    """
    return test.ifelse(column, ibis.null(column.type()))


def amount(table: Table, leaf: Count | Sum, test: Value) -> Value:
    """Count (int64) or sum (WIDE) over the rows of a group that pass a test, 0 where there are none."""
    if isinstance(leaf, Sum):
        return as_wide(only(test, table[leaf.column]).sum().fill_null(0))
    return only(test, table[leaf.column] if leaf.column else ibis.literal(1)).count()


def earliest(table: Table, column: str, test: Value) -> Value:
    """The non-null value of the group's first event that passes a test (ties: smallest message id)."""
    return _valued(table, column, test, "argmin")


def latest(table: Table, column: str, test: Value) -> Value:
    """The same of the last event (ties: largest message id)."""
    return _valued(table, column, test, "argmax")


def _valued(table: Table, column: str, test: Value, which: str) -> Value:
    test = test & table[column].notnull()
    order = only(test, ibis.struct({"us": table.ts_us, "id": table.message_id}))
    return getattr(only(test, table[column]), which)(order)


def without(table: Table, *names: str) -> Table:
    """The other columns. Ibis's `drop` names them in an order that differs from process to process."""
    return table.select(*(c for c in table.columns if c not in names))


def steps(events: Table, key: list[str], gap: int) -> Table:
    """Session steps: key, ts_us, `start` (1 where a session begins) and `inside` (ms since the step before, if inside).

    Args:
        events: the matching events; events of equal timestamp make one step.
    """
    moments = events.select(*key, "ts_us").distinct()
    before = moments.ts_us.lag().over(ibis.window(group_by=key, order_by="ts_us"))
    step = moments.mutate(step=moments.ts_us - before)
    inside = (step.step <= gap).fill_null(False)
    return step.select(
        *key,
        "ts_us",
        start=(~inside).cast("int64"),
        inside=inside.ifelse(step.step // 1000, 0).cast("int64"),
    )


def step_measure(leaf: Term) -> str:
    """Which column of `steps` a session term adds up."""
    return "inside" if isinstance(leaf, SessionTime) else "start"


def occurrences(events: Table, key: list[str], leaf: Distinct) -> Table:
    """key, value, ts_us of every occurrence of a non-null value, with `earlier` and `later`: the neighbours' ts_us."""
    found = events.filter(events[leaf.column].notnull())
    found = found.select(*key, "ts_us", value=found[leaf.column]).distinct()
    same = ibis.window(group_by=[*key, "value"], order_by="ts_us")
    return found.mutate(earlier=found.ts_us.lag().over(same), later=found.ts_us.lead().over(same))
