"""From the event log to the online store: every event counts once, and rows change on time.

poll ─► processor: history (durable, with its position) ─► ack
             `─► whose rows are due, by an event or by the clock ─► as_of(now) ─► online rows ─► when they are due next

At least once over idempotent writes: the history knows every copy of a message, and nothing is acked before it is
there.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from feature_repo.contract.events import Event
from feature_repo.log.event_log import Delivered, EventLog
from feature_repo.stream.processor import MOST_PERSONS, Processor

MOST_EVENTS = 4_000
"""Events that are applied together: the more wait, the fewer rows have to be written for them."""
BEHIND_S = 2.0
"""For how long events go first while more wait than are applied together: the fewer rows have to be written."""
TICK_S = 0.25
"""How often it is looked whose rows have changed by themselves."""
MANY = 10
"""Rows that the slow lane has written at once from which on it rests."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Stream:
    """Threads: one applies what the log delivers, and what the clock makes due; one each is a slower lane.

    An error of the log, the history or the online store is told and tried again: nothing is acked before it is applied.
    applied: the position up to which everything is in the online rows, but for people in `processor.slow`; 0 until the
    rows are written that an earlier process left.
    begun: set once this one has its part of the log, and what came of it at first is applied.
    reopen: opens the log anew after an error of it, for one that has to be.
    polled: the position up to which `log.poll` has given everything, of a log that has positions.
    rest: how much longer than it worked the slow lane rests while many are due in it.
    """

    def __init__(
        self,
        log: EventLog,
        processor: Processor,
        reopen: Callable[[], EventLog] | None = None,
        polled: Callable[[], int] = lambda: 0,
        rest: float = 0.0,
    ) -> None:
        self._rest = rest
        self.log, self.processor, self._reopen, self._polled = log, processor, reopen, polled
        self.applied = 0
        self.begun = threading.Event()
        self._errors: dict[str, str] = {}
        self._stop = threading.Event()
        self._turn, self._next_turn = threading.Lock(), threading.Lock()
        self._delivered: list[Delivered] = []
        self._looked_s = 0.0
        self._caught_up = False
        self._threads = [
            threading.Thread(target=self._again, args=(step,), name=name, daemon=True)
            for name, step in (
                ("stream", self._step),
                ("slow lane", self._slow_step),
                ("heavy lane", lambda: processor.refresh_heavy(TICK_S)),
            )
        ]

    def start(self) -> "Stream":
        """Begin; returns itself."""
        for thread in self._threads:
            thread.start()
        return self

    def close(self) -> None:
        """Finish the batch under way."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.processor.close()

    @property
    def error(self) -> str | None:
        """Why it cannot go on, or None."""
        return "; ".join(self._errors.values()) or None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No event is applied meanwhile; it begins when the step under way has ended, also where that step failed."""
        with self._next_turn, self._turn:
            yield

    def drop(self, gone: Callable[[Event], bool]) -> None:
        """Do not apply those events of this kind that the log has delivered already. Only while `paused`."""
        dropped = [d for d in self._delivered if gone(d.event)]
        self._delivered = [d for d in self._delivered if not gone(d.event)]
        self.log.ack(dropped)

    def _again(self, step: Callable[[], object]) -> None:
        name = threading.current_thread().name
        while not self._stop.is_set():
            try:
                step()
                self._errors.pop(name, None)
            except Exception as e:  # whatever it is, the batch under way is kept
                if name not in self._errors:
                    _log.exception("the %s cannot go on, and tries again", name)
                self._errors[name] = f"{type(e).__name__}: {e}"
                self._stop.wait(1)

    def _slow_step(self) -> None:
        """One step of the slow lane; and, where many are due in it, a rest: events and questions come first."""
        began = time.monotonic()
        if self.processor.refresh_slow(TICK_S) >= MANY:
            self._stop.wait(self._rest * (time.monotonic() - began))

    def _step(self) -> None:
        with self._next_turn:  # who waits for a pause gets it before the next step
            self._turn.acquire()
        try:
            self._take_in()
        finally:
            self._turn.release()

    def _take_in(self) -> None:
        self.processor.awaited = False
        patience_s = 0.0 if self.processor.waiting else TICK_S
        self._delivered = self._delivered or self._of_log(lambda log: log.poll(MOST_EVENTS, patience_s))
        if self._delivered:
            self.processor.apply(self._delivered)
            self._of_log(lambda log: log.ack(self._delivered))
        self.processor.reach(self._polled())
        since_s = time.monotonic() - self._looked_s
        if len(self._delivered) == MOST_EVENTS and since_s < BEHIND_S:
            while self.processor.hurried and not self._stop.is_set():
                self.processor.refresh()
        elif self._delivered or self.processor.waiting or since_s >= TICK_S:
            self._settle()
            self._looked_s = time.monotonic()
        self._delivered = []
        if self.log.joined:
            self.begun.set()

    def _of_log(self, ask: Callable[[EventLog], T]) -> T:
        """What the log answers. After an error a log that has to be is opened anew: what was not acked comes again."""
        try:
            return ask(self.log)
        except Exception:
            if self._reopen is not None:
                self._delivered = []
                with suppress(Exception):
                    self.log.close()
                self.log = self._reopen()
            raise

    def _settle(self) -> None:
        """Write whoever is due, as long as nobody waits for an event that is not applied yet."""
        while not self._stop.is_set():
            nobody_else = self.processor.refresh() < MOST_PERSONS and not self.processor.waiting
            self._caught_up |= nobody_else
            if self._caught_up:  # with whoever an earlier process left due
                self.applied = self.processor.settled
            if self.processor.awaited or nobody_else:
                return
