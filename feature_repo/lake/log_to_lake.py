"""From the log to the lake in the order of positions, and past the log where a source is ingested as a whole."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo import domains
from feature_repo.domain import Ingested
from feature_repo.history.history_store import HistoryStore, Row, open_history
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.log.sqlite_log import read_log
from feature_repo.settings import Settings
from feature_repo.storage import flock

AT_ONCE = 20_000
"""Events that are given together."""


def log_file(settings: Settings) -> Path:
    """The event log of a domain's state folder."""
    return settings.state / "log.db"


def drain(settings: Settings) -> int:
    """Give the lake what the log has and it has not; returns how many events. Several may do it at once.

    A broker gives no positions: there, what the history has given positions to.
    """
    if settings.log != "sqlite":
        with closing(open_history(settings)) as history:
            return drain_history(history, Lake(settings.lake))
    lake, given = Lake(settings.lake), 0
    while batch := read_log(log_file(settings), lake.last_position(), AT_ONCE):
        first = batch[0][0]
        if lake.append([event for _, event in batch], first) >= first:
            given += len(batch)
    return given


def drain_history(history: HistoryStore, lake: Lake) -> int:
    """Give the lake what waits in `arrived`; returns how many events."""
    given = 0
    while True:
        history.passed_on(lake.last_position())
        if not (rows := history.arrived(AT_ONCE)):
            return given
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


def ingest(settings: Settings, data: Path | None = None, **options: Any) -> Ingested:
    """Fill the lake from the domain's source.

    Raises:
        BusyError: the service runs. ValueError: the source cannot be read.
    """
    with ingesting(settings):
        return domains.load(settings.domain).ingest(settings, data, **options)
