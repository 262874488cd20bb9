"""Features of people with few events as of now, in plain Python: a fraction of a millisecond a person."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa

from feature_repo.contract.events import ANONYMOUS
from feature_repo.features.plain import Edge, Seen, plain
from feature_repo.history.history_store import HistoryStore, Row
from feature_repo.history.working_set import WorkingSet

MOST_HELD = 200_000
"""Of about half a kilobyte each."""
ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}


class Quick(WorkingSet):
    """A WorkingSet of Python objects."""

    def __init__(self, domain_name: str, store: HistoryStore) -> None:
        super().__init__(domain_name, store, MOST_HELD)
        self._plain = plain(domain_name)
        self._seen: dict[str, dict[str, Seen]] = {}
        self._edges: dict[str, dict[str, dict[str, Row]]] = {}
        types = {"ts_us": "int64", "valid_until_us": "int64", "user_id": "string", **self.domain.feature_types}
        self._schema = pa.schema([(name, ARROW[kind]) for name, kind in types.items()])

    def rows(self, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """As WorkingSet's."""
        persons = sorted(set(persons))
        senders, position, folded = self.look(persons)
        edges, rows = self._edges_of(senders, position), []
        for person in persons:
            if row := self._plain.row(person, self._past(person, position), edges, now_us, folded.get(person, ())):
                rows.append((row.ts_us, row.valid_until_us, person, *row.values))
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
        return pa.table(arrays, schema=self._schema), position

    def trail(self, person: str, since_us: int, through_us: int, most: int) -> list[dict[str, Any]] | None:
        """The rows in force from `since_us` through `through_us`, the oldest first, each where the one before it ends.

        None: there are more than `most`, or the person ends before.
        """
        senders, position, folded = self.look([person])
        edges, events, base = self._edges_of(senders, position), self._past(person, position), folded.get(person, ())
        found, moment = list[dict[str, Any]](), since_us
        for _ in range(most):
            if (row := self._plain.row(person, events, edges, moment, base)) is None:
                return None
            if row.ts_us is not None:
                values = (row.ts_us, row.valid_until_us, person, *row.values)
                found.append(dict(zip(self._schema.names, values, strict=True)))
            if row.valid_until_us is None or row.valid_until_us > through_us:
                return found
            moment = row.valid_until_us
        return None

    def _past(self, person: str, position: int) -> list[Seen]:
        """The events up to a position that can be this person's."""
        theirs = [person, *(f"{ANONYMOUS}{a}" for a in self._edges.get(person, ()))]
        return [e for s in theirs for e in self._seen.get(s, {}).values() if e.position <= position]

    def _edges_of(self, senders: Iterable[str], position: int) -> dict[str, list[Edge]]:
        """What these senders' events up to a position say, by anonymous id."""
        found: dict[str, list[Edge]] = {}
        for sender in senders:
            for anonymous, told in self._edges.get(sender, {}).items():
                edges = [Edge(r.ts_us, r.message_id, sender) for r in told.values() if r.position <= position]
                found.setdefault(anonymous, []).extend(edges)
        return {anonymous: sorted(edges) for anonymous, edges in found.items()}

    def older(self, senders: Iterable[str], than_us: int) -> dict[str, int]:
        """As WorkingSet's."""
        return {s: sum(e.ts_us <= than_us for e in self._seen.get(s, {}).values()) for s in senders}

    def _take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._seen.setdefault(row.sender, {})[row.message_id] = self._plain.seen(row)
            if row.edge:
                told = self._edges.setdefault(row.sender, {}).setdefault(row.edge[0], {})
                told[row.message_id] = row

    def _drop(self, senders: Sequence[str]) -> None:
        for sender in senders:
            self._seen.pop(sender, None)
            self._edges.pop(sender, None)

    def _replace(self, sender: str, message_ids: Collection[str]) -> int:
        held = self._seen.get(sender, {})
        return sum(held.pop(m, None) is not None for m in message_ids)
