"""`explain: true`, and what the person is told: all of it together, over real decisions of domain saas."""

from typing import Any

import msgspec
import pytest

from serving import playbook
from serving.decide import Asked, Model, Placed, Receipt, Situation, Snapshot, Unavailable, decide
from serving.policy import ElementFeedback, Feedback
from serving.policy.feedback import Exposure
from serving.rules import Membership, State
from serving.why import person
from serving.why.answers import Explanation, Why
from serving.why.contributions import of_decision, strongest
from serving.why.explanation import Explainer
from serving.why.page import page
from tests.serving.why.people import NOW, SAAS, make_people, model

PEOPLE = make_people(200, seed=11)
BOOK = playbook.for_domain(SAAS)
EXPLAINER = Explainer(SAAS)
MODEL = model()
PATH = "/v1/users/u-1"


def decided(
    values: dict[str, Any] | None, situation: Situation | None = None, asked: Model | None = MODEL, user: str = "u-1"
) -> tuple[Receipt, Placed]:
    found = None if values is None else Snapshot(values, NOW - 5_000_000, 7)
    return decide(Asked(user, NOW, "0" * 32), found, situation or Situation(), asked, BOOK)


def explained(
    values: dict[str, Any] | None, situation: Situation | None = None, asked: Model | None = MODEL
) -> Explanation:
    receipt, placed = decided(values, situation, asked)
    return EXPLAINER.explain(receipt, placed, asked, BOOK, of_decision(asked, receipt))


def told(values: dict[str, Any] | None, situation: Situation | None = None, user: str = "u-1") -> Why:
    receipt, _ = decided(values, situation, user=user)
    return person.why(EXPLAINER, receipt, BOOK, MODEL, of_decision(MODEL, receipt), PATH)


def test_contributions_are_exact() -> None:
    """With the base value they sum up to the log odds."""
    receipt, _ = decided(PEOPLE[0])
    effects = of_decision(MODEL, receipt)
    assert effects is not None
    row = MODEL.candidate.encoder_.row([PEOPLE[0][f] for f in MODEL.inputs])
    base = MODEL.candidate.booster_.predict(row, pred_contrib=True)[0, -1]
    assert sum(effects.values()) + base == pytest.approx(MODEL.candidate.margins(row).item(), abs=1e-9)
    assert [c.feature for c in strongest(effects, PEOPLE[0])] == sorted(effects, key=lambda f: -abs(effects[f]))[:5]


def test_of_another_model_nothing_is_told() -> None:
    receipt, _ = decided(PEOPLE[0])
    assert of_decision(model(version=2, seed=2), receipt) is None


def test_nothing_sensitive_is_told_of_a_model_that_reads_none() -> None:
    asked = model(without=SAAS.sensitive)
    assert "country" in asked.features and "country" not in asked.reads
    for values in PEOPLE[:20]:
        receipt, _ = decided(values, asked=asked)
        effects = of_decision(asked, receipt)
        assert effects and "country" not in effects
        why = person.why(EXPLAINER, receipt, BOOK, asked, effects, PATH)
        for answer in (why, explained(values, asked=asked)):
            assert b"country" not in msgspec.json.encode(answer)
    assert b"country" in msgspec.json.encode(explained(PEOPLE[0])), "a model that reads it does tell of it"


def test_all_of_it() -> None:
    answer = explained(PEOPLE[0])
    assert answer.sentences[0].endswith("publishes a first project within 14 days of the sign-up.")
    assert answer.data.as_of == "2026-03-31T23:33:15.000000Z"
    assert {"uploads", "sessions"} <= set(answer.data.features)
    assert answer.data.features["uploads"] == f"files uploaded ({PEOPLE[0]['uploads']})"


def test_every_experiment_is_named_once_with_its_variant_and_why() -> None:
    seen = {"help_early": Exposure("control", NOW - 1)}
    receipt, placed = decided(PEOPLE[0], Situation(feedback=Feedback(exposures=seen)))
    answer = EXPLAINER.explain(receipt, placed, MODEL, BOOK, of_decision(MODEL, receipt))
    names = [v.experiment for v in receipt.variants]
    assert "help_early" in names and len(answer.variants) == len(names)
    for name, said in zip(names, answer.variants, strict=True):
        assert said.startswith(f"{name}: ") and said.count(name) == 1


def test_every_rule_that_holds_says_with_which_values() -> None:
    values = PEOPLE[0] | {"sessions": 6, "features_used": 2}
    held = {r.segment: r for r in explained(values).rules}
    assert held["active_learner"].because == "sessions > 5 (is 6)"
    assert held["active_learner"].why == "came back more than five times"
    assert held["getting_going"].because == "features_used >= 2 (is 2)"
    receipt, _ = decided(values)
    assert set(held) == set(receipt.segments) - {receipt.segment}


def test_a_rule_that_is_only_not_left_yet_says_so() -> None:
    entered = Situation(State({"power_user": Membership("in", NOW - 1_000)}))
    values = PEOPLE[0] | {"features_used": 0, "invitations": 0, "interactions_7d": 3}
    (held,) = [r for r in explained(values, entered).rules if r.segment == "power_user"]
    assert held.because == "not interactions_7d == 0 (is 3)"
    assert held.since == "2026-03-31T23:33:19.999000Z"


def test_a_rule_within_reach() -> None:
    values = PEOPLE[0] | {"sessions": 1, "features_used": 1, "invitations": 1, "uploads": 0, "interactions_7d": 2}
    found = explained(values).rule_within_reach
    assert found is not None
    assert (found.segment, found.source) == ("getting_going", "rules")
    assert found.words == "With one more new feature tried they would be in getting going."


