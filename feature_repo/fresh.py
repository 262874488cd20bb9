"""Features of some people as of now, from a working set of their events that stays in memory.

The compiled `as_of` runs in DuckDB over typed events. A sender's events are read from the history once and stay, new
ones are added as they come, so that a decision or an event costs the query alone.
"""

from collections.abc import Iterable, Mapping

import duckdb
import ibis
import pyarrow as pa

from feature_repo import domains
from feature_repo.as_of import ASKED, as_of
from feature_repo.history import typed
from feature_repo.history_store import HistoryStore, Row
from feature_repo.lake_sql import SCHEMA, SENDER
from feature_repo.program import Program

MOST_HELD = 500_000
"""Events in the working set before it is emptied."""


class Fresh:
    """The rows in force of single people. Not for several threads at once."""

    def __init__(self, domain_name: str, store: HistoryStore) -> None:
        self.store = store
        self._held: dict[str, int] = {}
        self._events = 0
        self._db = duckdb.connect(config={"threads": 1})
        # a prepared plan would keep what statistics promised when it was made: no nulls, no rows
        self._db.execute("SET disabled_optimizers = 'statistics_propagation'")
        self._prepare(domain_name)

    def _prepare(self, domain_name: str) -> None:
        domain, program = domains.load(domain_name), Program()
        seen = typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="incoming"), domain)
        self._typed = ibis.to_sql(seen, dialect="duckdb")
        asked = ibis.table({**seen.schema(), ASKED: "int64"}, name="ev")
        query = program.compiled(as_of(asked, domain, program)).statement()
        self._db.register("incoming", SCHEMA.empty_table())
        self._db.execute(f"CREATE TABLE held AS SELECT *, '' AS sender FROM ({self._typed}) LIMIT 0")
        self._db.execute(f"CREATE TABLE ev AS SELECT * EXCLUDE (sender), 0::BIGINT AS {ASKED} FROM held LIMIT 0")
        self._db.execute("CREATE TABLE wanted (person VARCHAR)")
        self._db.execute(f"""PREPARE fresh AS SELECT * EXCLUDE (position) FROM ({query})
            WHERE user_id IN (SELECT person FROM wanted) ORDER BY user_id""")

    def add(self, rows: Iterable[Row], corrected: Iterable[str]) -> None:
        """Follow the history: rows that are new there, and senders of whom an event was replaced."""
        self.forget(corrected)
        self._insert([row for row in rows if row.sender in self._held])

    def forget(self, senders: Iterable[str]) -> None:
        """Read these senders' events again when they are next needed."""
        gone = [s for s in senders if s in self._held]
        if gone:
            self._events -= sum(self._held.pop(s) for s in gone)
            self._db.execute("DELETE FROM held WHERE sender IN (SELECT unnest(?))", [gone])

    def rows(self, persons: Iterable[str], now_us: int) -> pa.Table:
        """user_id, ts_us, valid_until_us (µs) and the features in force at `now_us`, by user_id, as `as_of` gives them.

        A person of whom nothing is known, or who has become another one, has none.
        """
        persons = list(persons)
        senders = self.store.senders_of(persons)
        self._load(senders)
        self._db.execute("DELETE FROM ev")
        self._db.execute(
            f"INSERT INTO ev SELECT * EXCLUDE (sender), {now_us} FROM held WHERE sender IN (SELECT unnest(?))",
            [list(senders)],
        )
        self._db.execute("DELETE FROM wanted")
        self._db.execute("INSERT INTO wanted SELECT unnest(?)", [persons])
        return self._db.execute("EXECUTE fresh").to_arrow_table()

    def _load(self, senders: Iterable[str]) -> None:
        missing = [s for s in senders if s not in self._held]
        if not missing:
            return
        if self._events > MOST_HELD:
            self._db.execute("DELETE FROM held")
            self._held, self._events, missing = {}, 0, list(senders)
        self._held |= dict.fromkeys(missing, 0)
        self._insert(self.store.events(missing))

    def _insert(self, rows: list[Row]) -> None:
        if not rows:
            return
        columns: Mapping[str, tuple[object, ...]] = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
        incoming = pa.table({f.name: pa.array(columns[f.name], f.type) for f in SCHEMA}, schema=SCHEMA)
        self._db.register("incoming", incoming)
        self._db.execute(f"INSERT INTO held SELECT *, {SENDER} FROM ({self._typed})")
        for row in rows:
            self._held[row.sender] += 1
        self._events += len(rows)
