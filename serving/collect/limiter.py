"""A limit on events a second for each write key: a bucket that fills at that rate and holds one second of it.

A request goes through while anything is in the bucket, and may leave it in debt: so the rate holds in the long run
whatever the size of a batch, and a batch larger than the bucket gets through.
"""

import time
from collections.abc import Callable

RATE = 10_000.0


class Limiter:
    """Buckets by key. The keys are those that were let in, so there are few.

    >>> limiter = Limiter(10, clock=lambda: 0.0)
    >>> limiter.take("k", 15), limiter.take("k", 1)
    (0.0, 0.6)
    """

    def __init__(self, per_second: float = RATE, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = per_second, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str, events: int) -> float:
        """0 where the events may pass; else the seconds until they may, and nothing is taken."""
        now = self._clock()
        held, at = self._buckets.get(key, (self._rate, now))
        held = min(self._rate, held + (now - at) * self._rate)
        if held <= 0:
            return (1 - held) / self._rate
        self._buckets[key] = (held - events, now)
        return 0.0