@pytest.mark.parametrize(
    ("values", "situation", "asked", "said"),
    [
        (None, Situation(), MODEL, "Nothing is known about this person."),
        (PEOPLE[0], Situation(opted_out=True), MODEL, "This person opted out: nothing about them is looked at."),
        (PEOPLE[0], Situation(), None, "How much each thing counted cannot be told of this decision."),
        (PEOPLE[0] | {"activations": 1}, Situation(), MODEL, "It has happened already that this person publishes"),
    ],
)
def test_where_nobody_is_scored_it_says_why(values: Any, situation: Situation, asked: Any, said: str) -> None:
    answer = explained(values, situation, asked)
    assert len(answer.sentences) == 1 and answer.sentences[0].startswith(said)
    assert answer.counterfactual is None


def test_what_a_boundary_dropped() -> None:
    closed = Situation(feedback=Feedback({"checklist": ElementFeedback(ever=1, dismissed_us=NOW - 3_600_000_000)}))
    values = next(p for p in PEOPLE if "checklist" in decided(p)[0].elements)
    words = "dismissed 1 hour ago, never again"
    assert any("(checklist)" in d and d.endswith(words) for d in explained(values, closed).dropped)
    assert ("you had closed it") in [e.why for e in told(values, closed).not_shown]


def test_the_person_reads_every_element_with_its_reason() -> None:
    for values in PEOPLE[:50]:
        receipt, _ = decided(values)
        shown = told(values).shown
        titles = {e.name: e.title for e in BOOK.policy.elements}
        assert [e.title for e in shown] == [titles[name] for name in receipt.elements]
        assert all(e.why for e in shown)


def test_who_is_always_shown_the_default_journey_is_given_its_reasons() -> None:
    holdout = next(f"u-{n}" for n in range(100) if decided(PEOPLE[0], user=f"u-{n}")[0].holdout)
    why = {e.title: e.why["default"] for e in BOOK.policy.elements if "default" in e.why}
    for values in PEOPLE[:20]:
        shown = told(values, user=holdout).shown
        assert not [s for s in told(values, user=holdout).sentences if s.startswith("With ")]
        assert shown and all(e.why == why[e.title] for e in shown)


def test_what_would_change_it_is_said_to_the_person() -> None:
    said = [s for values in PEOPLE[:50] for s in told(values).sentences]
    assert any(s.startswith("With ") and s.endswith("what fits people who are further on.") for s in said)


def test_no_internals_and_nobody_else() -> None:
    """No names of models, segments, elements, experiments or features, no score, no hash, no id."""
    internal = {
        *SAAS.feature_types, *BOOK.policy.segments, *BOOK.rules.segments, *(e.name for e in BOOK.policy.elements),
        *BOOK.experiments.experiments, MODEL.name, BOOK.version, BOOK.policy.version, "u-somebody-else",
    }  # fmt: skip
    internal = {name for name in internal if "_" in name or len(name) == 12}
    holdout = next(f"u-{n}" for n in range(100) if decided(PEOPLE[0], user=f"u-{n}")[0].holdout)
    for values in PEOPLE[:60]:
        for user in ("u-1", holdout):
            answer = told(values, user=user)
            said = [
                *answer.sentences,
                *answer.data,
                *(w for e in (*answer.shown, *answer.not_shown) for w in (e.title, e.why)),
            ]
            score = decided(values)[0].score
            for text in said:
                assert not [name for name in internal if name in text], text
                assert f"{score:.2f}" not in text and "log odds" not in text and "segment" not in text
    assert any("always shown what everybody is shown" in s for s in told(PEOPLE[0], user=holdout).sentences)


def test_every_boundary_has_words() -> None:
    """Those that the policy's code names."""
    import inspect
    import re

    from serving.policy import choice

    named = set(re.findall(r'(?:return|Dropped\(e\.name,) "([a-z_]+)"', inspect.getsource(choice)))
    assert named and named <= set(person.BOUNDARIES), named - set(person.BOUNDARIES)


def test_a_store_that_was_down_is_said() -> None:
    receipt, _ = decide(Asked("u-1", NOW, "0" * 32), Unavailable("down"), Situation(), MODEL, BOOK)
    answer = person.why(EXPLAINER, receipt, BOOK, MODEL, None, PATH)
    assert "could not be read" in answer.sentences[0] and "down" not in answer.sentences[0]


def test_choices_name_the_routes() -> None:
    choices = " ".join(told(None).your_choices)
    for route in (f"PUT {PATH}/opt-out", f"DELETE {PATH}/opt-out", f"GET {PATH}", f"DELETE {PATH}"):
        assert route in choices


def test_the_page_shows_what_the_answer_holds_and_escapes_it() -> None:
    answer = msgspec.structs.replace(told(PEOPLE[0]), data=["role (<script>alert(1)</script>)"])
    html = page(answer)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http:" not in html and "https:" not in html and "src=" not in html
    for text in (*answer.sentences, *answer.your_choices):
        assert text in html
    assert html.count("<dt>") == len(answer.shown) + len(answer.not_shown)
    assert '<html lang="en">' in html and "width=device-width" in html


def test_the_page_of_nobody_has_no_empty_parts() -> None:
    html = page(person.undecided(PATH))
    assert html.count("<section>") == 2 and "<ul></ul>" not in html and "<time" not in html
