"""Contributions in words: golden files, a story each, and what holds of any of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import domains
from serving.why.sentences import MOST, sentences, signs, to_the_person
from serving.why.words import Words

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "why").glob("*.json"))
SAAS = domains.load("saas")
FEATURES = [*SAAS.feature_types, *(e.name for e in SAAS.elapsed)]
EFFECTS = st.dictionaries(st.sampled_from(FEATURES), st.floats(-3, 3), max_size=12)


def test_there_are_stories() -> None:
    assert len(GOLDEN) >= 20


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_story(path: Path) -> None:
    story: dict[str, Any] = json.loads(path.read_text())
    asked = (domains.load(story["domain"]), story["effects"], story["values"], story["at_us"])
    assert sentences(*asked) == story["sentences"]
    assert to_the_person(*asked) == story["to the person"]


@settings(deadline=None)
@given(EFFECTS)
def test_two_or_three_sentences_and_nothing_twice(effects: dict[str, float]) -> None:
    said = sentences(SAAS, effects, {}, 0)
    assert 2 <= len(said) <= 3
    told = [
        w for w in map(Words(SAAS).name, effects) if any(re.search(f"(: |, |and ){re.escape(w)} \\(", s) for s in said)
    ]
    assert len(told) <= 2 * MOST


@settings(deadline=None)
@given(EFFECTS)
def test_no_effect_is_lost(effects: dict[str, float]) -> None:
    found = signs(SAAS, effects)
    assert sum(s.effect for s in found) == pytest.approx(sum(effects.values()), abs=1e-9)
    assert [abs(s.effect) for s in found] == sorted((abs(s.effect) for s in found), reverse=True)
    assert all(effects[s.feature] * s.effect >= 0 for s in found)


@pytest.mark.parametrize("name", domains.names())
def test_every_feature_has_a_name_without_jargon(name: str) -> None:
    domain = domains.load(name)
    for feature in [*domain.feature_types, *(e.name for e in domain.elapsed)]:
        said = Words(domain).name(feature)
        assert "_" not in said and ":" not in said and len(said) <= 70, said


@pytest.mark.parametrize(
    ("feature", "value", "words"),
    [
        ("session_time", 90_000, "1 minute"),
        ("since_last_event", 7200.0, "2 hours"),
        ("last_event_us", 1_000_000_000, "3 days ago"),
        ("upload_bytes", 3_400_000, "3.4 MB"),
        ("sessions", 3, "3"),
        ("role", None, "not answered"),
        ("since_signup", None, "not signed up yet"),
        ("click_to_signup", 1 / 3, "0.33"),
    ],
)
def test_values_are_in_units_of_people(feature: str, value: Any, words: str) -> None:
    assert Words(SAAS).value(feature, value, 3 * 86_400_000_000 + 1_000_000_000) == words


def test_a_scale_is_named() -> None:
    assert Words(domains.load("oulad")).value("mean_score", 71.5, 0) == "71.5 points of 100"
