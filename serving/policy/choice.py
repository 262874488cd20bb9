"""What a person is shown, as a pure function: (policy, segments, feedback, time) -> choice. No I/O, no clock.

segments ─► their journeys one after the other ─► element by element: a boundary drops it, or it is taken

The first element taken keeps out those that it excludes, and skip steps come first, because they change what follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from serving.policy.feedback import NOTHING, ElementFeedback, Feedback
from serving.policy.model import DEFAULT, Element, Policy
from serving.policy.words import plural, span


class Dropped(msgspec.Struct, frozen=True):
    """An element that the segments would give and a boundary removed; detail: with which values, in words."""

    element: str
    boundary: str
    detail: str


class Choice(msgspec.Struct, frozen=True):
    """What is shown, in order; why, in words: one for each element, or why there is none; what was dropped, in order.

    Of several boundaries that drop an element the first is named, in the order of this module.
    """

    elements: tuple[str, ...]
    why: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()


NOBODY: Mapping[str, str] = MappingProxyType({})
Reason = tuple[str, str]
"""A boundary and the detail in words."""


def choose(
    policy: Policy,
    segments: Sequence[str],
    feedback: Feedback,
    at_us: int,
    show: Mapping[str, str] = NOBODY,
    hide: Mapping[str, str] = NOBODY,
) -> Choice:
    """What a person is shown at a time.

    segments: the person's, in the order in which they compose; empty, or none for which the policy has anything: the
    default journey. feedback: as of `at_us`, µs since 1970 UTC. show, hide: elements that experiments put before the
    journey or take out of it, with why; boundaries hold for them as for all.
    """
    known = [s for s in segments if s in policy.segments]
    why = [] if known or not segments else [f"nothing is for {', '.join(segments)}: default journey"]
    known = known or [DEFAULT]
    if (over := next((s for s in known if s in policy.nothing_for), None)) is not None:
        return _nothing(policy, known, over, why)
    selection, dropped = Selection(policy, feedback, at_us), []
    for element, reason in _given(policy, known, show):
        if element.name in hide:
            dropped.append(Dropped(element.name, "experiment", hide[element.name]))
        elif refused := selection.refuses(element):
            dropped.append(Dropped(element.name, *refused))
        else:
            selection.take(element)
            why.append(f"{element.name} {reason}")
    if not selection.taken:
        why.append(f"nothing is left for {', '.join(known)}: boundaries dropped all of it")
    return Choice(tuple(selection.taken), tuple(why), tuple(dropped))


def _given(policy: Policy, segments: Sequence[str], show: Mapping[str, str]) -> Iterator[tuple[Element, str]]:
    """The elements in the order in which they are taken, each with for whom it is, and why."""
    for name, why in show.items():
        yield policy.named[name], f"for {why}"
    for element, segment in composed(policy, segments):
        if element.name not in show:
            yield element, f"for {segment}: {element.why[segment]}"


def composed(policy: Policy, segments: Sequence[str]) -> Iterator[tuple[Element, str]]:
    """The elements of these segments' journeys, each once, with the first segment that gives it; skip steps first."""
    given: dict[str, tuple[Element, str]] = {}
    for segment in segments:
        for element in policy.segments[segment]:
            given.setdefault(element.name, (element, segment))
    skipping = [pair for pair in given.values() if pair[0].skips]
    yield from skipping
    yield from (pair for pair in given.values() if not pair[0].skips)


def _nothing(policy: Policy, segments: Sequence[str], over: str, why: Sequence[str]) -> Choice:
    said = f"{over}: {policy.nothing_for[over]}"
    dropped = tuple(Dropped(e.name, "nothing_for", said) for e, _ in composed(policy, segments))
    return Choice((), (*why, f"nothing for {said}"), dropped)


class Selection:
    """What has been taken for one person so far, and what that leaves room for."""

    def __init__(self, policy: Policy, feedback: Feedback, at_us: int) -> None:
        self.policy, self.feedback, self.at_us = policy, feedback, at_us
        self.taken: list[str] = []
        self.skipped = {name: e.name for e in policy.skip_steps if self._completed(e.name) for name in e.skips}

    def take(self, element: Element) -> None:
        """Show it."""
        self.taken.append(element.name)
        for name in element.skips:
            self.skipped.setdefault(name, element.name)

    def refuses(self, element: Element) -> Reason | None:
        """The boundary that drops an element; null: none does."""
        past = self.feedback.elements.get(element.name, NOTHING)
        return (
            (past is not NOTHING and (_over(element, past, self.at_us) or _limited(element, past, self.at_us)))
            or self._beside(element)
            or self._full()
            or None
        )

    def _completed(self, name: str) -> bool:
        return self.feedback.elements.get(name, NOTHING).completed_us is not None

    def _beside(self, element: Element) -> Reason | None:
        """What other elements have to say."""
        if element.name in self.skipped:
            return "skips", f"{self.skipped[element.name]} makes it needless"
        waiting = [s for s in element.after if not self._completed(s) and s not in self.skipped]
        if waiting:
            return "after", f"{', '.join(waiting)} {'is' if len(waiting) == 1 else 'are'} not completed yet"
        apart = self.policy.apart[element.name]
        if apart and (other := next((t for t in self.taken if t in apart), None)):
            return "excludes", f"{other} is shown, and the two exclude each other"
        return None

    def _full(self) -> Reason | None:
        """What the boundaries of all elements together say."""
        limits, now = self.policy.boundaries, len(self.taken)
        session, day = self.feedback.shown_session + now, self.feedback.shown_day + now
        if now >= limits.at_once:
            return "at_once", f"at most {limits.at_once} at once, and {', '.join(self.taken)} come first"
        if limits.per_session is not None and session >= limits.per_session:
            most = limits.per_session
            return "all_per_session", f"{session} shown in this session, this choice included, at most {most}"
        if limits.per_day is not None and day >= limits.per_day:
            return "all_per_day", f"{day} shown in the last 24 hours, this choice included, at most {limits.per_day}"
        return None


def _over(element: Element, past: ElementFeedback, at_us: int) -> Reason | None:
    """What the person has said to it."""
    if past.completed_us is not None and not element.repeats:
        return "completed", f"completed {span(at_us - past.completed_us)} ago, and it does not repeat"
    if past.dismissed_us is None:
        return None
    ago, again = at_us - past.dismissed_us, element.again_after_us
    if again is not None and ago >= again:
        return None
    return "dismissal", f"dismissed {span(ago)} ago, {'never again' if again is None else 'again after ' + span(again)}"


def _limited(element: Element, past: ElementFeedback, at_us: int) -> Reason | None:
    """What its own limits say."""
    limits, ago = element.limits, 0 if past.shown_us is None else at_us - past.shown_us
    if limits.ever is not None and past.ever >= limits.ever:
        return "ever", f"shown {plural(past.ever, 'time')}, at most {limits.ever}"
    if limits.cool_down_us is not None and past.shown_us is not None and ago < limits.cool_down_us:
        return "cool_down", f"shown {span(ago)} ago, again after {span(limits.cool_down_us)}"
    if limits.per_day is not None and past.day >= limits.per_day:
        return "per_day", f"shown {plural(past.day, 'time')} in the last 24 hours, at most {limits.per_day}"
    if limits.per_session is not None and past.session >= limits.per_session:
        return "per_session", f"shown {plural(past.session, 'time')} in this session, at most {limits.per_session}"
    return None
