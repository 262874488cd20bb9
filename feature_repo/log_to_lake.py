"""From the log to the lake in the order of positions, and past the log where a source is ingested as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_repo import domains
from feature_repo.domain import Ingested
from feature_repo.lake import Lake
from feature_repo.settings import Settings
from feature_repo.sqlite_log import read_log
from feature_repo.storage import flock

AT_ONCE = 20_000
"""Events that are given together."""


def log_file(settings: Settings) -> Path:
    """The event log of a domain's state folder."""
    return settings.state / "log.db"


def drain(settings: Settings) -> int:
    """Give the lake what the log has and it has not; returns how many events. Several may do it at once."""
    lake, given = Lake(settings.lake), 0
    while batch := read_log(log_file(settings), lake.last_position(), AT_ONCE):
        first = batch[0][0]
        if lake.append([event for _, event in batch], first) >= first:
            given += len(batch)
    return given


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
