"""The history on this machine, in one SQLite file: one process at a time, with an object for each thread."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from feature_repo.contract.events import ANONYMOUS
from feature_repo.history import arrivals
from feature_repo.history.arrivals import Changes, Users
from feature_repo.history.history_store import CHANGED, NEVER, Added, Checkpoint, Row, Version, Written
from feature_repo.sqlite import Transaction

T = TypeVar("T")
LAYOUT = 3
"""Of the tables. A file of another one is emptied: the lake has it all."""
AT_ONCE = 1_000
"""Rows that come out of the lake, go behind a checkpoint, or come back, in one transaction: others write in between."""

_ROW = """sender TEXT NOT NULL, message_id TEXT NOT NULL, position INTEGER NOT NULL, type TEXT NOT NULL, name TEXT,
    user_id TEXT, anonymous_id TEXT, ts_us INTEGER NOT NULL, received_us INTEGER NOT NULL, properties TEXT NOT NULL,
    traits TEXT NOT NULL, context TEXT NOT NULL, content_hash TEXT NOT NULL"""
_TABLES = f"""
CREATE TABLE IF NOT EXISTS events ({_ROW}, PRIMARY KEY (sender, message_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS past ({_ROW}, PRIMARY KEY (sender, message_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrived ({_ROW}, PRIMARY KEY (position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS senders (sender TEXT PRIMARY KEY, first_us INTEGER NOT NULL, change INTEGER NOT NULL,
    rewritten INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS edges (anonymous_id TEXT, user_id TEXT, first_us INTEGER NOT NULL,
    trusted INTEGER NOT NULL, PRIMARY KEY (anonymous_id, user_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS edges_of_user ON edges (user_id);
CREATE TABLE IF NOT EXISTS elsewhere (sender TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (person TEXT PRIMARY KEY, event_us INTEGER NOT NULL, due_us INTEGER,
    touched INTEGER NOT NULL DEFAULT 0, slow INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due ON written (slow, due_us) WHERE due_us IS NOT NULL;
CREATE TABLE IF NOT EXISTS checkpoints (person TEXT PRIMARY KEY, through_us INTEGER NOT NULL, base TEXT NOT NULL,
    state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aside (person TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reached (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL,
    changes INTEGER NOT NULL);
INSERT OR IGNORE INTO reached VALUES (1, 0, 0);
"""
HOLDS, MOVING, BROKEN = "holds", "moving", "broken"
"""States of a checkpoint. Moving: its events are on their way behind it."""
_COLUMNS = ", ".join(Row._fields)
_MARKS = ", ".join("?" * len(Row._fields))
_AMONG = "(SELECT value FROM json_each(?))"
_MAKE_DUE = f"""INSERT INTO written (person, event_us, due_us, touched) VALUES (?, {NEVER}, 0, ?)
    ON CONFLICT DO UPDATE SET due_us = 0, touched = excluded.touched"""
_CHANGE = "UPDATE reached SET changes = changes + 1 RETURNING changes"
_SENDERS = """INSERT INTO senders VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO UPDATE SET
    first_us = min(first_us, excluded.first_us), change = ?3, rewritten = iif(?4, ?3, rewritten)"""
_EDGES = """INSERT INTO edges VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    first_us = min(first_us, excluded.first_us), trusted = max(trusted, excluded.trusted)"""
_DEFER = f"""INSERT INTO written (person, event_us, due_us, slow) VALUES (?, {NEVER}, ?, 1)
    ON CONFLICT DO UPDATE SET due_us = iif(due_us < excluded.due_us, due_us, excluded.due_us), slow = 1"""
_NOTE = """INSERT INTO written (person, event_us, due_us) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET
    event_us = max(event_us, excluded.event_us), slow = 0,
    due_us = iif(touched > ? OR event_us > excluded.event_us, 0, excluded.due_us)"""
_ASIDE = "UPDATE written SET due_us = NULL, slow = 0 WHERE person = ? AND touched <= ?"
_GONE = f"UPDATE written SET event_us = {NEVER}, due_us = NULL, slow = 0 WHERE person = ? AND touched <= ?"


class SqliteHistory:
    """A HistoryStore (see there) in one file. An object is for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -65536"):
            self._db.execute(f"PRAGMA {setting}")
        if self._db.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:  # made anew out of the lake
            for (table,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._db.execute(f'DROP TABLE "{table}"')
            self._db.execute(f"PRAGMA user_version = {LAYOUT}")
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reader(self) -> Self:
        """A further object on the same file."""
        return type(self)(self.path)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def position(self) -> int:
        """The log position up to which every event is in here."""
        return int(self._db.execute("SELECT position FROM reached").fetchone()[0])

    def add(self, rows: Sequence[Row]) -> Added:
        """Keep those rows that count, in one transaction; see HistoryStore."""
        with Transaction(self._db):
            copies = self._copies(row.key for row in rows)
            given = {row.key for row in rows if row.position == 0}
            rows = arrivals.numbered(rows, self.position(), copies)
            changed = arrivals.changes(rows, copies)
            before = {s: v.change for s, v in self.versions({row.sender for row in changed.kept}).items()}
            change = self._insert(changed)
            users = self._users(arrivals.hands((*changed.kept, *changed.replaced)))
            touched = arrivals.touched(changed, users)
            self._break(changed, touched, users)
            if rows:
                last = max(row.position for row in rows)
                self._db.executemany(_MAKE_DUE, [(person, last) for person in touched])
                self._reach(last)
            self._db.executemany(f"INSERT INTO arrived VALUES ({_MARKS})", [row for row in rows if row.key in given])
        return Added(changed.new, {row.sender for row in changed.replaced}, touched, before, change)

    def keep(self, rows: Sequence[Row], position: int = 0) -> None:
        """Take rows in without making anybody due, in one transaction."""
        with Transaction(self._db):
            self._insert(arrivals.changes(rows, self._copies(row.key for row in rows)), rewrites=True)
            self._reach(position)

    def _reach(self, position: int) -> None:
        self._db.execute("UPDATE reached SET position = max(position, ?)", (position,))

    def _insert(self, changed: Changes, rewrites: bool = False) -> int:
        """Write the rows kept; returns the number of this change. rewrites: they are more than new events."""
        rows, again = changed.kept, {row.sender for row in changed.replaced}
        change: int = self._db.execute(_CHANGE if rows else "SELECT changes FROM reached").fetchone()[0]
        self._db.executemany(f"INSERT OR REPLACE INTO events VALUES ({_MARKS})", rows)
        steps = [(row.sender, row.ts_us, change, rewrites or row.sender in again) for row in rows]
        self._db.executemany(_SENDERS, steps)
        self._db.executemany(_EDGES, [(*row.edge, row.ts_us, row.trusted) for row in rows if row.edge])
        return change

    def _copies(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        query = " UNION ALL ".join(
            f"SELECT {_COLUMNS} FROM {t} WHERE sender = ?1 AND message_id = ?2" for t in ("events", "past")
        )
        found = (self._db.execute(query, key).fetchone() for key in dict.fromkeys(keys))
        return {(row[0], row[1]): Row(*row) for row in found if row}

    def _users(self, hands: Iterable[str]) -> Users:
        found: dict[str, dict[str, int]] = {}
        query = f"SELECT anonymous_id, user_id, first_us FROM edges WHERE anonymous_id IN {_AMONG}"
        for anonymous, user, first_us in self._among(query, hands):
            found.setdefault(anonymous, {})[user] = first_us
        return found

    def _among(self, query: str, names: Iterable[str]) -> sqlite3.Cursor:
        """The rows of a query with one `?`, the names as a JSON list."""
        return self._db.execute(query, (msgspec.json.encode(list(names)).decode(),))

    def _break(self, changed: Changes, touched: set[str], users: Users) -> None:
        query = f"SELECT person, through_us FROM checkpoints WHERE person IN {_AMONG}"
        if through_us := dict(self._among(query, touched)):
            senders = [f"{ANONYMOUS}{a}" for a in users]
            first_us = dict(self._among(f"SELECT sender, first_us FROM senders WHERE sender IN {_AMONG}", senders))
            first_us |= dict.fromkeys(self.left(senders), NEVER)
            broken = arrivals.broken(changed, through_us, users, first_us)
            self._among(f"UPDATE checkpoints SET state = '{BROKEN}' WHERE person IN {_AMONG}", broken)

    def arrived(self, most: int) -> list[Row]:
        """Those that were given a position here, in the order of positions."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM arrived ORDER BY position LIMIT ?", (most,))
        return [Row(*row) for row in found]

    def passed_on(self, through: int) -> None:
        """Somebody else has those up to this position now."""
        self._db.execute("DELETE FROM arrived WHERE position <= ?", (through,))

    def senders_of(self, persons: Iterable[str]) -> set[str]:
        """The senders whose events these persons' features can need: their own, their hands', who shares them."""
        persons = set(persons)
        hands = {a for (a,) in self._among(f"SELECT anonymous_id FROM edges WHERE user_id IN {_AMONG}", persons)}
        hands |= {p.removeprefix(ANONYMOUS) for p in persons if p.startswith(ANONYMOUS)}
        return persons.union((f"{ANONYMOUS}{a}" for a in hands), *self._users(hands).values())

    def aliases(self, person: str, trusted: bool = False) -> list[str]:
        """The anonymous ids that were ever said to be this person's; or only by events that can be trusted in it."""
        query = "SELECT anonymous_id FROM edges WHERE user_id = ? AND trusted >= ?"
        return [a for (a,) in self._db.execute(query, (person, trusted))]

    def events(self, senders: Iterable[str], after: int = 0) -> list[Row]:
        """The events of these senders with a position after that one which are not folded, in no order."""
        query = f"SELECT {_COLUMNS} FROM events WHERE sender IN {_AMONG} AND position > {int(after)}"
        return [Row(*found) for found in self._among(query, senders)]

    def heavy(self, senders: Iterable[str], than: int, folded: bool = False) -> set[str]:
        """Those of these senders who have more events than that which are not folded, or, if asked, which are."""
        query = f"SELECT count(*) FROM (SELECT 1 FROM {'past' if folded else 'events'} WHERE sender = ? LIMIT ?)"
        return {s for s in senders if self._db.execute(query, (s, than + 1)).fetchone()[0] > than}

    def versions(self, senders: Iterable[str]) -> dict[str, Version]:
        """Of each sender the numbers of the last changes to what `events` gives."""
        senders = list(senders)
        found = self._among(f"SELECT sender, change, rewritten FROM senders WHERE sender IN {_AMONG}", senders)
        return dict.fromkeys(senders, Version(0, 0)) | {sender: Version(*numbers) for sender, *numbers in found}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What this object reads inside is of one moment."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def known(self, keys: Sequence[tuple[str, str]]) -> list[Row | None]:
        """For each (sender, message id) the copy of that message that counts; None: there is none here."""
        found = self._copies(keys)
        return [found.get(key) for key in keys]

    def leave(self, senders: Iterable[str]) -> None:
        """These senders' past stays in the lake until somebody is touched who needs it."""
        senders = list(senders)
        with Transaction(self._db):
            change = self._db.execute(_CHANGE).fetchone()[0]
            for table in ("events", "past"):
                self._among(f"DELETE FROM {table} WHERE sender IN {_AMONG}", senders)
            self._among(f"DELETE FROM checkpoints WHERE person IN {_AMONG}", senders)
            changed = f"UPDATE senders SET change = {change}, rewritten = {change} WHERE sender IN {_AMONG}"
            self._among(changed, senders)
            self._db.executemany("INSERT OR IGNORE INTO elsewhere VALUES (?)", ((s,) for s in senders))

    def left(self, senders: Iterable[str]) -> set[str]:
        """Those of these senders whose past is in the lake."""
        return {s for (s,) in self._among(f"SELECT sender FROM elsewhere WHERE sender IN {_AMONG}", senders)}

    def fetched(self, senders: Iterable[str], rows: Sequence[Row]) -> None:
        """This is their past out of the lake."""
        for some in _pieces(rows):
            self.keep(some)
        self._among(f"DELETE FROM elsewhere WHERE sender IN {_AMONG}", senders)

    def claim(self, at_us: int, most: int, slow: bool = False) -> list[str]:
        """Whose rows of a lane are due by a time, the longest due first. Each lane has one worker here: no leases."""
        query = "SELECT person FROM written WHERE slow = ? AND due_us <= ? ORDER BY due_us LIMIT ?"
        return [person for (person,) in self._db.execute(query, (slow, at_us, most))]

    def waiting(self, at_us: int) -> int:
        """How many people's rows are due by a time, in both lanes."""
        return int(self._db.execute("SELECT count(*) FROM written WHERE due_us <= ?", (at_us,)).fetchone()[0])

    def unsettled(self, person: str, at_us: int = CHANGED) -> bool:
        """Whether this person's row is due by a time; by itself: whether it lacks something of the history."""
        query = "SELECT 1 FROM written WHERE person = ? AND due_us <= ?"
        return self._db.execute(query, (person, at_us)).fetchone() is not None

    def defer(self, persons: Iterable[str], since_us: int = CHANGED) -> None:
        """These persons are due, in the slow lane, since then or as long as they were."""
        with Transaction(self._db):
            self._db.executemany(_DEFER, [(person, since_us) for person in persons])

    def deferred(self) -> set[str]:
        """Who is due in the slow lane because their past has changed, not by time."""
        return {p for (p,) in self._db.execute("SELECT person FROM written WHERE slow = 1 AND due_us <= 0")}

    def written(self, persons: Iterable[str]) -> dict[str, Written]:
        """What was last written of those persons of whom anything was, or who are due."""
        known = f"(event_us > {NEVER} OR due_us IS NOT NULL)"
        query = f"SELECT person, event_us, due_us FROM written WHERE {known} AND person IN {_AMONG}"
        return {p: Written(*rest) for p, *rest in self._among(query, persons)}

    def note(self, written: Mapping[str, Written | None], by: int) -> None:
        """What has now been written; those touched after position `by` stay due."""
        with Transaction(self._db):
            gone = [(person, by) for person, what in written.items() if what is None]
            self._db.executemany(_GONE, gone)
            self._db.executemany(_NOTE, [(p, *what, by) for p, what in written.items() if what is not None])
            self._among(f"DELETE FROM aside WHERE person IN {_AMONG}", written)

    def set_aside(self, reasons: Mapping[str, str], by: int) -> None:
        """The rows of these users, as known at a position, cannot be computed, for a reason each."""
        with Transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO aside VALUES (?, ?)", reasons.items())
            self._db.executemany(_ASIDE, [(person, by) for person in reasons])

    def aside(self) -> dict[str, str]:
        """The users who are set aside, each with the reason."""
        return dict(self._db.execute("SELECT person, reason FROM aside ORDER BY person").fetchall())

    def checkpoints(self, persons: Iterable[str]) -> dict[str, Checkpoint]:
        """The checkpoints of those of these persons who have one."""
        query = f"SELECT person, through_us, base, state FROM checkpoints WHERE person IN {_AMONG}"
        found = self._among(query, persons)
        return {p: Checkpoint(through, tuple(json.loads(base)), state != HOLDS) for p, through, base, state in found}

    def fold(self, person: str, checkpoint: Checkpoint, message_ids: Sequence[str], by: int) -> bool:
        """Put these events of the sender `person` behind a checkpoint."""
        made = (checkpoint.through_us, json.dumps(checkpoint.base), MOVING)
        with Transaction(self._db):
            if self._outdated(person, message_ids[:AT_ONCE], by):
                return False
            self._db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", (person, *made))
        for some in (*_pieces(message_ids), []):
            if not self._fold_some(person, made, some):
                break
        return True

    def _fold_some(self, person: str, made: tuple[int, str, str], message_ids: Sequence[str]) -> bool:
        """Move these behind a checkpoint; none: that was all. Whether the checkpoint is still that one."""
        with Transaction(self._db):
            if self._checkpoint(person) != made:
                return False
            if message_ids:
                self._move("events", "past", person, message_ids)
            else:
                self._db.execute(f"UPDATE checkpoints SET state = '{HOLDS}' WHERE person = ?", (person,))
            return True

    def _checkpoint(self, person: str) -> tuple[int, str, str] | None:
        found = self._db.execute("SELECT through_us, base, state FROM checkpoints WHERE person = ?", (person,))
        return found.fetchone()

    def _outdated(self, person: str, message_ids: Sequence[str], by: int) -> bool:
        """Whether anything has come between what was known at a position and folding these events."""
        moved = f"(SELECT count(*) FROM events WHERE sender = ?1 AND message_id IN {_AMONG.replace('?', '?3')}) < ?4"
        query = f"""SELECT EXISTS (SELECT 1 FROM written WHERE person = ?1 AND touched > ?2) OR {moved}
            OR EXISTS (SELECT 1 FROM checkpoints WHERE person = ?1 AND state != '{HOLDS}')"""
        asked = (person, by, json.dumps(message_ids), len(set(message_ids)))
        return bool(self._db.execute(query, asked).fetchone()[0])

    def unfold(self, persons: Iterable[str]) -> None:
        """Take the checkpoints of these persons back."""
        persons = list(persons)
        self._among(f"UPDATE checkpoints SET state = '{BROKEN}' WHERE person IN {_AMONG}", persons)
        for person in persons:
            began_s = time.monotonic()
            while self._unfold_some(person):
                time.sleep(time.monotonic() - began_s)
                began_s = time.monotonic()

    def _unfold_some(self, person: str) -> bool:
        """Whether there is more to take back."""
        some = f"SELECT message_id FROM past WHERE sender = ? LIMIT {AT_ONCE}"
        with Transaction(self._db):
            if (held := self._checkpoint(person)) is None or held[2] != BROKEN:
                return False
            if ids := [m for (m,) in self._db.execute(some, (person,))]:
                self._move("past", "events", person, ids)
            else:
                self._db.execute("DELETE FROM checkpoints WHERE person = ?", (person,))
            return bool(ids)

    def _move(self, source: str, target: str, sender: str, message_ids: Sequence[str]) -> None:
        """A better copy that has arrived in the target meanwhile stays."""
        of = f"FROM {source} WHERE sender = ? AND message_id IN {_AMONG}"
        ids = (sender, json.dumps(message_ids))
        self._db.execute(f"INSERT OR IGNORE INTO {target} SELECT {_COLUMNS} {of}", ids)
        self._db.execute(f"DELETE {of}", ids)
        change = self._db.execute(_CHANGE).fetchone()[0]
        changed = "UPDATE senders SET change = ?1, rewritten = ?1 WHERE sender = ?2"
        self._db.execute(changed, (change, sender))

    def erase(self, senders: Iterable[str]) -> int:
        """Forget these senders: events, edges, due rows, checkpoints, what waits in `arrived`; how many events."""
        names = list(senders)
        hands = [n.removeprefix(ANONYMOUS) for n in names if n.startswith(ANONYMOUS)]
        with Transaction(self._db):
            of = f"WHERE sender IN {_AMONG}"
            gone = sum(self._among(f"DELETE FROM {table} {of}", names).rowcount for table in ("events", "past"))
            for table in ("arrived", "senders", "elsewhere"):
                self._among(f"DELETE FROM {table} {of}", names)
            for table in ("written", "checkpoints", "aside"):
                self._among(f"DELETE FROM {table} WHERE person IN {_AMONG}", names)
            self._among(f"DELETE FROM edges WHERE user_id IN {_AMONG}", names)
            self._among(f"DELETE FROM edges WHERE anonymous_id IN {_AMONG}", hands)
        return gone


def _pieces(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    """A piece at a time, with a rest in between as long as the last one took."""
    for start in range(0, len(whole), AT_ONCE):
        began_s = time.monotonic()
        yield whole[start : start + AT_ONCE]
        if start + AT_ONCE < len(whole):
            time.sleep(time.monotonic() - began_s)
