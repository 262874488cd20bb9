"""What can be wrong with rules that are each well written: names, fights, cycles, and segments that can never hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations

from feature_repo.domain import Domain
from serving.rules.catalogue import Catalogue
from serving.rules.conditions import All, Any, Condition, In, Never, Not, atoms, duration, words
from serving.rules.reasoning import Reasoning
from serving.rules.ruleset import Segment, excluders
from serving.yaml_file import Findings, hint


@dataclass(frozen=True)
class Declared:
    """A segment and where it is declared: its line, and the line of each of its keys."""

    segment: Segment
    line: int
    lines: Mapping[str, int]

    def line_of(self, *keys: str) -> int:
        """The line of the first of these keys that is there."""
        return next((self.lines[k] for k in keys if k in self.lines), self.line)


def check(declared: Sequence[Declared], catalogue: Catalogue, findings: Findings) -> None:
    """Add a finding for everything that is wrong with the rules as a whole."""
    before = len(findings.found)
    for found in declared:
        _name(found, catalogue, findings)
        _excluded_names(found, declared, findings)
        _durations(found, findings)
        _sensitive(found, catalogue.domain, findings)
    _fights(declared, findings)
    if len(findings.found) > before:
        return
    _cycles(declared, findings)
    _reachable(declared, catalogue, findings)


def _name(found: Declared, catalogue: Catalogue, findings: Findings) -> None:
    name = found.segment.name
    if name in catalogue.engagement:
        findings.add(found.line, f"{name} is a segment of domain {catalogue.domain.name} already", "call it otherwise")
    if not name.isidentifier():
        findings.add(found.line, f"segment {name!r} is no plain name", "use letters, digits and _")


def _excluded_names(found: Declared, declared: Sequence[Declared], findings: Findings) -> None:
    known = [d.segment.name for d in declared if d is not found]
    for other in found.segment.excludes:
        if other not in known:
            findings.add(
                found.line_of("excludes"),
                f"{found.segment.name} excludes {other!r}, which is no other rule segment",
                hint(other, known),
            )


def _durations(found: Declared, findings: Findings) -> None:
    segment = found.segment
    if segment.expires_us is not None and segment.expires_us < segment.stay_us:
        findings.add(
            found.line_of("expires_after"),
            f"{segment.name} expires after {duration(segment.expires_us)}, before its minimum stay ends",
            f"make it at least {duration(segment.stay_us)}",
        )


def _sensitive(found: Declared, domain: Domain, findings: Findings) -> None:
    """No condition reads a sensitive feature of the domain, by its name, as a trait or by the time since it."""
    for key, condition in (("enter", found.segment.enter), ("exit", found.segment.exit)):
        read = {getattr(a, n, "") for a in (atoms(condition) if condition else ()) for n in ("feature", "name", "of")}
        if barred := domain.sensitive_among(read):
            wrong = f"{found.segment.name} reads {', '.join(barred)}, which domain {domain.name} declares sensitive"
            findings.add(found.line_of(key), wrong, "nothing may be decided by it: ask for something else")


def _fights(declared: Sequence[Declared], findings: Findings) -> None:
    for first, second in combinations(declared, 2):
        a, b = first.segment, second.segment
        if a.group is not None and (a.group, a.priority) == (b.group, b.priority):
            findings.add(
                second.line_of("priority", "group"),
                f"{b.name} and {a.name} of group {a.group} both have priority {a.priority}",
                "give one of them a higher one: it comes first",
            )
        if a.name in b.excludes and b.name in a.excludes:
            findings.add(
                second.line_of("excludes"),
                f"{b.name} and {a.name} exclude each other",
                "let one exclude the other, or put both in one group with priorities",
            )


def _cycles(declared: Sequence[Declared], findings: Findings) -> None:
    """One finding a cycle; the reference that closes it is left out then, to find the next one."""
    segments = [d.segment for d in declared]
    before = excluders(segments)
    graph = {s.name: {*s.reads, *before[s.name]} for s in segments}
    while (cycle := _cycle(graph)) is not None:
        first, then = cycle[:2]
        graph[then].discard(first)
        found = next(d for d in declared if d.segment.name == then)
        if first == then:
            wrong, todo = f"{then} reads itself", "use `stay_at_least` or `expires_after` for its own time"
        else:
            wrong = f"whether {then} holds depends on itself: {' -> '.join(cycle)}, each read by or excluding the next"
            todo = "take one of the references out"
        findings.add(found.line_of("enter"), wrong, todo)


def _cycle(graph: Mapping[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return list(e.args[1])
    return None


def _reachable(declared: Sequence[Declared], catalogue: Catalogue, findings: Findings) -> None:
    segments = {d.segment.name: d.segment for d in declared}
    before = excluders(list(segments.values()))
    pairs = frozenset(frozenset((name, other)) for name, those in before.items() for other in those)
    reasoning = Reasoning(catalogue, pairs)
    for found in declared:
        if _can_hold(found, reasoning, findings):
            above = [segments[name] for name in before[found.segment.name]]
            steady = [
                s for s in above if set(before[s.name]) <= set(before[found.segment.name]) and _covers(s, reasoning)
            ]
            _not_excluded(found, above, steady, reasoning, findings)


def _can_hold(found: Declared, reasoning: Reasoning, findings: Findings) -> bool:
    segment = found.segment
    if (part := _impossible(segment.enter, reasoning)) is not None:
        wrong = f"{segment.name} can never be entered as written: {part} never holds"
        findings.add(found.line_of("enter"), wrong, "mend the limits that contradict each other, or take it out")
        return False
    if segment.exit is None or isinstance(segment.exit, Never):
        return True
    if (part := _impossible(segment.exit, reasoning)) is not None:
        wrong = f"{segment.name} can never be left as written: {part} never holds"
        findings.add(found.line_of("exit"), wrong, "mend it, or say `exit: never`")
        return False
    if reasoning.implies(segment.enter, segment.exit):
        wrong = f"{segment.name} has an exit that holds whenever its enter does"
        findings.add(found.line_of("exit"), wrong, "move one of the thresholds: exit is where somebody is out again")
        return False
    return True


def _impossible(condition: Condition, reasoning: Reasoning) -> str | None:
    """A part that can never hold, in words: the whole, or an alternative of an `any`."""
    if not reasoning.possible(condition):
        return _told(condition)
    for part in _alternatives(condition):
        if not reasoning.possible(part):
            return _told(part)
    return None


def _alternatives(condition: Condition) -> Iterator[Condition]:
    match condition:
        case All(parts=parts):
            for part in parts:
                yield from _alternatives(part)
        case Any(parts=parts):
            for part in parts:
                yield part
                yield from _alternatives(part)


def _told(condition: Condition) -> str:
    match condition:
        case All(parts=parts):
            return " and ".join(_told(p) for p in parts)
        case Any(parts=parts):
            return "(" + " or ".join(_told(p) for p in parts) + ")"
        case Not(part=part):
            return f"not ({_told(part)})"
        case _:
            return words(condition)


def _not_excluded(
    found: Declared, above: Sequence[Segment], steady: Sequence[Segment], reasoning: Reasoning, findings: Findings
) -> None:
    """above: the segments that keep this one out. steady: those of them of which one holds whenever its enter does."""
    segment = found.segment
    if not reasoning.possible(All((segment.enter, *(Not(In(a.name)) for a in above)))):
        wrong = f"{segment.name} asks for a segment that excludes it"
        findings.add(found.line_of("enter"), wrong, "take the reference or the exclusion out")
        return
    kept = segment.enter if segment.exit is None else Any((segment.enter, Not(segment.exit)))
    for other in steady:
        if _may_imply(kept, other) and reasoning.implies(kept, other.enter):
            wrong = f"{segment.name} can never hold: {other.name} comes first and holds whenever it would"
            todo = f"give it a higher priority than {other.name}, or a wider condition"
            findings.add(found.line_of("enter"), wrong, todo)
            return


def _may_imply(condition: Condition, other: Segment) -> bool:
    """Whether it is worth reasoning: the other asks nothing that this one does not speak of."""
    return _subjects(other.enter) <= _subjects(condition)


def _subjects(condition: Condition) -> set[str]:
    named = ("feature", "of", "segment", "persona")
    return {getattr(a, n) for a in atoms(condition) for n in named if hasattr(a, n)}


def _covers(other: Segment, reasoning: Reasoning) -> bool:
    """Whether a segment holds, or is kept out by another one, at every moment at which its enter holds."""
    if other.expires_us is not None:
        return False
    return other.exit is None or reasoning.implies(other.enter, Not(other.exit))
