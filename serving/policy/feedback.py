"""What became of what a person was shown: a fold over their history, and the same kept up to date event by event."""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

import msgspec

from feature_repo.contract.feedback import ABOUT_ELEMENTS, CLICKED, COMPLETED, DISMISSED, SHOWN, VIEWED
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import DAY


class ElementFeedback(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one element. Times are the last ones, µs since 1970 UTC; null: never.

    session, day, ever: how often it was shown in this session, in the last 24 hours and at all.
    """

    session: int = 0
    day: int = 0
    ever: int = 0
    shown_us: int | None = None
    clicked_us: int | None = None
    dismissed_us: int | None = None
    completed_us: int | None = None


class Exposure(msgspec.Struct, frozen=True, array_like=True):
    """The first time that a person saw a variant of an experiment, µs since 1970 UTC."""

    variant: str
    first_us: int


class Feedback(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a choice needs of a person's past.

    session_us: when the session that is going on began, µs since 1970 UTC, but no earlier than 24 hours ago; null:
    none is going on. shown_session, shown_day: how often anything was shown in it and in the last 24 hours.
    exposures: by experiment.
    """

    elements: Mapping[str, ElementFeedback] = {}
    session_us: int | None = None
    shown_session: int = 0
    shown_day: int = 0
    exposures: Mapping[str, Exposure] = {}

    def only(self, elements: Container[str], experiments: Container[str]) -> "Feedback":
        """The same without elements and experiments that are not among these: what a receipt has to keep."""
        return msgspec.structs.replace(
            self,
            elements={name: seen for name, seen in self.elements.items() if name in elements},
            exposures={name: first for name, first in self.exposures.items() if name in experiments},
        )


class Act(NamedTuple):
    """A feedback event: its name, the element or experiment, the variant (empty: an element's), and when, µs."""

    name: str
    subject: str
    variant: str
    ts_us: int


class _Properties(msgspec.Struct):
    """What a feedback event carries; other events' properties are never read."""

    element: object = None
    experiment_id: object = None
    variation_id: object = None


_decode = msgspec.json.Decoder(_Properties).decode


def act_of(row: Row) -> Act | None:
    """The feedback that an event is; null: it is none, or does not say of what."""
    if row.type != "track" or (row.name not in ABOUT_ELEMENTS and row.name != VIEWED):
        return None
    said = _decode(row.properties)
    subject, variant = (said.experiment_id, said.variation_id) if row.name == VIEWED else (said.element, "")
    if not isinstance(subject, str) or not isinstance(variant, str):
        return None
    return Act(row.name, subject, variant, row.ts_us)


def fold(rows: Iterable[Row], at_us: int, session_gap_us: int) -> Feedback:
    """What the canonical rows of one person's history up to `at_us` say, in whatever order and however often given.

    session_gap_us: as in Boundaries.
    """
    past = list({row.key: row for row in rows if row.ts_us <= at_us}.values())
    began = _began(sorted(row.ts_us for row in past), at_us, session_gap_us)
    acts = sorted(act for row in past if (act := act_of(row)))
    shown = [a.ts_us for a in acts if a.name == SHOWN]
    exposures: dict[str, Exposure] = {}
    for act in sorted((a for a in acts if a.name == VIEWED), key=lambda a: (a.ts_us, a.variant)):
        exposures.setdefault(act.subject, Exposure(act.variant, act.ts_us))
    return Feedback(
        elements={e: _element(e, acts, began, at_us) for e in sorted({a.subject for a in acts if a.name != VIEWED})},
        session_us=began,
        shown_session=sum(began is not None and ts >= began for ts in shown),
        shown_day=sum(ts > at_us - DAY for ts in shown),
        exposures=dict(sorted(exposures.items())),
    )


def _began(times: list[int], at_us: int, gap_us: int) -> int | None:
    """When the session of `at_us` began, from the sorted times up to it."""
    began = at_us
    for ts in reversed(times):
        if began - ts > gap_us:
            break
        began = ts
    return max(began, at_us - DAY + 1) if times and at_us - times[-1] <= gap_us else None


def _element(element: str, acts: list[Act], began: int | None, at_us: int) -> ElementFeedback:
    times = {n: [a.ts_us for a in acts if a.name == n and a.subject == element] for n in ABOUT_ELEMENTS}
    return ElementFeedback(
        session=sum(began is not None and ts >= began for ts in times[SHOWN]),
        day=sum(ts > at_us - DAY for ts in times[SHOWN]),
        ever=len(times[SHOWN]),
        shown_us=max(times[SHOWN], default=None),
        clicked_us=max(times[CLICKED], default=None),
        dismissed_us=max(times[DISMISSED], default=None),
        completed_us=max(times[COMPLETED], default=None),
    )


class _Kept(msgspec.Struct, array_like=True):
    """The parts of a Seen."""

    keys: list[tuple[str, str]]
    times: dict[str, dict[str, list[int]]]
    shown: list[int]
    exposures: dict[str, list[tuple[int, str]]]
    starts: list[int]
    ends: list[int]


_kept = msgspec.msgpack.Decoder(_Kept).decode


class Seen:
    """One person's feedback, kept up to date: `at` gives what `fold` gives of all rows that were added.

    Rows have to be canonical: where the history corrects a sender or events change hands, make a new one of the rows
    that count now. Of events that are no feedback it keeps the runs of about the last 48 hours, two numbers each.
    """

    def __init__(self, session_gap_us: int) -> None:
        self._gap = session_gap_us
        self._keys: set[tuple[str, str]] = set()
        self._times: defaultdict[str, dict[str, list[int]]] = defaultdict(lambda: {n: [] for n in ABOUT_ELEMENTS})
        self._shown: list[int] = []
        self._exposures: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._changed = 0
        self._answer: tuple[int, int, int, Feedback] | None = None

    def add(self, rows: Iterable[Row]) -> None:
        """Take events in, in whatever order and however often."""
        self._changed += 1
        for row in rows:
            self._run(row.ts_us)
            act = act_of(row)
            if act is not None and row.key not in self._keys:
                self._keys.add(row.key)
                self._act(act)
        if self._ends:
            old = bisect_left(self._ends, self._ends[-1] - 2 * DAY - self._gap)
            del self._starts[:old], self._ends[:old]
        self._changed += 1

    def at(self, at_us: int) -> Feedback:
        """The feedback up to a time, µs since 1970 UTC: one at most 24 hours before the newest event added.

        Kept until an event is added or time alone changes it. `add` in another thread counts as a change when it begins
        and when it ends, so that nothing is kept that was made of half of it.
        """
        kept, changed = self._answer, self._changed
        if kept is not None and kept[0] == changed and kept[1] <= at_us < kept[2]:
            return kept[3]
        found = self._at(at_us)
        self._answer = (changed, at_us, self._until(at_us), found)
        return found

    def _until(self, at_us: int) -> int:
        """Until when (µs, not included) the feedback of a time is that of every later time too, as far as it is known.

        It changes where an event that lies ahead happens, where a showing is 24 hours old, where the session ends, and
        all the time where that began more than 24 hours ago.
        """
        run = bisect_right(self._starts, at_us) - 1
        moments = self._starts[run + 1 : run + 2]
        if run >= 0 and self._ends[run] > at_us:
            return at_us + 1
        if run >= 0 and at_us - self._ends[run] <= self._gap:
            moments += [self._ends[run] + self._gap + 1, max(self._starts[run] + DAY, at_us + 1)]
        oldest = bisect_right(self._shown, at_us - DAY)
        moments += [ts + DAY for ts in self._shown[oldest : oldest + 1]]
        return min(moments, default=NEVER)

    def _at(self, at_us: int) -> Feedback:
        began = self._began(at_us)
        elements = {e: self._element(self._times[e], began, at_us) for e in sorted(self._times)}
        exposures = {e: Exposure(seen[0][1], seen[0][0]) for e, seen in sorted(self._exposures.items())}
        return Feedback(
            elements={e: seen for e, seen in elements.items() if seen != NOTHING},
            session_us=began,
            shown_session=_since(self._shown, began, at_us),
            shown_day=_since(self._shown, at_us - DAY + 1, at_us),
            exposures={e: first for e, first in exposures.items() if first.first_us <= at_us},
        )

    def kept(self) -> bytes:
        """All of it, for `again`."""
        times = {element: dict(of) for element, of in self._times.items()}
        parts = (list(self._keys), times, self._shown, dict(self._exposures), self._starts, self._ends)
        return msgspec.msgpack.encode(_Kept(*parts))

    @classmethod
    def again(cls, kept: bytes, session_gap_us: int) -> "Seen":
        """What was `kept`."""
        found, parts = cls(session_gap_us), _kept(kept)
        found._keys.update(parts.keys)
        for element, times in parts.times.items():
            found._times[element].update(times)
        found._exposures.update(parts.exposures)
        found._shown, found._starts, found._ends = parts.shown, parts.starts, parts.ends
        return found

    def _act(self, act: Act) -> None:
        if act.name == VIEWED:
            insort(self._exposures[act.subject], (act.ts_us, act.variant))
            return
        insort(self._times[act.subject][act.name], act.ts_us)
        if act.name == SHOWN:
            insort(self._shown, act.ts_us)

    def _run(self, ts_us: int) -> None:
        """Put a moment to the runs of events that it is near enough to; where there are two, they become one."""
        first = bisect_left(self._ends, ts_us - self._gap)
        last = bisect_right(self._starts, ts_us + self._gap)
        near = slice(first, last)
        start = min([ts_us, *self._starts[near]])
        end = max([ts_us, *self._ends[near]])
        self._starts[near], self._ends[near] = [start], [end]

    def _began(self, at_us: int) -> int | None:
        run = bisect_right(self._starts, at_us) - 1
        if run < 0 or at_us - self._ends[run] > self._gap:
            return None
        return max(self._starts[run], at_us - DAY + 1)

    def _element(self, times: Mapping[str, list[int]], began: int | None, at_us: int) -> ElementFeedback:
        shown = times[SHOWN]
        return ElementFeedback(
            session=_since(shown, began, at_us),
            day=_since(shown, at_us - DAY + 1, at_us),
            ever=bisect_right(shown, at_us),
            shown_us=_last(shown, at_us),
            clicked_us=_last(times[CLICKED], at_us),
            dismissed_us=_last(times[DISMISSED], at_us),
            completed_us=_last(times[COMPLETED], at_us),
        )


NOTHING = ElementFeedback()
NEVER = 2**63


def _since(times: list[int], from_us: int | None, at_us: int) -> int:
    """How many of the sorted times are from one moment to another; none from null on."""
    return 0 if from_us is None else bisect_right(times, at_us) - bisect_left(times, from_us)


def _last(times: list[int], at_us: int) -> int | None:
    """The last of the sorted times up to a moment."""
    number = bisect_right(times, at_us)
    return times[number - 1] if number else None
