"""A user whose row cannot be computed keeps nobody else waiting, as one poison message stops no consumer of Kafka.

all together ─► an error that is no store's ─► halves, and their halves ─► the users who fail by themselves
"""

import sqlite3
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

STORES = (OSError, MemoryError, sqlite3.Error, duckdb.OperationalError, duckdb.FatalException)
"""Errors of a store, beside Redis's own: they say nothing about a user, and what was tried is tried again."""


def failures(persons: Sequence[str], act: Callable[[Sequence[str]], object]) -> dict[str, Exception]:
    """Do something for all of these users together; where it fails, for halves of them, down to single users.

    act: may be called again for users for whom it succeeded only in part.

    Returns:
        The users for whom it fails by themselves, each with the error.

    Raises:
        Exception: that of a store (see STORES).
    """
    if not persons:
        return {}
    try:
        act(persons)
    except Exception as error:
        if of_a_store(error):
            raise
        if len(persons) == 1:
            return {persons[0]: error}
        half = len(persons) // 2
        return failures(persons[:half], act) | failures(persons[half:], act)
    return {}


def of_a_store(error: Exception) -> bool:
    """Return True if an error is a store's, and not about the data of a user."""
    from redis.exceptions import RedisError  # takes a moment, and only errors need it

    return isinstance(error, (*STORES, RedisError))


def reason(error: Exception) -> str:
    """What went wrong, in full: it can quote values of the user, so it is kept only where erasing finds it."""
    return f"{where(error)}: {error}"[:500]


def where(error: Exception) -> str:
    """An error's type, and the place in the code that raised it; quotes nothing of the user."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
