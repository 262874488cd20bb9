"""A single person's own past, for who follows people event by event: their events, and their row at each change point.

history ─► events that are this person's by now          history ─► a row for every moment at which a feature changed
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc

from feature_repo.events import ANONYMOUS
from feature_repo.history_store import NEVER, HistoryStore, Row, Version
from feature_repo.past import Past
from feature_repo.quick import Quick
from feature_repo.settings import Settings
from feature_repo.slow_lane import SlowLane

Edge = tuple[int, str, str]
"""(timestamp µs, message id, user): from then on an anonymous id is that user."""


NOTHING = Version(0, 0)
FEW, STEPS = 500, 40
"""Events of a sender, and rows, up to which a trail is found row by row: beyond, one query for all is faster."""


class Known(NamedTuple):
    """How much of a person's past somebody knows: the senders' versions, and the log position, at which it was read.

    later_us: the first event of the senders that lies after the time of reading; null: none. µs.
    """

    versions: Mapping[str, Version]
    position: int
    later_us: int | None


class News(NamedTuple):
    """Events of a person, and what is known with them. whole: all of the person's events, not only the new ones."""

    events: list[Row]
    known: Known
    whole: bool


class Personal:
    """Reads a history, by an object of its own. Not for several threads at once."""

    def __init__(self, settings: Settings, history: HistoryStore) -> None:
        self.history = history.reader()
        self._lane = SlowLane(settings.domain, self.history, Past(settings))
        self._quick = Quick(settings.domain, self.history)

    def news(self, person: str, known: Known | None, at_us: int) -> News:
        """The person's events that came since; all of them where more has changed than that some came.

        known: null: nothing yet. at_us: events, and identity edges, up to then count.
        """
        with self.history.snapshot():
            senders = self.history.senders_of([person])
            versions, position = self.history.versions(senders), self.history.position()
            if known is not None and _follows(known, versions, at_us):
                if versions == known.versions:
                    return News([], known._replace(position=position), False)
                rows = self.history.events(senders, known.position)
                if all(row.edge is None and row.user_id == person for row in rows) or senders == {person}:
                    return News(owned(rows, person, at_us), Known(versions, position, _later(rows, at_us)), False)
        self._lane.fetch(senders)
        with self.history.snapshot():
            senders = self.history.senders_of([person])
            versions, position = self.history.versions(senders), self.history.position()
            rows = self.history.events(senders)
        return News(owned(rows, person, at_us), Known(versions, position, _later(rows, at_us)), True)

    def trail(self, person: str, at_us: int, since_us: int = NEVER) -> list[dict[str, Any]]:
        """The rows in force from each change point up to `at_us` on, the oldest first: see `at_change_points`.

        since_us: those that ended by then are left out, or not. Of somebody whose older events are behind a checkpoint,
        and where there are many rows, only the row in force at `at_us`.
        """
        senders = self.history.senders_of([person])
        self._lane.fetch(senders)
        if not self.history.heavy(senders, FEW) and (rows := self._row_by_row(person, at_us, since_us)) is not None:
            return rows
        if self.history.checkpoints([person]):
            found, _ = self._lane.rows([person], at_us)
            return found.filter(pc.is_valid(found["ts_us"])).to_pylist()
        found, _ = self._lane.fresh.run("trail", [person], at_us)
        return found.filter(pc.less_equal(found["ts_us"], at_us)).to_pylist()

    def _row_by_row(self, person: str, at_us: int, since_us: int) -> list[dict[str, Any]] | None:
        """The trail, each row found where the one before it ends; null: there are too many, or the person ends."""
        found, moment = list[dict[str, Any]](), since_us
        for _ in range(STEPS):
            rows = self._quick.rows([person], moment)[0].to_pylist()
            if not rows:
                return None
            if rows[0]["ts_us"] is not None:
                found += rows
            if (moment := rows[0]["valid_until_us"]) is None or moment > at_us:
                return found
        return None

    def close(self) -> None:
        """Let go of what was opened here."""
        self.history.close()


def _follows(known: Known, versions: Mapping[str, Version], at_us: int) -> bool:
    """Whether all that has changed is that new events came.

    NOTHING is the version of a sender who was left in the lake: what has been fetched of it since was known before.
    """
    if known.versions.keys() != versions.keys() or (known.later_us is not None and known.later_us <= at_us):
        return False
    before = ((v, known.versions[s]) for s, v in versions.items())
    return all(new == old or old == NOTHING or 0 < new.rewritten <= old.change for new, old in before)


def _later(rows: Sequence[Row], at_us: int) -> int | None:
    return min((row.ts_us for row in rows if row.ts_us > at_us), default=None)


def owned(rows: Iterable[Row], person: str, at_us: int) -> list[Row]:
    """Of the events of some senders those that are this person's at `at_us`, as feature_repo.history has it.

    An anonymous event belongs to the next edge on its id, else to the last one before it, else to nobody known.
    """
    rows = list(rows)
    edges: dict[str, list[Edge]] = {}
    for row in rows:
        if row.edge and row.ts_us <= at_us:
            edges.setdefault(row.edge[0], []).append((row.ts_us, row.message_id, row.edge[1]))
    for of_id in edges.values():
        of_id.sort()
    return [row for row in rows if row.ts_us <= at_us and _owner(row, edges) == person]


def _owner(row: Row, edges: dict[str, list[Edge]]) -> str:
    if row.user_id is not None:
        return row.user_id
    around: Sequence[Edge] = edges.get(row.anonymous_id or "", ())
    if not around:
        return f"{ANONYMOUS}{row.anonymous_id}"
    following = bisect_left(around, row.ts_us, key=lambda edge: edge[0])
    return around[min(following, len(around) - 1)][2]
