"""What holds of every choice, whatever the policy and the past; single cases are in tests/golden/policy."""

import random
from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.feedback import COMPLETED, DISMISSED, SHOWN
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import DAY, HOUR, MINUTE
from serving.policy import Choice, Feedback, Policy, choose, fold
from tests.serving.policy.lives import GAP, NOW, SEGMENTS, histories, policies, row

ASKED = st.lists(st.sampled_from([*SEGMENTS, "unheard_of"]), unique=True)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 10 * MINUTE, GAP, GAP + 1, HOUR, DAY - 1, DAY, 3 * DAY]),
        ASKED,
        st.sampled_from([None, None, DISMISSED, COMPLETED]),
    ),
    max_size=12,
)


def life(policy: Policy, steps: list[tuple[int, list[str], str | None]]) -> list[tuple[int, Choice, list[Row]]]:
    """A life in which all that is chosen is shown, and now and then the first is dismissed or completed.

    Gives (time, choice, the events before it).
    """
    at_us, rows, lived = NOW, list[Row](), list[tuple[int, Choice, list[Row]]]()
    for pause, segments, then in steps:
        at_us += pause
        choice = choose(policy, segments, fold(rows, at_us, GAP), at_us)
        lived.append((at_us, choice, list(rows)))
        rows += [row(len(rows) + i, SHOWN, at_us, element=e) for i, e in enumerate(choice.elements)]
        if then and choice.elements:
            rows.append(row(len(rows), then, at_us, element=choice.elements[0]))
    return lived


def shown(rows: list[Row]) -> list[tuple[int, str]]:
    return [(r.ts_us, r.properties.split('"')[3]) for r in rows if r.name == SHOWN]


@given(policies(), STEPS)
def test_boundaries_hold_along_a_life(policy: Policy, steps: list[tuple[int, list[str], str | None]]) -> None:
    limits = policy.boundaries
    for at_us, choice, rows in life(policy, steps):
        assert len(choice.elements) <= limits.at_once
        after = shown(rows) + [(at_us, e) for e in choice.elements]
        if choice.elements:
            assert limits.per_day is None or sum(ts > at_us - DAY for ts, _ in after) <= limits.per_day
            assert limits.per_session is None or _of_session(after, at_us) <= limits.per_session
        for e in policy.elements:
            mine = [(ts, name) for ts, name in after if name == e.name]
            if e.name not in choice.elements:
                continue
            assert e.limits.ever is None or len(mine) <= e.limits.ever
            assert e.limits.per_day is None or sum(ts > at_us - DAY for ts, _ in mine) <= e.limits.per_day
            assert e.limits.per_session is None or _of_session(mine, at_us, after) <= e.limits.per_session
            assert not e.limits.cool_down_us or len(mine) < 2 or at_us - mine[-2][0] >= e.limits.cool_down_us


def _of_session(times: list[tuple[int, str]], at_us: int, every: list[tuple[int, str]] | None = None) -> int:
    """How many of these are of the session of `at_us`: nothing between them and it is further apart than the gap."""
    began = at_us
    for ts in sorted({ts for ts, _ in every or times}, reverse=True):
        began = ts if began - ts <= GAP else began
    return sum(max(began, at_us - DAY + 1) <= ts for ts, _ in times)


@given(policies(), STEPS)
def test_nobody_gets_what_they_dismissed_or_have_done(
    policy: Policy, steps: list[tuple[int, list[str], str | None]]
) -> None:
    named = {e.name: e for e in policy.elements}
    for at_us, choice, rows in life(policy, steps):
        for r in rows:
            e = named[r.properties.split('"')[3]]
            if r.name == DISMISSED and (e.again_after_us is None or at_us - r.ts_us < e.again_after_us):
                assert e.name not in choice.elements
            if r.name == COMPLETED and not e.repeats:
                assert e.name not in choice.elements


@given(policies(), ASKED, histories())
def test_every_element_of_the_segments_is_shown_or_explained(policy: Policy, asked: list[str], rows: list[Row]) -> None:
    choice = choose(policy, asked, fold(rows, NOW, GAP), NOW)
    segments = [s for s in asked if s in policy.segments] or ["default"]
    given_ = {e.name for e in policy.elements if set(e.segments) & (set(segments) - set(policy.nothing_for))}
    told = Counter([*choice.elements, *(d.element for d in choice.dropped)])
    assert told == dict.fromkeys(given_, 1)
    assert all(d.boundary and d.detail for d in choice.dropped)
    assert len(choice.why) >= max(1, len(choice.elements))


@given(policies(), ASKED, histories())
def test_what_is_shown_together_may_be(policy: Policy, asked: list[str], rows: list[Row]) -> None:
    past = fold(rows, NOW, GAP)
    choice = choose(policy, asked, past, NOW)
    done = {e for e, seen in past.elements.items() if seen.completed_us is not None}
    skipped = {n for e in policy.elements if e.name in {*choice.elements, *done} for n in e.skips}
    for e in policy.elements:
        if e.name in choice.elements:
            assert set(e.after) <= done | skipped
            assert not set(e.excludes) & set(choice.elements)
    first_skipped = [n for n in choice.elements if n in skipped]
    assert all(any(e.skips for e in policy.elements if e.name == n) for n in first_skipped)


@given(policies(), ASKED, histories(), st.randoms(use_true_random=False))
def test_equal_questions_have_equal_answers(
    policy: Policy, asked: list[str], rows: list[Row], chance: random.Random
) -> None:
    choice = choose(policy, asked, fold(rows, NOW, GAP), NOW)
    mixed = chance.sample(rows, len(rows))
    assert choose(Policy.from_content(policy.content), asked, fold(mixed, NOW, GAP), NOW) == choice


@given(policies(), ASKED, histories())
def test_a_receipt_needs_the_policy_s_elements_only(policy: Policy, asked: list[str], rows: list[Row]) -> None:
    named = {e.name for e in policy.elements[:2]}
    smaller = msgspec.structs.replace(policy, elements=tuple(e for e in policy.elements if e.name in named))
    past = fold(rows, NOW, GAP)
    kept = past.only(named, {"x"})
    assert choose(smaller, asked, kept, NOW) == choose(smaller, asked, past, NOW)
    assert kept.elements.keys() <= named and kept.exposures.keys() == past.exposures.keys() & {"x"}


@given(policies(), st.lists(st.sampled_from(SEGMENTS), unique=True, min_size=1))
def test_the_elements_of_the_first_segment_come_first(policy: Policy, asked: list[str]) -> None:
    asked = [s for s in asked if s in policy.segments]
    choice = choose(policy, asked, Feedback(), NOW)
    skipping = {e.name for e in policy.skip_steps}
    named = {e.name: e for e in policy.elements}
    gave = [[s for s in asked if named[n] in policy.segments[s]] for n in choice.elements if n not in skipping]
    places = [asked.index(segments[0]) for segments in gave if asked]
    assert places == sorted(places)
