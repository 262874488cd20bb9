import math
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.decide import Asked, Receipt, Situation, Unavailable, decide, decision_id
from serving.experiments.declared import Experiment, Experiments, Step, Variant
from serving.playbook import Playbook
from serving.policy import ElementFeedback, Feedback
from serving.policy.feedback import Exposure
from serving.rules import Membership, Rules, Segment, State
from serving.rules.conditions import Compare

BUSY = Segment("busy", "clicks a lot", Compare("clicks", ">", 5), Compare("clicks", "<", 2))
TRIED = Experiment(
    "tried", "Does thanking help?", "only", (0.0, 1.0), 0, None, (Step(0, 1.0),),
    {"control": Variant(0.0, hide=("help",)), "thanked": Variant(1.0, show=("thanks",))}, "activation",
)  # fmt: skip


def decided(
    fakes: SimpleNamespace,
    found: Any,
    model: Any = "default",
    situation: Situation = Situation(),
    rules: tuple[Segment, ...] = (),
    tried: Experiments | None = None,
) -> Receipt:
    book = Playbook(fakes.POLICY, Rules("tiny", rules), tried or Experiments("tiny"), fakes.LABEL)
    asked = Asked("u", fakes.NOW, decision_id(fakes.NOW, 1))
    return decide(asked, found, situation, fakes.Model(3) if model == "default" else model, book)[0]


def test_a_scored_person_sees_the_journey_of_the_segment(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, fakes.person(2, applied_position=17))
    assert (receipt.known, receipt.segment, receipt.score, receipt.elements) == (True, "slow", 0.2, ("help", "tour"))
    assert receipt.reasons == (
        "score 0.2000 by tiny-engagement version 3: segment slow (below 0.5000)",
        "help for slow: slow people get help",
        "tour for slow: again",
    )
    assert (receipt.model_name, receipt.model_version, receipt.feature_service) == ("tiny-engagement", 3, "tiny_v1")
    assert receipt.features == {"clicks": 2, "device": "mobile", "done": 0}
    assert (receipt.event_us, receipt.applied_position) == (fakes.NOW - 1_000, 17)
    assert receipt.policy_version == fakes.POLICY.version


def test_a_score_on_the_cut_off_is_in_the_higher_segment(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, fakes.person(5))
    assert (receipt.segment, receipt.elements) == ("fast", ())
    assert "segment fast (from 0.5000)" in receipt.reasons[0]


def test_nobody_has_seen_the_person(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, None)
    assert (receipt.known, receipt.segment, receipt.score, receipt.features) == (False, None, None, None)
    assert receipt.reasons == ("unknown user: default journey", "tour for default: all start so")
    assert receipt.model_version == 3


def test_features_could_not_be_read(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, Unavailable("the store is on fire"))
    assert (receipt.known, receipt.segment, receipt.elements) == (False, None, ("tour",))
    assert receipt.reasons[0] == "the store is on fire: default journey"


def test_whoever_is_done_is_not_scored(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, fakes.person(2, done=1), fakes.Model(answer=ValueError("must not be asked")))
    assert (receipt.segment, receipt.score, receipt.elements) == ("finished", None, ("thanks",))
    assert "activation has happened" in receipt.reasons[0]


def test_no_model(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, fakes.person(2), None)
    assert (receipt.known, receipt.segment, receipt.model_name) == (True, None, None)
    assert receipt.reasons[0] == "no model is loaded: not scored"
    assert decided(fakes, fakes.person(2, done=1), None).elements == ("thanks",)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ZeroDivisionError("by nought"), "failed (ZeroDivisionError: by nought)"),
        ((math.nan, "slow"), "gave score nan"),
        ((math.inf, "slow"), "gave score inf"),
        ((0.5, "nowhere"), "segment 'nowhere'"),
        ((0.5,), "failed (ValueError"),
    ],
)
def test_a_model_that_fails_costs_the_segment_not_the_journey(fakes: SimpleNamespace, answer: Any, says: str) -> None:
    receipt = decided(fakes, fakes.person(2), fakes.Model(answer=answer))
    assert (receipt.known, receipt.segment, receipt.score, receipt.elements) == (True, None, None, ("tour",))
    assert says in receipt.reasons[0]
    assert receipt.reasons[0].endswith("not scored")


def test_a_feature_that_the_view_does_not_hold(fakes: SimpleNamespace) -> None:
    model = fakes.Model()
    model.features = ("clicks", "added_in_version_2")
    assert "needs feature 'added_in_version_2'" in decided(fakes, fakes.person(2), model).reasons[0]


def test_a_segment_without_a_journey_is_the_default_journey(fakes: SimpleNamespace) -> None:
    model = fakes.Model(answer=(0.5, "new"))
    model.segments = ("new",)
    receipt = decided(fakes, fakes.person(2), model)
    assert (receipt.segment, receipt.score, receipt.elements) == ("new", 0.5, ("tour",))
    assert "nothing is for new: default journey" in receipt.reasons


def test_what_the_reader_noted_is_said_first(fakes: SimpleNamespace) -> None:
    assert decided(fakes, fakes.person(2, note="features as of yesterday")).reasons[0] == "features as of yesterday"


