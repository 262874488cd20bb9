"""A rules file, read: segments with the lines that they came from, or everything that is wrong in it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from serving import yaml_file
from serving.rules.catalogue import Catalogue
from serving.rules.checks import Declared, check
from serving.rules.conditions import Condition, Never
from serving.rules.grammar import Grammar
from serving.rules.limits import Limits
from serving.rules.ruleset import Rules, Segment
from serving.yaml_file import Entry, Findings

FOLDER = Path(__file__).parent
VARIABLE = "FIRSTMILE_RULES"
KEYS = (
    "when",
    "enter",
    "exit",
    "priority",
    "stay_at_least",
    "expires_after",
    "group",
    "excludes",
)


class RulesError(ValueError):
    """A rules file that cannot be used: every finding, a line each."""


def location(domain: Domain) -> Path:
    """Where the rules are read from: FIRSTMILE_RULES, else rules/<domain>.yaml in this room."""
    return Settings().rules or FOLDER / f"{domain.name}.yaml"


def for_domain(domain: Domain) -> Rules:
    """The domain's rules; a domain without a file has none.

    Raises:
        RulesError: the file cannot be read or does not fit the domain.
    """
    file = location(domain)
    if not file.exists() and Settings().rules is None:
        return Rules(domain.name, ())
    return load(file, domain)


def load(file: Path, domain: Domain) -> Rules:
    """The rules in a YAML file, checked against the domain.

    Raises:
        RulesError: with all that is wrong in it.
    """
    instead = f"set {VARIABLE} or write {FOLDER / (domain.name + '.yaml')}"
    return yaml_file.load(file, partial(_parse, Catalogue(domain)), RulesError, instead)


def _parse(catalogue: Catalogue, root: Entry, findings: Findings) -> Rules | None:
    top = root.mapping(findings, required=("domain", "segments"), known=("limits",))
    named = top["domain"].text(findings) if "domain" in top else None
    if named is not None and named != catalogue.domain.name:
        findings.add(
            top["domain"].line,
            f"these rules are for domain {named!r}, and this is {catalogue.domain.name!r}",
            "use the rules of that domain",
        )
    limits = _limits(top["limits"], findings) if "limits" in top else Limits()
    declared = _segments(top["segments"], catalogue, findings) if "segments" in top else []
    if "limits" in top and len(declared) > limits.most_segments:
        findings.add(
            top["limits"].line,
            f"{len(declared)} segments are declared, and most_segments is {limits.most_segments}",
            "merge or remove some, or raise the limit",
        )
    if findings.found:
        return None
    check(declared, catalogue, findings)
    return None if findings.found else Rules(catalogue.domain.name, [d.segment for d in declared], limits)


def _limits(entry: Entry, findings: Findings) -> Limits:
    given = entry.mapping(findings, known=Limits.__struct_fields__)
    found: dict[str, float | int | None] = {}
    for name, limit in given.items():
        if name == "most_segments":
            found[name] = limit.integer(findings)
        else:
            found[name] = limit.number(findings, 0, 1 if name != "most_flips_per_day" else float("inf"))
    return Limits(**{n: v for n, v in found.items() if v is not None})  # type: ignore[arg-type]


def _segments(entry: Entry, catalogue: Catalogue, findings: Findings) -> list[Declared]:
    pairs = entry.mapping(findings, known=None)
    reader = _Reader(Grammar(catalogue, tuple(pairs), findings), findings)
    return [found for name, body in pairs.items() if (found := reader.segment(name, body)) is not None]


@dataclass(frozen=True)
class _Reader:
    grammar: Grammar
    findings: Findings

    def segment(self, name: str, entry: Entry) -> Declared | None:
        """One segment, or None with findings."""
        fields = entry.mapping(self.findings, required=("why",), known=KEYS)
        why = fields["why"].text(self.findings) if "why" in fields else None
        enter, enter_line = self._enter(name, entry, fields)
        leave, exit_line = self._exit(fields, enter_line)
        if why is None or enter is None:
            return None
        segment = Segment(
            name,
            why,
            enter,
            leave,
            self._number(fields),
            self._duration("stay_at_least", fields) or 0,
            self._duration("expires_after", fields),
            fields["group"].text(self.findings) if "group" in fields else None,
            self._excludes(name, fields),
        )
        lines = {key: value.line for key, value in fields.items()}
        return Declared(segment, entry.line, lines | {"enter": enter_line, "exit": exit_line})

    def _enter(self, name: str, entry: Entry, fields: dict[str, Entry]) -> tuple[Condition | None, int]:
        given = [key for key in ("when", "enter") if key in fields]
        if len(given) != 1:
            said = "has neither `when` nor `enter`" if not given else "has both `when` and `enter`"
            self.findings.add(entry.line, f"segment {name} {said}", "say in one of them when somebody is in it")
            return None, entry.line
        if given[0] == "when" and "exit" in fields:
            self.findings.add(
                fields["exit"].line,
                f"segment {name} has `when` and `exit`",
                "call it `enter`: `when` holds for as long as it is true",
            )
        return self.grammar.condition(fields[given[0]]), fields[given[0]].line

    def _exit(self, fields: dict[str, Entry], enter_line: int) -> tuple[Condition | None, int]:
        entry = fields.get("exit")
        if entry is None:
            return None, enter_line
        if entry.node.id == "scalar" and entry.node.value == "never":
            return Never(), entry.line
        return self.grammar.condition(entry), entry.line

    def _number(self, fields: dict[str, Entry]) -> int:
        return fields["priority"].integer(self.findings) or 0 if "priority" in fields else 0

    def _duration(self, key: str, fields: dict[str, Entry]) -> int | None:
        return fields[key].duration(self.findings) if key in fields else None

    def _excludes(self, name: str, fields: dict[str, Entry]) -> tuple[str, ...]:
        entry = fields.get("excludes")
        if entry is None:
            return ()
        if entry.node.id == "scalar":
            text = entry.text(self.findings)
            return () if text is None else (text,)
        return tuple(text for text, _ in entry.texts(self.findings) or ())
