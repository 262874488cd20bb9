"""One user's events, without reading anybody else's: those in the lake, and those that are accepted and not in it yet.

lake (by its index) ─┐
log, not yet in it ──┴─► every copy ─► canonical copies: the user's, and of the anonymous ids that were linked
"""

from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract.events import ANONYMOUS
from feature_repo.contract.origin import first_received
from feature_repo.history.history_store import CONTENT, EDGES, content_hash, open_history, row_of
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.lake_sql import STORED
from feature_repo.lake.log_to_lake import AT_ONCE, drain, log_file
from feature_repo.log.sqlite_log import read_mentions
from feature_repo.settings import Settings


def around(settings: Settings, user: str) -> pa.Table:
    """The canonical events that decide what is a user's, in the order of time; columns as STORED.

    user: a user id, or "anon:" + an anonymous id. Of a user id: all of their events, and all that have one of the
    anonymous ids that were ever linked to it, whoever sent those. Of an anonymous id: all events that have it.
    """
    index = LakeIndex(settings)
    if user.startswith(ANONYMOUS):
        return canonical(_with(settings, index, [], [user.removeprefix(ANONYMOUS)]))
    own = _with(settings, index, [user], [])
    linked = sorted(linked_ids(canonical(own), user))
    if not linked:
        return canonical(own)
    both = pa.concat_tables([own, _with(settings, index, [], linked)])
    first = both.append_column("at", pa.array(range(both.num_rows))).group_by("position").aggregate([("at", "min")])
    return canonical(both.take(first["at_min"]))


def last_links(settings: Settings, anonymous_ids: Collection[str], at_us: int) -> dict[str, str]:
    """The user to whom each of these anonymous ids was linked last by `at_us` (µs); without those that were not."""
    found = canonical(_with(settings, LakeIndex(settings), [], anonymous_ids))
    events = found.select(["type", "user_id", "anonymous_id", "ts_us"])
    return {
        e["anonymous_id"]: e["user_id"]
        for e in events.to_pylist()  # in the order of time: the last one stays
        if e["type"] in EDGES and e["user_id"] and e["anonymous_id"] and e["ts_us"] <= at_us
    }


def linked_ids(events: pa.Table, user: str) -> set[str]:
    """The anonymous ids that some events link to a user."""
    links = pc.and_(pc.is_in(events["type"], pa.array(EDGES)), pc.equal(events["user_id"], user))
    return set(events.filter(links)["anonymous_id"].drop_null().to_pylist())


def canonical(events: pa.Table) -> pa.Table:
    """Of the copies of each message the one that counts, in the order of time, then of message ids."""
    events = events.sort_by([("ts_us", "ascending"), ("message_id", "ascending"), ("position", "ascending")])
    at: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(senders(events), events["message_id"].to_pylist(), strict=True)):
        at.setdefault(key, []).append(place)
    if len(at) == events.num_rows:
        return events
    return events.take(pa.array([p[0] if len(p) == 1 else _smallest(events, p) for p in at.values()], pa.int64()))


def senders(events: pa.Table) -> list[str]:
    """Who sent each event: the user id, or "anon:" + the anonymous id."""
    pairs = zip(events["user_id"].to_pylist(), events["anonymous_id"].to_pylist(), strict=True)
    return [f"{ANONYMOUS}{anonymous}" if user is None else user for user, anonymous in pairs]


def _smallest(events: pa.Table, places: Sequence[int]) -> int:
    """The place of the copy that counts, as lake_sql.canonical has it."""

    def rank(place: int, row: dict[str, Any]) -> tuple[Any, ...]:
        first = first_received(row["context"], row["received_us"])
        return (
            first,
            row["ts_us"],
            content_hash(**{n: row[n] for n in CONTENT}),
            row["received_us"],
            row["position"],
            place,
        )

    return min(rank(p, row) for p, row in zip(places, events.take(places).to_pylist(), strict=True))[-1]


def _with(settings: Settings, index: LakeIndex, users: Collection[str], anonymous_ids: Collection[str]) -> pa.Table:
    """Every copy of the events with one of these ids.

    What is not in the lake is read before the lake is, so that an event on its way there is seen in one of them.
    """
    recent = _recent(settings, index.lake.last_position(), users, anonymous_ids)
    rows, last = index.rows(users, anonymous_ids)
    return pa.concat_tables([rows, recent.filter(pc.greater(recent["position"], last))])


def _recent(settings: Settings, after: int, users: Collection[str], anonymous_ids: Collection[str]) -> pa.Table:
    """Of those that are accepted and that the lake has not; a broker's that no worker has applied are not known."""
    if settings.log == "sqlite":
        rows = [row_of(p, e) for p, e in read_mentions(log_file(settings), after, [*users, *anonymous_ids])]
    else:
        with closing(open_history(settings)) as history:
            rows = history.arrived(AT_ONCE)
        if len(rows) == AT_ONCE:  # more than is read at once: as if they had come to the lake in time
            drain(settings)
            return STORED.empty_table()
    theirs = [r for r in rows if r.user_id in users or r.anonymous_id in anonymous_ids]
    return pa.table({f.name: pa.array([getattr(r, f.name) for r in theirs], f.type) for f in STORED}, schema=STORED)
