"""The first policy: which onboarding elements each engagement segment sees, read from a YAML file.

The file is checked as a whole when the service starts; everything that is wrong is reported at once, each
with its line and what to do. The file's form is described in policies/saas.yaml.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feature_repo.domain import Domain
from serving.yaml_file import Entry, Finding, Findings, read

FOLDER = Path(__file__).parent / "policies"
VARIABLE = "FIRSTMILE_POLICY"


class PolicyError(ValueError):
    """A policy file that cannot be used: every finding, a line each."""


@dataclass(frozen=True)
class Journey:
    """What people of one segment see, in order, and why in words (for the receipt)."""

    elements: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Policy:
    """The journeys of a domain.

    version: 12 hex digits of the SHA-256 over the policy's content: equal for equal behaviour and words, whatever
        the file's comments and spacing.
    """

    default: Journey
    segments: Mapping[str, Journey]
    version: str

    def elements_for(self, segment: str | None) -> tuple[tuple[str, ...], str]:
        """The elements for a segment (null: the default journey), and the reason in words."""
        journey = self.default if segment is None else self.segments[segment]
        return journey.elements, journey.why


def segment_names(domain: Domain) -> tuple[str, ...]:
    """Every segment that a decision can fall in: the engagement segments, and the one of the people who are done."""
    names = tuple(s.name for s in domain.segments)
    return (*names, domain.label.done_segment) if domain.label.done else names


def location(domain: Domain) -> Path:
    """Where the policy is read from: FIRSTMILE_POLICY, else policies/<domain>.yaml in this folder."""
    return Path(os.environ.get(VARIABLE) or FOLDER / f"{domain.name}.yaml")


def for_domain(domain: Domain) -> Policy:
    """The domain's policy; a domain without a file gets the plain one (everybody sees `welcome`).

    Raises:
        PolicyError: the file cannot be read or does not fit the domain.
    """
    file = location(domain)
    if not file.exists() and not os.environ.get(VARIABLE):
        return plain(domain)
    return load(file, domain)


def plain(domain: Domain) -> Policy:
    """The policy of a domain that has no file yet: everybody sees `welcome`."""
    why = f"no policy file yet for {domain.name}: everybody sees the same"
    journey = Journey(("welcome",), why)
    return _versioned(journey, dict.fromkeys(segment_names(domain), journey))


def load(file: Path, domain: Domain) -> Policy:
    """The policy in a YAML file, checked against the domain.

    Raises:
        PolicyError: with all that is wrong in it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise PolicyError(
            f"{file}: cannot be read ({e}); set {VARIABLE} or write {FOLDER / (domain.name + '.yaml')}"
        ) from e
    findings = Findings(file)
    root = read(text, findings)
    policy = _parse(root, domain, findings) if root else None
    if findings.found or policy is None:
        raise PolicyError("\n".join(str(f) for f in findings.found))
    return policy


def _parse(root: Entry, domain: Domain, findings: Findings) -> Policy | None:
    top = root.mapping(findings, required=("domain", "elements", "default", "segments"))
    named = top["domain"].text(findings) if "domain" in top else None
    if named is not None and named != domain.name:
        findings.add(
            top["domain"].line,
            f"this policy is for domain {named!r}, and the service runs {domain.name!r}",
            "use the policy of that domain",
        )
    elements = _elements(top["elements"], findings) if "elements" in top else ()
    default = _journey(top["default"], elements, findings) if "default" in top else None
    segments = _segments(top["segments"], elements, domain, findings) if "segments" in top else {}
    if default is None or findings.found:
        return None
    return _versioned(default, segments)


def _elements(entry: Entry, findings: Findings) -> tuple[str, ...]:
    declared = entry.mapping(findings, known=None)
    for element in declared.values():
        element.text(findings)
    return tuple(declared)


def _segments(entry: Entry, elements: tuple[str, ...], domain: Domain, findings: Findings) -> dict[str, Journey]:
    known = segment_names(domain)
    journeys = {}
    for name, journey in entry.mapping(findings, required=known, what="segment").items():
        if (parsed := _journey(journey, elements, findings)) is not None:
            journeys[name] = parsed
    return journeys


def _journey(entry: Entry, elements: tuple[str, ...], findings: Findings) -> Journey | None:
    fields = entry.mapping(findings, required=("show", "why"))
    why = fields["why"].text(findings) if "why" in fields else None
    shown = fields["show"].texts(findings) if "show" in fields else None
    for name, line in shown or ():
        if name not in elements:
            findings.add(line, f"element {name!r} is not declared", _closest(name, elements, "elements"))
    names = [name for name, _ in shown or ()]
    for name, line in shown or ():
        if names.count(name) > 1:
            findings.add(line, f"element {name!r} is shown twice", "name it once")
            break
    return None if why is None or shown is None else Journey(tuple(names), why)


def _closest(name: str, known: tuple[str, ...], section: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return (
        f"did you mean {close[0]!r}?"
        if close
        else f"declare it under `{section}`, or use one of {', '.join(known) or 'none yet'}"
    )


def _versioned(default: Journey, segments: Mapping[str, Journey]) -> Policy:
    content = {name: [j.elements, j.why] for name, j in segments.items()}
    canonical = json.dumps([[default.elements, default.why], content], sort_keys=True, separators=(",", ":"))
    return Policy(default, dict(segments), hashlib.sha256(canonical.encode()).hexdigest()[:12])


__all__ = ["Finding", "Journey", "Policy", "PolicyError", "for_domain", "load", "location", "plain", "segment_names"]
