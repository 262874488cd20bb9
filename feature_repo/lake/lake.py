"""The lake: every accepted event with its log position, in immutable Parquet under any fsspec URI.

    log/<first>-<last>.parquet        as appended: positions first to last, all copies     (appends only add files;
                                      an erasure takes rows out, and leaves gaps between positions)
    compact/<bucket>-<n>.parquet      the n-th compaction: one bucket of senders, canonical copies only, sorted
    manifest.json                     which compact files are live, and the position up to which they hold the log

A file of the log counts when its positions are beyond the manifest's, a compact file when the manifest names it:
so one atomic replacement of the manifest is what makes a compaction happen, and a kill at any moment changes nothing.
A manifest is written before the first compact file: compact files without a manifest are a damaged lake, and an error.

A message_id is unique within its sender (user_id, else anonymous_id). Of several copies the canonical one counts:
smallest ts_us, then content_hash, then received_us, then position; never the first to arrive. Before all of these, an
event by a key that browsers hold ranks behind every other, and among such the one that was received first.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from rich.console import Console

from feature_repo.contract.events import Event, canonical_json
from feature_repo.contract.origin import FROM_KEY
from feature_repo.lake import lake_sql as sql
from feature_repo.lake.lake_sql import SCHEMA
from feature_repo.progress import track
from feature_repo.storage import DamagedFile, Folder

if TYPE_CHECKING:
    import ibis
    from ibis.backends.duckdb import Backend

__all__ = ["SCHEMA", "Lake", "Stats"]

MANIFEST = "manifest.json"
STREAMED = "64GB"
"""How much of a result DuckDB 1.5 may compute ahead of who fetches it: at its own limit (1 MB) a query that takes the
copies of messages apart waits for itself, for ever."""
RESTORE = "Nothing was changed. Bring the lake's folder back from a backup, as a whole."
FORMAT = 2
BUCKET_EVENTS, MOST_BUCKETS = 50_000, 64


class Compacted(msgspec.Struct, frozen=True):
    """A live compact file: its bucket, its rows, its largest position, its size."""

    name: str
    bucket: int
    rows: int
    last: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What the last compaction left: `files` hold positions 1 to `through`."""

    format: int = FORMAT
    compaction: int = 0
    buckets: int = 0
    through: int = 0
    files: tuple[Compacted, ...] = ()


class Logged(msgspec.Struct, frozen=True):
    """A file of the log."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Snapshot:
    """The canonical rows up to position `through`: how many, and the files of them, for each bucket."""

    through: int
    rows: list[int]
    urls: list[list[str]]

    def query(self, buckets: Iterable[int]) -> str:
        """SQL for the rows of some buckets, with SCHEMA's columns."""
        return sql.canonical([url for b in buckets for url in self.urls[b]], [], "true")

    def every(self) -> str:
        """SQL for all rows."""
        return self.query(range(len(self.urls)))


class State(msgspec.Struct, frozen=True):
    """The live files at one moment; `log` is in the order of positions."""

    manifest: Manifest
    log: tuple[Logged, ...]

    @property
    def last_position(self) -> int:
        """The newest event's position; 0 in an empty lake."""
        return self.log[-1].last if self.log else self.manifest.through


class Files(NamedTuple):
    """The live files of a lake, version by name, and the newest event's position."""

    versions: dict[str, str]
    last_position: int


class Stats(msgspec.Struct, frozen=True):
    """How large the lake is: live files, their rows (copies not yet compacted included) and bytes, last position."""

    files: int
    rows: int
    bytes: int
    last_position: int


