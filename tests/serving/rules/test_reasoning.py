"""What is said to be impossible is never found, and what is possible in a small world is seen to be."""

from dataclasses import replace
from itertools import product
from typing import Any as Anything

from hypothesis import event, given, settings
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.vocabulary import Feature, Last, LastTime
from serving.rules.catalogue import Catalogue
from serving.rules.compiled import test as compiled
from serving.rules.conditions import All, Any, Compare, Condition, Elapsed, Engagement, Not, Null, OneOf, Score
from serving.rules.facts import Scene
from serving.rules.reasoning import Reasoning

SAAS = domains.load("saas")
FEATURES = (Feature("x", Last("bytes"), ""), Feature("text", Last("plan"), ""), Feature("seen_us", LastTime(), ""))
LABEL = replace(SAAS.label, done=None)
REASONING = Reasoning(
    Catalogue(replace(SAAS, features=FEATURES, elapsed=(), slices=(), said={}, acts=(), sensitive=(), label=LABEL))
)
MANY = settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples * 10)
OPS = st.sampled_from([">", ">=", "<", "<=", "==", "!="])
WORLD = [
    Scene({"x": x, "text": text, "seen_us": seen}, 3, score, engagement)
    for x, text, seen, score, engagement in product(
        [None, *range(-1, 5)], [None, "a", "b", "c"], [None, 0, 1, 2, 3], [None, 0.0, 0.5, 1.0], [None, "p", "q"]
    )
]

ATOMS: st.SearchStrategy[Anything] = st.one_of(
    st.builds(Compare, st.just("x"), OPS, st.one_of(st.integers(0, 3), st.just(1.5))),
    st.builds(Compare, st.just("text"), st.sampled_from(["==", "!="]), st.sampled_from("ab")),
    st.builds(OneOf, st.just("x"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.builds(OneOf, st.just("text"), st.tuples(st.sampled_from("ab"), st.sampled_from("ab"))),
    st.builds(Null, st.sampled_from(["x", "text", "seen_us"]), st.booleans()),
    st.builds(Elapsed, st.just("e"), st.just("seen_us"), st.sampled_from([">", ">=", "<", "<="]), st.integers(0, 3)),
    st.builds(Score, OPS, st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(Engagement, st.sampled_from("pq")),
)


def _wholes(inner: st.SearchStrategy[Anything]) -> st.SearchStrategy[Anything]:
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, inner), st.builds(All, some), st.builds(Any, some))


CONDITIONS = st.recursive(ATOMS, _wholes, max_leaves=7)


@MANY
@given(CONDITIONS)
def test_possible_is_what_somebody_can_meet(condition: Condition) -> None:
    met = any(map(compiled(condition), WORLD))
    event(f"met: {met}")
    if met:
        assert REASONING.possible(condition)


@MANY
@given(st.lists(st.builds(Compare, st.just("x"), OPS, st.integers(0, 3)), min_size=1, max_size=4).map(tuple))
def test_impossible_numbers_are_all_seen(parts: tuple[Condition, ...]) -> None:
    met = any(map(compiled(All(parts)), WORLD))
    event(f"met: {met}")
    assert REASONING.possible(All(parts)) is met


@MANY
@given(CONDITIONS, CONDITIONS)
def test_what_is_implied_holds_for_everybody(first: Condition, then: Condition) -> None:
    left, right = compiled(first), compiled(then)
    if REASONING.implies(first, then):
        event("implied")
        assert all(right(scene) for scene in WORLD if left(scene))
    assert REASONING.implies(first, Any((first, then)))
    assert REASONING.implies(All((first, then)), then)
