"""Says when the data are of the past: nobody has had an event for longer than the domain's onboarding horizon lasts.

A service over a data set of 2014 decides as if every user had left years ago, unless its clock starts in 2014 too.

the lake's newest event (when it has new ones) ─┐
events that this process accepts ───────────────┴► newest ─► older than the horizon? ─► a reason in decisions, a warning
"""

import logging
import threading
import time
from collections.abc import Iterable

from feature_repo.contract.events import Event
from feature_repo.lake.lake import Lake
from serving.times import rfc3339

DAY_US = 86_400_000_000
CHECK_S = 30.0
"""How often the lake is asked for newer events while the data are of the past."""
_log = logging.getLogger("bentoml.serve.firstmile")


class PastData:
    """Knows the newest event of all users. Safe from several threads.

    horizon_us: how long a user's onboarding lasts, µs.
    """

    def __init__(self, lake: str, horizon_us: int, check_s: float = CHECK_S) -> None:
        self._lake, self._horizon_us, self._check_s = lake, horizon_us, check_s
        self._newest_us: int | None = None
        self._position = 0
        self._checked_s = time.monotonic()
        self._warned = False
        self._lock, self._checking = threading.Lock(), threading.Lock()

    def start(self, now_us: int) -> "PastData":
        """Read the lake's newest event, and warn where it is too old; returns itself."""
        self.check()
        self.reason(now_us)
        return self

    def see(self, events: Iterable[Event]) -> None:
        """These events were accepted; one whose clock was ahead counts from when it was received."""
        newest = max((min(e.ts_us, e.received_us) for e in events), default=None)
        with self._lock:
            if newest is not None and (self._newest_us is None or newest > self._newest_us):
                self._newest_us = newest

    def check(self) -> None:
        """Read the newest event from the lake, if it has new ones; what cannot be read is logged and tried again."""
        with self._checking:
            try:
                self._read()
            except Exception as e:  # decisions go on without this reason
                _log.warning("the newest event cannot be read from %s: %s: %s", self._lake, type(e).__name__, e)
            self._checked_s = time.monotonic()

    def reason(self, now_us: int) -> str | None:
        """What to say in a decision at `now_us`; None where the newest event is within the horizon, or there is none.

        Logs a warning when that begins, and a line when it ends. Takes no time: a check runs beside it.
        """
        newest = self._newest_us
        if newest is None or now_us - newest <= self._horizon_us:
            if self._warned:
                self._warned = False
                _log.warning("an event of %s has come: the data are no longer of the past", rfc3339(newest or 0))
            return None
        if time.monotonic() - self._checked_s > self._check_s and not self._checking.locked():
            threading.Thread(target=self.check, name="newest event", daemon=True).start()
        said = (
            f"data of the past: the newest event of all users is of {rfc3339(newest)}, "
            f"{(now_us - newest) // DAY_US} days ago, and an onboarding lasts {self._horizon_us // DAY_US}"
        )
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s: every user is scored as long gone. Send events, or start the service's clock in the time of the "
                "data: FIRSTMILE_NOW=%s",
                said,
                rfc3339(newest),
            )
        return said

    def _read(self) -> None:
        import ibis

        lake = Lake(self._lake)
        position = lake.last_position()
        if position == self._position:
            return
        con = ibis.duckdb.connect()
        try:
            events = lake.events(con)
            newest = events.aggregate(at=ibis.least(events.ts_us, events.received_us).max()).to_pyarrow()
        finally:
            con.disconnect()
        self._position = position
        at_us = newest["at"][0].as_py()
        with self._lock:
            if at_us is not None and (self._newest_us is None or at_us > self._newest_us):
                self._newest_us = at_us
