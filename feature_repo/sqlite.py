"""What the SQLite files of this project have in common."""

import sqlite3
from contextlib import closing
from pathlib import Path


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
