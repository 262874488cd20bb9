"""A domain's steps, ready to be applied to events one after the other."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from feature_repo.contract.events import Event
from feature_repo.domain import Domain
from feature_repo.enrichment.http_join import JoinError, Source

AT_ONCE = 25
"""Events that are enriched without letting other work of the loop in between."""
SAID_EVERY_S = 60.0
Apply = Callable[[Event], Event]
_log = logging.getLogger(__name__)


class Enrichment:
    """What a domain's events are given. A step that fails leaves the event as it was, and is counted.

    failed: how often, by step and reason. clock: seconds; how often a failure is logged goes by it.

    Raises:
        ValueError: what a step needs is not there: a table, a column of it, a token.
    """

    def __init__(self, domain: Domain, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said = clock, dict[str, float]()
        self.failed: Counter[tuple[str, str]] = Counter()
        self._pure: list[tuple[str, Apply]] = []
        """All but the joins over HTTP."""
        self._head: list[tuple[str, Apply]] = []
        """Those before the first join over HTTP."""
        self._tail: list[tuple[str, Apply | Source]] = []
        self._wait_s = 0.0
        for number, step in enumerate(domain.enrich, 1):
            self._compile(f"{number} {type(step).__name__}", step.compiled())

    def _compile(self, name: str, applied: Apply | Source) -> None:
        if isinstance(applied, Source):
            self._wait_s = max(self._wait_s, applied.step.timeout_s)
        else:
            self._pure.append((name, applied))
        if self._tail or isinstance(applied, Source):
            self._tail.append((name, applied))
        else:
            self._head.append((name, applied))

    def pure(self, event: Event) -> Event:
        """The event with what all steps but those over HTTP add: for a bulk intake."""
        return self._applied(event, self._pure)

    async def __call__(self, events: Sequence[Event]) -> list[Event]:
        """The events, in their order, with what all steps add. It takes as long as the longest time-out of a join."""
        found = list[Event]()
        for start in range(0, len(events), AT_ONCE):
            found += [self._applied(event, self._head) for event in events[start : start + AT_ONCE]]
            if start + AT_ONCE < len(events):
                await asyncio.sleep(0)
        if not self._tail:
            return found
        until = asyncio.get_running_loop().time() + self._wait_s
        return await asyncio.gather(*(self._joined(event, until) for event in found))

    def metrics(self) -> str:
        """The failures in Prometheus' text format."""
        lines = ["# TYPE firstmile_enrichment_failures_total counter"]
        for (step, reason), n in sorted(self.failed.items()):
            lines.append(f'firstmile_enrichment_failures_total{{step="{step}",reason="{reason}"}} {n}')
        return "\n".join(lines) + "\n"

    def _applied(self, event: Event, steps: Sequence[tuple[str, Apply]]) -> Event:
        for name, apply in steps:
            try:
                event = apply(event)
            except Exception as e:
                self._fail(name, type(e).__name__, e)
        return event

    async def _joined(self, event: Event, until: float) -> Event:
        for name, apply in self._tail:
            if not isinstance(apply, Source):
                event = self._applied(event, [(name, apply)])
                continue
            try:
                event = await apply(event, until)
            except JoinError as e:
                self._fail(name, str(e), e)
            except Exception as e:
                self._fail(name, type(e).__name__, e)
        return event

    def _fail(self, step: str, reason: str, error: Exception) -> None:
        self.failed[step, reason] += 1
        now = self._clock()
        if now - self._said.get(step, -SAID_EVERY_S) >= SAID_EVERY_S:
            self._said[step] = now
            times = sum(n for (name, _), n in self.failed.items() if name == step)
            _log.warning("step %s left an event as it was, %d since the start: %r", step, times, error)
