"""Who was erased: keyed hashes that recognise their events and say nothing to whoever reads them, and work under way.

erased.db     tombstones: a hash for each id | erasures: one a person; `plan` names people only until it is done
"""

import json
import re
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from feature_repo.contract.events import ANONYMOUS, Event
from feature_repo.erasing.hashes import Hashes
from feature_repo.history.history_store import EDGES
from feature_repo.sqlite import Transaction, purge

FILE = "erased.db"
ERASED = "erased"
"""The reason of an event that comes from, or names, a person who was erased."""
TOLD = "its sender was erased"
_TABLES = """
CREATE TABLE IF NOT EXISTS tombstones (hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erasures
    (person BLOB PRIMARY KEY, requested_us INTEGER NOT NULL, finished_us INTEGER, plan TEXT) WITHOUT ROWID;
"""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?\Z)', re.DOTALL)
"""A string in quotes; one that does not end goes to the end of the text, so that no text is looked through twice."""
_WORD = re.compile(r"[^\s\"'`<>()\[\]{},;:=&]+")
_NAME = re.compile(r"[\w.@+-]+")


class Erasure(NamedTuple):
    """What is recorded of a person's erasure; finished_us: null while there is something left to do; µs."""

    requested_us: int
    finished_us: int | None


class Tombstones:
    """The erased people of one state folder. Safe from several threads.

    passing: to be held from asking `refuses` until the event is handed on: after `begin` or `planned` none is between.

    Raises:
        DamagedFile: there are tombstones, and the key that they were made with is gone.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._hash = folder / FILE, Hashes(folder)
        self.passing, self._lock = threading.Lock(), threading.Lock()
        self._hashes: set[bytes] = set()
        self._read_at = 0
        if self._file.exists():
            self._hash.needed(self._file)
            with self._open() as db:
                self._hashes |= {h for (h,) in db.execute("SELECT hash FROM tombstones")}

    def follow(self) -> Self:
        """Know of those whom other processes have recorded since; returns itself."""
        at = self._file.stat().st_mtime_ns if self._file.exists() else 0
        if at != self._read_at:
            self._read_at = at
            with self._lock, self._open() as db:
                self._hashes |= {h for (h,) in db.execute("SELECT hash FROM tombstones")}
        return self

    def begin(self, person: str, now_us: int) -> dict[str, Any]:
        """Record durably that a person is to be erased; from now on their events are refused.

        Returns the plan as far as it is made: the `person` alone, unless an erasure of theirs is not done yet.
        """
        with self._lock, self._open() as db, Transaction(db):
            db.execute(
                "INSERT INTO erasures VALUES (?, ?, NULL, ?) ON CONFLICT DO UPDATE SET finished_us = NULL,"
                " plan = coalesce(plan, excluded.plan)",
                (self._hash(person), now_us, json.dumps({"person": person})),
            )
            self._bury(db, [person])
            (recorded,) = db.execute("SELECT plan FROM erasures WHERE person = ?", (self._hash(person),)).fetchone()
        return dict(json.loads(recorded))

    def planned(self, person: str, plan: dict[str, Any], senders: Iterable[str]) -> None:
        """Record what is to be removed, and that these senders' events are refused too."""
        with self._lock, self._open() as db, Transaction(db):
            db.execute("UPDATE erasures SET plan = ? WHERE person = ?", (json.dumps(plan), self._hash(person)))
            self._bury(db, senders)

    def finish(self, person: str, now_us: int) -> None:
        """Nothing is left to do: only hashes remain."""
        with self._lock:
            with self._open() as db, Transaction(db):
                row = (now_us, self._hash(person))
                db.execute("UPDATE erasures SET finished_us = ?, plan = NULL WHERE person = ?", row)
            purge(self._file)

    def unfinished(self) -> list[dict[str, Any]]:
        """The plans that are recorded and not done, the oldest first; one not yet made holds the `person` alone."""
        if not self._file.exists():
            return []
        with self._lock, self._open() as db:
            found = db.execute("SELECT plan FROM erasures WHERE plan IS NOT NULL ORDER BY requested_us").fetchall()
        return [json.loads(plan) for (plan,) in found]

    def erasure(self, person: str) -> Erasure | None:
        """What is recorded of a person's erasure."""
        query = "SELECT requested_us, finished_us FROM erasures WHERE person = ?"
        if not self._file.exists():
            return None
        with self._lock, self._open() as db:
            found = db.execute(query, (self._hash(person),)).fetchone()
        return Erasure(*found) if found else None

    def covers(self, sender: str) -> bool:
        """Whether a user id, or "anon:" + anonymous id, was erased."""
        return bool(self._hashes) and self._hash(sender) in self._hashes

    def refuses(self, event: Event) -> bool:
        """Whether an event is of somebody erased, or would link somebody to an erased anonymous id."""
        if not self._hashes:
            return False
        if event.user_id is not None and self.covers(event.user_id):
            return True
        speaks = event.user_id is None or event.type in EDGES
        return speaks and event.anonymous_id is not None and self.covers(f"{ANONYMOUS}{event.anonymous_id}")

    def mentioned(self, raw: bytes) -> bool:
        """Whether any string or word of what came, JSON or not, is the id of somebody erased."""
        if not self._hashes:
            return False
        return any(self.covers(w) or self.covers(f"{ANONYMOUS}{w}") for w in words(text_of(raw)))

    def _bury(self, db: sqlite3.Connection, senders: Iterable[str]) -> None:
        hashes = {self._hash(sender) for sender in senders}
        db.executemany("INSERT OR IGNORE INTO tombstones VALUES (?)", [(h,) for h in hashes])
        with self.passing:
            self._hashes |= hashes

    def _open(self) -> "closing[sqlite3.Connection]":
        if not self._file.exists():
            self._hash.prepare()  # first: a kill in between must not leave a file without its key
        db = sqlite3.connect(self._file, isolation_level=None, timeout=30)
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_TABLES)
        return closing(db)


