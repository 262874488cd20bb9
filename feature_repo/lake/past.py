"""What the lake knows of people's past, for a history that does not have it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo import domains
from feature_repo.history.history_store import EDGES, HistoryStore, Row
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import SENDER
from feature_repo.lake.log_to_lake import AT_ONCE
from feature_repo.settings import Settings

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend
    from ibis.expr.types import Table

_COLUMNS = ", ".join(Row._fields[1:])


class Past:
    """Reads events out of the lake for a history."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, senders: Sequence[str]) -> Iterator[Row]:
        """Every event of these senders that the lake has, one copy of each, in no order."""
        with _lake(self._settings) as (con, lake):
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
