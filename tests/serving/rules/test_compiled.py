"""Generated source says what the conditions say, and leaves no rule asleep that could move."""

import operator
from typing import Any as Anything

from hypothesis import event, given, settings
from hypothesis import strategies as st

from serving.rules.compiled import awake, due
from serving.rules.compiled import test as compiled
from serving.rules.conditions import (
    All,
    Any,
    Compare,
    Condition,
    Elapsed,
    Engagement,
    In,
    Never,
    Not,
    Null,
    OneOf,
    Persona,
    Score,
    TimeIn,
)  # fmt: skip
from serving.rules.facts import Scene

MANY = settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples * 20)
NAMES = {">": "gt", ">=": "ge", "<": "lt", "<=": "le", "==": "eq", "!=": "ne"}
ODD = 'it\'s {a} \\ "name"\n'
"""A value, a segment and a persona that would break out of source if they could."""
ORDERS, OPS = st.sampled_from([">", ">=", "<", "<="]), st.sampled_from(list(NAMES))
SHORT = st.integers(0, 9)
TIMES = st.builds(Elapsed, st.just("e"), st.sampled_from(["seen_us", "other_us"]), ORDERS, SHORT)
ATOMS: st.SearchStrategy[Anything] = st.one_of(
    st.builds(Compare, st.just("x"), OPS, st.one_of(st.integers(-1, 3), st.just(1.5))),
    st.builds(Compare, st.just("text"), st.sampled_from(["==", "!="]), st.sampled_from(["a", ODD])),
    st.builds(OneOf, st.just("text"), st.lists(st.sampled_from(["a", ODD]), min_size=1, max_size=2).map(tuple)),
    st.builds(OneOf, st.just("x"), st.tuples(st.integers(0, 3))),
    st.builds(Null, st.sampled_from(["x", "text", "seen_us"]), st.booleans()),
    TIMES,
    TIMES,
    st.builds(Score, OPS, st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(Engagement, st.sampled_from(["p", ODD])),
    st.builds(Persona, st.sampled_from(["p", ODD])),
    st.builds(In, st.sampled_from(["s", ODD])),
    st.builds(TimeIn, st.sampled_from(["s", ODD]), ORDERS, SHORT),
    st.just(Never()),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Any, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
NO_TEXT = st.sampled_from([None, "p", ODD])
SEEN = st.one_of(st.none(), st.integers(0, 10))
SCENES = st.builds(
    Scene,
    st.fixed_dictionaries({
        "x": st.one_of(st.none(), st.integers(-1, 3)), "text": st.sampled_from([None, "a", ODD]),
        "seen_us": SEEN, "other_us": SEEN,
    }),
    st.just(10), st.sampled_from([None, 0.0, 0.5, 1.0]), NO_TEXT, NO_TEXT,
    st.dictionaries(st.sampled_from(["s", ODD]), st.integers(0, 10)),
)  # fmt: skip


def read(condition: Condition, s: Scene) -> bool:
    """The definition, read off the documentation of the conditions."""
    match condition:
        case All(parts=parts):
            return all(read(p, s) for p in parts)
        case Any(parts=parts):
            return any(read(p, s) for p in parts)
        case Not(part=part):
            return not read(part, s)
        case Null(feature=name, null=null):
            return null == (s.values[name] is None)
        case OneOf(feature=name, values=values):
            return s.values[name] in list(values)
        case Engagement(segment=name):
            return name == s.engagement
        case Persona(persona=name):
            return name == s.persona
        case In(segment=name):
            return name in set(s.held)
        case Never():
            return False
    of: Anything = {
        Compare: lambda: s.values[condition.feature],  # type: ignore[union-attr]
        Score: lambda: s.score,
        Elapsed: lambda: None if s.values[condition.of] is None else s.at_us - s.values[condition.of],  # type: ignore
        TimeIn: lambda: s.at_us - s.held[condition.segment] if condition.segment in s.held else None,  # type: ignore
    }[type(condition)]()
    against = condition.us if isinstance(condition, Elapsed | TimeIn) else condition.value  # type: ignore[union-attr]
    return of is not None and getattr(operator, NAMES[condition.op])(of, against)  # type: ignore[union-attr]


@MANY
@given(CONDITIONS, SCENES)
def test_a_compiled_condition_holds_where_its_definition_does(condition: Condition, scene: Scene) -> None:
    event(str(read(condition, scene)))
    assert compiled(condition)(scene) is read(condition, scene)


@MANY
@given(st.lists(CONDITIONS, min_size=1, max_size=5), SCENES)
def test_nothing_sleeps_that_holds_or_falls_due(conditions: list[Condition], scene: Scene) -> None:
    none_sleeps(conditions, scene)


def none_sleeps(conditions: list[Condition], scene: Scene) -> None:
    found = awake(conditions)(scene)
    assert found == sorted(set(found))
    for number, condition in enumerate(conditions):
        foreseen = due(condition)
        moves = read(condition, scene) or (foreseen is not None and foreseen(scene) is not None)
        event(f"moves {moves}, awake {number in found}")
        assert number in found or not moves


@MANY
@given(st.sampled_from([All, Any]), st.tuples(TIMES, TIMES), SCENES)
def test_of_two_passing_times_one_is_enough_to_stay_awake(whole: Anything, times: Anything, scene: Scene) -> None:
    none_sleeps([whole(times)], scene)


def test_most_of_many_rules_sleep() -> None:
    conditions = [All((Elapsed("e", "seen_us", "<", 5), Compare("x", ">", n))) for n in range(1_000)]
    assert awake(conditions)(Scene({"x": 3, "seen_us": 7}, 10)) == [0, 1, 2]
    assert awake(conditions)(Scene({"x": None, "seen_us": 7}, 10)) == []
    assert awake([Any((Elapsed("e", "seen_us", ">", 5), Compare("x", ">", n))) for n in range(9)])(
        Scene({"x": 0, "seen_us": 0}, 10)
    ) == list(range(9))
    later = [Elapsed("e", "seen_us", ">", us) for us in (2, 3, 4)]
    assert awake(later)(Scene({"seen_us": 7}, 10)) == [0, 1, 2]
    assert awake([Elapsed("e", "seen_us", "<", us) for us in (2, 3, 4)])(Scene({"seen_us": 7}, 10)) == [2]