def words(text: str) -> set[str]:
    """Whatever in a text may be somebody's id: strings and their words; numbers, where their key ends in `id`.

    Where it is no JSON: strings in quotes, and what stands between blanks and punctuation.

    >>> sorted(words('{"userId": 7, "n": 8, "who": "a b"}')), sorted(words('{"userId":"a b", broken: u-1/x'))
    (['7', 'a', 'a b', 'b', 'n', 'userId', 'who'], ['a', 'a b', 'b', 'broken', 'u-1', 'u-1/x', 'userId', 'x'])
    """
    try:
        left: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        return _words(text) | {_unescaped(quoted) for quoted in _QUOTED.findall(text)}
    found = set[str]()
    while left:
        value = left.pop()
        if isinstance(value, str):
            found |= {value} | _words(value)
        elif isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += [*value, *value.values()]
            found |= {str(n) for key, n in value.items() if isinstance(n, int) and key.lower().endswith("id")}
    return found


def _words(text: str) -> set[str]:
    return {*_WORD.findall(text), *_NAME.findall(text)}


def mentions(text: str, ids: frozenset[str]) -> bool:
    """Whether one of these ids is a string or a word of a text; one with blanks in it, also without quotes.

    >>> mentions("{userId: u-1}", frozenset(["u-1"])), mentions("{userId: u-10}", frozenset(["u-1"]))
    (True, False)
    """
    if not ids.isdisjoint(words(text)):
        return True
    odd = (re.escape(i) for i in ids if not _WORD.fullmatch(i) and i in text)
    return any(re.search(rf"(?<![\w.@+-]){i}(?![\w.@+-])", text) for i in odd)


def text_of(raw: object) -> str:
    """What came as text: bytes as UTF-8 as far as they are, a JSON value as JSON."""
    if isinstance(raw, bytes):
        return raw.decode(errors="replace")
    return raw if isinstance(raw, str) else json.dumps(raw)


def _unescaped(quoted: str) -> str:
    try:
        return str(json.loads(f'"{quoted}"', strict=False))
    except ValueError:
        return quoted
