"""Applies events to the history, and writes the online rows of whoever that, or the clock, has made due.

events ─► history (durable, with the log position)
whose rows are due ─► lane (quick, slow, heavy) ─► as_of(now) ─► online rows ─► when they are due next

Whoever is touched is due in the history until their row has been written, so a kill at any moment costs nothing but
doing the last batch again. In the slower lanes (see slow_lane.py) are those whose row takes long to compute, so that
nobody else waits. A user whose row fails is set aside (isolation.py): they are due again with their next event, and
when the program starts again, as it may have been mended.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pyarrow as pa

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.features.folding import foldable
from feature_repo.features.saturation import Watch
from feature_repo.history.history_store import UNNUMBERED, HistoryStore, row_of
from feature_repo.history.working_set import WorkingSet
from feature_repo.log.event_log import Delivered
from feature_repo.settings import Settings, now_us
from feature_repo.stream import isolation
from feature_repo.stream.online_rows import OnlineRows
from feature_repo.stream.slow_lane import AT_ONCE, Lanes, Past, SlowLane, needs_past

MOST_PERSONS = 200
"""Rows that are computed together."""
WHILE_ONE_WAITS = 50
"""The same while a decision waits for one of them."""
_log = logging.getLogger(__name__)


class Processor:
    """Applies events to the history and keeps the online rows up to date. Safe from several threads.

    past: reads events of senders whose past was left in the lake.
    refuses: of whom nothing more is taken, although the log holds it.
    slow: persons who have events that are applied and not in their row, because they are in the slow lane.
    aside: users who are set aside because their row fails, each with the reason.
    saturated: whose sums are at a limit of int64.
    on_written: is told whose rows have been written; it must not wait.
    reached: the log position up to which events are applied: in the row of whoever is not `behind`.
    awaited: whether somebody waits for an event that is not applied yet.
    """

    def __init__(
        self,
        settings: Settings,
        history: HistoryStore,
        clock: Callable[[], int] = now_us,
        past: Past | None = None,
        refuses: Callable[[Event], bool] = lambda _: False,
    ) -> None:
        self.history, self.clock, self._refuses = history, clock, refuses
        self.aside = history.aside()
        history.defer(self.aside)
        self.slow = history.deferred()
        self.on_written: Callable[[Sequence[str]], object] = lambda persons: None
        self._rows, self.saturated = OnlineRows(settings), Watch(domains.load(settings.domain))
        self._lanes = Lanes(settings.domain, history, past)
        self._mine: dict[str, int] = {}
        self._first: dict[str, None] = {}
        self._heavy: dict[str, None] = {}
        self.awaited = False
        self.reached = history.position()

    def apply(self, delivered: Sequence[Delivered]) -> None:
        """Take events in, durably: after this they can be acked."""
        with self._lanes.lock:
            rows = [row_of(d.position or UNNUMBERED, d.event) for d in delivered if not self._refuses(d.event)]
            added = self.history.add(rows)
            try:
                self._lanes.quick.add(added)
            except Exception as error:
                if isolation.of_a_store(error):
                    raise
                self._lanes.quick.forget(added.before)  # they are read again, and who fails is set aside, in `refresh`
            for person in added.touched:
                self._mine.setdefault(person, self.reached)
            self.reached = self.history.position()

    def reach(self, position: int) -> None:
        """Everything up to this log position was applied or erased, or is no event."""
        if position > self.reached:
            with self._lanes.lock:
                self.history.keep([], position)
                self.reached = self.history.position()

    def behind(self, person: str) -> bool:
        """Whether an event that is applied is not in this person's row."""
        return person in self._mine or person in self.slow

    def hurry(self, persons: Iterable[str]) -> None:
        """Somebody waits for these persons' rows: they come before the others'."""
        persons = list(persons)
        self._first |= dict.fromkeys(persons)
        self.awaited |= any(p not in self._mine and p not in self.slow for p in persons)

    @property
    def hurried(self) -> bool:
        """Whether a row that somebody waits for can be written."""
        return any(p in self._mine for p in list(self._first))

    @property
    def waiting(self) -> bool:
        """Whether anybody who was touched waits for their row, but for those in the slow lane."""
        return bool(self._mine)

    @property
    def settled(self) -> int:
        """The log position up to which everybody's row has their events, but for the slow lane; for the one thread."""
        return next(iter(self._mine.values()), self.reached)

    def refresh(self, most: int = MOST_PERSONS) -> int:
        """Write the rows of up to `most` persons who are due by now; returns how many were due."""
        with self._lanes.lock:
            now = self.clock()
            first = [p for p in list(self._first) if p in self._mine]
            most = min(most, WHILE_ONE_WAITS) if first else most
            persons = list(dict.fromkeys([*first, *self._mine]))[:most] or self.history.claim(now, most)
            slow = needs_past(self._lanes.quick, persons) | self._lanes.working_on.intersection(persons)
            self.history.defer(slow, now)
            self.slow |= {p for p in slow if self.history.unsettled(p)}
            if slow:
                self._lanes.slow.more()
            quick = [p for p in persons if p not in slow]
            if quick and (written := self._write(self._lanes.quick, self.history, quick, now)):
                self.history.defer(foldable(self._lanes.quick, written, now), now)
            for person in persons:
                self._mine.pop(person, None)
                self._first.pop(person, None)
            if not self._mine:
                self._first.clear()
            return len(persons)

    def refresh_slow(self, patience_s: float = 0.0) -> int:
        """The same for some of those in the slow lane; returns how many. Others may go on meanwhile.

        Those with so many events that their row takes seconds are left to `refresh_heavy`.

        patience_s: where there is nobody, how long to wait for somebody.
        """
        lane = self._lanes.slow
        with lane.lock:
            due = lane.history.claim(self.clock(), AT_ONCE + len(self._heavy), slow=True)
            persons = [p for p in due if p not in self._heavy]
            with lane.working(persons):
                if heavy := self._lanes.too_heavy(persons):
                    self._heavy |= dict.fromkeys(p for p in persons if p in heavy)
                    self._lanes.heavy.more()
                light = [p for p in persons if p not in heavy]
                self._write_slow(lane, light)
        if not light:
            lane.wait(patience_s)
        return len(light)

    def refresh_heavy(self, patience_s: float = 0.0) -> int:
        """The same for one of those whom `refresh_slow` has left; returns how many."""
        lane, person = self._lanes.heavy, next(iter(list(self._heavy)), None)
        if person is None:
            lane.wait(patience_s)
            return 0
        with lane.lock, lane.working([person]):
            del self._heavy[person]  # from here on they may be left again
            if lane.history.unsettled(person, self.clock()):
                self._write_slow(lane, [person])
        return 1

    def _write_slow(self, lane: SlowLane, persons: Sequence[str]) -> None:
        if not persons:
            return
        written = self._write(lane, lane.history, persons, self.clock())
        for error in isolation.failures(written, partial(lane.fold, now_us=self.clock())).values():
            _log.warning("a user's old events are not folded, and their rows cost more: %s", isolation.where(error))
        with self._lanes.lock:  # nobody is touched meanwhile
            self.slow -= {p for p in persons if not lane.history.unsettled(p)}

    def _write(
        self, lane: WorkingSet | SlowLane, history: HistoryStore, persons: Sequence[str], at_us: int
    ) -> list[str]:
        """Write the rows of these users, and set aside those whose row fails; returns the others."""
        known = history.position()

        def write(some: Sequence[str]) -> None:
            found, by = lane.rows(some, at_us)
            written = self._rows.write(some, found, by)
            self.saturated.see(some, found)
            history.note(written, by)

        failed = isolation.failures([p for p in persons if p not in self.aside], write)
        for person in [p for p in persons if p in self.aside]:  # who failed before is tried alone
            failed |= isolation.failures([person], write)
        if failed:
            history.set_aside({p: isolation.reason(error) for p, error in failed.items()}, known)
        for person, error in failed.items():
            if person not in self.aside:
                _log.error(
                    "the row of a user cannot be computed or written: %s. The user is set aside until their next event "
                    "or the next start, and everybody else goes on; `python -m feature_repo lag` shows who it is",
                    isolation.where(error),
                )
            self.aside[person] = isolation.reason(error)
        written = [p for p in persons if p not in failed]
        for person in written:
            self.aside.pop(person, None)
        self.on_written(written)
        return written

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """The rows in force at a time, and the position of the last event applied, see `Lanes.rows`."""
        return self._lanes.rows(persons, at_us, patient)

    def erase(
        self, senders: Sequence[str], again: Sequence[str], touched: Sequence[str], drained: Callable[[], object]
    ) -> int:
        """Forget these senders; returns how many events the history had of them.

        again: senders of whom the lake knows better now than the history, once `drained` has given it what was applied.
        touched: persons whose rows that changes; they are written anew.
        """
        with self._lanes.heavy.lock, self._lanes.slow.lock, self._lanes.lock:
            drained()
            gone = forget(self.history, senders, again, touched)
            for held in (self._lanes.quick, self._lanes.slow.fresh, self._lanes.heavy.fresh):
                held.forget([*senders, *again])
            for person in senders:
                self.aside.pop(person, None)
            self.saturated.forget(senders)
            if touched:
                self._write(self._lanes.slow, self.history, touched, self.clock())
            return gone

    def close(self) -> None:
        """Let go of what was opened here."""
        self._lanes.close()


def forget(history: HistoryStore, senders: Sequence[str], again: Sequence[str], touched: Sequence[str]) -> int:
    """Take senders out of a history; returns how many events that were.

    again: the lake knows better of these than the history. touched: whose rows that changes: due, in the slow lane.
    """
    gone = history.erase(senders)
    history.leave(again)
    history.unfold(touched)
    history.defer(touched)
    return gone
