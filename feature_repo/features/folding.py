"""What of a person's old events can go behind a checkpoint, so that nobody's past costs more each day.

A leaf of a feature is either a choice among events (first, last, distinct values, where a session began) or a sum over
them. So of the events before a time C some are kept that make every choice come out as before, and what the others add
to the sums is one number a leaf. That stands for good as long as no event of before C arrives (see arrivals.broken) and
no window reaches back to C any more.
"""

from functools import cache
from typing import NamedTuple

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.features.as_of import additive
from feature_repo.features.fresh import Fresh
from feature_repo.features.history import matches, typed
from feature_repo.features.terms import all_leaves
from feature_repo.history.history_store import EDGES, Checkpoint
from feature_repo.history.working_set import WorkingSet
from feature_repo.lake.lake_sql import SCHEMA
from feature_repo.vocabulary import ANY, Count, Distinct, First, Last, Sum, Where

FOLD_FROM = 500
"""Events that can go before a checkpoint is made: that costs about as much as the person's row, three times."""


class Folded(NamedTuple):
    """A checkpoint to make, the events that go behind it, and the position that it was made by."""

    checkpoint: Checkpoint
    message_ids: list[str]
    by: int


def reach(domain: Domain) -> int:
    """How long ago, µs, an event has to be: beyond the onboarding, and beyond what any window sees."""
    return max([domain.horizon, *domain.windows])


def foldable(held: WorkingSet, persons: list[str], now_us: int) -> list[str]:
    """Those of these persons, just computed, of whom enough events are old enough."""
    many = [p for p in persons if held.events(p) > FOLD_FROM]
    old = held.older(many, now_us - reach(held.domain)) if many else {}
    return [p for p, n in old.items() if n > FOLD_FROM]


def folded(fresh: Fresh, person: str, now_us: int) -> Folded | None:
    """What a checkpoint of this person would be; None where it would hold too little."""
    through_us = now_us - reach(fresh.domain)
    before, by = fresh.run("leaves", [person], now_us)
    own = f"SELECT * EXCLUDE (sender) FROM held WHERE sender = ? AND ts_us <= {through_us}"
    fresh.db.execute(f"CREATE OR REPLACE TEMP TABLE own AS {own}", [person])
    query = f"SELECT message_id FROM own WHERE message_id NOT IN ({_kept(fresh.domain.name)}) ORDER BY 1"
    ids = [m for (m,) in fresh.db.execute(query).fetchall()]
    if len(ids) <= FOLD_FROM:
        return None
    sender = "coalesce(user_id, 'anon:' || anonymous_id)"
    fresh.db.execute(f"DELETE FROM ev WHERE {sender} = ? AND message_id IN (SELECT unnest(?))", [person, ids])
    after = fresh.ask("leaves", [person], {})
    base = _base(fresh.domain, before, after)
    return None if base is None else Folded(Checkpoint(through_us, base), ids, by)


def _base(domain: Domain, before: pa.Table, after: pa.Table) -> tuple[int, ...] | None:
    """What the additive leaves lack without the folded events; None where anything else differs."""
    if len(before) != 1 or len(after) != 1:
        return None
    (was,), (now,) = before.to_pylist(), after.to_pylist()
    sums = additive(domain)
    if any(was[name] != now[name] for name in was if name not in sums):
        return None
    return tuple(int(was[name]) - int(now[name]) for name in sums)  # decimals are rounded to 28 digits


@cache
def _kept(domain_name: str) -> str:
    """SQL: message_id of those of one person's events, in table `own`, that keep every choice among them as it is."""
    domain = domains.load(domain_name)
    seen = typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="incoming"), domain)
    own = ibis.table(seen.schema(), name="own")
    found = [own.filter(own.type.isin(EDGES), own.anonymous_id.notnull()).select("message_id")]
    found += [_ends(own.filter(matches(own, where))) for where in _conditions(domain)]
    for leaf in all_leaves(domain):
        if isinstance(leaf, First | Last):
            found.append(_ends(own.filter(matches(own, leaf.where), own[leaf.column].notnull())))
        elif isinstance(leaf, Distinct) and leaf.window is None:
            found.append(_one_of_each(own.filter(matches(own, leaf.where), own[leaf.column].notnull()), leaf.column))
    every = ibis.union(*found, distinct=True)
    return ibis.to_sql(every.filter(every.message_id.notnull()), dialect="duckdb")


def _conditions(domain: Domain) -> list[Where]:
    """Every condition whose first or last event decides anything: of times, sessions and initial periods; and all."""
    found: list[Where] = [ANY]
    for leaf in all_leaves(domain):
        found.append(getattr(leaf, "where", ANY))
        if isinstance(leaf, Count | Sum) and leaf.initial:
            found.append(leaf.initial.since)
    return list(dict.fromkeys(found))


def _ends(some: Table) -> Table:
    """message_id of the first and of the last of some events."""
    order = ibis.struct({"us": some.ts_us, "id": some.message_id})
    ends = some.aggregate(first=some.message_id.argmin(order), last=some.message_id.argmax(order))
    return ends.select(message_id="first").union(ends.select(message_id="last"))


def _one_of_each(some: Table, column: str) -> Table:
    """message_id of one event with each value of a column."""
    return some.group_by(some[column]).aggregate(message_id=some.message_id.min()).select("message_id")
