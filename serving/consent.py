"""Who has opted out of being profiled: nothing more is collected of them, and every decision is the default journey.

What was collected before stays until it is erased: that is another wish (see erasing.py).
"""

import sqlite3
import threading
from collections.abc import Iterable, Set
from contextlib import closing
from pathlib import Path

from feature_repo.sqlite import purge

FILE = "opted_out.db"


class Consent:
    """The people of one state folder who have opted out, by user id or "anon:" + anonymous id. For several threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._out: set[str] = set()
        self._read_at = 0

    def opted_out(self, sender: str) -> bool:
        """Whether somebody has opted out, here or in another process."""
        return sender in self.out()

    def out(self) -> Set[str]:
        """All who have opted out by now, here or in another process."""
        try:
            at = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return frozenset()
        if at != self._read_at:
            with self._lock, self._open() as db:
                self._out = _recorded(db)
            self._read_at = at
        return self._out

    def opt_out(self, senders: Iterable[str], now_us: int) -> None:
        """Record durably that these are one person who has opted out."""
        self._write("INSERT OR IGNORE INTO opted_out VALUES (?, ?)", [(s, now_us) for s in senders])

    def opt_in(self, senders: Iterable[str]) -> None:
        """Take that back. Nothing is left of it on disk."""
        self._write("DELETE FROM opted_out WHERE sender = ?", [(s,) for s in senders])
        purge(self._file)

    def _write(self, statement: str, rows: list[tuple]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self._open() as db:
            db.executemany(statement, rows)
            db.commit()
            self._out = _recorded(db)

    def _open(self) -> "closing[sqlite3.Connection]":
        db = sqlite3.connect(self._file, timeout=10)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS opted_out (sender TEXT PRIMARY KEY, since_us INTEGER) WITHOUT ROWID")
        return closing(db)


def _recorded(db: sqlite3.Connection) -> set[str]:
    return {sender for (sender,) in db.execute("SELECT sender FROM opted_out")}
