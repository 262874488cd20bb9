"""From the lake to the offline feature rows: all change points of everybody, or of those whom new events touch.

    log ─► lake ─► snapshot (canonical copies, a bucket a file) ─► touched persons ─► a bucket's events
         ─► at_change_points ─► features/<bucket>.parquet, replaced atomically ─► bookmark

The bookmark, written last, says what the rows hold: a kill in between only means that the next run does it again.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ibis
import pyarrow as pa
from ibis.backends.duckdb import Backend
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.features.change_points import at_change_points
from feature_repo.features.program import Compiled, Program
from feature_repo.features.saturation import AtLimit, in_rows
from feature_repo.intact import BACKFILLED
from feature_repo.lake import lake_index
from feature_repo.lake.lake import SCHEMA, Lake, Snapshot
from feature_repo.lake.lake_sql import bucket_of, literal
from feature_repo.lake.log_to_lake import drain
from feature_repo.progress import Bars
from feature_repo.settings import Settings
from feature_repo.storage import flock

BOOKMARK = BACKFILLED
EVENTS_AT_ONCE = 400_000
WAIT_S = 10.0
"""How long is waited for another process to be done with the offline rows."""
OFFLINE_ROW = """user_id, make_timestamptz(ts_us) as event_timestamp, make_timestamptz(position) as created,
    valid_until_us, position as applied_position, * exclude (user_id, ts_us, position, valid_until_us, person)"""
EVENT = ", ".join(n for n in SCHEMA.names if n != "content_hash")


@dataclass(frozen=True)
class Backfilled:
    """What a backfill did: buckets and rows written, events read, the log position it reached, and how long it took.

    at_limit: the features with sums at a limit of int64, in all rows that there are now.
    """

    buckets: int
    rows: int
    events: int
    position: int
    seconds: float
    at_limit: tuple[AtLimit, ...] = ()


@cache
def compiled(domain_name: str) -> Compiled:
    """The change-point program of a domain, over a table `ev` of the lake's schema."""
    fields = {f.name: str(f.type) for f in SCHEMA if f.name != "content_hash"}
    program = Program()
    events = ibis.table(fields, name="ev")
    return program.compiled(at_change_points(events, domains.load(domain_name), program))


