"""What the rules remember of each person: followed event by event, and always that of the definition.

row of now ─► nothing came, nothing is due ──► as it was
        ├─► one new change point: that row ──► the rules go on with it
        └─► several, a late event, a merge ──► the rules go on with the change points out of the history
                                               (of a very long past, in a thread of its own: Behind until it is done)

A late event takes the rules back to the beginning; what was told and was otherwise is taken back (`Change.corrects`).
But for what the model has to do with: nobody knows what it would have said, so that stands and goes on.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from feature_repo.history.history_store import NEVER
from feature_repo.stream.personal import Heavy, News, Personal
from serving.decide import Placed, Snapshot
from serving.policy import Seen
from serving.rules import Move, State
from serving.segments import timeline
from serving.segments.journal import Change, Journal
from serving.segments.long_pasts import LongPasts
from serving.segments.person import Behind, Document, Gone, Person, row_key
from serving.segments.timeline import Era, Followed, Row, Scored

REMEMBERED = 20_000
"""People who are kept in memory."""
BACK = "taken back: by what is known now it was otherwise"
MOST_WAITING = 5_000
"""People who are not written yet, at most."""
LONG = 2_000
"""Events of a sender beyond which following somebody anew takes longer, a fifth of a second, than others shall wait."""
RULES, ENGAGEMENT, PERSONAS = "rules", "engagement", "personas"


class Look(NamedTuple):
    """What was found of a person. anew: `done` began at the beginning."""

    news: News
    done: Followed
    anew: bool


class UnderWay:
    """Those who look at a person at the same time have this in common; whoever begins after it was let go, another."""


class Keeper:
    """Follows people: for decisions, for who keeps up with everybody, and those with very long pasts apart.

    Each of the three reads the history by itself, with no lock held, and only decisions wait for one another. Safe from
    several threads.

    reader: of a history, for so many events at once. eras: the rules, the first from ever on, the last those of now.
    scored: what the model says, for rules that ask it. erased: of whom nothing may be kept. caught_up: is told whose
    long past was followed; must not wait.
    """

    def __init__(
        self,
        reader: Callable[[int | None], Personal],
        journal: Journal,
        eras: Sequence[Era],
        session_gap_us: int,
        scored: Scored,
        erased: Callable[[str], bool] = lambda person: False,
    ) -> None:
        self.journal, self.eras = journal, eras
        self.caught_up: Callable[[Sequence[str]], object] = lambda persons: None
        self._gap, self._scored, self._erased = session_gap_us, scored, erased
        self._personal, self._background, self._patient = reader(LONG), reader(LONG), reader(None)
        self._slow = LongPasts(self._catch_up)
        self._under_way: WeakValueDictionary[str, UnderWay] = WeakValueDictionary()
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._dirty: set[str] = set()
        self._changes: list[Change] = []
        self._lock, self._deciding = threading.RLock(), threading.Lock()

    def known(self, person: str, row: Snapshot, at_us: int) -> Person | None:
        """Somebody in memory, if that is all there is to know by now; waits for nobody."""
        found = self._people.get(person)
        return found if found is not None and found.knows(row, at_us) else None

    def follow(self, person: str, row: Snapshot, at_us: int) -> Person:
        """What is known of somebody by now. Reads the history where something has changed.

        row: theirs at `at_us`.

        Raises:
            Behind: their past takes long to read; that has begun. Gone: they were erased or forgotten meanwhile.
        """
        with self._deciding:
            return self._follow(self._personal, person, row, at_us)

    def keep_up(self, person: str, row: Snapshot, at_us: int) -> Person:
        """The same for one thread that nobody waits for, and which keeps no decision waiting; raises as `follow`."""
        return self._follow(self._background, person, row, at_us)

    def _follow(self, personal: Personal, person: str, row: Snapshot, at_us: int) -> Person:
        while (found := self.known(person, row, at_us)) is None:
            if person in self._slow:
                raise Behind(self._remembered(person))
            try:
                if (taken := self._looked(personal, person, row, at_us)) is not None:
                    return taken
            except Heavy:
                self._slow.put(person, row, at_us)
                raise Behind(self._remembered(person)) from None
        return found

    def note(self, person: str, found: Person, placed: Placed, why: str, model: str, at_us: int) -> None:
        """Take over where a decision, at `at_us`, has found somebody. why: of their engagement; model: of both."""
        d, step = found.document, placed.step
        state = step.state if step else d.state
        if (state, placed.engagement, placed.persona) == (d.state, d.engagement, d.persona):
            return
        with self._lock:
            if self._people.get(person) is not found:  # erased, forgotten or written away since they were looked up
                return
            for source, before, after, cause in (
                (ENGAGEMENT, d.engagement, placed.engagement, why),
                (PERSONAS, d.persona, placed.persona, persona_cause(placed.persona)),
            ):
                for segment, entered in ((before, False), (after, True)):
                    if before != after and segment is not None:
                        self._changes.append(Change(person, source, segment, entered, at_us, cause, model, at_us))
            if step is not None and state != d.state:
                self._tell(person, [(move, self.eras[-1][1].version) for move in step.moves], at_us)
                d.state, d.stepped_us, d.due_us = state, at_us, step.due_us
            d.engagement, d.persona = placed.engagement, placed.persona
            self._dirty.add(person)

    def flush(self) -> list[Change]:
        """Write what has changed to the journal, if there is a file; returns the changes."""
        with self._lock:
            people = {p: self._people[p].entry() for p in self._dirty}
            lasts = self.journal.file is not None and (people or self._changes)
            written = self.journal.write(people, self._changes) if lasts else []
            self._dirty.clear()
            self._changes.clear()
            while len(self._people) > REMEMBERED:
                self._people.popitem(last=False)
            return written

    def _write_down(self, person: str) -> None:
        """Have in the journal what there is of a person."""
        if person in self._dirty:
            self.flush()

    def aliases(self, person: str, trusted: bool = False) -> list[str]:
        """The anonymous ids that were ever said to be this person's; or only by events that can be trusted in it."""
        with self._deciding:
            return self._personal.history.aliases(person, trusted)

    def leave(self, person: str, cause: str, at_us: int) -> None:
        """Somebody is in no segment any more, and is followed no longer: they opted out, or became another person."""
        with self._lock:
            self._write_down(person)
            self._let_go([person])
            if (found := self._remembered(person)) is None:
                return
            self._people.pop(person, None)
            d = found.document
            version = self.eras[-1][1].version
            held = [(RULES, s) for s in d.state.held] + [(ENGAGEMENT, d.engagement), (PERSONAS, d.persona)]
            self._changes += [
                Change(person, source, segment, False, at_us, cause, version, at_us)
                for source, segment in held
                if segment
            ]
            self.flush()
            self.journal.forget([person])

    def forget(self, persons: Iterable[str]) -> None:
        """Begin anew with these persons, whose past has changed; what was told of them stays, or is taken back."""
        with self._lock:
            self.flush()
            for person in persons:
                self._people.pop(person, None)
            self._let_go(persons)
            self.journal.forget(persons)

    def erase(self, persons: Iterable[str]) -> int:
        """Leave nothing of these persons; how many changes of theirs were told."""
        with self._lock:
            gone = set(persons)
            for person in gone:
                self._people.pop(person, None)
            self._let_go(gone)
            self._dirty -= gone
            self._changes = [c for c in self._changes if c.person not in gone]
            return self.journal.erase(gone)

    def close(self) -> None:
        """Write what waits; let go of the history and the journal."""
        done = self._slow.close()
        self.flush()
        for personal in (self._personal, self._background, *([self._patient] if done else [])):
            personal.close()
        self.journal.close()

    def _let_go(self, persons: Iterable[str]) -> None:
        """What is being read of these is of no interest any more."""
        self._slow.drop(persons)
        for person in persons:
            self._under_way.pop(person, None)

    def _remembered(self, person: str) -> Person | None:
        """Somebody in memory, or out of the journal."""
        with self._lock:
            if person not in self._people and (kept := self.journal.document(person)) is not None:
                return Person.again(kept, self._gap)
            return self._people.get(person)

    def _look(self, personal: Personal, person: str, found: Person | None, row: Snapshot, at_us: int) -> Look:
        """What has become of somebody by now. Changes nothing."""
        news = personal.news(person, found.document.known if found else None, at_us)
        times = {e.ts_us for e in news.events}
        if found is None or news.whole or (times and min(times) <= found.document.stepped_us):
            rows = self._trail(personal, person, at_us)
            return Look(news, timeline.follow(self.eras, rows, State(), 0, at_us, self._scored), True)
        d = found.document
        ends = row.valid_until_us is not None and row.valid_until_us <= at_us
        nothing = not times and (d.until_us is None or d.until_us > at_us)
        nothing_before = all(t is None or t >= row.event_us for t in (d.until_us, d.due_us))
        next_one = times <= {row.event_us} and nothing_before
        rows = iter([(row.event_us, row.values, row.valid_until_us)])
        if ends or not (nothing or next_one):
            trail = self._trail(personal, person, at_us, d.stepped_us)
            rows = (r for r in trail if r[2] is None or r[2] > d.stepped_us)
        return Look(news, timeline.follow(self.eras, rows, d.state, d.stepped_us, at_us, self._scored), False)

    def _take(self, person: str, found: Person | None, look: Look, row: Snapshot, at_us: int) -> Person:
        """Take over what a look has found. Before somebody begins anew, the journal has what was told of them."""
        if look.anew:
            self._write_down(person)
        if found is None or look.news.whole:
            found = Person(found.document if found else Document(look.news.known), Seen(self._gap))
        found.seen.add(look.news.events)
        d, before = found.document, found.document.state
        d.state, moves, d.stepped_us, d.until_us, d.due_us = look.done
        if look.anew:
            d.state = self._from_the_beginning(person, before, look.done, at_us)
        else:
            self._tell(person, moves, at_us)
        d.known, found.row = look.news.known, row_key(row)
        self._people[person] = found
        self._people.move_to_end(person)
        self._dirty.add(person)
        if len(self._dirty) > MOST_WAITING:
            self.flush()
        return found

    def _from_the_beginning(self, person: str, before: State, done: Followed, at_us: int) -> State:
        """Tell what was not told, take back what was and is otherwise, and go on with what the model has to do with."""
        scored = self.eras[-1][1].scored
        told = _standing(c for c in self.journal.of([person]) if c.segment not in scored)
        moves = {(m.segment, m.entered, m.at_us): (m, v) for m, v in done.moves if m.segment not in scored}
        for key, change in told.items():
            if key not in moves:
                taken = msgspec.structs.replace(change, entered=not change.entered, cause=BACK, noted_us=at_us)
                self._changes.append(msgspec.structs.replace(taken, corrects=change.seq, seq=0))
        self._tell(person, [move for key, move in moves.items() if key not in told], at_us)
        exact = {name: m for name, m in done.state.segments.items() if name not in scored}
        return State(exact | {name: m for name, m in before.segments.items() if name in scored})

    def _looked(self, personal: Personal, person: str, row: Snapshot, at_us: int) -> Person | None:
        """Look and take over; nobody waits while the past is read. None: the person has changed meanwhile.

        Raises:
            Gone: the person was erased or forgotten meanwhile. Heavy: there is too much to read.
        """
        with self._lock:
            found = self._remembered(person)
            was = found.copy() if found else None
            under_way = self._under_way.setdefault(person, UnderWay())
        look = self._look(personal, person, was, row, at_us)
        with self._lock:
            if self._under_way.get(person) is not under_way or self._erased(person):
                raise Gone(person)  # their row may have been read before they were erased, and this begun after it
            now = self._remembered(person)
            changed = (now and now.document) != (was and was.document)
            return None if changed else self._take(person, now, look, row, at_us)

    def _catch_up(self, person: str, row: Snapshot, at_us: int) -> None:
        """The work of `LongPasts`."""
        with suppress(Gone):
            self._looked(self._patient, person, row, at_us)
        self._slow.drop([person])
        self.caught_up([person])

    def _trail(self, personal: Personal, person: str, at_us: int, since_us: int = NEVER) -> Iterator[Row]:
        return ((r["ts_us"], r, r["valid_until_us"]) for r in personal.trail(person, at_us, since_us))

    def _tell(self, person: str, moves: Iterable[tuple[Move, str]], at_us: int) -> None:
        self._changes += [
            Change(person, RULES, m.segment, m.entered, m.at_us, m.cause, version, noted_us=at_us)
            for m, version in moves
        ]


def persona_cause(persona: str | None) -> str:
    """Why somebody enters or leaves a persona, in words; persona: the one that they are in now."""
    return f"behaves most like persona {persona}" if persona else "behaves like no persona"


def _standing(changes: Iterable[Change]) -> dict[tuple[str, bool, int], Change]:
    """Of somebody's changes those by rules that were not taken back."""
    every = [c for c in changes if c.source == RULES]
    back = {c.corrects for c in every}
    return {(c.segment, c.entered, c.at_us): c for c in every if c.corrects is None and c.seq not in back}
