"""Where in many files the rows of a key are: a cache in one SQLite file, made anew from the files whenever it is lost.

Only hashes of keys are kept, 64 bits each. So a place that is found may hold nothing of the key; a place that is not
found holds nothing. A file is known by its name and version, and one that has changed since counts as not indexed:
the index can be old, missing or damaged, and whoever searches reads more than necessary, never too little.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_repo.sqlite import Transaction

_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS places (key INTEGER, file INTEGER, place INTEGER, PRIMARY KEY (key, file, place))
    WITHOUT ROWID;
"""
WAIT_S = 30.0
_log = logging.getLogger(__name__)

Entries = Callable[[str], Iterable[tuple[int, Iterable[str]]]]
"""The keys at each place of a file, by the file's name."""


class Found(NamedTuple):
    """places: by file, where a key may be. unknown: files that are not indexed, and have to be searched as a whole."""

    places: dict[str, list[int]]
    unknown: list[str]


class KeyIndex:
    """Safe from several threads and processes: every call opens the file anew."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def find(self, files: Mapping[str, str], keys: Iterable[str]) -> Found:
        """The places of any of these keys in some files, which are given as version by name."""
        hashes = [key_hash(key) for key in keys]
        marks = ", ".join("?" * len(hashes))
        query = f"SELECT name, place FROM places JOIN files ON id = file WHERE key IN ({marks}) ORDER BY place"
        if not self.file.exists():
            return Found({}, list(files))
        try:
            with self._open() as db:
                db.execute("BEGIN")
                known = dict(db.execute("SELECT name, version FROM files"))
                rows = db.execute(query, hashes).fetchall()
        except sqlite3.Error as error:
            _log.warning("%s cannot be read (%s): every file is searched instead", self.file, error)
            return Found({}, list(files))
        current = {name for name, version in files.items() if known.get(name) == version}
        places: dict[str, list[int]] = {}
        for name, place in rows:
            if name in current:
                places.setdefault(name, []).append(place)
        return Found(places, [name for name in files if name not in current])

    def update(self, files: Mapping[str, str], entries: Entries, forget: bool = True) -> int:
        """Index those of these files that are not, and forget all others if asked; returns how many were indexed.

        A file for which `entries` raises FileNotFoundError has been removed meanwhile and is left out; so is one of
        which it says by ArrowInvalid that it is damaged.
        """
        try:
            return self._update(files, entries, forget)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            _log.warning("%s is damaged (%s) and is made anew", self.file, error)
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.file}{suffix}").unlink(missing_ok=True)
            return self._update(files, entries, forget)

    def _update(self, files: Mapping[str, str], entries: Entries, forget: bool) -> int:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.executescript(_TABLES)
            known = dict(db.execute("SELECT name, version FROM files"))
            new = {name: version for name, version in files.items() if known.get(name) != version}
            old = {name for name in known if name in new or (forget and name not in files)}
            if old:
                with Transaction(db):
                    self._forget(db, old)
            for name, version in new.items():
                try:
                    rows = sorted({(key_hash(key), place) for place, keys in entries(name) for key in keys})
                except FileNotFoundError:
                    continue
                except pa.ArrowInvalid as error:
                    _log.warning("%s cannot be indexed, it is damaged: %s", name, error)
                    continue
                with Transaction(db):
                    self._forget(db, {name})  # another process may have indexed it meanwhile
                    number = db.execute("INSERT INTO files (name, version) VALUES (?, ?)", (name, version)).lastrowid
                    db.executemany("INSERT INTO places VALUES (?, ?, ?)", ((key, number, at) for key, at in rows))
        return len(new)

    def _forget(self, db: sqlite3.Connection, names: Iterable[str]) -> None:
        numbers = [n for name in names for n in db.execute("SELECT id FROM files WHERE name = ?", (name,)).fetchall()]
        if not numbers:
            return
        db.execute("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO gone VALUES (?)", numbers)
        db.execute("DELETE FROM places WHERE file IN (SELECT id FROM gone)")
        db.execute("DELETE FROM files WHERE id IN (SELECT id FROM gone)")
        db.execute("DROP TABLE gone")

    def _open(self) -> "closing[sqlite3.Connection]":
        db = sqlite3.connect(self.file, isolation_level=None, timeout=WAIT_S)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA secure_delete = ON")
        return closing(db)


def key_hash(key: str) -> int:
    """64 bits of BLAKE2b, as SQLite's signed integer.

    >>> key_hash("user-1") == key_hash("user-1") != key_hash("user-2")
    True
    """
    return int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), signed=True)
