"""What the lake knows of people's past, for a history that does not have it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS
from feature_repo.history.history_store import CONTENT, EDGES, HistoryStore, Row, content_hash
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.lake_sql import SENDER
from feature_repo.lake.log_to_lake import AT_ONCE
from feature_repo.settings import Settings

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend
    from ibis.expr.types import Table

_COLUMNS = ", ".join(Row._fields[1:])
ROW_GROUPS = 300
"""Row groups of the lake up to which they are looked up by its index: beyond, one search of all of it is faster."""


class Past:
    """Reads events out of the lake for a history. row_groups: up to how many are looked up by the lake's index."""

    def __init__(self, settings: Settings, row_groups: int = ROW_GROUPS) -> None:
        self._settings, self._row_groups = settings, row_groups

    def __call__(self, senders: Sequence[str]) -> Iterator[Row]:
        """Every event of these senders that the lake has, one copy of each, in no order.

        Of a few people with few events only the row groups are read that hold them; else the lake is searched.
        """
        users = [s for s in senders if not s.startswith(ANONYMOUS)]
        anonymous_ids = [s.removeprefix(ANONYMOUS) for s in senders if s.startswith(ANONYMOUS)]
        few = LakeIndex(self._settings).few_rows(users, anonymous_ids, self._row_groups)
        if few is not None:
            wanted = set(senders)
            yield from _canonical(row for row in map(_row, few.to_pylist()) if row.sender in wanted)
            return
        with _lake(self._settings) as (con, lake):
            con.raw_sql("SET threads = 1")  # whoever asks the service needs the others
            for rows in _rows(con, _sql(lake.events(con, senders))):
                yield from rows


def fill(history: HistoryStore, settings: Settings, now_us: int) -> None:
    """Tell a history of what the lake has and it has not: events that came to the lake without the log, or all of them.

    An empty history gets everybody's identity edges; the rest of their past stays in the lake until they are touched.
    Those whom a window will still leave have rows that change by themselves: they are due, in the slow lane.
    """
    with _lake(settings) as (con, lake):
        through, held = lake.last_position(), history.position()
        if through <= held:
            return
        if held:
            for rows in _rows(con, _sql(lake.new_since(con, held))):
                history.add(rows)
            return
        con.raw_sql(f"create temp view lake as select *, {SENDER} as sender from ({_sql(lake.events(con))})")
        longest = max(domains.load(settings.domain).windows, default=0)
        senders = con.raw_sql(f"select sender, max(ts_us) > {now_us - longest} from lake group by 1").fetchall()
        history.leave(sender for sender, _ in senders)
        history.defer((sender for sender, changes in senders if changes), since_us=1)  # after whom an event makes due
        edges = ", ".join(f"'{e}'" for e in EDGES)
        for rows in _rows(
            con,
            f"""select * exclude (sender) from lake
                where type in ({edges}) and user_id is not null and anonymous_id is not null""",
        ):
            history.keep(rows)
        history.keep([], through)


def _row(stored: dict[str, Any]) -> Row:
    """A row of the lake as a history keeps it. stored: by the names of STORED."""
    of = content_hash(**{name: stored[name] for name in CONTENT})
    sender = stored["user_id"] if stored["user_id"] is not None else f"{ANONYMOUS}{stored['anonymous_id']}"
    return Row(sender=sender, content_hash=of, **stored)


def _canonical(rows: Iterable[Row]) -> Iterable[Row]:
    """Of the copies of each message the one that counts."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        other = best.get(row.key)
        best[row.key] = row if other is None else min(other, row, key=lambda copy: copy.rank)
    return best.values()


@contextmanager
def _lake(settings: Settings) -> Iterator[tuple["Backend", Lake]]:
    import ibis

    con = ibis.duckdb.connect()
    try:
        yield con, Lake(settings.lake)
    finally:
        con.disconnect()


def _sql(table: "Table") -> str:
    import ibis

    return ibis.to_sql(table, dialect="duckdb")


def _rows(con: "Backend", query: str) -> Iterator[list[Row]]:
    """The rows of a query of SCHEMA's columns, in chunks."""
    found = con.con.execute(f"select {SENDER}, {_COLUMNS} from ({query})")
    while chunk := found.fetchmany(AT_ONCE):
        yield [Row(*values) for values in chunk]
