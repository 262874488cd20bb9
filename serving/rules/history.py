"""Rules over everybody's past: the offline feature rows, folded person by person.

files (one a bucket of people) -> [sort] -> person, change points -> [fold] -> life under each set of rules
"""

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.domain import Domain
from feature_repo.features.elapsed import elapsed_seconds
from serving.decide import Model, scored
from serving.rules.fold import Judge, Row, fold, unjudged
from serving.rules.guard import Life
from serving.rules.ruleset import Rules
from serving.values import Value

ORDER = ["user_id", "event_timestamp", "created"]
END = "valid_until_us"


class NoHistoryError(LookupError):
    """There are no feature rows to test rules on."""


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
        people = replace(self, columns=()).people()
        return set(heapq.nsmallest(number, (user for user, rows in people if there(rows, at_us)), key=_hash))

    def people(
        self, only: AbstractSet[str] | None = None, done: Callable[[int, int], None] = lambda files, of: None
    ) -> Iterator[tuple[str, list[Row]]]:
        """Each person with the change points. only: these people. done: told how many files of how many were read.

        Rows of equal values are one; of several rows of one moment the last one written counts. An anonymous person who
        became known ends there: then the last row ends.
        """
        files = self.files
        for number, file in enumerate(files, 1):
            table = pq.read_table(file, columns=[*ORDER, END, *self.columns]).sort_by([(c, "ascending") for c in ORDER])
            yield from self._of_file(table, only)
            done(number, len(files))

    def _of_file(self, table: pa.Table, only: AbstractSet[str] | None) -> Iterator[tuple[str, list[Row]]]:
        users = table["user_id"].to_pylist()
        moments = table["event_timestamp"].cast(pa.int64()).to_pylist()
        values = table.select(self.columns).to_pylist() if self.columns else [{} for _ in users]
        ends = table[END].to_pylist()
        begin = 0
        while begin < len(users):
            end = begin
            while end < len(users) and users[end] == users[begin]:
                end += 1
            if only is None or users[begin] in only:
                yield users[begin], _rows(moments[begin:end], values[begin:end], ends[end - 1])
            begin = end


def _rows(moments: Sequence[int], values: Sequence[Mapping[str, Value]], end_us: int | None) -> list[Row]:
    """Change points, each until the next, the last one until `end_us`: where something changed."""
    points: dict[int, Mapping[str, Value]] = dict(zip(moments, values, strict=True))
    changes: list[tuple[int, Mapping[str, Value]]] = []
    for at, row in points.items():
        if not changes or changes[-1][1] != row:
            changes.append((at, row))
    ends = [at for at, _ in changes[1:]]
    return [(at, row, until) for (at, row), until in zip(changes, [*ends, end_us], strict=True)]


def _hash(user: str) -> bytes:
    return hashlib.blake2b(user.encode(), digest_size=8).digest()


def there(rows: Sequence[Row], at_us: int) -> bool:
    """Whether this is somebody at `at_us`: seen by then, and not an anonymous person who has become known."""
    end_us = rows[-1][2] if rows else None
    return bool(rows) and rows[0][0] <= at_us and (end_us is None or end_us > at_us)


def lived(rules: Rules, user: str, rows: Sequence[Row], at_us: int, judge: Judge = unjudged) -> Life | None:
    """A person's life under rules, up to `at_us`; None: there was no such person then."""
    if not there(rows, at_us):
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
