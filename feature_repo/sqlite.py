"""What the SQLite files of this project have in common."""

import sqlite3
from contextlib import closing
from pathlib import Path

HEADER = b"SQLite format 3\0"
CHECKED_WHOLE = 32 * 2**20
"""Bytes up to which `fault` reads all of a file."""


class Transaction:
    """One immediate transaction: committed at the end, rolled back on an error."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        self.conn.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.conn.execute("COMMIT")
        finally:  # after a full disk SQLite may have rolled back already, or may have left the transaction open
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")


class Snapshot:
    """One deferred transaction that only reads: all of its queries see the file as it was at the first of them."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        self.conn.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self.conn.execute("ROLLBACK")


def purge(file: Path, wait_s: float = 30.0) -> None:
    """Leave nothing in a file, or in its log, of what was deleted: it is rewritten as a whole. Others may use it.

    Raises:
        sqlite3.OperationalError: somebody writes, or reads, for longer than `wait_s`.
    """
    if not file.exists():
        return
    with closing(sqlite3.connect(file, isolation_level=None, timeout=wait_s)) as db:
        db.execute("VACUUM")
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(f"{file}: somebody reads it for so long that its log cannot be emptied")


def fault(file: Path) -> str | None:
    """What is wrong with a SQLite file, or None; also while others use it. Of a large file only header and size count.

    A missing file, and one of no bytes, has nothing wrong: SQLite makes a new database of it.
    """
    if not file.exists() or not (size := file.stat().st_size):
        return None
    with file.open("rb") as opened:
        header = opened.read(100)
    if len(header) < 100 or not header.startswith(HEADER):
        return f"expected a SQLite database; came {size:,} bytes that begin with {header[:16]!r}"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # SQLite compares the size with the header's
            if size <= CHECKED_WHOLE and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                return f"expected a sound SQLite database; {found.splitlines()[-1]}"
    except sqlite3.DatabaseError as error:
        return f"expected a SQLite database that can be read; {error}"
    return None
