"""All of the live part in one process, on files of this machine: what the service runs unless told otherwise.

accepted event ─► log.db (durable) ─► stream ─► history.db ─► online store
                        `─► the lake, in the order of positions, every so often and at the end
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo import domains
from feature_repo.event_log import shard_key
from feature_repo.events import ANONYMOUS, Event
from feature_repo.history_store import EDGES, Row, SqliteHistory
from feature_repo.lake import Lake
from feature_repo.lake_sql import SENDER
from feature_repo.log_to_lake import AT_ONCE, drain, log_file
from feature_repo.settings import Settings, now_us
from feature_repo.sqlite_log import SqliteLog
from feature_repo.store import ensure_applied
from feature_repo.stream import Processor, Stream

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend
    from ibis.expr.types import Table

DRAIN_S = 30.0
"""How often the lake gets what the log has."""
MOST_FILLED = 250_000
"""Events of the lake that an empty history gets before the service is ready."""
_COLUMNS = ", ".join(Row._fields[1:])
_log = logging.getLogger(__name__)


class Embedded:
    """The log, the history and the stream of one domain's state folder, while this process runs.

    Raises:
        BusyError: another process runs them.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] = now_us) -> None:
        self.settings = settings
        ensure_applied(settings)
        lake, path = Lake(settings.lake), log_file(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        drain(settings)
        self.history = SqliteHistory(settings.state / "history.db", Past(settings))
        fill(self.history, settings, clock() - domains.load(settings.domain).horizon)
        self.log = SqliteLog(path, lake.last_position() + 1, self.history.position())
        self.processor = Processor(settings, self.history, clock)
        self.stream = Stream(self.log, self.processor)
        self.pending = Pending(self.stream, SqliteHistory(settings.state / "history.db", Past(settings)), self.log.last)
        self._stop = threading.Event()
        self._drainer = threading.Thread(target=self._drain, name="lake", daemon=True)

    def start(self) -> "Embedded":
        """Begin to process; returns itself."""
        self.stream.start()
        self._drainer.start()
        return self

    def append(self, events: Sequence[Event]) -> "Future[list[int] | None]":
        """As `EventLog.append`; by the time that the future is done, `pending` knows of the events."""
        future = self.log.append(events)
        future.add_done_callback(lambda done: self.pending.note(events, done))
        return future

    def close(self) -> None:
        """Finish what is under way, and give the lake what the log has."""
        self._stop.set()
        self.stream.close()
        if self._drainer.ident is not None:
            self._drainer.join()
        self.log.close()
        self.history.close()
        self.pending.history.close()
        drain(self.settings)

    def _drain(self) -> None:
        while not self._stop.wait(DRAIN_S):
            try:
                drain(self.settings)
                self.log.trim(min(self.stream.applied, Lake(self.settings.lake).last_position()))
            except Exception:  # the log keeps everything until it works again
                _log.exception("the lake does not get what the log has; trying again in %d s", DRAIN_S)


class Pending:
    """Who has events that are accepted and cannot be seen online yet. Safe from several threads.

    floor: the log position up to which everybody's may be pending: what an earlier process had accepted.
    """

    def __init__(self, stream: Stream, history: SqliteHistory, floor: int) -> None:
        self.history = history
        self._stream, self._floor = stream, floor
        self._until: dict[str, int] = {}
        self._copies: dict[tuple[str, str], int] = {}
        self._newest = 0
        self._lock = threading.Lock()

    def note(self, events: Sequence[Event], appended: "Future[list[int] | None]") -> None:
        """These are durable, if the append succeeded."""
        if appended.cancelled() or appended.exception() is not None:
            return
        with self._lock:
            if len(self._copies) > AT_ONCE:
                applied = self._stream.applied
                self._until = {k: p for k, p in self._until.items() if p > applied}
                self._copies = {k: p for k, p in self._copies.items() if p > applied}
            for event, position in zip(events, appended.result() or (), strict=True):
                self._copies[shard_key(event), event.message_id] = position
                for key in (event.user_id, event.anonymous_id and f"{ANONYMOUS}{event.anonymous_id}"):
                    if key:
                        self._until[key] = position
                self._newest = position

    def known(self, events: Sequence[Event]) -> list[bool]:
        """For each event whether a copy of it was accepted before."""
        keys = [(shard_key(e), e.message_id) for e in events]
        return [k in self._copies or there for k, there in zip(keys, self.history.known(keys), strict=True)]

    def of(self, persons: Iterable[str]) -> bool:
        """Whether the online row of any of these may lack an accepted event."""
        applied = self._stream.applied
        if applied < self._floor:
            return True
        with self._lock:
            if not self._until:
                return False
            if applied >= self._newest:
                self._until.clear()
                return False
            return any(self._until.get(key, 0) > applied for person in persons for key in self._keys(person))

    def _keys(self, person: str) -> list[str]:
        return [person, *(f"{ANONYMOUS}{a}" for a in self.history.aliases(person))]


class Past:
    """Reads events out of the lake for a history."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, senders: Sequence[str]) -> list[Row]:
        """Every event of these senders that the lake has, one copy of each."""
        with _lake(self._settings) as (con, lake):
            return [row for rows in _rows(con, _sql(lake.events(con, senders))) for row in rows]


def fill(history: SqliteHistory, settings: Settings, since_us: int) -> None:
    """Give a history what the lake has and it has not: events that came to the lake without the log, or all of them.

    An empty history gets everybody's identity edges, and the past of those who did something since a time (µs), unless
    that is too much to wait for. The others' stays in the lake until they are touched or asked for. Whom it gets is
    due, so that their rows are those of now.
    """
    with _lake(settings) as (con, lake):
        through, held = lake.last_position(), history.position()
        if through <= held:
            return
        if held:
            for rows in _rows(con, _sql(lake.new_since(con, held))):
                history.add(rows)
            return
        con.raw_sql(f"create temp view lake as select *, {SENDER} as sender from ({_sql(lake.events(con))})")
        con.raw_sql(f"""create temp table late as
            select sender, count(*) as events from lake group by sender having max(ts_us) >= {since_us}""")
        if con.raw_sql("select coalesce(sum(events), 0) from late").fetchone()[0] > MOST_FILLED:
            con.raw_sql("delete from late")
        edges = ", ".join(f"'{e}'" for e in EDGES)
        early = con.raw_sql("select distinct sender from lake anti join late using (sender)").fetchall()
        history.leave(sender for (sender,) in early)
        for rows in _rows(
            con,
            f"""select * exclude (sender) from lake anti join late using (sender)
                where type in ({edges}) and user_id is not null and anonymous_id is not null""",
        ):
            history.keep(rows, 0)
        for rows in _rows(con, "select * exclude (sender) from lake semi join late using (sender)"):
            history.add(rows)
        history.keep([], through)


@contextmanager
def _lake(settings: Settings) -> Iterator[tuple["Backend", Lake]]:
    import ibis

    con = ibis.duckdb.connect()
    try:
        yield con, Lake(settings.lake)
    finally:
        con.disconnect()


def _sql(table: "Table") -> str:
    import ibis

    return ibis.to_sql(table, dialect="duckdb")


def _rows(con: "Backend", query: str) -> Iterator[list[Row]]:
    """The rows of a query of SCHEMA's columns, in chunks."""
    found = con.con.execute(f"select {SENDER}, {_COLUMNS} from ({query})")
    while chunk := found.fetchmany(AT_ONCE):
        yield [Row(*values) for values in chunk]