def test_rules_remember_and_go_on_without_a_model(fakes: SimpleNamespace) -> None:
    was_in = Situation(State({"busy": Membership("in", fakes.NOW - 5)}))
    assert decided(fakes, fakes.person(6), None, rules=(BUSY,)).segments == ("busy",)
    assert decided(fakes, fakes.person(4), None, rules=(BUSY,)).segments == ()
    receipt = decided(fakes, fakes.person(4), None, was_in, (BUSY,))
    assert (receipt.segments, receipt.situation) == (("busy",), was_in)
    assert "busy: clicks a lot" in receipt.reasons


def test_segments_compose_in_the_order_of_the_policy(fakes: SimpleNamespace) -> None:
    assert decided(fakes, fakes.person(6), rules=(BUSY,)).segments == ("busy", "fast")


def test_rules_that_ask_what_the_features_do_not_hold_cost_the_rules_only(fakes: SimpleNamespace) -> None:
    receipt = decided(fakes, fakes.person(2), rules=(Segment("odd", "odd", Compare("nowhere", ">", 5)),))
    assert (receipt.segment, receipt.segments) == ("slow", ("slow",))
    assert any(r.startswith("no rule was asked") and "nowhere" in r for r in receipt.reasons)


def test_a_persona_that_fails_costs_the_persona_only(fakes: SimpleNamespace) -> None:
    model = fakes.Model()
    model.personas, model.persona_one = ("crowd",), lambda values: 1 / 0
    receipt = decided(fakes, fakes.person(2), model)
    assert (receipt.persona, receipt.segment) == (None, "slow")
    assert any("persona" in r and "ZeroDivisionError" in r for r in receipt.reasons)


def test_what_a_boundary_dropped_is_in_the_receipt(fakes: SimpleNamespace) -> None:
    dismissed = Feedback({"help": ElementFeedback(ever=1, shown_us=fakes.NOW - 9, dismissed_us=fakes.NOW - 8)})
    receipt = decided(fakes, fakes.person(2), situation=Situation(feedback=dismissed))
    assert receipt.elements == ("tour",)
    assert [(d.element, d.boundary) for d in receipt.dropped] == [("help", "dismissal")]


def test_a_variant_shows_and_hides_within_the_boundaries(fakes: SimpleNamespace) -> None:
    tried = Experiments("tiny", layers={"only": "salt"}, experiments={"tried": TRIED})
    receipt = decided(fakes, fakes.person(2), tried=tried)
    assert [(v.experiment, v.variant) for v in receipt.variants] == [("tried", "thanked")]
    assert receipt.elements == ("thanks", "help", "tour")
    seen = Feedback(
        {"thanks": ElementFeedback(completed_us=fakes.NOW - 5)}, exposures={"tried": Exposure("thanked", 5)}
    )
    assert decided(fakes, fakes.person(2), situation=Situation(feedback=seen), tried=tried).elements == ("help", "tour")
    assert decided(fakes, fakes.person(2), situation=Situation(paused=("tried",)), tried=tried).variants == ()


def test_the_holdout_gets_the_default_journey_and_is_measured(fakes: SimpleNamespace) -> None:
    everybody = Experiments("tiny", holdout=1.0, layers={"only": "salt"}, experiments={"tried": TRIED})
    receipt = decided(fakes, fakes.person(2), tried=everybody)
    assert (receipt.holdout, receipt.variants, receipt.segment, receipt.elements) == (True, (), "slow", ("tour",))
    done = decided(fakes, fakes.person(8), tried=everybody)
    assert (done.segment, done.elements) == ("fast", ())  # nothing is for them, the default journey neither


def test_whoever_opted_out_is_not_profiled(fakes: SimpleNamespace) -> None:
    model = fakes.Model(answer=ValueError("must not be asked"))
    receipt = decided(fakes, fakes.person(2), model, Situation(opted_out=True), (BUSY,))
    assert (receipt.features, receipt.segment, receipt.segments, receipt.score) == (None, None, (), None)
    assert (receipt.elements, receipt.holdout, receipt.variants) == (("tour",), False, ())
    assert receipt.reasons[0].startswith("opted out")


@given(clicks=st.none() | st.integers(-1000, 1000), done=st.none() | st.integers(0, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_questions_have_equal_answers(fakes: SimpleNamespace, clicks: int | None, done: int | None) -> None:
    rows = [fakes.person(clicks, done=done) for _ in range(2)]
    first, second = (decided(fakes, row) for row in rows)
    assert first == second
    assert (first.segment == "finished") == bool(done)
    assert first.features == rows[0].values


@given(at=st.integers(0, 2**47 * 1_000), later=st.integers(1, 10**12), chance=st.integers(0, 2**62 - 1))
def test_ids_are_version_7_and_ordered_by_time(at: int, later: int, chance: int) -> None:
    first, second = decision_id(at, chance), decision_id(at + later, 0)
    assert first < second
    as_uuid = uuid.UUID(first)
    assert (as_uuid.version, as_uuid.variant) == (7, uuid.RFC_4122)
    assert as_uuid.int >> 80 == at // 1_000
