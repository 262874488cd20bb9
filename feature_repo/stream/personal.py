"""A single person's own past, for who follows people event by event: their events, and their row at each change point.

history ─► events that are this person's by now          history ─► a row for every moment at which a feature changed
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc

from feature_repo.contract.events import ANONYMOUS
from feature_repo.features.quick import Quick
from feature_repo.history.history_store import NEVER, HistoryStore, Row, Version
from feature_repo.lake.past import Past
from feature_repo.settings import Settings
from feature_repo.stream.slow_lane import SlowLane

Edge = tuple[int, str, str]
"""(timestamp µs, message id, user): from then on an anonymous id is that user."""
NOTHING = Version(0, 0)
FEW, STEPS = 500, 500
"""Events of a sender, and rows, up to which a trail is found row by row: beyond, one query for all is faster."""
AT_ONCE = 5_000
"""Rows of a long trail that are in memory as Python objects."""


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


class Heavy(Exception):
    """A person's past takes longer to read than others shall wait."""


class Personal:
    """Reads a history, by an object of its own. Not for several threads at once.

    most: events of a sender that may have to be read at once; null: however many.
    """

    def __init__(self, settings: Settings, history: HistoryStore, most: int | None = None) -> None:
        self.history, self._most = history.reader(), most
        self._lane = SlowLane(settings.domain, self.history, Past(settings))
        self._quick = Quick(settings.domain, self.history)

    def news(self, person: str, known: Known | None, at_us: int) -> News:
        """The person's events that came since; all of them where more has changed than that some came.

        known: null: nothing yet. at_us: events, and identity edges, up to then count.

        Raises:
            Heavy: that are more than `most`.
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
        self._at_hand(person)
        with self.history.snapshot():
            senders = self.history.senders_of([person])
            versions, position = self.history.versions(senders), self.history.position()
            rows = self.history.events(senders)
        return News(owned(rows, person, at_us), Known(versions, position, _later(rows, at_us)), True)

    def trail(self, person: str, at_us: int, since_us: int = NEVER) -> Iterable[dict[str, Any]]:
        """The rows in force from each change point up to `at_us` on, the oldest first: see `at_change_points`.

        since_us: those that ended by then are left out, or not. Of somebody whose older events are behind a checkpoint,
        and where there are many rows, only the row in force at `at_us`.

        Raises:
            Heavy: they come of more than `most` events.
        """
        self._at_hand(person)
        senders = self.history.senders_of([person])
        few = not self.history.heavy(senders, FEW)
        if few and (rows := self._quick.trail(person, since_us, at_us, STEPS)) is not None:
            return rows
        if self.history.checkpoints([person]):
            found, _ = self._lane.rows([person], at_us)
            return found.filter(pc.is_valid(found["ts_us"])).to_pylist()
        found, _ = self._lane.fresh.run("trail", [person], at_us)
        until = pc.fill_null(found["valid_until_us"], at_us + 1)
        found = found.filter(pc.and_(pc.less_equal(found["ts_us"], at_us), pc.greater(until, since_us)))
        return (row for some in found.to_batches(max_chunksize=AT_ONCE) for row in some.to_pylist())

    def _at_hand(self, person: str) -> None:
        """Have this person's past in the history, unless that is too much."""
        if self._lane.heavy([person], self._most):
            raise Heavy(f"{person} has more than {self._most:,} events")

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
    """Of the events of some senders those that are this person's at `at_us`, as feature_repo.features.history has it.

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
