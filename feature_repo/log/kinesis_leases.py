"""Which worker has which shard of a stream, and how far it has applied it: one SQLite file for one machine's workers.

Kinesis itself has no consumer groups. A lease that its worker does not renew in time is free for others, and from then
on what the late worker reports of that shard changes nothing.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from feature_repo.sqlite import Transaction

END = "end"
"""Reached where a shard was split or merged and everything in it is applied."""

_TABLES = """
CREATE TABLE IF NOT EXISTS workers (stream TEXT, worker TEXT, until_s REAL, PRIMARY KEY (stream, worker));
CREATE TABLE IF NOT EXISTS shards (stream TEXT, shard TEXT, worker TEXT, reached TEXT, PRIMARY KEY (stream, shard));
"""


class Leases:
    """The leases of one worker of a stream.

    lease_s: how long they hold without `hold`.
    clock: seconds since 1970.
    """

    def __init__(
        self, path: Path, stream: str, worker: str, lease_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_TABLES)
        self._stream, self._worker, self._lease_s, self._clock = stream, worker, lease_s, clock

    def reached(self) -> dict[str, str]:
        """The last sequence number applied, or END, of each shard that has been begun."""
        found = self._db.execute("SELECT shard, reached FROM shards WHERE stream = ?", [self._stream])
        return {shard: reached for shard, reached in found if reached is not None}

    def hold(self, shards: Sequence[str]) -> set[str]:
        """Renew what this worker has of these shards, up to its share of them, and take free ones up to it."""
        with Transaction(self._db):
            live = self._renew()
            owners = dict(self._db.execute("SELECT shard, worker FROM shards WHERE stream = ?", [self._stream]))
            share = -(-len(shards) // len(live))
            mine = [shard for shard in shards if owners.get(shard) == self._worker]
            free = [shard for shard in shards if owners.get(shard) not in live]
            held = (mine + free)[:share]
            self._give([shard for shard in mine if shard not in held], None)
            self._give(held, self._worker)
        return set(held)

    def reach(self, reached: Mapping[str, str]) -> None:
        """So far are these shards applied; those that others have by now are passed over."""
        with Transaction(self._db):
            self._db.executemany(
                "UPDATE shards SET reached = ? WHERE stream = ? AND shard = ? AND worker = ?",
                [(sequence, self._stream, shard, self._worker) for shard, sequence in reached.items()],
            )

    def close(self) -> None:
        """Give everything up."""
        with Transaction(self._db):
            self._db.execute("DELETE FROM workers WHERE stream = ? AND worker = ?", [self._stream, self._worker])
        self._db.close()

    def _renew(self) -> set[str]:
        """The workers that are there, this one included."""
        now_s = self._clock()
        self._db.execute("DELETE FROM workers WHERE stream = ? AND until_s <= ?", [self._stream, now_s])
        self._db.execute(
            "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until_s = excluded.until_s",
            [self._stream, self._worker, now_s + self._lease_s],
        )
        return {w for (w,) in self._db.execute("SELECT worker FROM workers WHERE stream = ?", [self._stream])}

    def _give(self, shards: Sequence[str], worker: str | None) -> None:
        self._db.executemany(
            "INSERT INTO shards VALUES (?, ?, ?, NULL) ON CONFLICT DO UPDATE SET worker = excluded.worker",
            [(self._stream, shard, worker) for shard in shards],
        )
