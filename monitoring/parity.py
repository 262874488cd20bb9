"""Parity: every feature vector that was served, against the lake as it was known then.

decision log ─► a world for each receipt: the person's events with a log position up to the receipt's ─► as_of(its time)

Not clocks but log positions say what was known. A compaction forgets copies of a message that do not count; where a
better copy came after a decision, that decision can no longer be recomputed once the lake has been compacted.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ibis
import pyarrow as pa
from rich.progress import Progress
from rich.table import Table

from feature_repo import domains
from feature_repo.as_of import ASKED, as_of
from feature_repo.domain import Domain
from feature_repo.elapsed import elapsed_seconds
from feature_repo.history import typed
from feature_repo.lake import Lake
from feature_repo.lake_sql import SCHEMA, SENDER
from feature_repo.log_to_lake import drain
from feature_repo.program import Program
from feature_repo.settings import Settings
from serving import decision_log
from serving.engine import STALE

AT_ONCE = 2_000
"""Receipts that are recomputed together."""
SHOWN = 10
FILE = "parity.json"
EDGE = "type in ('identify', 'alias') and user_id is not null and anonymous_id is not null"


@dataclass
class Parity:
    """What came of it: vectors compared and not comparable; for each feature how many differ, and how.

    mismatched: another value; missing: null was served where there is a value; extra: the other way round.
    """

    vectors: int = 0
    not_comparable: int = 0
    mismatched: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    extra: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Values that differ."""
        return sum(sum(c.values()) for c in (self.mismatched, self.missing, self.extra))

    def note(self, receipt: dict[str, Any], served: dict[str, Any], known: dict[str, Any] | None) -> None:
        """Compare one vector with what the lake gives; None: the lake knows nobody."""
        self.vectors += 1
        for name in served:
            came, wanted = served[name], known[name] if known else None
            if came == wanted and type(came) is type(wanted):
                continue
            kind = self.missing if came is None else self.extra if wanted is None else self.mismatched
            kind[name] += 1
            if len(self.examples) < SHOWN:
                example = {k: receipt[k] for k in ("decision_id", "user_id", "at_us", "applied_position")}
                self.examples.append(example | {"feature": name, "served": came, "recomputed": wanted})

    def figures(self) -> dict[str, Any]:
        """For parity.json."""
        kinds = {k: dict(sorted(getattr(self, k).items())) for k in ("mismatched", "missing", "extra")}
        counts = {"vectors": self.vectors, "not_comparable": self.not_comparable, "wrong": self.wrong}
        return counts | kinds | {"examples": self.examples}

    def table(self) -> Table:
        """One row for each feature that differs anywhere."""
        title = f"{self.vectors:,} served vectors against the lake, {self.not_comparable:,} not comparable"
        shown = Table("feature", "compared", "mismatched", "missing", "extra", title=title)
        for name in sorted(self.mismatched | self.missing | self.extra):
            shown.add_row(
                name, f"{self.vectors:,}", *(str(c[name]) for c in (self.mismatched, self.missing, self.extra))
            )
        return shown


def parity(settings: Settings, progress: bool = True) -> Parity:
    """Recompute every served vector of the decision log from the lake; also written to parity.json."""
    drain(settings)
    domain, found = domains.load(settings.domain), Parity()
    receipts = decision_log.read(settings.decisions).to_pylist()
    comparable = [r for r in receipts if r["features"] and r["applied_position"] and not _guessed(r)]
    found.not_comparable = len(receipts) - len(comparable)
    with Progress(disable=not progress, transient=True) as bar, _Recomputed(settings, domain) as recomputed:
        task = bar.add_task("parity", total=len(comparable))
        for start in range(0, len(comparable), AT_ONCE):
            some = comparable[start : start + AT_ONCE]
            for receipt, known in recomputed(some):
                served = json.loads(receipt["features"])
                found.note(receipt, served, _with_elapsed(domain, known, receipt["at_us"]))
            bar.advance(task, len(some))
    (settings.state / FILE).write_text(json.dumps(found.figures(), indent=2) + "\n")
    return found


def _guessed(receipt: dict[str, Any]) -> bool:
    """Whether the decision itself said that its features may be old."""
    return any(r == STALE or r.startswith("features as of ") for r in receipt["reasons"])


def _with_elapsed(domain: Domain, row: dict[str, Any] | None, at_us: int) -> dict[str, Any] | None:
    return row and row | {e.name: elapsed_seconds(at_us, row[e.of]) for e in domain.elapsed}


class _Recomputed:
    """The lake's rows of receipts: each is a world of its own, in which ids begin with the receipt's number."""

    def __init__(self, settings: Settings, domain: Domain) -> None:
        self._con = ibis.duckdb.connect()
        self._con.create_view("lake", Lake(settings.lake).new_since(self._con, 0))
        seen = typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="worlds"), domain)
        program = Program()
        self._typed = ibis.to_sql(seen, dialect="duckdb")
        asked = ibis.table({**seen.schema(), ASKED: "int64"}, name="ev")
        self._query = program.compiled(as_of(asked, domain, program)).statement()

    def __enter__(self) -> "_Recomputed":
        return self

    def __exit__(self, *_: object) -> None:
        self._con.disconnect()

    def __call__(self, receipts: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Each receipt with the row in force at its time by what was known then; None: nobody was."""
        run = self._con.raw_sql
        asked = [{"world": n, "person": r["user_id"], "reached": r["applied_position"], "at_us": r["at_us"]}
                 for n, r in enumerate(receipts)]  # fmt: skip
        self._con.con.register("asked", pa.Table.from_pylist(asked))
        run(f"""create or replace temp table hands as select distinct world, reached, anonymous_id
            from asked join lake on user_id = person and position <= reached where {EDGE}""")
        others = [c for c in SCHEMA.names if c not in ("user_id", "anonymous_id")]
        run(f"""create or replace temp table worlds as
            select {", ".join(others)}, world || '|' || user_id as user_id, world || '|' || anonymous_id as anonymous_id
            from (select world, lake.* from asked join lake on user_id = person and position <= reached
                union select world, lake.* from hands join lake using (anonymous_id)
                    where position <= reached and (user_id is null or {EDGE}))
            qualify row_number() over (partition by world, {SENDER}, message_id
                order by ts_us, content_hash, received_us, position) = 1""")
        run(f"""create or replace temp table ev as select seen.*, at_us as {ASKED} from ({self._typed}) seen
            join asked on world = split_part(coalesce(user_id, anonymous_id), '|', 1)::bigint""")
        rows = run(self._query).to_arrow_table().to_pylist()
        found = {r["user_id"]: r for r in rows if r["ts_us"] is not None}
        for n, receipt in enumerate(receipts):
            yield receipt, found.get(f"{n}|{receipt['user_id']}")
