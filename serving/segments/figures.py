"""The over-segmentation guard's figures of a journal: what the rules have done to the people who are followed.

people, changes by rules (those that stand) ─► [moves of each person] ─► guard.Figures
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from feature_repo.vocabulary import DAY
from serving.rules import Move, Rules
from serving.rules.guard import Figures, Life, add, nobody
from serving.segments.keeper import RULES

_STANDING = """
SELECT person, segment, entered, at_us, cause FROM changes c JOIN people USING (person)
WHERE source = ? AND at_us <= ? AND corrects IS NULL
    AND NOT EXISTS (SELECT 1 FROM changes b WHERE b.person = c.person AND b.corrects = c.seq)
ORDER BY person, at_us, entered, seq
"""


def read(file: Path, rules: Rules, at_us: int) -> Figures:
    """The figures of a journal by the segments of these rules as of a time, µs. A service may be writing the file.

    A person counts from the first of their changes on, and for a day at least: the journal does not know when their
    first row was, and who entered a segment an hour ago has not been in and out 24 times a day.

    Raises:
        sqlite3.OperationalError: there is no such file, or it cannot be read.
    """
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=10)) as db:
        db.execute("BEGIN")  # one snapshot, whoever writes meanwhile
        found = nobody(rules.segments)
        for life in _lives(db.execute(_STANDING, (RULES, at_us)), rules, at_us):
            add(found, life)
        found.people = int(db.execute("SELECT count(*) FROM people").fetchone()[0])
    return found


def _lives(rows: Iterable[tuple], rules: Rules, at_us: int) -> Iterator[Life]:
    for person, changes in groupby(rows, key=lambda row: row[0]):
        told = [Move(segment, bool(entered), at, cause) for _, segment, entered, at, cause in changes]
        moves, held = _moves([m for m in told if m.segment in rules.declared])
        if moves:
            yield Life(person, min(moves[0].at_us, at_us - DAY), at_us, moves, held)


def _moves(told: Sequence[Move]) -> tuple[list[Move], list[str]]:
    """What did change something, and what is held after it."""
    moves, held = list[Move](), dict[str, None]()
    for move in told:
        if move.entered != (move.segment in held):
            moves.append(move)
            if move.entered:
                held[move.segment] = None
            else:
                del held[move.segment]
    return moves, list(held)
