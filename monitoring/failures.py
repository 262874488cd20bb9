"""What a user reads when a step of a run fails: what failed, why, what to do, and where its traceback is."""

import errno
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import duckdb

from feature_repo.settings import SOURCE

ROOMS = ("feature_repo", "training", "serving", "monitoring")
AGAIN = "Start it again: it goes on with this step. If that fails in the same way, the log says where."
OUT_OF_MEMORY = "Close other programs, or take fewer users (USERS=…), and start it again: it goes on with this step."
NO_SPACE = "Free some space, and start it again: it goes on with this step."
DAMAGED = (
    "A database file of the state folder is damaged; the log shows what was reading it. Restore it from a backup, or "
    "choose another STATE folder."
)


@contextmanager
def explained(step: str, log: Path) -> Iterator[None]:
    """Turn an error of a step into an error message; its traceback goes to the end of a log file.

    Raises:
        click.ClickException: for any error.
        SystemExit: with 130, after Ctrl-C or SIGTERM.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nStopped during the step {step!r}. The same command goes on from there.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        where = _logged(step, log, error)
        lines = (f"the step {step!r} failed: {reason(error)}", remedy(error), where)
        raise click.ClickException("\n".join(filter(None, lines))) from None


def reason(error: Exception) -> str:
    """Why, in the words of the error; with the error's type unless this project raised it."""
    if isinstance(error, click.ClickException):
        return error.message
    words = str(error).strip()
    if _in_own_words(error):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def remedy(error: Exception) -> str:
    """What the user can do; empty where the error's own words say it."""
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE
    if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
        return NO_SPACE
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return DAMAGED
    return "" if _in_own_words(error) else AGAIN


def _in_own_words(error: Exception) -> bool:
    """Whether the error's words are this project's own: a file of one of its rooms raised it, with a message."""
    if isinstance(error, click.ClickException):
        return True
    if not str(error).strip() or isinstance(error, KeyError | IndexError | AssertionError | TypeError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(Path(frames[-1].filename).is_relative_to(SOURCE / room) for room in ROOMS)


def _logged(step: str, log: Path, error: Exception) -> str:
    """Append the traceback to the log; says where it is."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{at} the step {step!r} failed\n{''.join(traceback.format_exception(error))}\n")
    except OSError as full:
        return f"The log {log} could not be written ({full}); this was the traceback's end: {_last_frame(error)}"
    return f"Log: {log}"


def _last_frame(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
