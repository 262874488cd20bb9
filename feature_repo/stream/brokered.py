"""The live part where a broker holds the log: events go there, and workers elsewhere apply them."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

import pyarrow as pa

from feature_repo.contract.events import Event
from feature_repo.erasing.erasure import Plan, erase_lake
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.store import ensure_applied
from feature_repo.history.history_store import HistoryStore, claims, has_message, open_history
from feature_repo.lake.log_to_lake import drain
from feature_repo.lake.past import Past
from feature_repo.log.event_log import Busy, EventLog, open_log, shard_key
from feature_repo.settings import Settings
from feature_repo.stream.live import Held
from feature_repo.stream.processor import forget
from feature_repo.stream.slow_lane import Lanes

AGAIN_S = 3.0
"""How long to wait before the broker is tried again."""
LEASE_S = 6.0
"""For how long a worker may go on with somebody whom it has in hand."""
LAG_S = 5.0
"""How often the broker is asked at most how much waits in it."""
LOOK_S, PATIENCE_S = 0.25, 60.0
"""How often it is looked whose events are applied, and for how long each is waited for."""
AT_ONCE = 2_000
_log = logging.getLogger(__name__)


class Brokered:
    """A Live (see there) that reads what the workers have written."""

    applied = 0

    def __init__(self, settings: Settings) -> None:
        ensure_applied(settings)
        self.settings, self.erased = settings, Tombstones(settings.state)
        self._log: EventLog | None = None
        self._closed = threading.Event()
        self._opening = threading.Thread(target=self._open, name="event log", daemon=True)
        self._opening.start()
        self.history = open_history(settings)
        self.pending = Behind(self.history)
        self._lanes = Lanes(settings.domain, self.history.reader(), Past(settings))
        self._applied: Applied | None = None
        self._lag: int | None = None
        self._asked_s, self._asking = -LAG_S, threading.Lock()

    def append(self, events: Sequence[Event]) -> "Future[list[int] | None]":
        """As `EventLog.append`."""
        if self._log is None:
            raise Busy("the broker does not answer", AGAIN_S)
        appended = self._log.append(events)
        if (applied := self._applied) is not None:
            appended.add_done_callback(lambda done: applied.await_(events, done))
        return appended

    def _open(self) -> None:
        """Connect, again and again: decisions go on meanwhile."""
        while self._log is None and not self._closed.is_set():
            try:
                self._log = open_log(self.settings.broker)
            except Exception as e:
                _log.warning("the broker cannot be reached; trying again in %g s: %s", AGAIN_S, e)
                self._closed.wait(AGAIN_S)

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """The rows in force at a time, and the position up to which events are in them, see `Lanes.rows`."""
        return self._lanes.rows(persons, at_us, patient)

    def on_written(self, told: Callable[[Sequence[str]], object]) -> None:
        """Call this with the persons whose rows the workers have written for events that were accepted here."""
        self._applied = Applied(self.history.reader(), told)

    def settle(self) -> None:
        """Give the lake what was applied; what is still in the broker is refused by the workers."""
        drain(self.settings)

    def erase(self, erasing: Plan) -> dict[str, int]:
        """Remove a person's events, and have the workers write the others' rows anew.

        Twice: a worker may have had the person in hand.
        """
        found = {"lake": erase_lake(self.settings, erasing)}
        found["history"] = forget(self.history, erasing.senders, erasing.again, erasing.touched)
        self._closed.wait(LEASE_S)
        drain(self.settings)
        erase_lake(self.settings, erasing)
        forget(self.history, erasing.senders, erasing.again, erasing.touched)
        return found

    sums_at_limit = None

    @property
    def set_aside(self) -> Mapping[str, str]:
        """As the workers had it some seconds ago."""
        return self._applied.set_aside if self._applied is not None else {}

    def lag(self) -> int | None:
        """Events in the broker that no worker has acked, when it was last asked; asking goes on in the background."""
        if time.monotonic() - self._asked_s >= LAG_S and self._asking.acquire(blocking=False):
            self._asked_s = time.monotonic()
            threading.Thread(target=self._ask, name="lag", daemon=True).start()
        return self._lag

    def _ask(self) -> None:
        try:
            self._lag = self._log.lag() if self._log is not None else None
        except Exception as e:
            self._lag = None
            _log.warning("the broker does not say how much waits in it: %s", e)
        finally:
            self._asking.release()

    def close(self) -> None:
        """Write what waits, let go of connections."""
        self._closed.set()
        self._opening.join()
        if self._applied is not None:
            self._applied.close()
        if self._log is not None:
            self._log.close()
        self._lanes.close()
        self._lanes.quick.store.close()
        self.history.close()


class Applied:
    """Looks when events that were accepted here are in their persons' rows, and tells. A thread of its own.

    set_aside: the users whose rows cannot be computed, each with the reason, as of the last look.
    """

    def __init__(self, history: HistoryStore, told: Callable[[Sequence[str]], object]) -> None:
        self._history, self._told = history, told
        self.set_aside: Mapping[str, str] = {}
        self._asked_s = -LAG_S
        self._waiting: dict[tuple[str, str], float] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="applied", daemon=True)
        self._thread.start()

    def await_(self, events: Sequence[Event], appended: "Future[list[int] | None]") -> None:
        """These are accepted, if the append succeeded."""
        if not appended.cancelled() and appended.exception() is None:
            until = time.monotonic() + PATIENCE_S
            with self._lock:
                self._waiting |= {(shard_key(e), e.message_id): until for e in events}

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()
        self._history.close()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self._look()
            except Exception as e:
                _log.warning("it cannot be told whose events are applied: %s", e)
                self._stop.wait(AGAIN_S)

    def _look(self) -> None:
        if time.monotonic() - self._asked_s >= LAG_S:
            self.set_aside, self._asked_s = self._history.aside(), time.monotonic()
        with self._lock:
            keys = list(self._waiting)[:AT_ONCE]
        known = [k for k, there in zip(keys, self._history.known(keys), strict=True) if there] if keys else []
        done = [k for k in known if not self._history.unsettled(k[0])]
        if done:
            self._told(list(dict.fromkeys(sender for sender, _ in done)))
        over = time.monotonic()
        with self._lock:
            for key in [*done, *(k for k in keys if self._waiting[k] < over)]:
                self._waiting.pop(key, None)


class Behind:
    """What the history says of accepted events; what is in the broker only is not known here."""

    def __init__(self, history: HistoryStore) -> None:
        self.history = history

    def of(self, persons: Iterable[str], after: str | None = None) -> bool:
        """Whether a message that the caller names is not in the first person's row yet; without one: no."""
        if after is None:
            return False
        person = next(iter(persons))
        return not has_message(self.history, person, after) or self.history.unsettled(person)

    def due(self, person: str, at_us: int) -> bool:
        """Not known without asking."""
        return False

    def known(self, events: Sequence[Event]) -> list[Held | None]:
        """For each event the copy that was applied before."""
        rows = self.history.known([(shard_key(e), e.message_id) for e in events])
        return [Held(row) if row else None for row in rows]

    def claims(self, anonymous_ids: Sequence[str]) -> dict[str, set[str]]:
        """The users whom events that are applied have said each of these anonymous ids to be."""
        return claims(self.history, anonymous_ids)
