"""The decision log: every receipt as a row of Parquet, written beside the service, never in its way.

    decision -> bounded queue -> [every 0.4 s, one thread] -> the current file, rewritten whole under its name

The current file holds all rows since it was begun and replaces itself atomically, so a reader sees each decision
once, at any moment, and small files never pile up: a file is left alone once it holds 50,000 rows or takes too long
to rewrite, and a restart goes on with the file that the last process left small (if no other process is writing).
kill -9 costs what came since the last flush: less than half a second.

Why not Feast's feature logging: FeatureStore.write_logged_features takes exactly the feature service's columns, a
timestamp and a status column for each of them and a request id. It has no place for what the policy made of them
(score, segment, elements, reasons, versions), works on whole tables in the caller's thread, and on the DuckDB store
its file destination is all it offers. A log of features alone could not be replayed, so this one keeps both together.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.key_index import KeyIndex
from feature_repo.storage import DamagedFile
from serving.decide import Receipt

SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()),
        ("at_us", pa.int64()),
        ("user_id", pa.string()),
        ("known", pa.bool_()),
        ("segment", pa.string()),
        ("score", pa.float64()),
        ("model_name", pa.string()),
        ("model_version", pa.int64()),
        ("feature_service", pa.string()),
        ("elements", pa.list_(pa.string())),
        ("policy_version", pa.string()),
        ("features", pa.string()),
        ("event_us", pa.int64()),
        ("applied_position", pa.int64()),
        ("reasons", pa.list_(pa.string())),
        ("persona", pa.string()),
        ("segments", pa.list_(pa.string())),
        ("dropped", pa.string()),
        ("variants", pa.string()),
        ("holdout", pa.bool_()),
        ("playbook", pa.string()),
        ("unavailable", pa.string()),
        ("situation", pa.string()),
        ("note", pa.string()),
    ]
)
"""One row a decision: a Receipt, see there. `segment`, `score`: null where nobody was scored; `model_*`,
`feature_service`: null without a model; `features` (JSON object of the served values), `event_us`: null for an unknown
user; `applied_position`: null where the store that was read does not keep it; `dropped`, `variants` and `situation` are
JSON."""
OF_THE_PERSON = ("features", "situation")
"""What a decision was made from."""
INDEX = "index.db"
ROW_GROUP = 2_000
"""Rows that are read together at least: small, because a user's decisions are looked up one row group at a time."""
DOCUMENTS = ("features", "dropped", "variants", "situation")
"""The columns that hold JSON."""
REMEDY = "Bring it back from a backup, or move it out of the folder: its decisions are then in no report and no answer."
Where = Sequence[tuple[str, str, Any]]
"""Column, operator and value: all must hold; as `filters` of pyarrow.parquet.read_table."""


