"""GET /v1/segments: how many people are in each segment now, and what changed last."""

import threading
from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta

from serving.segments.channels.event import SegmentChanged, document
from serving.segments.journal import Journal

NEWEST = 50


class SegmentCount(msgspec.Struct, frozen=True):
    """People in a segment."""

    source: Annotated[str, Meta(description="`rules`, `engagement` or `personas`.")]
    segment: str
    people: Annotated[int, Meta(ge=1)]


class SegmentsNow(msgspec.Struct, frozen=True):
    """Who is where, as far as changes have been told."""

    segments: Annotated[list[SegmentCount], Meta(description="By source, then by name; empty ones are left out.")]
    changes: Annotated[list[SegmentChanged], Meta(description="The newest first, up to 50.")]
    seq: Annotated[int, Meta(description="Counted up to this change: `?after=` of the stream goes on from here.")]


class Counts:
    """Kept up to date with the changes since it was asked last. From any thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._lock = journal, threading.Lock()
        self._people, self._seq, self._erasures = Counter[tuple[str, str]](), 0, 0

    def now(self) -> SegmentsNow:
        """The counts and the newest changes, of one moment."""
        with self._lock:
            if self._erasures != self._journal.erasures:
                self._people, self._seq, self._erasures = Counter(), 0, self._journal.erasures
            more, self._seq = self._journal.counts(self._seq)
            self._people.update(more)
            counts = [SegmentCount(source, name, n) for (source, name), n in sorted(self._people.items()) if n > 0]
            changes = [document(c) for c in self._journal.newest(NEWEST) if c.seq <= self._seq]
            return SegmentsNow(counts, changes, self._seq)
