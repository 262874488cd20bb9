"""What the rules remember of each person: followed event by event, and always that of the definition.

row of now ─► nothing came, nothing is due ──► as it was
        ├─► one new change point: that row ──► the rules go on with it
        └─► several, a late event, a merge ──► the rules go on with the change points out of the history

A late event takes the rules back to the beginning; what was told and was otherwise is taken back (`Change.corrects`).
But for what the model has to do with: nobody knows what it would have said, so that stands and goes on.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from feature_repo.history_store import NEVER
from feature_repo.personal import Known, News, Personal
from serving.decide import Placed, Snapshot
from serving.policy import Feedback, Seen
from serving.rules import Move, State
from serving.segments import timeline
from serving.segments.journal import Change, Entry, Journal
from serving.segments.timeline import Era, Row, Scored

REMEMBERED = 20_000
"""People who are kept in memory."""
BACK = "taken back: by what is known now it was otherwise"
MOST_WAITING = 5_000
"""People who are not written yet, at most."""
RULES, ENGAGEMENT, PERSONAS = "rules", "engagement", "personas"


class Document(msgspec.Struct):
    """What is kept of a person.

    stepped_us: the last moment at which anything happened to the rules. until_us: when their row changes with no new
    event; due_us: when the rules do; null: never, as far as is known; µs. engagement, persona: as told last.
    seen: that of the person, as it was when this was written.
    """

    known: Known
    state: State = State()
    stepped_us: int = 0
    until_us: int | None = None
    due_us: int | None = None
    engagement: str | None = None
    persona: str | None = None
    seen: bytes = b""


@dataclass
class Person:
    """Somebody in memory. row: which online row the document knows."""

    document: Document
    seen: Seen
    row: tuple[int | None, int] | None = None

    def feedback(self, at_us: int) -> Feedback:
        """What they did with what they were shown, up to a time."""
        return self.seen.at(at_us)


class Keeper:
    """Follows people. Safe from several threads; one reads at a time.

    eras: the rules, the first from ever on, the last those of now. scored: what the model says, for rules that ask it.
    """

    def __init__(
        self, personal: Personal, journal: Journal, eras: Sequence[Era], session_gap_us: int, scored: Scored
    ) -> None:
        self.journal, self.eras = journal, eras
        self._personal, self._gap, self._scored = personal, session_gap_us, scored
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._dirty: set[str] = set()
        self._changes: list[Change] = []
        self._lock = threading.RLock()
        self._decode = msgspec.msgpack.Decoder(Document).decode

    def known(self, person: str, row: Snapshot, at_us: int) -> Person | None:
        """Somebody in memory, if that is all there is to know by now; waits for nobody."""
        found = self._people.get(person)
        if found is None or found.row != _key(row):
            return None
        d = found.document
        return None if any(t is not None and t <= at_us for t in (d.known.later_us, d.due_us, d.until_us)) else found

    def follow(self, person: str, row: Snapshot, at_us: int) -> Person:
        """What is known of somebody by now. Reads the history where something has changed.

        row: theirs at `at_us`.
        """
        with self._lock:
            if (found := self.known(person, row, at_us)) is not None:
                return found
            found = self._people.get(person) or self._recall(person)
            news = self._personal.news(person, found.document.known if found else None, at_us)
            if found is None or news.whole:
                found = self._anew(person, found, news, at_us)
            else:
                found.seen.add(news.events)
                self._go_on(person, found.document, news, row, at_us)
            found.document.known, found.row = news.known, _key(row)
            self._people[person] = found
            self._people.move_to_end(person)
            self._dirty.add(person)
            if len(self._dirty) > MOST_WAITING:
                self.flush()
            return found

    def note(self, person: str, found: Person, placed: Placed, why: str, model: str, at_us: int) -> None:
        """Take over where a decision, at `at_us`, has found somebody. why, model: of their engagement and persona."""
        d, step = found.document, placed.step
        state = step.state if step else d.state
        if (state, placed.engagement, placed.persona) == (d.state, d.engagement, d.persona):
            return
        with self._lock:
            if self._people.get(person) is not found:  # erased, forgotten or written away since they were looked up
                return
            for source, before, after in (
                (ENGAGEMENT, d.engagement, placed.engagement), (PERSONAS, d.persona, placed.persona),
            ):  # fmt: skip
                for segment, entered in ((before, False), (after, True)):
                    if before != after and segment is not None:
                        self._changes.append(Change(person, source, segment, entered, at_us, why, model, at_us))
            if step is not None and state != d.state:
                self._tell(person, [(move, self.eras[-1][1].version) for move in step.moves], at_us)
                d.state, d.stepped_us, d.due_us = state, at_us, step.due_us
            d.engagement, d.persona = placed.engagement, placed.persona
            self._dirty.add(person)

    def flush(self) -> list[Change]:
        """Write what has changed to the journal, if there is a file; returns the changes."""
        with self._lock:
            people = {p: entry(self._people[p]) for p in self._dirty}
            lasts = self.journal.file is not None and (people or self._changes)
            written = self.journal.write(people, self._changes) if lasts else []
            self._dirty.clear()
            self._changes.clear()
            for person in list(self._people)[: max(0, len(self._people) - REMEMBERED)]:
                del self._people[person]
            return written

    def aliases(self, person: str) -> list[str]:
        """The anonymous ids that were ever said to be this person's."""
        with self._lock:
            return self._personal.history.aliases(person)

    def leave(self, person: str, cause: str, at_us: int) -> None:
        """Somebody is in no segment any more, and is followed no longer: they opted out, or became another person."""
        with self._lock:
            self.flush()
            found = self._people.pop(person, None)
            document = self.journal.document(person)
            d = found.document if found else self._decode(document) if document else None
            if d is None:
                return
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
            self.journal.forget(persons)

    def erase(self, persons: Iterable[str]) -> int:
        """Leave nothing of these persons; how many changes of theirs were told."""
        with self._lock:
            gone = set(persons)
            for person in gone:
                self._people.pop(person, None)
            self._dirty -= gone
            self._changes = [c for c in self._changes if c.person not in gone]
            return self.journal.erase(gone)

    def close(self) -> None:
        """Write what waits; let go of the history and the journal."""
        self.flush()
        self._personal.close()
        self.journal.close()

    def _recall(self, person: str) -> Person | None:
        """Somebody out of the journal."""
        if (kept := self.journal.document(person)) is None:
            return None
        document = self._decode(kept)
        return Person(document, Seen.again(document.seen, self._gap))

    def _anew(self, person: str, before: Person | None, news: News, at_us: int) -> Person:
        """Somebody new, or of whom more has changed than that events came."""
        seen = Seen(self._gap)
        seen.add(news.events)
        document = before.document if before else Document(news.known)
        self._from_the_beginning(person, document, at_us)
        return Person(document, seen)

    def _go_on(self, person: str, d: Document, news: News, row: Snapshot, at_us: int) -> None:
        """Somebody of whom nothing has changed but that events came, or that time has passed."""
        times = {e.ts_us for e in news.events}
        if times and min(times) <= d.stepped_us:
            self._from_the_beginning(person, d, at_us)
            return
        ends = row.valid_until_us is not None and row.valid_until_us <= at_us
        nothing = not times and (d.until_us is None or d.until_us > at_us)
        nothing_before = all(t is None or t >= row.event_us for t in (d.until_us, d.due_us))
        next_one = times <= {row.event_us} and nothing_before
        if ends or not (nothing or next_one):
            rows = [r for r in self._trail(person, at_us, d.stepped_us) if r[2] is None or r[2] > d.stepped_us]
        else:
            rows = [(row.event_us, row.values, row.valid_until_us)]
        done = timeline.follow(self.eras, rows, d.state, d.stepped_us, at_us, self._scored)
        self._tell(person, done.moves, at_us)
        d.state, _, d.stepped_us, d.until_us, d.due_us = done

    def _from_the_beginning(self, person: str, d: Document, at_us: int) -> None:
        self.flush()
        done = timeline.follow(self.eras, self._trail(person, at_us), State(), 0, at_us, self._scored)
        scored = self.eras[-1][1].scored
        told = _standing(c for c in self.journal.of([person]) if c.segment not in scored)
        moves = {(m.segment, m.entered, m.at_us): (m, v) for m, v in done.moves if m.segment not in scored}
        for key, change in told.items():
            if key not in moves:
                taken = msgspec.structs.replace(change, entered=not change.entered, cause=BACK, noted_us=at_us)
                self._changes.append(msgspec.structs.replace(taken, corrects=change.seq, seq=0))
        self._tell(person, [move for key, move in moves.items() if key not in told], at_us)
        before, (now, _, d.stepped_us, d.until_us, d.due_us) = d.state, done
        exact = {name: m for name, m in now.segments.items() if name not in scored}
        d.state = State(exact | {name: m for name, m in before.segments.items() if name in scored})

    def _trail(self, person: str, at_us: int, since_us: int = NEVER) -> list[Row]:
        rows = self._personal.trail(person, at_us, since_us)
        return [(r["ts_us"], r, r["valid_until_us"]) for r in rows]

    def _tell(self, person: str, moves: Iterable[tuple[Move, str]], at_us: int) -> None:
        self._changes += [
            Change(person, RULES, m.segment, m.entered, m.at_us, m.cause, version, noted_us=at_us)
            for m, version in moves
        ]


def _standing(changes: Iterable[Change]) -> dict[tuple[str, bool, int], Change]:
    """Of somebody's changes those by rules that were not taken back."""
    every = [c for c in changes if c.source == RULES]
    back = {c.corrects for c in every}
    return {(c.segment, c.entered, c.at_us): c for c in every if c.corrects is None and c.seq not in back}


def _key(row: Snapshot) -> tuple[int | None, int]:
    return row.row_position, row.event_us


def entry(person: Person) -> Entry:
    """Somebody as the journal keeps them."""
    d = person.document
    d.seen = person.seen.kept()
    due = min((t for t in (d.until_us, d.due_us, d.known.later_us) if t is not None), default=None)
    return Entry(msgspec.msgpack.encode(d), due)
