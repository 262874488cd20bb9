"""People whose past takes long to read, one after the other in a thread of its own: nobody else waits for them."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from serving.decide import Snapshot

AGAIN_S = 1.0
PATIENCE_S = 2.0
_log = logging.getLogger("bentoml.serve.firstmile")


class LongPasts:
    """A thread that begins with the first of them. Safe from several threads.

    work: of a person, with their row and the time (µs) at which it was theirs; it drops who is done. What fails is
    tried again. After each the thread rests for as long as it took: at most half of a core is spent here.
    """

    def __init__(self, work: Callable[[str, Snapshot, int], None]) -> None:
        self._work = work
        self._waiting: OrderedDict[str, tuple[Snapshot, int]] = OrderedDict()
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="segments, long pasts", daemon=True)

    def __contains__(self, person: object) -> bool:
        return person in self._waiting

    def put(self, person: str, row: Snapshot, at_us: int) -> None:
        """Somebody more."""
        with self._changed:
            self._waiting.setdefault(person, (row, at_us))
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify()

    def drop(self, persons: Iterable[str]) -> None:
        """These are done, or of no interest any more."""
        with self._changed:
            for person in persons:
                self._waiting.pop(person, None)

    def close(self) -> bool:
        """End; False: somebody is under way, of whom nothing comes any more unless the process lasts."""
        self._stop.set()
        with self._changed:
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                if not self._waiting:
                    self._changed.wait(AGAIN_S)
                    continue
                person, (row, at_us) = next(iter(self._waiting.items()))
            began = time.monotonic()
            try:
                self._work(person, row, at_us)
            except Exception:  # the history may be down: it is tried again, and the others come first
                _log.exception("the past of a person cannot be followed; trying again")
                with self._changed:
                    if person in self._waiting:
                        self._waiting.move_to_end(person)
                self._stop.wait(AGAIN_S)
            self._stop.wait(time.monotonic() - began)
