"""A policy in words: as lines of text for a terminal, and its boundaries for whoever shows them."""

from collections.abc import Iterator, Sequence

from serving.policy.model import Element, Limits, Policy
from serving.policy.words import span


def shown(policy: Policy) -> Iterator[str]:
    """Its elements, its boundaries, and each segment's journey."""
    yield "elements"
    yield from _table(
        [(e.name, "; ".join([f"{e.kind}, for {', '.join(e.segments)}", *of_one(e)])) for e in policy.elements]
    )
    yield f"boundaries: {', '.join(of_all(policy))}"
    yield f"a session ends after {span(policy.boundaries.session_gap_us)} without an event"
    yield f"a person's segments compose in this order: {', '.join(policy.order)}"
    yield "journeys"
    journeys = {s: ", ".join(e.name for e in journey) for s, journey in policy.segments.items()}
    yield from _table([(s, names or f"nothing: {policy.nothing_for[s]}") for s, names in journeys.items()])


def of_all(policy: Policy) -> list[str]:
    """How much is shown at most, all elements together."""
    of = policy.boundaries
    return [f"{of.at_once} at once", *_limits(Limits(of.per_session, of.per_day))]


def of_one(e: Element) -> Iterator[str]:
    """When an element is shown and when not, beside its segments."""
    for word, names in (("after", e.after), ("skips", e.skips), ("never beside", e.excludes)):
        if names:
            yield f"{word} {', '.join(names)}"
    if limits := list(_limits(e.limits)):
        yield f"at most {', '.join(limits)}"
    if e.again_after_us is not None:
        yield f"once dismissed, again after {span(e.again_after_us)}"
    if e.repeats:
        yield "again once completed"


def _limits(limits: Limits) -> Iterator[str]:
    for number, per in ((limits.per_session, "a session"), (limits.per_day, "a day"), (limits.ever, "ever")):
        if number is not None:
            yield f"{number} {per}"
    if limits.cool_down_us is not None:
        yield f"once in {span(limits.cool_down_us)}"


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max((len(name) for name, _ in rows), default=0)
    for name, words in rows:
        yield f"  {name:{width}}  {words}"
