"""Making parts of a domain's state anew, out of the lake, while no service runs."""

from collections.abc import Callable

from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import BOOKMARK, materialize
from feature_repo.feature_store.store import take_over
from feature_repo.lake.log_to_lake import log_file
from feature_repo.settings import Settings, now_us
from feature_repo.storage import flock


def rebuild(settings: Settings, what: str, progress: bool = True) -> str:
    """Make a part anew: one of PARTS. What was there is removed; a log is set aside. Returns what was done, in words.

    Raises:
        BusyError: a service runs. ValueError: that part is no file of this state folder.
    """
    with flock(log_file(settings).with_name("log.db.lock"), "service", 0):
        _of_this_folder(settings, what)
        return PARTS[what](settings, progress)


def _of_this_folder(settings: Settings, what: str) -> None:
    stores = {"log": settings.log, "history": settings.history, "online": settings.online}
    if stores.get(what, "sqlite") != "sqlite":
        raise ValueError(f"{what}: expected a file of {settings.state}; it is in {stores[what]}: mend it there")


def _history(settings: Settings, progress: bool) -> str:
    remove(settings, "history.db")
    return "the history is read from the lake when the service starts"


def empty_online(settings: Settings) -> None:
    """Remove all online rows; the next materialization writes every row."""
    if settings.online == "sqlite":
        (settings.state / BOOKMARK).unlink(missing_ok=True)
        remove(settings, "online.db")
    else:
        take_over(settings)


def _online(settings: Settings, progress: bool) -> str:
    empty_online(settings)
    backfill(settings, progress=progress)
    return f"online: {materialize(settings, now_us(), progress).rows:,} rows written"


def _features(settings: Settings, progress: bool) -> str:
    for file in settings.features.glob("*"):
        file.unlink()
    return f"offline: {backfill(settings, progress=progress).rows:,} rows written"


def _log(settings: Settings, progress: bool) -> str:
    """Whoever can mend the old log finds it beside the new one, until the next erasure."""
    log = log_file(settings)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.damaged"))
    remove(settings, log.name)
    remove(settings, "history.db")
    return f"the log begins after the lake's last event: events that only it had are in {log}.damaged, or lost"


def remove(settings: Settings, name: str) -> None:
    """Remove a SQLite file and its journals."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (settings.state / f"{name}{suffix}").unlink(missing_ok=True)


PARTS: dict[str, Callable[[Settings, bool], str]] = {
    "log": _log,
    "history": _history,
    "online": _online,
    "features": _features,
}
