"""Everybody's past on this machine: the canonical copy of each event by sender, in SQLite.

add(rows) ─► what counts now, and whose features it can change ─► senders_of(persons) ─► events(senders)

`add` writes the position that it has reached, and that those people's rows are due, with the events in one transaction:
what is delivered twice, or again after a kill, changes nothing, and a kill before the rows are written loses nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import md5
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from feature_repo.event_log import shard_key
from feature_repo.events import ANONYMOUS, Event, canonical_json
from feature_repo.sqlite import Transaction

EDGES = ("identify", "alias")
NEVER = -(2**62)
"""The event timestamp of an online row that was never written, µs."""


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
    def rank(self) -> tuple[int, str, int, int]:
        """Of several copies of a message the one with the smallest rank counts (as lake_sql.canonical has it)."""
        return (self.ts_us, self.content_hash, self.received_us, self.position)

    @property
    def hand(self) -> str | None:
        """The anonymous id whose events this one can make change hands, or which owns it."""
        return self.anonymous_id if self.user_id is None or self.type in EDGES else None


def row_of(position: int, event: Event) -> Row:
    """An event at its log position."""
    properties, traits, context = (canonical_json(d).decode() for d in (event.properties, event.traits, event.context))
    ids = ("" if i is None else f"={i}" for i in (event.name, event.user_id, event.anonymous_id))
    content = "\0".join([event.type, *ids, properties, traits, context]).encode()
    content_hash = md5(content, usedforsecurity=False).hexdigest()[:16]
    return Row(
        shard_key(event), event.message_id, position, event.type, event.name, event.user_id, event.anonymous_id,
        event.ts_us, event.received_us, properties, traits, context, content_hash,
    )  # fmt: skip


class Written(NamedTuple):
    """A person's online row: its event timestamp, and when it next changes with no new event (null: never); µs."""

    event_us: int
    due_us: int | None


class Added(NamedTuple):
    """What an `add` changed: rows that are new, senders of rows that were replaced, persons whose rows are now due."""

    new: list[Row]
    corrected: set[str]
    touched: set[str]


