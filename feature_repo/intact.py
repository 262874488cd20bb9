"""Which files of a state folder are damaged, and what to do about each; asked before anything works on them."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from feature_repo.erasing import tombstones
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import log_file
from feature_repo.log.sqlite_log import extent
from feature_repo.settings import Settings
from feature_repo.sqlite import fault
from feature_repo.storage import DamagedFile

BACKUP = "Bring it back from a backup"
PARQUET = b"PAR1"
REVOKING = "revoking"
"""Holds the fingerprint of a write key while its events are taken back."""
BACKFILLED, MATERIALIZED = "backfill.json", "materialize.json"
"""What holds how far the offline and the online rows were written."""


def rebuild(what: str, domain: str) -> str:
    """The sentence that names the command which makes a part of the state anew."""
    return f"Make it anew: `python -m feature_repo rebuild {what} --domain {domain}`, while no service runs."


def check(settings: Settings) -> None:
    """Do nothing if all files are whole.

    Raises:
        DamagedFile: some are not; a line for each says where it is, what was expected, what came, and what to do.
    """
    if found := list(faults(settings)):
        raise DamagedFile("\n".join(found))


def faults(settings: Settings) -> Iterator[str]:
    """A line for each damaged file."""
    state = settings.state
    if not state.exists():
        return
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield f"{state}: expected a folder that may be read and written; it may not. Give this user the right to."
        return
    if (state / REVOKING).exists():
        key = (state / REVOKING).read_text()
        yield f"{state}: the events of a write key are not all taken back yet, as the process was stopped. Go on: " + (
            f"`python -m serving revoke-key {key} --domain {settings.domain}`, while no service runs."
        )
    again = {what: rebuild(what, settings.domain) for what in ("log", "history", "online", "features")}
    databases = {
        log_file(settings): f"{BACKUP}. Without one: {again['log']}",
        state / "history.db": again["history"],
        state / "online.db": again["online"],
        state / tombstones.FILE: f"{BACKUP}: without it the events of people who were erased would be taken in again.",
    }
    found = list(sqlite_faults(databases))
    yield from found
    yield from _lake_faults(settings, lost=not found)
    yield from parquet_faults(settings.features, again["features"])
    if lacking := _lacking_features(settings):
        yield f"{settings.features}: expected the rows of {lacking[0]} buckets; came {lacking[1]}. {again['features']}"
    if settings.online == "sqlite" and (state / MATERIALIZED).exists() and _empty(state / "online.db"):
        yield f"{state / 'online.db'}: expected the online rows that were written; it is missing. {again['online']}"


def sqlite_faults(databases: dict[Path, str]) -> Iterator[str]:
    """A line for each damaged or read-only SQLite file; databases: what to do about each."""
    for file, remedy in databases.items():
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            yield f"{file}: expected a file that may be read and written; it may not. Give this user the right to."
        elif wrong := fault(file):
            yield f"{file}: {wrong}. {remedy}"


def parquet_faults(folder: Path, remedy: str) -> Iterator[str]:
    """A line for each Parquet file of a folder that is not whole, by its first and last bytes."""
    for file in sorted(folder.glob("*.parquet")):
        if wrong := parquet_fault(file):
            yield f"{file}: {wrong}. {remedy}"


def parquet_fault(file: Path) -> str | None:
    """What is wrong with a Parquet file, or None."""
    with file.open("rb") as opened:
        size, begins = os.fstat(opened.fileno()).st_size, opened.read(4)
        if size < 12 or begins != PARQUET:
            return f"expected a Parquet file; came {size:,} bytes that begin with {begins!r}"
        opened.seek(-8, os.SEEK_END)
        footer = opened.read(8)
    if footer[4:] != PARQUET or int.from_bytes(footer[:4], "little") > size - 12:
        return f"expected a whole Parquet file; its end is missing after {size:,} bytes"
    return None


def _lake_faults(settings: Settings, lost: bool) -> Iterator[str]:
    """The lake's; and, if asked for, whether the log has lost events that were accepted."""
    lake = Lake(settings.lake)
    if lake.folder.local:
        remedy = "Bring the lake's folder back from a backup, as a whole."
        yield from parquet_faults(Path(lake.folder.path("log")), remedy)
    try:
        last = lake.last_position()
    except DamagedFile as error:
        yield str(error)
        return
    if not lost or not settings.log == settings.history == "sqlite":
        return
    log, applied = log_file(settings), _applied(settings.state / "history.db")  # before the log, which may grow
    held = 0 if _empty(log) else extent(log)
    if applied > max(last, held):
        yield (
            f"{log}: expected the events up to position {applied}, which the history knows of; it ends at {held}, "
            f"and the lake at {last}. {BACKUP}. Without one: {rebuild('log', settings.domain)}"
        )


def _applied(history: Path) -> int:
    """The log position that a history has reached."""
    if _empty(history):
        return 0
    with closing(sqlite3.connect(f"{history.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        try:
            found = db.execute("SELECT position FROM reached").fetchone()
        except sqlite3.OperationalError:  # it has no tables yet
            return 0
        return int(found[0]) if found else 0


def _lacking_features(settings: Settings) -> tuple[int, int] | None:
    """How many files of offline rows there should be, and are, where some are missing."""
    bookmark = settings.features / BACKFILLED
    if not bookmark.exists():
        return None
    try:
        expected = int(json.loads(bookmark.read_text())["buckets"])
    except (ValueError, KeyError, TypeError):
        return (1, 0)
    came = sum((settings.features / f"{bucket:04d}.parquet").exists() for bucket in range(expected))
    return (expected, came) if came < expected else None


def _empty(file: Path) -> bool:
    return not file.exists() or not file.stat().st_size
