"""Rules over the model's score: asked once at each change point of the past."""

from types import SimpleNamespace

from feature_repo import domains
from serving.rules import Rules, Segment, fold
from serving.rules.conditions import Engagement, Score
from serving.rules.history import judging

SAAS = domains.load("saas")


def test_the_model_is_asked_at_each_change_point(fakes: SimpleNamespace) -> None:
    rules = Rules(
        "saas",
        [
            Segment("sure", "w", Score(">=", 0.6), Score("<", 0.4)),
            Segment("slowly", "w", Engagement("slow")),
            Segment("through", "w", Engagement("activated")),
        ],
    )
    rows = []
    for at, (clicks, done) in enumerate([(3, 0), (6, 0), (5, 0), (4, 1)]):
        row = dict.fromkeys(SAAS.feature_types) | {"clicks": clicks, "device": "mobile", "activations": done}
        rows.append((at * 10, row, at * 10 + 10))
    moves = fold(rules, rows, judge=judging(fakes.Model(), SAAS)).moves
    assert [f"{m.at_us} {'+' if m.entered else '-'}{m.segment}" for m in moves] == [
        *("0 +slowly", "10 -slowly", "10 +sure", "30 +through")
    ]
    assert moves[2].cause == "score >= 0.6 (is 0.6000)"
