from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.buckets import unit_interval, weighted

IDS = [f"u{i}" for i in range(4_000)]


def test_the_hash_stays_what_it_is() -> None:
    """People are in experiments by these numbers: a change would draw everybody again."""
    assert unit_interval("layer", "u1") == 0.04431116867347973
    assert unit_interval("", "") == 0.250697583157381


def test_ids_are_uniform_and_salts_independent() -> None:
    a, b = ([unit_interval(salt, i) for i in IDS] for salt in ("a", "b"))
    tenths = Counter((int(10 * x), int(2 * y)) for x, y in zip(a, b, strict=True))
    assert set(tenths) == {(i, j) for i in range(10) for j in range(2)}
    assert all(abs(n - 200) < 60 for n in tenths.values())


def test_salt_and_id_are_not_glued_together() -> None:
    assert unit_interval("a", "bc") != unit_interval("ab", "c")


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_another_pair_is_another_number(salt: str, unit: str, other_salt: str, other: str) -> None:
    same = unit_interval(salt, unit) == unit_interval(other_salt, other)
    assert same == ((salt, unit) == (other_salt, other))


def test_names_are_chosen_by_their_weights() -> None:
    found = Counter(weighted("s", i, {"a": 1, "b": 2, "c": 1}) for i in IDS)
    assert abs(found["b"] - 2_000) < 140 and abs(found["a"] - 1_000) < 120


WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 10), min_size=2)


@given(WEIGHTS, st.floats(0.1, 10), st.randoms())
def test_a_weight_that_changes_moves_only_to_or_from_its_name(weights: dict, new: float, random) -> None:
    name = random.choice(sorted(weights))
    for i in IDS[:200]:
        before, after = weighted("s", i, weights), weighted("s", i, weights | {name: new})
        assert before == after or (after if new > weights[name] else before) == name


@given(WEIGHTS)
def test_a_new_name_only_takes_and_the_order_does_not_matter(weights: dict) -> None:
    for i in IDS[:200]:
        before = weighted("s", i, weights)
        assert weighted("s", i, dict(reversed(weights.items()))) == before
        assert weighted("s", i, weights | {"new": 1.0}) in (before, "new")


def test_without_any_weight_nothing_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="expected one above 0"):
        weighted("s", "u1", {"a": 0})
