"""Everybody's past, as the stream keeps it: the canonical copy of each event by sender, and whose rows are due.

add(rows) ─► what counts now, and whose features it can change ─► senders_of(persons) ─► events(senders)

`add` writes the position that it has reached, and that those people's rows are due, with the events in one step: what
is delivered twice, or again after a kill, changes nothing, and a kill before the rows are written loses nothing.
The implementations share tests/contracts/test_history_store.py: sqlite_history.py, redis_history.py; what arriving
events change is decided in arrivals.py, for both.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import md5
from typing import NamedTuple, Protocol, Self

from feature_repo.contract.events import ANONYMOUS, Event, canonical_json
from feature_repo.contract.origin import first_received, origin_of
from feature_repo.log.event_log import shard_key
from feature_repo.settings import Settings

EDGES = ("identify", "alias")
NEVER = -(2**62)
"""The event timestamp of an online row that was never written, µs."""
CHANGED = 0
"""Since when (µs) somebody's row is due whose past has changed, by an event or an erasure."""
UNNUMBERED = 0
"""The position of an event that the history gives one, because its log has none."""


class Row(NamedTuple):
    """An event as it is kept: lake.SCHEMA's columns after the sender's key (user_id, else "anon:" + anonymous_id)."""

    sender: str
    message_id: str
    position: int
    type: str
    name: str | None
    user_id: str | None
    anonymous_id: str | None
    ts_us: int
    received_us: int
    properties: str
    traits: str
    context: str
    content_hash: str

    @property
    def key(self) -> tuple[str, str]:
        """What copies of a message have in common."""
        return (self.sender, self.message_id)

    @property
    def rank(self) -> tuple[int, int, str, int, int]:
        """Of several copies of a message the one with the smallest rank counts (as lake_sql.canonical has it)."""
        first = first_received(self.context, self.received_us)
        return (first, self.ts_us, self.content_hash, self.received_us, self.position)

    @property
    def hand(self) -> str | None:
        """The anonymous id whose events this one can make change hands, or which owns it."""
        return self.anonymous_id if self.user_id is None or self.type in EDGES else None

    @property
    def edge(self) -> tuple[str, str] | None:
        """(anonymous id, user) where the event says that the one is the other from its timestamp on."""
        edge = self.type in EDGES and self.user_id and self.anonymous_id
        return (self.anonymous_id, self.user_id) if edge else None  # type: ignore[return-value]

    @property
    def trusted(self) -> bool:
        """Whether the event's word on whose device it is can be relied on (see Origin.trusted)."""
        return origin_of(self.context).trusted


def row_of(position: int, event: Event) -> Row:
    """An event at its log position."""
    properties, traits, context = (canonical_json(d).decode() for d in (event.properties, event.traits, event.context))
    return Row(
        shard_key(event), event.message_id, position, event.type, event.name, event.user_id, event.anonymous_id,
        event.ts_us, event.received_us, properties, traits, context,
        content_hash(event.type, event.name, event.user_id, event.anonymous_id, properties, traits, context),
    )  # fmt: skip


CONTENT = ("type", "name", "user_id", "anonymous_id", "properties", "traits", "context")
"""The columns of which the content hash is made."""


def content_hash(
    type: str,
    name: str | None,
    user_id: str | None,
    anonymous_id: str | None,
    properties: str,
    traits: str,
    context: str,
) -> str:
    """The hash of an event's content, as lake_sql.COLUMNS computes it."""
    ids = ("" if i is None else f"={i}" for i in (name, user_id, anonymous_id))
    content = "\0".join([type, *ids, properties, traits, context]).encode()
    return md5(content, usedforsecurity=False).hexdigest()[:16]


class Written(NamedTuple):
    """A person's online row: its event timestamp, and when it next changes with no new event (null: never); µs."""

    event_us: int
    due_us: int | None


class Version(NamedTuple):
    """Numbers of a sender's changes, which never come back: of the last one, and of the last that was more than new
    events (some replaced, moved or taken away, or the first ones)."""

    change: int
    rewritten: int


class Added(NamedTuple):
    """What an `add` changed: rows that are new, senders of rows that were replaced, persons whose rows are now due; the
    number of this change, and of the change before of each sender of rows that count."""

    new: list[Row]
    corrected: set[str]
    touched: set[str]
    before: dict[str, int]
    change: int


class Checkpoint(NamedTuple):
    """A person's events up to a time (µs), folded: what they add to each additive leaf beyond those that were kept.

    broken: an event has arrived since that changes this past. It has to be unfolded before anything is computed.
    """

    through_us: int
    base: tuple[int, ...]
    broken: bool = False