class HistoryStore(Protocol):
    """What the stream keeps. One writer at a time; the contract is tests/contracts/test_history_store.py."""

    def position(self) -> int:
        """The log position up to which every event is in here."""
        ...

    def add(self, rows: Sequence[Row]) -> "Added":
        """Keep those rows that count, move `position` on to the largest, make those touched due, all in one step."""
        ...

    def senders_of(self, persons: Iterable[str]) -> set[str]:
        """The senders whose events these persons' features can need."""
        ...

    def aliases(self, person: str) -> list[str]:
        """The anonymous ids that were ever said to be this person's."""
        ...

    def events(self, senders: Iterable[str]) -> list[Row]:
        """Every event of these senders, in no order."""
        ...

    def known(self, keys: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (sender, message id): whether a copy of that message is here."""
        ...

    def written(self, persons: Iterable[str]) -> dict[str, Written]:
        """What was last written of those persons of whom anything was."""
        ...

    def note(self, written: Mapping[str, Written | None]) -> None:
        """What has now been written; None: the person's row is gone."""
        ...

    def due(self, at_us: int, most: int) -> list[str]:
        """Whose rows have changed by themselves by `at_us`, the longest due first."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    sender TEXT, message_id TEXT, position INTEGER, type TEXT, name TEXT, user_id TEXT, anonymous_id TEXT,
    ts_us INTEGER, received_us INTEGER, properties TEXT, traits TEXT, context TEXT, content_hash TEXT,
    PRIMARY KEY (sender, message_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS edges (user_id TEXT, anonymous_id TEXT, PRIMARY KEY (user_id, anonymous_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS edges_of ON edges (anonymous_id);
CREATE TABLE IF NOT EXISTS written (person TEXT PRIMARY KEY, event_us INTEGER NOT NULL, due_us INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS written_due ON written (due_us) WHERE due_us IS NOT NULL;
CREATE TABLE IF NOT EXISTS reached (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL);
INSERT OR IGNORE INTO reached VALUES (1, 0);
CREATE TABLE IF NOT EXISTS elsewhere (sender TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_COLUMNS = ", ".join(Row._fields)
_MAKE_DUE = f"INSERT INTO written VALUES (?, {NEVER}, 0) ON CONFLICT DO UPDATE SET due_us = 0"
_AMONG = "(SELECT value FROM json_each(?))"


class SqliteHistory:
    """A HistoryStore in one SQLite file. Not for several threads at once: the stream has a lock.

    past: reads every event of the senders whose past was left where it was (see `leave`).
    """

    def __init__(self, path: Path, past: Callable[[Sequence[str]], Iterable[Row]] | None = None) -> None:
        self._past = past
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -65536"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def position(self) -> int:
        """The log position up to which every event is in here."""
        return int(self._db.execute("SELECT position FROM reached").fetchone()[0])

    def add(self, rows: Sequence[Row]) -> Added:
        """Keep those rows that count, move `position` on to the largest, make those touched due, in one transaction."""
        self._fetch([row.sender for row in rows])
        first: dict[tuple[str, str], Row | None] = {}
        kept: dict[tuple[str, str], Row] = {}
        for row in rows:
            if row.key not in first:
                first[row.key] = self._copy(row.key)
            held = kept.get(row.key) or first[row.key]
            if held is None or row.rank < held.rank:
                kept[row.key] = row
        with Transaction(self._db):
            self._insert(list(kept.values()))
            replaced = [held for key in kept if (held := first[key]) is not None]
            touched = self._touched([*kept.values(), *replaced])
            self._db.executemany(_MAKE_DUE, [(person,) for person in touched])
            if rows:
                last = max(row.position for row in rows)
                self._db.execute("UPDATE reached SET position = max(position, ?)", (last,))
        new = [row for key, row in kept.items() if first[key] is None]
        return Added(new, {row.sender for row in replaced}, touched)

    def _insert(self, rows: Sequence[Row]) -> None:
        marks = ", ".join("?" * len(Row._fields))
        self._db.executemany(f"INSERT OR REPLACE INTO events VALUES ({marks})", rows)
        edges = [(r.user_id, r.anonymous_id) for r in rows if r.type in EDGES and r.user_id and r.anonymous_id]
        self._db.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?)", edges)

    def _copy(self, key: tuple[str, str]) -> Row | None:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM events WHERE sender = ? AND message_id = ?", key).fetchone()
        return Row(*found) if found else None

    def _touched(self, rows: Sequence[Row]) -> set[str]:
        """The persons whose features these rows, new or replaced, can change."""
        hands = {row.hand for row in rows if row.hand is not None}
        persons = {row.user_id for row in rows if row.user_id is not None}
        return persons | {f"{ANONYMOUS}{a}" for a in hands} | self._users_of(hands)

    def senders_of(self, persons: Iterable[str]) -> set[str]:
        """The senders whose events these persons' features can need: their own, their hands', who shares them."""
        persons = set(persons)
        query = f"SELECT DISTINCT anonymous_id FROM edges WHERE user_id IN {_AMONG}"
        hands = {a for (a,) in self._db.execute(query, (json.dumps(list(persons)),))}
        hands |= {p.removeprefix(ANONYMOUS) for p in persons if p.startswith(ANONYMOUS)}
        return persons | {f"{ANONYMOUS}{a}" for a in hands} | self._users_of(hands)

    def _users_of(self, hands: Iterable[str]) -> set[str]:
        query = f"SELECT DISTINCT user_id FROM edges WHERE anonymous_id IN {_AMONG}"
        return {u for (u,) in self._db.execute(query, (json.dumps(list(hands)),))}

    def aliases(self, person: str) -> list[str]:
        """The anonymous ids that were ever said to be this person's."""
        return [a for (a,) in self._db.execute("SELECT anonymous_id FROM edges WHERE user_id = ?", (person,))]

    def leave(self, senders: Iterable[str]) -> None:
        """These senders' past stays elsewhere until somebody asks for it."""
        with Transaction(self._db):
            self._db.executemany("INSERT OR IGNORE INTO elsewhere VALUES (?)", ((s,) for s in senders))

    def keep(self, rows: Iterable[Row], position: int) -> None:
        """Take rows in without making anybody due: what others have computed up to a position."""
        with Transaction(self._db):
            self._insert([row for row in rows if (held := self._copy(row.key)) is None or row.rank < held.rank])
            self._db.execute("UPDATE reached SET position = max(position, ?)", (position,))

    def _fetch(self, senders: Sequence[str]) -> None:
        """Bring the past of those of these senders here whose is elsewhere."""
        query = f"SELECT sender FROM elsewhere WHERE sender IN {_AMONG}"
        absent = [s for (s,) in self._db.execute(query, (json.dumps(senders),))]
        if absent and self._past is not None:
            self.keep(self._past(absent), 0)
            self._db.executemany("DELETE FROM elsewhere WHERE sender = ?", [(s,) for s in absent])

    def events(self, senders: Iterable[str]) -> list[Row]:
        """Every event of these senders, in no order."""
        senders = list(senders)
        self._fetch(senders)
        query = f"SELECT {_COLUMNS} FROM events WHERE sender IN {_AMONG}"
        return [Row(*found) for found in self._db.execute(query, (json.dumps(list(senders)),))]

    def known(self, keys: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (sender, message id): whether a copy of that message is here."""
        query = "SELECT EXISTS (SELECT 1 FROM events WHERE sender = ? AND message_id = ?)"
        return [bool(self._db.execute(query, key).fetchone()[0]) for key in keys]

    def written(self, persons: Iterable[str]) -> dict[str, Written]:
        """What was last written of those persons of whom anything was."""
        query = f"SELECT person, event_us, due_us FROM written WHERE person IN {_AMONG}"
        return {p: Written(*rest) for p, *rest in self._db.execute(query, (json.dumps(list(persons)),))}

    def note(self, written: Mapping[str, Written | None]) -> None:
        """What has now been written; None: the person's row is gone."""
        with Transaction(self._db):
            gone = [(person,) for person, what in written.items() if what is None]
            self._db.executemany("DELETE FROM written WHERE person = ?", gone)
            kept = [(person, *what) for person, what in written.items() if what is not None]
            self._db.executemany("INSERT OR REPLACE INTO written VALUES (?, ?, ?)", kept)

    def due(self, at_us: int, most: int) -> list[str]:
        """Whose rows have changed by themselves by `at_us`, the longest due first."""
        query = "SELECT person FROM written WHERE due_us <= ? ORDER BY due_us LIMIT ?"
        return [person for (person,) in self._db.execute(query, (at_us, most))]
