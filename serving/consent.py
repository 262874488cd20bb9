"""Who has opted out of being profiled: nothing more is collected of them, and every decision is the default journey.

What was collected before stays until it is erased: that is another wish (see erasing.py). Only keyed hashes of ids are
kept, so that an erasure finds nothing here that it would have to remove.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from feature_repo.erasing.hashes import Hashes
from feature_repo.sqlite import purge

FILE = "opted_out.db"
_log = logging.getLogger("bentoml.serve.firstmile")


class OptedOut:
    """The people who had opted out at one moment. False where nobody had."""

    def __init__(self, hashes: frozenset[bytes], hash_of: Hashes) -> None:
        self._hashes, self._hash_of = hashes, hash_of

    def __contains__(self, sender: str) -> bool:
        """Whether a user id, or "anon:" + anonymous id, was among them."""
        return bool(self._hashes) and self._hash_of(sender) in self._hashes

    def __bool__(self) -> bool:
        return bool(self._hashes)


class Consent:
    """The people of one state folder who have opted out, by user id or "anon:" + anonymous id. For several threads.

    A file that cannot be read any more is reported in the log, and whoever had opted out when it last could stays out.

    Raises:
        DamagedFile: people have opted out, and the key of their hashes is gone.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._hash_of = folder / FILE, Hashes(folder)
        self._lock = threading.Lock()
        self._out = OptedOut(frozenset(), self._hash_of)
        self._read_at = 0
        if self._file.exists():
            self._hash_of.needed(self._file)

    def opted_out(self, sender: str) -> bool:
        """Whether somebody has opted out, here or in another process."""
        return sender in self.out()

    def out(self) -> OptedOut:
        """All who have opted out by now, here or in another process."""
        try:
            at = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            at = 0
        if at != self._read_at:
            try:
                self._read()
            except sqlite3.DatabaseError as error:
                _log.error("%s: %s; whoever opted out before stays out. Bring the file back", self._file, error)
            self._read_at = at
        return self._out

    def since(self, senders: Iterable[str]) -> int | None:
        """When the first of these ids of one person opted out, in µs; None: none of them has."""
        if not any(sender in self.out() for sender in senders):
            return None
        with self._lock, self._open() as db:
            query = "SELECT since_us FROM opted_out WHERE hash = ?"
            found = [db.execute(query, (self._hash_of(sender),)).fetchone() for sender in senders]
        return min((since for (since,) in filter(None, found)), default=None)

    def opt_out(self, senders: Iterable[str], now_us: int) -> None:
        """Record durably that these are one person who has opted out."""
        self._write("INSERT OR IGNORE INTO opted_out VALUES (?, ?)", [(self._hash_of(s), now_us) for s in senders])

    def opt_in(self, senders: Iterable[str]) -> None:
        """Take that back. Nothing is left of it on disk."""
        self._write("DELETE FROM opted_out WHERE hash = ?", [(self._hash_of(s),) for s in senders])
        purge(self._file)

    def _write(self, statement: str, rows: list[tuple]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS opted_out (hash BLOB PRIMARY KEY, since_us INTEGER) WITHOUT ROWID")
            db.executemany(statement, rows)
            db.commit()
        self._read()

    def _read(self) -> None:
        if not self._file.exists():
            raise sqlite3.DatabaseError("expected the database of those who have opted out; it is missing")
        with self._lock, self._open() as db:
            found = frozenset(h for (h,) in db.execute("SELECT hash FROM opted_out"))
            self._out = OptedOut(found, self._hash_of)

    def _open(self) -> "closing[sqlite3.Connection]":
        db = sqlite3.connect(self._file, timeout=10)
        db.execute("PRAGMA synchronous = FULL")
        return closing(db)
