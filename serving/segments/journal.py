"""The journal of segments: what has been told of each person, append-only, and what the rules remember of them.

people    a document a person (see keeper.Followed), and when it changes with no new event
changes   a row for each entering and leaving; what turns out to have been otherwise is taken back by a row of its own
eras      which rules are in force from when on
cursors   how far each channel has got

A document and the changes that it stands for are written in one transaction, so that a change is told once. One process
at a time writes the file in the state folder.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from feature_repo.sqlite import Transaction, purge
from feature_repo.storage import flock

FILE = "segments.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS people (person TEXT PRIMARY KEY, due_us INTEGER, document BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due ON people (due_us) WHERE due_us IS NOT NULL;
CREATE TABLE IF NOT EXISTS changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT NOT NULL, source TEXT NOT NULL, segment TEXT NOT NULL,
    entered INTEGER NOT NULL, at_us INTEGER NOT NULL, cause TEXT NOT NULL, version TEXT NOT NULL,
    noted_us INTEGER NOT NULL, corrects INTEGER);
CREATE INDEX IF NOT EXISTS changes_of ON changes (person);
CREATE TABLE IF NOT EXISTS eras (since_us INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (channel TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS append_only BEFORE UPDATE ON changes
    BEGIN SELECT RAISE(ABORT, 'changes are appended, never rewritten'); END;
"""


class Change(msgspec.Struct, frozen=True, rename="camel"):
    """Somebody entered or left a segment.

    source: `rules`, `engagement` or `personas`. at_us: when it happened; noted_us: when it was found; µs.
    cause: in words. version: of the rules, or of the model, that it is due to.
    corrects: the `seq` of the change that this one takes back; null: none. seq: 0 until it is in the journal.
    """

    person: str
    source: str
    segment: str
    entered: bool
    at_us: int
    cause: str
    version: str
    noted_us: int
    corrects: int | None = None
    seq: int = 0

    @property
    def key(self) -> tuple[str, bool, int]:
        """What makes it the same as another of the person's."""
        return (self.segment, self.entered, self.at_us)


class Entry(NamedTuple):
    """A person's document, and when their segments change with no new event (null: never, as far as is known), µs."""

    document: bytes
    due_us: int | None


