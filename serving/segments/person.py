"""What is known of a person whose segments are followed, and why it may not be."""

from dataclasses import dataclass, replace

import msgspec

from feature_repo.stream.personal import Known
from serving.decide import Snapshot
from serving.policy import Feedback, Seen
from serving.rules import State
from serving.segments.journal import Entry


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

    def due(self) -> int | None:
        """When anything of this changes with no new event, as far as is known; null: never."""
        return min((t for t in (self.until_us, self.due_us, self.known.later_us) if t is not None), default=None)


decoded = msgspec.msgpack.Decoder(Document).decode


@dataclass
class Person:
    """Somebody in memory. row: which online row the document knows."""

    document: Document
    seen: Seen
    row: tuple[int | None, int] | None = None

    @classmethod
    def again(cls, kept: bytes, session_gap_us: int) -> "Person":
        """Somebody as they were kept."""
        document = decoded(kept)
        return cls(document, Seen.again(document.seen, session_gap_us))

    def entry(self) -> Entry:
        """Somebody as the journal keeps them."""
        self.document.seen = self.seen.kept()
        return Entry(msgspec.msgpack.encode(self.document), self.document.due())

    def copy(self) -> "Person":
        """The same, and it stays so."""
        return replace(self, document=msgspec.structs.replace(self.document))

    def feedback(self, at_us: int) -> Feedback:
        """What they did with what they were shown, up to a time."""
        return self.seen.at(at_us)

    def knows(self, row: Snapshot, at_us: int) -> bool:
        """Whether that is all there is to know at a time, at which this is the online row."""
        due = self.document.due()
        return self.row == row_key(row) and (due is None or due > at_us)


def row_key(row: Snapshot) -> tuple[int | None, int]:
    """What tells an online row from those before and after it."""
    return row.row_position, row.event_us


class Unfollowed(Exception):
    """Nothing is known of somebody's present."""


class Gone(Unfollowed):
    """Somebody was erased, or forgotten, while their past was read."""


class Behind(Unfollowed):
    """Somebody's past is so long that it is followed apart, by `LongPasts`.

    person: a copy of what was known; null: nothing.
    """

    def __init__(self, person: Person | None) -> None:
        super().__init__("a very long past is being read")
        self.person = person.copy() if person else None
