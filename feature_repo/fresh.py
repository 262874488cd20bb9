"""Features of some people as of now, from a working set of their events that stays in memory.

The compiled `as_of` runs in DuckDB over typed events. A sender's events are read from the history once and stay, new
ones are added as they come, so that a decision or an event costs the query alone. What others do to the history shows
in the senders' versions.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import duckdb
import ibis
import pyarrow as pa
from ibis.expr.types import Table

from feature_repo import domains
from feature_repo.as_of import ASKED, additive, as_of, leaf_rows
from feature_repo.change_points import change_point_rows
from feature_repo.domain import Domain
from feature_repo.history import typed
from feature_repo.history_store import Added, HistoryStore, Row, Version
from feature_repo.lake_sql import SCHEMA, SENDER
from feature_repo.program import Program
from feature_repo.terms import without

MOST_HELD = 500_000
"""Events in the working set before it is emptied."""
TRIES = 5
"""How often people's events are read anew because some came in between."""


def _trail(events: Table, domain: Domain, program: Program, folded: Table | None) -> Table:
    return without(change_point_rows(events, domain, program), "person")


FORMS = {"fresh": as_of, "leaves": leaf_rows, "fresh_folded": as_of, "leaves_folded": leaf_rows, "trail": _trail}
"""What can be asked of the working set; `_folded` where somebody has a checkpoint."""


@cache
def statements(domain_name: str) -> dict[str, str]:
    """DuckDB's SQL of `typed` over a table `incoming`, and of each form over `ev` and `folded`."""
    domain = domains.load(domain_name)
    seen = typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="incoming"), domain)
    asked = ibis.table({**seen.schema(), ASKED: "int64"}, name="ev")
    folded = ibis.table({"person": "string"} | dict.fromkeys(additive(domain), "int64"), name="folded")
    found = {"typed": ibis.to_sql(seen, dialect="duckdb")}
    for name, form in FORMS.items():
        program = Program()
        result = form(asked, domain, program, folded if name.endswith("_folded") else None)
        found[name] = program.compiled(result).statement()
    return found


@dataclass
class _Held:
    """A sender in the working set: its version in the history, how many events, the position at which that was true."""

    version: Version
    events: int
    since: int


