"""From the event log to the online store: every event counts once, and rows change on time.

poll ─► history (durable, with its position) ─► ack
             `─► whose rows are due, by an event or by the clock ─► as_of(now) ─► online rows ─► when they are due next

At least once over idempotent writes: the history knows every copy of a message, and whoever is touched is due there
until their row has been written. So a kill at any moment costs nothing but doing the last batch again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import domains
from feature_repo.event_log import Delivered, EventLog
from feature_repo.fresh import Fresh
from feature_repo.history_store import NEVER, HistoryStore, Written, row_of
from feature_repo.settings import Settings, now_us
from feature_repo.store import delete_online, feature_store, write_online

MOST_EVENTS = 1_000
"""Events that are applied together."""
MOST_PERSONS = 500
"""Rows that are computed together."""
TICK_S = 0.25
"""How often it is looked whose rows have changed by themselves."""

_log = logging.getLogger(__name__)


class Processor:
    """Applies events to the history and keeps the online rows up to date. Safe from several threads."""

    def __init__(self, settings: Settings, history: HistoryStore, clock: Callable[[], int] = now_us) -> None:
        self.history = history
        self.clock = clock
        self._domain = domains.load(settings.domain)
        self._fresh = Fresh(settings.domain, history)
        self._store = feature_store(settings, lineage=False)
        self._lock = threading.RLock()

    def apply(self, delivered: Sequence[Delivered]) -> None:
        """Take events in, durably: after this they can be acked."""
        with self._lock:
            self._take_in(delivered)

    def _take_in(self, delivered: Sequence[Delivered]) -> None:
        after = self.history.position()
        rows = []
        for n, d in enumerate(delivered, 1):
            position = after + n if d.position is None else d.position
            if position > after:
                rows.append(row_of(position, d.event))
        added = self.history.add(rows)
        self._fresh.add(added.new, added.corrected)

    def refresh(self, most: int = MOST_PERSONS) -> int:
        """Write the rows of up to `most` persons who are due by now; returns how many were due."""
        with self._lock:
            persons = self.history.due(self.clock(), most)
            if persons:
                self._write(persons)
            return len(persons)

    def rows(self, persons: Iterable[str], at_us: int) -> tuple[pa.Table, int]:
        """The rows in force at a time, as `Fresh.rows` gives them, and the position of the last event applied."""
        with self._lock:
            found = self._fresh.rows(persons, at_us)
            return found.filter(pc.is_valid(found["ts_us"])), self.history.position()

    def _write(self, persons: Sequence[str]) -> None:
        """Bring the online rows of these persons up to date, then note when they are next due.

        A row's timestamp never goes back, as a correction can move somebody's newest change point; its position is
        that of the last event applied: so the online store's order lets it replace what was believed before.
        """
        found = self._fresh.rows(persons, self.clock())
        before = self.history.written(persons)
        note: dict[str, Written | None] = dict.fromkeys(persons)
        for person, ts_us, until in zip(
            *(found[c].to_pylist() for c in ("user_id", "ts_us", "valid_until_us")), strict=True
        ):
            if ts_us is not None or until is not None:
                note[person] = Written(max(NEVER if ts_us is None else ts_us, before[person].event_us), until)
        rows = found.filter(pc.is_valid(found["ts_us"]))
        there = rows["user_id"].to_pylist()
        if there:
            moments = [w.event_us for p in there if (w := note[p])]
            write_online(self._store, self._domain, _offline(rows, moments, self.history.position()))
        gone = [p for p in set(persons).difference(there) if before[p].event_us != NEVER]
        if gone:
            delete_online(self._store, self._domain, gone)
        self.history.note(note)


def _offline(rows: pa.Table, moments: Sequence[int], position: int) -> pa.Table:
    """The rows in the columns of the offline rows, with these event timestamps (µs)."""
    us = pa.timestamp("us", "UTC")
    at = pa.array([position] * len(rows), pa.int64())
    for name, column in (
        ("event_timestamp", pa.array(moments, pa.int64()).cast(us)), ("created", at.cast(us)), ("applied_position", at),
    ):  # fmt: skip
        rows = rows.append_column(name, column)
    return rows


class Stream:
    """A thread that applies what the log delivers, and what the clock makes due.

    An error of the log, the history or the online store is told and tried again: nothing is acked before it is applied.
    """

    def __init__(self, log: EventLog, processor: Processor) -> None:
        self.log, self.processor = log, processor
        self.applied = processor.history.position()
        self.error: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> "Stream":
        """Begin; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Finish the batch under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        looked_s, delivered = 0.0, list[Delivered]()
        while not self._stop.is_set():
            try:
                delivered = delivered or self.log.poll(MOST_EVENTS, TICK_S)
                if delivered:
                    self.processor.apply(delivered)
                    self.log.ack(delivered)
                if delivered or time.monotonic() - looked_s >= TICK_S:
                    looked_s = time.monotonic()
                    self._settle()
                self.error, delivered = None, []
            except Exception as e:  # whatever it is, the batch under way is kept
                if self.error is None:
                    _log.exception("the stream cannot go on, and tries again")
                self.error = f"{type(e).__name__}: {e}"
                self._stop.wait(1)

    def _settle(self) -> None:
        """Write whoever is due; once nobody is, all that was applied can be seen online."""
        position = self.processor.history.position()
        while not self._stop.is_set():
            if self.processor.refresh() < MOST_PERSONS:
                self.applied = position
                return
