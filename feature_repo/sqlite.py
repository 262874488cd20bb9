"""What the SQLite files of this project have in common."""

import sqlite3


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