def backfill(settings: Settings, memory: str = "3GB", progress: bool = True) -> Backfilled:
    """Bring the offline feature rows up to the lake's last event; costs what the touched persons cost.

    Args:
        memory: what DuckDB may take before it spills to disk.

    Raises:
        ValueError: the lake is empty. BusyError: another backfill runs.
    """
    with alone(settings):
        return _backfill(settings, memory, progress)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Be the only one who writes offline rows, or reads them to write them elsewhere.

    Raises:
        BusyError: another process does, still after some seconds.
    """
    with flock(settings.state / "features.lock", "backfill", WAIT_S):
        yield


def position(settings: Settings) -> int:
    """The log position up to which the offline rows have every event; 0 where there are none."""
    path = settings.features / BOOKMARK
    return int(json.loads(path.read_text())["position"]) if path.exists() else 0


def again(settings: Settings, persons: Iterable[str], erased: Iterable[str]) -> None:
    """Have the next backfill compute these persons anew, although no event of theirs is new. Only while `alone`.

    erased: persons whom no backfill computes any more, whatever was asked before.
    """
    path = settings.features / BOOKMARK
    if path.exists():
        held = json.loads(path.read_text())
        _write_bookmark(settings, held | {"again": sorted({*held.get("again", ()), *persons} - {*erased})})


def _backfill(settings: Settings, memory: str, progress: bool) -> Backfilled:
    began = time.monotonic()
    domain = domains.load(settings.domain)
    drain(settings)
    lake = lake_index.compact(settings, progress)
    if lake.last_position() == 0:
        raise ValueError(f"{settings.lake}: no events yet: run `make simulate`, or `make ingest DATA=<folder>`")
    settings.features.mkdir(parents=True, exist_ok=True)
    print_of = fingerprint(domain)
    held, others = _bookmark(settings, print_of)
    con = _connect(settings, memory)
    try:
        snapshot = _open(con, lake)
        through, buckets = snapshot.through, len(snapshot.rows)
        touched = _touched(con, lake, held, buckets, others) if held else list(range(buckets))
        rows, events = _write(con, settings, domain, snapshot, touched, bool(held), progress)
    finally:
        con.disconnect()
    _write_bookmark(settings, {"position": through, "features": print_of, "buckets": buckets})
    at_limit = tuple(in_rows(settings.features, domain))
    return Backfilled(len(touched), rows, events, through, time.monotonic() - began, at_limit)


def fingerprint(domain: Domain) -> str:
    """Changes when the rows do: a hash of the compiled program and of their layout."""
    program = compiled(domain.name)
    return hashlib.sha256(json.dumps([program.steps, program.result, OFFLINE_ROW]).encode()).hexdigest()[:16]


def _bookmark(settings: Settings, print_of: str) -> tuple[int, list[str]]:
    """The position that the rows hold, 0 where they are absent or of other definitions; who is to be computed anew."""
    path = settings.features / BOOKMARK
    held = json.loads(path.read_text()) if path.exists() else {}
    return (int(held["position"]), held.get("again", [])) if held.get("features") == print_of else (0, [])


def _write_bookmark(settings: Settings, content: dict[str, object]) -> None:
    part = settings.features / f"{BOOKMARK}.part"
    part.write_text(json.dumps(content))
    part.rename(settings.features / BOOKMARK)


def _connect(settings: Settings, memory: str) -> Backend:
    spill = settings.state / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    con = ibis.duckdb.connect(memory_limit=memory, temp_directory=str(spill))
    con.raw_sql("SET preserve_insertion_order = false")
    return con


def _open(con: Backend, lake: Lake) -> Snapshot:
    """One snapshot of the lake; tables `anonymous` and `edges` over it."""
    snapshot = lake.snapshot(con)
    con.raw_sql(f"create temp table anonymous as select {EVENT} from ({snapshot.every()}) where user_id is null")
    con.raw_sql(f"""create temp table edges as select {EVENT} from ({snapshot.every()})
        where type in ('identify', 'alias') and user_id is not null and anonymous_id is not null""")
    return snapshot


def _touched(con: Backend, lake: Lake, held: int, buckets: int, others: list[str]) -> list[int]:
    """Make `touched`: whose rows the events after position `held` can change, and others; returns their buckets."""
    con.con.register("others", pa.table({"entity": pa.array(others, pa.string())}))
    con.create_view("fresh", lake.new_since(con, held), overwrite=True)
    con.raw_sql(f"""create temp table touched as
        with hands as (select distinct anonymous_id from fresh
            where anonymous_id is not null and (user_id is null or type in ('identify', 'alias'))),
        persons as (select user_id as entity from fresh where user_id is not null
            union select 'anon:' || anonymous_id from hands
            union select entity from others
            union select user_id from edges semi join hands using (anonymous_id))
        select entity, {bucket_of("entity", buckets)} as bucket from persons""")
    return [b for (b,) in con.raw_sql("select distinct bucket from touched order by 1").fetchall()]


def _write(
    con: Backend,
    settings: Settings,
    domain: Domain,
    lake: Snapshot,
    todo: list[int],
    only_touched: bool,
    progress: bool,
) -> tuple[int, int]:
    """Recompute and replace the rows of the given buckets; returns how many rows, from how many events."""
    rows = events = 0
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("buckets, {task.fields[pace]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    began = time.monotonic()
    with Bars(*columns, disable=not progress) as bar:
        task = bar.add_task("backfill", total=len(todo), pace="")
        for batch in batches(lake, todo):
            people = _People(batch, len(lake.rows), only_touched)
            events += _load(con, lake, people)
            rows += _compute(con, compiled(domain.name), people)
            for bucket in batch:
                _replace(con, settings.features / f"{bucket:04d}.parquet", bucket, only_touched)
            pace = f"{events / (time.monotonic() - began):,.0f} events/s, {rows:,} rows"
            bar.update(task, advance=len(batch), pace=pace)
    return rows, events


def batches(lake: Snapshot, todo: list[int]) -> Iterator[list[int]]:
    """Buckets to compute together: enough events to be worth a pass, few enough to stay in memory."""
    batch: list[int] = []
    held = 0
    for bucket in todo:
        if batch and held + lake.rows[bucket] > EVENTS_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(bucket)
        held += lake.rows[bucket]
    if batch:
        yield batch


@dataclass(frozen=True)
class _People:
    """Whose rows a pass computes: everybody in its buckets, or those of them who are touched."""

    batch: list[int]
    buckets: int
    only_touched: bool

    def include(self, entity: str) -> str:
        """A SQL condition on an expression that gives an entity."""
        numbers = ", ".join(map(str, self.batch))
        if self.only_touched:
            return f"{entity} in (select entity from touched where bucket in ({numbers}))"
        return f"{bucket_of(entity, self.buckets)} in ({numbers})"


def _load(con: Backend, lake: Snapshot, people: _People) -> int:
    """Make `ev`: every event that one of the people may own, and the edges that decide it; returns how many."""
    known = people.include("user_id") if people.only_touched else "user_id is not null"
    con.raw_sql(f"""create or replace temp table ev as
        with hands as (select anonymous_id from edges where {people.include("user_id")}
            union select anonymous_id from anonymous where {people.include("'anon:' || anonymous_id")})
        select {EVENT} from ({lake.query(people.batch)}) where {known}
        union all select {EVENT} from anonymous semi join hands using (anonymous_id)
        union all select {EVENT} from edges semi join hands using (anonymous_id)
            where not ({people.include("user_id")})""")
    return int(con.raw_sql("select count(*) from ev").fetchone()[0])


def _compute(con: Backend, program: Compiled, people: _People) -> int:
    """Make `computed`: the offline rows of the people, with their bucket; returns how many."""
    result = program.run(con.raw_sql)
    con.raw_sql(f"""create or replace temp table computed as
        select {OFFLINE_ROW},
            {bucket_of("user_id", people.buckets)} as bucket, person
        from ({result}) where {people.include("user_id")}""")
    return int(con.raw_sql("select count(*) from computed").fetchone()[0])


def _replace(con: Backend, path: Path, bucket: int, only_touched: bool) -> None:
    """Put the computed rows in place of their people's in a bucket's file, whole or not at all."""
    query = f"select * exclude (bucket, person) from computed where bucket = {bucket} order by person, event_timestamp"
    if only_touched and path.exists():
        query = f"""select * from (
            select * exclude (bucket, person) from computed where bucket = {bucket}
            union all by name select * from read_parquet({literal(str(path))})
            where user_id not in (select entity from touched where bucket = {bucket})
            ) order by user_id, event_timestamp"""
    part = path.with_suffix(".part")
    con.raw_sql(f"copy ({query}) to {literal(str(part))} (format parquet, row_group_size 32768)")
    part.rename(path)
