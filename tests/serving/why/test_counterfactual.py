"""What would change the outcome: what is promised comes about, and with fewer acts it does not."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from serving.rules import Facts, State, for_domain, step
from serving.why.counterfactual import CALLS, Counterfactual, Searcher
from serving.why.further import Further
from tests.serving.why.people import NOW, SAAS, make_people, model

PEOPLE = make_people(120, seed=7)
SEARCHER = Searcher(SAAS)
ACTS = {a.one: a for a in SAAS.acts}
QUICK = settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))


def done(values: dict, does: tuple[tuple[str, int], ...]) -> dict:
    for one, n in does:
        for _ in range(n):
            values = Further(SAAS).after(values, ACTS[one], NOW).values
    return values


def score(values: dict) -> tuple[float, str]:
    m = model()
    return m.score_one([values[f] for f in m.features])


def search(values: dict) -> Counterfactual | None:
    return SEARCHER.engagement(model(), values, score(values)[1], NOW)


@QUICK
@given(st.sampled_from(PEOPLE))
def test_who_does_it_is_where_it_says(values: dict) -> None:
    order, now = [s.name for s in SAAS.segments], score(values)[1]
    found = search(values)
    if found is not None:
        assert score(done(values, found.does))[1] == found.segment
        assert order.index(found.segment) > order.index(now)


@QUICK
@given(st.sampled_from(PEOPLE))
def test_fewer_acts_of_one_kind_do_not_do(values: dict) -> None:
    order, now = [s.name for s in SAAS.segments], score(values)[1]
    found = search(values)
    if found is None:
        return
    fewer = sum(n for _, n in found.does) if len(found.does) == 1 else 9
    for one in (one for one in ACTS if possible(values, one)):
        for n in range(1, fewer):
            assert order.index(score(done(values, ((one, n),)))[1]) <= order.index(now)


def possible(values: dict, one: str) -> bool:
    return ACTS[one].needs is None or values[ACTS[one].needs] > 0


def test_nobody_is_told_to_do_again_what_they_never_did() -> None:
    for used, never in ((1, set()), (0, {"use of a feature tried before"})):
        ways = SEARCHER._ways(PEOPLE[0] | {"features_used": used}, NOW)
        assert {one for way in ways for one, _ in way.does} == set(ACTS) - never


def test_many_people_have_one() -> None:
    found = [search(p) for p in PEOPLE if score(p)[1] != "racing"]
    assert sum(f is not None for f in found) > len(found) / 2


def test_the_best_off_have_none() -> None:
    assert SEARCHER.engagement(model(), PEOPLE[0], "racing", NOW) is None
    assert SEARCHER.engagement(model(), PEOPLE[0], "activated", NOW) is None


def test_of_an_outcome_that_nobody_wishes_for_the_lower_segments_are_better() -> None:
    from dataclasses import replace

    bad = replace(SAAS, label=replace(SAAS.label, good=False))
    assert Searcher(bad).engagement(model(), PEOPLE[0], "at_risk", NOW) is None


def test_calls_are_bounded() -> None:
    class Stubborn:
        """Asks the real model, and stays where it is."""

        calls = 0
        name, version, feature_service, personas = "stubborn", 1, "saas_v1", ()
        features, segments, cutoffs = model().features, model().segments, model().cutoffs

        def score_one(self, values: list) -> tuple[float, str]:
            self.calls += 1
            return model().score_one(values)[0], "at_risk"

    stubborn = Stubborn()
    assert SEARCHER.engagement(stubborn, PEOPLE[0], "at_risk", NOW) is None
    assert stubborn.calls == CALLS


@pytest.mark.parametrize("n", range(10))
def test_a_rule_that_would_hold(n: int) -> None:
    rules, facts = for_domain(SAAS), Facts(PEOPLE[n], NOW)
    before = step(rules, State(), facts)
    found = SEARCHER.rule(rules, before.state, facts, None)
    if found is None:
        return
    after = step(rules, before.state, Facts(done(PEOPLE[n], found.does), NOW))
    assert found.segment in after.held and found.segment not in before.held


def test_words() -> None:
    found = Counterfactual("at_risk", "engagement", (("file of 1 MB uploaded", 1), ("page seen", 3)), {})
    assert (
        SEARCHER.words(found)
        == "With one more file of 1 MB uploaded and three more pages seen they would be in at risk."
    )


def test_who_uploads_needs_only_one_file_more() -> None:
    """Somebody just below a cut-off that uploads decide."""
    near = [(p, found) for p in PEOPLE if (found := search(p)) and found.does == (("file of 1 MB uploaded", 1),)]
    assert near
    p, found = near[0]
    assert (found.values["uploads"], found.values["interactions"]) == (p["uploads"] + 1, p["interactions"] + 1)
    assert found.values["country"] == p["country"] and found.values["errors"] == p["errors"]