class HistoryStore(Protocol):
    """What the stream keeps. Any number of workers, each with an object of its own; see `reader` for threads.

    Whose row is due is worked on in one of two lanes. In the slow one are people whose row takes long to compute; a
    person gets there by `defer`, and out of it by `note`.
    """

    def position(self) -> int:
        """The log position up to which every event is in here."""
        ...

    def add(self, rows: Sequence[Row]) -> Added:
        """Keep those rows that count, move `position` on, make those touched due, break checkpoints, all in one step.

        Rows with a position up to `position()` are passed over. Those that are UNNUMBERED get the next ones, but for
        exact copies of what counts here, and wait in `arrived` too. Where the history leases people to workers, this
        worker has those touched, but for who is in the slow lane.
        """
        ...

    def keep(self, rows: Sequence[Row], position: int = 0) -> None:
        """Take rows in without making anybody due: what others have computed up to a position."""
        ...

    def arrived(self, most: int) -> list[Row]:
        """Those that were given a position here, all copies, in the order of positions, until `passed_on`."""
        ...

    def passed_on(self, through: int) -> None:
        """Somebody else has those up to this position now."""
        ...

    def senders_of(self, persons: Iterable[str]) -> set[str]:
        """The senders whose events these persons' features can need."""
        ...

    def aliases(self, person: str, trusted: bool = False) -> list[str]:
        """The anonymous ids that were ever said to be this person's; or only by events that can be trusted in it."""
        ...

    def events(self, senders: Iterable[str], after: int = 0) -> list[Row]:
        """The events of these senders with a position after that one which are not folded, in no order."""
        ...

    def heavy(self, senders: Iterable[str], than: int, folded: bool = False) -> set[str]:
        """Those of these senders who have more events than that which are not folded, or, if asked, which are."""
        ...

    def versions(self, senders: Iterable[str]) -> dict[str, Version]:
        """Of each sender the numbers of the last changes to what `events` gives; zeros where it gives nothing."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """What this object reads inside is of one moment, where the store can do that."""
        ...

    def known(self, keys: Sequence[tuple[str, str]]) -> list[Row | None]:
        """For each (sender, message id) the copy of that message that counts; None: there is none here."""
        ...

    def leave(self, senders: Iterable[str]) -> None:
        """These senders' past is in the lake until somebody is touched who needs it; what is here of it is dropped.

        Who was ever said to be whom stays.
        """
        ...

    def left(self, senders: Iterable[str]) -> set[str]:
        """Those of these senders whose past is in the lake."""
        ...

    def fetched(self, senders: Iterable[str], rows: Sequence[Row]) -> None:
        """This is their past out of the lake."""
        ...

    def claim(self, at_us: int, most: int, slow: bool = False) -> list[str]:
        """Whose rows of a lane are due by a time, the longest due first. Where there are leases, nobody else gets them
        until they are noted or the lease ends."""
        ...

    def waiting(self, at_us: int) -> int:
        """How many people's rows are due by a time, in both lanes, leased or not."""
        ...

    def unsettled(self, person: str, at_us: int = CHANGED) -> bool:
        """Whether this person's row is due by a time, in either lane, leased or not; by itself: whether it lacks
        something that has come into the history."""
        ...

    def defer(self, persons: Iterable[str], since_us: int = CHANGED) -> None:
        """These persons are due, in the slow lane, since then or as long as they were; the longest due come first."""
        ...

    def deferred(self) -> set[str]:
        """Who is due in the slow lane because their past has changed, not by time."""
        ...

    def written(self, persons: Iterable[str]) -> dict[str, Written]:
        """What was last written of those persons of whom anything was, or who are due."""
        ...

    def note(self, written: Mapping[str, Written | None], by: int) -> None:
        """What has now been written, by what was known at a position; None: the person's row is gone.

        Those touched after that position stay due, also where somebody faster has noted them as gone meanwhile. So do
        those of whom somebody has noted a later event timestamp, which is kept: the online store refused this row.
        """
        ...

    def set_aside(self, reasons: Mapping[str, str], by: int) -> None:
        """The rows of these users, as known at a position, cannot be computed, for a reason each: they are due no more.

        Those touched after that position stay due. A user is set aside until `note` or `erase`; an event of theirs,
        and `defer`, make them due again.
        """
        ...

    def aside(self) -> dict[str, str]:
        """The users who are set aside, each with the reason."""
        ...

    def checkpoints(self, persons: Iterable[str]) -> dict[str, Checkpoint]:
        """The checkpoints of those of these persons who have one."""
        ...

    def fold(self, person: str, checkpoint: Checkpoint, message_ids: Sequence[str], by: int) -> bool:
        """Put these events of the sender `person` behind a checkpoint made by what was known at a position.

        False, and nothing changes, where the person was touched after it, or has a broken checkpoint, or these events
        are folded already. A piece at a time: a kill in between, or an event that arrives then and changes this past,
        leaves a broken checkpoint.
        """
        ...

    def unfold(self, persons: Iterable[str]) -> None:
        """Take the checkpoints of these persons back. A piece at a time; until it is done they are broken."""
        ...

    def erase(self, senders: Iterable[str]) -> int:
        """Forget these senders: events, edges, due rows, checkpoints, what waits in `arrived`; how many events."""
        ...

    def reader(self) -> Self:
        """A further object on the same store, for another thread."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def has_message(history: HistoryStore, person: str, message_id: str) -> bool:
    """Whether a message of this person, or of an anonymous id that was ever said to be theirs, is in the history."""
    senders = [person, *(f"{ANONYMOUS}{a}" for a in history.aliases(person))]
    return any(row is not None for row in history.known([(sender, message_id) for sender in senders]))


def claims(history: HistoryStore, anonymous_ids: Iterable[str]) -> dict[str, set[str]]:
    """For each of these anonymous ids the users whom it was ever said to be."""
    senders = {a: f"{ANONYMOUS}{a}" for a in anonymous_ids}
    return {a: history.senders_of([sender]) - {sender} for a, sender in senders.items()}


def open_history(settings: Settings) -> HistoryStore:
    """The history that the settings name; on Redis each lake has one of its own."""
    if settings.history == "sqlite":
        from feature_repo.history.sqlite_history import SqliteHistory

        return SqliteHistory(settings.state / "history.db")
    from feature_repo.history.redis_history import RedisHistory

    lake = md5(settings.lake.encode(), usedforsecurity=False).hexdigest()[:8]
    return RedisHistory(settings.history, f"{settings.domain}-{lake}")
