"""From the log to the lake in the order of positions, and past the log where a source is ingested as a whole."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo import domains
from feature_repo.domain import Ingested
from feature_repo.history.history_store import HistoryStore, Row, open_history
from feature_repo.lake.lake import RESTORE, Lake
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.log.sqlite_log import next_run
from feature_repo.settings import Settings
from feature_repo.storage import DamagedFile, flock

AT_ONCE = 20_000
"""Events that are given together."""


def log_file(settings: Settings) -> Path:
    """The event log of a domain's state folder."""
    return settings.state / "log.db"


def drain(settings: Settings) -> int:
    """Give the lake what the log has and it has not; returns how many events. Several may do it at once.

    A broker gives no positions: there, what the history has given positions to.

    Raises:
        DamagedFile: the lake lacks events that the log has no longer, because it had them once.
    """
    if settings.log != "sqlite":
        with closing(open_history(settings)) as history:
            given = drain_history(history, Lake(settings.lake))
        LakeIndex(settings).refresh()
        return given
    index, given = LakeIndex(settings), 0
    lake = index.lake
    while True:
        last = lake.last_position()
        begins, run = next_run(log_file(settings), last, AT_ONCE)
        if begins > last + 1:
            _lost_unless_moved(lake, last, begins, log_file(settings))
        elif not run:
            index.refresh()
            return given
        elif lake.append([event for _, event in run], run[0][0], after=last) >= run[0][0]:
            given += len(run)


def _lost_unless_moved(lake: Lake, last: int, begins: int, source: object) -> None:
    """Raise DamagedFile, unless another process has given the lake events since `last` was its last position."""
    if lake.last_position() == last:
        raise DamagedFile(
            f"{lake.folder.uri}: expected the events up to position {begins - 1}; the lake ends at {last}, and "
            f"{source} holds only those from {begins} on. {RESTORE}"
        )


def drain_history(history: HistoryStore, lake: Lake) -> int:
    """Give the lake what waits in `arrived`; returns how many events.

    Raises:
        DamagedFile: the lake lacks events that the history has no longer.
    """
    given = 0
    while True:
        last = lake.last_position()
        history.passed_on(last)
        if not (rows := history.arrived(AT_ONCE)):
            return given
        if rows[0].position > last + 1:
            _lost_unless_moved(lake, last, rows[0].position, "the history")
            continue
        columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
        table = pa.table({f.name: pa.array(columns[f.name], f.type) for f in INCOMING}, schema=INCOMING)
        if lake.append_table(table, rows[0].position) >= rows[-1].position:
            given += len(rows)


@contextmanager
def ingesting(settings: Settings) -> Iterator[None]:
    """Be the only one who gives events a position, while they go to the lake without the log.

    Raises:
        BusyError: the service runs; it has a collector for events.
    """
    with flock(Path(f"{log_file(settings)}.lock"), "service", 0):
        drain(settings)
        yield
        LakeIndex(settings).refresh()


def ingest(settings: Settings, data: Path | None = None, **options: Any) -> Ingested:
    """Fill the lake from the domain's source.

    Raises:
        BusyError: the service runs. ValueError: the source cannot be read.
    """
    with ingesting(settings):
        return domains.load(settings.domain).ingest(settings, data, **options)
