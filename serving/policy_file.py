"""YAML with line numbers: the typed reading of a small hand-written file, collecting all that is wrong in it."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


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
                findings.add(line, f"unknown {what} {name!r} in {self.path}", _hint(name, allowed))
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

    def texts(self, findings: Findings) -> list[tuple[str, int]] | None:
        """A list of texts, each with its line; may be empty."""
        if not self._is("sequence", findings):
            return None
        items = [Entry(n, f"{self.path}[{i}]") for i, n in enumerate(self.node.value)]
        return [(text, item.line) for item in items if (text := item.text(findings)) is not None]


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
        findings.add(1, "the file is empty", "start from policies/saas.yaml")
        return None
    return Entry(node, "the file")


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
