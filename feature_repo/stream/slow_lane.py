"""Lanes for people whose row takes long to compute, each with a working set of its own, so that nobody waits for them.

claimed ─► past out of the lake ─► broken checkpoints unfolded ─► as_of(now) ─► row ─► checkpoint, where one is worth it

Two of them: whose past has to come from somewhere waits a moment, but not for those with so many events that their row
takes seconds. `Lanes` is these and the quick one, for whoever asks for rows.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract.events import ANONYMOUS
from feature_repo.features import folding
from feature_repo.features.fresh import Fresh
from feature_repo.features.quick import Quick
from feature_repo.history.history_store import HistoryStore, Row
from feature_repo.history.working_set import WorkingSet

HEAVY = 20_000
"""Events of a sender, not folded, beyond which a row takes longer than others shall wait."""
AT_ONCE = 100
"""People who are claimed at once."""

Past = Callable[[Sequence[str]], Iterable[Row]]
"""Every event of some senders that the lake has."""


def needs_past(held: WorkingSet, persons: Sequence[str]) -> set[str]:
    """Those of these persons whose row takes long: past in the lake, a broken checkpoint, or so many events."""
    history = held.store
    senders = history.senders_of(persons)
    slow = history.left(senders) | {p for p, c in history.checkpoints(senders).items() if c.broken}
    return whose(slow | held.heavy(senders - slow, HEAVY), persons, history)


def whose(senders: set[str], persons: Iterable[str], history: HistoryStore) -> set[str]:
    """Those of these persons whose features can need events of these senders."""
    return {p for p in persons if not senders.isdisjoint(history.senders_of([p]))} if senders else set()


class SlowLane:
    """For who has its `lock`. past: None where nobody's past was left in the lake.

    working_on: whose rows are being computed, from before anything of theirs is read.
    """

    def __init__(self, domain_name: str, history: HistoryStore, past: Past | None) -> None:
        self.history, self._domain_name = history, domain_name
        self.lock, self._more = threading.Lock(), threading.Event()
        self.working_on: set[str] = set()
        self._past = past

    @cached_property
    def fresh(self) -> Fresh:
        """Their working set; made once somebody is here, as it takes a moment."""
        return Fresh(self._domain_name, self.history)

    @contextmanager
    def working(self, persons: Iterable[str]) -> Iterator[None]:
        """These are `working_on`."""
        self.working_on = set(persons)
        try:
            yield
        finally:
            self.working_on = set()

    def more(self) -> None:
        """Somebody more is due here."""
        self._more.set()

    def wait(self, patience_s: float) -> None:
        """Until somebody more is due here, or so long; for one thread, which needs no lock for it."""
        self._more.wait(patience_s)
        self._more.clear()

    def heavy(self, persons: Sequence[str], than: int | None) -> set[str]:
        """Those of these persons of whom more events than that would have to be read; null: nobody.

        The others' past is at hand then.
        """
        senders = self.history.senders_of(persons)
        many = self._fetch(senders, than)
        if than is not None:
            many |= self.history.heavy(self._broken(senders), than, folded=True)
            many |= self.history.heavy(senders - many, than)
        return whose(many, persons, self.history)

    def rows(self, persons: Sequence[str], now_us: int) -> tuple[pa.Table, int]:
        """As `Fresh.rows`, with all of these persons' past at hand."""
        senders = self.history.senders_of(persons)
        self._fetch(senders)
        self.history.unfold(self._broken(senders))
        return self.fresh.rows(persons, now_us)

    def _broken(self, persons: Collection[str]) -> list[str]:
        return [p for p, c in self.history.checkpoints(persons).items() if c.broken]

    def _fetch(self, senders: Collection[str], most: int | None = None) -> set[str]:
        """Have these senders' past in the history, where it was left in the lake.

        Returns:
            Those of whom more than `most` events are there: these stay where they are.
        """
        heavy = set[str]()
        while self._past is not None and (left := self.history.left(senders) - heavy):
            rows, of = list[Row](), Counter[str]()
            for row in self._past(sorted(left)):
                rows.append(row)
                of[row.sender] += 1
                if most is not None and of[row.sender] > most:
                    heavy.add(row.sender)
                    break
            else:
                self.history.fetched(left, rows)
        return heavy

    def fold(self, persons: Sequence[str], now_us: int) -> None:
        """Make checkpoints for those of whom enough events are old enough, and who stay who they are."""
        for person in folding.foldable(self.fresh, list(persons), now_us):
            if person.startswith(ANONYMOUS) and len(self.history.senders_of([person])) > 1:
                continue
            if made := folding.folded(self.fresh, person, now_us):
                self.history.fold(person, *made)


class TakesLong(Exception):
    """The rows of these persons take longer than whoever asks can wait."""

    def __init__(self, persons: Collection[str]) -> None:
        super().__init__(f"{len(persons)} of them in the slow lane")
        self.persons = persons


class Lanes:
    """All lanes, for several threads: whoever asks for rows of one waits for nobody in a slower one.

    quick, lock: the quick lane, and who has it. slow, heavy: those of whoever takes longer. Who needs several locks
    takes the slowest first.
    """

    def __init__(self, domain_name: str, history: HistoryStore, past: Past | None) -> None:
        self.quick, self.lock = Quick(domain_name, history), threading.RLock()
        self.slow, self.heavy = (SlowLane(domain_name, history.reader(), past) for _ in range(2))

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """As `WorkingSet.rows`, without those who have no event yet.

        Raises:
            TakesLong: whoever asks is not patient, and somebody is in a slower lane; or somebody has so many events
                that their row takes seconds, and the lane for those is at work.
        """
        persons = list(persons)
        with self.lock:
            if not (slow := needs_past(self.quick, persons)):
                return _there(*self.quick.rows(persons, at_us))
        if not patient:
            raise TakesLong(slow)
        with self.slow.lock:
            if not (heavy := self.too_heavy(persons)):
                return _there(*self.slow.rows(persons, at_us))
        if not self.heavy.lock.acquire(blocking=False):
            raise TakesLong(heavy)
        try:
            return _there(*self.heavy.rows(persons, at_us))
        finally:
            self.heavy.lock.release()

    def too_heavy(self, persons: Sequence[str]) -> set[str]:
        """Those of these persons who are not for the slow lane; for who has it. The others' past is at hand then."""
        heavy = self.slow.heavy(persons, HEAVY)  # of whom a checkpoint is being made is neither one nor the other yet
        return heavy | whose(self.heavy.working_on, persons, self.slow.history)

    @property
    def working_on(self) -> set[str]:
        """Whose rows are being computed in the slower lanes."""
        return self.slow.working_on | self.heavy.working_on

    def close(self) -> None:
        """Let go of what was opened here."""
        for lane in (self.slow, self.heavy):
            lane.history.close()


def _there(found: pa.Table, position: int) -> tuple[pa.Table, int]:
    return found.filter(pc.is_valid(found["ts_us"])), position
