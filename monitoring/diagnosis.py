"""What a wrong vector looks like: by which fault exactly these values would have been served.

receipt, the person's events ─► suspects: (fault, words, question) ─► their rows, recomputed ─► the first that is equal

A fault is named only where a row recomputed with it equals all that was served. Some can't be told apart by one vector
(an older row, and the newest event lost): then both are named. Pure: no I/O.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.recompute import Known, Question
from serving.times import rfc3339

MOST = 50
"""Events of a person, those that came last, each of which is suspected."""

OLDER = "an older row"
ENDED = "a row served after its end"
MICROSECOND = "a window off by a microsecond"
LOST = "a lost event"
TWICE = "an event counted twice"
NOBODY = "a row of nobody"
UNEXPLAINED = "unexplained"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Suspect:
    """A fault, what it would say of the vector, and the question whose answer would then have been served."""

    fault: str
    words: str
    question: Question


@dataclass(frozen=True)
class Diagnosis:
    """The fault's name, and the evidence in words."""

    fault: str
    words: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.words}"


def suspects(asked: Question, event_us: int | None, events: Sequence[Known], windows: Sequence[int]) -> list[Suspect]:
    """What could have been served instead of the answer to `asked`, the likelier first.

    event_us: time of the row that was served, µs. events: the person's, those that came last first. windows: µs.
    """
    earlier = [(before, since) for since, before in enumerate(events[1:], 1)]
    found = [
        Suspect(f"{OLDER} or {LOST}" if since == 1 else OLDER, _older(before, events[:since]), at)
        for before, since in earlier
        for at in [asked._replace(reached=before.position)]
    ]
    found += _boundaries(asked, {e.ts_us for e in events})
    ends = _times(asked, event_us, events, windows)
    found += [Suspect(ENDED, f"equals the row as it was at {rfc3339(t)}", asked._replace(at_us=t)) for t in ends]
    if event_us is not None and event_us < asked.at_us:
        found += [
            Suspect(f"{OLDER}, {ENDED}", f"{_older(before, events[:since])}, as it was at {rfc3339(event_us)}", at)
            for before, since in earlier
            for at in [asked._replace(reached=before.position, at_us=event_us)]
        ]
    found += [Suspect(LOST, f"equals the row without {_event(e)}", asked._replace(without=e.position)) for e in events]
    found += [
        Suspect(TWICE, f"equals the row with {_event(e)} twice", asked._replace(twice=e.position)) for e in events
    ]
    return found


def _boundaries(asked: Question, moments: set[int]) -> Iterator[Suspect]:
    """A microsecond earlier or later, where no event is what makes the difference."""
    for at, name in ((asked.at_us - 1, "earlier"), (asked.at_us + 1, "later")):
        if max(at, asked.at_us) not in moments:
            yield Suspect(MICROSECOND, f"equals the row of a microsecond {name}", asked._replace(at_us=at))


def _times(asked: Question, event_us: int | None, events: Sequence[Known], windows: Sequence[int]) -> list[int]:
    """The moments at which the row changed, before it was asked for: that of the row served, then the newest ones."""
    points = {e.ts_us + w for e in events for w in [0, *windows]}
    newest = sorted((p for p in points if p < asked.at_us), reverse=True)[:MOST]
    return newest if event_us is None or event_us >= asked.at_us else list(dict.fromkeys([event_us, *newest]))


def diagnose(served: Row, known: Row | None, rows: Sequence[tuple[Suspect, Row | None]]) -> Diagnosis:
    """Which suspect it is.

    Args:
        served: what was served, by name.
        known: the lake's row; None: the lake knew nobody.
        rows: each suspect with the row recomputed for it, in the order of `suspects`; elapsed features need not be in.
    """
    right = known and {name: known[name] for name in served}
    found = [(s, r) for s, r in rows if r is not None and same(served, r) and not (right and same(right, r))]
    if found:
        return _named(*found[0], others=sum(s.fault == found[0][0].fault for s, _ in found) - 1)
    if known is None:
        return Diagnosis(NOBODY, "the lake knew nobody of this name")
    differ = [name for name, value in served.items() if not equal(value, known[name])]
    return Diagnosis(UNEXPLAINED, "; ".join(_difference(name, served[name], known[name]) for name in differ))


def _named(suspect: Suspect, row: Row, others: int) -> Diagnosis:
    words, until = suspect.words, row["valid_until_us"]
    if ENDED in suspect.fault and until is not None:
        words += f", which ended at {rfc3339(until)}"
    if suspect.fault in (LOST, TWICE) and others:
        words += f"; {others} other event{'s' if others > 1 else ''} would do as well"
    return Diagnosis(suspect.fault, words)


def equal(came: Any, wanted: Any) -> bool:
    """Whether two values are the same, in type too."""
    return bool(came == wanted) and type(came) is type(wanted)


def same(served: Row, row: Row) -> bool:
    """Whether what was served is what the row has, of those features that are in both, in type too."""
    both = [name for name in served if name in row]
    came, wanted = [served[name] for name in both], [row[name] for name in both]
    return came == wanted and list(map(type, came)) == list(map(type, wanted))


def _older(before: Known, since: Sequence[Known]) -> str:
    after = f"before {_event(since[0])}" if len(since) == 1 else f"{len(since)} events ago"
    return f"equals the row as of position {before.position}, {after}"


def _event(event: Known) -> str:
    return f"event {event.message_id} (position {event.position})"


def _difference(name: str, came: Any, wanted: Any) -> str:
    if isinstance(came, int) and isinstance(wanted, int):
        less = "less" if came < wanted else "more"
        return f"{name} is {abs(came - wanted)} {less} than the lake gives"
    return f"{name} is {came!r}, the lake gives {wanted!r}"