def read(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All decisions in a log, also while it is written."""
    none = SCHEMA.empty_table().select(list(columns or SCHEMA.names))
    found = [none, *tables(folder, columns)]
    return pa.concat_tables(found, promote_options="default")  # a log that an earlier version began has fewer columns


def tables(folder: Path, columns: list[str] | None = None, where: Where | None = None) -> Iterator[pa.Table]:
    """The decisions in a log, those of `where` only, file by file, also while it is written.

    A file may be replaced at any moment, and pyarrow opens a path more than once: so it gets an open file.

    Raises:
        DamagedFile: a file cannot be read.
    """
    for path in sorted(folder.glob("*.parquet")):
        yield _table_of(path, columns, where)


def _table_of(path: Path, columns: list[str] | None = None, where: Where | None = None) -> pa.Table:
    with path.open("rb") as file:
        try:
            return pq.read_table(file, columns=columns, filters=where)
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedFile(f"{path}: expected decisions as Parquet; {error}. {REMEDY}") from error


def of_users(folder: Path, users: Sequence[str]) -> list[dict[str, Any]]:
    """All decisions about these users as rows of SCHEMA, the oldest first; reads the row groups that hold them only.

    The index knows the files that are finished; the others, such as the current one, are searched by their user ids.

    Raises:
        DamagedFile: a file cannot be read.
    """
    versions = _versions(folder)
    found = KeyIndex(folder / INDEX).find(versions, users)
    rows = list[dict[str, Any]]()
    for name in [*found.places, *found.unknown]:
        try:
            rows += _rows_of(folder / name, pa.array(users, pa.string()), versions[name], found.places.get(name))
        except FileNotFoundError:  # an erasure has left nothing of it
            continue
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedFile(f"{folder / name}: expected decisions as Parquet; {error}. {REMEDY}") from error
    return sorted(rows, key=lambda row: str(row["decision_id"]))


def _rows_of(path: Path, users: pa.Array, version: str, groups: list[int] | None) -> Iterator[dict[str, Any]]:
    """The decisions about some users in one file. groups: where they are, if it has this version; None: anywhere."""
    with path.open("rb") as file, pq.ParquetFile(file) as opened:
        if groups is None or _version(os.fstat(file.fileno())) != version:
            groups = list(range(opened.num_row_groups))
        for group in groups:
            ids = opened.read_row_group(group, columns=["user_id"], use_threads=False)["user_id"]
            if pc.any(theirs := pc.is_in(ids, users)).as_py():
                yield from opened.read_row_group(group, use_threads=False).filter(theirs).to_pylist()


def refresh_index(folder: Path) -> int:
    """Have `of_users` find the decisions of all files as they are now; returns how many files were new to the index."""

    def entries(name: str) -> Iterator[tuple[int, list[str]]]:
        with (folder / name).open("rb") as file, pq.ParquetFile(file) as opened:
            for group in range(opened.num_row_groups):
                yield group, pc.unique(opened.read_row_group(group, columns=["user_id"])["user_id"]).to_pylist()

    versions = _versions(folder)
    if not versions and not (folder / INDEX).exists():  # nothing to index, and maybe no folder
        return 0
    return KeyIndex(folder / INDEX).update(versions, entries)


def _versions(folder: Path) -> dict[str, str]:
    """The files of a log, with what changes when one is replaced."""
    if not folder.exists():
        return {}
    with os.scandir(folder) as entries:
        return {e.name: _version(e.stat()) for e in entries if e.name.endswith(".parquet") and e.name[0] != "."}


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def erase(folder: Path, persons: Sequence[str], touched: Sequence[str] = ()) -> int:
    """Remove the decisions about these persons from the files of a log that nobody writes; returns how many.

    touched: others whose features were made with the persons' events too: they keep their decisions, without what those
    were made from.
    """
    gone = sum(_erase_file(path, persons, touched) for path in sorted(folder.glob("*.parquet")))
    if folder.exists():
        refresh_index(folder)
    return gone


def _erase_file(path: Path, persons: Sequence[str], touched: Sequence[str]) -> int:
    held = _table_of(path)
    left = _without(held, persons, touched)
    if not left.num_rows:
        path.unlink()
    elif not left.equals(held):
        _replace(path, left)
    return int(held.num_rows - left.num_rows)


def _without(held: pa.Table, persons: Sequence[str], touched: Sequence[str]) -> pa.Table:
    left = held.filter(pc.invert(pc.is_in(held["user_id"], pa.array(persons, pa.string()))))
    blank = pc.is_in(left["user_id"], pa.array(touched, pa.string()))
    for name in OF_THE_PERSON:
        if name in left.column_names:
            kept = pc.if_else(blank, pa.scalar(None, pa.string()), left[name])
            left = left.set_column(left.schema.get_field_index(name), left.schema.field(name), kept)
    return left


CAPACITY = 100_000
INTERVAL_S = 0.4
ROWS = 50_000
SLOWEST_S = 0.04
"""A file that takes longer than this to rewrite is full: rewriting stays under a tenth of one thread."""
LAST_TRIES = 5
"""How often it is tried to write what waits when the service stops."""
REPEATING = [
    "segment",
    "model_name",
    "feature_service",
    "policy_version",
    "elements.list.element",
    "reasons.list.element",
]
"""Columns worth a dictionary; the others differ in every row."""

_log = logging.getLogger(__name__)
_json = msgspec.json.Encoder()


def table(receipts: Sequence[Receipt]) -> pa.Table:
    """Receipts as rows of SCHEMA."""
    columns = {f.name: [getattr(r, f.name) for r in receipts] for f in SCHEMA}
    for name in DOCUMENTS:
        columns[name] = [None if d is None else _json.encode(d).decode() for d in columns[name]]
    return pa.Table.from_pydict(columns, SCHEMA)


class DecisionLog:
    """The queue and the thread that empties it. `put` may be called from one thread or many.

    written, dropped: decisions on disk, and decisions given up because `capacity` were waiting already (the disk is
    full or far too slow). error: why the last flush failed, or None. erased: about whom nothing is kept.
    """

    def __init__(
        self,
        folder: Path,
        capacity: int = CAPACITY,
        interval_s: float = INTERVAL_S,
        rows: int = ROWS,
        erased: Callable[[str], bool] = lambda person: False,
    ) -> None:
        self.folder = folder
        self._erased = erased
        self._writing = threading.Lock()
        self.written = 0
        self.dropped = 0
        self.error: str | None = None
        self._capacity = capacity
        self._interval_s = interval_s
        self._rows = rows
        self._queue: deque[Receipt] = deque()
        self._stop = threading.Event()
        self._current = _File()
        self._unsaved = self._finished = 0
        self._lock: IO[str] | None = None
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)

    def start(self) -> "DecisionLog":
        """Make the folder, go on with the last small file if this is the only writer, and begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _only_writer(self.folder)
        if self._lock:
            self._current = _adopt(self.folder, self._rows // 2)
        self._thread.start()
        return self

    def put(self, receipt: Receipt) -> None:
        """Take a decision to be written; never waits and never raises."""
        if self._erased(receipt.user_id):
            return
        if len(self._queue) >= self._capacity:
            self.dropped += 1
        else:
            self._queue.append(receipt)

    @property
    def waiting(self) -> int:
        """Decisions not yet on disk."""
        return len(self._queue) + self._unsaved

    def erase(self, persons: Sequence[str], touched: Sequence[str] = ()) -> int:
        """As the function `erase`, what waits to be written included; in a log that no other process writes.

        Raises:
            OSError: the log cannot be written now.
        """
        with self._writing:
            self._write()
            gone = erase(self.folder, persons, touched)
            self._current = self._current.without(persons, touched)
        return gone

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._lock:
            self._lock.close()

    def _run(self) -> None:
        self._refresh_index()  # of what an earlier process has left
        while not self._stop.wait(self._interval_s):
            finished = self._finished
            self._flush()
            if self._finished > finished:
                self._refresh_index()
        for _ in range(LAST_TRIES):
            self._flush()
            if not self.waiting:
                break
            time.sleep(self._interval_s)

    def _refresh_index(self) -> None:
        try:
            refresh_index(self.folder)
        except (OSError, sqlite3.Error) as e:  # look-ups are slower, and right
            _log.warning("decision log: %s is not up to date: %s", self.folder / INDEX, e)

    def _flush(self) -> None:
        try:
            with self._writing:
                self._write()
            self.error = None
        except Exception as e:  # the thread must outlive a full disk; the rows stay, and the next flush tries again
            if self.error is None:
                _log.exception(
                    "decision log: cannot write to %s; trying again every %s s", self.folder, self._interval_s
                )
            self.error = f"{type(e).__name__}: {e}"

    def _write(self) -> None:
        self._take()
        if self._unsaved:
            seconds = self._current.write(self.folder)
            self.written += self._unsaved
            self._unsaved = 0
            if self._current.rows >= self._rows or seconds > SLOWEST_S:
                self._current = _File()
                self._finished += 1

    def _take(self) -> None:
        """Move the queue into the current file, unless rows are still unsaved from a failed flush."""
        count = 0 if self._unsaved else len(self._queue)
        if count:
            self._current.add(table([self._queue[i] for i in range(count)]))
            self._unsaved = count
            for _ in range(count):
                self._queue.popleft()


class _File:
    """A Parquet file that grows by being replaced as a whole."""

    def __init__(self, name: str | None = None, held: pa.Table | None = None) -> None:
        self._name = name
        self._held = held if held is not None else SCHEMA.empty_table()

    @property
    def rows(self) -> int:
        return int(self._held.num_rows)

    def add(self, rows: pa.Table) -> None:
        self._name = self._name or f"{rows['decision_id'][0].as_py()}.parquet"
        self._held = pa.concat_tables([self._held, rows])

    def without(self, persons: Sequence[str], touched: Sequence[str]) -> "_File":
        left = _without(self._held, persons, touched)
        return _File(self._name, left) if left.num_rows else _File()

    def write(self, folder: Path) -> float:
        """Replace the file on disk; gives the seconds that encoding took."""
        assert self._name is not None
        return _replace(folder / self._name, self._held)


def _replace(path: Path, rows: pa.Table) -> float:
    """Write a file that is whole or not there; gives the seconds that encoding took."""
    began = time.perf_counter()
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", use_dictionary=REPEATING, row_group_size=ROW_GROUP)
    seconds = time.perf_counter() - began
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as out:
        out.write(sink.getvalue())
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return seconds


def _only_writer(folder: Path) -> IO[str] | None:
    """A lock on the folder, held until closed or the process ends; None if another process holds it."""
    lock = (folder / ".writer").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)
    return lock


def _adopt(folder: Path, fewer_than: int) -> _File:
    """The newest file, if it is small enough to go on with; else a new one."""
    newest = max(folder.glob("*.parquet"), default=None)
    if newest is None:
        return _File()
    try:
        held = pq.read_table(newest)
    except (OSError, pa.ArrowInvalid) as e:
        _log.warning("decision log: %s cannot be read (%s); left as it is", newest, e)
        return _File()
    small = held.num_rows < fewer_than and held.schema.equals(SCHEMA)
    return _File(newest.name, held) if small else _File()
