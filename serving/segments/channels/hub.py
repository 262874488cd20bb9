"""Who listens to changes as they happen, and how one that reads slowly is kept from holding up anybody.

announcer's thread ─► tell ─► the service's event loop: a bounded queue for each listener ─► sse.py
                                                          └ full: that listener is dropped; it may come back
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from serving.asgi import Refused
from serving.segments.channels.event import TYPE, document, encode
from serving.segments.journal import Change

MOST_WAITING = 256
"""Changes that may wait for one listener."""
MOST_LISTENERS = 1_000
AT_ONCE = 2_000
"""Queues that are filled in one go, about two milliseconds: decisions are made in the same event loop."""


class Frame:
    """A change as it goes over the wire."""

    __slots__ = ("change", "raw", "seq")

    def __init__(self, change: Change) -> None:
        self.change, self.seq = change, change.seq
        self.raw = f"id: {change.seq}\nevent: {TYPE}\ndata: ".encode() + encode(document(change)) + b"\n\n"


class Listener:
    """One reader. person, segment: whose changes, and of which segment; null: all. ended: nothing more is for it."""

    def __init__(self, person: str | None, segment: str | None, most_waiting: int = MOST_WAITING) -> None:
        self._person, self._segment = person, segment
        self.waiting = asyncio.Queue[Frame](most_waiting)
        self.ended = asyncio.Event()

    def wants(self, change: Change) -> bool:
        """Whether a change passes its filters."""
        return self._person in (None, change.person) and self._segment in (None, change.segment)

    def offer(self, frame: Frame) -> None:
        """Put a change in its queue, if it wants it; a full queue ends it."""
        if self.wants(frame.change):
            try:
                self.waiting.put_nowait(frame)
            except asyncio.QueueFull:
                self.ended.set()


class Hub:
    """The listeners of one process, in one event loop. `tell` and `close` may be called from anywhere."""

    def __init__(self, most_listeners: int = MOST_LISTENERS) -> None:
        self._listeners: set[Listener] = set()
        self._most, self._closed = most_listeners, False
        self._told = deque[Frame]()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        """From now on it is told; in the event loop.

        Raises:
            Refused: 503, the service ends, or as many listen as may.
        """
        if self._closed:
            raise Refused(503, "ending", "the service is ending", None, (b"retry-after", b"5"))
        if len(self._listeners) >= self._most:
            told = f"{self._most} readers listen already; end one, or ask GET /v1/segments from time to time"
            raise Refused(503, "too_many_readers", told, None, (b"retry-after", b"30"))
        self._loop = asyncio.get_running_loop()
        self._listeners.add(listener)

    def remove(self, listener: Listener) -> None:
        """It is told no more; in the event loop."""
        self._listeners.discard(listener)

    def tell(self, changes: Sequence[Change]) -> None:
        """These are in the journal; waits for nobody."""
        if self._listeners and self._loop is not None:
            self._told.extend(map(Frame, changes))
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._offer)

    def close(self) -> None:
        """End every stream: a server waits for them when it stops. Also from a signal handler."""
        self._closed = True
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end)

    def _offer(self) -> None:
        """Some of what was told; the rest once others have had a turn."""
        for _ in range(max(1, AT_ONCE // max(1, len(self._listeners)))):
            if not self._told:
                return
            frame = self._told.popleft()
            for listener in self._listeners:
                listener.offer(frame)
        if self._loop is not None:
            self._loop.call_soon(self._offer)

    def _end(self) -> None:
        for listener in self._listeners:
            listener.ended.set()
