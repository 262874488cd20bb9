"""Decisions that a product manager can read: who, with which features, score and past -> what they see, and why.

They are in tests/golden/decisions/*.json, over the shipped rules, policies and experiments. What a case does not say
of a person is as of somebody of whom nothing else is known: counts are 0, all else is null. To change or add one, write
all but its `decision`, then `pytest tests/serving/test_golden_decisions.py --golden-update`, and read what came.
"""

import json
import os
from pathlib import Path

import pytest

from tests.serving.decisions import shipped, told, words

FOLDER = Path(__file__).parents[1] / "golden" / "decisions"
FILES = {file: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
CASES = [(file, number) for file, cases in FILES.items() for number in range(len(cases))]
EVERY = [case for cases in FILES.values() for case in cases]
DOMAINS = ("saas", "oulad")


@pytest.mark.parametrize(("file", "number"), CASES, ids=[f"{f.stem}-{n}" for f, n in CASES])
def test_story(file: Path, number: int, request: pytest.FixtureRequest) -> None:
    case, decided = FILES[file][number], words(told(FILES[file][number]))
    if request.config.getoption("--golden-update") and not os.environ.get("FIRSTMILE_CI"):
        case["decision"] = decided
        file.write_text(json.dumps(FILES[file], indent=2, ensure_ascii=False) + "\n")
    assert decided == case.get("decision"), case["story"]


def test_there_are_at_least_a_hundred_and_no_two_are_the_same() -> None:
    assert len({c["story"] for c in EVERY}) == len(EVERY) >= 100
    told_of = {json.dumps({k: v for k, v in c.items() if k not in ("story", "decision")}) for c in EVERY}
    assert len(told_of) == len(EVERY)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_segment_is_entered_and_where_it_can_be_kept_beyond_its_condition(domain: str) -> None:
    cases, rules = [c for c in EVERY if c["domain"] == domain], shipped(domain).rules
    entered = {s for c in cases for s in c["decision"]["segments"] if s not in c.get("held", {})}
    kept = {s for c in cases for s in c["decision"]["segments"] if s in c.get("held", {})}
    left = {s for c in cases for s in c.get("held", {}) if s not in c["decision"]["segments"]}
    assert set(rules.segments) <= entered
    assert {s.name for s in rules.declared.values() if s.exit is not None} <= kept
    assert {s.name for s in rules.declared.values() if s.name != "inviter"} <= left  # whoever has invited, stays


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_element_is_shown_and_dropped_by_all_that_it_declares(domain: str) -> None:
    cases = [c["decision"] for c in EVERY if c["domain"] == domain]
    dropped = {tuple(d.split(", ")[0].split(": ")) for c in cases for d in c["dropped"]}
    policy = shipped(domain).policy
    assert {e.name for e in policy.elements} == {name for c in cases for name in c["elements"]}
    limits = {(e.name, b) for e in policy.elements for b in ("ever", "per_day", "per_session") if getattr(e.limits, b)}
    limits |= {(e.name, "cool_down") for e in policy.elements if e.limits.cool_down_us}
    limits |= {(e.name, "completed") for e in policy.elements if not e.repeats}
    assert limits | {(e.name, "dismissal") for e in policy.elements} <= dropped
    general = {f"all_{b}" for b in ("per_session", "per_day") if getattr(policy.boundaries, b)}
    added = [len(v.show) for e in shipped(domain).experiments.experiments.values() for v in e.variants.values()]
    longest = max(map(len, policy.segments.values())) + max(added, default=0)
    general |= {"at_once"} if longest > policy.boundaries.at_once else set()
    both = policy.nothing_for and any(policy.segments.get(name) for name in shipped(domain).rules.segments)
    general |= {"nothing_for"} if both else set()
    assert general <= {boundary for _, boundary in dropped}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_engagement_segment_variant_and_state_of_an_experiment(domain: str) -> None:
    cases, book = [c for c in EVERY if c["domain"] == domain], shipped(domain)
    label = [book.label.done_segment] if book.label.done else []
    held = {s for c in cases for s in c["decision"]["segments"]}
    assert set(book.policy.segments) - {"default"} <= held and set(label) <= held
    wanted = {(e.name, v) for e in book.experiments.experiments.values() for v in e.variants}
    assert wanted <= {pair for c in cases for pair in c["decision"]["variants"].items()}
    assert not wanted or {True, False} == {c["decision"]["holdout"] for c in cases}
    for state in ("paused", "killed", "ended") if wanted else ():
        assert set(book.experiments.experiments) <= {e for c in cases for e in c.get(state, ())}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("state", ["unknown", "unavailable", "opted_out", "no_model"])
def test_every_fallback(domain: str, state: str) -> None:
    assert any(c.get(state) for c in EVERY if c["domain"] == domain)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_model_that_fails(domain: str) -> None:
    assert any("failed (RuntimeError" in why for c in EVERY if c["domain"] == domain for why in c["decision"]["why"])
