"""All of the live part in one process, on files of this machine: what the service runs unless told otherwise.

accepted event ─► log.db (durable) ─► stream ─► history.db ─► online store
                        `─► the lake, in the order of positions, every so often and at the end
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

import pyarrow as pa

from feature_repo.contract.events import ANONYMOUS, Event
from feature_repo.erasing import erasure
from feature_repo.erasing.erasure import Plan
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.store import ensure_applied
from feature_repo.history.history_store import EDGES, HistoryStore, claims, has_message, open_history
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import AT_ONCE, drain, log_file
from feature_repo.lake.past import Past, fill
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.event_log import shard_key
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings, now_us
from feature_repo.stream.live import Held
from feature_repo.stream.processor import Processor
from feature_repo.stream.stream import Stream

DRAIN_S = 30.0
"""How often the lake gets what the log has."""
REST = 2.0
"""How much longer than it worked the slow lane rests while many are due: this process answers requests, too."""
_log = logging.getLogger(__name__)


class Embedded:
    """The log, the history and the stream of one domain's state folder, while this process runs.

    Raises:
        BusyError: another process runs them.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] = now_us) -> None:
        self.settings, self.erased = settings, Tombstones(settings.state)
        lake, path = Lake(settings.lake), log_file(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        ensure_applied(settings)
        drain(settings)
        self.history = open_history(settings)
        fill(self.history, settings, clock())
        quarantine = Quarantine(settings.quarantine)
        self.log = SqliteLog(path, lake.last_position() + 1, self.history.position(), on_poison=quarantine.poison)
        self.processor = Processor(settings, self.history, clock, Past(settings))
        self.stream = Stream(self.log, self.processor, polled=lambda: self.log.polled, rest=REST)
        self.pending = Pending(self.stream, self.history.reader(), self.log.last)
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

    @property
    def applied(self) -> int:
        """The log position up to which the online rows have every event of people who are not pending."""
        return self.stream.applied

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """The rows in force at a time, and the position up to which events are in them, see `Lanes.rows`."""
        return self.processor.rows(persons, at_us, patient)

    def on_written(self, told: Callable[[Sequence[str]], object]) -> None:
        """Call this with the persons whose rows have been written, each time."""
        self.processor.on_written = told

    @property
    def set_aside(self) -> Mapping[str, str]:
        """As `Live.set_aside`."""
        return self.processor.aside

    @property
    def sums_at_limit(self) -> int:
        """As `Live.sums_at_limit`."""
        return self.processor.saturated.count

    def lag(self) -> int:
        """Events accepted and not yet in the online rows, those of people in the slow lane left out."""
        return max(0, self.log.last - self.stream.applied)

    def settle(self) -> None:
        """Give the lake everything that was accepted, applied or not; raises TimeoutError."""
        erasure.settle(self)

    def erase(self, erasing: Plan) -> dict[str, int]:
        """Remove a person's events and have the others' rows written anew, see `erasure.erase_live`."""
        return erasure.erase_live(self, erasing)

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

    def __init__(self, stream: Stream, history: HistoryStore, floor: int) -> None:
        self.history = history
        self._stream, self._processor, self._floor = stream, stream.processor, floor
        self._until: dict[str, int] = {}
        self._copies: dict[tuple[str, str], int] = {}
        self._claims: dict[str, dict[str, int]] = {}
        self._newest, self._full = 0, AT_ONCE
        self._lock = threading.Lock()

    def note(self, events: Sequence[Event], appended: "Future[list[int] | None]") -> None:
        """These are durable, if the append succeeded."""
        if appended.cancelled() or appended.exception() is not None:
            return
        with self._lock:
            self._forget_applied()
            for event, position in zip(events, appended.result() or (), strict=True):
                self._copies[shard_key(event), event.message_id] = position
                self._claim(event, position)
                for key in (event.user_id, event.anonymous_id and f"{ANONYMOUS}{event.anonymous_id}"):
                    if key:
                        self._until[key] = position
                self._newest = position

    def _claim(self, event: Event, position: int) -> None:
        if event.type in EDGES and event.user_id is not None and event.anonymous_id is not None:
            self._claims.setdefault(event.anonymous_id, {})[event.user_id] = position

    def _forget_applied(self) -> None:
        """Once there is twice as much as was left the last time."""
        if len(self._copies) + len(self._until) < self._full:  # of claims there are no more than of copies
            return
        applied = self._stream.applied
        self._copies = {k: p for k, p in self._copies.items() if p > applied}
        self._until = {k: p for k, p in self._until.items() if p > applied}
        self._claims = {a: of for a, of in self._claims.items() if max(of.values()) > applied}
        self._full = max(AT_ONCE, 2 * (len(self._copies) + len(self._until)))

    def known(self, events: Sequence[Event]) -> list[Held | None]:
        """For each event the copy that was accepted before; which one counts is not known until all are applied."""
        keys = [(shard_key(e), e.message_id) for e in events]
        with self._lock:  # first: what is applied from here on is in the history when it is read
            applied = self._stream.applied
            waiting = {k for k in keys if self._copies.get(k, 0) > applied}
        rows = zip(keys, self.history.known(keys), strict=True)
        return [Held(None) if k in waiting else (Held(row) if row else None) for k, row in rows]

    def claims(self, anonymous_ids: Sequence[str]) -> dict[str, set[str]]:
        """The users whom accepted events have said each of these anonymous ids to be."""
        with self._lock:  # first: what is applied from here on is in the history when it is read
            applied = self._stream.applied
            waiting = {a: {u for u, p in self._claims.get(a, {}).items() if p > applied} for a in anonymous_ids}
        return {a: users | waiting[a] for a, users in claims(self.history, anonymous_ids).items()}

    def of(self, persons: Iterable[str], after: str | None = None) -> bool:
        """Whether the online row of any of these may lack an accepted event.

        after: a message id that the row has to have, of the first of them.
        """
        if after is not None and not has_message(self.history, next(iter(persons)), after):
            return True
        applied = self._stream.applied
        if applied < self._floor:
            return True
        with self._lock:
            if not self._until and not self._processor.slow:
                return False
            if applied >= self._newest and not self._processor.slow:
                self._until.clear()
                return False
            lacking = [person for person in persons if self._lacks(person)]
            self._processor.hurry(lacking)
            return bool(lacking)

    def due(self, person: str, at_us: int) -> bool:
        """Whether this person's row has changed by a time, and is not written yet."""
        return self.history.unsettled(person, at_us)

    def _lacks(self, person: str) -> bool:
        keys = [person, *(f"{ANONYMOUS}{a}" for a in self.history.aliases(person))]
        until = max(self._until.get(key, 0) for key in keys)
        return until > self._processor.reached or self._processor.behind(person)
