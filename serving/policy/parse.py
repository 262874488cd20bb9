"""From a policy file to a Policy, with the lines that the checks of the whole need."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from feature_repo.domain import Domain
from feature_repo.vocabulary import DAY
from serving.policy.model import DEFAULT, KINDS, SOURCES, Boundaries, Element, Limits, Policy
from serving.yaml_file import Entry, Findings, hint

Entries = Mapping[str, Entry]


@dataclass(frozen=True)
class Known:
    """What a policy may name: the domain's own segments, and those of rules and personas."""

    domain: Domain
    own: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def segments(self) -> tuple[str, ...]:
        """Every segment that an element can be for."""
        return (DEFAULT, *self.own, *self.others)


@dataclass(frozen=True)
class Parsed:
    """A policy with the parts of its file: the top's, and each element's."""

    policy: Policy
    top: Entries
    elements: Mapping[str, Entries]

    def line(self, element: str, key: str) -> int:
        """Where an element says something; where it says nothing of it, the line of its kind."""
        entries = self.elements[element]
        return entries[key if key in entries else "kind"].line


def parse(root: Entry, known: Known, findings: Findings) -> Parsed | None:
    """The policy that the file gives; None where that is not told: the findings say why."""
    optional = ("nothing_for", "boundaries", "order")
    top = root.mapping(findings, required=("domain", "elements"), known=optional)
    _domain(top, known, findings)
    entries = top["elements"].mapping(findings, known=None) if "elements" in top else {}
    fields = {name: entry.mapping(findings, *KEYS) for name, entry in entries.items()}
    elements = [_element(name, fields[name], known, tuple(entries), findings) for name in entries]
    nothing = _nothing(top, known, findings)
    boundaries = _boundaries(top["boundaries"], findings) if "boundaries" in top else Boundaries()
    order = _order(top, findings)
    if findings.found:
        return None
    policy = Policy(known.domain.name, tuple(e for e in elements if e is not None), nothing, boundaries, order)
    return Parsed(policy, top, fields)


def _domain(top: Entries, known: Known, findings: Findings) -> None:
    named = top["domain"].text(findings) if "domain" in top else None
    if named is not None and named != known.domain.name:
        wrong = f"this policy is for domain {named!r}, and the service runs {known.domain.name!r}"
        findings.add(top["domain"].line, wrong, "use the policy of that domain")


KEYS = (
    ("kind", "title", "for", "why"),
    ("priority", "after", "skips", "excludes", "limits", "dismissal", "repeats"),
)
"""Of an element: what it has to say, and what it may say."""


def _element(name: str, fields: Entries, known: Known, declared: tuple[str, ...], findings: Findings) -> Element | None:
    kind = fields["kind"].choice(findings, KINDS) if "kind" in fields else None
    title = fields["title"].text(findings) if "title" in fields else None
    segments = _names(fields, "for", known.segments, "segment", findings)
    why = _why(fields["why"], segments, findings) if "why" in fields else {}
    priority = fields["priority"].integer(findings) if "priority" in fields else Element.__struct_defaults__[0]
    others = {key: _names(fields, key, declared, "element", findings) for key in ("after", "skips", "excludes")}
    limits = _limits(fields["limits"], findings) if "limits" in fields else Limits()
    again = _dismissal(fields["dismissal"], findings) if "dismissal" in fields else None
    repeats = fields["repeats"].boolean(findings) if "repeats" in fields else False
    if kind is None or title is None or priority is None or repeats is None:
        return None
    return Element(
        name, kind, title, segments, why, priority, **others, limits=limits, again_after_us=again, repeats=repeats
    )


def _names(entries: Entries, key: str, known: Collection[str], what: str, findings: Findings) -> tuple[str, ...]:
    """The list under a key, each once and known; empty where there is none."""
    listed = (entries[key].texts(findings) or []) if key in entries else []
    names = list[str]()
    for name, line in listed:
        if name not in known:
            findings.add(line, f"unknown {what} {name!r} in {entries[key].path}", hint(name, tuple(known)))
        elif name in names:
            findings.add(line, f"{what} {name!r} is named twice in {entries[key].path}", "name it once")
        names.append(name)
    return tuple(names)


def _why(entry: Entry, segments: tuple[str, ...], findings: Findings) -> dict[str, str]:
    """The reason for each segment, from one text for all of them or one each."""
    if entry.node.id != "mapping":
        text = entry.text(findings)
        return dict.fromkeys(segments, text) if text is not None else {}
    pairs = entry.mapping(findings, required=segments, what="segment")
    return {segment: text for segment, e in pairs.items() if (text := e.text(findings)) is not None}


def _limits(entry: Entry, findings: Findings) -> Limits:
    given = entry.mapping(findings, known=("per_session", "per_day", "ever", "cool_down"))
    numbers = {name: e.integer(findings, 1) for name, e in given.items() if name != "cool_down"}
    return Limits(**numbers, cool_down_us=given["cool_down"].duration(findings) if "cool_down" in given else None)


def _dismissal(entry: Entry, findings: Findings) -> int | None:
    """How long a dismissed element stays away, µs; None: for good."""
    if entry.node.id != "mapping":
        entry.choice(findings, ("never_again",))
        return None
    given = entry.mapping(findings, required=("again_after",))
    return given["again_after"].duration(findings) if "again_after" in given else None


def _nothing(top: Entries, known: Known, findings: Findings) -> dict[str, str]:
    """The segments that are shown nothing."""
    given = top["nothing_for"].mapping(findings, known=known.segments, what="segment") if "nothing_for" in top else {}
    return {segment: text for segment, e in given.items() if (text := e.text(findings)) is not None}


def _boundaries(entry: Entry, findings: Findings) -> Boundaries:
    given = entry.mapping(findings, known=("at_once", "per_session", "per_day", "session_gap"))
    numbers = {name: n for name, e in given.items() if name != "session_gap" and (n := e.integer(findings, 1))}
    if "session_gap" not in given or (gap := given["session_gap"].duration(findings)) is None:
        return Boundaries(**numbers)
    if gap > DAY:
        findings.add(given["session_gap"].line, "a session_gap of more than a day", "write at most `1 day`")
    return Boundaries(**numbers, session_gap_us=gap)


def _order(top: Entries, findings: Findings) -> tuple[str, ...]:
    if "order" not in top:
        return SOURCES
    order = _names(top, "order", SOURCES, "source of segments", findings)
    if missing := [s for s in SOURCES if s not in order]:
        findings.add(top["order"].line, f"order does not say where {', '.join(missing)} come", "name all of them")
    return order
