"""Sums at a limit of int64: where one lies beyond, the feature holds the limit (see terms.saturated), and it is told.

A value at a limit is taken for one beyond it: of sums that can be, one in 2**64 is the limit itself. The sides of a
ratio saturate too; they are seen where their sum is a feature by itself.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract.events import spoken
from feature_repo.domain import Domain
from feature_repo.vocabulary import INT64, Linear, Sum

_log = logging.getLogger(__name__)


class AtLimit(NamedTuple):
    """A feature with sums at a limit: of how many users, in how many rows, and the key of one of those users."""

    feature: str
    users: int
    rows: int
    example: str

    def __str__(self) -> str:
        """In words."""
        others = f" and {self.users - 1:,} more users" if self.users > 1 else ""
        told = "a sum beyond int64 is kept at the limit"
        return f"feature {self.feature}: {told}, in {self.rows:,} rows of {spoken(self.example)}{others}"


def summed(domain: Domain) -> list[str]:
    """The features that saturate."""
    return [f.name for f in domain.features if isinstance(f.term, Sum | Linear)]


def in_rows(folder: Path, domain: Domain) -> list[AtLimit]:
    """What is at a limit in the offline rows; reads the files' statistics, and rows only where there is any."""
    names = summed(domain)
    rows = {name: Counter[str]() for name in names}
    for file in sorted(folder.glob("*.parquet")) if names else ():
        with pq.ParquetFile(file) as opened:
            found = opened.read(["user_id", *reached]) if (reached := _reached(opened.metadata, names)) else None
        for name in reached:
            rows[name].update(_users(found, name))
    return [AtLimit(name, len(of), of.total(), min(of)) for name, of in rows.items() if of]


def _reached(file: pq.FileMetaData, names: Sequence[str]) -> list[str]:
    """The columns of a file that have a limit among their smallest and largest values, or do not say so."""
    places = {name: file.schema.names.index(name) for name in names}
    groups = [file.row_group(n) for n in range(file.num_row_groups)]
    return [name for name, at in places.items() if any(_may_reach(group.column(at).statistics) for group in groups)]


def _may_reach(found: pq.Statistics | None) -> bool:
    if found is None:
        return True
    if not found.has_min_max:
        return bool(found.num_values)
    return found.min == INT64[0] or found.max == INT64[1]


def _users(rows: pa.Table, name: str) -> list[str]:
    """The user of each row in which a feature is at a limit."""
    at_limit = pc.is_in(rows[name], pa.array(INT64, pa.int64()))
    found: list[str] = rows["user_id"].filter(at_limit).to_pylist()
    return found


class Watch:
    """Whose sums are at a limit, in the rows that a process has written since it started. From several threads."""

    def __init__(self, domain: Domain) -> None:
        self._features, self._told = summed(domain), set[str]()
        self._users: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many values are, each of one user and feature."""
        with self._lock:
            return sum(map(len, self._users.values()))

    def see(self, persons: Sequence[str], rows: pa.Table) -> None:
        """The rows of these users have been written; of each feature the first user is told in the log."""
        for name in self._features:
            if name not in self._users and not _reaches(rows[name]):
                continue  # as nearly always
            beyond = set(_users(rows, name))
            with self._lock:
                self._users[name] = self._users.get(name, set()).difference(persons) | beyond
            if beyond and name not in self._told:
                self._told.add(name)
                _log.warning(
                    "feature %s: the sum of a user lies beyond int64 and is kept at the limit; firstmile_sums_at_limit "
                    "counts such values, `python -m feature_repo backfill` names a user",
                    name,
                )

    def forget(self, persons: Iterable[str]) -> None:
        """These users are erased."""
        persons = set(persons)
        with self._lock:
            for users in self._users.values():
                users -= persons


def _reaches(column: pa.ChunkedArray) -> bool:
    """Whether a value may be at a limit."""
    found = pc.min_max(column).as_py()
    return found["min"] == INT64[0] or found["max"] == INT64[1]
