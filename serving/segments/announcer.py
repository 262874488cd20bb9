"""Keeps everybody's segments up to date without being asked, so that others can be told of a change soon after it.

rows written by the stream ─┐
people who are due by now ──┴─► row in force ─► keeper ─► place() ─► journal ─► whoever listens
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from feature_repo.settings import now_us
from feature_repo.stream import isolation
from feature_repo.stream.slow_lane import TakesLong
from serving.decide import Model, Situation, Snapshot, place
from serving.features import Reader
from serving.playbook import Playbook
from serving.segments.journal import Change
from serving.segments.keeper import Keeper
from serving.segments.person import Unfollowed

TICK_S = 0.25
"""How often it is looked who has changed."""
AT_ONCE, TOUCHED = 200, 50
"""People who are due by time, and changes that are told, at once; and people whose rows were written: few, so that who
is due by time does not wait long for them."""
MOST_LATER = 2_000
"""Of people whose rows the slow lane has yet to write, how many are passed over to find somebody who is due too."""
REST, REST_BEHIND = 2, 20
"""How much longer than it worked the thread rests while there is more to do: decisions and rows come first; the latter
while so many events wait that are `BEHIND` in the rows."""
BEHIND = 1_000
OPTED_OUT, GONE = "opted out", "is nobody by themselves any more: the events are another person's"
_log = logging.getLogger("bentoml.serve.firstmile")
Listener = Callable[[Sequence[Change]], None]


class Announcer:
    """A thread.

    listeners: are told of each change once it is in the journal; they must not wait.
    """

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
        self._looked_at: list[str] = []
        self._later, self._failing = frozenset[str](), set[str]()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._failed = False
        keeper.caught_up = self.touch
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
            persons = list(persons)
            self._touched |= dict.fromkeys(persons)
            self._failing.difference_update(persons)

    @property
    def waiting(self) -> int:
        """How many people's rows have been written whose segments are to be brought up to date."""
        return len(self._touched) + len(self._looked_at)

    def look(self) -> int:
        """Bring up to date some of those who may have changed, and tell; returns how many were looked at."""
        now = self._clock()
        with self._lock:
            persons = self._looked_at = list(islice(self._touched, TOUCHED))
            for person in persons:
                del self._touched[person]
        due = self._keeper.journal.due(now, AT_ONCE + min(len(self._later), MOST_LATER))
        everybody = list(dict.fromkeys([*persons, *due]))
        aside = {p for p in everybody if p in self._failing or p in self._reader.set_aside}
        rows = self._rows([p for p in everybody if p not in aside], now)
        self._later |= aside
        looked_at = [p for p in everybody if p not in self._later]
        for person in looked_at:
            if person in rows:
                self._place(person, rows[person], now)
            else:
                self._keeper.leave(person, OPTED_OUT if self._opted_out(person) else GONE, now)
        self.tell()
        self._looked_at = []
        return len(looked_at)

    def tell(self) -> None:
        """Write to the journal what has been found, and tell the listeners."""
        self._keeper.flush()
        if changes := self._keeper.journal.after(self._told, AT_ONCE):
            self._told = changes[-1].seq
            for listener in self.listeners:
                listener(changes)

    def _rows(self, persons: list[str], now: int) -> dict[str, Snapshot]:
        wanted, self._later = [p for p in persons if not self._opted_out(p)], frozenset()
        found = self._reader.read(wanted, now) if wanted else []
        rows = {p: row for p, row in zip(wanted, found, strict=True) if row is not None}
        ended = {p: row for p, row in rows.items() if self._reader.ended(row, now)}
        renewed = self._in_force(ended, now) if ended else {}
        return {p: row for p, row in (rows | renewed).items() if row is not None}

    def _in_force(self, ended: dict[str, Snapshot], now: int) -> dict[str, Snapshot | None]:
        """Without those whose rows take long: they come `later`, when the slow lane has written them."""
        try:
            return self._reader.in_force(ended, now, patient=False)
        except TakesLong as e:
            self._later = frozenset(e.persons)
            return self._reader.in_force({p: row for p, row in ended.items() if p not in e.persons}, now)

    def _place(self, person: str, row: Snapshot, now: int) -> None:
        try:
            found, model = self._keeper.keep_up(person, row, now), self._model()
        except Unfollowed:  # of whom there is more to know `caught_up` will tell
            return
        except Exception as error:
            if isolation.of_a_store(error):
                raise
            self._failing.add(person)  # nobody else waits; the user is tried again once their row is written anew
            _log.error("the segments of a user cannot be followed: %s; the others' go on", isolation.where(error))
            return
        placed = place(now, row, Situation(found.document.state), model, self._playbook)
        why = placed.reasons[0] if placed.reasons else ""
        self._keeper.note(person, found, placed, why, f"{model.name} {model.version}" if model else "", now)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                told = self._told
                busy = self.look() >= TOUCHED or self._told > told
                self._failed = False
            except Exception:  # the stores may be down: who was touched is found again by their next event or decision
                if not self._failed:
                    _log.exception("segments cannot be followed; trying again")
                self._failed, busy = True, False
            worked_s = time.monotonic() - began
            self._stop.wait(1.0 if self._failed else self._rest_s(worked_s) if busy else TICK_S)

    def _rest_s(self, worked_s: float) -> float:
        behind = (self._reader.lag() or 0) > BEHIND
        return (REST_BEHIND if behind else REST) * worked_s
