"""What every channel does: read the journal after its cursor, deliver, advance the cursor.

cursor ─► journal.after ─► wanted ─► deliver ──► advance       at least once, in order, also after a kill
                              ▲         └ failed ─► wait ─┐
                              └───────────────────────────┘   read anew: who is erased meanwhile is not told of
"""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from serving.segments.journal import Change, Journal

FIRST_S, LONGEST_S = 1.0, 600.0
FAULT_S = 5.0
"""How long it waits where the journal itself fails."""
_log = logging.getLogger("bentoml.serve.firstmile")


class Suspended(Exception):
    """Nothing is delivered until somebody has done something; it is looked again after `recheck_s` seconds."""

    def __init__(self, why: str, recheck_s: float) -> None:
        super().__init__(why)
        self.recheck_s = recheck_s


class Destination(Protocol):
    """Where a channel leads.

    name: of its cursor; stays the same over restarts. most: how many changes it takes at once.
    """

    name: str
    most: int

    def wants(self, change: Change) -> bool:
        """Whether it is told of this one."""
        ...

    def deliver(self, changes: Sequence[Change]) -> None:
        """Tell of these; returns once they have been taken.

        Raises:
            Suspended: see there. Exception: they may not have been taken.
        """
        ...

    def failed(self, changes: Sequence[Change], error: Exception, tries: int) -> float | None:
        """After `tries` failures in a row: seconds until they are tried again; null: they are put aside for good."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Channel:
    """Follows the journal in a thread of its own. A new one begins with what comes after now."""

    def __init__(self, journal: Journal, to: Destination) -> None:
        self.name, self._journal, self._to = to.name, journal, to
        self._tries, self._trying = 0, 0
        self._woken, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"channel {to.name}", daemon=True)
        found = journal.cursor(to.name)
        self.cursor = journal.last() if found is None else found
        if found is None:
            journal.advance(to.name, self.cursor)

    def start(self) -> "Channel":
        """Begin; returns itself."""
        self._thread.start()
        return self

    def wake(self) -> None:
        """There is something new; from any thread, waits for nobody."""
        self._woken.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()
        self._woken.set()

    def close(self, wait_s: float = 5.0) -> None:
        """End; a delivery that takes longer is left alone, and comes again after the next start."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        self._to.close()

    def step(self) -> float | None:
        """One round; seconds until the next one, null: when there is something new."""
        changes = self._journal.after(self.cursor, self._to.most)
        if not changes:
            return None
        wanted = [c for c in changes if self._to.wants(c)]
        if wanted and (wait_s := self._deliver(wanted)) is not None:
            return wait_s
        self._journal.advance(self.name, changes[-1].seq)
        self.cursor = changes[-1].seq
        return 0.0

    def _deliver(self, wanted: list[Change]) -> float | None:
        """Seconds until these are tried again; null: they are done with."""
        if self._trying != wanted[0].seq:
            self._trying, self._tries = wanted[0].seq, 0
        try:
            self._to.deliver(wanted)
        except Suspended as e:
            return e.recheck_s
        except Exception as e:
            if self._stop.is_set():  # its connection may have been taken away
                return FAULT_S
            self._tries += 1
            if self._tries == 1:
                _log.warning("%s: change %d was not taken: %s", self.name, wanted[0].seq, e)
            return self._to.failed(wanted, e, self._tries)
        return None

    def _run(self) -> None:
        while not self._stop.is_set():
            self._woken.clear()
            try:
                wait_s = self.step()
            except Exception:
                if self._stop.is_set():
                    return
                _log.exception("%s: the journal cannot be followed; trying again", self.name)
                wait_s = FAULT_S
            if wait_s is None:
                self._stop.is_set() or self._woken.wait()
            elif wait_s > 0:
                self._stop.wait(wait_s)


def backoff_s(tries: int, draw: float) -> float:
    """Seconds to wait after so many failures: doubling from 1 to 600, of which a random half is taken off.

    draw: uniform in [0, 1). The source: "equal jitter" in M. Brooker, Exponential Backoff And Jitter (AWS, 2015).

    >>> backoff_s(1, 0.0), backoff_s(4, 0.5), backoff_s(99, 0.0)
    (0.5, 6.0, 300.0)
    """
    whole = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 30))
    return whole * (1 + draw) / 2
