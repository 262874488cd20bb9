"""Some people's events in memory, kept up with the history, so that a decision or an event costs the row alone.

A sender's events are read from the history once and stay, new ones are added as they come. What others do to the
history shows in the senders' versions. How events are held is the implementations' part: fresh.py, quick.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from feature_repo import domains
from feature_repo.history.history_store import Added, HistoryStore, Row, Version

AT_ONCE = 20_000
"""Events that are taken in together: a million would hold the interpreter for over a second."""
TRIES = 5
"""How often people's events are read anew because some came in between."""


@dataclass
class _Held:
    """A sender in the working set: its version in the history, how many events, the position at which that was true."""

    version: Version
    events: int
    since: int


class Looked(NamedTuple):
    """Whose events some people's rows need; the position at which these are all in the working set; the bases of the
    people who have a checkpoint."""

    senders: set[str]
    position: int
    folded: dict[str, tuple[int, ...]]


class WorkingSet(ABC):
    """Events by sender, and the rows in force of single people. Not for several threads at once.

    most: events before it is emptied.
    """

    def __init__(self, domain_name: str, store: HistoryStore, most: int) -> None:
        self.store, self.domain, self._most = store, domains.load(domain_name), most
        self._held: dict[str, _Held] = {}
        self._events = 0

    @abstractmethod
    def rows(self, persons: Iterable[str], now_us: int) -> tuple[pa.Table, int]:
        """The rows in force at `now_us`, and the position up to which the events are in them.

        Columns: user_id, ts_us, valid_until_us (µs) and the features, by user_id, as `as_of` gives them. A person of
        whom nothing is known, or who has become another one, has none.
        """

    @abstractmethod
    def older(self, senders: Iterable[str], than_us: int) -> dict[str, int]:
        """Of each of these senders in the working set how many events have a timestamp up to that."""

    @abstractmethod
    def _take(self, rows: Sequence[Row]) -> None:
        """Hold these events."""

    @abstractmethod
    def _drop(self, senders: Sequence[str]) -> None:
        """Hold nothing of these any more."""

    @abstractmethod
    def _replace(self, sender: str, message_ids: Collection[str]) -> int:
        """Hold these of a sender's events no more; how many that were."""

    def add(self, added: Added) -> None:
        """Follow what was added to the history, as far as nobody else has changed anything of these senders."""
        mine = {s for s, change in added.before.items() if s in self._held and self._held[s].version.change == change}
        mine -= added.corrected
        self._insert([row for row in added.new if row.sender in mine])
        for sender in mine:
            self._held[sender].version = self._held[sender].version._replace(change=added.change)

    def forget(self, senders: Iterable[str]) -> None:
        """Read these senders' events again when they are next needed."""
        gone = [s for s in senders if s in self._held]
        if gone:
            self._events -= sum(self._held.pop(s).events for s in gone)
            self._drop(gone)

    def events(self, sender: str) -> int:
        """How many events of this sender are in the working set."""
        return self._held[sender].events if sender in self._held else 0

    def heavy(self, senders: Iterable[str], than: int) -> set[str]:
        """Those of these senders who have more events than that which are not folded."""
        held = {s: self._held[s].events for s in senders if s in self._held}
        return {s for s, n in held.items() if n > than} | self.store.heavy(set(senders).difference(held), than)

    def look(self, persons: Sequence[str]) -> Looked:
        """Bring the events that these persons' rows need into the working set."""
        with self.store.snapshot():
            for _ in range(TRIES):
                senders = self.store.senders_of(persons)
                versions, position = self.store.versions(senders), self.store.position()
                self._load(versions, position)
                folded = {p: c.base for p, c in self.store.checkpoints(persons).items() if not c.broken}
                if self.store.senders_of(persons) == senders and self.store.versions(senders) == versions:
                    break
            return Looked(senders, position, folded)

    def _load(self, versions: Mapping[str, Version], position: int) -> None:
        """Make the working set what the history has of these senders."""
        behind = {s: v for s, v in versions.items() if s not in self._held or self._held[s].version != v}
        wanted = sum(self._held[s].events for s in versions if s in self._held)
        if behind and self._events - wanted > self._most:
            self.forget(list(self._held))
            behind = dict(versions)
        held = {s: self._held[s].version for s in behind if s in self._held}
        self.forget([s for s, version in held.items() if not 0 < behind[s].rewritten <= version.change])
        for sender in [s for s in behind if s in self._held]:
            self._follow(sender)
        self._begin([s for s in behind if s not in self._held])
        for sender, version in versions.items():
            self._held[sender].version, self._held[sender].since = version, position

    def _begin(self, senders: Collection[str]) -> None:
        self._held |= {s: _Held(Version(0, 0), 0, 0) for s in senders}
        if senders:
            self._insert(self.store.events(senders))

    def _follow(self, sender: str) -> None:
        """Somebody else has added events of this sender."""
        new = self.store.events([sender], self._held[sender].since)
        self._count(sender, -self._replace(sender, {row.message_id for row in new}))
        self._insert(new)

    def _insert(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), AT_ONCE):
            self._take(rows[start : start + AT_ONCE])
        for row in rows:
            self._count(row.sender, 1)

    def _count(self, sender: str, more: int) -> None:
        self._held[sender].events += more
        self._events += more
