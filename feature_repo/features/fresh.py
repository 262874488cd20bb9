"""Features of people with many events as of now: the compiled `as_of` runs in DuckDB over a working set of them.

Its cost grows little with the events, but one person of few events costs several milliseconds: see quick.py.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache

import duckdb
import ibis
import pyarrow as pa
from ibis.expr.types import Table

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.features.as_of import ASKED, additive, as_of, leaf_rows
from feature_repo.features.change_points import change_point_rows
from feature_repo.features.history import typed
from feature_repo.features.program import Program
from feature_repo.features.terms import WIDE, without
from feature_repo.history.history_store import HistoryStore, Row
from feature_repo.history.working_set import WorkingSet
from feature_repo.lake.lake_sql import SCHEMA, SENDER

MOST_HELD = 500_000


def _trail(events: Table, domain: Domain, program: Program, folded: Table | None) -> Table:
    return without(change_point_rows(events, domain, program), "person")


FORMS = {"fresh": as_of, "leaves": leaf_rows, "fresh_folded": as_of, "leaves_folded": leaf_rows, "trail": _trail}
"""What can be asked of the working set; `_folded` where somebody has a checkpoint."""


@cache
def statement(domain_name: str, form: str) -> str:
    """DuckDB's SQL of a form over tables `ev` and `folded`, or, with form `typed`, of that over a table `incoming`."""
    domain, program = domains.load(domain_name), Program()
    seen = typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="incoming"), domain)
    if form == "typed":
        return str(ibis.to_sql(seen, dialect="duckdb"))
    asked = ibis.table({**seen.schema(), ASKED: "int64"}, name="ev")
    folded = ibis.table({"person": "string"} | dict.fromkeys(additive(domain), WIDE), name="folded")
    result = FORMS[form](asked, domain, program, folded if form.endswith("_folded") else None)
    return program.compiled(result).statement()


class Fresh(WorkingSet):
    """A WorkingSet in DuckDB."""

    def __init__(self, domain_name: str, store: HistoryStore) -> None:
        super().__init__(domain_name, store, MOST_HELD)
        self._prepared: set[str] = set()
        self.db = duckdb.connect(config={"threads": 1})
        # a prepared plan would keep what statistics promised when it was made: no nulls, no rows
        self.db.execute("SET disabled_optimizers = 'statistics_propagation'")
        self._typed = statement(domain_name, "typed")
        self.db.register("incoming", SCHEMA.empty_table())
        self.db.execute(f"CREATE TABLE held AS SELECT *, '' AS sender FROM ({self._typed}) LIMIT 0")
        self.db.execute(f"CREATE TABLE ev AS SELECT * EXCLUDE (sender), 0::BIGINT AS {ASKED} FROM held LIMIT 0")
        self.db.execute("CREATE TABLE wanted (person VARCHAR)")
        sums = ", ".join(f"{name} DECIMAL(38, 0)" for name in additive(self.domain))
        self.db.execute(f"CREATE TABLE folded (person VARCHAR, {sums})")

    def _prepare(self, form: str) -> None:
        self.db.execute(f"""PREPARE {form} AS SELECT * EXCLUDE (position) FROM ({statement(self.domain.name, form)})
            WHERE user_id IN (SELECT person FROM wanted) ORDER BY user_id, ts_us""")
        self._prepared.add(form)

    def rows(self, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """As WorkingSet's."""
        return self.run("fresh", persons, now_us)

    def older(self, senders: Iterable[str], than_us: int) -> dict[str, int]:
        """As WorkingSet's."""
        query = "SELECT sender, count(*) FROM held WHERE sender IN (SELECT unnest(?)) AND ts_us <= ? GROUP BY sender"
        return dict(self.db.execute(query, [list(senders), than_us]).fetchall())

    def run(self, form: str, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """`rows`, or with form `leaves` the leaves in place of the features, or with `trail` a row each change point.

        A trail knows nothing of checkpoints: it is that of the events that are not folded.
        """
        persons = list(persons)
        senders, position, folded = self.look(persons)
        self.db.execute("DELETE FROM ev")
        self.db.execute(
            f"""INSERT INTO ev SELECT * EXCLUDE (sender), {now_us} FROM held
                WHERE sender IN (SELECT unnest(?)) AND position <= {position}""",
            [list(senders)],
        )
        return self.ask(form, persons, folded), position

    def ask(self, form: str, persons: list[str], folded: Mapping[str, tuple[int, ...]]) -> pa.Table:
        """What a form gives for these persons over the events in table `ev`."""
        self.db.execute("DELETE FROM wanted")
        self.db.execute("INSERT INTO wanted SELECT unnest(?)", [persons])
        if folded and form != "trail":
            self.db.execute("DELETE FROM folded")
            marks = ", ".join("?" * (1 + len(additive(self.domain))))
            self.db.executemany(f"INSERT INTO folded VALUES ({marks})", [[p, *base] for p, base in folded.items()])
            form = f"{form}_folded"
        if form not in self._prepared:
            self._prepare(form)
        return self.db.execute(f"EXECUTE {form}").to_arrow_table()

    def _take(self, rows: Sequence[Row]) -> None:
        columns: Mapping[str, tuple[object, ...]] = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
        incoming = pa.table({f.name: pa.array(columns[f.name], f.type) for f in SCHEMA}, schema=SCHEMA)
        self.db.register("incoming", incoming)
        self.db.execute(f"INSERT INTO held SELECT *, {SENDER} FROM ({self._typed})")

    def _drop(self, senders: Sequence[str]) -> None:
        self.db.execute("DELETE FROM held WHERE sender IN (SELECT unnest(?))", [senders])

    def _replace(self, sender: str, message_ids: Collection[str]) -> int:
        gone = "DELETE FROM held WHERE sender = ? AND message_id IN (SELECT unnest(?))"
        removed = self.db.execute(gone, [sender, list(message_ids)]).fetchone()
        return int(removed[0]) if removed else 0
