from pathlib import Path
from typing import Any

import pytest

from feature_repo.vocabulary import DAY, MINUTE
from serving.yaml_file import Entry, Findings, read


def entry(text: str) -> tuple[Entry, Findings]:
    findings = Findings(Path("f.yaml"))
    root = read(f"x: {text}", findings)
    assert root is not None
    return root.mapping(findings, required=("x",))["x"], findings


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("scalar", "yes please", "yes please"),
        ("scalar", "5", 5),
        ("scalar", "'5'", "5"),
        ("scalar", "0.5", 0.5),
        ("scalar", "true", True),
        ("number", "0.25", 0.25),
        ("integer", "7", 7),
        ("boolean", "false", False),
        ("duration", "30 minutes", 30 * MINUTE),
        ("duration", "1 day", DAY),
        ("time", "1970-01-01T00:00:01Z", 1_000_000),
        ("time", "'1970-01-01T01:00:00+01:00'", 0),
    ],
)
def test_a_value_is_read_as_what_it_is(kind: str, text: str, value: Any) -> None:
    found, findings = entry(text)
    got = getattr(found, kind)(findings)
    assert (got, type(got), findings.found) == (value, type(value), [])


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("scalar", "[1]", "a list"),
        ("scalar", "null", "write a text, a number or true/false"),
        ("scalar", ".nan", "write a text"),
        ("number", "much", "write a number"),
        ("number", "true", "write a number"),
        ("integer", "1.5", "write a whole number from 0"),
        ("integer", "-1", "write a number from 0"),
        ("boolean", "maybe", "write true or false"),
        ("duration", "30", "which YAML does not read as text"),
        ("duration", "0 days", "write a duration"),
        ("duration", "2 fortnights", "such as `30 minutes`"),
        ("time", "2026-03-01T09:00:00", "write a moment"),
        ("time", "tomorrow", "write a moment"),
    ],
)
def test_what_it_is_not_is_told_with_its_line(kind: str, text: str, told: str) -> None:
    found, findings = entry(text)
    assert getattr(found, kind)(findings) is None
    assert [f.line for f in findings.found] == [1]
    assert told in str(findings.found[0])


def test_one_of_several_words() -> None:
    found, findings = entry("tuor")
    assert found.choice(findings, ("tour", "help")) is None
    assert "did you mean 'tour'?" in str(findings.found[0])
