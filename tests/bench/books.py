"""The files that the services of `decisions` are started with: those of the plain decision, and made-up rules."""

import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from feature_repo.domain import Domain
from serving import playbook
from serving.experiments import parsing
from serving.playbook import Playbook
from serving.policy import loading
from serving.policy.model import DEFAULT
from serving.rules import reading

LARGEST = 60
"""Thresholds are whole numbers up to this."""


def plain(domain: Domain, folder: Path) -> dict[str, str]:
    """Environment of a decision without rules, experiments and boundaries: the journeys alone."""
    journeys = yaml.safe_load(loading.location(domain).read_text())
    for key in ("boundaries", "order"):
        journeys.pop(key, None)
    there = {DEFAULT, *loading.segment_names(domain)}
    every = {name: _journey_alone(element, there) for name, element in journeys["elements"].items()}
    journeys["elements"] = {name: element for name, element in every.items() if element["for"]}
    journeys["nothing_for"] = {s: why for s, why in journeys.get("nothing_for", {}).items() if s in there}
    return {
        loading.VARIABLE: _written(folder / "journeys.yaml", journeys),
        reading.VARIABLE: _written(folder / "no_rules.yaml", {"domain": domain.name, "segments": {}}),
        parsing.VARIABLE: _written(
            folder / "no_experiments.yaml", {"domain": domain.name, "holdout": 0, "layers": {}, "experiments": {}}
        ),
    }


def _journey_alone(element: dict[str, Any], there: Container[str]) -> dict[str, Any]:
    """An element for such of its segments as are there, with nothing that drops it."""
    left = {k: v for k, v in element.items() if k not in ("limits", "dismissal", "after", "skips", "excludes")}
    left["for"] = [s for s in element["for"] if s in there]
    if isinstance(why := element["why"], dict):
        left["why"] = {s: words for s, words in why.items() if s in there}
    return left


def ruled(domain: Domain, folder: Path, many: int) -> dict[str, str]:
    """Environment of a decision with so many rules: those that ship, and made-up ones; all else as it ships."""
    rules = yaml.safe_load(reading.location(domain).read_text())
    more = many - len(rules["segments"])
    rules["segments"] |= {f"made_{number}": segment for number, segment in enumerate(made_up(domain, more))}
    return {reading.VARIABLE: _written(folder / f"rules_{many}.yaml", rules)}


def made_up(domain: Domain, many: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Rules over the domain's catalogue in turn: one question, all of three, any of two, a passing time, hysteresis."""
    chance = Random(seed)
    numbers = sorted(n for n, t in domain.feature_types.items() if t == "int64" and not n.endswith("_us"))

    def more() -> str:
        return f"{chance.choice(numbers)} > {chance.randint(0, LARGEST)}"

    for number in range(many):
        passing = f"{chance.choice(domain.elapsed).name} < {chance.randint(1, 30)} days"
        three, two = chance.sample(numbers, 3), chance.sample(numbers, 2)
        kinds: list[dict[str, Any]] = [
            {"when": more()},
            {"when": {"all": [f"{name} > {chance.randint(0, LARGEST)}" for name in three]}},
            {"when": {"any": [f"{name} > {chance.randint(0, LARGEST)}" for name in two]}},
            {"when": {"all": [passing, more()]}},
            {"enter": f"{two[0]} > {LARGEST // 2}", "exit": f"{two[0]} < 5", "stay_at_least": "1 hour"},
        ]
        yield {"why": f"made up, number {number}", **kinds[number % len(kinds)]}


def book(domain: Domain, environment: Mapping[str, str]) -> Playbook:
    """What a service with this environment decides by."""
    with mock.patch.dict(os.environ, environment):
        return playbook.for_domain(domain)


def _written(file: Path, content: Mapping[str, Any]) -> str:
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return str(file)
