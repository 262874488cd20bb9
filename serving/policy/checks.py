"""What a policy has to be as a whole: everybody has a journey, everything can be shown, and nothing contradicts."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise

from feature_repo.vocabulary import DAY
from serving.policy.model import DEFAULT, Element, Limits
from serving.policy.parse import Known, Parsed
from serving.policy.words import span
from serving.yaml_file import Findings

Found = Iterator[tuple[int, str, str]]
"""Line, what is wrong, what to do."""


def check(parsed: Parsed, known: Known, findings: Findings) -> None:
    """Add everything that is wrong in a policy whose parts are right each."""
    for found in (_journeys, _kinds, _steps, _never, _fights, _limits, _boundaries):
        for line, wrong, todo in found(parsed, known):
            findings.add(line, wrong, todo)


def _journeys(parsed: Parsed, known: Known) -> Found:
    """Each segment of the domain is given something, or expressly nothing."""
    policy = parsed.policy
    given = {s for e in policy.elements for s in e.segments} | set(policy.nothing_for)
    for segment in (DEFAULT, *known.own):
        if segment not in given:
            yield (
                parsed.top["elements"].line,
                f"segment {segment!r} has no journey: no element is for it",
                "name it in the `for` of an element, or under `nothing_for` with the reason",
            )


def _kinds(parsed: Parsed, known: Known) -> Found:
    for e in parsed.policy.elements:
        if e.kind == "skip_step" and not e.skips:
            yield parsed.line(e.name, "kind"), f"{e.name} is a skip_step and skips nothing", "say what under `skips`"
        if e.kind != "skip_step" and e.skips:
            yield parsed.line(e.name, "skips"), f"{e.name} is a {e.kind} and skips steps", "make it a skip_step"
        if not e.segments:
            yield parsed.line(e.name, "for"), f"{e.name} can never be shown: it is for nobody", "name a segment"
        for key, names in (("after", e.after), ("skips", e.skips), ("excludes", e.excludes)):
            if e.name in names:
                yield parsed.line(e.name, key), f"{e.name} names itself under {key}", "take it out"


def _steps(parsed: Parsed, known: Known) -> Found:
    """Steps do not wait for each other in a ring."""
    graph = {e.name: [s for s in e.after if s != e.name] for e in parsed.policy.elements}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        ring = list(reversed(e.args[1]))
        yield (
            parsed.line(ring[0], "after"),
            f"these can never be shown, because each waits for the next: {' -> '.join(ring)}",
            "take one of them out of an `after`",
        )


def _never(parsed: Parsed, known: Known) -> Found:
    """No element is kept from everybody."""
    policy = parsed.policy
    shut = {e.name for e in policy.elements if e.segments and set(e.segments) <= set(policy.nothing_for)}
    for e in policy.elements:
        if e.name in shut:
            wrong = f"{e.name} can never be shown: {', '.join(e.segments)} is under nothing_for"
            yield parsed.line(e.name, "for"), wrong, "change one of the two, or delete it"
        for step in e.after:
            if step in shut and e.name not in shut:
                wrong = f"{e.name} can never be shown: it waits for {step}, which never is"
                yield parsed.line(e.name, "after"), wrong, f"take {step} out"
        for s in policy.skip_steps:
            always = s.limits == Limits() and not s.after and not s.excludes and s.name != e.name
            if e.name in s.skips and always and set(e.segments) <= set(s.segments):
                wrong = f"{e.name} can never be shown: {s.name} skips it wherever it is for"
                yield parsed.line(e.name, "for"), wrong, f"delete it, or let {s.name} be for fewer segments"


def _fights(parsed: Parsed, known: Known) -> Found:
    """Where two exclude each other, one of them has to come first."""
    for a, b in combinations(parsed.policy.elements, 2):
        if b.name in parsed.policy.apart[a.name] and a.priority == b.priority:
            says = a if b.name in a.excludes else b
            wrong = f"{a.name} and {b.name} exclude each other with equal priority {a.priority}"
            yield parsed.line(says.name, "excludes"), wrong, "give the one that matters more a higher priority"


def _limits(parsed: Parsed, known: Known) -> Found:
    """Limits that contradict each other: one of them would never be reached."""
    for e in parsed.policy.elements:
        for wrong in _contradictions(e):
            key = "dismissal" if "dismissed" in wrong else "limits"
            yield parsed.line(e.name, key), f"the limits of {e.name} contradict: {wrong}", "change one of the two"
        all_of_it = parsed.policy.boundaries
        for key, own, of_all in (
            ("per_session", e.limits.per_session, all_of_it.per_session),
            ("per_day", e.limits.per_day, all_of_it.per_day),
        ):
            if own and of_all and own > of_all:
                wrong = f"{e.name} may be shown {own} times {key}, and all elements together {of_all} times"
                yield parsed.line(e.name, "limits"), wrong, "lower the one or raise the other"


def _contradictions(e: Element) -> Iterator[str]:
    limits = e.limits
    for a, b in combinations(("per_session", "per_day", "ever"), 2):
        few, many = getattr(limits, a), getattr(limits, b)
        if few and many and few > many:
            yield f"{few} {a} is more than {many} {b}"
    if limits.cool_down_us and limits.ever == 1:
        yield "a cool_down, and at most 1 ever"
    if limits.cool_down_us and limits.cool_down_us >= DAY and max(limits.per_day or 0, limits.per_session or 0) > 1:
        yield f"more than 1 a day or session, and a cool_down of {span(limits.cool_down_us)}"
    if e.again_after_us and limits.ever == 1:
        yield "shown again once dismissed, and at most 1 ever"
    if e.again_after_us and limits.cool_down_us and e.again_after_us < limits.cool_down_us:
        yield f"dismissed, again after {span(e.again_after_us)}, and a cool_down of {span(limits.cool_down_us)}"


def _boundaries(parsed: Parsed, known: Known) -> Found:
    limits = parsed.policy.boundaries
    given = [(n, v) for n in ("at_once", "per_session", "per_day") if (v := getattr(limits, n)) is not None]
    for (a, few), (b, many) in pairwise(given):
        if few > many:
            line = parsed.top["boundaries"].line
            yield line, f"{few} {a} is more than {many} {b}", "lower the one or raise the other"