class Lake:
    """Events under one URI.

    wait_s: how long a writer waits for another one before it gives up with BusyError.
    memory: what DuckDB may take for an append or a compaction before it spills to disk.
    """

    def __init__(self, uri: str | os.PathLike[str], wait_s: float = 10.0, memory: str = "2GB") -> None:
        self.folder = Folder(uri)
        self.wait_s = wait_s
        self.memory = memory

    def last_position(self) -> int:
        """Log position of the newest event; 0 in an empty lake. Reads no event."""
        return self._state().last_position

    def append(self, events: Sequence[Event], first: int | None = None, after: int | None = None) -> int:
        """Add events; they get the next positions in their order. Returns the last position.

        first: the position that the first of them has already; where another writer has taken it meanwhile, nothing
            is added.
        after: the last position that the lake holds, if the positions between it and `first` hold no event.

        Raises:
            BusyError: another process appends.
        """
        return self.append_table(_table(events), first, after) if events else self.last_position()

    def append_table(
        self,
        table: "pa.Table | pa.RecordBatchReader | duckdb.DuckDBPyRelation",
        expected: int | None = None,
        after: int | None = None,
    ) -> int:
        """Add rows with SCHEMA's columns except position and content_hash, all or none. Returns the last position.

        expected, after: as `first` and `after` of `append`.

        A reader or a relation is streamed, so that memory stays bounded. `properties`, `traits` and `context` must be
        canonical JSON (compact, sorted keys; null stands for `{}`): they are not looked into.

        Raises:
            ValueError: a column is missing, or a row has no message_id, type, time or sender, or a reserved user_id.
            BusyError: another process appends.
        """
        source = _reader(table)
        with self.folder.exclusive("append", self.wait_s) as stage:
            held = self.last_position()
            first = held + 1 if expected is None else expected
            if held != (first - 1 if after is None else after):
                return held
            rows = self._write_log(_grouped(source, first), stage / "log.parquet")
            if rows == 0:
                return held
            last = first + rows - 1
            if self.last_position() != held:
                raise RuntimeError(
                    f"{self.folder.uri}: another writer took position {held + 1} meanwhile: append again"
                )
            self.folder.publish(stage / "log.parquet", f"log/{held + 1:019d}-{last:019d}.parquet")
        return last

    def files(self) -> "Files":
        """The live files, and up to which position they hold the log.

        Raises:
            DamagedFile: a file that the manifest names is not there, or not as it was.
        """
        while True:
            state = self._state()
            versions = self.folder.versions("log") | self.folder.versions("compact")
            names = [*(f.name for f in state.manifest.files), *(f.name for f in state.log)]
            if all(name in versions for name in names):  # else files were replaced since `_state` has seen them
                return Files({name: versions[name] for name in names}, state.last_position)

    def compact(
        self,
        buckets: int | None = None,
        progress: bool = True,
        ready: Callable[[Mapping[str, str]], object] = lambda files: None,
    ) -> None:
        """Rewrite the log into one file a bucket of senders, without the copies; a second time it does nothing.

        buckets: default as before, or, when that would make buckets of over ten times the usual size, one for about
            every 50,000 events, a power of two from 4 to 64.
        ready: called with the new compact files, version by name, before they take the place of others.

        Buckets that got no new event keep their file. Appends may go on meanwhile, and a kill at any moment leaves
        the lake as it was. A table from `events` made before must be made again afterwards: its files are gone.

        Raises:
            BusyError: another process compacts.
        """
        if buckets is not None and buckets < 1:
            raise ValueError(f"buckets: expected at least 1; came {buckets}")
        with self.folder.exclusive("compact", self.wait_s) as stage:
            state = self._state()
            buckets = buckets or _buckets(state)
            self._sweep(state.manifest)
            if state.log or state.manifest.buckets not in (0, buckets):
                if state.manifest.compaction == 0:
                    self._publish_manifest(state.manifest, stage)
                manifest = self._rewrite(state, buckets, stage, progress)
                versions = self.folder.versions("compact")
                ready({f.name: versions[f.name] for f in manifest.files})
                self._publish_manifest(manifest, stage)
                self._sweep(manifest)

    def events(self, con: "Backend", senders: Iterable[str] | None = None) -> "ibis.Table":
        """The canonical copies as a table with SCHEMA's columns, in no order.

        senders: sender keys (user_id, or "anon:" + anonymous_id where there is none) to restrict it to; reads the
            files of their buckets only.
        """
        state = self._state()
        wanted = None if senders is None else sorted(set(senders))
        files = state.manifest.files
        if wanted is not None and files:
            needed = {sql.sender_bucket(s, state.manifest.buckets) for s in wanted}
            files = tuple(f for f in files if f.bucket in needed)
        query = sql.canonical(self._urls(files), self._urls(state.log), sql.senders_filter(con.con, wanted))
        return self._query(con, query)

    def snapshot(self, con: "Backend") -> "Snapshot":
        """What the last compaction holds; it stays as it is until the next one."""
        manifest = self._manifest()
        self.folder.register(con.con)
        by_bucket = {f.bucket: f for f in manifest.files}
        found = [by_bucket.get(b) for b in range(manifest.buckets)]
        return Snapshot(
            manifest.through, [f.rows if f else 0 for f in found], [self._urls([f] if f else []) for f in found]
        )

    def new_since(self, con: "Backend", position: int) -> "ibis.Table":
        """The rows with a larger position, all copies of a message that no compaction has resolved yet.

        A copy that a compaction dropped is not among them: it changes nobody's events.
        """
        state = self._state()
        live: tuple[Compacted | Logged, ...] = (*state.manifest.files, *state.log)
        files = [f for f in live if f.last > position]
        return self._query(con, sql.after(self._urls(files), position))

    def stats(self) -> Stats:
        """Files, rows, bytes and last position."""
        state = self._state()
        sizes = self.folder.sizes("log") | self.folder.sizes("compact")
        names = [f.name for f in state.manifest.files] + [f.name for f in state.log]
        with duckdb.connect() as con:
            self.folder.register(con)
            logged = sum(sql.rows_by_file(con, self._urls(state.log), "true").values())
        rows = sum(f.rows for f in state.manifest.files) + logged
        return Stats(len(names), rows, sum(sizes.get(n, 0) for n in names), state.last_position)

    def erase(self, senders: Iterable[str], messages: Iterable[tuple[str, str]] = (), key: str | None = None) -> int:
        """Remove these senders' rows and those of single messages, by (sender, message_id); returns how many rows.

        key: remove also what came by the write key with this fingerprint.

        Only the files that hold any are rewritten, each at once; a file of the log keeps its name, so that positions
        still follow one another. Appends may go on meanwhile, as long as they bring none of these. A kill leaves some
        of the rows: do it again. A table from `events` made before must be made again.

        Raises:
            BusyError: another process compacts.
        """
        with self.folder.exclusive("append", self.wait_s):
            pass  # what a killed append had staged is gone
        with self.folder.exclusive("compact", self.wait_s) as stage, self._connect(stage) as con:
            state, gone = self._state(), sql.theirs(con, sorted(set(senders)), messages)
            if key is not None:
                gone = f"({gone} OR {FROM_KEY.replace('?', sql.literal(key))})"
            live: tuple[Compacted | Logged, ...] = (*state.manifest.files, *state.log)
            found = sql.rows_by_file(con, self._urls(live), gone)
            held = {f.name: found[f.name] for f in live if f.name in found}
            for file in (f for f in state.log if f.name in held):
                sql.copy(con, sql.without(self._urls([file]), gone), stage / "log.parquet")
                self.folder.publish(stage / "log.parquet", file.name)
            if any(f.name in held for f in state.manifest.files):
                self._publish_manifest(self._without(con, state.manifest, held, gone, stage), stage)
            self._sweep(self._manifest())
        return sum(held.values())

    def _without(self, con: Any, old: Manifest, held: Mapping[str, int], gone: str, stage: Path) -> Manifest:
        """Rewrite the compact files that hold such rows; the others stay."""
        files = list[Compacted]()
        for file in old.files:
            if file.name not in held:
                files.append(file)
            elif file.rows > held[file.name]:
                query = sql.without(self._urls([file]), gone)
                files.append(self._write_bucket(con, query, stage, file.bucket, old.compaction + 1))
        return Manifest(FORMAT, old.compaction + 1, old.buckets, old.through, tuple(files))

    def _publish_manifest(self, manifest: Manifest, stage: Path) -> None:
        staged = stage / MANIFEST
        staged.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        self.folder.publish(staged, MANIFEST)

    def clear(self) -> None:
        """Remove every event."""
        with self.folder.exclusive("compact", self.wait_s) as stage, self.folder.exclusive("append", self.wait_s):
            for name in sorted(self.folder.sizes("log"), reverse=True):  # killed in between, what is left has no gap
                self.folder.remove(name)
            self._publish_manifest(Manifest(), stage)  # before the files that the old one names go
            for name in (*self.folder.sizes("compact"), MANIFEST):
                self.folder.remove(name)

    # live files

    def _state(self) -> State:
        """The live files.

        Raises:
            DamagedFile: their positions do not follow one another; the manifest is damaged, or missing beside compact
                files; a file that it names is missing, or has another size.
        """
        for _ in range(3):  # a listing may miss a file that appears or goes while it is made
            state = self._list()
            positions = [(f.first, f.last) for f in state.log]
            expected = [state.manifest.through, *(last for _, last in positions)]
            in_order = all(first == before + 1 for (first, _), before in zip(positions, expected, strict=False))
            sizes = self.folder.sizes("compact") if state.manifest.files else {}
            changed = [f for f in state.manifest.files if sizes.get(f.name) != f.bytes]
            if in_order and not changed:
                return state
        if changed:
            came = "it is missing" if changed[0].name not in sizes else f"came {sizes[changed[0].name]:,} bytes"
            raise DamagedFile(
                f"{self.folder.uri}/{changed[0].name}: expected the {changed[0].bytes:,} bytes that {MANIFEST} names; "
                f"{came}. {RESTORE}"
            )
        raise DamagedFile(
            f"{self.folder.uri}: expected log files that follow one another after position {state.manifest.through}; "
            f"came {', '.join(f.name for f in state.log[:5])}. {RESTORE}"
        )

    def _list(self) -> State:
        log = [_logged(name) for name in self.folder.names("log")]  # before the manifest, which may then say more
        manifest = self._manifest()
        live = sorted((f for f in log if f.last > manifest.through), key=lambda f: f.first)
        return State(manifest, tuple(live))

    def _manifest(self) -> Manifest:
        """The manifest; an empty one where nothing has been compacted yet.

        Raises:
            DamagedFile: it is no manifest, or there is none and there are compact files.
        """
        where, raw = f"{self.folder.uri}/{MANIFEST}", self.folder.read(MANIFEST)
        if raw is None:
            if compacted := self.folder.sizes("compact"):
                raw = self.folder.read(MANIFEST)  # the first compaction may have begun in between
                if raw is None:
                    raise DamagedFile(
                        f"{where}: expected the list of the {len(compacted)} compacted files beside it; "
                        f"it is missing. {RESTORE}"
                    )
            else:
                return Manifest()
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{where}: expected the list of compacted files; {error}. {RESTORE}") from error
        if manifest.format != FORMAT:
            raise DamagedFile(f"{where}: expected format {FORMAT}; came {manifest.format}. {RESTORE}")
        return manifest

    def _sweep(self, manifest: Manifest) -> None:
        """Remove the files that no longer count: compacted logs, and compact files that no manifest names."""
        live = {f.name for f in manifest.files}
        for name in self.folder.sizes("log"):
            if _logged(name).last <= manifest.through:
                self.folder.remove(name)
        for name in self.folder.sizes("compact"):
            if name not in live:
                self.folder.remove(name)

    # writing

    def _write_log(self, source: pa.RecordBatchReader, staged: Path) -> int:
        with self._connect(staged.parent) as con:
            con.register("incoming", source)
            try:
                return sql.copy(con, sql.INCOMING_ROWS, staged)
            except duckdb.InvalidInputException as error:
                raise ValueError(f"append to {self.folder.uri}: {error}") from error

    def _rewrite(self, state: State, buckets: int, stage: Path, progress: bool) -> Manifest:
        """Write the compact files of all buckets that change."""
        old = state.manifest
        same = old.buckets == buckets
        with self._connect(stage) as con:
            sources = ([] if same else self._urls(old.files)) + self._urls(state.log)
            spread = sql.spread(con, sources, buckets, stage / "spread")
            kept = {f.bucket: f for f in old.files} if same else {}
            written: dict[int, Compacted] = {}
            bar = track(sorted(spread), "compacting", console=Console(stderr=True), disable=not progress)
            for bucket in bar:
                query = sql.bucket(con, self._urls([kept[bucket]] if bucket in kept else []), [spread[bucket]])
                written[bucket] = self._write_bucket(con, query, stage, bucket, old.compaction + 1)
        files = kept | written
        return Manifest(
            FORMAT, old.compaction + 1, buckets, state.last_position, tuple(files[b] for b in sorted(files))
        )

    def _write_bucket(self, con: Any, query: str, stage: Path, bucket: int, compaction: int) -> Compacted:
        staged = stage / "bucket.parquet"
        name = f"compact/{bucket:04d}-{compaction:06d}.parquet"
        rows = sql.copy(con, query, staged)
        last, size = sql.largest_position(con, staged), staged.stat().st_size
        self.folder.publish(staged, name)
        return Compacted(name, bucket, rows, last, size)

    def _connect(self, stage: Path) -> duckdb.DuckDBPyConnection:
        con = duckdb.connect(config={"memory_limit": self.memory, "temp_directory": str(stage / "spill")})
        self.folder.register(con)
        return con

    def _urls(self, files: Sequence[Compacted | Logged]) -> list[str]:
        return [sql.escape(self.folder.url(f.name)) for f in files]

    def _query(self, con: "Backend", query: str) -> "ibis.Table":
        self.folder.register(con.con)
        con.con.execute(f"SET streaming_buffer_size = '{STREAMED}'")
        return con.sql(query)


