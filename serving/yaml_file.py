"""YAML with line numbers: the typed reading of a small hand-written file, collecting all that is wrong in it."""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND, WEEK

T = TypeVar("T")
UNITS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY, "week": WEEK}


@dataclass(frozen=True)
class Finding:
    """Something wrong in a file. `line` counts from 1."""

    file: Path
    line: int
    wrong: str
    todo: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.wrong}; {self.todo}"


@dataclass
class Findings:
    """All that is wrong in one file."""

    file: Path
    found: list[Finding] = field(default_factory=list)

    def add(self, line: int, wrong: str, todo: str) -> None:
        """Note one."""
        self.found.append(Finding(self.file, line, wrong, todo))


KIND = {"mapping": "`name: value` pairs", "sequence": "a list", "scalar": "one value"}


@dataclass(frozen=True)
class Entry:
    """A value in the file (a yaml.Node), with its path for the messages."""

    node: Any
    path: str

    @property
    def line(self) -> int:
        """Line of the value, from 1."""
        return int(self.node.start_mark.line) + 1

    def _is(self, kind: str, findings: Findings) -> bool:
        if self.node.id == kind:
            return True
        findings.add(self.line, f"{self.path} is {KIND[self.node.id]}", f"write {KIND[kind]}")
        return False

    def mapping(
        self,
        findings: Findings,
        required: tuple[str, ...] = (),
        known: tuple[str, ...] | None = (),
        what: str = "key",
    ) -> dict[str, "Entry"]:
        """The pairs by name. Unknown names (unless `known` is None), names used twice and missing ones are findings."""
        if not self._is("mapping", findings):
            return {}
        pairs: dict[str, Entry] = {}
        for name, line, entry in self._pairs(findings):
            allowed = None if known is None else (*required, *known)
            if allowed is not None and name not in allowed:
                findings.add(line, f"unknown {what} {name!r} in {self.path}", hint(name, allowed))
            elif name in pairs:
                findings.add(line, f"{what} {name!r} is given twice in {self.path}", "keep one of the two")
            else:
                pairs[name] = entry
        for name in required:
            if name not in pairs:
                findings.add(self.line, f"{what} {name!r} is missing in {self.path}", "add it")
        return pairs

    def _pairs(self, findings: Findings) -> Iterator[tuple[str, int, "Entry"]]:
        for key, value in self.node.value:
            line = int(key.start_mark.line) + 1
            if key.tag != "tag:yaml.org,2002:str":
                findings.add(line, f"name {getattr(key, 'value', '?')!r} in {self.path} is no text", "put it in quotes")
                continue
            yield key.value, line, Entry(value, key.value if self.path == "the file" else f"{self.path}.{key.value}")

    def text(self, findings: Findings) -> str | None:
        """A text that is not empty."""
        if not self._is("scalar", findings):
            return None
        if self.node.tag != "tag:yaml.org,2002:str":
            findings.add(
                self.line,
                f"{self.path} is {self.node.value!r}, which YAML does not read as text",
                "write text, in quotes where it looks like a number, a date or yes/no",
            )
            return None
        if not (value := str(self.node.value).strip()):
            findings.add(self.line, f"{self.path} is empty", "write some text")
            return None
        return value

    def choice(self, findings: Findings, known: Sequence[str]) -> str | None:
        """One of these texts."""
        value = self.text(findings)
        if value is not None and value not in known:
            findings.add(self.line, f"{self.path} is {value!r}", hint(value, known))
            return None
        return value

    def scalar(self, findings: Findings) -> str | int | float | bool | None:
        """A text, a number or true/false, as YAML reads it."""
        if not self._is("scalar", findings):
            return None
        value = yaml.safe_load(yaml.serialize(self.node))
        if isinstance(value, str | int | float | bool) and not (isinstance(value, float) and not math.isfinite(value)):
            return value
        findings.add(self.line, f"{self.path} is {self.node.value!r}", "write a text, a number or true/false")
        return None

    def number(self, findings: Findings, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A number within these limits."""
        value = self.scalar(findings)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            limits = [f"{word} {limit:g}" for word, limit in (("from", low), ("to", high)) if math.isfinite(limit)]
            findings.add(self.line, f"{self.path} is {value!r}", " ".join(["write a number", *limits]))
            return None
        return value

    def integer(self, findings: Findings, low: int = 0) -> int | None:
        """A whole number from a limit on."""
        value = self.number(findings, low)
        if value is not None and not isinstance(value, int):
            findings.add(self.line, f"{self.path} is {value!r}", f"write a whole number from {low}")
            return None
        return value

    def boolean(self, findings: Findings) -> bool | None:
        """true or false."""
        value = self.scalar(findings)
        if value is not None and not isinstance(value, bool):
            findings.add(self.line, f"{self.path} is {value!r}", "write true or false")
            return None
        return value

    def duration(self, findings: Findings) -> int | None:
        """A duration such as `30 minutes` or `2 days`, in µs, above 0."""
        value = self.text(findings)
        if value is None:
            return None
        if (us := duration_us(value)) is None:
            findings.add(self.line, f"{self.path} is {value!r}", "write a duration such as `30 minutes` or `2 days`")
        return us

    def time(self, findings: Findings) -> int | None:
        """A moment in RFC 3339 with its zone, such as 2026-03-01T09:00:00Z, as µs since 1970 UTC."""
        if not self._is("scalar", findings):
            return None
        try:
            moment = datetime.fromisoformat(self.node.value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            findings.add(
                self.line, f"{self.path} is {self.node.value!r}", "write a moment such as 2026-03-01T09:00:00Z"
            )
            return None
        return round(moment.timestamp() * SECOND)

    def items(self, findings: Findings) -> list["Entry"]:
        """The entries of a list; may be empty."""
        if not self._is("sequence", findings):
            return []
        return [Entry(n, f"{self.path}[{i}]") for i, n in enumerate(self.node.value)]

    def texts(self, findings: Findings) -> list[tuple[str, int]] | None:
        """A list of texts, each with its line; may be empty."""
        if not self._is("sequence", findings):
            return None
        return [(text, item.line) for item in self.items(findings) if (text := item.text(findings)) is not None]


def load(
    file: Path, parse: Callable[[Entry, Findings], T | None], error: Callable[[str], Exception], instead: str
) -> T:
    """What `parse` makes of a file, if nothing is wrong in it.

    error: what is raised otherwise, with all findings, a line each. instead: what to do where it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise error(f"{file}: cannot be read ({e}); {instead}") from e
    findings = Findings(file)
    root = read(text, findings)
    made = parse(root, findings) if root else None
    if findings.found or made is None:
        raise error("\n".join(str(f) for f in sorted(findings.found, key=lambda f: f.line)))
    return made


def read(text: str, findings: Findings) -> Entry | None:
    """The file's top; None if it is no YAML, or empty."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        findings.add(
            mark.line + 1 if mark else 1,
            f"no YAML: {getattr(e, 'problem', None) or e}",
            "mend the line or the one before it",
        )
        return None
    if node is None:
        findings.add(1, "the file is empty", "start from the saas.yaml that ships")
        return None
    return Entry(node, "the file")


def duration_us(text: str) -> int | None:
    """A duration such as `30 minutes` or `2 days` in µs, above 0; None: it is none.

    >>> duration_us("30 minutes"), duration_us("soon")
    (1800000000, None)
    """
    found = re.fullmatch(r"(\d+) (second|minute|hour|day|week)s?", text)
    return int(found[1]) * UNITS[found[2]] or None if found else None


def hint(name: str, known: Sequence[str]) -> str:
    """What to do about a name that is not known."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