class Fresh:
    """The rows in force of single people. Not for several threads at once."""

    def __init__(self, domain_name: str, store: HistoryStore) -> None:
        self.store = store
        self.domain = domains.load(domain_name)
        self._held: dict[str, _Held] = {}
        self._events = 0
        self._prepared: set[str] = set()
        self.db = duckdb.connect(config={"threads": 1})
        # a prepared plan would keep what statistics promised when it was made: no nulls, no rows
        self.db.execute("SET disabled_optimizers = 'statistics_propagation'")
        self._prepare()

    def _prepare(self) -> None:
        compiled = statements(self.domain.name)
        self._typed = compiled["typed"]
        self.db.register("incoming", SCHEMA.empty_table())
        self.db.execute(f"CREATE TABLE held AS SELECT *, '' AS sender FROM ({self._typed}) LIMIT 0")
        self.db.execute(f"CREATE TABLE ev AS SELECT * EXCLUDE (sender), 0::BIGINT AS {ASKED} FROM held LIMIT 0")
        self.db.execute("CREATE TABLE wanted (person VARCHAR)")
        sums = ", ".join(f"{name} BIGINT" for name in additive(self.domain))
        self.db.execute(f"CREATE TABLE folded (person VARCHAR, {sums})")
        for form in FORMS:
            if form != "trail":  # few ask for it, and it takes as long to prepare as the others together
                self._prepare_form(form)

    def _prepare_form(self, form: str) -> None:
        self.db.execute(f"""PREPARE {form} AS SELECT * EXCLUDE (position) FROM ({statements(self.domain.name)[form]})
            WHERE user_id IN (SELECT person FROM wanted) ORDER BY user_id, ts_us""")
        self._prepared.add(form)

    def add(self, added: Added) -> None:
        """Follow what was added to the history, as far as nobody else has changed anything of these senders."""
        mine = {s for s, change in added.before.items() if s in self._held and self._held[s].version.change == change}
        mine -= added.corrected
        self._insert([row for row in added.new if row.sender in mine])
        for sender in mine:
            self._held[sender].version = self._held[sender].version._replace(change=added.change)

    def forget(self, senders: Iterable[str]) -> None:
        """Read these senders' events again when they are next needed."""
        gone = [s for s in senders if s in self._held]
        if gone:
            self._events -= sum(self._held.pop(s).events for s in gone)
            self.db.execute("DELETE FROM held WHERE sender IN (SELECT unnest(?))", [gone])

    def events(self, sender: str) -> int:
        """How many events of this sender are in the working set."""
        return self._held[sender].events if sender in self._held else 0

    def heavy(self, senders: Iterable[str], than: int) -> set[str]:
        """Those of these senders who have more events than that which are not folded."""
        held = {s: self._held[s].events for s in senders if s in self._held}
        return {s for s, n in held.items() if n > than} | self.store.heavy(set(senders).difference(held), than)

    def rows(self, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """The rows in force at `now_us`, and the position up to which the events are in them.

        Columns: user_id, ts_us, valid_until_us (µs) and the features, by user_id, as `as_of` gives them. A person of
        whom nothing is known, or who has become another one, has none.
        """
        return self.run("fresh", persons, now_us)

    def run(self, form: str, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """`rows`, or with form `leaves` the leaves in place of the features, or with `trail` a row each change point.

        A trail knows nothing of checkpoints: it is that of the events that are not folded.
        """
        persons = list(persons)
        with self.store.snapshot():
            senders, position, folded = self._look(persons)
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
        if form not in self._prepared:
            self._prepare_form(form)
        if folded and form != "trail":
            self.db.execute("DELETE FROM folded")
            marks = ", ".join("?" * (1 + len(additive(self.domain))))
            self.db.executemany(f"INSERT INTO folded VALUES ({marks})", [[p, *base] for p, base in folded.items()])
            form = f"{form}_folded"
        return self.db.execute(f"EXECUTE {form}").to_arrow_table()

    def _look(self, persons: list[str]) -> tuple[set[str], int, dict[str, tuple[int, ...]]]:
        """Whose events these persons' rows need, brought into the working set; the position; bases of checkpoints."""
        senders: set[str] = set()
        for _ in range(TRIES):
            senders = self.store.senders_of(persons)
            versions, position = self.store.versions(senders), self.store.position()
            self._load(versions, position)
            folded = {p: c.base for p, c in self.store.checkpoints(persons).items() if not c.broken}
            if self.store.senders_of(persons) == senders and self.store.versions(senders) == versions:
                break
        return senders, position, folded

    def _load(self, versions: Mapping[str, Version], position: int) -> None:
        """Make the working set what the history has of these senders."""
        behind = {s: v for s, v in versions.items() if s not in self._held or self._held[s].version != v}
        wanted = sum(self._held[s].events for s in versions if s in self._held)
        if behind and self._events - wanted > MOST_HELD:
            self.db.execute("DELETE FROM held")
            self._held, self._events, behind = {}, 0, dict(versions)
        held = {s: self._held[s].version for s in behind if s in self._held}
        self.forget([s for s, version in held.items() if not 0 < behind[s].rewritten <= version.change])
        for sender in [s for s in behind if s in self._held]:
            self._follow(sender)
        self._begin([s for s in behind if s not in self._held])
        for sender, version in versions.items():
            self._held[sender].version, self._held[sender].since = version, position

    def _begin(self, senders: Collection[str]) -> None:
        self._held |= {s: _Held(Version(0, 0), 0, 0) for s in senders}
        if senders:
            self._insert(self.store.events(senders))

    def _follow(self, sender: str) -> None:
        """Somebody else has added events of this sender."""
        new = self.store.events([sender], self._held[sender].since)
        ids = [row.message_id for row in new]
        gone = "DELETE FROM held WHERE sender = ? AND message_id IN (SELECT unnest(?))"
        removed = self.db.execute(gone, [sender, ids]).fetchone()
        self._count(sender, -(removed[0] if removed else 0))
        self._insert(new)

    def _insert(self, rows: list[Row]) -> None:
        if not rows:
            return
        columns: Mapping[str, tuple[object, ...]] = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
        incoming = pa.table({f.name: pa.array(columns[f.name], f.type) for f in SCHEMA}, schema=SCHEMA)
        self.db.register("incoming", incoming)
        self.db.execute(f"INSERT INTO held SELECT *, {SENDER} FROM ({self._typed})")
        for row in rows:
            self._count(row.sender, 1)

    def _count(self, sender: str, more: int) -> None:
        self._held[sender].events += more
        self._events += more
