"""Stories that a product manager can read: who, with which past -> what they are shown, why, and what was dropped.

They are in tests/golden/policy/*.json. `past` is what the person has done, as `<time> ago: <event> [<element>]`. To
change or add one, write all but its `choice`, then `pytest tests/serving/policy --golden-update`, and read what came.
"""

import json
import os
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feature_repo import domains
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import SECOND
from serving import policy
from serving.policy.loading import FOLDER as SHIPPED
from serving.yaml_file import UNITS
from tests.serving.policy.lives import row

FOLDER = Path(__file__).parents[2] / "golden" / "policy"
CASES = [
    (file, number) for file in sorted(FOLDER.glob("*.json")) for number in range(len(json.loads(file.read_text())))
]
RULES, PERSONAS = {"stuck": ("errors",), "getting_going": (), "power_user": ()}, {"builders": ("feature_uses",)}


@cache
def named(name: str) -> policy.Policy:
    file = next(f for f in (SHIPPED / f"{name}.yaml", FOLDER / f"{name}.yaml") if f.exists())
    return policy.load(file, domains.load(name if name in domains.names() else "saas"), RULES, PERSONAS)


def microseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp()) * SECOND


def event(number: int, told: str, at_us: int) -> Row:
    found = re.fullmatch(r"(\d+) (second|minute|hour|day|week)s? ago: (Element \w+|\w+)(?: (\w+))?", told)
    assert found, f"{told!r}: expected `3 hours ago: Element Shown welcome_tour`"
    return row(number, found[3], at_us - int(found[1]) * UNITS[found[2]], element=found[4])


def choose(case: dict[str, Any]) -> dict[str, Any]:
    rules, at_us = named(case["policy"]), microseconds(case["at"])
    past = [event(number, told, at_us) for number, told in enumerate(case["past"])]
    feedback = policy.fold(past, at_us, rules.boundaries.session_gap_us)
    return msgspec.to_builtins(policy.choose(rules, case["segments"], feedback, at_us))


@pytest.mark.parametrize(("file", "number"), CASES, ids=[f"{f.stem}-{n}" for f, n in CASES])
def test_story(file: Path, number: int, request: pytest.FixtureRequest) -> None:
    cases = json.loads(file.read_text())
    chosen = json.loads(json.dumps(choose(cases[number])))
    if request.config.getoption("--golden-update") and not os.environ.get("FIRSTMILE_CI"):
        cases[number]["choice"] = chosen
        file.write_text(json.dumps(cases, indent=2) + "\n")
    assert chosen == cases[number].get("choice"), cases[number]["story"]


def test_there_are_stories_of_every_boundary() -> None:
    cases = [json.loads(file.read_text())[number] for file, number in CASES]
    assert len({c["story"] for c in cases}) == len(cases) >= 60
    assert {d["boundary"] for c in cases for d in c["choice"]["dropped"]} == {
        "nothing_for",
        "completed",
        "dismissal",
        "ever",
        "per_day",
        "per_session",
        "cool_down",
        "skips",
        "after",
        "excludes",
        "at_once",
        "all_per_session",
        "all_per_day",
    }
