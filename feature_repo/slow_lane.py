"""The slow lane: people whose row takes long to compute, with a working set of its own, so that nobody waits for them.

claimed ─► past out of the lake ─► broken checkpoints unfolded ─► as_of(now) ─► row ─► checkpoint, where one is worth it
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import pyarrow as pa

from feature_repo import folding
from feature_repo.events import ANONYMOUS
from feature_repo.fresh import Fresh
from feature_repo.history_store import HistoryStore, Row
from feature_repo.working_set import WorkingSet

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
