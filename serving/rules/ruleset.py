"""The rules of a domain, compiled, and the document that they can be rebuilt from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import msgspec

from serving.rules.compiled import Due, Test, awake, due, test
from serving.rules.conditions import (
    All,
    Condition,
    Engagement,
    In,
    Never,
    Not,
    Persona,
    Score,
    TimeIn,
    atoms,
    features,
)
from serving.rules.limits import Limits


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule segment as declared, with names resolved.

    exit: null: leaves when `enter` no longer holds. stay_us: kept at least this long. expires_us: left after this time
    at the latest; null: never. group: of the segments of one group only the one with the highest priority holds.
    excludes: segments that do not hold while this one does. Durations in µs.
    """

    name: str
    why: str
    enter: Condition
    exit: Condition | None = None
    priority: int = 0
    stay_us: int = 0
    expires_us: int | None = None
    group: str | None = None
    excludes: tuple[str, ...] = ()

    @property
    def leave(self) -> Condition:
        """What has to hold for the segment to be left."""
        return Not(self.enter) if self.exit is None else self.exit

    @property
    def admit(self) -> Condition:
        """What has to hold for the segment to be entered: `enter`, and not `exit` at the same moment."""
        return self.enter if self.exit is None or isinstance(self.exit, Never) else All((self.enter, Not(self.exit)))

    @property
    def features(self) -> tuple[str, ...]:
        """The stored features that its conditions read, each once."""
        return tuple(dict.fromkeys(name for c in (self.enter, self.exit) if c is not None for name in features(c)))

    @property
    def reads(self) -> tuple[str, ...]:
        """The rule segments that its conditions name, each once."""
        both = [*atoms(self.enter), *(atoms(self.exit) if self.exit else ())]
        return tuple(dict.fromkeys(a.segment for a in both if isinstance(a, In | TimeIn)))


class Document(msgspec.Struct, frozen=True):
    """The content of rules: `segments` in order of priority."""

    domain: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A segment, compiled. The dues are None where time alone never changes the condition."""

    name: str
    segment: Segment
    excluders: tuple[str, ...]
    enter: Test
    admit: Test
    leave: Test
    enter_due: Due | None
    admit_due: Due | None
    leave_due: Due | None


class Rules:
    """The rule segments of a domain. Immutable; equal content behaves equally, whatever the file looked like.

    content: canonical JSON, from which `from_content` makes the same rules. version: 12 hex digits of its SHA-256.
    segments: names, highest priority first, then by name; rank: the number of each in them. needs: the stored features
    that are read, sorted.
    uses_score: whether the model's score, its segment or a persona is read: else what holds is a function of the
    feature rows alone; personas: those that are read, sorted; scored: the segments for which that is so, by what they
    read or what excludes them.
    plans: each after all that it reads and is excluded by; place: the number of each in them; awake: the numbers of
    those that somebody who is out of them may enter, now or with time alone.
    limits: of the over-segmentation guard; not part of the content.
    """

    def __init__(self, domain: str, segments: Sequence[Segment], limits: Limits | None = None) -> None:
        ordered = tuple(sorted(segments, key=lambda s: (-s.priority, s.name)))
        self.domain, self.limits = domain, limits or Limits()
        self.content = msgspec.json.encode(Document(domain, ordered)).decode()
        self.version = hashlib.sha256(self.content.encode()).hexdigest()[:12]
        self.declared: Mapping[str, Segment] = {s.name: s for s in ordered}
        self.segments = tuple(self.declared)
        self.rank = {name: number for number, name in enumerate(self.segments)}
        conditions = [c for s in ordered for c in (s.enter, s.exit) if c is not None]
        self.needs = tuple(sorted({name for c in conditions for name in features(c)}))
        self.uses_score = any(isinstance(a, Score | Engagement | Persona) for c in conditions for a in atoms(c))
        self.personas = tuple(sorted({a.persona for c in conditions for a in atoms(c) if isinstance(a, Persona)}))
        self.plans = tuple(_plan(self.declared[name], before) for name, before in _in_order(ordered))
        self.place = {plan.name: number for number, plan in enumerate(self.plans)}
        self.awake = awake([plan.segment.admit for plan in self.plans])
        self.scored = _scored(self.plans)

    @classmethod
    def from_content(cls, content: str) -> "Rules":
        """The rules whose content this is.

        Raises:
            msgspec.DecodeError: it is no such document.
        """
        document = msgspec.json.decode(content, type=Document)
        return cls(document.domain, document.segments)

    def why(self, segment: str) -> str:
        """The reason for a segment, in the file's words."""
        return self.declared[segment].why


def excluders(segments: Sequence[Segment]) -> dict[str, tuple[str, ...]]:
    """For each segment those that keep it out while they hold: of its group those above it, and those that name it."""
    named: dict[str, list[str]] = {s.name: [] for s in segments}
    groups: dict[str, list[str]] = {}
    for s in sorted(segments, key=lambda s: (-s.priority, s.name)):
        if s.group is not None:
            named[s.name] += groups.setdefault(s.group, [])
            groups[s.group].append(s.name)
    for s in segments:
        for other in s.excludes:
            if other in named:
                named[other].append(s.name)
    return {name: tuple(dict.fromkeys(those)) for name, those in named.items()}


def _in_order(segments: Sequence[Segment]) -> list[tuple[str, tuple[str, ...]]]:
    """Names with their excluders, each after all that it reads and is excluded by.

    Raises:
        graphlib.CycleError: there is no such order.
    """
    before = excluders(segments)
    graph = TopologicalSorter({s.name: [*s.reads, *before[s.name]] for s in segments})
    return [(name, before[name]) for name in graph.static_order()]


def _scored(plans: Sequence[Plan]) -> frozenset[str]:
    """The segments of these plans, in order, that what the model says can move."""
    found: set[str] = set()
    for plan in plans:
        both = (plan.segment.enter, *([plan.segment.exit] if plan.segment.exit else []))
        asks = any(isinstance(a, Score | Engagement | Persona) for c in both for a in atoms(c))
        if asks or not found.isdisjoint((*plan.segment.reads, *plan.excluders)):
            found.add(plan.segment.name)
    return frozenset(found)


def _plan(segment: Segment, before: tuple[str, ...]) -> Plan:
    tests: list[Callable[..., bool]] = [test(c) for c in (segment.enter, segment.admit, segment.leave)]
    dues = [due(c) for c in (segment.enter, segment.admit, segment.leave)]
    return Plan(segment.name, segment, before, *tests, *dues)  # type: ignore[arg-type]
