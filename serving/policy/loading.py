"""Where a domain's policy comes from: its YAML file, checked as a whole; or the plain one.

The file is checked when the service starts; everything that is wrong is reported at once, each with its line and what
to do. The file's form is described in policies/saas.yaml.
"""

from collections.abc import Iterable
from pathlib import Path

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from serving import yaml_file
from serving.policy.checks import check
from serving.policy.model import DEFAULT, Element, Policy
from serving.policy.parse import Known, parse
from serving.yaml_file import Entry, Findings

FOLDER = Path(__file__).parent.parent / "policies"
VARIABLE = "FIRSTMILE_POLICY"


class PolicyError(ValueError):
    """A policy file that cannot be used: every finding, a line each."""


def segment_names(domain: Domain) -> tuple[str, ...]:
    """The segments that a score can fall in, and the one of the people who are done."""
    names = tuple(s.name for s in domain.segments)
    return (*names, domain.label.done_segment) if domain.label.done else names


def location(domain: Domain) -> Path:
    """Where the policy is read from: FIRSTMILE_POLICY, else policies/<domain>.yaml beside this package."""
    return Settings().policy or FOLDER / f"{domain.name}.yaml"


def for_domain(domain: Domain, rules: Iterable[str] = (), personas: Iterable[str] = ()) -> Policy:
    """The domain's policy; a domain without a file gets the plain one (everybody sees `welcome`).

    rules, personas: as for `load`.

    Raises:
        PolicyError: the file cannot be read or does not fit.
    """
    file = location(domain)
    if not file.exists() and Settings().policy is None:
        return plain(domain)
    return load(file, domain, rules, personas)


def plain(domain: Domain) -> Policy:
    """The policy of a domain that has no file yet: everybody sees `welcome`, as often as they come."""
    why = f"no policy file yet for {domain.name}: everybody sees the same"
    everybody = (DEFAULT, *segment_names(domain))
    return Policy(
        domain.name, (Element("welcome", "message", "A welcome", everybody, dict.fromkeys(everybody, why)),), {}
    )


def load(file: Path, domain: Domain, rules: Iterable[str] = (), personas: Iterable[str] = ()) -> Policy:
    """The policy in a YAML file, checked against the domain.

    rules, personas: names of the segments beside the engagement segments. None of them turns on a sensitive feature:
    rules that read one are refused, and personas are not made of any.

    Raises:
        PolicyError: with all that is wrong in it, in the order of its lines.
    """
    known = Known(domain, segment_names(domain), (*rules, *personas))

    def checked(root: Entry, findings: Findings) -> Policy | None:
        parsed = parse(root, known, findings)
        if parsed is not None and not findings.found:
            check(parsed, known, findings)
        return parsed.policy if parsed else None

    instead = f"set {VARIABLE} or write {FOLDER / (domain.name + '.yaml')}"
    return yaml_file.load(file, checked, PolicyError, instead)