class Journal:
    """Safe from several threads. file: null: in memory, for a process that tells nobody.

    erasures: how often changes were removed, so that whoever has counted them counts anew.

    Raises:
        BusyError: another process writes this file.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file, self._alone, self.erasures = file, ExitStack(), 0
        if file is not None:
            self._alone.enter_context(flock(file.with_suffix(".lock"), "service", 0.0))
        self._db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # all of it can be made anew from the history
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(_TABLES)
        self._lock = threading.Lock()

    def write(self, people: Mapping[str, Entry], changes: Sequence[Change]) -> list[Change]:
        """Keep these documents and append these changes, in one step; returns the changes with their `seq`."""
        with self._lock, Transaction(self._db):
            rows = [(person, e.due_us, e.document) for person, e in people.items()]
            self._db.executemany("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", rows)
            told = [
                (c.person, c.source, c.segment, c.entered, c.at_us, c.cause, c.version, c.noted_us, c.corrects)
                for c in changes
            ]
            self._db.executemany("INSERT INTO changes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", told)
            last = self._db.execute("SELECT last_insert_rowid()").fetchone()[0]
            return [msgspec.structs.replace(c, seq=seq) for seq, c in enumerate(changes, last - len(changes) + 1)]

    def document(self, person: str) -> bytes | None:
        """What was kept of a person last."""
        found = self._rows("SELECT document FROM people WHERE person = ?", person)
        return found[0][0] if found else None

    def due(self, at_us: int, most: int) -> list[str]:
        """Whose segments change by a time with no new event, the longest due first."""
        query = "SELECT person FROM people WHERE due_us <= ? ORDER BY due_us LIMIT ?"
        return [person for (person,) in self._rows(query, at_us, most)]

    def after(self, seq: int, most: int) -> list[Change]:
        """The next changes after one."""
        return list(map(_change, self._rows("SELECT * FROM changes WHERE seq > ? ORDER BY seq LIMIT ?", seq, most)))

    def newest(self, most: int) -> list[Change]:
        """The last changes, the newest first."""
        return list(map(_change, self._rows("SELECT * FROM changes ORDER BY seq DESC LIMIT ?", most)))

    def of(self, persons: Iterable[str]) -> list[Change]:
        """All changes of these persons, the first first."""
        persons = list(persons)
        marks = ", ".join("?" * len(persons))
        return list(map(_change, self._rows(f"SELECT * FROM changes WHERE person IN ({marks}) ORDER BY seq", *persons)))

    def last_cause(self, segment: str, entered: bool) -> str | None:
        """Why somebody entered, or left, a segment last; null: nobody has."""
        query = "SELECT cause FROM changes WHERE segment = ? AND entered = ? ORDER BY at_us DESC LIMIT 1"
        found = self._rows(query, segment, entered)
        return found[0][0] if found else None

    def last(self) -> int:
        """The `seq` of the last change; 0: there is none."""
        return int(self._rows("SELECT coalesce(max(seq), 0) FROM changes")[0][0])

    def counts(self, after: int = 0) -> tuple[dict[tuple[str, str], int], int]:
        """By (source, segment) how many more people are in it since a `seq`; and the `seq` of the last change."""
        grouped = self._rows(
            "SELECT source, segment, sum(2 * entered - 1), max(seq) FROM changes WHERE seq > ? GROUP BY 1, 2", after
        )
        return {(source, segment): n for source, segment, n, _ in grouped}, max([after, *(r[3] for r in grouped)])

    def cursor(self, channel: str) -> int | None:
        """How far a channel has got; null: it is new."""
        found = self._rows("SELECT seq FROM cursors WHERE channel = ?", channel)
        return found[0][0] if found else None

    def advance(self, channel: str, seq: int) -> None:
        """A channel has told everything up to here."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (channel, seq))

    def erase(self, persons: Iterable[str]) -> int:
        """Forget these persons; how many changes of theirs there were."""
        with self._lock, Transaction(self._db):
            gone, self.erasures = 0, self.erasures + 1
            for person in persons:
                gone += self._db.execute("DELETE FROM changes WHERE person = ?", (person,)).rowcount
                self._db.execute("DELETE FROM people WHERE person = ?", (person,))
        if self.file is not None:
            purge(self.file)
        return gone

    def eras(self) -> list[tuple[int, str]]:
        """From when on (µs) rules of which content are in force, the first first."""
        return self._rows("SELECT since_us, content FROM eras ORDER BY since_us")

    def begin_era(self, content: str, now_us: int) -> list[tuple[int, str]]:
        """These rules are in force from now on, the first ones from ever on, unless they are already; the eras then."""
        with self._lock, Transaction(self._db):
            last = self._db.execute("SELECT content FROM eras ORDER BY since_us DESC LIMIT 1").fetchone()
            if last is None or last[0] != content:
                since_us = now_us if last else 0
                self._db.execute("INSERT OR REPLACE INTO eras VALUES (?, ?)", (since_us, content))
        return self.eras()

    def forget(self, persons: Iterable[str]) -> None:
        """Begin anew with these persons; what was told of them stays."""
        with self._lock, Transaction(self._db):
            self._db.executemany("DELETE FROM people WHERE person = ?", [(p,) for p in persons])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()
        self._alone.close()

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._db.execute(query, values).fetchall()


def changes_of(file: Path, persons: Iterable[str]) -> list[Change]:
    """All changes of these persons in a journal that another process may be writing, the first first."""
    if not file.exists():
        return []
    marks = ", ".join("?" * len(persons := list(persons)))
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        query = f"SELECT * FROM changes WHERE person IN ({marks}) ORDER BY seq"
        return list(map(_change, db.execute(query, persons).fetchall()))


def _change(row: tuple) -> Change:
    seq, person, source, segment, entered, at_us, cause, version, noted_us, corrects = row
    return Change(person, source, segment, bool(entered), at_us, cause, version, noted_us, corrects, seq)
