"""Keeps everybody's segments up to date without being asked, so that others can be told of a change soon after it.

rows written by the stream ─┐
people who are due by now ──┴─► row in force ─► keeper ─► place() ─► journal ─► whoever listens
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from feature_repo.settings import now_us
from serving.decide import Model, Situation, Snapshot, place
from serving.features import Reader
from serving.playbook import Playbook
from serving.segments.journal import Change
from serving.segments.keeper import Keeper

TICK_S = 0.25
"""How often it is looked who has changed."""
AT_ONCE = 200
OPTED_OUT, GONE = "opted out", "is nobody by themselves any more: the events are another person's"
_log = logging.getLogger("bentoml.serve.firstmile")
Listener = Callable[[Sequence[Change]], None]


class Announcer:
    """A thread. listeners: are told of each change once it is in the journal; they must not wait."""

    def __init__(
        self,
        keeper: Keeper,
        reader: Reader,
        model: Callable[[], Model | None],
        playbook: Playbook,
        opted_out: Callable[[str], bool],
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.listeners: list[Listener] = []
        self._keeper, self._reader, self._model, self._playbook = keeper, reader, model, playbook
        self._opted_out, self._clock = opted_out, clock
        self._touched: dict[str, None] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._failed = False
        self._told = keeper.journal.last()
        self._thread = threading.Thread(target=self._run, name="segments", daemon=True)

    def start(self) -> "Announcer":
        """Begin; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Tell what is found, and end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def touch(self, persons: Iterable[str]) -> None:
        """The rows of these have been written; from any thread, waits for nobody."""
        with self._lock:
            self._touched |= dict.fromkeys(persons)

    def look(self) -> int:
        """Bring up to date some of those who may have changed, and tell; returns how many were looked at."""
        now = self._clock()
        with self._lock:
            persons = list(self._touched)[:AT_ONCE]
            for person in persons:
                del self._touched[person]
        due = [p for p in self._keeper.journal.due(now, AT_ONCE) if p not in persons]
        rows = self._rows([*persons, *due], now)
        for person in [*persons, *due]:
            if person in rows:
                self._place(person, rows[person], now)
            else:
                self._keeper.leave(person, OPTED_OUT if self._opted_out(person) else GONE, now)
        self.tell()
        return len(persons) + len(due)

    def tell(self) -> None:
        """Write to the journal what has been found, and tell the listeners."""
        self._keeper.flush()
        if changes := self._keeper.journal.after(self._told, AT_ONCE):
            self._told = changes[-1].seq
            for listener in self.listeners:
                listener(changes)

    def _rows(self, persons: list[str], now: int) -> dict[str, Snapshot]:
        wanted = [p for p in persons if not self._opted_out(p)]
        found = self._reader.read(wanted, now) if wanted else []
        rows = {p: row for p, row in zip(wanted, found, strict=True) if row is not None}
        ended = {p: row for p, row in rows.items() if self._reader.ended(row, now)}
        return rows | (self._reader.in_force(ended, now) if ended else {})

    def _place(self, person: str, row: Snapshot, now: int) -> None:
        found, model = self._keeper.follow(person, row, now), self._model()
        placed = place(now, row, Situation(found.document.state), model, self._playbook)
        why = placed.reasons[0] if placed.reasons else ""
        self._keeper.note(person, found, placed, why, f"{model.name} {model.version}" if model else "", now)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                told = self._told
                busy = self.look() >= AT_ONCE or self._told > told
                self._failed = False
            except Exception:  # the stores may be down: who was touched is found again by their next event or decision
                if not self._failed:
                    _log.exception("segments cannot be followed; trying again")
                self._failed, busy = True, False
            if not busy:
                self._stop.wait(1.0 if self._failed else TICK_S)
