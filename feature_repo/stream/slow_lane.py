"""The slow lane: people whose row takes long to compute, with a working set of its own, so that nobody waits for them.

claimed ─► past out of the lake ─► broken checkpoints unfolded ─► as_of(now) ─► row ─► checkpoint, where one is worth it

`Lanes` is both lanes, for whoever asks for rows.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

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
    slow |= held.heavy(senders - slow, HEAVY)
    return {p for p in persons if not slow.isdisjoint(history.senders_of([p]))} if slow else set()


class SlowLane:
    """Not for several threads at once. past: None where nobody's past was left in the lake.

    working_on: whose rows are being computed.
    """

    def __init__(self, domain_name: str, history: HistoryStore, past: Past | None) -> None:
        self.history = history
        self.fresh = Fresh(domain_name, history)
        self.working_on: set[str] = set()
        self._past = past

    def claim(self, now_us: int) -> list[str]:
        """Some people who are due in this lane: `working_on`, from before anything of theirs is read."""
        persons = self.history.claim(now_us, AT_ONCE, slow=True)
        self.working_on = set(persons)
        return persons

    def together(self, persons: Sequence[str]) -> Iterator[list[str]]:
        """These people, in groups whose rows are computed at once: those with many events each on their own."""
        heavy = self.fresh.heavy(persons, HEAVY)
        if light := [p for p in persons if p not in heavy]:
            yield light
        yield from ([p] for p in heavy)

    def rows(self, persons: Sequence[str], now_us: int) -> tuple[pa.Table, int]:
        """As `Fresh.rows`, with all of these persons' past at hand."""
        senders = self.history.senders_of(persons)
        self.fetch(senders)
        self.history.unfold([p for p, c in self.history.checkpoints(senders).items() if c.broken])
        return self.fresh.rows(persons, now_us)

    def fetch(self, senders: Collection[str]) -> None:
        """Have these senders' past in the history, where it was left in the lake."""
        if self._past is not None and (left := self.history.left(senders)):
            self.history.fetched(left, list(self._past(sorted(left))))

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
    """Both lanes, for several threads: whoever asks for rows of the quick one waits for nobody in the slow one.

    quick, lock: the quick lane, and who has it. slow, slow_lock: the slow one. Who needs both takes the slow one first.
    """

    def __init__(self, domain_name: str, history: HistoryStore, past: Past | None) -> None:
        self.quick, self.slow = Quick(domain_name, history), SlowLane(domain_name, history.reader(), past)
        self.lock, self.slow_lock = threading.RLock(), threading.Lock()

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """As `WorkingSet.rows`, without those who have no event yet.

        Raises:
            TakesLong: whoever asks is not patient, and somebody is in the slow lane.
        """
        persons = list(persons)
        with self.lock:
            if not (slow := needs_past(self.quick, persons)):
                return _there(*self.quick.rows(persons, at_us))
        if not patient:
            raise TakesLong(slow)
        with self.slow_lock:
            return _there(*self.slow.rows(persons, at_us))

    def close(self) -> None:
        """Let go of what was opened here."""
        self.slow.history.close()


def _there(found: pa.Table, position: int) -> tuple[pa.Table, int]:
    return found.filter(pc.is_valid(found["ts_us"])), position
