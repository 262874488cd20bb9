"""The event log in one SQLite file: a total order of positions without gaps, one process that owns it.

append ─► waiting ─► the writer thread: one transaction of whatever waits, synced to disk ─► the futures ─► poll

Where processing goes on after a stop is not kept here: the history knows the position that it has reached (`start`).
"""

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

import msgspec

from feature_repo.contract.events import Event
from feature_repo.log.event_log import (
    MOST_WAITING,
    Appended,
    Backlog,
    Delivered,
    OnPoison,
    decode,
    encode,
    report_poison,
)
from feature_repo.sqlite import Snapshot, Transaction, purge
from feature_repo.storage import flock

TRIMMED_AT_ONCE = 10_000

_Append = tuple[list[bytes], Appended]


class SqliteLog:
    """An EventLog (see there) that also gives what it holds by position.

    path: the file, made where it is missing. `<path>.lock` beside it is held until `close`.
    first: the smallest position that it may give, where it has not given that one already.
    start: `poll` begins after this position.
    most_waiting: when as many events (or 64 MiB of them) wait to be written, `append` raises Busy.

    Raises:
        BusyError: another process, or another SqliteLog of this one, has the file.
    """

    def __init__(
        self,
        path: Path,
        first: int = 1,
        start: int = 0,
        most_waiting: int = MOST_WAITING,
        on_poison: OnPoison = report_poison,
    ) -> None:
        self._path, self._backlog, self._on_poison = path, Backlog(most_waiting), on_poison
        with ExitStack() as opened:
            opened.enter_context(flock(Path(f"{path}.lock"), "service", 0))
            self._db = opened.enter_context(closing(_connect(path)))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL)"
            )
            self._last = max(first - 1, _extent(self._db))
            self._unread: int = self._db.execute("SELECT count(*) FROM log WHERE position > ?", [start]).fetchone()[0]
            self._reader = opened.enter_context(closing(_connect(path)))
            self._opened = opened.pop_all()
        self._polled, self._unacked = start, set[int]()
        self._waiting: list[_Append] = []
        self._closed = False
        self._state = threading.Lock()  # guards all of the above; taken after the lock of a connection
        self._appended, self._committed = threading.Condition(self._state), threading.Condition(self._state)
        self._writing, self._reading = threading.Lock(), threading.Lock()  # _db, _reader
        self._thread = threading.Thread(target=self._write, name=f"writes {path}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> Appended:
        """Write events in one transaction; the future has their positions once they are on disk."""
        encoded = [encode(event) for event in events]
        future: Appended = Future()
        with self._state:
            if self._closed:
                raise RuntimeError("expected an open event log; this one is closed")
            self._backlog.take(encoded)
            self._waiting.append((encoded, future))
            self._appended.notify()
        return future

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        """Up to `most` events after those polled before, in the order of their positions."""
        with self._state:
            self._committed.wait_for(lambda: self._unread or self._closed, timeout_s)
        with self._reading:
            if self._closed:
                return []
            delivered: list[Delivered] = []
            position, seen, through = self._polled, 0, self._last
            for position, raw in _rows(self._reader, self._polled, through):
                seen += 1
                if event := decode(raw, self._on_poison):
                    delivered.append(Delivered(event, position, position))
                if len(delivered) == most:
                    break
            else:
                position = through
            with self._state:
                self._polled = position
                self._unread -= seen
                self._unacked.update(d.token for d in delivered)
            return delivered

    @property
    def polled(self) -> int:
        """The position up to which everything was polled, was erased, or is no event."""
        return self._polled

    @property
    def joined(self) -> bool:
        """A SQLite log has one owner."""
        return True

    def ack(self, delivered: Sequence[Delivered]) -> None:
        """Count these as applied, for `lag` and `trim`."""
        with self._state:
            self._unacked.difference_update(d.token for d in delivered)

    def lag(self) -> int:
        """Events on disk after `start` and not yet acked."""
        with self._state:
            return self._unread + len(self._unacked)

    @property
    def last(self) -> int:
        """The largest position given, `first` − 1 before any; everything up to it is on disk, or was trimmed."""
        return self._last

    def read(self, after: int, most: int) -> list[tuple[int, Event]]:
        """Up to `most` events after a position, with their positions, whether polled or not; poison left out."""
        with self._reading:
            return _events(_rows(self._reader, after, self._last), most)

    def trim(self, through: int) -> None:
        """Delete what has a position up to `through`, but nothing that is not yet acked.

        A piece at a time, so that no append waits for long.
        """
        with self._state:
            through = min(through, self._polled, *(position - 1 for position in self._unacked))
        with self._writing:
            found = self._db.execute("SELECT min(position) FROM log").fetchone()[0]
        while found is not None and found <= through:
            found += TRIMMED_AT_ONCE
            with self._writing, Transaction(self._db):
                self._db.execute("DELETE FROM log WHERE position < ?", [min(found, through + 1)])

    def erase(self, gone: Callable[[Event], bool]) -> int:
        """Delete the events of which this is true, polled or not; returns how many. Positions keep gaps.

        The file holds nothing of them afterwards. What was polled and not acked stays so.
        """
        with self._reading:
            rows = ((p, decode(raw, lambda raw, why: None)) for p, raw in _rows(self._reader, 0, self._last))
            found = [(position,) for position, event in rows if event and gone(event)]
            with self._writing, Transaction(self._db):
                self._db.executemany("DELETE FROM log WHERE position = ?", found)
            with self._state:
                self._unread -= sum(position > self._polled for (position,) in found)
        purge(self._path)
        return len(found)

    def close(self) -> None:
        """Write what waits, then let go of the file; a waiting `poll` returns, `append` is refused."""
        with self._state:
            self._closed = True
            self._appended.notify_all()
            self._committed.notify_all()
        self._thread.join()
        with self._writing, self._reading:
            self._opened.close()

    def _write(self) -> None:
        """The writer thread."""
        while True:
            with self._state:
                self._appended.wait_for(lambda: self._waiting or self._closed)
                appends, self._waiting = self._waiting, []
            if not appends:
                return
            self._commit([append for append in appends if append[1].set_running_or_notify_cancel()])
            for encoded, _ in appends:
                self._backlog.drop(encoded)

    def _commit(self, appends: list[_Append]) -> None:
        """All of these or, where the disk fails, none."""
        events = [raw for encoded, _ in appends for raw in encoded]
        position = self._last
        try:
            with self._writing, Transaction(self._db):
                self._db.executemany("INSERT INTO log VALUES (?, ?)", enumerate(events, position + 1))
        except Exception as error:
            for _, future in appends:
                future.set_exception(error)
            return
        with self._state:
            self._last += len(events)
            self._unread += len(events)
            self._committed.notify_all()
        for encoded, future in appends:
            future.set_result(list(range(position + 1, position + 1 + len(encoded))))
            position += len(encoded)


def next_run(path: Path, after: int, most: int) -> tuple[int, list[tuple[int, Event]]]:
    """What follows a position in a file, whoever owns it.

    Returns the first position after it that the file holds (or will give next), be it an event's or poison's; and up to
    `most` events with their positions, which follow one another: it ends before the next poison or gap.
    """
    if not path.exists():
        return after + 1, []
    with closing(_connect(path, "ro")) as db, Snapshot(db):
        if not _begun(db):
            return after + 1, []
        begins = db.execute("SELECT min(position) FROM log WHERE position > ?", [after]).fetchone()[0]
        if begins is None:
            return max(after, _extent(db)) + 1, []
        run = list[tuple[int, Event]]()
        for position, raw in _rows(db, after, 2**63 - 1):
            event = decode(raw, lambda raw, why: None)
            if run and (event is None or position != run[-1][0] + 1 or len(run) == most):
                break
            if event is not None:
                run.append((position, event))
        return begins, run


def read_mentions(path: Path, after: int, texts: Collection[str]) -> list[tuple[int, Event]]:
    """The events after a position in which one of these texts is a whole string; the others are not decoded."""
    if not path.exists():
        return []
    strings = [msgspec.json.encode(text) for text in texts]
    with closing(_connect(path, "ro")) as db:
        rows = ((p, raw) for p, raw in _rows(db, after, 2**63 - 1) if any(s in raw for s in strings))
        return _events(rows, 2**63 - 1)


def extent(path: Path) -> int:
    """The largest position that the log in a file has given, whoever owns the file; 0 before any."""
    with closing(_connect(path, "ro")) as db:
        return _extent(db)


def _begun(db: sqlite3.Connection) -> bool:
    """Whether there are tables: whoever made the file may have been stopped before."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'").fetchone() is not None


def _extent(db: sqlite3.Connection) -> int:
    if not _begun(db):
        return 0
    given = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return int(given[0]) if given else 0


def _connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)


def _rows(db: sqlite3.Connection, after: int, through: int) -> Iterator[tuple[int, bytes]]:
    asked = "SELECT position, event FROM log WHERE position > ? AND position <= ? ORDER BY position"
    with closing(db.execute(asked, [after, through])) as found:
        yield from found


def _events(rows: Iterator[tuple[int, bytes]], most: int) -> list[tuple[int, Event]]:
    decoded = ((position, decode(raw, lambda raw, why: None)) for position, raw in rows)
    return list(islice(((position, event) for position, event in decoded if event), most))
