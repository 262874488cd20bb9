"""Rules over everybody's past: the offline feature rows, folded person by person.

files (one a bucket of people) -> [sort] -> person, change points -> [fold] -> life under each set of rules
"""

import hashlib
import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.domain import Domain
from feature_repo.features.elapsed import elapsed_seconds
from serving.decide import Model, scored
from serving.rules.fold import FOREVER, Judge, Row, fold, unjudged
from serving.rules.guard import Life
from serving.rules.quiet import quiet
from serving.rules.ruleset import Rules
from serving.values import Value

ORDER = ["user_id", "event_timestamp", "created"]
END = "valid_until_us"


class NoHistoryError(LookupError):
    """There are no feature rows to test rules on."""


class Values(Mapping[str, Value]):
    """One row of columns."""

    __slots__ = ("_columns", "_number")

    def __init__(self, columns: Mapping[str, Sequence[Value]], number: int) -> None:
        self._columns, self._number = columns, number

    def __getitem__(self, name: str) -> Value:
        return self._columns[name][self._number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass(frozen=True, slots=True)
class Past:
    """A person's change points.

    begins, ends: of each row, µs, the end not included; null: none is known. values: the stored features by name, of
    this and of other people; the rows begin at number `first`. quiet: of each row whether the rules need not look at
    it; see `quiet`.
    """

    person: str
    begins: Sequence[int]
    ends: Sequence[int | None]
    values: Mapping[str, Sequence[Value]]
    first: int
    quiet: Sequence[bool]

    @property
    def rows(self) -> Iterator[Row]:
        """The rows, made one by one; those that the rules look at as dictionaries, which are read faster."""
        for number, (begins_us, ends_us, still) in enumerate(
            zip(self.begins, self.ends, self.quiet, strict=True), self.first
        ):
            values = Values(self.values, number)
            yield begins_us, values if still else dict(values), ends_us

    def there(self, at_us: int) -> bool:
        """Whether this is somebody at a time: seen by then, and not an anonymous person who has become known."""
        return _there(self.begins[0], self.ends[-1], at_us)

    def until(self, at_us: int) -> "Past":
        """The rows that begin by a time; the last one of them is not quiet."""
        n = bisect_right(self.begins, at_us)
        return replace(self, begins=self.begins[:n], ends=self.ends[:n], quiet=[*self.quiet[: n - 1], False])


@dataclass(frozen=True)
class History:
    """The feature rows of a folder. columns: the stored features that are read of them."""

    folder: Path
    columns: Sequence[str]

    @property
    def files(self) -> list[Path]:
        """One a bucket of people.

        Raises:
            NoHistoryError: there are none.
        """
        found = sorted(self.folder.glob("[0-9]*.parquet"))
        if not found:
            raise NoHistoryError(f"no feature rows in {self.folder}: `make ingest backfill` writes them")
        return found

    def sample(self, number: int, at_us: int) -> AbstractSet[str]:
        """That many of the people who are there at a time, all if they are fewer, always the same ones: those with the
        smallest hashes."""
        people = (past.person for past in replace(self, columns=()).pasts(None) if past.there(at_us))
        return set(heapq.nsmallest(number, people, key=_hash))

    def people(
        self, only: AbstractSet[str] | None = None, done: Callable[[int, int], None] = lambda files, of: None
    ) -> Iterator[tuple[str, list[Row]]]:
        """Each person with the change points. only: these people. done: told how many files of how many were read.

        Rows of equal values are one; of several rows of one moment the last one written counts. An anonymous person who
        became known ends there: then the last row ends.
        """
        return ((past.person, list(past.rows)) for past in self.pasts(None, only, done))

    def pasts(
        self,
        rules: Rules | None,
        only: AbstractSet[str] | None = None,
        done: Callable[[int, int], None] = lambda files, of: None,
    ) -> Iterator[Past]:
        """The same, with what these rules need not look at; None: they look at every row."""
        files = self.files
        for number, file in enumerate(files, 1):
            table = pq.read_table(file, columns=[*ORDER, END, *self.columns]).sort_by([(c, "ascending") for c in ORDER])
            yield from _pasts(table, list(self.columns), rules, only)
            done(number, len(files))


def _pasts(table: pa.Table, columns: list[str], rules: Rules | None, only: AbstractSet[str] | None) -> Iterator[Past]:
    """The people of a file, whose rows are in order of person, time, and when they were written."""
    if not len(table):
        return
    person, moments = _codes(table["user_id"]), _int64(table["event_timestamp"])
    lasts = np.append(person[1:] != person[:-1], True)
    person_ends = _int64(table[END].combine_chunks().fill_null(FOREVER))[lasts]
    written_last = lasts | np.append(moments[1:] != moments[:-1], True)
    table, person, moments = table.filter(written_last), person[written_last], moments[written_last]
    first = np.append(True, person[1:] != person[:-1])
    changed = first.copy()
    for codes in (_codes(table[name]) for name in columns):
        changed[1:] |= codes[1:] != codes[:-1]
    table, moments, first = table.filter(changed), moments[changed], first[changed]
    ends = np.append(moments[1:], 0)
    ends[np.append(first[1:], True)] = person_ends
    still = quiet(rules, table, moments, ends, first) if rules else np.zeros(len(first), bool)
    values = {name: table[name].to_pylist() for name in columns}
    at, until, still = moments.tolist(), [None if end == FOREVER else end for end in ends.tolist()], still.tolist()
    bounds = [*np.flatnonzero(first).tolist(), len(at)]
    for user, (begin, end) in zip(table["user_id"].filter(first).to_pylist(), pairwise(bounds), strict=True):
        if only is None or user in only:
            yield Past(user, at[begin:end], until[begin:end], values, begin, still[begin:end])


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each value, null included."""
    return np.asarray(column.combine_chunks().dictionary_encode(null_encoding="encode").indices)


def _int64(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.asarray(column.cast(pa.int64()))


def _there(begins_us: int, ends_us: int | None, at_us: int) -> bool:
    return begins_us <= at_us and (ends_us is None or ends_us > at_us)


def _hash(user: str) -> bytes:
    return hashlib.blake2b(user.encode(), digest_size=8).digest()


def lived(rules: Rules, user: str, rows: Sequence[Row], at_us: int, judge: Judge = unjudged) -> Life | None:
    """A person's life under rules, up to `at_us`; None: there was no such person then."""
    if not rows or not _there(rows[0][0], rows[-1][2], at_us):
        return None
    folded = fold(rules, rows, at_us, judge=judge)
    held = folded.state.held
    return Life(user, rows[0][0], at_us, folded.moves, tuple(n for n in rules.segments if n in held))


def judging(model: Model, domain: Domain) -> Judge:
    """The model's score and segment at a change point; people for whom the outcome has happened are not scored.

    Raises (when it is asked):
        decide.ModelFault: the model cannot score the row.
    """
    elapsed, label = {e.name: e.of for e in domain.elapsed}, domain.label

    def judge(at_us: int, values: Mapping[str, Value]) -> tuple[float | None, str | None]:
        if label.done and (values[label.done] or 0) > 0:  # type: ignore[operator]
            return None, label.done_segment
        whole = {name: elapsed_seconds(at_us, values[of]) for name, of in elapsed.items()} | dict(values)
        score, segment, _ = scored(model, whole)
        return score, segment

    return judge