def _buckets(state: State) -> int:
    """How many buckets a compaction makes unless told."""
    events, before = state.last_position, state.manifest.buckets
    if before and (before >= MOST_BUCKETS or events <= before * 10 * BUCKET_EVENTS):
        return before
    return min(MOST_BUCKETS, max(4, 1 << (events // BUCKET_EVENTS).bit_length()))


def _logged(name: str) -> Logged:
    first, last = name.removeprefix("log/").removesuffix(".parquet").split("-")
    return Logged(name, int(first), int(last))


def _reader(table: Any) -> pa.RecordBatchReader:
    """Batches of rows.

    Raises:
        ValueError: a column is missing.
    """
    if isinstance(table, duckdb.DuckDBPyRelation):
        table = table.to_arrow_reader(100_000)
    names = table.schema.names
    if missing := [c for c in sql.INCOMING.names if c not in names]:
        raise ValueError(f"append_table: expected columns {', '.join(sql.INCOMING.names)}; missing {missing}")
    return table.to_reader(100_000) if isinstance(table, pa.Table) else table


def _grouped(source: pa.RecordBatchReader, first: int) -> pa.RecordBatchReader:
    """The rows with their positions, those of a sender next to one another within a batch: so they share row groups."""
    schema = source.schema
    place = schema.get_field_index("position")
    schema = (schema if place < 0 else schema.remove(place)).append(pa.field("position", pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        position = first
        for batch in source:
            columns = {name: batch[name] for name in batch.schema.names}
            columns["position"] = pa.array(np.arange(position, position + batch.num_rows))
            position += batch.num_rows
            codes = [_codes(columns[name]) for name in ("anonymous_id", "user_id")]
            ordered = pa.record_batch([columns[name] for name in schema.names], schema)
            yield ordered.take(pa.array(np.lexsort(codes)))

    return pa.RecordBatchReader.from_batches(schema, batches())


def _codes(column: pa.Array) -> "np.ndarray[Any, Any]":
    """A number for each value, -1 for null."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1)
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def _table(events: Sequence[Event]) -> pa.Table:
    """Events as rows of INCOMING."""
    json = ("properties", "traits", "context")
    columns: Mapping[str, list[Any]] = {
        field.name: [canonical_json(getattr(e, field.name)) for e in events]
        if field.name in json
        else [getattr(e, field.name) for e in events]
        for field in sql.INCOMING
    }
    return pa.table(dict(columns), schema=sql.INCOMING)
