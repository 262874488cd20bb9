"""From the offline rows to the online store: for everybody the row in force, if it is new since the last time."""

import json
from contextlib import closing
from dataclasses import dataclass

import duckdb
import ibis
import pyarrow as pa

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS
from feature_repo.feature_store import backfill
from feature_repo.history.history_store import claims, open_history
from feature_repo.intact import MATERIALIZED
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import literal
from feature_repo.lake.log_to_lake import drain
from feature_repo.progress import Bars
from feature_repo.settings import Settings

BOOKMARK = MATERIALIZED


@dataclass(frozen=True)
class Materialized:
    """Rows written to the online store, and the time as of which they are in force (µs)."""

    rows: int
    at_us: int


def materialize(settings: Settings, at_us: int, progress: bool = True) -> Materialized:
    """Write the rows in force at a time to the online store; costs what changed since the last time.

    Raises:
        FileNotFoundError: there are no offline rows yet. BusyError: a backfill runs.
    """
    with backfill.alone(settings):
        return _materialize(settings, at_us, progress)


def _materialize(settings: Settings, at_us: int, progress: bool) -> Materialized:
    from feature_repo.feature_store.store import apply, feature_store, write_online

    path = settings.state / BOOKMARK
    held = json.loads(path.read_text()) if path.exists() else {}
    of = {"online": settings.online, "features": _definitions(settings)}
    same = of.items() <= held.items()
    since_us, since_position = (held["at_us"], held["position"]) if same else (0, 0)
    rows = in_force(settings, at_us, since_us, since_position)
    apply(settings)
    if len(rows):
        domain = domains.load(settings.domain)
        with Bars(disable=not progress) as bar:
            task = bar.add_task("materialize", total=len(rows))
            store = feature_store(settings, lineage=False)
            write_online(store, domain, rows, lambda done: bar.advance(task, done))
        _touched_since(settings, rows["user_id"])
    position = max([since_position, *rows["created"].cast(pa.int64()).to_pylist()])
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"at_us": max(at_us, since_us), "position": position} | of))
    part.rename(path)
    return Materialized(len(rows), at_us)


def _touched_since(settings: Settings, written: pa.ChunkedArray) -> None:
    """Have the stream write those of these persons anew whom events have touched since their rows were computed.

    It may have written before, and then it does not know that an older belief has taken the place of its row.
    """
    drain(settings)
    con = ibis.duckdb.connect()
    try:
        con.create_view("fresh", Lake(settings.lake).new_since(con, backfill.position(settings)))
        users, hands = (
            {one for (one,) in con.raw_sql(f"select distinct {of} from fresh where {where}").fetchall()}
            for of, where in (
                ("user_id", "user_id is not null"),
                ("anonymous_id", "anonymous_id is not null and (user_id is null or type in ('identify', 'alias'))"),
            )
        )
    finally:
        con.disconnect()
    if not users and not hands:
        return
    with closing(open_history(settings)) as history:
        touched = users.union(*claims(history, hands).values(), (f"{ANONYMOUS}{a}" for a in hands))
        history.defer(sorted(touched.intersection(written.to_pylist())))


def _definitions(settings: Settings) -> str | None:
    """The fingerprint of the definitions that the offline rows were computed with."""
    bookmark = settings.features / backfill.BOOKMARK
    return json.loads(bookmark.read_text())["features"] if bookmark.exists() else None


def in_force(settings: Settings, at_us: int, since_us: int = 0, since_position: int = 0) -> pa.Table:
    """The offline rows in force at a time that differ from those in force at `since_us` by what was known then.

    A correction can move somebody's newest change point back (a merge takes events away). Its row counts at the time
    of the last run too, and takes that as its timestamp: so the online store's order lets it replace the older belief.
    """
    files = sorted(settings.features.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{settings.features}: no feature rows yet: run `make backfill`")
    rows = f"read_parquet([{', '.join(literal(str(f)) for f in files)}])"
    newest = f"""select user_id, max(event_timestamp) as event_timestamp from {rows}
        where event_timestamp <= make_timestamptz({at_us}::bigint) group by user_id"""
    seen = f"make_timestamptz({since_us}::bigint)"
    return duckdb.sql(f"""
        select * replace (case when epoch_us(created) > {since_position} and {since_us} > 0
            then greatest(event_timestamp, least({seen}, make_timestamptz({at_us}::bigint)))
            else event_timestamp end as event_timestamp)
        from {rows} semi join ({newest}) using (user_id, event_timestamp)
        where event_timestamp > {seen} or epoch_us(created) > {since_position}
        order by user_id""").to_arrow_table()
