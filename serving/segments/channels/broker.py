"""Changes in the broker that holds the event log: `<name>.segments`, keyed by the user id or anonymous id that is in
them (see log/publisher.py)."""

import random
from collections.abc import Callable, Sequence

from feature_repo.log.publisher import Publisher, open_publisher
from feature_repo.settings import Settings
from serving.segments.channels.channel import backoff_s
from serving.segments.channels.event import document, encode
from serving.segments.journal import Change

SUFFIX = ".segments"
NAME = "broker"


class Broker:
    """A Destination (see there): connects when there is something to tell, and again after a fault.

    It never gives a change up: the journal holds what waits.
    """

    name, most = NAME, 200

    def __init__(
        self,
        settings: Settings,
        draw: Callable[[], float] = random.random,
        connect: Callable[[str, str, int], Publisher] = open_publisher,
    ) -> None:
        self._settings, self._draw, self._connect = settings, draw, connect
        self._open: Publisher | None = None

    def wants(self, change: Change) -> bool:
        """Every one."""
        return True

    def deliver(self, changes: Sequence[Change]) -> None:
        """As `Destination.deliver`: returns once the broker has acknowledged them all."""
        if self._open is None:
            self._open = self._connect(self._settings.broker, SUFFIX, self._settings.retention_days)
        told = [document(c) for c in changes]
        self._open.publish([(d.user_id or d.anonymous_id or "", encode(d)) for d in told])

    def failed(self, changes: Sequence[Change], error: Exception, tries: int) -> float | None:
        """As `Destination.failed`."""
        self.close()
        return backoff_s(tries, self._draw())

    def close(self) -> None:
        """Let go of the connection."""
        found, self._open = self._open, None
        if found is not None:
            found.close()
