"""All forms of a domain's features over events given as dictionaries, for the tests of exactness."""

from typing import Any

import ibis
import pyarrow as pa

from feature_repo.domain import Domain
from feature_repo.features.as_of import as_of
from feature_repo.features.change_points import at_change_points
from feature_repo.features.history import typed
from feature_repo.features.plain import Edge, Plain
from feature_repo.features.program import Program
from feature_repo.history.history_store import Row as Kept
from feature_repo.lake.lake import SCHEMA

Row = dict[str, Any]


class Computer:
    """Compiled once, run for many histories."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.con = ibis.duckdb.connect(threads=1)
        events = ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="ev")
        asked = ibis.table({"t_us": "int64"}, name="asked")
        points, then, self._plain = Program(), Program(), Plain(domain)
        self.points = points.compiled(at_change_points(events, domain, points))
        self.then = then.compiled(as_of(typed(events, domain).mutate(asked_us=asked.t_us.as_scalar()), domain, then))

    def load(self, events: list[Row]) -> None:
        """Make these events the lake's canonical ones."""
        self.con.create_table("ev", pa.Table.from_pylist(events, SCHEMA), overwrite=True, temp=True)
        kept = [Kept(sender="", **e) for e in events]
        self._seen, self._edges = [self._plain.seen(row) for row in kept], dict[str, list[Edge]]()
        for row in kept:
            if row.edge:
                self._edges.setdefault(row.edge[0], []).append(Edge(row.ts_us, row.message_id, row.edge[1]))
        for edges in self._edges.values():
            edges.sort()

    def change_points(self) -> list[Row]:
        """All rows, in order."""
        query = self.points.run(self.con.raw_sql)
        rows = self.con.raw_sql(query).to_arrow_table().drop_columns("person").to_pylist()
        return sorted(rows, key=lambda r: (r["user_id"], r["ts_us"]))

    def as_of(self, t_us: int) -> dict[str, Row]:
        """The row in force at t of each entity."""
        self.con.raw_sql(f"create or replace temp table asked as select {t_us}::bigint as t_us")
        query = self.then.run(self.con.raw_sql)
        found = self.con.raw_sql(query).to_arrow_table().to_pylist()
        return {r["user_id"]: r for r in found if r["ts_us"] is not None}

    def plain(self, entity: str, t_us: int) -> Row | None:
        """The row in force at t of an entity, in plain Python."""
        found = self._plain.row(entity, self._seen, self._edges, t_us)
        if found is None or found.ts_us is None:
            return None
        times = {"user_id": entity, "ts_us": found.ts_us, "valid_until_us": found.valid_until_us}
        return times | dict(zip(self.domain.feature_types, found.values, strict=True))


def in_force(rows: list[Row], entity: str, t_us: int) -> Row | None:
    """Of all change points of an entity the row in force at t."""
    past = [r for r in rows if r["user_id"] == entity and r["ts_us"] <= t_us]
    if not past or (past[-1]["valid_until_us"] is not None and past[-1]["valid_until_us"] <= t_us):
        return None
    return past[-1]
